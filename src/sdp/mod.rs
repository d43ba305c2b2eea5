//! Session descriptions: text to types and back (RFC 8866), and offer/answer between them and what
//! this server can do (RFC 3264, RFC 9429, RFC 9143).
//!
//! The texts follow the habits of Kurento's endpoints down to the order of the lines, because
//! clients look into them. What is negotiated is what is forwarded: codecs, loss and keyframe
//! feedback, REMB and the absolute send time. Retransmission streams, transport-wide feedback, RIDs
//! and simulcast are not negotiated; [`feedback_is_known`], the choice of formats and that of header
//! extensions in [`fn@answer`] and [`fn@offer`] are where they come in. Plain RTP, with and without
//! keys in the text, is [`plain`]'s.

mod answer;
pub mod bundle;
pub mod crypto;
pub mod description;
pub mod media;
pub mod negotiate;
mod offer;
mod parse;
pub mod plain;
mod write;

#[cfg(test)]
mod tests;

pub use answer::{Negotiated, answer, feedback_is_known};
pub use bundle::Layout;
pub use crypto::{Crypto, Suite};
pub use description::{Attribute, Description, Direction, MediaSection, SessionSection};
pub use media::{Media, MediaKind, Setup};
pub use negotiate::{Capabilities, Credentials, Local};
pub use offer::{OfferWishes, accept, offer};
pub use parse::{MAX_BYTES, MAX_FORMATS, MAX_LINES, MAX_SECTIONS, parse};

/// Why a description could not be read, or not be agreed on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SdpError {
    #[error("description of {0} bytes is too long")]
    TooLong(usize),
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
    /// The caller brought too few SSRCs or no ICE credentials.
    /// With keys in the text, no key of our suite came.
    #[error("media section {0} has no usable key")]
    NoKey(usize),
    #[error("no ports are to be had")]
    NoPorts,
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
