//! Offers of our own, and reading the answers to them (RFC 3264 §5 and §7).

use crate::rtp::format::Codec;

use super::SdpError;
use super::bundle::{self, Layout};
use super::description::{Description, Direction, MediaSection};
use super::media::{
    self, ABS_SEND_TIME, Media, MediaKind, Setup, extension, static_payload_type, take_feedback,
};
use super::negotiate::{
    Capabilities, DATA_FORMAT, DATA_PROTOCOLS, LIVE_PORT, Local, MAX_MESSAGE, NO_ADDRESS,
    has_feedback, push_transport, session_section,
};

/// The id of the absolute send time in our offers.
const ABS_SEND_TIME_ID: u8 = 3;
const FIRST_DYNAMIC: u8 = 96;

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
    let mut numbers = Numbers::default();
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
        section.push("max-message-size", MAX_MESSAGE);
        push_transport(&mut section, local, 0, sections.len())?;
        sections.push(section);
    }
    let mut session = session_section(local);
    session.attributes.push(bundle::group_line(sections.iter().filter_map(MediaSection::mid)));
    Ok(Description { session, media: sections })
}

/// Payload types of offers. Each line takes numbers for all codecs of both kinds, and shows those
/// of its own kind; so numbers differ between lines, and a line has the numbers clients know.
pub(super) struct Numbers {
    next: u8,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { next: FIRST_DYNAMIC }
    }
}

impl Numbers {
    pub(super) fn line(
        &mut self,
        capabilities: &Capabilities,
        shown: &[Codec],
    ) -> Vec<(u8, Codec)> {
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
    offer_formats(&mut section, formats);
    section.push("rtcp", format!("9 {NO_ADDRESS}"));
    section.push_flag("rtcp-mux");
    section.push_flag(direction.name());
    section.push("mid", mid);
    offer_feedback(&mut section, formats);
    section
}

/// What an offer says of itself before it says where it can be reached.
pub(super) fn offer_formats(section: &mut MediaSection, formats: &[(u8, Codec)]) {
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
}

pub(super) fn offer_feedback(section: &mut MediaSection, formats: &[(u8, Codec)]) {
    for (number, codec) in formats {
        for feedback in offered_feedback(*codec) {
            section.push("rtcp-fb", format!("{number} {feedback}"));
        }
    }
}

const fn offered_parameters(codec: Codec) -> Option<&'static str> {
    match codec {
        Codec::H264 => {
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
        }
        Codec::Av1 => Some("level-idx=5;profile=0;tier=0"),
        Codec::Vp9 => Some("profile-id=0"),
        Codec::Vp8 | Codec::H265 | Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::Amr => None,
    }
}

const fn offered_feedback(codec: Codec) -> &'static [&'static str] {
    match codec {
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => &["nack", "nack pli", "goog-remb", "ccm fir"],
        Codec::H264 | Codec::H265 => &["nack", "nack pli", "ccm fir"],
        Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::Amr => &[],
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

pub(super) fn own_ssrc(offered: &MediaSection) -> u32 {
    let number = offered.values("ssrc").find_map(|value| value.split(' ').next()?.parse().ok());
    number.unwrap_or(0)
}

pub(super) fn accept_rtp(
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
