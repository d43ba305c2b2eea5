//! Asking a source again for what did not arrive (generic NACK, RFC 4585 §6.2.1).
//!
//! Reordering gets a moment's grace, then each missing packet is asked for once per round trip, a
//! bounded number of times. A keyframe changes nothing of that: whoever watched before it can still
//! show the pictures in front of it.

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant},
};

/// Missing packets remembered at once; beyond it the oldest are given up.
pub const MAX_MISSING: usize = 512;
/// Requests per packet.
pub const MAX_TRIES: u8 = 10;
/// How late a packet may come before it is asked for.
pub const GRACE: Duration = Duration::from_millis(5);
/// The round trip while none was measured: senders that receive nothing from us report none.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(100);
/// So much longer is waited at least after each further try: a network that is near may still be silent for
/// a second.
const PATIENCE: Duration = Duration::from_millis(20);
/// Time between tries beyond the round trip, for the sender's own delay.
const MARGIN: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u64,
    tries: u8,
    ask_at: Instant,
}

/// What is missing from one source, in ascending order.
#[derive(Debug, Default)]
pub struct Nacks {
    missing: VecDeque<Missing>,
    ask_at: Option<Instant>,
    given_up: u64,
}

impl Nacks {
    /// A gap showed. `range` are the unwrapped numbers that did not come.
    pub fn lost(&mut self, now: Instant, range: Range<u64>) {
        let newest = range.end.saturating_sub(MAX_MISSING as u64).max(range.start);
        self.given_up += newest - range.start;
        for sequence in newest..range.end {
            if self.missing.len() == MAX_MISSING {
                self.missing.pop_front();
                self.given_up += 1;
            }
            self.missing.push_back(Missing { sequence, tries: 0, ask_at: now + GRACE });
        }
        self.wake_at(now + GRACE);
    }

    /// A late packet came: it is asked for no more.
    pub fn arrived(&mut self, sequence: u64) {
        if let Ok(at) = self.missing.binary_search_by_key(&sequence, |one| one.sequence) {
            self.missing.remove(at);
        }
    }

    pub fn clear(&mut self) {
        self.missing.clear();
        self.ask_at = None;
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Appends to `ask` the numbers to request now, ascending.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        ask: &mut Vec<u64>,
    ) {
        if self.ask_at.is_none_or(|at| now < at) {
            return;
        }
        let pause = round_trip.unwrap_or(DEFAULT_ROUND_TRIP) + MARGIN;
        let before = self.missing.len();
        self.missing.retain_mut(|one| {
            if one.ask_at > now {
                return true;
            }
            if one.tries == MAX_TRIES {
                return false;
            }
            one.tries += 1;
            one.ask_at = now + pause.max(u32::from(one.tries) * PATIENCE);
            ask.push(one.sequence);
            true
        });
        self.given_up += (before - self.missing.len()) as u64;
        self.ask_at = self.missing.iter().map(|one| one.ask_at).min();
    }

    /// How many packets were given up since the last call, for tries or for space.
    pub fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    pub fn len(&self) -> usize {
        self.missing.len()
    }

    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }

    fn wake_at(&mut self, at: Instant) {
        self.ask_at = Some(self.ask_at.map_or(at, |before| before.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn start() -> Instant {
        Instant::now()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Every request until nothing is left to ask, in milliseconds after `start`.
    fn run(nacks: &mut Nacks, start: Instant, rtt: Option<Duration>) -> Vec<(u64, Vec<u64>)> {
        let mut asked = Vec::new();
        while let Some(at) = nacks.poll_timeout() {
            let mut ask = Vec::new();
            nacks.handle_timeout(at, rtt, &mut ask);
            if !ask.is_empty() {
                asked.push(((at - start).as_millis() as u64, ask));
            }
        }
        asked
    }

    #[test]
    fn a_gap_is_asked_for_after_a_moment_and_once_per_round_trip() {
        let (start, mut nacks) = (start(), Nacks::default());
        nacks.lost(start, 5..7);
        let asked = run(&mut nacks, start, Some(ms(40)));
        assert_eq!(asked.len(), usize::from(MAX_TRIES));
        assert_eq!(asked[0], (5, vec![5, 6]));
        assert_eq!(asked[1], (55, vec![5, 6]));
        assert_eq!((nacks.len(), nacks.take_given_up(), nacks.take_given_up()), (0, 2, 0));
    }

    #[test]
    fn a_network_that_is_near_is_asked_for_a_second_before_it_is_given_up() {
        let (start, mut nacks) = (start(), Nacks::default());
        nacks.lost(start, 5..6);
        let asked: Vec<_> = run(&mut nacks, start, Some(ms(1))).iter().map(|(at, _)| *at).collect();
        assert_eq!(asked[..4], [5, 25, 65, 125]);
        assert_eq!(asked.last(), Some(&905));
    }

    #[test]
    fn what_comes_late_is_not_asked_for() {
        let (start, mut nacks) = (start(), Nacks::default());
        nacks.lost(start, 5..8);
        nacks.arrived(6);
        nacks.arrived(99);
        let mut ask = Vec::new();
        nacks.handle_timeout(start + ms(4), None, &mut ask);
        assert!(ask.is_empty());
        nacks.handle_timeout(start + ms(5), None, &mut ask);
        assert_eq!(ask, [5, 7]);
    }

    #[test]
    fn a_flood_of_losses_is_bounded_and_counted() {
        let (start, mut nacks) = (start(), Nacks::default());
        nacks.lost(start, 0..2);
        nacks.lost(start, 10..2_000);
        assert_eq!(nacks.len(), MAX_MISSING);
        assert_eq!(nacks.take_given_up(), 2 + 1_990 - MAX_MISSING as u64);
        assert_eq!(run(&mut nacks, start, None)[0].1[0], 2_000 - MAX_MISSING as u64);
    }
}
