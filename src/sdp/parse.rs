//! Text to [`Description`] (RFC 8866 §5), for texts as they are found: any line end, lines of a
//! section in any order, letters that mean nothing here skipped. Only an `m=` line that cannot be
//! read, or a missing version, is an error; what attributes say is judged where they are used.

use super::{Attribute, Description, MediaSection, SdpError};

/// Longest text that is read, in bytes. Browsers with dozens of sections stay far below.
pub const MAX_BYTES: usize = 256 * 1024;
/// Most lines that are read.
pub const MAX_LINES: usize = 2_000;
/// Most media sections that are read.
pub const MAX_SECTIONS: usize = 64;
/// Most formats in an `m=` line: there are 128 payload types.
pub const MAX_FORMATS: usize = 256;

/// Reads a description.
///
/// # Errors
/// [`SdpError::MissingVersion`] when no line says `v=0`, [`SdpError::MediaLine`] for an unreadable
/// `m=` line, [`SdpError::Nul`] for a text with a zero character (RFC 8866 §9 has none), and `TooLong`,
/// `TooManyLines`, `TooManySections` beyond the limits above.
pub fn parse(text: &str) -> Result<Description, SdpError> {
    if text.len() > MAX_BYTES {
        return Err(SdpError::TooLong(text.len()));
    }
    if text.contains('\0') {
        return Err(SdpError::Nul);
    }
    read(text, Limits { lines: MAX_LINES, sections: MAX_SECTIONS })
}

/// How much is read.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    lines: usize,
    sections: usize,
}

/// For what was read once, or is our own.
pub(super) const NO_LIMITS: Limits = Limits { lines: usize::MAX, sections: usize::MAX };

pub(super) fn read(text: &str, limits: Limits) -> Result<Description, SdpError> {
    let mut description = Description::default();
    let mut versioned = false;
    // Each of the two is found faster than either.
    let lines = text.split('\n').flat_map(|line| line.split('\r')).filter(|line| !line.is_empty());
    for (index, line) in lines.enumerate() {
        if index == limits.lines {
            return Err(SdpError::TooManyLines);
        }
        let Some((letter, value)) = line.split_once('=') else { continue };
        match letter.trim_start() {
            "v" => versioned |= value.trim() == "0",
            "m" => {
                if description.media.len() == limits.sections {
                    return Err(SdpError::TooManySections);
                }
                // The version stands before all media; without it the text is something else.
                if !versioned {
                    return Err(SdpError::MissingVersion);
                }
                description.media.push(media_line(value).ok_or(SdpError::MediaLine(index + 1))?);
            }
            letter => match description.media.last_mut() {
                Some(section) => media_detail(section, letter, value),
                None => session_detail(&mut description, letter, value),
            },
        }
    }
    if versioned { Ok(description) } else { Err(SdpError::MissingVersion) }
}

fn media_line(value: &str) -> Option<MediaSection> {
    let mut words = value.split_ascii_whitespace();
    let media = words.next()?.to_owned();
    let ports = words.next()?;
    let (port, port_count) = ports.split_once('/').unwrap_or((ports, "1"));
    let proto = words.next()?.to_owned();
    let formats: Vec<String> = words.take(MAX_FORMATS + 1).map(str::to_owned).collect();
    if formats.len() > MAX_FORMATS {
        return None;
    }
    Some(MediaSection {
        media,
        port: port.parse().ok()?,
        port_count: port_count.parse().ok()?,
        proto,
        formats,
        ..MediaSection::default()
    })
}

fn session_detail(description: &mut Description, letter: &str, value: &str) {
    let session = &mut description.session;
    let value = value.to_owned();
    match letter {
        "o" => session.origin = Some(value),
        "s" => session.name = Some(value),
        "c" => session.connection = Some(value),
        "b" => session.bandwidths.push(value),
        "i" => session.details.push(('i', value)),
        "u" => session.details.push(('u', value)),
        "e" => session.details.push(('e', value)),
        "p" => session.details.push(('p', value)),
        "t" => session.times.push(('t', value)),
        "r" => session.times.push(('r', value)),
        "z" => session.times.push(('z', value)),
        "k" => session.times.push(('k', value)),
        "a" => session.attributes.push(attribute(&value)),
        _ => {}
    }
}

fn media_detail(section: &mut MediaSection, letter: &str, value: &str) {
    match letter {
        "i" => section.title = Some(value.to_owned()),
        "c" => section.connection = Some(value.to_owned()),
        "b" => section.bandwidths.push(value.to_owned()),
        "a" => section.attributes.push(attribute(value)),
        _ => {}
    }
}

fn attribute(text: &str) -> Attribute {
    match text.split_once(':') {
        Some((name, value)) => Attribute::new(name, value),
        None => Attribute::flag(text),
    }
}
