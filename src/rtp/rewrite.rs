//! One continuous stream out of changing sources: what leaves under one SSRC has sequence numbers
//! without holes of ours and timestamps that go on at the pace of the wall clock.
//!
//! Between two switches (an *epoch*) numbers are shifted by a constant. So a loss before us stays
//! visible as a gap, its receivers can ask for it, and the packet that comes late has its place.
//! Outgoing numbers are 64 bits wide and double as SRTP indices: two different packets never get
//! the same one.

use super::units::ticks;
use std::time::Instant;

/// The packet is from before the present epoch; its number may belong to another source's packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BeforeEpoch;

#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// First source number that was let through.
    first: u64,
    /// Source number + `shift` = outgoing number.
    shift: u64,
    timestamp_shift: u32,
}

#[derive(Clone, Debug)]
pub struct Rewriter {
    /// One above the highest outgoing number so far.
    next: u64,
    /// The newest packet: its outgoing timestamp and when it left.
    newest: Option<(u32, Instant)>,
    timestamp_start: u32,
    epoch: Option<Epoch>,
}

impl Rewriter {
    pub fn new(sequence_start: u16, timestamp_start: u32) -> Self {
        Self { next: u64::from(sequence_start), newest: None, timestamp_start, epoch: None }
    }

    /// The next packet comes from elsewhere, or after a pause, and is the first that counts.
    pub fn begin(&mut self, now: Instant, sequence: u64, timestamp: u32, clock_rate: u32) {
        self.begin_at(now, sequence, timestamp, clock_rate, None);
    }

    /// As [`Self::begin`]. `meant` is what that packet's outgoing timestamp would be by clocks that
    /// relate it to what went out before; it is taken if it is near what the time passed makes likely.
    pub fn begin_at(
        &mut self,
        now: Instant,
        sequence: u64,
        timestamp: u32,
        clock_rate: u32,
        meant: Option<u32>,
    ) {
        let outgoing = match self.newest {
            None => self.timestamp_start,
            // At least one tick: two sources never share a frame.
            Some((last, at)) => {
                let passed = ticks(now.saturating_duration_since(at), clock_rate);
                let near = |step: &i32| step.abs_diff(passed as i32) < clock_rate;
                let meant = meant.map(|meant| meant.wrapping_sub(last) as i32).filter(near);
                let step = meant.map_or(passed, |step| step.max(1) as u32);
                last.wrapping_add(step.max(1))
            }
        };
        self.epoch = Some(Epoch {
            first: sequence,
            shift: self.next.wrapping_sub(sequence),
            timestamp_shift: outgoing.wrapping_sub(timestamp),
        });
    }

    /// Ends the epoch: nothing passes until the next [`Self::begin`].
    pub fn end(&mut self) {
        self.epoch = None;
    }

    /// The outgoing number and timestamp of a packet of the present epoch.
    ///
    /// # Errors
    /// [`BeforeEpoch`] for a packet from before its first one, or when there is no epoch.
    pub fn rewrite(
        &mut self,
        now: Instant,
        sequence: u64,
        timestamp: u32,
    ) -> Result<(u64, u32), BeforeEpoch> {
        let epoch = self.epoch.filter(|epoch| sequence >= epoch.first).ok_or(BeforeEpoch)?;
        let outgoing = sequence.wrapping_add(epoch.shift);
        let stamp = timestamp.wrapping_add(epoch.timestamp_shift);
        if outgoing >= self.next {
            self.next = outgoing + 1;
            self.newest = Some((stamp, now));
        }
        Ok((outgoing, stamp))
    }

    /// The source number behind an outgoing one, if it is of the present epoch.
    pub fn source_of(&self, outgoing: u64) -> Option<u64> {
        let epoch = self.epoch?;
        let sequence = outgoing.wrapping_sub(epoch.shift);
        (outgoing < self.next && outgoing >= epoch.first.wrapping_add(epoch.shift))
            .then_some(sequence)
    }

    /// What a source timestamp of the present epoch becomes.
    pub fn timestamp(&self, timestamp: u32) -> Option<u32> {
        Some(timestamp.wrapping_add(self.epoch?.timestamp_shift))
    }

