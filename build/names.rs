//! Names of the remote API as names of Rust.

pub fn namespace(module: &str) -> &str {
    match module {
        "core" | "elements" | "filters" => "kurento",
        other => other,
    }
}

pub fn capitalised(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

/// `externalIPv4` → `external_ipv4`, `ICECandidatePairs` → `ice_candidate_pairs`.
pub fn snake(name: &str) -> String {
    let chars: Vec<char> = name.replace("IPv", "Ipv").chars().collect();
    let mut text = String::new();
    for (at, &char) in chars.iter().enumerate() {
        let after_small = at > 0 && !chars[at - 1].is_uppercase();
        let before_small = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
        if char.is_uppercase() && at > 0 && (after_small || before_small) {
            text.push('_');
        }
        text.extend(char.to_lowercase());
    }
    if text == "type" { "r#type".into() } else { text }
}

/// `WebRtcEndpoint` with prefix `CLASS` → `CLASS_WEB_RTC_ENDPOINT`.
pub fn constant(prefix: &str, name: &str) -> String {
    format!("{prefix}_{}", snake(name).to_uppercase())
}

/// `SHOW_ALL` → `ShowAll`, `inboundrtp` → `Inboundrtp`.
pub fn variant(value: &str) -> String {
    value.split('_').map(|word| word[..1].to_uppercase() + &word[1..].to_lowercase()).collect()
}
