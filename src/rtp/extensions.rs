//! The header extensions that are negotiated (RFC 8285) and the numbers they got.

/// A header extension with a meaning here.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Extension {
    /// Time of sending, 6.18 fixed point seconds.
    AbsSendTime,
    /// Sequence number over all streams of a transport
    /// (draft-holmer-rmcat-transport-wide-cc-extensions).
    TransportSequence,
    /// Which media section a packet belongs to (RFC 9143 §15).
    Mid,
    /// Which of several encodings of one source a packet belongs to (RFC 8852).
    StreamId,
    /// The same of what is sent again (RFC 8852).
    RepairedStreamId,
    /// Loudness, in -dBov, and whether it is a voice (RFC 6464).
    AudioLevel,
    /// When the sender captured it, as NTP time.
    AbsCaptureTime,
}

impl Extension {
    pub const ALL: [Self; 7] = [
        Self::AbsSendTime,
        Self::TransportSequence,
        Self::Mid,
        Self::StreamId,
        Self::RepairedStreamId,
        Self::AudioLevel,
        Self::AbsCaptureTime,
    ];

    /// The name in `a=extmap`.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportSequence => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::StreamId => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedStreamId => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
        }
    }

    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }
}

/// The number that each extension has on one stream. Only 1 to 14 are given: they fit the one-byte
/// form, which everybody reads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extensions([u8; Extension::ALL.len()]);

impl Extensions {
    pub const fn get(&self, extension: Extension) -> Option<u8> {
        match self.0[extension as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// Numbers outside of 1 to 14 are not taken; whether this one was.
    pub fn set(&mut self, extension: Extension, id: u8) -> bool {
        let fits = (1..=14).contains(&id);
        if fits {
            self.0[extension as usize] = id;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extension_has_the_number_it_was_given() {
        let mut agreed = Extensions::default();
        assert!(agreed.set(Extension::Mid, 4) && agreed.set(Extension::AbsCaptureTime, 14));
        assert!(!agreed.set(Extension::AudioLevel, 15) && !agreed.set(Extension::AudioLevel, 0));
        let numbers = Extension::ALL.map(|extension| agreed.get(extension));
        assert_eq!(numbers, [None, None, Some(4), None, None, None, Some(14)]);
    }

    #[test]
    fn names_are_told_apart() {
        for extension in Extension::ALL {
            assert_eq!(Extension::from_uri(extension.uri()), Some(extension));
        }
        assert_eq!(Extension::from_uri("urn:ietf:params:rtp-hdrext:toffset"), None);
    }
}
