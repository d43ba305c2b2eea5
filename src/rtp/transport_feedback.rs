//! Transport-wide feedback: which packets of a transport arrived, and when
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! Packets are numbered over all streams of a transport by a header extension. A message tells of a row
//! of them that begins with a base: a status for each, packed into chunks, and then for each that
//! arrived the time since the one before, in ticks of 250 µs. Times are the receiver's and wrap after
//! 2³² ticks, as the 24 bits of reference time in the message do.
//!
//! Reading takes time by the length of a message and not by what it claims: a few bytes can speak of
//! 65 535 packets, so those that were lost are handed out as ranges.

use super::rtcp::RTPFB;
use std::ops::Range;
use std::time::Duration;

/// The format of RTPFB that stands for transport-wide feedback.
pub const FORMAT: u8 = 15;
/// Of the receiver's clock.
pub const TICK: Duration = Duration::from_micros(250);
/// Ticks in one step of the reference time.
const REFERENCE: u32 = 256;
/// Statuses that a writer puts into one message: with a delta of two bytes each it fits a datagram
/// together with a report.
pub const MAX_STATUSES: usize = 320;
/// Longest run that a chunk can say.
const MAX_RUN: usize = 0x1fff;

/// Symbols of the chunks.
const LOST: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;

/// What a message says of packets, in the order of their numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Status {
    /// Places behind the base of packets that have not arrived; ranges that follow each other may
    /// touch.
    Lost(Range<u32>),
    /// The place behind the base of a packet that arrived, and when.
    Received { place: u32, tick: u32 },
}

/// A message whose lengths were checked.
#[derive(Clone, Copy, Debug)]
pub struct TransportFeedback<'a> {
    pub sender: u32,
    pub media: u32,
    /// The number of the first packet that it tells of.
    pub base: u16,
    /// How many it tells of.
    pub count: u16,
    /// Steps of 64 ms, 24 bits.
    pub reference: u32,
    /// The number of the message itself.
    pub number: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    /// Reads a control packet from its header on, whose length was checked. `None` when chunks or
    /// times for what it claims are missing.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (&head, mut body) = packet.split_first_chunk::<20>()?;
        if head[0] & 0x1f != FORMAT || head[1] != RTPFB {
            return None;
        }
        if head[0] & 0x20 != 0 {
            let padding = usize::from(*body.last()?);
            body = &body[..body.len().checked_sub(padding)?];
        }
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let count = u16::from_be_bytes([head[14], head[15]]);
        let mut message = Self {
            sender: word(4),
            media: word(8),
            base: u16::from_be_bytes([head[12], head[13]]),
            count,
            reference: word(16) >> 8,
            number: head[19],
            chunks: body,
            deltas: &[],
        };
        let (mut left, mut rest, mut needed) = (usize::from(count), body, 0);
        while left > 0 {
            let (chunk, tail) = rest.split_first_chunk::<2>()?;
            let (chunk, length) = Chunk::read(u16::from_be_bytes(*chunk), left);
            needed += chunk.delta_bytes(length);
            left -= length;
            rest = tail;
        }
        message.chunks = &body[..body.len() - rest.len()];
        message.deltas = rest.get(..needed)?;
        Some(message)
    }

    /// The first tick of the reference time.
    pub fn reference_tick(&self) -> u32 {
        self.reference.wrapping_mul(REFERENCE)
    }

    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            chunks: self.chunks,
            deltas: self.deltas,
            left: u32::from(self.count),
            place: 0,
            tick: self.reference_tick(),
            chunk: Chunk::Run(LOST),
            at: 0,
            in_chunk: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// One symbol for all.
    Run(u8),
    /// Fourteen symbols of one bit.
    Bits(u16),
    /// Seven symbols of two bits.
    Pairs(u16),
}

impl Chunk {
    /// The chunk, and how many of the `left` statuses it has.
    fn read(word: u16, left: usize) -> (Self, usize) {
        match word >> 14 {
            0 | 1 => (
                Self::Run((word >> 13) as u8 & 3),
                usize::from(word & MAX_RUN as u16).clamp(1, left),
            ),
            2 => (Self::Bits(word), left.min(14)),
            _ => (Self::Pairs(word), left.min(7)),
        }
    }

    fn symbol(self, at: usize) -> u8 {
        match self {
            Self::Run(symbol) => symbol,
            Self::Bits(word) => (word >> (13 - at)) as u8 & 1,
            Self::Pairs(word) => (word >> (12 - 2 * at)) as u8 & 3,
        }
    }

    fn delta_bytes(self, length: usize) -> usize {
        match self {
            Self::Run(symbol) => length * delta_bytes(symbol),
            _ => (0..length).map(|at| delta_bytes(self.symbol(at))).sum(),
        }
    }
}

/// The fourth symbol is reserved; what it would mean has not arrived as far as one can tell.
const fn delta_bytes(symbol: u8) -> usize {
    match symbol {
        SMALL => 1,
        LARGE => 2,
        _ => 0,
    }
}

#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    chunks: &'a [u8],
    deltas: &'a [u8],
    left: u32,
    place: u32,
    tick: u32,
    chunk: Chunk,
    at: usize,
    in_chunk: usize,
}

