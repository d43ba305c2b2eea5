//! What two descriptions agree on for one media section, in the terms of those who move packets.

use crate::rtp::extensions::Extensions;
use crate::rtp::format::{Format, Kind};

use super::bundle::Place;
use super::description::{Attribute, Description, MediaSection, find};
use super::formats::Set;
use super::negotiate::DATA_FORMAT;
use super::simulcast::Encoding;
use super::sources::Sources;

/// The feedback message about all packets of a transport.
pub(super) const TRANSPORT_CC: &str = "transport-cc";

/// Longest user name fragment or password of ICE, in characters.
const MAX_CREDENTIAL: usize = 256;
/// Most fingerprints that count for one section: a certificate has one for each hash function.
const MAX_FINGERPRINTS: usize = 16;
/// Bytes of the longest digest, that of SHA-512.
const MAX_DIGEST: usize = 64;

/// What a section carries.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MediaKind {
    Audio,
    Video,
    /// Data channels over SCTP (RFC 8841).
    Data,
    Other,
}

impl MediaKind {
    pub fn of(section: &MediaSection) -> Self {
        match section.media.as_str() {
            "audio" => Self::Audio,
            "video" => Self::Video,
            "application" if section.proto.ends_with("DTLS/SCTP") => Self::Data,
            _ => Self::Other,
        }
    }

    /// The first word of an `m=` line.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Data | Self::Other => "application",
        }
    }

    /// The kind of RTP media, if it is RTP.
    pub const fn rtp(self) -> Option<Kind> {
        match self {
            Self::Audio => Some(Kind::Audio),
            Self::Video => Some(Kind::Video),
            Self::Data | Self::Other => None,
        }
    }
}

/// Who opens the DTLS association (RFC 8842 §5): the active side is the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Setup {
    ActPass,
    Active,
    Passive,
}

impl Setup {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "actpass" => Some(Self::ActPass),
            "active" => Some(Self::Active),
            "passive" => Some(Self::Passive),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::ActPass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }

    /// What to say to a side that said this. Who leaves it open or says nothing expects a client.
    pub const fn answered(self) -> Self {
        match self {
            Self::ActPass | Self::Passive => Self::Active,
            Self::Active => Self::Passive,
        }
    }
}

/// One agreed (or refused) media section, seen from this server.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    pub index: usize,
    pub kind: MediaKind,
    pub mid: Option<String>,
    /// Whether anything flows here; the rest counts only then.
    pub accepted: bool,
    pub send: bool,
    pub receive: bool,
    /// Payload types both sides know, the first is what is sent.
    pub formats: Vec<(u8, Format)>,
    /// Generic NACK (RFC 4585 §6.2.1).
    pub nack: bool,
    /// Picture loss indication (RFC 4585 §6.3.1).
    pub pli: bool,
    /// Full intra request (RFC 5104 §4.3.1).
    pub fir: bool,
    /// Receiver estimated maximum bitrate.
    pub remb: bool,
    /// Feedback about each packet of the transport
    /// (draft-holmer-rmcat-transport-wide-cc-extensions); the extension for it is agreed on too.
    pub transport_cc: bool,
    /// Payload types that send something again, each with the one of `formats` that it repeats (RFC
    /// 4588). Empty without NACK.
    pub rtx: Vec<(u8, u8)>,
    /// The numbers of header extensions.
    pub extensions: Extensions,
    /// The encodings that the other side sends at the same time, told apart by their names, the most
    /// wanted first (RFC 8853). Empty if there is one only, without a name.
    pub encodings: Vec<Encoding>,
    pub local_ssrc: u32,
    /// What we send again comes from here, if we send and `rtx` is agreed on.
    pub local_rtx_ssrc: Option<u32>,
    /// Announced SSRCs of media, without those of repair streams; those of a `SIM` group first and in
    /// its order (RFC 5576 §4).
    pub remote_ssrcs: Vec<u32>,
    /// Those of them that are encodings of one source that are sent at the same time (`SIM`), if there are
    /// several.
    pub remote_encodings: Vec<u32>,
    /// Announced SSRCs of retransmissions, each with the one of `remote_ssrcs` that it repairs.
    pub remote_rtx_ssrcs: Vec<(u32, u32)>,
    pub remote_cname: Option<String>,
    /// The other side's user name fragment and password.
    pub ice: Option<(String, String)>,
    /// Hash function in lower case, and digest.
    pub fingerprints: Vec<(String, Vec<u8>)>,
    /// Our own role.
    pub setup: Setup,
    /// Candidates in the text, each beginning with `candidate:`.
    pub candidates: Vec<String>,
    /// Whether the section shares its transport with its group.
    pub bundled: bool,
    /// Number of the transport, see [`super::bundle::Layout`].
    pub transport: usize,
    pub rtcp_mux: bool,
    /// Most that the other side wants to receive, in kbps.
    pub max_bandwidth: Option<u32>,
    /// The other side's SCTP port, for data.
    pub sctp_port: Option<u16>,
    /// The longest message the other side takes over a data channel, in bytes; none if it takes any.
    pub max_message: Option<usize>,
}

