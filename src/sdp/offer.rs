//! Offers of our own, and reading the answers to them (RFC 3264 §5 and §7).

use crate::rtp::extensions::Extension;
use crate::rtp::format::Codec;

use super::SdpError;
use super::bundle::{self, Layout};
use super::description::{Description, Direction, MediaSection};
use super::extensions;
use super::formats::{PayloadTypes, push_rtx, static_payload_type};
use super::media::{self, Media, MediaKind, Setup, TRANSPORT_CC, take_feedback};
use super::negotiate::{
    Capabilities, DATA_FORMAT, DATA_PROTOCOLS, LIVE_PORT, Local, MAX_MESSAGE, NO_ADDRESS,
    has_feedback, push_transport, session_section,
};
use super::sources;

/// The numbers of header extensions in our offers. The first is the one that clients know.
const EXTENSIONS: [(Extension, u8); 5] = [
    (Extension::AbsSendTime, 3),
    (Extension::TransportSequence, 4),
    (Extension::Mid, 5),
    (Extension::AudioLevel, 6),
    (Extension::AbsCaptureTime, 7),
];
const FIRST_DYNAMIC: u8 = 96;
const LAST_DYNAMIC: u8 = 127;

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
    for line in lines(capabilities, wishes) {
        let index = sections.len();
        let mut section = offer_rtp(capabilities, &line, wishes.direction);
        let rtx = local.rtx_ssrcs.get(index).copied();
        let rtx = rtx.filter(|_| !line.rtx.is_empty() && wishes.direction.sends());
        sources::push(&mut section, local.ssrc(index)?, rtx, &local.cname);
        push_transport(&mut section, local, 0, index)?;
        sections.push(section);
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
        section.push("max-message-size", MAX_MESSAGE);
        push_transport(&mut section, local, 0, sections.len())?;
        sections.push(section);
    }
    let mut session = session_section(local);
    session.attributes.push(bundle::group_line(sections.iter().filter_map(MediaSection::mid)));
    Ok(Description { session, media: sections })
}

/// An RTP section to be offered.
pub(super) struct Line {
    pub kind: MediaKind,
    pub mid: String,
    pub formats: Vec<(u8, Codec)>,
    /// Payload types of what is sent again, each with its format.
    pub rtx: Vec<(u8, (u8, Codec))>,
    /// Most we want to receive, in kbps.
    pub bandwidth: Option<u32>,
}

/// The RTP sections of an offer: audio, then video.
pub(super) fn lines(capabilities: &Capabilities, wishes: &OfferWishes) -> Vec<Line> {
    let kinds = [
        (MediaKind::Audio, "audio", wishes.audio, wishes.max_audio_bandwidth),
        (MediaKind::Video, "video", wishes.video, wishes.max_video_bandwidth),
    ];
    let mut numbers = Numbers::default();
    let mut all = Vec::new();
    for (kind, word, wanted, bandwidth) in kinds {
        for line in 0..if wanted { capabilities.lines(kind) } else { 0 } {
            let formats = numbers.line(capabilities, capabilities.listed(kind));
            let mid = format!("{word}{line}");
            all.push(Line { kind, mid, formats, rtx: Vec::new(), bandwidth });
        }
    }
    if capabilities.extras.rtx {
        let repaired = all.iter_mut().filter(|line| line.kind == MediaKind::Video);
        repaired.for_each(|line| line.rtx = numbers.repairs(&line.formats));
    }
    all
}

/// Payload types of offers. Each line takes numbers for all codecs of both kinds, and shows those
/// of its own kind; so numbers differ between lines, and a line has the numbers clients know.
struct Numbers {
    next: u8,
    /// The lowest number above all that were given.
    free: u8,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { next: FIRST_DYNAMIC, free: FIRST_DYNAMIC }
    }
}

