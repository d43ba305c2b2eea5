//! What offers and answers have in common (RFC 3264): what this server can do, what it brings along,
//! and how its own sections speak of transport. [`fn@super::answer`] and [`fn@super::offer`] do the
//! rest.

use std::net::{IpAddr, Ipv4Addr};

use crate::rtp::extensions::Extension;
use crate::rtp::format::Codec;

use super::SdpError;
use super::description::{MediaSection, SessionSection};
use super::media::MediaKind;

/// The name clients find in `s=`.
const SESSION_NAME: &str = "Kurento Media Server";
/// Returned texts come before candidates: there is no address yet, and the port only says "live".
pub(super) const NO_ADDRESS: &str = "IN IP4 0.0.0.0";
pub(super) const LIVE_PORT: u16 = 1;
pub(super) const DATA_PROTOCOLS: [&str; 2] = ["DTLS/SCTP", "UDP/DTLS/SCTP"];
pub(super) const DATA_FORMAT: &str = "webrtc-datachannel";
/// The longest message over a data channel that is taken here. Browsers send no longer ones, and
/// without this no longer ones than 64 KiB.
pub(super) const MAX_MESSAGE: &str = "262144";

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
    pub extras: Extras,
}

/// What may be agreed on beyond what Kurento knows. It is offered behind the rest, and answered only
/// where it was offered, so who does not know it sees nothing new.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extras {
    /// Retransmissions as streams of their own (RFC 4588).
    pub rtx: bool,
    /// Feedback about all packets of a transport
    /// (draft-holmer-rmcat-transport-wide-cc-extensions).
    pub transport_cc: bool,
    /// That also where this side sends. Receivers that give it make no estimate of their own (REMB), so
    /// there must be somebody here who does.
    pub estimates: bool,
    /// Header extensions beside the time of sending: names of sections and encodings, loudness, time
    /// of capture.
    pub extensions: bool,
    /// Redundant audio (RFC 2198); taken, not offered.
    pub red: bool,
    /// Most encodings of one source that are taken at the same time (RFC 8853); with none simulcast is
    /// left unanswered, and the other side sends one encoding without a name.
    pub encodings: usize,
}

impl Extras {
    pub const NONE: Self = Self {
        rtx: false,
        transport_cc: false,
        estimates: false,
        extensions: false,
        red: false,
        encodings: 0,
    };

    /// All that can be forwarded.
    pub const FORWARDED: Self = Self {
        rtx: true,
        transport_cc: true,
        estimates: true,
        extensions: true,
        red: true,
        encodings: 4,
    };

    /// Whether feedback about all packets is agreed on for a section.
    pub(super) const fn transport_cc(self, sends: bool) -> bool {
        self.transport_cc && (self.estimates || !sends)
    }
}

impl Capabilities {
    /// What a section of that kind may carry.
    pub(super) fn codecs(&self, kind: MediaKind) -> Vec<Codec> {
        let mut codecs = self.listed(kind).to_vec();
        if kind == MediaKind::Audio && self.extras.red {
            codecs.push(Codec::Red);
        }
        codecs
    }

    /// What an offer lists.
    pub(super) fn listed(&self, kind: MediaKind) -> &[Codec] {
        match kind {
            MediaKind::Audio => &self.audio,
            MediaKind::Video => &self.video,
            MediaKind::Data | MediaKind::Other => &[],
        }
    }

    /// Whether a header extension may be agreed on for a section of that kind.
    pub(super) fn knows(&self, extension: Extension, kind: MediaKind, sends: bool) -> bool {
        match extension {
            Extension::AbsSendTime => true,
            Extension::TransportSequence => self.extras.transport_cc(sends),
            Extension::AudioLevel => self.extras.extensions && kind == MediaKind::Audio,
            Extension::PlayoutDelay => self.extras.extensions && sends && kind == MediaKind::Video,
            Extension::DependencyDescriptor => self.extras.extensions && kind == MediaKind::Video,
            Extension::Mid
            | Extension::StreamId
            | Extension::RepairedStreamId
            | Extension::AbsCaptureTime => self.extras.extensions,
        }
    }

    pub(super) const fn lines(&self, kind: MediaKind) -> usize {
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
    /// One for each transport of [`super::Layout`]; the last serves those beyond. Offers need one.
    pub credentials: Vec<Credentials>,
    /// One for each media section, data sections included.
    pub ssrcs: Vec<u32>,
    /// The same for what is sent again; sections beyond go without.
    pub rtx_ssrcs: Vec<u32>,
}

impl Local {
    pub(super) fn ssrc(&self, index: usize) -> Result<u32, SdpError> {
        self.ssrcs.get(index).copied().ok_or(SdpError::LocalParameters(index))
    }
}

/// Whether the section may carry feedback messages (RFC 4585, RFC 5124).
pub(super) fn has_feedback(proto: &str) -> bool {
    proto.ends_with('F')
}

pub(super) fn push_transport(
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

pub(super) fn session_section(local: &Local) -> SessionSection {
    session_section_at(local.session_id, Ipv4Addr::UNSPECIFIED.into())
}

/// The session of a server that is reached at `address`; the unspecified one says nothing yet.
pub(super) fn session_section_at(session_id: u64, address: IpAddr) -> SessionSection {
    let family = if address.is_ipv6() { "IP6" } else { "IP4" };
    SessionSection {
        origin: Some(format!("- {session_id} {session_id} IN {family} {address}")),
        name: Some(SESSION_NAME.to_owned()),
        connection: Some(format!("IN {family} {address}")),
        times: vec![('t', "0 0".to_owned())],
        ..SessionSection::default()
    }
}
