//! Datagrams ↔ RTP.
//!
//! [`udp`] reads and writes batches of datagrams, [`demux`] finds the [`Session`](webrtc::Session) they
//! are for, and the session consumes STUN and DTLS and opens SRTP where it lies. All but `udp`, `tcp` and
//! `interfaces` decide without I/O. No type of the `rtc` crates leaves this folder.

pub mod certificate;
pub mod demux;
mod dtls;
mod ice;
pub mod interfaces;
pub mod mdns;
pub mod path;
pub mod srtp;
mod stun;
pub mod tcp;
pub mod udp;
pub mod webrtc;

pub use certificate::{Certificate, Fingerprint, KeyKind};
pub use dtls::{DtlsRole, DtlsState};
pub use ice::{HEADROOM, IceState, LinkOutput, MAX_LOCAL_CANDIDATES, Servers};

use srtp::SrtpError;

/// What a transport refuses.
#[derive(Debug, thiserror::Error)]
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
    /// The ICE agent had no use for it.
    StunUnexpected,
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
    /// The association is closed or failed.
    DtlsClosed,
    /// Media before the DTLS handshake gave keys.
    NoKeys,
    SrtpMalformed,
    SrtpAuthentication,
    SrtpReplay,
    SrtpTooOld,
    SrtpTooManyStreams,
    /// The session is closed.
    Closed,
}

impl DropReason {
    pub const ALL: [Self; 18] = [
        Self::UnknownProtocol,
        Self::StunMalformed,
        Self::StunUsername,
        Self::StunIntegrity,
        Self::StunUnexpected,
        Self::TooManyAddresses,
        Self::NotStarted,
        Self::UnvalidatedAddress,
        Self::DtlsMalformed,
        Self::DtlsFlood,
        Self::DtlsClosed,
        Self::NoKeys,
        Self::SrtpMalformed,
        Self::SrtpAuthentication,
        Self::SrtpReplay,
        Self::SrtpTooOld,
        Self::SrtpTooManyStreams,
        Self::Closed,
    ];

    /// The reason's name among the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownProtocol => "unknown_protocol",
            Self::StunMalformed => "stun_malformed",
            Self::StunUsername => "stun_username",
            Self::StunIntegrity => "stun_integrity",
            Self::StunUnexpected => "stun_unexpected",
            Self::TooManyAddresses => "too_many_addresses",
            Self::NotStarted => "not_started",
            Self::UnvalidatedAddress => "unvalidated_address",
            Self::DtlsMalformed => "dtls_malformed",
            Self::DtlsFlood => "dtls_flood",
            Self::DtlsClosed => "dtls_closed",
            Self::NoKeys => "no_keys",
            Self::SrtpMalformed => "srtp_malformed",
            Self::SrtpAuthentication => "srtp_authentication",
            Self::SrtpReplay => "srtp_replay",
            Self::SrtpTooOld => "srtp_too_old",
            Self::SrtpTooManyStreams => "srtp_too_many_streams",
            Self::Closed => "closed",
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
