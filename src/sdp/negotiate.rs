//! Offer and answer (RFC 3264): an answer to a browser's offer, an offer of our own, and what the
//! answer to it means.
//!
//! An answer keeps every offered format that can be forwarded, with the offered number and
//! parameters, because what is sent later depends on what is connected. Refused sections keep their
//! formats and lose everything else.

use crate::rtp::format::Codec;

use super::SdpError;
use super::bundle::{self, Layout};
use super::description::{Attribute, Description, Direction, MediaSection, SessionSection};
use super::media::{
    self, ABS_SEND_TIME, Media, MediaKind, Setup, extension, rtpmap, static_payload_type,
    take_feedback,
};

/// The name clients find in `s=`.
const SESSION_NAME: &str = "Kurento Media Server";
/// Returned texts come before candidates: there is no address yet, and the port only says "live".
const NO_ADDRESS: &str = "IN IP4 0.0.0.0";
const LIVE_PORT: u16 = 1;
const DATA_PROTOCOLS: [&str; 2] = ["DTLS/SCTP", "UDP/DTLS/SCTP"];
const DATA_FORMAT: &str = "webrtc-datachannel";
/// The id of the absolute send time in our offers.
const ABS_SEND_TIME_ID: u8 = 3;
const FIRST_DYNAMIC: u8 = 96;

/// What may be agreed on.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// In order of preference.
    pub audio: Vec<Codec>,
    /// In order of preference.
    pub video: Vec<Codec>,
    /// Whether data channels are on.
    pub data: bool,
    /// Most audio sections.
    pub audio_lines: usize,
    /// Most video sections.
    pub video_lines: usize,
}

impl Capabilities {
    fn codecs(&self, kind: MediaKind) -> &[Codec] {
        match kind {
            MediaKind::Audio => &self.audio,
            MediaKind::Video => &self.video,
            MediaKind::Data | MediaKind::Other => &[],
        }
    }

    const fn lines(&self, kind: MediaKind) -> usize {
        match kind {
            MediaKind::Audio => self.audio_lines,
            MediaKind::Video => self.video_lines,
            MediaKind::Data => self.data as usize,
            MediaKind::Other => 0,
        }
    }
}

/// The ICE credentials of one of our transports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

/// What this side brings along.
#[derive(Clone, Debug)]
pub struct Local {
    /// Seconds since 1900, as NTP counts.
    pub session_id: u64,
    pub cname: String,
    /// SHA-256 of the certificate: `AB:CD:…`.
    pub fingerprint: String,
    /// One for each transport of [`Layout`]; the last serves those beyond. Offers need one.
    pub credentials: Vec<Credentials>,
    /// One for each media section, data sections included.
    pub ssrcs: Vec<u32>,
}

/// Wishes for an offer.
#[derive(Clone, Debug)]
pub struct OfferWishes {
    pub audio: bool,
    pub video: bool,
    /// What we want to do in every section.
    pub direction: Direction,
    /// Most we want to receive, in kbps.
    pub max_audio_bandwidth: Option<u32>,
    /// Most we want to receive, in kbps.
    pub max_video_bandwidth: Option<u32>,
    /// Our SCTP port, for data.
    pub data_port: u16,
}

impl Default for OfferWishes {
    fn default() -> Self {
        Self {
            audio: true,
            video: true,
            direction: Direction::SendRecv,
            max_audio_bandwidth: None,
            max_video_bandwidth: None,
            data_port: 5_000,
        }
    }
}

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
/// [`SdpError::DataSection`] when data channels are on and offered in a form that is not RFC 8841;
/// [`SdpError::LocalParameters`] when `local` is too short for the offer.
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
        let is_live = |mid: &str| media.iter().any(|m| m.accepted && m.mid.as_deref() == Some(mid));
        session.attributes.push(bundle::group_line(mids.into_iter().filter(|mid| is_live(mid))));
    }
    Ok(Negotiated { local: Description { session, media: sections }, media })
}

