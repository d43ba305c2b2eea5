//! The header extensions that are negotiated (RFC 8285), the numbers they got, and what a packet says
//! in those that matter on its way.

use super::packet::RtpPacket;

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
    /// How long a receiver should hold pictures back, at least and at most.
    PlayoutDelay,
    /// Which frame of which layer a packet belongs to (AV1 RTP payload format, appendix A).
    DependencyDescriptor,
}

impl Extension {
    pub const ALL: [Self; 9] = [
        Self::AbsSendTime,
        Self::TransportSequence,
        Self::Mid,
        Self::StreamId,
        Self::RepairedStreamId,
        Self::AudioLevel,
        Self::AbsCaptureTime,
        Self::PlayoutDelay,
        Self::DependencyDescriptor,
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
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
        }
    }

    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }
}

/// The number that each extension has on one stream. Only 1 to 14 are given: they fit the one-byte
/// form, which everybody reads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extensions {
    numbers: [u8; Extension::ALL.len()],
    /// Those that only the other side writes, a bit for each.
    unwritten: u16,
}

impl Extensions {
    pub const fn get(&self, extension: Extension) -> Option<u8> {
        match self.numbers[extension as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// The same numbers but that of one extension.
    pub const fn without(mut self, extension: Extension) -> Self {
        self.numbers[extension as usize] = 0;
        self
    }

    /// Agreed on for what the other side sends, and not for what we do.
    pub fn set_unwritten(&mut self, extension: Extension) {
        self.unwritten |= 1 << extension as u8;
    }

    /// Those that may stand in what we send.
    pub fn written(mut self) -> Self {
        for extension in Extension::ALL {
            if self.unwritten & 1 << extension as u8 != 0 {
                self = self.without(extension);
            }
        }
        self
    }

    /// Numbers outside of 1 to 14 are not taken; whether this one was.
    pub fn set(&mut self, extension: Extension, id: u8) -> bool {
        let fits = (1..=14).contains(&id);
        if fits {
            self.numbers[extension as usize] = id;
        }
        fits
    }
}

/// Numbers to their meaning, so that the elements of a packet are walked once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    /// By number, one more than the place in [`Extension::ALL`]; zero for nothing.
    meanings: [u8; 16],
}

/// What the header of one packet says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Said {
    pub transport_sequence: Option<u16>,
    pub carried: Carried,
}

/// What belongs to the media in a packet, and so goes where it goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Carried {
    /// The byte of RFC 6464 §3: a flag for voice, and loudness.
    pub audio_level: Option<u8>,
    pub capture_time: Option<CaptureTime>,
}

/// When it was captured, in 2⁻³² s.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CaptureTime {
    /// By the clock of whoever captured it, as NTP time.
    pub captured: u64,
    /// That clock minus the sender's, as two's complement, if the sender knows.
    pub offset: Option<u64>,
}

impl Carried {
    pub fn is_empty(&self) -> bool {
        self.audio_level.is_none() && self.capture_time.is_none()
    }
}

impl Reader {
    /// Of two extensions with one number the first of [`Extension::ALL`] counts.
    pub fn new(agreed: &Extensions) -> Self {
        let mut meanings = [0; 16];
        for extension in Extension::ALL.into_iter().rev() {
            if let Some(id) = agreed.get(extension) {
                meanings[usize::from(id & 15)] = extension as u8 + 1;
            }
        }
        Self { meanings }
    }

    /// Contents of a length that their extension does not have are left out.
    #[inline]
    pub fn read(&self, packet: &RtpPacket<'_>) -> Said {
        let mut said = Said::default();
        for (id, content) in packet.elements() {
            let Some(&meaning) = self.meanings.get(usize::from(id)) else { continue };
            let extension = usize::from(meaning).checked_sub(1).map(|at| Extension::ALL[at]);
            match (extension, content) {
                (Some(Extension::TransportSequence), &[high, low]) => {
                    said.transport_sequence = Some(u16::from_be_bytes([high, low]));
                }
                (Some(Extension::AudioLevel), &[level]) => said.carried.audio_level = Some(level),
                (Some(Extension::AbsCaptureTime), content) => {
                    said.carried.capture_time = capture_time(content);
                }
                _ => {}
            }
        }
        said
    }
}

fn capture_time(content: &[u8]) -> Option<CaptureTime> {
    let (&captured, rest) = content.split_first_chunk()?;
    let offset = match rest {
        [] => None,
        rest => Some(u64::from_be_bytes(rest.try_into().ok()?)),
    };
    Some(CaptureTime { captured: u64::from_be_bytes(captured), offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_by_the_numbers_that_were_agreed_on() {
        let mut agreed = Extensions::default();
        agreed.set(Extension::TransportSequence, 3);
        agreed.set(Extension::AudioLevel, 1);
        agreed.set(Extension::AbsCaptureTime, 14);
        let mut bytes = vec![0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 4];
        bytes.extend([0x31, 0x12, 0x34, 0x10, 0x85, 0x20, 9]);
        bytes.extend([0xe7, 1, 2, 3, 4, 5, 6, 7, 8]);
        let packet = RtpPacket::parse(&bytes).unwrap();
        let said = Reader::new(&agreed).read(&packet);
        assert_eq!(said.transport_sequence, Some(0x1234));
        assert_eq!(said.carried.audio_level, Some(0x85));
        let captured = CaptureTime { captured: 0x0102_0304_0506_0708, offset: None };
        assert_eq!(said.carried.capture_time, Some(captured));
        assert_eq!(Reader::default().read(&packet), Said::default());
    }

    #[test]
    fn each_extension_has_the_number_it_was_given() {
        let mut agreed = Extensions::default();
        assert!(agreed.set(Extension::Mid, 4) && agreed.set(Extension::AbsCaptureTime, 14));
        assert!(!agreed.set(Extension::AudioLevel, 15) && !agreed.set(Extension::AudioLevel, 0));
        let numbers = Extension::ALL.map(|extension| agreed.get(extension));
        assert_eq!(numbers, [None, None, Some(4), None, None, None, Some(14), None, None]);
    }

    #[test]
    fn names_are_told_apart() {
        for extension in Extension::ALL {
            assert_eq!(Extension::from_uri(extension.uri()), Some(extension));
        }
        assert_eq!(Extension::from_uri("urn:ietf:params:rtp-hdrext:toffset"), None);
    }
}
