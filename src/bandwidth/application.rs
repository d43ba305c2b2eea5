//! How much is sent, and whether that is far less than could be.
//!
//! A server sends what publishers give it and viewers want, which is mostly less than the link could
//! carry. An estimate is then not confirmed by what passes; it must not be raised blindly, nor be taken
//! for a limit of the link when it is compared with what arrives.

const BUCKET: i64 = 100_000;
const BUCKETS: usize = 8;
/// A tenth of a second with so many times the bytes of the mean one is a burst.
const BURST: f64 = 1.6;
/// The queue of a burst lasts at most so many of them.
const BURST_FOR: i64 = 5;
/// Below this share of the target the application is the limit, and above the other it is not.
const ENTER: f64 = 0.65;
const LEAVE: f64 = 0.8;

#[derive(Debug, Default)]
pub struct SendRate {
    /// Bytes of each tenth of a second, a ring; the current one is still open.
    buckets: [u64; BUCKETS],
    current: i64,
    began: Option<i64>,
    limited: bool,
    total: u64,
}

impl SendRate {
    pub fn add(&mut self, now: i64, size: u32) {
        self.turn(now);
        self.buckets[self.current as usize % BUCKETS] += u64::from(size);
        self.total = self.total.wrapping_add(u64::from(size));
    }

    /// When the first packet left.
    pub fn began(&self) -> Option<i64> {
        self.began
    }

    /// All bytes ever sent; wraps.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bits per second over the last whole tenths; `None` before there is one.
    pub fn rate(&mut self, now: i64) -> Option<f64> {
        self.turn(now);
        let whole = (self.current - self.began? / BUCKET).min(BUCKETS as i64 - 1);
        if whole < 1 {
            return None;
        }
        let open = self.buckets[self.current as usize % BUCKETS];
        let bytes: u64 = self.buckets.iter().sum::<u64>() - open;
        Some(bytes as f64 * 8e6 / (whole * BUCKET) as f64)
    }

    /// Whether far less than `target` is sent.
    pub fn is_limited(&mut self, now: i64, target: f64) -> bool {
        if let Some(rate) = self.rate(now) {
            self.limited = rate < if self.limited { LEAVE } else { ENTER } * target;
        }
        self.limited
    }

    /// Whether much more left within one of the last tenths than in the others: a keyframe, which
    /// makes a queue that says nothing of the link's rate.
    pub fn has_burst(&mut self, now: i64) -> bool {
        self.turn(now);
        let sum: u64 = self.buckets.iter().sum();
        let most = (0..BURST_FOR)
            .map(|back| self.buckets[(self.current - back).max(0) as usize % BUCKETS])
            .max();
        most.is_some_and(|most| most as f64 * BUCKETS as f64 > BURST * sum as f64)
    }

    fn turn(&mut self, now: i64) {
        let bucket = now.max(0) / BUCKET;
        if bucket <= self.current && self.began.is_some() {
            return;
        }
        if self.began.is_none() {
            self.began = Some(now.max(0));
            self.current = bucket;
            return;
        }
        let passed = (bucket - self.current).min(BUCKETS as i64);
        for n in 1..=passed {
            self.buckets[(bucket - passed + n) as usize % BUCKETS] = 0;
        }
        self.current = bucket;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_tenths_of_a_second() {
        let mut sent = SendRate::default();
        for ms in 0..2_000 {
            sent.add(ms * 1_000, 125);
        }
        let rate = sent.rate(2_000_000).expect("a rate");
        assert!((0.99e6..1.01e6).contains(&rate), "{rate}");
        assert!(!sent.is_limited(2_000_000, 1.2e6));
        assert!(sent.is_limited(2_000_000, 2e6));
        assert!(sent.is_limited(2_000_000, 1.3e6), "it uses too little of it for a change");
        assert_eq!(sent.rate(60_000_000), Some(0.0));
        assert_eq!(sent.total(), 250_000);
    }
}