/// Session attributes that an answer does not repeat. Kurento leaves out only `group`; the others
/// would make claims about this server that are not true. A fingerprint is repeated as Kurento does
/// it: each section that lives has its own, which goes before it (RFC 8122 §5).
fn is_offerers_own(attribute: &Attribute) -> bool {
    matches!(
        attribute.name.as_str(),
        "group" | "ice-lite" | "ice-ufrag" | "ice-pwd" | "setup" | "identity" | "rtcp-mux"
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

/// Whether the section may carry feedback messages (RFC 4585, RFC 5124).
fn has_feedback(proto: &str) -> bool {
    proto.ends_with('F')
}

impl Local {
    fn ssrc(&self, index: usize) -> Result<u32, SdpError> {
        self.ssrcs.get(index).copied().ok_or(SdpError::LocalParameters(index))
    }
}

fn refusal(offered: &MediaSection) -> MediaSection {
    let mut section = section_like(offered, 0);
    section.formats.clone_from(&offered.formats);
    section.push_flag(Direction::Inactive.name());
    if let Some(mid) = offered.mid() {
        section.push("mid", mid);
    }
    section
}

fn section_like(offered: &MediaSection, port: u16) -> MediaSection {
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
    agreed.formats = media::formats(offered, capabilities.codecs(agreed.kind));
    agreed.accepted = !agreed.formats.is_empty() && !offered.is_rejected();
    let mut section = section_like(offered, if agreed.accepted { LIVE_PORT } else { 0 });
    if agreed.formats.is_empty() {
        section.formats.extend(offered.formats.first().cloned());
    } else {
        section.formats = agreed.formats.iter().map(|(number, _)| number.to_string()).collect();
    }
    if offered.is_rejected() {
        section.push_flag(Direction::Inactive.name());
        section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
    } else {
        let direction = offer.direction(agreed.index).mirrored();
        if agreed.accepted {
            agreed.send = direction.sends();
            agreed.receive = direction.receives();
        }
        answer_extensions(offered, agreed, &mut section);
        section.push_flag(direction.name());
        section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
        section.push("rtcp", format!("9 {NO_ADDRESS}"));
        let maps = agreed.formats.iter().filter_map(|(number, _)| rtpmap(offered, *number));
        section.attributes.extend(maps.cloned());
        answer_feedback(offered, agreed, &mut section);
        answer_copied(offered, agreed, &mut section);
        // In a group these may stand in its first section only; an answer says them everywhere.
        if !section.has("setup") {
            section.push("setup", agreed.setup.name());
        }
        if !section.has("rtcp-mux") && offer.media[owner].has("rtcp-mux") {
            section.push_flag("rtcp-mux");
        }
    }
    section.push("ssrc", format!("{} cname:{}", agreed.local_ssrc, local.cname));
    section
}

/// Of the header extensions only the absolute send time, under the offered id.
fn answer_extensions(offered: &MediaSection, agreed: &mut Media, section: &mut MediaSection) {
    let Some((id, direction)) = extension(offered, ABS_SEND_TIME) else { return };
    let words = match Direction::from_name(direction) {
        Some(Direction::SendRecv) | None => format!("{id} {ABS_SEND_TIME}"),
        Some(Direction::Inactive) => return,
        Some(one_way) => format!("{id}/{} {ABS_SEND_TIME}", one_way.mirrored().name()),
    };
    agreed.abs_send_time = Some(id);
    section.push("extmap", words);
}

fn answer_feedback(offered: &MediaSection, agreed: &mut Media, section: &mut MediaSection) {
    if !has_feedback(&offered.proto) {
        return;
    }
    let lines = offered.attributes.iter().filter(|attribute| {
        attribute.name == "rtcp-fb"
            && attribute.payload_type().is_some_and(|(number, feedback)| {
                is_kept(agreed, number) && feedback_is_known(feedback)
            })
    });
    section.attributes.extend(lines.cloned());
    take_feedback(agreed, section);
}

/// Whether an offered feedback message is understood, by the first word of its description.
pub fn feedback_is_known(feedback: &str) -> bool {
    matches!(feedback.split_ascii_whitespace().next(), Some("nack" | "ccm" | "goog-remb"))
}

fn is_kept(agreed: &Media, number: u8) -> bool {
    agreed.formats.iter().any(|(kept, _)| *kept == number)
}

/// Attributes an answer repeats, in the offered order.
fn answer_copied(offered: &MediaSection, agreed: &Media, section: &mut MediaSection) {
    for attribute in &offered.attributes {
        match attribute.name.as_str() {
            "fmtp" => {
                let number = attribute.payload_type().map(|(number, _)| number);
                if number.is_some_and(|number| is_kept(agreed, number)) {
                    section.attributes.push(attribute.clone());
                }
            }
            "setup" if !section.has("setup") => section.push("setup", agreed.setup.name()),
            "rtcp-mux" if !section.has("rtcp-mux") => section.push_flag("rtcp-mux"),
            "framerate" | "lang" | "maxptime" | "ptime" | "quality" => {
                section.attributes.push(attribute.clone());
            }
            _ => {}
        }
    }
}

fn answer_data(offered: &MediaSection, agreed: &mut Media) -> Result<MediaSection, SdpError> {
    let is_usable = offered.formats.iter().any(|format| format == DATA_FORMAT);
    let Some(port) = agreed.sctp_port.filter(|_| is_usable) else {
        return Err(SdpError::DataSection(agreed.index));
    };
    agreed.accepted = !offered.is_rejected();
    agreed.send = agreed.accepted;
    agreed.receive = agreed.accepted;
    let mut section = section_like(offered, if agreed.accepted { LIVE_PORT } else { 0 });
    section.formats.push(DATA_FORMAT.to_owned());
    if !agreed.accepted {
        section.push_flag(Direction::Inactive.name());
    }
    section.attributes.extend(offered.mid().map(|mid| Attribute::new("mid", mid)));
    if agreed.accepted {
        section.push("sctp-port", port.to_string());
        section.push("setup", agreed.setup.name());
    }
    Ok(section)
}

fn push_transport(
    section: &mut MediaSection,
    local: &Local,
    transport: usize,
    index: usize,
) -> Result<(), SdpError> {
    let credentials = local
        .credentials
        .get(transport)
        .or(local.credentials.last())
        .ok_or(SdpError::LocalParameters(index))?;
    section.push("ice-ufrag", &credentials.ufrag);
    section.push("ice-pwd", &credentials.pwd);
    section.push("fingerprint", format!("sha-256 {}", local.fingerprint));
    Ok(())
}

fn session_section(local: &Local) -> SessionSection {
    SessionSection {
        origin: Some(format!("- {0} {0} {NO_ADDRESS}", local.session_id)),
        name: Some(SESSION_NAME.to_owned()),
        connection: Some(NO_ADDRESS.to_owned()),
        times: vec![('t', "0 0".to_owned())],
        ..SessionSection::default()
    }
}

/// Makes an offer: all audio sections, all video sections, then data, in one group.
///
/// # Errors
/// [`SdpError::LocalParameters`] when `local` is too short.
pub fn offer(
    capabilities: &Capabilities,
    local: &Local,
    wishes: &OfferWishes,
) -> Result<Description, SdpError> {
    let mut sections = Vec::new();
    let mut numbers = Numbers { next: FIRST_DYNAMIC };
    let audio_lines = if wishes.audio { capabilities.audio_lines } else { 0 };
    let video_lines = if wishes.video { capabilities.video_lines } else { 0 };
    let rtp = [
        ("audio", &capabilities.audio, audio_lines, wishes.max_audio_bandwidth),
        ("video", &capabilities.video, video_lines, wishes.max_video_bandwidth),
    ];
    for (word, codecs, lines, bandwidth) in rtp {
        for line in 0..lines {
            let index = sections.len();
            let formats = numbers.line(capabilities, codecs);
            let mut section = offer_rtp(word, &formats, wishes.direction, &format!("{word}{line}"));
            section.bandwidths.extend(bandwidth.map(|kbps| format!("AS:{kbps}")));
            section.push("ssrc", format!("{} cname:{}", local.ssrc(index)?, local.cname));
            push_transport(&mut section, local, 0, index)?;
            sections.push(section);
        }
    }
    if capabilities.data {
        let mut section = MediaSection {
            media: "application".to_owned(),
            port: LIVE_PORT,
            port_count: 1,
            proto: DATA_PROTOCOLS[1].to_owned(),
            formats: vec![DATA_FORMAT.to_owned()],
            ..MediaSection::default()
        };
        section.push("setup", Setup::ActPass.name());
        section.push("sctp-port", wishes.data_port.to_string());
        section.push("mid", "application0");
        push_transport(&mut section, local, 0, sections.len())?;
        sections.push(section);
    }
    let mut session = session_section(local);
    session.attributes.push(bundle::group_line(sections.iter().filter_map(MediaSection::mid)));
    Ok(Description { session, media: sections })
}

/// Payload types of offers. Each line takes numbers for all codecs of both kinds, and shows those
/// of its own kind; so numbers differ between lines, and a line has the numbers clients know.
struct Numbers {
    next: u8,
}

impl Numbers {
    fn line(&mut self, capabilities: &Capabilities, shown: &[Codec]) -> Vec<(u8, Codec)> {
        let all = capabilities.audio.iter().chain(&capabilities.video);
        let dynamic = all.clone().filter(|codec| static_payload_type(**codec).is_none()).count();
        // Past the end the numbers start again: every line numbers alike, so a number that comes
        // twice in the group is the same codec both times, as RFC 9143 §9.1 asks.
        if usize::from(self.next) + dynamic > 128 {
            self.next = FIRST_DYNAMIC;
        }
        let mut formats = Vec::new();
        for codec in all {
            let number = static_payload_type(*codec).unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            });
            if shown.contains(codec) {
                formats.push((number, *codec));
            }
        }
        formats
    }
}

