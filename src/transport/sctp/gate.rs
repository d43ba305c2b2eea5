//! What of a packet may reach the SCTP library, and what is changed on the way in and out.
//!
//! The peer is who it should be, for DTLS says so, but nothing more is known of it. So chunks that
//! would make the library hoard, loop or give up are kept away from it, each under a named reason.
//! Besides:
//! * The library takes numbers for integers in a few places where they wrap (RFC 9260 §3.3.1), so it
//!   sees the peer's TSNs counted from 1.
//! * It knows port 5000 only (RFC 8841 §5 lets both sides choose).
//! * It answers a reset request (RFC 6525 §5.2.2) that came ahead of the data it is about with "in
//!   progress" and keeps every such request; here one waits until the data is there.
//! * Data for a stream that we have closed would stay unread; it is turned to a stream that nobody
//!   uses, and read from there.

use std::collections::{HashMap, HashSet};

use bytes::BytesMut;

use crate::transport::DropReason;

/// Streams in each direction (RFC 8831 §6.2).
pub(super) const MAX_STREAMS: u16 = 1_024;
/// Beyond all streams: what arrives here is read and forgotten.
pub(super) const NOWHERE: u16 = u16::MAX;
/// The port of the library.
const LIBRARY_PORT: u16 = 5_000;
/// How far the peer's TSNs may run ahead of what was acknowledged.
const AHEAD: u32 = 16_384;
/// Fragments of unfinished messages, of all streams together.
const MAX_FRAGMENTS: usize = 16_384;
/// New chunks that are taken in while nothing is read.
const MAX_UNREAD: usize = 4_096;
/// Bytes that are taken in beyond the window that was announced: the library goes on taking what may
/// complete a message.
const BEYOND_WINDOW: usize = 512 * 1_024;

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const DATA_HEADER: usize = 16;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const RE_CONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;
const HEARTBEAT: u8 = 4;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// Of what may stand in INIT and its answer: the cookie, the extensions that are known, and whether
/// FORWARD TSN is one of them.
const INIT_PARAMS: [u16; 3] = [7, 0x8008, 0xc000];
const INIT_HEADER: usize = 20;

/// Parameters of RE-CONFIG (RFC 6525 §4.1 and §4.4).
const OUTGOING_RESET: u16 = 13;
const RESPONSE: u16 = 16;
/// Results of a request that has to be asked again.
const WRONG_NUMBER: u32 = 5;
const IN_PROGRESS: u32 = 6;

/// Beginning, ending, unordered, acknowledge at once.
const WHOLE: u8 = 0b0111;
const ENDING: u8 = 0b0001;
const AT_ONCE: u8 = 0b1000;

/// A packet of the peer.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Entered {
    /// It asks for an association, and is as it came.
    Init(Init),
    /// What is left of it is for the library.
    Chunks,
    /// Nothing is left of it.
    Nothing,
    /// The association is over.
    Abort,
}

/// What tells one attempt to associate from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Init {
    pub tag: u32,
    pub tsn: u32,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    Drop(DropReason),
    /// The association cannot go on.
    End(DropReason),
}

/// A packet of the library.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Leaving {
    Packet,
    /// A request to reset streams, with its number.
    Reset(u32),
}

#[derive(Debug)]
pub(super) struct Gate {
    local_port: u16,
    remote_port: u16,
    /// Whether the peer's first TSN is known.
    begun: bool,
    /// Subtracted from the peer's TSNs.
    shift: u32,
    /// The tag of packets to us.
    tag: [u8; 4],
    /// In the numbers of the library: acknowledged, and seen.
    acknowledged: u32,
    highest: u32,
    /// The receive window announced last, and what came since it was closed.
    window: u32,
    beyond: usize,
    fragments: HashMap<u16, usize>,
    fragments_in_all: usize,
    reading: bool,
    unread: usize,
    /// Streams that we closed.
    closed: HashSet<u16>,
    /// The peer's request to reset streams, and the TSN it waits for.
    waiting: Option<(u32, BytesMut)>,
    /// Numbers of our own requests that were answered.
    answered: Vec<u32>,
    /// Chunks that were left out, by reason.
    pub(super) left_out: Vec<DropReason>,
}

