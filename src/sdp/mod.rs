//! Session descriptions: text to types and back (RFC 8866), and offer/answer between them and what
//! this server can do (RFC 3264, RFC 9429, RFC 9143).
//!
//! The texts follow the habits of Kurento's endpoints down to the order of the lines, because
//! clients look into them. What is negotiated is what is forwarded: codecs, loss and keyframe
//! feedback, REMB and the absolute send time; and, as [`Extras`], what came later: retransmissions as
//! streams of their own, feedback about the whole transport, more header extensions, redundant audio
//! and simulcast. Those stand behind the rest in offers, and in answers only if they were offered.
//!
//! | file | what it settles |
//! | --- | --- |
//! | [`parse`](fn@parse), `write` | text to [`Description`] and back |
//! | [`answer`](fn@answer), [`offer`](fn@offer) | the exchange of WebRTC; [`plain`] that of plain RTP, with [`crypto`] for keys in the text |
//! | `formats`, `extensions`, `sources`, [`simulcast`] | payload types, header extensions, SSRCs, and encodings of one section |
//! | [`bundle`] | which sections share a transport |
//! | [`media`] | what came of it, for those who move packets |
//!
//! Left out: renegotiation, forward error correction, several encodings of what we send, and wildcards
//! in feedback lines.

mod answer;
pub mod bundle;
pub mod crypto;
pub mod description;
mod extensions;
mod formats;
pub mod media;
pub mod negotiate;
mod offer;
mod parse;
pub mod plain;
pub mod simulcast;
mod sources;
mod stored;
mod write;

#[cfg(test)]
mod tests;

pub use answer::{Negotiated, answer};
pub use bundle::Layout;
pub use crypto::{Crypto, Suite};
pub use description::{Attribute, Description, Direction, MediaSection, SessionSection};
pub use media::{Media, MediaKind, Setup};
pub use negotiate::{Capabilities, Credentials, Extras, Local};
pub use offer::{OfferWishes, accept, offer};
pub use parse::{MAX_BYTES, MAX_FORMATS, MAX_LINES, MAX_SECTIONS, parse};
pub use simulcast::Encoding;
pub use stored::Stored;

/// Why a description could not be read, or not be agreed on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SdpError {
    #[error("description of {0} bytes is too long")]
    TooLong(usize),
    #[error("description has a zero character")]
    Nul,
    #[error("description has too many lines")]
    TooManyLines,
    #[error("description has too many media sections")]
    TooManySections,
    #[error("line {0} is no media description")]
    MediaLine(usize),
    #[error("description has no version line")]
    MissingVersion,
    /// A data section that was taken, but says nothing usable about SCTP (RFC 8841).
    #[error("media section {0} does not describe data channels")]
    DataSection(usize),
    #[error("answer has {answered} media sections, the offer has {offered}")]
    SectionCount { offered: usize, answered: usize },
    /// With keys in the text, no key of our suite came.
    #[error("media section {0} has no usable key")]
    NoKey(usize),
    #[error("no ports are to be had")]
    NoPorts,
    /// The caller brought too few SSRCs or no ICE credentials.
    #[error("local parameters do not cover media section {0}")]
    LocalParameters(usize),
}

impl SdpError {
    /// Whether the text is readable but is no session description, as against a text that cannot
    /// be read at all. Clients are told apart by it.
    pub const fn is_invalid(&self) -> bool {
        matches!(self, Self::MissingVersion)
    }
}