impl Media {
    /// Whether candidates of this section are of use: it is taken, or shares the transport of those
    /// that are.
    pub fn leads_somewhere(&self) -> bool {
        self.accepted || self.bundled
    }

    /// Whether another agreement differs from this one in the peer's ICE parameters at most.
    pub fn agrees_but_for_ice(&self, other: &Self) -> bool {
        let (ice, candidates) = (self.ice.clone(), self.candidates.clone());
        *self == Self { ice, candidates, ..other.clone() }
    }
}

/// The remote half of a [`Media`]; the local half is refused until the caller says otherwise.
pub(super) fn remote(description: &Description, index: usize, place: Place) -> Media {
    let section = &description.media[index];
    let announced = Sources::of(section);
    Media {
        index,
        kind: MediaKind::of(section),
        mid: section.mid().map(str::to_owned),
        accepted: false,
        send: false,
        receive: false,
        formats: Vec::new(),
        nack: false,
        pli: false,
        fir: false,
        remb: false,
        transport_cc: false,
        rtx: Vec::new(),
        extensions: Extensions::default(),
        encodings: Vec::new(),
        local_ssrc: 0,
        local_rtx_ssrc: None,
        remote_ssrcs: announced.ssrcs,
        remote_encodings: if announced.encodings.len() > 1 {
            announced.encodings
        } else {
            Vec::new()
        },
        remote_rtx_ssrcs: announced.rtx,
        remote_cname: announced.cname,
        ice: ice(description, index, place),
        fingerprints: fingerprints(description, index, place),
        setup: setup(description, index, place).unwrap_or(Setup::ActPass).answered(),
        candidates: section.values("candidate").map(|line| format!("candidate:{line}")).collect(),
        bundled: place.bundled,
        transport: place.transport,
        rtcp_mux: has_rtcp_mux(description, index, place),
        max_bandwidth: bandwidth(section),
        sctp_port: sctp_port(section),
        max_message: max_message(section),
    }
}

/// The port as RFC 8841 §5 says it, or as its drafts did: `m=application 9 DTLS/SCTP 5000` with
/// `a=sctpmap:5000 webrtc-datachannel 1024`.
fn sctp_port(section: &MediaSection) -> Option<u16> {
    let port = section.values("sctp-port").find_map(|port| port.trim().parse().ok());
    port.or_else(|| sctpmap(section)?.value().split(' ').next()?.parse().ok())
}

/// The line by which drafts described data channels, if the section is one of theirs.
pub(super) fn sctpmap(section: &MediaSection) -> Option<&Attribute> {
    section.attributes.iter().filter(|attribute| attribute.name == "sctpmap").find(|attribute| {
        let mut words = attribute.value().split_ascii_whitespace();
        let number = words.next();
        words.next() == Some(DATA_FORMAT)
            && number.is_some_and(|number| section.formats.iter().any(|format| format == number))
    })
}