impl Numbers {
    fn line(&mut self, capabilities: &Capabilities, shown: &[Codec]) -> Vec<(u8, Codec)> {
        let all = capabilities.audio.iter().chain(&capabilities.video);
        let dynamic = all.clone().filter(|codec| static_payload_type(**codec).is_none()).count();
        // Past the end the numbers start again: every line numbers alike, so a number that comes
        // twice in the group is the same codec both times, as RFC 9143 §9.1 asks.
        if usize::from(self.next) + dynamic > usize::from(LAST_DYNAMIC) + 1 {
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
        self.free = self.free.max(self.next);
        formats
    }

    /// Numbers for what is sent again of a line, once all lines have theirs. When there are not enough
    /// the line goes without.
    fn repairs(&mut self, formats: &[(u8, Codec)]) -> Vec<(u8, (u8, Codec))> {
        if usize::from(self.free) + formats.len() > usize::from(LAST_DYNAMIC) + 1 {
            return Vec::new();
        }
        let numbered = (self.free..).zip(formats.iter().copied()).collect();
        self.free += formats.len() as u8;
        numbered
    }
}

fn offer_rtp(capabilities: &Capabilities, line: &Line, direction: Direction) -> MediaSection {
    let mut section = offer_section(capabilities, line, LIVE_PORT, "RTP/SAVPF");
    section.push("rtcp", format!("9 {NO_ADDRESS}"));
    section.push_flag("rtcp-mux");
    section.push_flag(direction.name());
    section.push("mid", &line.mid);
    offer_feedback(&mut section, capabilities, line);
    section
}

/// What an offer says of itself before it says where it can be reached.
pub(super) fn offer_section(
    capabilities: &Capabilities,
    line: &Line,
    port: u16,
    proto: &str,
) -> MediaSection {
    let numbers = line.formats.iter().map(|(number, _)| number);
    let mut section = MediaSection {
        media: line.kind.word().to_owned(),
        port,
        port_count: 1,
        proto: proto.to_owned(),
        formats: numbers
            .chain(line.rtx.iter().map(|(number, _)| number))
            .map(u8::to_string)
            .collect(),
        bandwidths: line.bandwidth.iter().map(|kbps| format!("AS:{kbps}")).collect(),
        ..MediaSection::default()
    };
    section.push("setup", Setup::ActPass.name());
    for (extension, number) in EXTENSIONS {
        if capabilities.knows(extension, line.kind, true) {
            extensions::push(&mut section, extension, number, Direction::SendRecv);
        }
    }
    for (number, codec) in &line.formats {
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
    for (number, (primary, codec)) in &line.rtx {
        push_rtx(&mut section, *number, *primary, codec.clock_rate());
    }
    section
}

pub(super) fn offer_feedback(section: &mut MediaSection, capabilities: &Capabilities, line: &Line) {
    for (number, codec) in &line.formats {
        for feedback in offered_feedback(*codec) {
            section.push("rtcp-fb", format!("{number} {feedback}"));
        }
    }
    // Old formats of telephony have no feedback whatsoever.
    let paced = line.formats.iter().filter(|(_, codec)| static_payload_type(*codec).is_none());
    for (number, _) in paced.filter(|_| capabilities.extras.transport_cc(true)) {
        section.push("rtcp-fb", format!("{number} {TRANSPORT_CC}"));
    }
}

const fn offered_parameters(codec: Codec) -> Option<&'static str> {
    match codec {
        Codec::H264 => {
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
        }
        Codec::Av1 => Some("level-idx=5;profile=0;tier=0"),
        Codec::Vp9 => Some("profile-id=0"),
        Codec::Vp8
        | Codec::H265
        | Codec::Opus
        | Codec::Red
        | Codec::Pcmu
        | Codec::Pcma
        | Codec::Amr => None,
    }
}

const fn offered_feedback(codec: Codec) -> &'static [&'static str] {
    match codec {
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => &["nack", "nack pli", "goog-remb", "ccm fir"],
        Codec::H264 | Codec::H265 => &["nack", "nack pli", "ccm fir"],
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::Amr => &[],
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
            accept_rtp(offer, answer, &mut agreed, capabilities);
        }
        media.push(agreed);
    }
    Ok(media)
}

pub(super) fn accept_rtp(
    offer: &Description,
    answer: &Description,
    agreed: &mut Media,
    capabilities: &Capabilities,
) {
    let index = agreed.index;
    let (offered, answered) = (&offer.media[index], &answer.media[index]);
    let (ssrc, rtx_ssrc) = sources::own(offered);
    agreed.local_ssrc = ssrc;
    let codecs = capabilities.codecs(agreed.kind);
    let (ours, theirs) = (PayloadTypes::of(offered), PayloadTypes::of(answered));
    let known = ours.formats(&codecs);
    agreed.formats = theirs.formats(&codecs);
    // A number means what the offer said it means.
    agreed.formats.retain(|(number, format)| {
        known.iter().any(|(ours, meant)| ours == number && meant.codec == format.codec)
    });
    agreed.accepted = !answered.is_rejected() && !agreed.formats.is_empty();
    if !agreed.accepted {
        return;
    }
    let (mine, other) = (offer.direction(index), answer.direction(index));
    agreed.send = mine.sends() && other.receives();
    agreed.receive = mine.receives() && other.sends();
    if has_feedback(&answered.proto) {
        take_feedback(agreed, answered);
    }
    if agreed.nack {
        let known = ours.rtx(&known);
        agreed.rtx = theirs.rtx(&agreed.formats);
        agreed.rtx.retain(|pair| known.contains(pair));
        agreed.local_rtx_ssrc = rtx_ssrc.filter(|_| agreed.send && !agreed.rtx.is_empty());
    }
    agreed.extensions = extensions::accept(offered, answered);
    agreed.transport_cc &= agreed.extensions.get(Extension::TransportSequence).is_some();
}
