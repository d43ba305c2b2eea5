//! Which media sections share a transport (BUNDLE, RFC 9143).
//!
//! Transports are numbered from zero in the order in which sections first need them. A section that
//! is in no group has a transport of its own.

use super::{Attribute, Description};

/// The mids of each `a=group:BUNDLE` line.
pub fn groups(description: &Description) -> impl Iterator<Item = Vec<&str>> {
    description
        .session
        .attributes
        .iter()
        .filter(|attribute| attribute.name == "group")
        .filter_map(|attribute| attribute.value().strip_prefix("BUNDLE"))
        .filter(|mids| mids.is_empty() || mids.starts_with(' '))
        .map(|mids| mids.split_ascii_whitespace().collect())
}

/// Where each section's transport is: its number, and the group it comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    pub sections: Vec<Place>,
    /// How many transports there are.
    pub transports: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Number of the transport.
    pub transport: usize,
    /// Whether other sections may use it too.
    pub bundled: bool,
    /// The section whose transport attributes count for this one (RFC 9143 §7.1): the first of its
    /// group, or itself.
    pub owner: usize,
}

impl Layout {
    pub fn of(description: &Description) -> Self {
        let groups: Vec<Vec<&str>> = groups(description).collect();
        let mut owners: Vec<Option<(usize, usize)>> = vec![None; groups.len()];
        let mut transports = 0;
        let mut sections = Vec::with_capacity(description.media.len());
        for (index, section) in description.media.iter().enumerate() {
            let group = section.mid().and_then(|mid| {
                groups
                    .iter()
                    .position(|mids| mids.contains(&mid))
                    .map(|group| (group, &groups[group]))
            });
            let place = match group {
                Some((group, mids)) => {
                    let (owner, transport) = *owners[group].get_or_insert_with(|| {
                        transports += 1;
                        (first_of(description, mids).unwrap_or(index), transports - 1)
                    });
                    Place { transport, bundled: true, owner }
                }
                // What is refused anyway costs no transport.
                None if section.is_rejected() => {
                    Place { transport: 0, bundled: false, owner: index }
                }
                None => {
                    transports += 1;
                    Place { transport: transports - 1, bundled: false, owner: index }
                }
            };
            sections.push(place);
        }
        Self { sections, transports }
    }
}

/// The section that is named first in a group and lives.
fn first_of(description: &Description, mids: &[&str]) -> Option<usize> {
    mids.iter().find_map(|mid| {
        description
            .media
            .iter()
            .position(|section| section.mid() == Some(mid) && !section.is_rejected())
    })
}

/// The group line of an answer or offer: those of `mids` that `live` names.
pub(super) fn group_line<'a>(mids: impl IntoIterator<Item = &'a str>) -> Attribute {
    let mut value = "BUNDLE".to_owned();
    for mid in mids {
        value.push(' ');
        value.push_str(mid);
    }
    Attribute::new("group", value)
}
