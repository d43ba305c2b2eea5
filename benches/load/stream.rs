//! What a client makes of one stream it gets: loss, order, delay, and when the first picture was whole.

use std::time::Duration;

use rivero::rtp::rtcp::ReportBlock;
use rivero::rtp::sequence::{Seen, Sighting, Unwrapper};
use rivero::rtp::stats::Reception;

use super::histogram::Histogram;
use super::stamp::Stamp;

/// The longest frame that is put together.
const MAX_PIECES: u8 = 64;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Between the first and the last that came.
    pub expected: u64,
    /// Each counted once.
    pub received: u64,
    pub bytes: u64,
    pub reordered: u64,
    pub duplicates: u64,
    /// Deciphered, and not only counted by the header.
    pub opened: u64,
    /// Deciphered, but not what was sent.
    pub foreign: u64,
    pub frames: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.expected += other.expected;
        self.received += other.received;
        self.bytes += other.bytes;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.opened += other.opened;
        self.foreign += other.foreign;
        self.frames += other.frames;
    }

    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            expected: self.expected.saturating_sub(earlier.expected),
            received: self.received.saturating_sub(earlier.received),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            reordered: self.reordered.saturating_sub(earlier.reordered),
            duplicates: self.duplicates.saturating_sub(earlier.duplicates),
            opened: self.opened.saturating_sub(earlier.opened),
            foreign: self.foreign.saturating_sub(earlier.foreign),
            frames: self.frames.saturating_sub(earlier.frames),
        }
    }
}

#[derive(Default)]
pub struct Stream {
    ssrc: u32,
    unwrapper: Unwrapper,
    seen: Seen,
    first: Option<u64>,
    reception: Reception,
    counts: Counts,
    last_at: Option<Duration>,
    silence: Duration,
    /// The frame that is being put together, and which pieces of it came.
    frame: u32,
    pieces: u64,
    /// A keyframe was whole.
    pub shown: bool,
}

impl Stream {
    /// Takes a packet by its header, with the length of its payload; true if it is a new one. `now` is
    /// its arrival.
    pub fn count(
        &mut self,
        now: Duration,
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        len: usize,
    ) -> bool {
        self.ssrc = ssrc;
        let number = self.unwrapper.unwrap(sequence);
        let first = *self.first.get_or_insert(number);
        let sighting = self.seen.see(number);
        self.reception.take(number, timestamp, 0);
        if matches!(sighting, Sighting::Duplicate | Sighting::TooOld) {
            self.counts.duplicates += 1;
            return false;
        }
        if number < first {
            // Overtaken by the first that came: nothing was expected before that.
            return false;
        }
        self.counts.received += 1;
        self.counts.bytes += len as u64;
        self.counts.reordered += u64::from(sighting == Sighting::Late);
        self.silence = self.silence.max(self.silent_for(now));
        self.last_at = Some(now);
        true
    }

    /// Looks at what is in a new packet; true if it made a frame whole.
    pub fn look(&mut self, now: Duration, payload: &[u8], delays: &mut Histogram) -> bool {
        self.counts.opened += 1;
        let Some(stamp) = Stamp::read(payload) else {
            self.counts.foreign += 1;
            return false;
        };
        delays.record(now.saturating_sub(stamp.sent));
        self.assemble(&stamp)
    }

    /// Since the last packet; nothing before there was one.
    fn silent_for(&self, now: Duration) -> Duration {
        self.last_at.map_or(Duration::ZERO, |last| now.saturating_sub(last))
    }

    /// The longest time without a packet, up to now.
    pub fn silence(&self, now: Duration) -> Duration {
        self.silence.max(self.silent_for(now))
    }

    fn assemble(&mut self, stamp: &Stamp) -> bool {
        if stamp.frame != self.frame {
            // What is late for its frame shows nothing any more.
            if stamp.frame.wrapping_sub(self.frame) > u32::MAX / 2 {
                return false;
            }
            (self.frame, self.pieces) = (stamp.frame, 0);
        }
        if stamp.count > MAX_PIECES {
            return false;
        }
        self.pieces |= 1 << stamp.index;
        if self.pieces.count_ones() < u32::from(stamp.count) {
            return false;
        }
        self.counts.frames += 1;
        self.shown |= stamp.keyframe;
        true
    }

    /// The block of a receiver report; none before anything came.
    pub fn report(&mut self) -> Option<ReportBlock> {
        self.first.map(|_| self.reception.report(self.ssrc, 0, 0))
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    pub fn counts(&self) -> Counts {
        let expected = match (self.first, self.seen.highest()) {
            (Some(first), Some(last)) => last - first + 1,
            _ => 0,
        };
        Counts { expected, ..self.counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(stream: &mut Stream, sequence: u16, stamp: Stamp, delays: &mut Histogram) -> bool {
        let mut payload = [0; 64];
        stamp.write_video(&mut payload);
        let now = Duration::from_millis(12);
        stream.count(now, 1, sequence, 0, payload.len()) && stream.look(now, &payload, delays)
    }

    fn stamp(frame: u32, index: u8, keyframe: bool) -> Stamp {
        let sent = Duration::from_millis(10);
        Stamp { sent, frame, index, count: 2, keyframe, packet: 0 }
    }

    #[test]
    fn loss_order_and_whole_frames_are_told_apart() {
        let (mut stream, mut delays) = (Stream::default(), Histogram::default());
        assert!(!take(&mut stream, 65_534, stamp(0, 0, true), &mut delays));
        assert!(!stream.shown);
        assert!(take(&mut stream, 65_535, stamp(0, 1, true), &mut delays));
        assert!(stream.shown);
        // 0 is lost; 2 comes before 1, and twice.
        assert!(!take(&mut stream, 2, stamp(1, 1, false), &mut delays));
        assert!(take(&mut stream, 1, stamp(1, 0, false), &mut delays));
        assert!(!take(&mut stream, 2, stamp(1, 1, false), &mut delays));
        let counts = stream.counts();
        assert_eq!((counts.expected, counts.received, counts.frames), (5, 4, 2));
        assert_eq!((counts.reordered, counts.duplicates, counts.foreign), (1, 1, 0));
        let delay = delays.quantile(0.5).expect("delays");
        assert!((1.9..2.1).contains(&delay), "{delay}");
        assert!(!stream.look(Duration::ZERO, b"something else", &mut delays));
        assert_eq!(stream.counts().foreign, 1);
    }

    #[test]
    fn the_longest_silence_is_known_even_before_it_ends() {
        let mut stream = Stream::default();
        assert_eq!(stream.silence(Duration::from_secs(9)), Duration::ZERO);
        for (at, sequence) in [(1_000, 1), (1_300, 2), (1_400, 3)] {
            stream.count(Duration::from_millis(at), 1, sequence, 0, 9);
        }
        assert_eq!(stream.silence(Duration::from_millis(1_500)), Duration::from_millis(300));
        assert_eq!(stream.silence(Duration::from_millis(2_000)), Duration::from_millis(600));
    }
}