/// RFC 8841 §6.1: 64 KiB unless something else is said, and 0 for no limit.
fn max_message(section: &MediaSection) -> Option<usize> {
    let said = section.values("max-message-size").find_map(|size| size.trim().parse().ok());
    match said.unwrap_or(64 * 1024) {
        0 => None,
        size => Some(size),
    }
}

/// Attributes that concern a section's transport, nearest first: its own, those of the section
/// that leads its group, those of the session.
fn transport_attributes(
    description: &Description,
    index: usize,
    place: Place,
) -> impl Iterator<Item = &[Attribute]> {
    [
        &description.media[index].attributes[..],
        &description.media[place.owner].attributes[..],
        &description.session.attributes[..],
    ]
    .into_iter()
}

fn ice(description: &Description, index: usize, place: Place) -> Option<(String, String)> {
    transport_attributes(description, index, place).find_map(|attributes| {
        let ufrag = find(attributes, "ice-ufrag")?.value().trim();
        let pwd = find(attributes, "ice-pwd")?.value().trim();
        // Longer ones are none (RFC 8839 §5.4), and each section would have a copy.
        let fit = ufrag.len().max(pwd.len()) <= MAX_CREDENTIAL;
        fit.then(|| (ufrag.to_owned(), pwd.to_owned()))
    })
}

pub(super) fn setup(description: &Description, index: usize, place: Place) -> Option<Setup> {
    transport_attributes(description, index, place).find_map(|attributes| {
        find(attributes, "setup").and_then(|attribute| Setup::from_name(attribute.value().trim()))
    })
}

/// A section in a group has the multiplexing of the section that leads it (RFC 9143 §9.3).
pub(super) fn has_rtcp_mux(description: &Description, index: usize, place: Place) -> bool {
    description.media[index].has("rtcp-mux") || description.media[place.owner].has("rtcp-mux")
}

fn fingerprints(description: &Description, index: usize, place: Place) -> Vec<(String, Vec<u8>)> {
    transport_attributes(description, index, place)
        .map(|attributes| {
            attributes
                .iter()
                .filter(|attribute| attribute.name == "fingerprint")
                .filter_map(|attribute| fingerprint(attribute.value()))
                .take(MAX_FINGERPRINTS)
                .collect::<Vec<_>>()
        })
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// `sha-256 AB:CD:…` (RFC 8122 §5).
fn fingerprint(value: &str) -> Option<(String, Vec<u8>)> {
    let (hash, digest) = value.trim().split_once(' ')?;
    let digest = digest.trim();
    if hash.len() > MAX_DIGEST || digest.len() > 3 * MAX_DIGEST {
        return None;
    }
    let digest = digest
        .split(':')
        .map(|byte| {
            let hex = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(byte, 16).ok()).flatten()
        })
        .collect::<Option<Vec<u8>>>()?;
    Some((hash.to_ascii_lowercase(), digest))
}

/// `b=AS` in kbps, or `b=TIAS` in bits per second (RFC 3890); the lower if both are there.
fn bandwidth(section: &MediaSection) -> Option<u32> {
    let limits = section.bandwidths.iter().filter_map(|line| {
        let (modifier, value) = line.split_once(':')?;
        let value: u32 = value.trim().parse().ok()?;
        match modifier.trim() {
            "AS" => Some(value),
            "TIAS" => Some(value / 1_000),
            _ => None,
        }
    });
    limits.min()
}

/// Reads what a section says about feedback for the agreed formats. Feedback about the transport is
/// not settled by it: that takes an extension too.
pub(super) fn take_feedback(media: &mut Media, section: &MediaSection) {
    let kept: Set = media.formats.iter().map(|(number, _)| *number).collect();
    for line in section.attributes.iter().filter(|attribute| attribute.name == "rtcp-fb") {
        let Some((number, feedback)) = line.payload_type() else { continue };
        if !kept.contains(number) {
            continue;
        }
        match feedback.trim() {
            "nack" => media.nack = true,
            "nack pli" => media.pli = true,
            "ccm fir" => media.fir = true,
            "goog-remb" => media.remb = true,
            TRANSPORT_CC => media.transport_cc = true,
            _ => {}
        }
    }
}
