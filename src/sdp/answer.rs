//! Answering an offer (RFC 3264 §6).
//!
//! An answer keeps every offered format that can be forwarded, with the offered number and
//! parameters, because what is sent later depends on what is connected. Refused sections keep their
//! formats and lose everything else.

use std::collections::HashSet;

use crate::rtp::extensions::Extension;
use crate::rtp::format::Codec;

use super::SdpError;
use super::bundle::{self, Layout};
use super::description::{Attribute, Description, Direction, MediaSection};
use super::extensions;
use super::formats::{PayloadTypes, Set};
use super::media::{self, Media, MediaKind, TRANSPORT_CC, take_feedback};
use super::negotiate::{
    Capabilities, DATA_FORMAT, DATA_PROTOCOLS, LIVE_PORT, Local, MAX_MESSAGE, NO_ADDRESS,
    has_feedback, push_transport, session_section,
};
use super::{MAX_BYTES, MAX_LINES, simulcast, sources};

/// An answer as text and as meaning.
#[derive(Clone, Debug)]
pub struct Negotiated {
    pub local: Description,
    /// One for each section of the offer.
    pub media: Vec<Media>,
}

/// Answers an offer.
///
/// # Errors
/// [`SdpError::DataSection`] when data channels are on and offered in a form that is neither that of
/// RFC 8841 nor that of its drafts;
/// [`SdpError::LocalParameters`] when `local` is too short for the offer; [`SdpError::TooManyLines`] and
/// [`SdpError::TooLong`] when an answer to it would be.
pub fn answer(
    offer: &Description,
    capabilities: &Capabilities,
    local: &Local,
) -> Result<Negotiated, SdpError> {
    let layout = Layout::of(offer);
    let mut taken = Taken::default();
    let mut sections = Vec::with_capacity(offer.media.len());
    let mut media = Vec::with_capacity(offer.media.len());
    for (index, place) in layout.sections.iter().enumerate() {
        let mut agreed = media::remote(offer, index, *place);
        let section = if taken.take(&offer.media[index], agreed.kind, capabilities) {
            let mut section = if agreed.kind == MediaKind::Data {
                answer_data(&offer.media[index], &mut agreed)?
            } else {
                agreed.local_ssrc = local.ssrc(index)?;
                answer_rtp(offer, &mut agreed, place.owner, capabilities, local)
            };
            push_transport(&mut section, local, place.transport, index)?;
            section
        } else {
            refusal(&offer.media[index])
        };
        sections.push(section);
        media.push(agreed);
    }
    let mut session = session_section(local);
    session.attributes = offer
        .session
        .attributes
        .iter()
        .filter(|attribute| !is_offerers_own(attribute))
        .cloned()
        .collect();
    for mids in bundle::groups(offer) {
        // Taken out when it is named, so that each is named once.
        let accepted = media.iter().filter(|agreed| agreed.accepted);
        let mut live: HashSet<_> = accepted.filter_map(|agreed| agreed.mid.as_deref()).collect();
        session.attributes.push(bundle::group_line(mids.filter(|mid| live.remove(mid))));
    }
    Ok(Negotiated { local: readable(Description { session, media: sections })?, media })
}

/// An answer repeats much of its offer and adds to it; one that no peer of our kind would read again
/// is none.
pub(super) fn readable(answer: Description) -> Result<Description, SdpError> {
    let (lines, bytes) = answer.size();
    if lines > MAX_LINES {
        return Err(SdpError::TooManyLines);
    }
    if bytes > MAX_BYTES { Err(SdpError::TooLong(bytes)) } else { Ok(answer) }
}

/// Session attributes that an answer does not repeat. Kurento leaves out only `group`; the others
/// would make claims about this server that are not true. Its copy of the offerer's own fingerprint
/// goes unheeded where sections have one too (RFC 8122 §5), but some peers refuse a description whose
/// fingerprints differ.
pub(super) fn is_offerers_own(attribute: &Attribute) -> bool {
    matches!(
        attribute.name.as_str(),
        "group"
            | "fingerprint"
            | "ice-lite"
            | "ice-ufrag"
            | "ice-pwd"
            | "setup"
            | "identity"
            | "rtcp-mux"
    )
}

/// How many sections of each kind an answer has taken so far.
#[derive(Default)]
struct Taken {
    audio: usize,
    video: usize,
    data: usize,
}

