//! Offer and answer of plain RTP, of a peer that has addresses and no ICE: `RTP/AVP` and `RTP/AVPF`,
//! or with keys in the text (RFC 4568) `RTP/SAVP` and `RTP/SAVPF`.
//!
//! Each section has ports of its own, an even one for RTP and the next for RTCP (RFC 3550 §11, RFC
//! 3605); they are real in the first text already. `a=direction` is that of connection-oriented media
//! (COMEDIA, draft-ietf-mmusic-sdp-comedia): an active side is learnt from what it sends.
//!
//! Left out: BUNDLE, rtcp-mux, host names as addresses, several pairs of ports in a section, and of
//! header extensions all but the time of sending. Streams of retransmissions are not agreed on either:
//! whoever talks plain RTP has SSRCs that nobody announced.

use std::net::{IpAddr, SocketAddr};

use crate::rtp::extensions::Extension;
use crate::rtp::format::{Codec, Format, Kind};

use super::SdpError;
use super::answer::{
    answer_feedback, answer_formats, is_of, is_offerers_own, kept, readable, refusal, section_like,
};
use super::bundle::Place;
use super::crypto::Crypto;
use super::description::{Attribute, Description, Direction, MediaSection, SessionSection, find};
use super::extensions;
use super::formats::PayloadTypes;
use super::media::{self, Media, MediaKind, take_feedback};
use super::negotiate::{Capabilities, has_feedback, session_section_at};
use super::offer::{OfferWishes, accept_rtp, lines, offer_feedback, offer_section};
use super::sources;

/// The longest name of a host (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// What this side brings along.
#[derive(Clone, Debug)]
pub struct PlainLocal {
    /// Seconds since 1900, as NTP counts.
    pub session_id: u64,
    pub cname: String,
    /// Where all sections are received.
    pub address: IpAddr,
    /// The key that we send with; its tag counts in offers only. None for RTP in the clear.
    pub crypto: Option<Crypto>,
    /// One for each media section.
    pub ssrcs: Vec<u32>,
}

impl PlainLocal {
    fn ssrc(&self, index: usize) -> Result<u32, SdpError> {
        self.ssrcs.get(index).copied().ok_or(SdpError::LocalParameters(index))
    }

    fn accepts(&self, proto: &str) -> bool {
        match self.crypto {
            Some(_) => matches!(proto, "RTP/SAVP" | "RTP/SAVPF"),
            None => matches!(proto, "RTP/AVP" | "RTP/AVPF"),
        }
    }
}

/// What one section comes to.
#[derive(Clone, Debug)]
pub struct PlainMedia {
    /// Transport parameters in it mean nothing here.
    pub media: Media,
    pub remote: PlainRemote,
    /// The other side speaks first, from an address that it does not know itself; what the text says
    /// of its ports means nothing.
    pub learns: bool,
    /// The key that the other side sends with.
    pub crypto: Option<Crypto>,
}

/// Where the other side receives, as far as the text tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlainRemote {
    /// None for a name, and for the address that means none.
    pub address: Option<IpAddr>,
    pub rtp: Option<SocketAddr>,
    pub rtcp: Option<SocketAddr>,
    /// A host that has to be looked up, and its ports there.
    pub named: Option<Named>,
}

/// The name of a host (RFC 8866 §5.7), with the ports of RTP and RTCP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Named {
    pub name: String,
    pub rtp: u16,
    pub rtcp: Option<u16>,
}

/// An answer as text and as meaning.
#[derive(Clone, Debug)]
pub struct PlainNegotiated {
    pub local: Description,
    /// One for each section of the offer.
    pub media: Vec<PlainMedia>,
}

/// Answers an offer. `ports` is asked for the ports of each section that is taken, RTP and RTCP.
///
/// # Errors
/// [`SdpError::NoKey`] for a section without a key of our suite, [`SdpError::NoPorts`] when `ports` has
/// none, [`SdpError::LocalParameters`] when `local` is too short for the offer.
pub fn answer_plain(
    offer: &Description,
    capabilities: &Capabilities,
    local: &PlainLocal,
    mut ports: impl FnMut(usize) -> Option<(u16, u16)>,
) -> Result<PlainNegotiated, SdpError> {
    let mut taken = [0; 2];
    let mut sections = Vec::with_capacity(offer.media.len());
    let mut media = Vec::with_capacity(offer.media.len());
    for (index, offered) in offer.media.iter().enumerate() {
        let mut agreed = remote(offer, index);
        let kind = agreed.media.kind.rtp();
        let lines = capabilities.lines(agreed.media.kind);
        let live = local.accepts(&offered.proto) && offered.port > 0;
        let taken = kind.map(|kind| &mut taken[usize::from(kind == Kind::Video)]);
        let section = match taken.filter(|taken| live && **taken < lines) {
            Some(taken) => {
                *taken += 1;
                answer_section(offer, &mut agreed, capabilities, local, &mut ports)?
            }
            None => refusal(offered),
        };
        sections.push(section);
        media.push(agreed);
    }
    let mut session = session_section_at(local.session_id, local.address);
    let copied = offer.session.attributes.iter().filter(|attribute| {
        !is_offerers_own(attribute) && !matches!(attribute.name.as_str(), "direction" | "rtcp")
    });
    session.attributes = copied.cloned().collect();
    Ok(PlainNegotiated { local: readable(Description { session, media: sections })?, media })
}