impl Gate {
    pub(super) fn new(local_port: u16, remote_port: u16) -> Self {
        Self {
            local_port,
            remote_port,
            begun: false,
            shift: 0,
            tag: [0; 4],
            acknowledged: 0,
            highest: 0,
            window: u32::MAX,
            beyond: 0,
            fragments: HashMap::new(),
            fragments_in_all: 0,
            reading: true,
            unread: 0,
            closed: HashSet::new(),
            waiting: None,
            answered: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Prepares a packet of the peer for the library.
    pub(super) fn enter(&mut self, packet: &mut BytesMut) -> Result<Entered, Refusal> {
        let malformed = Refusal::Drop(DropReason::SctpMalformed);
        if packet.len() < COMMON_HEADER + CHUNK_HEADER {
            return Err(malformed);
        }
        let ports = (u16_at(packet, 2), u16_at(packet, 0));
        if ports != (self.local_port, self.remote_port) {
            return Err(Refusal::Drop(DropReason::SctpPort));
        }
        if packet[COMMON_HEADER] == INIT {
            return read_init(packet).map(Entered::Init).ok_or(malformed);
        }
        // Chunks that may pass move up to those before them.
        let (mut at, mut kept) = (COMMON_HEADER, COMMON_HEADER);
        while at < packet.len() {
            let len = chunk_len(&packet[at..]).ok_or(malformed)?;
            let end = (at + len).next_multiple_of(4).min(packet.len());
            let passes = match self.admit(&mut packet[at..at + len]) {
                Ok(passes) => passes,
                Err(Stop::Malformed) => return Err(malformed),
                Err(Stop::Abort) => return Ok(Entered::Abort),
                Err(Stop::End(reason)) => return Err(Refusal::End(reason)),
            };
            match passes {
                Pass::Yes => {
                    packet.copy_within(at..end, kept);
                    kept += end - at;
                }
                // Its end is cut off; at the packet's end padding may be missing.
                Pass::Shortened(len) => {
                    packet.copy_within(at..at + len, kept);
                    kept += len.next_multiple_of(4);
                }
                Pass::No => {}
                Pass::Later(tsn) => {
                    let mut alone = BytesMut::from(&packet[..COMMON_HEADER]);
                    alone.extend_from_slice(&packet[at..end]);
                    self.waiting = Some((tsn, alone));
                }
            }
            at = end;
        }
        packet.resize(kept, 0);
        if kept == COMMON_HEADER {
            return Ok(Entered::Nothing);
        }
        self.tag.copy_from_slice(&packet[4..8]);
        finish(packet, LIBRARY_PORT, LIBRARY_PORT);
        Ok(Entered::Chunks)
    }

    /// The peer's association begins with this INIT, which becomes one for the library.
    pub(super) fn begin(&mut self, packet: &mut BytesMut, init: Init) {
        *self = Self::new(self.local_port, self.remote_port);
        self.shift_from(init.tsn);
        packet[COMMON_HEADER + 16..COMMON_HEADER + 20].copy_from_slice(&1_u32.to_be_bytes());
        let len = keep_params(&mut packet[COMMON_HEADER..]).unwrap_or(INIT_HEADER);
        packet.resize(COMMON_HEADER + len.next_multiple_of(4), 0);
        finish(packet, LIBRARY_PORT, LIBRARY_PORT);
    }

    fn shift_from(&mut self, first: u32) {
        self.begun = true;
        self.shift = first.wrapping_sub(1);
    }

    fn admit(&mut self, chunk: &mut [u8]) -> Result<Pass, Stop> {
        match chunk[0] {
            ABORT => Err(Stop::Abort),
            INIT_ACK if chunk.len() < INIT_HEADER => Err(Stop::Malformed),
            INIT_ACK if self.begun => Ok(Pass::No),
            INIT_ACK => {
                let first = u32_at(chunk, 16);
                chunk[16..20].copy_from_slice(&1_u32.to_be_bytes());
                let len = keep_params(chunk).ok_or(Stop::Malformed)?;
                self.shift_from(first);
                Ok(Pass::Shortened(len))
            }
            _ if !self.begun => Ok(self.leave_out(DropReason::SctpUnexpected)),
            DATA => self.admit_data(chunk),
            SACK => {
                let blocks =
                    |chunk: &[u8]| usize::from(u16_at(chunk, 12)) + usize::from(u16_at(chunk, 14));
                pass_if(chunk.len() >= 16 && chunk.len() == 16 + 4 * blocks(chunk))
            }
            FORWARD_TSN => self.admit_forward(chunk),
            RE_CONFIG => self.admit_reset(chunk),
            // What is to be sent back (RFC 9260 §3.3.5).
            HEARTBEAT => pass_if(
                chunk.len() >= 8
                    && u16_at(chunk, 4) == 1
                    && usize::from(u16_at(chunk, 6)) == chunk.len() - CHUNK_HEADER,
            ),
            COOKIE_ECHO => pass_if(chunk.len() > CHUNK_HEADER),
            SHUTDOWN => pass_if(chunk.len() == 8),
            SHUTDOWN_ACK | COOKIE_ACK | SHUTDOWN_COMPLETE => pass_if(chunk.len() == CHUNK_HEADER),
            // An error report would end the association.
            _ => Ok(self.leave_out(DropReason::SctpUnexpected)),
        }
    }

    fn leave_out(&mut self, reason: DropReason) -> Pass {
        self.left_out.push(reason);
        Pass::No
    }

    /// How far a TSN of the library is ahead of what was acknowledged.
    fn ahead(&self, tsn: u32) -> i32 {
        tsn.wrapping_sub(self.acknowledged).cast_signed()
    }

    fn admit_data(&mut self, chunk: &mut [u8]) -> Result<Pass, Stop> {
        if chunk.len() <= DATA_HEADER {
            return Err(Stop::Malformed);
        }
        let stream = u16_at(chunk, 8);
        if stream >= MAX_STREAMS {
            return Err(Stop::End(DropReason::SctpStream));
        }
        let tsn = u32_at(chunk, 4).wrapping_sub(self.shift);
        let ahead = self.ahead(tsn);
        let is_next = tsn.wrapping_sub(self.highest).cast_signed() > 0;
        if ahead > AHEAD as i32 || (is_next && !self.reading && self.unread >= MAX_UNREAD) {
            return Ok(self.leave_out(DropReason::SctpAhead));
        }
        chunk[4..8].copy_from_slice(&tsn.to_be_bytes());
        if is_next {
            self.highest = tsn;
        }
        if self.closed.contains(&stream) {
            chunk[8..10].copy_from_slice(&NOWHERE.to_be_bytes());
            chunk[1] |= WHOLE;
        } else if ahead > 0 {
            self.count(stream, chunk)?;
        }
        Ok(Pass::Yes)
    }

    /// Counts what the library may have to keep.
    fn count(&mut self, stream: u16, chunk: &[u8]) -> Result<(), Stop> {
        if !self.reading {
            self.unread += 1;
        }
        if self.window == 0 {
            self.beyond += chunk.len() - DATA_HEADER;
        }
        if chunk[1] & ENDING != 0 {
            self.fragments_in_all -= self.fragments.remove(&stream).unwrap_or(0);
        } else {
            *self.fragments.entry(stream).or_default() += 1;
            self.fragments_in_all += 1;
        }
        let hoards = self.fragments_in_all > MAX_FRAGMENTS || self.beyond > BEYOND_WINDOW;
        if hoards { Err(Stop::End(DropReason::SctpHoard)) } else { Ok(()) }
    }

    fn admit_forward(&mut self, chunk: &mut [u8]) -> Result<Pass, Stop> {
        if chunk.len() < 8 || !chunk.len().is_multiple_of(4) {
            return Err(Stop::Malformed);
        }
        let tsn = u32_at(chunk, 4).wrapping_sub(self.shift);
        if self.ahead(tsn) > AHEAD as i32 {
            return Ok(self.leave_out(DropReason::SctpAhead));
        }
        chunk[4..8].copy_from_slice(&tsn.to_be_bytes());
        if tsn.wrapping_sub(self.highest).cast_signed() > 0 {
            self.highest = tsn;
        }
        Ok(Pass::Yes)
    }

    /// Requests wait until the data before them is there and read; answers are noted.
    fn admit_reset(&mut self, chunk: &mut [u8]) -> Result<Pass, Stop> {
        let mut at = CHUNK_HEADER;
        let mut pass = Pass::Yes;
        let mut params = 0..2;
        while at < chunk.len() {
            params.next().ok_or(Stop::Malformed)?;
            let param =
                chunk.get_mut(at..).filter(|rest| rest.len() >= 4).ok_or(Stop::Malformed)?;
            let (kind, len) = (u16_at(param, 0), usize::from(u16_at(param, 2)));
            let param = param.get_mut(..len).filter(|_| len >= 4).ok_or(Stop::Malformed)?;
            match kind {
                OUTGOING_RESET if len >= 16 && len.is_multiple_of(2) => {
                    let tsn = u32_at(param, 12).wrapping_sub(self.shift);
                    param[12..16].copy_from_slice(&tsn.to_be_bytes());
                    if self.ahead(tsn) > AHEAD as i32 {
                        return Ok(self.leave_out(DropReason::SctpAhead));
                    }
                    if self.ahead(tsn) > 0 || !self.reading {
                        pass = Pass::Later(tsn);
                    }
                }
                RESPONSE if len >= 12 => {
                    if !matches!(u32_at(param, 8), IN_PROGRESS | WRONG_NUMBER) {
                        self.answered.push(u32_at(param, 4));
                    }
                }
                // Streams are not added, and resets not asked for.
                _ => return Ok(self.leave_out(DropReason::SctpUnexpected)),
            }
            at += len.next_multiple_of(4);
        }
        Ok(pass)
    }

    /// The request that waited, once nothing keeps it any more.
    pub(super) fn take_reset(&mut self) -> Option<BytesMut> {
        let (tsn, _) = self.waiting.as_ref()?;
        if !self.reading || self.ahead(*tsn) > 0 {
            return None;
        }
        let (_, mut packet) = self.waiting.take()?;
        finish(&mut packet, LIBRARY_PORT, LIBRARY_PORT);
        Some(packet)
    }

    /// Whether a request waits for an acknowledgement of what is before it.
    pub(super) fn reset_waits(&self) -> bool {
        self.reading && self.waiting.is_some()
    }

    pub(super) fn take_answered(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.answered)
    }

    /// A packet for the library that makes it tell the peer what it has and how much more it takes.
    pub(super) fn nudge(&self) -> BytesMut {
        let mut packet = BytesMut::zeroed(COMMON_HEADER);
        packet[4..8].copy_from_slice(&self.tag);
        packet.extend_from_slice(&[DATA, WHOLE | AT_ONCE, 0, DATA_HEADER as u8 + 1]);
        packet.extend_from_slice(&self.acknowledged.to_be_bytes());
        packet.extend_from_slice(&NOWHERE.to_be_bytes());
        packet.extend_from_slice(&[0; 10]);
        finish(&mut packet, LIBRARY_PORT, LIBRARY_PORT);
        packet
    }

    /// Prepares a packet of the library for the peer.
    pub(super) fn leave(&mut self, packet: &mut BytesMut) -> Leaving {
        let mut leaving = Leaving::Packet;
        let mut changed = (self.local_port, self.remote_port) != (LIBRARY_PORT, LIBRARY_PORT);
        let chunk = &mut packet[COMMON_HEADER..];
        match chunk.first() {
            Some(&SACK) if chunk.len() >= 16 => {
                self.acknowledged = u32_at(chunk, 4);
                self.window = u32_at(chunk, 8);
                self.beyond = if self.window == 0 { self.beyond } else { 0 };
                let (gaps, repeated) = (u16_at(chunk, 12), u16_at(chunk, 14));
                let first = 16 + 4 * usize::from(gaps);
                let places = (0..usize::from(repeated)).map(|n| first + 4 * n);
                for at in std::iter::once(4).chain(places) {
                    let Some(place) = chunk.get_mut(at..at + 4) else { break };
                    let tsn = u32_at(place, 0).wrapping_add(self.shift);
                    place.copy_from_slice(&tsn.to_be_bytes());
                }
                changed |= self.shift != 0;
            }
            Some(&RE_CONFIG) if chunk.len() >= 12 && u16_at(chunk, 4) == OUTGOING_RESET => {
                leaving = Leaving::Reset(u32_at(chunk, 8));
            }
            _ => {}
        }
        if changed {
            finish(packet, self.local_port, self.remote_port);
        }
        leaving
    }

    /// Whether what arrives is read at once.
    pub(super) fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
        self.unread = 0;
    }

