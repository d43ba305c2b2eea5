//! Which media sections share a transport (BUNDLE, RFC 9143).
//!
//! Transports are numbered from zero in the order in which sections first need them. A section that
//! is in no group has a transport of its own.

use super::{Attribute, Description, MediaSection};

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
        let mids: Vec<Option<&str>> = description.media.iter().map(MediaSection::mid).collect();
        let groups: Vec<Vec<&str>> = groups(description).collect();
        let mut owners: Vec<Option<(usize, usize)>> = vec![None; groups.len()];
        let mut transports = 0;
        let mut sections = Vec::with_capacity(description.media.len());
        for (index, section) in description.media.iter().enumerate() {
            let group =
                mids[index].and_then(|mid| groups.iter().position(|group| group.contains(&mid)));
            let place = match group {
                Some(group) => {
                    let (owner, transport) = *owners[group].get_or_insert_with(|| {
                        transports += 1;
                        (
                            leader(description, &mids, &groups[group]).unwrap_or(index),
                            transports - 1,
                        )
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

/// The section that a group names first, of those that live.
fn leader(description: &Description, mids: &[Option<&str>], group: &[&str]) -> Option<usize> {
    group.iter().find_map(|mid| {
        let index = mids.iter().position(|other| other == &Some(*mid))?;
        (!description.media[index].is_rejected()).then_some(index)
    })
}

/// The group line of an answer or offer.
pub(super) fn group_line<'a>(mids: impl IntoIterator<Item = &'a str>) -> Attribute {
    let mut value = "BUNDLE".to_owned();
    for mid in mids {
        value.push(' ');
        value.push_str(mid);
    }
    Attribute::new("group", value)
}