fn answer_section(
    offer: &Description,
    agreed: &mut PlainMedia,
    capabilities: &Capabilities,
    local: &PlainLocal,
    ports: &mut impl FnMut(usize) -> Option<(u16, u16)>,
) -> Result<MediaSection, SdpError> {
    let index = agreed.media.index;
    let offered = &offer.media[index];
    let crypto = match &local.crypto {
        Some(own) => Some(choose_key(offered, own).ok_or(SdpError::NoKey(index))?),
        None => None,
    };
    agreed.media.local_ssrc = local.ssrc(index)?;
    let types = PayloadTypes::of(offered);
    let formats = types.formats(&capabilities.codecs(agreed.media.kind)).into_iter();
    agreed.media.formats =
        formats.map(|(number, format)| (number, fragmented(&types, number, format))).collect();
    if agreed.media.formats.is_empty() {
        let mut section = section_like(offered, 0);
        section.formats.extend(offered.formats.first().cloned());
        section.push_flag(Direction::Inactive.name());
        section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
        return Ok(section);
    }
    let (rtp, rtcp) = ports(index).ok_or(SdpError::NoPorts)?;
    let mut section = section_like(offered, rtp);
    section.formats = agreed.media.formats.iter().map(|(number, _)| number.to_string()).collect();
    if let Some((own, theirs)) = crypto {
        section.push("crypto", own.value());
        agreed.crypto = Some(theirs);
    }
    let direction = offer.direction(index).mirrored();
    agreed.media.accepted = true;
    agreed.media.send = direction.sends();
    agreed.media.receive = direction.receives();
    if has_feedback(&offered.proto) {
        take_feedback(&mut agreed.media, offered);
        agreed.media.transport_cc = false;
    }
    let wanted = |extension| extension == Extension::AbsSendTime;
    agreed.media.extensions = extensions::answer(offered, wanted, &mut section);
    section.push_flag(direction.name());
    section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
    section.push("rtcp", rtcp.to_string());
    let kept = kept(&agreed.media);
    answer_formats(&types, &kept, &mut section);
    answer_feedback(offered, &agreed.media, &mut section);
    let (mut has_setup, mut has_direction) = (false, false);
    for attribute in &offered.attributes {
        match attribute.name.as_str() {
            "fmtp" if is_of(attribute, &kept) => section.attributes.push(attribute.clone()),
            "setup" if !std::mem::replace(&mut has_setup, true) => {
                section.push("setup", agreed.media.setup.name());
            }
            "direction" if !std::mem::replace(&mut has_direction, true) => {
                section.push("direction", if agreed.learns { "passive" } else { "active" });
            }
            "framerate" | "lang" | "maxptime" | "ptime" | "quality" => {
                section.attributes.push(attribute.clone());
            }
            _ => {}
        }
    }
    sources::push(&mut section, agreed.media.local_ssrc, None, &local.cname);
    Ok(section)
}

/// The first offered key of our suite, and ours under its tag.
fn choose_key(offered: &MediaSection, own: &Crypto) -> Option<(Crypto, Crypto)> {
    let theirs =
        offered.values("crypto").filter_map(Crypto::parse).find(|one| one.suite == own.suite)?;
    Some((Crypto { tag: theirs.tag, ..own.clone() }, theirs))
}

/// Makes an offer: all audio sections, then all video sections. `ports` is asked for the ports of each.
///
/// # Errors
/// [`SdpError::NoPorts`] when `ports` has none, [`SdpError::LocalParameters`] when `local` is too short.
pub fn offer_plain(
    capabilities: &Capabilities,
    local: &PlainLocal,
    wishes: &OfferWishes,
    mut ports: impl FnMut(usize) -> Option<(u16, u16)>,
) -> Result<Description, SdpError> {
    let mut sections = Vec::new();
    for line in lines(capabilities, wishes) {
        let index = sections.len();
        let (rtp, rtcp) = ports(index).ok_or(SdpError::NoPorts)?;
        let proto = if local.crypto.is_some() { "RTP/SAVPF" } else { "RTP/AVPF" };
        let mut section = offer_section(capabilities, &line, rtp, proto);
        section.push("rtcp", rtcp.to_string());
        section
            .attributes
            .extend(local.crypto.iter().map(|crypto| Attribute::new("crypto", crypto.value())));
        section.push_flag(wishes.direction.name());
        section.push("mid", line.mid.as_str());
        offer_feedback(&mut section, capabilities, &line);
        sources::push(&mut section, local.ssrc(index)?, None, &local.cname);
        sections.push(section);
    }
    let session = session_section_at(local.session_id, local.address);
    Ok(Description { session, media: sections })
}

