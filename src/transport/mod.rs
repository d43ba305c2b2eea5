//! Datagrams ↔ RTP.
//!
//! [`udp`] reads and writes batches of datagrams, [`demux`] finds the [`Session`](webrtc::Session) they
//! are for, and the session consumes STUN and DTLS and opens SRTP where it lies. Plain RTP has
//! [ports](ports) of its own, each known to one [`plain::Session`]. All but `udp`, `tcp` and `interfaces`
//! decide without I/O. No type of the `rtc` crates leaves this folder.

pub mod certificate;
pub mod data_channel;
pub mod demux;
mod dtls;
mod ice;
pub mod interfaces;
pub mod mdns;
pub mod path;
pub mod plain;
pub mod ports;
mod sctp;
pub mod srtp;
mod stun;
pub mod tcp;
pub mod udp;
pub mod webrtc;

pub use certificate::{Certificate, Fingerprint, KeyKind};
pub use dtls::{DtlsRole, DtlsState};
pub use ice::{
    Candidate, CandidateKind, Credentials, HEADROOM, IceReport, IceState, LinkOutput,
    MAX_LOCAL_CANDIDATES, MAX_REPORTED_PAIRS, PairReport, PairState, Refusal, Servers, Traffic,
    Trial,
};
pub use sctp::{MAX_MESSAGE, Reliability};

use srtp::SrtpError;

