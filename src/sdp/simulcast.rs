//! Several encodings of one source at the same time (RFC 8853), told apart by their names (RFC 8851).
//!
//! Only what the other side sends. Of alternatives the first that it has described is taken; what is
//! to be received of us is always one encoding.

use super::description::MediaSection;
use super::formats::Set;

/// A name travels in a header extension of the one-byte form (RFC 8285 §4.2).
const MAX_NAME: usize = 16;
/// Most encodings that are read; browsers make three.
const MAX_ENCODINGS: usize = 8;

/// One of the encodings that the other side sends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encoding {
    pub rid: String,
    /// Limits as the other side put them: `max-width=1280;max-fps=30`.
    pub restrictions: String,
    /// It is not sent for now.
    pub paused: bool,
}

/// The encodings that a section sends, the most wanted first. `formats` are the payload types that
/// are taken: an encoding in others is left out.
pub(super) fn sent(section: &MediaSection, formats: &Set) -> Vec<Encoding> {
    let Some(list) = section.values("simulcast").find_map(send_list) else { return Vec::new() };
    let mut described: Vec<(&str, String)> = Vec::new();
    for line in section.values("rid") {
        let mut words = line.split_ascii_whitespace();
        let (Some(rid), Some("send")) = (words.next(), words.next()) else { continue };
        let is_new = is_name(rid) && described.iter().all(|(other, _)| *other != rid);
        if is_new && described.len() < MAX_ENCODINGS {
            described.extend(
                restrictions(words.next().unwrap_or_default(), formats).map(|text| (rid, text)),
            );
        }
    }
    let mut encodings: Vec<Encoding> = Vec::new();
    for alternatives in list.split(';').take(MAX_ENCODINGS) {
        let chosen = alternatives.split(',').take(MAX_ENCODINGS).find_map(|name| {
            let (rid, paused) = name.strip_prefix('~').map_or((name, false), |rid| (rid, true));
            let (_, restrictions) = described.iter().find(|(known, _)| *known == rid)?;
            Some(Encoding { rid: rid.to_owned(), restrictions: restrictions.clone(), paused })
        });
        encodings
            .extend(chosen.filter(|new| encodings.iter().all(|encoding| encoding.rid != new.rid)));
    }
    encodings
}

/// The words after `send`, which may come before or after those of `recv`.
fn send_list(value: &str) -> Option<&str> {
    let mut words = value.split_ascii_whitespace();
    words.find(|word| *word == "send")?;
    words.next()
}

fn is_name(rid: &str) -> bool {
    (1..=MAX_NAME).contains(&rid.len())
        && rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// The restrictions with the payload types that are taken; none if there were others only.
fn restrictions(text: &str, formats: &Set) -> Option<String> {
    let mut kept = Vec::new();
    for restriction in text.split(';').filter(|restriction| !restriction.is_empty()) {
        let Some(numbers) = restriction.strip_prefix("pt=") else {
            kept.push(restriction.to_owned());
            continue;
        };
        let taken = numbers
            .split(',')
            .filter(|number| number.parse().is_ok_and(|number| formats.contains(number)));
        let taken: Vec<_> = taken.collect();
        if taken.is_empty() {
            return None;
        }
        kept.push(format!("pt={}", taken.join(",")));
    }
    Some(kept.join(";"))
}

/// Says that these are received.
pub(super) fn answer(section: &mut MediaSection, encodings: &[Encoding]) {
    if encodings.is_empty() {
        return;
    }
    for Encoding { rid, restrictions, .. } in encodings {
        let gap = if restrictions.is_empty() { "" } else { " " };
        section.push("rid", format!("{rid} recv{gap}{restrictions}"));
    }
    let rids: Vec<_> = encodings.iter().map(|encoding| encoding.rid.as_str()).collect();
    section.push("simulcast", format!("recv {}", rids.join(";")));
}