/// Reads the answer to an offer of ours. Sections match by position; mids need not agree.
///
/// # Errors
/// [`SdpError::SectionCount`] when the answer has not as many sections as the offer, and
/// [`SdpError::NoKey`] for a section without the key of the suite that was offered.
pub fn accept_plain(
    offer: &Description,
    answer: &Description,
    capabilities: &Capabilities,
    local: &PlainLocal,
) -> Result<Vec<PlainMedia>, SdpError> {
    if offer.media.len() != answer.media.len() {
        return Err(SdpError::SectionCount {
            offered: offer.media.len(),
            answered: answer.media.len(),
        });
    }
    let mut media = Vec::with_capacity(answer.media.len());
    for (index, offered) in offer.media.iter().enumerate() {
        let answered = &answer.media[index];
        let mut agreed = remote(answer, index);
        agreed.media.kind = MediaKind::of(offered);
        agreed.media.mid = offered.mid().map(str::to_owned);
        agreed.media.local_ssrc = sources::own(offered).0;
        if answered.port > 0 && local.accepts(&answered.proto) {
            if let Some(own) = &local.crypto {
                let (_, theirs) = choose_key(answered, own).ok_or(SdpError::NoKey(index))?;
                agreed.crypto = Some(theirs);
            }
            accept_rtp(offer, answer, &mut agreed.media, capabilities);
            let types = PayloadTypes::of(answered);
            agreed.media.formats.iter_mut().for_each(|(number, format)| {
                *format = fragmented(&types, *number, *format);
            });
        }
        media.push(agreed);
    }
    Ok(media)
}

/// The remote half of a section; the local half is refused until the caller says otherwise.
fn remote(description: &Description, index: usize) -> PlainMedia {
    let section = &description.media[index];
    let place = Place { transport: index, bundled: false, owner: index };
    let mut media = media::remote(description, index, place);
    media.rtcp_mux = false;
    let learns = [&section.attributes, &description.session.attributes]
        .into_iter()
        .find_map(|attributes| find(attributes, "direction"))
        .is_some_and(|direction| direction.value().trim() == "active");
    let remote = address_of(&description.session, section);
    PlainMedia { media, remote, learns, crypto: None }
}

fn address_of(session: &SessionSection, section: &MediaSection) -> PlainRemote {
    let connection = section.connection.as_ref().or(session.connection.as_ref());
    let Some(address) = connection.and_then(|connection| address(connection)) else {
        let name = connection.and_then(|connection| host_name(connection));
        return PlainRemote {
            named: name.map(|name| Named { name, rtp: section.port, rtcp: rtcp_port(section) }),
            ..PlainRemote::default()
        };
    };
    let at = |port: u16| (port > 0).then(|| SocketAddr::new(address, port));
    let rtcp = match section.values("rtcp").next() {
        Some(value) => {
            let (port, place) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
            let port = port.parse().ok().filter(|port| *port > 0);
            port.map(|port| SocketAddr::new(self::address(place).unwrap_or(address), port))
        }
        None => section.port.checked_add(1).filter(|_| section.port > 0).and_then(at),
    };
    PlainRemote { address: Some(address), rtp: at(section.port), rtcp, named: None }
}

/// The port for RTCP, at the same host as that for RTP.
fn rtcp_port(section: &MediaSection) -> Option<u16> {
    let port = match section.values("rtcp").next() {
        Some(value) => value.split_ascii_whitespace().next()?.parse().ok()?,
        None => section.port.checked_add(1)?,
    };
    Some(port).filter(|port| *port > 0)
}

/// The name of a host in a `c=` line; an address is none, not even one that nobody can have.
fn host_name(connection: &str) -> Option<String> {
    let mut words = connection.split_ascii_whitespace();
    if words.next() != Some("IN") || !matches!(words.next(), Some("IP4" | "IP6")) {
        return None;
    }
    let name = words.next().filter(|name| name.len() <= MAX_NAME)?;
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-')
    };
    // Names that look like a number are addresses that somebody mistyped.
    let last = name.trim_end_matches('.').rsplit('.').next()?;
    let number = last.bytes().all(|byte| byte.is_ascii_digit());
    (name.trim_end_matches('.').split('.').all(label) && !number).then(|| name.to_owned())
}

/// The address of a `c=` line, if it is one that a single peer can have.
fn address(connection: &str) -> Option<IpAddr> {
    let mut words = connection.split_ascii_whitespace();
    if words.next() != Some("IN") || !matches!(words.next(), Some("IP4" | "IP6")) {
        return None;
    }
    let address: IpAddr = words.next()?.parse().ok()?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    (!address.is_unspecified() && !address.is_multicast() && !broadcast).then_some(address)
}

/// H.264 whose packetization mode is not said would be in single units (RFC 6184 §8.1). Cameras and
/// descriptions written by hand leave it out and fragment all the same.
fn fragmented(types: &PayloadTypes<'_>, number: u8, format: Format) -> Format {
    let said = types.parameters(number).contains("packetization-mode");
    if format.codec == Codec::H264 && !said {
        return Format { profile: format.profile | 1 << 16, ..format };
    }
    format
}
