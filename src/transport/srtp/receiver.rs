//! The incoming direction: the rollover counter guessed, replays refused, nothing learnt before the
//! tag verified (RFC 3711 §3.3).

use super::cipher::{Opening, Transform};
use super::{MAX_STREAMS, Profile, SrtpError, rtcp_ssrc, rtp_header_len, rtp_ssrc};

/// Packets behind the newest of a stream that may still arrive.
pub const WINDOW: u64 = 1024;
const WORDS: usize = WINDOW as usize / 64;

/// Opens what one side of a session receives.
pub struct Receiver {
    transform: Transform<Opening>,
    profile: Profile,
    rtp: Streams,
    rtcp: Streams,
}

/// The replay windows of the known SSRCs; the one seen last is looked at first.
#[derive(Default)]
struct Streams {
    windows: Vec<(u32, Window)>,
    last: usize,
}

/// Which of the newest [`WINDOW`] indices were seen: a ring of bits, addressed by the index itself.
#[derive(Clone, Copy)]
struct Window {
    newest: u64,
    seen: [u64; WORDS],
}

impl Receiver {
    /// A receiver over a master key and salt.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`] if either has not the length of `profile`.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let transform = Transform::new(profile, key, salt)?;
        Ok(Self { transform, profile, rtp: Streams::default(), rtcp: Streams::default() })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Verifies `packet` and opens it in place; returns the length of the plaintext packet.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::Replay`], [`SrtpError::TooOld`],
    /// [`SrtpError::Authentication`], [`SrtpError::TooManyStreams`]. The bytes of a refused packet are
    /// no longer usable.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let header_len = rtp_header_len(packet).ok_or(SrtpError::Malformed)?;
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let ssrc = rtp_ssrc(packet);
        let known = self.rtp.find(ssrc)?;
        let index = match known {
            Some(at) => {
                let window = &self.rtp.windows[at].1;
                let index = window.guess(sequence).ok_or(SrtpError::TooOld)?;
                window.check(index)?;
                index
            }
            None => u64::from(sequence),
        };
        let len = self.transform.open_rtp(packet, header_len, ssrc, index)?;
        self.rtp.learn(known, ssrc, index);
        Ok(len)
    }

    /// Verifies the compound packet and opens it in place; returns the length of the plaintext.
    ///
    /// # Errors
    /// As [`Receiver::open_rtp`].
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let (index, encrypted) = self.transform.rtcp_index(packet)?;
        let ssrc = rtcp_ssrc(packet);
        let known = self.rtcp.find(ssrc)?;
        if let Some(at) = known {
            self.rtcp.windows[at].1.check(u64::from(index))?;
        }
        let len = self.transform.open_rtcp(packet, ssrc, index, encrypted)?;
        self.rtcp.learn(known, ssrc, u64::from(index));
        Ok(len)
    }
}

impl Streams {
    fn find(&self, ssrc: u32) -> Result<Option<usize>, SrtpError> {
        if self.windows.get(self.last).is_some_and(|&(known, _)| known == ssrc) {
            return Ok(Some(self.last));
        }
        let found = self.windows.iter().position(|&(known, _)| known == ssrc);
        if found.is_none() && self.windows.len() >= MAX_STREAMS {
            return Err(SrtpError::TooManyStreams);
        }
        Ok(found)
    }

    fn learn(&mut self, known: Option<usize>, ssrc: u32, index: u64) {
        self.last = known.unwrap_or_else(|| {
            self.windows.push((ssrc, Window { newest: index, seen: [0; WORDS] }));
            self.windows.len() - 1
        });
        self.windows[self.last].1.mark(index);
    }
}

impl Window {
    /// The index that `sequence` most probably means (RFC 3711 §3.3.1); `None` if it would lie before
    /// the stream's first rollover.
    fn guess(&self, sequence: u16) -> Option<u64> {
        let ahead = sequence.wrapping_sub(self.newest as u16) as i16;
        self.newest.checked_add_signed(i64::from(ahead)).filter(|&index| index < 1 << 48)
    }

    fn check(&self, index: u64) -> Result<(), SrtpError> {
        if index > self.newest {
            Ok(())
        } else if self.newest - index >= WINDOW {
            Err(SrtpError::TooOld)
        } else if self.seen[word(index)] & bit(index) != 0 {
            Err(SrtpError::Replay)
        } else {
            Ok(())
        }
    }

    fn mark(&mut self, index: u64) {
        if index > self.newest {
            if index - self.newest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.newest + 1..index {
                    self.seen[word(skipped)] &= !bit(skipped);
                }
            }
            self.newest = index;
        }
        self.seen[word(index)] |= bit(index);
    }
}

const fn word(index: u64) -> usize {
    (index / 64) as usize % WORDS
}

const fn bit(index: u64) -> u64 {
    1 << (index % 64)
}