impl Iterator for Statuses<'_> {
    type Item = Status;

    fn next(&mut self) -> Option<Status> {
        if self.left == 0 {
            return None;
        }
        if self.at == self.in_chunk {
            let (word, rest) = self.chunks.split_first_chunk::<2>()?;
            self.chunks = rest;
            (self.chunk, self.in_chunk) =
                Chunk::read(u16::from_be_bytes(*word), self.left as usize);
            self.at = 0;
        }
        let place = self.place;
        let (symbol, mut length) = (self.chunk.symbol(self.at), 1);
        if delta_bytes(symbol) == 0 && matches!(self.chunk, Chunk::Run(_)) {
            length = self.in_chunk - self.at;
        }
        self.at += length;
        self.place += length as u32;
        self.left -= length as u32;
        let delta = match symbol {
            SMALL => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                u32::from(*delta)
            }
            LARGE => {
                let (delta, rest) = self.deltas.split_first_chunk::<2>()?;
                self.deltas = rest;
                i32::from(i16::from_be_bytes(*delta)) as u32
            }
            _ => return Some(Status::Lost(place..self.place)),
        };
        self.tick = self.tick.wrapping_add(delta);
        Some(Status::Received { place, tick: self.tick })
    }
}

/// Writes messages; keeps its buffers.
#[derive(Debug, Default)]
pub struct Writer {
    symbols: Vec<u8>,
    deltas: Vec<u8>,
}

