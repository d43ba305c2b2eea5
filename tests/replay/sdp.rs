//! Session descriptions: equal but for what is new in every session.

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
    let only = |of: &[String], other: &[String]| {
        let mut left = other.to_vec();
        let mut only = Vec::new();
        for line in of {
            match left.iter().position(|known| known == line) {
                Some(at) => drop(left.swap_remove(at)),
                None => only.push(line.clone()),
            }
        }
        only
    };
    (only(&recorded, &ours), only(&ours, &recorded))
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
    if line.starts_with("m=") && words.len() > 2 && words[1] != "0" {
        return format!("{} # {}", words[0], words[2..].join(" "));
    }
    if line.starts_with("a=rtcp:") {
        return format!("a=rtcp:# {}", words[1..].join(" "));
    }
    line.to_owned()
}
