//! How long packets wait at the bottleneck: the delay of one direction above the least that was seen
//! lately.
//!
//! The two clocks have no common origin, so the least delay stands for an empty queue. It is remembered
//! for ten to twenty seconds: longer would let clocks drift apart and a changed route count as a
//! queue for ever, shorter would take a queue that stands for a route.

/// The least delay of each of two spans of this length is kept.
const SPAN: i64 = 10_000_000;
/// A longer wait is a clock that jumped.
const LONGEST: i64 = 10_000_000;

#[derive(Debug, Default)]
pub struct Queue {
    /// The least delay of this span and of the one before, in µs.
    least: Option<i64>,
    before: Option<i64>,
    began: i64,
    /// The least delay that the present feedback message tells.
    latest: Option<i64>,
    waits: i64,
}

impl Queue {
    /// A packet of the present feedback message.
    pub fn add(&mut self, sent: i64, arrived: i64) {
        let delay = arrived.saturating_sub(sent);
        self.latest = Some(self.latest.map_or(delay, |least| least.min(delay)));
    }

    /// The message has been read.
    pub fn settle(&mut self, now: i64) {
        let Some(delay) = self.latest.take() else { return };
        if now.saturating_sub(self.began) > SPAN {
            self.before = self.least.take();
            self.began = now;
        }
        let least = self.least.map_or(delay, |least| least.min(delay));
        self.least = Some(least);
        let base = self.before.map_or(least, |before| before.min(least));
        self.waits = delay.saturating_sub(base);
        if self.waits > LONGEST {
            *self = Self { began: now, least: Some(delay), ..Self::default() };
        }
    }

    /// Of the newest packets, how long the luckiest waited, in µs: what jitter adds is not counted.
    pub fn waits(&self) -> i64 {
        self.waits
    }

    /// The receiver's clock was set, or its route is another.
    pub fn reset(&mut self) {
        *self = Self { began: self.began, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_what_exceeds_the_least_delay_of_the_last_spans() {
        let mut queue = Queue::default();
        for (now, delay, waits) in
            [(0, 500, 0), (1, 480, 0), (2, 600, 120), (12, 580, 100), (24, 580, 0)]
        {
            queue.add(0, delay);
            queue.add(0, delay + 30);
            queue.settle(now * 1_000_000);
            assert_eq!(queue.waits(), waits, "after {now} s");
        }
    }

    #[test]
    fn a_clock_that_is_set_is_no_queue() {
        let mut queue = Queue::default();
        for delay in [0, i64::MAX, i64::MIN, 0] {
            queue.add(0, delay);
            queue.settle(0);
        }
        assert_eq!(queue.waits(), 0);
    }
}