impl Writer {
    /// Appends a message about the packets from `base` on. `statuses` has for each whether and when it
    /// arrived; those behind the last arrival, or behind a step of time that two bytes cannot say, or
    /// behind [`MAX_STATUSES`], belong to the next message. How many it tells of: none, and then
    /// nothing is written, when none of those that fit arrived.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        sender: u32,
        media: u32,
        number: u8,
        base: u16,
        statuses: impl Iterator<Item = Option<u32>>,
    ) -> usize {
        self.symbols.clear();
        self.deltas.clear();
        let (mut reference, mut before, mut told) = (None, 0, 0);
        for status in statuses.take(MAX_STATUSES) {
            let Some(tick) = status else {
                self.symbols.push(LOST);
                continue;
            };
            if reference.is_none() {
                reference = Some(tick / REFERENCE);
                before = tick - tick % REFERENCE;
            }
            let step = tick.wrapping_sub(before) as i32;
            match (u8::try_from(step), i16::try_from(step)) {
                (Ok(step), _) => {
                    self.symbols.push(SMALL);
                    self.deltas.push(step);
                }
                (_, Ok(step)) => {
                    self.symbols.push(LARGE);
                    self.deltas.extend(step.to_be_bytes());
                }
                _ => break,
            }
            before = tick;
            told = self.symbols.len();
        }
        let Some(reference) = reference else { return 0 };
        self.symbols.truncate(told);
        let start = out.len();
        out.extend([0x80 | FORMAT, RTPFB, 0, 0]);
        out.extend(sender.to_be_bytes());
        out.extend(media.to_be_bytes());
        out.extend(base.to_be_bytes());
        out.extend((told as u16).to_be_bytes());
        out.extend((reference << 8 | u32::from(number)).to_be_bytes());
        self.write_chunks(out);
        out.extend(&self.deltas);
        // Padding that is not zero ends with its length, and so the header says that there is some.
        let padding = (out.len() - start).next_multiple_of(4) - (out.len() - start);
        if padding > 0 {
            out.resize(out.len() + padding - 1, 0);
            out.push(padding as u8);
            out[start] |= 0x20;
        }
        let words = ((out.len() - start) / 4 - 1) as u16;
        out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
        told
    }

    fn write_chunks(&self, out: &mut Vec<u8>) {
        let mut rest = &self.symbols[..];
        while let Some(&first) = rest.first() {
            let run = rest.iter().take(MAX_RUN).take_while(|symbol| **symbol == first).count();
            let short = &rest[..rest.len().min(14)];
            let (word, length) = if run >= 14 || run == rest.len() {
                (u16::from(first) << 13 | run as u16, run)
            } else if !short.contains(&LARGE) {
                let bits = short.iter().fold(0, |bits, symbol| bits << 1 | u16::from(*symbol));
                (0x8000 | bits << (14 - short.len()), short.len())
            } else if run >= 7 {
                (u16::from(first) << 13 | run as u16, run)
            } else {
                let short = &short[..short.len().min(7)];
                let pairs = short.iter().fold(0, |pairs, symbol| pairs << 2 | u16::from(*symbol));
                (0xc000 | pairs << (2 * (7 - short.len())), short.len())
            };
            out.extend(word.to_be_bytes());
            rest = &rest[length..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    /// What a message says, a status for each packet.
    fn read(packet: &[u8]) -> (TransportFeedback<'_>, Vec<Option<u32>>) {
        let message = TransportFeedback::parse(packet).unwrap();
        let mut told = Vec::new();
        for status in message.statuses() {
            match status {
                Status::Lost(range) => {
                    assert_eq!(range.start as usize, told.len());
                    told.resize(range.end as usize, None);
                }
                Status::Received { place, tick } => {
                    assert_eq!(place as usize, told.len());
                    told.push(Some(tick));
                }
            }
        }
        assert_eq!(told.len(), usize::from(message.count));
        (message, told)
    }

    fn written(base: u16, statuses: &[Option<u32>]) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        let told = Writer::default().write(&mut out, 1, 2, 3, base, statuses.iter().copied());
        (out, told)
    }

    #[test]
    fn a_message_has_the_layout_of_the_draft() {
        let (bytes, told) = written(0xfffe, &[Some(0x0201), None, Some(0x0203), Some(0x0303)]);
        assert_eq!(told, 4);
        #[rustfmt::skip]
        let expected = [
            0xaf, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0, 4, 0, 0, 2, 3,
            0b1101_0001, 0b1000_0000, 1, 2, 1, 0, 0, 2,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_next_message() {
        let late = [Some(10), None, Some(10 + 40_000), Some(10 + 40_001)];
        let (bytes, told) = written(7, &late);
        assert_eq!((told, read(&bytes).1), (1, vec![Some(10)]));
        let (_, told) = written(8, &late[1..]);
        assert_eq!(told, 3);
        let (bytes, told) = written(1, &[None; 5]);
        assert_eq!((bytes.len(), told), (0, 0));
        let many = vec![Some(5); 1_000];
        let (bytes, told) = written(1, &many);
        assert_eq!(told, MAX_STATUSES);
        assert!(bytes.len() < 700);
        // The worst: every other packet lost, and the rest far apart.
        let worst: Vec<_> = (0..1_000).map(|at| (at % 3 > 0).then_some(at * 300)).collect();
        assert!(written(1, &worst).0.len() < 700);
    }

    #[test]
    fn a_few_bytes_that_speak_of_all_numbers_are_read_in_a_few_steps() {
        let mut bytes = vec![0x80 | FORMAT, RTPFB, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0xff, 0xff];
        bytes.extend([0, 0, 1, 0]);
        bytes.extend([0x1f, 0xff].repeat(9));
        let message = TransportFeedback::parse(&bytes).unwrap();
        let ranges: Vec<_> = message.statuses().collect();
        assert_eq!(ranges.len(), 9);
        assert_eq!(ranges.last(), Some(&Status::Lost(65_528..65_535)));
        // One chunk less does not cover them.
        assert!(TransportFeedback::parse(&bytes[..bytes.len() - 2]).is_none());
    }

    #[test]
    fn times_that_are_missing_make_the_message_worthless() {
        let (bytes, _) = written(0, &[Some(1), Some(2), Some(400), Some(5)]);
        assert!(TransportFeedback::parse(&bytes).is_some());
        assert!(TransportFeedback::parse(&bytes[..bytes.len() - 4]).is_none());
        assert!(TransportFeedback::parse(&bytes[..16]).is_none());
    }

    #[test]
    fn runs_of_no_length_do_not_stop_the_reader() {
        let mut bytes = vec![0x80 | FORMAT, RTPFB, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2];
        bytes.extend([0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(read(&bytes).1, [None, None]);
    }

    /// Arrivals as networks make them: mostly soon after each other, at times lost, late or far apart.
    fn statuses() -> impl Strategy<Value = Vec<Option<u32>>> {
        let step = prop_oneof![8 => 0i64..300, 2 => -2_000i64..3_000, 1 => -60_000i64..60_000];
        (any::<u32>(), vec((step, prop::bool::weighted(0.8)), 1..900)).prop_map(|(start, steps)| {
            let mut tick = i64::from(start);
            let arrive = |(step, arrived): (i64, bool)| {
                tick += step;
                arrived.then_some(tick as u32)
            };
            steps.into_iter().map(arrive).collect()
        })
    }

    proptest! {
        #[test]
        fn messages_one_after_another_tell_all_that_arrived(base: u16, statuses in statuses()) {
            let (mut rest, mut told) = (&statuses[..], Vec::new());
            while !rest.is_empty() {
                let (bytes, count) = written(base.wrapping_add(told.len() as u16), rest);
                if count == 0 {
                    // None of those that fit one message arrived: they are stepped over.
                    let lost = rest.iter().take(MAX_STATUSES);
                    prop_assert!(lost.clone().all(Option::is_none));
                    told.extend(lost);
                } else {
                    let (message, here) = read(&bytes);
                    prop_assert_eq!(message.base, base.wrapping_add(told.len() as u16));
                    prop_assert_eq!(here.len(), count);
                    told.extend(here);
                }
                rest = &statuses[told.len()..];
            }
            prop_assert_eq!(told, statuses);
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_toil(mut bytes in vec(any::<u8>(), 0..200)) {
            if let Some(head) = bytes.first_chunk_mut::<2>() {
                *head = [head[0] & 0x20 | 0x80 | FORMAT, RTPFB];
            }
            if let Some(message) = TransportFeedback::parse(&bytes) {
                let steps = message.statuses().count();
                prop_assert!(steps <= bytes.len() * 7);
            }
        }
    }
}
