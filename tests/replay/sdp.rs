//! Session descriptions: equal but for what is new in every session.

use rivero::rtp::Extension;

/// Compares two descriptions line by line.
///
/// # Errors
/// The lines that only one of them has.
pub fn compare(recorded: &str, ours: &str) -> Result<(), String> {
    if outline(recorded) == outline(ours) {
        return Ok(());
    }
    let (missing, more) = differences(recorded, ours);
    Err(format!("description: only recorded {missing:?}, only ours {more:?}"))
}

/// The lines that only the recorded description has, and those that only ours has.
pub fn differences(recorded: &str, ours: &str) -> (Vec<String>, Vec<String>) {
    let (recorded, ours) = (outline(recorded), outline(ours));
    (only(&recorded, &ours), only(&ours, &recorded))
}

/// Lines of one that the other has not, as often as it has not.
fn only(of: &[String], other: &[String]) -> Vec<String> {
    let mut left = other.to_vec();
    let mut only = Vec::new();
    for line in of {
        match left.iter().position(|known| known == line) {
            Some(at) => drop(left.swap_remove(at)),
            None => only.push(line.clone()),
        }
    }
    only
}

/// The same without what this server agrees on beyond the original: retransmissions, redundant audio,
/// feedback about the transport, header extensions and simulcast. What is left must be in the recorded
/// order too.
pub fn differences_beyond_extras(recorded: &str, ours: &str) -> (Vec<String>, Vec<String>) {
    let recorded = outline(recorded);
    let ours = without_extras(&recorded, outline(ours));
    let (missing, more) = (only(&recorded, &ours), only(&ours, &recorded));
    if missing.is_empty() && more.is_empty() && recorded != ours {
        return (recorded, ours);
    }
    (missing, more)
}

/// Our lines without those that are extras, as far as the recorded description has none of the kind.
fn without_extras(recorded: &[String], ours: Vec<String>) -> Vec<String> {
    let added: Vec<String> = ours
        .iter()
        .filter(|line| !recorded.contains(line))
        .filter_map(|line| line.strip_prefix("a=rtpmap:")?.split_once(' '))
        .filter(|(_, name)| name.starts_with("rtx/") || *name == "red/48000/2")
        .map(|(number, _)| number.to_owned())
        .collect();
    let is_added = |number: &str| added.iter().any(|other| other == number);
    let mut sources = 0;
    let extra = |line: &String| {
        let rest = |name: &str| line.strip_prefix(name).and_then(|rest| rest.split_once(' '));
        if line.starts_with("m=") {
            sources = 0;
        }
        // The second source of a section is that of its retransmissions.
        sources += usize::from(line.starts_with("a=ssrc:"));
        rest("a=rtpmap:").or_else(|| rest("a=fmtp:")).is_some_and(|(number, _)| is_added(number))
            || rest("a=rtcp-fb:").is_some_and(|(_, feedback)| feedback == "transport-cc")
            || rest("a=extmap:").is_some_and(|(_, uri)| {
                Extension::from_uri(uri).is_some_and(|known| known != Extension::AbsSendTime)
            })
            || line.starts_with("a=ssrc:") && sources > 1
            || ["a=ssrc-group:FID", "a=rid:", "a=simulcast:recv "]
                .iter()
                .any(|name| line.starts_with(name))
    };
    let extras: Vec<bool> = ours.iter().map(extra).collect();
    let kept = ours.into_iter().zip(extras).filter(|(_, extra)| !extra).map(|(line, _)| line);
    kept.map(|line| {
        let words = line.split(' ').enumerate();
        let known = words.filter(|(at, word)| *at < 3 || !is_added(word));
        // A refused section lists everything with either of them.
        if line.starts_with("m=") && !recorded.contains(&line) {
            return known.map(|(_, word)| word).collect::<Vec<_>>().join(" ");
        }
        line
    })
    .collect()
}

/// A candidate without its foundation, priority, address and port.
pub fn candidate(line: &str) -> Vec<&str> {
    let words: Vec<_> = line.split(' ').collect();
    words
        .iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 0 | 3..=5))
        .map(|(_, word)| *word)
        .collect()
}

fn outline(text: &str) -> Vec<String> {
    let lines = text.split("\r\n").filter(|line| !line.is_empty());
    // Candidates come as the sockets are found.
    lines.filter(|line| !line.starts_with("a=candidate:")).map(outline_of).collect()
}

/// A line without what is new in every session.
fn outline_of(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    for name in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:sha-256", "a=msid:", "a=crypto:"] {
        if line.starts_with(name) {
            return name.to_owned();
        }
    }
    if line.starts_with("o=") {
        return "o=".to_owned();
    }
    // The machines of the record and of the replay have addresses of their own.
    if let ["c=IN", family, address] = words[..]
        && address != "0.0.0.0"
    {
        return format!("c=IN {family} #");
    }
    if line.starts_with("a=ssrc:") {
        let rest = words[1..].join(" ");
        return format!("a=ssrc:# {}", rest.split(':').next().unwrap_or_default());
    }
    if line.starts_with("a=ssrc-group:") {
        return words[0].to_owned();
    }
    if line.starts_with("m=") && words.len() > 2 && words[1] != "0" {
        return format!("{} # {}", words[0], words[2..].join(" "));
    }
    if line.starts_with("a=rtcp:") {
        return format!("a=rtcp:# {}", words[1..].join(" "));
    }
    line.to_owned()
}