/// What a transport refuses.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum TransportError {
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("ICE: {0}")]
    Ice(String),
    #[error("DTLS: {0}")]
    Dtls(String),
    #[error("no candidate line: {0}")]
    Candidate(&'static str),
    #[error("more than {0} candidates")]
    TooManyCandidates(usize),
    #[error("a candidate of before the restart")]
    OldCandidate,
    #[error("the session was already started")]
    AlreadyStarted,
    #[error("the session is closed")]
    Closed,
    #[error("no randomness")]
    Randomness,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DropReason {
    /// The first byte belongs to no protocol of ours (RFC 7983).
    UnknownProtocol,
    /// Not a STUN Binding message, or a broken one.
    StunMalformed,
    /// The USERNAME names another receiver.
    StunUsername,
    /// MESSAGE-INTEGRITY is missing or wrong.
    StunIntegrity,
    /// Its FINGERPRINT is that of another message.
    StunFingerprint,
    /// The ICE agent had no use for it.
    StunUnexpected,
    /// The peer changes its mind too often about who controls ICE.
    StunRoleConflict,
    /// More remote addresses than a session follows.
    TooManyAddresses,
    /// It arrived before the peer's credentials were known.
    NotStarted,
    /// DTLS or media from an address that passed no connectivity check.
    UnvalidatedAddress,
    /// Not a DTLS record, or one that cannot belong to this association.
    DtlsMalformed,
    /// More handshake bytes than a handshake needs.
    DtlsFlood,
    /// Part of a handshake that was whole before.
    DtlsRepeated,
    /// What has no business at this point: in the clear after the handshake, or far ahead of it.
    DtlsUnexpected,
    /// Sealed by somebody else, or a repetition.
    DtlsAuthentication,
    /// The association is closed or failed.
    DtlsClosed,
    /// Media before the DTLS handshake gave keys.
    NoKeys,
    SrtpMalformed,
    SrtpAuthentication,
    SrtpReplay,
    SrtpTooOld,
    SrtpTooManyStreams,
    /// On a port of plain RTP, from another address than the declared one, or from a second sender
    /// beside one that is there.
    UnexpectedSender,
    /// What a new sender on such a port sent first is no RTP of a negotiated payload type.
    RtpMalformed,
    /// What a new sender on such a port sent first is no report.
    RtcpMalformed,
    /// The session is closed.
    Closed,
    /// Data of a session that negotiated none, or no SCTP packet.
    SctpMalformed,
    /// Between other ports than those negotiated.
    SctpPort,
    /// A chunk or packet that has no business now, or that is not known.
    SctpUnexpected,
    /// More attempts to associate than an association needs.
    SctpFlood,
    /// A stream beyond those negotiated.
    SctpStream,
    /// Far ahead of what was acknowledged, or while nothing is read.
    SctpAhead,
    /// Pieces of messages that do not end.
    SctpHoard,
    /// An opening message of a data channel that cannot be read, or that asks for what cannot be.
    DataOpening,
    /// More channels than an endpoint may have.
    DataTooManyChannels,
    /// A message longer than [`MAX_MESSAGE`], or than the peer takes.
    DataTooLong,
    /// A message on a stream that is no channel.
    DataNoChannel,
    /// A message of an unknown kind, or a text that is not UTF-8.
    DataNoMessage,
    /// Too much waits to be sent to a peer that is slow.
    DataSlowPeer,
    /// A channel was not open, or the peer has none that fits.
    DataNotOpen,
}

impl DropReason {
    pub const ALL: [Self; 40] = [
        Self::UnknownProtocol,
        Self::StunMalformed,
        Self::StunUsername,
        Self::StunIntegrity,
        Self::StunFingerprint,
        Self::StunUnexpected,
        Self::StunRoleConflict,
        Self::TooManyAddresses,
        Self::NotStarted,
        Self::UnvalidatedAddress,
        Self::DtlsMalformed,
        Self::DtlsFlood,
        Self::DtlsRepeated,
        Self::DtlsUnexpected,
        Self::DtlsAuthentication,
        Self::DtlsClosed,
        Self::NoKeys,
        Self::SrtpMalformed,
        Self::SrtpAuthentication,
        Self::SrtpReplay,
        Self::SrtpTooOld,
        Self::SrtpTooManyStreams,
        Self::UnexpectedSender,
        Self::RtpMalformed,
        Self::RtcpMalformed,
        Self::Closed,
        Self::SctpMalformed,
        Self::SctpPort,
        Self::SctpUnexpected,
        Self::SctpFlood,
        Self::SctpStream,
        Self::SctpAhead,
        Self::SctpHoard,
        Self::DataOpening,
        Self::DataTooManyChannels,
        Self::DataTooLong,
        Self::DataNoChannel,
        Self::DataNoMessage,
        Self::DataSlowPeer,
        Self::DataNotOpen,
    ];

    /// The reason's name among the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownProtocol => "unknown_protocol",
            Self::StunMalformed => "stun_malformed",
            Self::StunUsername => "stun_username",
            Self::StunIntegrity => "stun_integrity",
            Self::StunFingerprint => "stun_fingerprint",
            Self::StunUnexpected => "stun_unexpected",
            Self::StunRoleConflict => "stun_role_conflict",
            Self::TooManyAddresses => "too_many_addresses",
            Self::NotStarted => "not_started",
            Self::UnvalidatedAddress => "unvalidated_address",
            Self::DtlsMalformed => "dtls_malformed",
            Self::DtlsFlood => "dtls_flood",
            Self::DtlsRepeated => "dtls_repeated",
            Self::DtlsUnexpected => "dtls_unexpected",
            Self::DtlsAuthentication => "dtls_authentication",
            Self::DtlsClosed => "dtls_closed",
            Self::NoKeys => "no_keys",
            Self::SrtpMalformed => "srtp_malformed",
            Self::SrtpAuthentication => "srtp_authentication",
            Self::SrtpReplay => "srtp_replay",
            Self::SrtpTooOld => "srtp_too_old",
            Self::SrtpTooManyStreams => "srtp_too_many_streams",
            Self::UnexpectedSender => "unexpected_sender",
            Self::RtpMalformed => "malformed_rtp",
            Self::RtcpMalformed => "malformed_rtcp",
            Self::Closed => "closed",
            Self::SctpMalformed => "sctp_malformed",
            Self::SctpPort => "sctp_port",
            Self::SctpUnexpected => "sctp_unexpected",
            Self::SctpFlood => "sctp_flood",
            Self::SctpStream => "sctp_stream",
            Self::SctpAhead => "sctp_ahead",
            Self::SctpHoard => "sctp_hoard",
            Self::DataOpening => "data_opening",
            Self::DataTooManyChannels => "data_too_many_channels",
            Self::DataTooLong => "data_too_long",
            Self::DataNoChannel => "data_no_channel",
            Self::DataNoMessage => "data_no_message",
            Self::DataSlowPeer => "data_slow_peer",
            Self::DataNotOpen => "data_not_open",
        }
    }
}

impl From<SrtpError> for DropReason {
    fn from(error: SrtpError) -> Self {
        match error {
            SrtpError::Authentication => Self::SrtpAuthentication,
            SrtpError::Replay => Self::SrtpReplay,
            SrtpError::TooOld => Self::SrtpTooOld,
            SrtpError::TooManyStreams => Self::SrtpTooManyStreams,
            _ => Self::SrtpMalformed,
        }
    }
}