fn offer_rtp(word: &str, formats: &[(u8, Codec)], direction: Direction, mid: &str) -> MediaSection {
    let mut section = MediaSection {
        media: word.to_owned(),
        port: LIVE_PORT,
        port_count: 1,
        proto: "RTP/SAVPF".to_owned(),
        formats: formats.iter().map(|(number, _)| number.to_string()).collect(),
        ..MediaSection::default()
    };
    section.push("setup", Setup::ActPass.name());
    section.push("extmap", format!("{ABS_SEND_TIME_ID} {ABS_SEND_TIME}"));
    for (number, codec) in formats {
        if static_payload_type(*codec).is_some() {
            continue;
        }
        let channels =
            if codec.channels() > 1 { format!("/{}", codec.channels()) } else { String::new() };
        let (name, clock_rate) = (codec.name(), codec.clock_rate());
        section.push("rtpmap", format!("{number} {name}/{clock_rate}{channels}"));
        if let Some(parameters) = offered_parameters(*codec) {
            section.push("fmtp", format!("{number} {parameters}"));
        }
    }
    section.push("rtcp", format!("9 {NO_ADDRESS}"));
    section.push_flag("rtcp-mux");
    section.push_flag(direction.name());
    section.push("mid", mid);
    for (number, codec) in formats {
        for feedback in offered_feedback(*codec) {
            section.push("rtcp-fb", format!("{number} {feedback}"));
        }
    }
    section
}