    /// Nobody reads this stream any more.
    pub(super) fn close(&mut self, stream: u16) {
        self.closed.insert(stream);
        self.forget(stream);
    }

    /// The peer has reset this stream; what comes on it is new.
    pub(super) fn reset(&mut self, stream: u16) {
        self.closed.remove(&stream);
        self.forget(stream);
    }

    fn forget(&mut self, stream: u16) {
        self.fragments_in_all -= self.fragments.remove(&stream).unwrap_or(0);
    }
}

enum Pass {
    Yes,
    No,
    /// So many bytes of it.
    Shortened(usize),
    /// Once this TSN of the library is acknowledged.
    Later(u32),
}

enum Stop {
    Malformed,
    Abort,
    End(DropReason),
}

fn pass_if(well_formed: bool) -> Result<Pass, Stop> {
    if well_formed { Ok(Pass::Yes) } else { Err(Stop::Malformed) }
}

/// An INIT must be alone in its packet (RFC 9260 §6.10).
fn read_init(packet: &BytesMut) -> Option<Init> {
    let len = chunk_len(&packet[COMMON_HEADER..])?;
    let alone = COMMON_HEADER + len.next_multiple_of(4) >= packet.len();
    (alone && len >= INIT_HEADER).then(|| Init {
        tag: u32_at(packet, COMMON_HEADER + 4),
        tsn: u32_at(packet, COMMON_HEADER + 16),
    })
}

