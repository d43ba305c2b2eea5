//! The outgoing direction: indices that never carry two contents, and the SRTCP index.

use crate::prefetch;

use super::cipher::{RTCP_CLEAR, Sealing, Transform};
use super::{MAX_STREAMS, Profile, SrtpError, rtcp_ssrc, rtp_header_len, rtp_ssrc};

/// How far back a packet may be sent again, and for how long a reused index is noticed.
pub const HISTORY: usize = 1024;
/// The last SRTCP index of a key (RFC 3711 §9.2).
const LAST_RTCP_INDEX: u32 = (1 << 31) - 1;
const LAST_RTP_INDEX: u64 = (1 << 48) - 1;
/// How many indices before the last one a key counts as worn.
const WEAR: u64 = 1 << 16;

/// Protects what one side of a session sends.
pub struct Sender {
    transform: Transform<Sealing>,
    profile: Profile,
    streams: Vec<Stream>,
    last: usize,
    rtcp: Vec<(u32, u32)>,
    worn: bool,
}

/// Which of the last [`HISTORY`] indices of an SSRC were used, with a digest of what each carried. Rings,
/// addressed by the index itself; every viewer has some, so they are small.
struct Stream {
    ssrc: u32,
    /// One above the highest index that was used.
    next: u64,
    history: History,
}

struct History {
    used: [u64; HISTORY / 64],
    digests: [u16; HISTORY],
}

impl Sender {
    /// A sender over a master key and salt.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`] if either has not the length of `profile`.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let transform = Transform::new(profile, key, salt)?;
        Ok(Self { transform, profile, streams: Vec::new(), last: 0, rtcp: Vec::new(), worn: false })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// A packet is next, likely of the same stream as the last one.
    #[inline]
    pub fn expect(&self) {
        self.transform.expect();
        if let Some(stream) = self.streams.get(self.last) {
            stream.expect();
        }
    }

    /// Whether some stream has come so near to the last index of the key that a new key is wanted.
    pub fn is_worn(&self) -> bool {
        self.worn
    }

    /// Writes `header`, the sealed `payload` and the tag into `out` and returns their length.
    ///
    /// `index` is the extended sequence number of 48 bits, whose low 16 bits stand in `header`. Each
    /// index of an SSRC carries one content ever; to send a packet again, byte for byte the same, under
    /// its old index is allowed for the last [`HISTORY`] indices, and the caller answers for the
    /// sameness: a digest of header and ends of the payload catches mistakes, not malice.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`] if `header` is no RTP header or not the whole of it,
    /// [`SrtpError::NoRoom`] if `out` is shorter than header, payload and tag,
    /// [`SrtpError::IndexMismatch`], [`SrtpError::IndexReused`], [`SrtpError::TooOld`] behind the
    /// history, [`SrtpError::KeyExhausted`] and [`SrtpError::TooManyStreams`].
    pub fn seal_rtp(
        &mut self,
        header: &[u8],
        payload: &[u8],
        index: u64,
        out: &mut [u8],
    ) -> Result<usize, SrtpError> {
        if rtp_header_len(header) != Some(header.len()) {
            return Err(SrtpError::Malformed);
        }
        if u16::from_be_bytes([header[2], header[3]]) != index as u16 {
            return Err(SrtpError::IndexMismatch);
        }
        if index > LAST_RTP_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        let needed = header.len() + payload.len() + self.profile.tag_len();
        if out.len() < needed {
            return Err(SrtpError::NoRoom);
        }
        let ssrc = rtp_ssrc(header);
        let at = self.stream(ssrc)?;
        self.streams[at].claim(index, digest(header, payload))?;
        self.worn |= index > LAST_RTP_INDEX - WEAR;
        self.transform.seal_rtp(header, payload, ssrc, index, out)
    }