impl Taken {
    /// Whether the section is taken up. One without a common codec, or refused by the other side,
    /// still counts.
    fn take(&mut self, section: &MediaSection, kind: MediaKind, can: &Capabilities) -> bool {
        let is_known = match kind {
            MediaKind::Data => DATA_PROTOCOLS.contains(&section.proto.as_str()),
            _ => is_secure_rtp(&section.proto),
        };
        let count = match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
            MediaKind::Data => &mut self.data,
            MediaKind::Other => return false,
        };
        let is_taken = is_known && *count < can.lines(kind);
        *count += usize::from(is_taken);
        is_taken
    }
}

/// RTP over DTLS-SRTP, in the words of RFC 5764 and in those from before it.
fn is_secure_rtp(proto: &str) -> bool {
    matches!(proto.strip_prefix("UDP/TLS/").unwrap_or(proto), "RTP/SAVPF" | "RTP/SAVP")
}

pub(super) fn refusal(offered: &MediaSection) -> MediaSection {
    let mut section = section_like(offered, 0);
    section.formats.clone_from(&offered.formats);
    section.push_flag(Direction::Inactive.name());
    if let Some(mid) = offered.mid() {
        section.push("mid", mid);
    }
    section
}

pub(super) fn section_like(offered: &MediaSection, port: u16) -> MediaSection {
    MediaSection {
        media: offered.media.clone(),
        port,
        port_count: 1,
        proto: offered.proto.clone(),
        ..MediaSection::default()
    }
}

fn answer_rtp(
    offer: &Description,
    agreed: &mut Media,
    owner: usize,
    capabilities: &Capabilities,
    local: &Local,
) -> MediaSection {
    let offered = &offer.media[agreed.index];
    let types = PayloadTypes::of(offered);
    agreed.formats = types.formats(&capabilities.codecs(agreed.kind));
    agreed.accepted = !agreed.formats.is_empty() && !offered.is_rejected();
    let direction = offer.direction(agreed.index).mirrored();
    if agreed.accepted {
        agreed.send = direction.sends();
        agreed.receive = direction.receives();
        agree_on_extras(offered, &types, agreed, capabilities, local);
    }
    let kept = kept(agreed);
    let mut section = section_like(offered, if agreed.accepted { LIVE_PORT } else { 0 });
    if agreed.formats.is_empty() {
        section.formats.extend(offered.formats.first().cloned());
    } else {
        let numbers = types.numbers().filter(|number| kept.contains(*number));
        section.formats = numbers.map(|number| number.to_string()).collect();
    }
    if offered.is_rejected() {
        section.push_flag(Direction::Inactive.name());
        section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
    } else {
        let wanted = |extension| extension_is_wanted(extension, agreed, capabilities);
        agreed.extensions = extensions::answer(offered, wanted, &mut section);
        section.push_flag(direction.name());
        section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
        section.push("rtcp", format!("9 {NO_ADDRESS}"));
        answer_formats(&types, &kept, &mut section);
        answer_feedback(offered, agreed, &mut section);
        answer_copied(offered, agreed, &kept, &mut section);
        // In a group these may stand in its first section only; an answer says them everywhere.
        if !section.has("setup") {
            section.push("setup", agreed.setup.name());
        }
        if !section.has("rtcp-mux") && offer.media[owner].has("rtcp-mux") {
            section.push_flag("rtcp-mux");
        }
        simulcast::answer(&mut section, &agreed.encodings);
    }
    sources::push(&mut section, agreed.local_ssrc, agreed.local_rtx_ssrc, &local.cname);
    section
}

/// Settles what goes beyond formats and direction, for a section that is taken.
fn agree_on_extras(
    offered: &MediaSection,
    types: &PayloadTypes<'_>,
    agreed: &mut Media,
    capabilities: &Capabilities,
    local: &Local,
) {
    let extras = capabilities.extras;
    if has_feedback(&offered.proto) {
        take_feedback(agreed, offered);
    }
    let listed = extensions::listed(offered);
    let lists = |extension| listed.iter().any(|listed| listed.extension == extension);
    agreed.transport_cc &= extras.transport_cc(agreed.send) && lists(Extension::TransportSequence);
    let repair = local.rtx_ssrcs.get(agreed.index).filter(|_| extras.rtx && agreed.nack);
    if let Some(ssrc) = repair {
        agreed.rtx = types.rtx(&agreed.formats);
        agreed.local_rtx_ssrc = Some(*ssrc).filter(|_| agreed.send && !agreed.rtx.is_empty());
    }
    // Without the names in the packets nobody could tell the encodings apart.
    let named = extras.extensions && lists(Extension::Mid) && lists(Extension::StreamId);
    if agreed.receive && named {
        agreed.encodings = simulcast::sent(offered, &kept(agreed));
        agreed.encodings.sort_by_key(|encoding| encoding.paused);
        agreed.encodings.truncate(extras.encodings);
    }
}

