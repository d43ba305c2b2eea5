//! What is inside the packets: payloads that a media server takes for VP8 (RFC 7741, RFC 6386 §9.1)
//! and Opus, and at their end a stamp with the time of sending, so that any packet tells how long it
//! was under way and which frame it belongs to.

use std::time::Duration;

/// Bytes of a stamp.
pub const LEN: usize = 24;
/// The size of the pictures that there seem to be.
const WIDTH: u16 = 640;
const HEIGHT: u16 = 360;
const MAGIC: u32 = 0x5256_4232;
/// One frame of 20 ms, stereo, CELT (RFC 6716 §3.1).
const OPUS_TOC: u8 = 0xfc;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// By the clock of the harness.
    pub sent: Duration,
    pub frame: u32,
    /// This packet's place in its frame, and how many there are.
    pub index: u8,
    pub count: u8,
    pub keyframe: bool,
    /// Counts the packets of the stream.
    pub packet: u32,
}

impl Stamp {
    /// Fills `payload` with a piece of a picture.
    pub fn write_video(&self, payload: &mut [u8]) {
        let first = self.index == 0;
        payload[0] = if first { 0x10 } else { 0 };
        if first {
            // Shown; its first partition takes up 100 bytes.
            let tag: u32 = u32::from(!self.keyframe) | 1 << 4 | 100 << 5;
            payload[1..4].copy_from_slice(&tag.to_le_bytes()[..3]);
            if self.keyframe {
                payload[4..7].copy_from_slice(&[0x9d, 0x01, 0x2a]);
                payload[7..9].copy_from_slice(&WIDTH.to_le_bytes());
                payload[9..11].copy_from_slice(&HEIGHT.to_le_bytes());
            }
        }
        self.write(payload);
    }

    /// Fills `payload` with a piece of sound.
    pub fn write_audio(&self, payload: &mut [u8]) {
        payload[0] = OPUS_TOC;
        self.write(payload);
    }

    /// Fills the end of `payload`.
    pub fn write(&self, payload: &mut [u8]) {
        let at = payload.len() - LEN;
        let stamp = &mut payload[at..];
        stamp[..4].copy_from_slice(&MAGIC.to_be_bytes());
        stamp[4..8].copy_from_slice(&self.frame.to_be_bytes());
        stamp[8..12].copy_from_slice(&[self.index, self.count, u8::from(self.keyframe), 0]);
        stamp[12..20].copy_from_slice(&(self.sent.as_nanos() as u64).to_be_bytes());
        stamp[20..].copy_from_slice(&self.packet.to_be_bytes());
    }

    /// The stamp at the end of a payload; none if it is not from here.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let stamp: &[u8; LEN] = payload.last_chunk()?;
        let word = |at: usize| {
            u32::from_be_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]])
        };
        let [index, count, keyframe, _] = word(8).to_be_bytes();
        let nanos = u64::from(word(12)) << 32 | u64::from(word(16));
        (word(0) == MAGIC && index < count).then_some(Self {
            sent: Duration::from_nanos(nanos),
            frame: word(4),
            index,
            count,
            keyframe: keyframe != 0,
            packet: word(20),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(index: u8, keyframe: bool) -> Stamp {
        Stamp { sent: Duration::from_nanos(77), frame: 9, index, count: 3, keyframe, packet: 5 }
    }

    #[test]
    fn a_keyframe_is_one_to_the_server_and_the_stamp_is_read_as_written() {
        for (index, keyframe) in [(0, true), (0, false), (2, true)] {
            let mut payload = [0; 200];
            stamp(index, keyframe).write_video(&mut payload);
            assert_eq!(Stamp::read(&payload), Some(stamp(index, keyframe)));
            assert_eq!(rivero_vp8::starts_keyframe(&payload), index == 0 && keyframe);
        }
        let mut payload = [0; 80];
        stamp(0, false).write_audio(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp(0, false)));
    }

    proptest! {
        #[test]
        fn no_payload_is_a_trap(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let stamp = Stamp::read(&bytes);
            prop_assert!(stamp.is_none_or(|stamp| stamp.index < stamp.count));
        }
    }
}