    /// Writes the protected form of the compound packet `plain` into `out` and returns its length.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], [`SrtpError::TooManyStreams`], or
    /// [`SrtpError::KeyExhausted`] after 2³¹ packets of an SSRC.
    pub fn seal_rtcp(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, SrtpError> {
        if plain.len() < RTCP_CLEAR || plain[0] >> 6 != 2 {
            return Err(SrtpError::Malformed);
        }
        let ssrc = rtcp_ssrc(plain);
        let at = match self.rtcp.iter().position(|&(known, _)| known == ssrc) {
            Some(at) => at,
            None if self.rtcp.len() < MAX_STREAMS => {
                self.rtcp.push((ssrc, 0));
                self.rtcp.len() - 1
            }
            None => return Err(SrtpError::TooManyStreams),
        };
        let index = self.rtcp[at].1;
        if index >= LAST_RTCP_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        let len = self.transform.seal_rtcp(plain, ssrc, index + 1, out)?;
        self.rtcp[at].1 = index + 1;
        self.worn |= u64::from(index) > u64::from(LAST_RTCP_INDEX) - WEAR;
        Ok(len)
    }

    fn stream(&mut self, ssrc: u32) -> Result<usize, SrtpError> {
        if self.streams.get(self.last).is_some_and(|stream| stream.ssrc == ssrc) {
            return Ok(self.last);
        }
        self.last = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            Some(at) => at,
            None if self.streams.len() < MAX_STREAMS => {
                self.streams.push(Stream::new(ssrc));
                self.streams.len() - 1
            }
            None => return Err(SrtpError::TooManyStreams),
        };
        Ok(self.last)
    }
}

impl Stream {
    fn new(ssrc: u32) -> Self {
        let history = History { used: [0; HISTORY / 64], digests: [0; HISTORY] };
        Self { ssrc, next: 0, history }
    }

    /// The next index is claimed soon.
    #[inline]
    fn expect(&self) {
        prefetch::element(&self.history.used, word_of(self.next));
        prefetch::element(&self.history.digests, (self.next % HISTORY as u64) as usize);
    }

    /// Takes `index` for the content that `digest` stands for.
    fn claim(&mut self, index: u64, digest: u16) -> Result<(), SrtpError> {
        if index + (HISTORY as u64) < self.next {
            return Err(SrtpError::TooOld);
        }
        // Under those that are passed over nothing has left yet.
        for passed in self.next.max((index + 1).saturating_sub(HISTORY as u64))..=index {
            self.history.used[word_of(passed)] &= !bit_of(passed);
        }
        self.next = self.next.max(index + 1);
        let before = &mut self.history.digests[(index % HISTORY as u64) as usize];
        if self.history.used[word_of(index)] & bit_of(index) == 0 {
            self.history.used[word_of(index)] |= bit_of(index);
            *before = digest;
        } else if *before != digest {
            return Err(SrtpError::IndexReused);
        }
        Ok(())
    }
}

fn word_of(index: u64) -> usize {
    (index % HISTORY as u64 / 64) as usize
}

fn bit_of(index: u64) -> u64 {
    1 << (index % 64)
}

/// A short digest of what an index carries: cheap, for it is taken per packet and per sink, and of two
/// contents in 65 536 no more than one passes for the other. A header consists of whole words of 32 bits.
fn digest(header: &[u8], payload: &[u8]) -> u16 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = (payload.len() as u64) << 16 | header.len() as u64;
    let mut mix = |word: u64| hash = (hash.rotate_left(23) ^ word).wrapping_mul(MIX);
    let (pairs, last) = header.as_chunks();
    pairs.iter().for_each(|pair| mix(u64::from_le_bytes(*pair)));
    if let Some(last) = last.first_chunk() {
        mix(u32::from_le_bytes(*last).into());
    }
    // Copies of a length that is known take one instruction, and others a call.
    if let (Some(first), Some(last)) = (payload.first_chunk(), payload.last_chunk()) {
        mix(u64::from_le_bytes(*first));
        mix(u64::from_le_bytes(*last));
    } else {
        mix(word(payload));
    }
    (hash >> 48) as u16
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
