//! Which media sections share a transport (BUNDLE, RFC 9143).
//!
//! Transports are numbered from zero in the order in which sections first need them. A section that
//! is in no group has a transport of its own.

use std::collections::HashMap;

use super::{Attribute, Description, MAX_SECTIONS};

/// Most names of one group that count: as many sections as there can be, and then some.
const MAX_MIDS: usize = 2 * MAX_SECTIONS;

/// The mids of each `a=group:BUNDLE` line.
pub fn groups(description: &Description) -> impl Iterator<Item = impl Iterator<Item = &str>> {
    description
        .session
        .attributes
        .iter()
        .filter(|attribute| attribute.name == "group")
        .filter_map(|attribute| attribute.value().strip_prefix("BUNDLE"))
        .filter(|mids| mids.is_empty() || mids.starts_with(' '))
        .map(|mids| mids.split_ascii_whitespace().take(MAX_MIDS))
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
        let groups = Groups::of(description);
        let mut numbers: Vec<Option<usize>> = vec![None; groups.leaders.len()];
        let mut transports = 0;
        let mut sections = Vec::with_capacity(description.media.len());
        for (index, section) in description.media.iter().enumerate() {
            let group = section.mid().and_then(|mid| groups.of_mid.get(mid).copied());
            let place = match group {
                Some(group) => {
                    let transport = *numbers[group].get_or_insert_with(|| {
                        transports += 1;
                        transports - 1
                    });
                    let owner = groups.leaders[group].unwrap_or(index);
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

/// Which group each mid is in, looked up once.
struct Groups<'a> {
    of_mid: HashMap<&'a str, usize>,
    /// The section that each group names first, of those that live.
    leaders: Vec<Option<usize>>,
}

impl<'a> Groups<'a> {
    fn of(description: &'a Description) -> Self {
        let mut sections = HashMap::new();
        for (index, section) in description.media.iter().enumerate() {
            section.mid().map(|mid| sections.entry(mid).or_insert(index));
        }
        let mut of_mid = HashMap::new();
        let mut leaders = Vec::new();
        for (group, mids) in groups(description).enumerate() {
            let mut leader = None;
            for mid in mids {
                let Some(&section) = sections.get(mid) else { continue };
                of_mid.entry(mid).or_insert(group);
                if leader.is_none() && !description.media[section].is_rejected() {
                    leader = Some(section);
                }
            }
            leaders.push(leader);
        }
        Self { of_mid, leaders }
    }
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