const fn offered_parameters(codec: Codec) -> Option<&'static str> {
    match codec {
        Codec::H264 => {
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
        }
        Codec::Av1 => Some("level-idx=5;profile=0;tier=0"),
        Codec::Vp9 => Some("profile-id=0"),
        Codec::Vp8 | Codec::Opus | Codec::Pcmu | Codec::Pcma => None,
    }
}

const fn offered_feedback(codec: Codec) -> &'static [&'static str] {
    match codec {
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => &["nack", "nack pli", "goog-remb", "ccm fir"],
        Codec::H264 => &["nack", "nack pli", "ccm fir"],
        Codec::Opus | Codec::Pcmu | Codec::Pcma => &[],
    }
}

/// Reads the answer to an offer of ours. Sections match by position; mids need not agree.
///
/// # Errors
/// [`SdpError::SectionCount`] when the answer has not as many sections as the offer.
pub fn accept(
    offer: &Description,
    answer: &Description,
    capabilities: &Capabilities,
) -> Result<Vec<Media>, SdpError> {
    if offer.media.len() != answer.media.len() {
        return Err(SdpError::SectionCount {
            offered: offer.media.len(),
            answered: answer.media.len(),
        });
    }
    let ours = Layout::of(offer);
    let theirs = Layout::of(answer);
    let mut media = Vec::with_capacity(answer.media.len());
    for (index, offered) in offer.media.iter().enumerate() {
        let answered = &answer.media[index];
        let mut agreed = media::remote(answer, index, theirs.sections[index]);
        agreed.kind = MediaKind::of(offered);
        agreed.mid = offered.mid().map(str::to_owned);
        // The offer put all sections on one transport, whatever the answer makes of the group.
        agreed.transport = ours.sections[index].transport;
        if agreed.kind == MediaKind::Data {
            agreed.accepted = !answered.is_rejected() && agreed.sctp_port.is_some();
            agreed.send = agreed.accepted;
            agreed.receive = agreed.accepted;
        } else {
            agreed.local_ssrc = own_ssrc(offered);
            accept_rtp(offer, answer, &mut agreed, capabilities);
        }
        media.push(agreed);
    }
    Ok(media)
}

fn own_ssrc(offered: &MediaSection) -> u32 {
    let number = offered.values("ssrc").find_map(|value| value.split(' ').next()?.parse().ok());
    number.unwrap_or(0)
}

fn accept_rtp(
    offer: &Description,
    answer: &Description,
    agreed: &mut Media,
    capabilities: &Capabilities,
) {
    let index = agreed.index;
    let (offered, answered) = (&offer.media[index], &answer.media[index]);
    let codecs = capabilities.codecs(agreed.kind);
    let known = media::formats(offered, codecs);
    agreed.formats = media::formats(answered, codecs);
    // A number means what the offer said it means.
    agreed.formats.retain(|(number, format)| {
        known.iter().any(|(ours, meant)| ours == number && meant.codec == format.codec)
    });
    agreed.accepted = !answered.is_rejected() && !agreed.formats.is_empty();
    if !agreed.accepted {
        return;
    }
    let (ours, theirs) = (offer.direction(index), answer.direction(index));
    agreed.send = ours.sends() && theirs.receives();
    agreed.receive = ours.receives() && theirs.sends();
    if has_feedback(&answered.proto) {
        take_feedback(agreed, answered);
    }
    agreed.abs_send_time = extension(answered, ABS_SEND_TIME)
        .filter(|(_, direction)| *direction != "inactive")
        .map(|(id, _)| id)
        .filter(|id| extension(offered, ABS_SEND_TIME).is_some_and(|(offered, _)| offered == *id));
}
