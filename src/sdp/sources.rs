//! The streams that a section announces: their SSRCs, CNAME, and how they belong together (RFC 5576).

use super::description::MediaSection;

/// Most sources, and most pairs of source and repair, that are read of one section. A call has a
/// handful.
const MAX_SOURCES: usize = 32;

#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    /// Without those that repair others. Those of a `SIM` group come first, in its order.
    pub ssrcs: Vec<u32>,
    /// Those of a `SIM` group: encodings of one source, the smallest first by custom.
    pub encodings: Vec<u32>,
    /// SSRCs of retransmissions, each with the one that it repairs.
    pub rtx: Vec<(u32, u32)>,
    pub cname: Option<String>,
}

impl Sources {
    pub fn of(section: &MediaSection) -> Self {
        let mut found = Self::default();
        let (mut repairs, mut order) = (Vec::new(), Vec::new());
        for group in section.values("ssrc-group") {
            let Some((semantics, members)) = group.trim().split_once(' ') else { continue };
            let members = members.split_ascii_whitespace().map_while(|ssrc| ssrc.parse().ok());
            let members: Vec<u32> = members.take(MAX_SOURCES).collect();
            match (semantics, &members[..]) {
                ("SIM", sent) => order.extend(room(&order, sent)),
                ("FID" | "FEC-FR", [source, rest @ ..]) => {
                    if let ("FID", [rtx, ..], true) =
                        (semantics, rest, found.rtx.len() < MAX_SOURCES)
                    {
                        found.rtx.push((*rtx, *source));
                    }
                    repairs.extend(room(&repairs, rest));
                }
                _ => {}
            }
        }
        for line in section.values("ssrc") {
            let (number, attribute) = line.split_once(' ').unwrap_or((line, ""));
            let Ok(ssrc) = number.parse() else { continue };
            let is_new = !found.ssrcs.contains(&ssrc) && !repairs.contains(&ssrc);
            if is_new && found.ssrcs.len() < MAX_SOURCES {
                found.ssrcs.push(ssrc);
            }
            if found.cname.is_none() {
                found.cname = attribute.trim().strip_prefix("cname:").map(str::to_owned);
            }
        }
        let place = |ssrc: &u32| order.iter().position(|sent| sent == ssrc).unwrap_or(order.len());
        found.ssrcs.sort_by_key(place);
        let ssrcs = &found.ssrcs;
        order.retain(|ssrc| ssrcs.contains(ssrc));
        order.dedup();
        found.encodings = order;
        found.rtx.retain(|(rtx, source)| ssrcs.contains(source) && !ssrcs.contains(rtx));
        found
    }
}

/// As many of `more` as still fit.
fn room<'a>(have: &[u32], more: &'a [u32]) -> impl Iterator<Item = u32> + use<'a> {
    more.iter().copied().take((2 * MAX_SOURCES).saturating_sub(have.len()))
}

/// Announces our own source, and that of its retransmissions if it has one.
pub(super) fn push(section: &mut MediaSection, ssrc: u32, rtx: Option<u32>, cname: &str) {
    if let Some(rtx) = rtx {
        section.push("ssrc-group", format!("FID {ssrc} {rtx}"));
    }
    for ssrc in [Some(ssrc), rtx].into_iter().flatten() {
        section.push("ssrc", format!("{ssrc} cname:{cname}"));
    }
}

/// What a section of ours announces: the source, and that of its retransmissions.
pub(super) fn own(section: &MediaSection) -> (u32, Option<u32>) {
    let own = Sources::of(section);
    let ssrc = own.ssrcs.first().copied().unwrap_or(0);
    (ssrc, own.rtx.iter().find(|(_, source)| *source == ssrc).map(|(rtx, _)| *rtx))
}
