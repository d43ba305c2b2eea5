//! Header extensions of a section (RFC 8285 §5 and §6).
//!
//! Only numbers of the one-byte form are taken, and of an extension or number that comes twice only
//! the first.

use crate::rtp::extensions::{Extension, Extensions};

use super::description::{Direction, MediaSection};

/// An extension that a section lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Listed {
    pub extension: Extension,
    pub number: u8,
    /// In which directions it may be used, seen from who wrote the section.
    direction: Direction,
}

/// The extensions with a meaning here, in the order of their lines.
pub(super) fn listed(section: &MediaSection) -> Vec<Listed> {
    let mut known: Vec<Listed> = Vec::new();
    for value in section.values("extmap") {
        let mut words = value.split_ascii_whitespace();
        let (Some(number), Some(uri)) = (words.next(), words.next()) else { continue };
        let (number, direction) = number.split_once('/').unwrap_or((number, ""));
        let (Ok(number), Some(extension)) = (number.parse(), Extension::from_uri(uri)) else {
            continue;
        };
        let is_new =
            known.iter().all(|other| other.extension != extension && other.number != number);
        if is_new && Extensions::default().set(extension, number) {
            let direction = Direction::from_name(direction).unwrap_or_default();
            known.push(Listed { extension, number, direction });
        }
    }
    known.retain(|listed| listed.direction != Direction::Inactive);
    known
}

/// Takes those of the `offered` extensions that are `wanted`, under their numbers.
pub(super) fn answer(
    offered: &MediaSection,
    wanted: impl Fn(Extension) -> bool,
    section: &mut MediaSection,
) -> Extensions {
    let mut agreed = Extensions::default();
    for Listed { extension, number, direction } in listed(offered) {
        if wanted(extension) && agreed.set(extension, number) {
            if !direction.receives() {
                agreed.set_unwritten(extension);
            }
            push(section, extension, number, direction.mirrored());
        }
    }
    agreed
}

/// What an answer takes of our own offer.
pub(super) fn accept(offered: &MediaSection, answered: &MediaSection) -> Extensions {
    let ours = listed(offered);
    let mut agreed = Extensions::default();
    for Listed { extension, number, direction } in listed(answered) {
        if ours.iter().any(|own| own.extension == extension && own.number == number) {
            agreed.set(extension, number);
            if !direction.receives() {
                agreed.set_unwritten(extension);
            }
        }
    }
    agreed
}

pub(super) fn push(
    section: &mut MediaSection,
    extension: Extension,
    number: u8,
    direction: Direction,
) {
    let uri = extension.uri();
    section.push(
        "extmap",
        match direction {
            Direction::SendRecv => format!("{number} {uri}"),
            one_way => format!("{number}/{} {uri}", one_way.name()),
        },
    );
}
