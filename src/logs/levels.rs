//! What is logged: our own words for it, and the original's (`GST_DEBUG`) turned into them.

use crate::config::LogConfig;

/// What is logged when nobody says otherwise: no state changes inside libraries.
pub const DEFAULT: &str = "info,rtc_ice=warn,rtc_dtls=warn,rtc_sctp=warn";

const PROGRAM: &str = "KurentoMediaServer";

/// Categories of the original, and which of our modules say the same. The first is the program itself.
const CATEGORIES: &[(&str, &[&str])] = &[
    (PROGRAM, &["server"]),
    ("KurentoWebSocketTransport", &["web"]),
    ("KurentoWebSocketEventHandler", &["rpc::delivery"]),
    ("KurentoWebSocketRegistrar", &["registrar"]),
    ("KurentoServerMethods", &["rpc"]),
    ("KurentoMediaSet", &["model"]),
    ("KurentoMediaPipelineImpl", &["pipeline"]),
    ("KurentoMediaElementImpl", &["elements"]),
    ("KurentoWebRtcEndpointImpl", &["elements::webrtc_endpoint"]),
    ("kmswebrtcendpoint", &["elements::webrtc_endpoint"]),
    ("kmswebrtcsession", &["transport"]),
    ("kmsbasertpendpoint", &["router"]),
    ("kmssdpsession", &["sdp"]),
    ("sdputil", &["sdp"]),
    ("webrtcendpoint", &["elements::webrtc_endpoint"]),
    ("rtpsynchronizer", &["router"]),
    ("rtpendpoint", &["router"]),
    ("agnosticbin", &["router"]),
];

/// Filter directives for settings. Our own words go before the original's.
pub fn directives(config: &LogConfig) -> String {
    if let Some(level) = &config.level {
        return level.clone();
    }
    if config.gst_debug.is_none() && config.gst_debug_level.is_none() {
        return DEFAULT.to_owned();
    }
    let mut directives = vec![DEFAULT.to_owned()];
    directives.extend(config.gst_debug_level.map(|level| word(level).to_owned()));
    let list = config.gst_debug.as_deref().unwrap_or_default();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.rsplit_once(':') {
            Some((pattern, level)) => {
                let Some(level) = number(level) else { continue };
                if pattern == "*" {
                    directives.push(word(level).to_owned());
                    continue;
                }
                let fits = |(category, _): &&(&str, &[&str])| matches(pattern, category);
                let level = word(level);
                for (category, modules) in CATEGORIES.iter().filter(fits) {
                    if *category == PROGRAM {
                        directives.push(format!("rivero={level}"));
                    }
                    let modules = modules.iter();
                    directives.extend(modules.map(|module| format!("rivero::{module}={level}")));
                }
            }
            None => directives.extend(number(entry).map(|level| word(level).to_owned())),
        }
    }
    directives.join(",")
}

/// A level as a number or as one of the original's words for it.
fn number(text: &str) -> Option<u32> {
    const WORDS: [&str; 8] = ["NONE", "ERROR", "WARNING", "FIXME", "INFO", "DEBUG", "LOG", "TRACE"];
    let named = WORDS.iter().position(|word| text.eq_ignore_ascii_case(word));
    text.parse().ok().or_else(|| u32::try_from(named?).ok())
}

/// The level that is next to the original's number.
const fn word(level: u32) -> &'static str {
    match level {
        0 => "off",
        1 => "error",
        2 | 3 => "warn",
        4 => "info",
        5 => "debug",
        _ => "trace",
    }
}

/// Whether a pattern with `*` and `?` covers a name.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    // The place after the last star, and what of the name that star covers so far.
    let mut star = None;
    let (mut at, mut from) = (0, 0);
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, from));
                at += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((after, covered)) = star else { return false };
                star = Some((after, covered + 1));
                (at, from) = (after, covered + 1);
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::EnvFilter;

    use super::*;

    fn of(level: Option<&str>, gst: Option<&str>, number: Option<u32>) -> String {
        let own = |text: Option<&str>| text.map(str::to_owned);
        directives(&LogConfig {
            level: own(level),
            gst_debug: own(gst),
            gst_debug_level: number,
            ..LogConfig::default()
        })
    }

    #[test]
    fn our_own_words_go_first_and_silence_means_the_default() {
        assert_eq!(of(Some("rivero=debug"), Some("5"), Some(1)), "rivero=debug");
        assert_eq!(of(None, None, None), DEFAULT);
    }

    #[test]
    fn numbers_become_the_nearest_level() {
        let levels = ["off", "error", "warn", "warn", "info", "debug", "trace", "trace"];
        for (number, word) in (0..).zip(levels) {
            assert_eq!(of(None, None, Some(number)), format!("{DEFAULT},{word}"));
            assert_eq!(of(None, Some(&number.to_string()), None), format!("{DEFAULT},{word}"));
        }
        assert_eq!(of(None, Some("*:FIXME"), None), format!("{DEFAULT},warn"));
    }

    #[test]
    fn categories_are_matched_by_their_patterns() {
        let found = of(None, Some("3,KurentoWebSocketT*:5,kms?dpsession:6,unheard-of:9"), None);
        let own = "rivero::";
        assert_eq!(found, format!("{DEFAULT},warn,{own}web=debug,{own}sdp=trace"));
        for (pattern, name, fits) in [
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c", "abcde", false),
            ("*rtpendpoint", "kmsbasertpendpoint", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_containers_list_is_understood_by_the_filter() {
        let list = "2,Kurento*:4,kms*:4,sdp*:4,webrtc*:4,*rtpendpoint:4,rtp*handler:4,\
                    rtpsynchronizer:4,agnosticbin:4";
        let found = of(None, Some(list), None);
        assert!(found.contains(",rivero=info,") && found.contains("::web=info"), "{found}");
        EnvFilter::builder().parse(&found).expect("directives");
    }
}