/// Takes what is not known out of an INIT or its answer; the new length. None if the parameters do not
/// fit into it.
fn keep_params(chunk: &mut [u8]) -> Option<usize> {
    let end = chunk_len(chunk)?;
    let (mut at, mut kept) = (INIT_HEADER, INIT_HEADER);
    while at < end {
        let header = chunk.get(at..at + 4)?;
        let (kind, len) = (u16_at(header, 0), usize::from(u16_at(header, 2)));
        if len < 4 || at + len > end {
            return None;
        }
        let next = (at + len).next_multiple_of(4);
        if INIT_PARAMS.contains(&kind) {
            // The padding of the last one does not count.
            let piece = next.min(end) - at;
            chunk.copy_within(at..at + piece, kept);
            kept += piece;
        }
        at = next;
    }
    chunk[2..4].copy_from_slice(&(kept as u16).to_be_bytes());
    Some(kept)
}

/// The length of the chunk at the start of `bytes`, padding left out.
fn chunk_len(bytes: &[u8]) -> Option<usize> {
    let len = usize::from(u16_at(bytes.get(..CHUNK_HEADER)?, 2));
    (CHUNK_HEADER..=bytes.len()).contains(&len).then_some(len)
}

/// Sets the ports, and the checksum that goes with them and all else (RFC 9260 appendix A). What
/// protects a packet is DTLS, so the peer's own checksum is not looked at (RFC 9653).
fn finish(packet: &mut [u8], source: u16, destination: u16) {
    packet[0..2].copy_from_slice(&source.to_be_bytes());
    packet[2..4].copy_from_slice(&destination.to_be_bytes());
    packet[8..12].fill(0);
    let sum = crc32c::crc32c(packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