fn extension_is_wanted(extension: Extension, agreed: &Media, capabilities: &Capabilities) -> bool {
    capabilities.knows(extension, agreed.kind, agreed.send)
        && match extension {
            Extension::AbsSendTime => true,
            Extension::TransportSequence => agreed.transport_cc,
            Extension::Mid => agreed.accepted && agreed.mid.is_some(),
            Extension::StreamId => !agreed.encodings.is_empty(),
            Extension::RepairedStreamId => !agreed.encodings.is_empty() && !agreed.rtx.is_empty(),
            Extension::AudioLevel | Extension::AbsCaptureTime | Extension::PlayoutDelay => {
                agreed.accepted
            }
            // Senders who may use it leave out of VP8 what they would say else, so it is for the codec only
            // that says its layers nowhere else.
            Extension::DependencyDescriptor => {
                let first = agreed.formats.first().map(|(_, format)| format.codec);
                agreed.accepted && agreed.receive && first == Some(Codec::Av1)
            }
        }
}

/// All payload types of an agreement.
pub(super) fn kept(agreed: &Media) -> Set {
    let formats = agreed.formats.iter().map(|(number, _)| *number);
    formats.chain(agreed.rtx.iter().map(|(number, _)| *number)).collect()
}

pub(super) fn answer_formats(types: &PayloadTypes<'_>, kept: &Set, section: &mut MediaSection) {
    let numbers = types.numbers().filter(|number| kept.contains(*number));
    section.attributes.extend(numbers.filter_map(|number| types.map(number)).cloned());
}

pub(super) fn answer_feedback(offered: &MediaSection, agreed: &Media, section: &mut MediaSection) {
    if !has_feedback(&offered.proto) {
        return;
    }
    let kept = kept(agreed);
    let lines = offered.attributes.iter().filter(|attribute| {
        attribute.name == "rtcp-fb"
            && attribute.payload_type().is_some_and(|(number, feedback)| {
                kept.contains(number) && feedback_is_taken(feedback, agreed)
            })
    });
    section.attributes.extend(lines.cloned());
}

/// Whether an offered feedback message is understood, by the first word of its description.
fn feedback_is_taken(feedback: &str, agreed: &Media) -> bool {
    match feedback.split_ascii_whitespace().next() {
        Some("nack" | "ccm" | "goog-remb") => true,
        Some(TRANSPORT_CC) => agreed.transport_cc,
        _ => false,
    }
}

/// Attributes an answer repeats, in the offered order.
fn answer_copied(offered: &MediaSection, agreed: &Media, kept: &Set, section: &mut MediaSection) {
    let (mut has_setup, mut has_mux) = (false, false);
    for attribute in &offered.attributes {
        match attribute.name.as_str() {
            "fmtp" if is_of(attribute, kept) => section.attributes.push(attribute.clone()),
            "setup" if !std::mem::replace(&mut has_setup, true) => {
                section.push("setup", agreed.setup.name());
            }
            "rtcp-mux" if !std::mem::replace(&mut has_mux, true) => section.push_flag("rtcp-mux"),
            "framerate" | "lang" | "maxptime" | "ptime" | "quality" => {
                section.attributes.push(attribute.clone());
            }
            _ => {}
        }
    }
}

/// Whether an attribute is about one of these payload types.
pub(super) fn is_of(attribute: &Attribute, kept: &Set) -> bool {
    attribute.payload_type().is_some_and(|(number, _)| kept.contains(number))
}

fn answer_data(offered: &MediaSection, agreed: &mut Media) -> Result<MediaSection, SdpError> {
    let draft = media::sctpmap(offered);
    let is_usable = draft.is_some() || offered.formats.iter().any(|format| format == DATA_FORMAT);
    let Some(port) = agreed.sctp_port.filter(|_| is_usable) else {
        return Err(SdpError::DataSection(agreed.index));
    };
    agreed.accepted = !offered.is_rejected();
    agreed.send = agreed.accepted;
    agreed.receive = agreed.accepted;
    let mut section = section_like(offered, if agreed.accepted { LIVE_PORT } else { 0 });
    section.formats.push(if draft.is_some() { port.to_string() } else { DATA_FORMAT.to_owned() });
    if !agreed.accepted {
        section.push_flag(Direction::Inactive.name());
    }
    section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
    if agreed.accepted {
        match draft {
            Some(_) => section.push("sctpmap", format!("{port} {DATA_FORMAT} 1024")),
            None => section.push("sctp-port", port.to_string()),
        }
        section.push("setup", agreed.setup.name());
        // Said to those only who know the word.
        if offered.has("max-message-size") {
            section.push("max-message-size", MAX_MESSAGE);
        }
    }
    Ok(section)
}