    /// The outgoing timestamp that a packet of this moment would have, by the wall clock.
    pub fn timestamp_at(&self, now: Instant, clock_rate: u32) -> Option<u32> {
        let (last, at) = self.newest?;
        Some(last.wrapping_add(ticks(now.saturating_duration_since(at), clock_rate)))
    }

    /// One above the highest outgoing number.
    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::{collections::HashMap, time::Duration};

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn gaps_stay_and_late_packets_fill_them() {
        let (now, mut rewriter) = (start(), Rewriter::new(100, 9_000));
        rewriter.begin(now, 70_000, 500, 90_000);
        assert_eq!(rewriter.rewrite(now, 70_000, 500), Ok((100, 9_000)));
        assert_eq!(rewriter.rewrite(now, 70_002, 600), Ok((102, 9_100)));
        assert_eq!(rewriter.source_of(101), Some(70_001));
        assert_eq!(rewriter.rewrite(now, 70_001, 500), Ok((101, 9_000)));
        assert_eq!(rewriter.source_of(103), None);
    }

    #[test]
    fn a_switch_continues_numbers_and_time() {
        let (now, mut rewriter) = (start(), Rewriter::new(65_535, 0));
        rewriter.begin(now, 10, 1_000_000, 90_000);
        assert_eq!(rewriter.rewrite(now, 10, 1_000_000), Ok((65_535, 0)));
        let later = now + Duration::from_millis(100);
        rewriter.begin(later, 99_000, 77, 90_000);
        assert_eq!(rewriter.rewrite(later, 98_999, 77), Err(BeforeEpoch));
        assert_eq!(rewriter.rewrite(later, 99_000, 77), Ok((65_536, 9_000)));
        assert_eq!(rewriter.source_of(65_535), None);
        assert_eq!(rewriter.source_of(65_536), Some(99_000));
    }

    #[test]
    fn clocks_are_believed_when_they_are_near_what_passed_and_never_go_back() {
        let at = |ms| start() + Duration::from_millis(ms);
        for (meant, stamp) in [(9_300, 9_300), (8_000, 1), (500_000, 9_000), (9_000, 9_000)] {
            let (now, mut rewriter) = (at(0), Rewriter::new(1, 0));
            rewriter.begin(now, 10, 7, 90_000);
            rewriter.rewrite(now, 10, 7).unwrap();
            let later = now + Duration::from_millis(100);
            let meant = if meant == 8_000 { 0u32.wrapping_sub(8_000) } else { meant };
            rewriter.begin_at(later, 50, 77, 90_000, Some(meant));
            assert_eq!(rewriter.rewrite(later, 50, 77), Ok((2, stamp)));
        }
    }

    #[test]
    fn nothing_passes_between_epochs() {
        let (now, mut rewriter) = (start(), Rewriter::new(1, 1));
        assert_eq!(rewriter.rewrite(now, 5, 5), Err(BeforeEpoch));
        rewriter.begin(now, 5, 5, 8_000);
        rewriter.end();
        assert_eq!(rewriter.rewrite(now, 5, 5), Err(BeforeEpoch));
        assert_eq!(rewriter.source_of(1), None);
    }

    proptest! {
        /// Whatever sources do, no outgoing number is given to two packets, and what a receiver
        /// is told to be the newest never goes back.
        #[test]
        fn an_outgoing_number_is_used_once(
            sequence_start: u16,
            steps in vec((prop::bool::weighted(0.1), 0u64..40, 0u64..10), 1..300),
        ) {
            let (mut now, mut rewriter) = (start(), Rewriter::new(sequence_start, 5));
            let (mut used, mut source, mut base) = (HashMap::new(), 0u64, 0u64);
            for (switch, step, ms) in steps {
                now += Duration::from_millis(ms);
                if switch || source == 0 {
                    source += 1;
                    base = 100_000 * step;
                    rewriter.begin(now, base, 0, 90_000);
                }
                let sequence = base + step;
                let before = rewriter.next();
                let (outgoing, _) = rewriter.rewrite(now, sequence, step as u32).unwrap();
                let owner = used.entry(outgoing).or_insert((source, sequence));
                prop_assert_eq!(*owner, (source, sequence));
                prop_assert!(rewriter.next() >= before);
                prop_assert_eq!(rewriter.source_of(outgoing), Some(sequence));
            }
        }
    }
}
