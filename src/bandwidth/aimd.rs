//! The rate that the delay allows: up a little while the queue is still, down to below what arrives
//! when it grows (draft-ietf-rmcat-gcc-02 §5.5).
//!
//! Departures: an estimate that nobody uses is neither raised nor worn down, for a server forwards what
//! publishers send and is mostly limited by that; and a decrease needs a queue, not only a trend.

use super::overuse::Usage;

/// What is kept of the rate that arrives.
const BACKOFF: f64 = 0.85;
/// Growth per second far from the last limit.
const FACTOR: f64 = 1.08;
/// A target may exceed what arrives by this much; only a probe can prove more.
const HEADROOM: f64 = 1.5;
/// A queue that has become shorter within this time, in µs, is being emptied.
const SETTLES: i64 = 2_000_000;
/// A shorter queue than this is none, in µs.
const STILL: i64 = 10_000;
const PACKET_BITS: f64 = 1_200.0 * 8.0;
const PICTURES_PER_SECOND: f64 = 30.0;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Increase,
    Hold,
}

#[derive(Debug)]
pub struct Aimd {
    target: f64,
    state: State,
    /// The rates at which the queue grew before: their mean and variance, the latter as a share of the
    /// former squared; near it growth is careful.
    limit: Option<f64>,
    variance: f64,
    changed: Option<i64>,
    decreased: Option<i64>,
    /// The queue at that time.
    queue_then: i64,
    held_by_application: bool,
}

/// What one feedback message has shown.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub usage: Usage,
    /// Steady and latest rate of what arrives.
    pub rate: Option<f64>,
    pub lately: Option<f64>,
    /// In µs.
    pub round_trip: i64,
    pub queue: i64,
    /// A shorter queue is no reason to slow down, in µs.
    pub tolerated: i64,
    pub application_limited: bool,
    /// More than this nobody could use.
    pub enough: f64,
}

impl Aimd {
    pub fn new(target: f64) -> Self {
        Self {
            target,
            state: State::default(),
            limit: None,
            variance: 0.01,
            changed: None,
            decreased: None,
            queue_then: 0,
            held_by_application: false,
        }
    }

    pub fn target(&self) -> f64 {
        self.target
    }

    /// When the queue made it slow down last.
    pub fn decreased(&self) -> Option<i64> {
        self.decreased
    }

    /// Growth waits for the application to use what there is.
    pub fn held_by_application(&self) -> bool {
        self.held_by_application
    }

    pub fn set(&mut self, target: f64) {
        self.target = target;
    }

    /// As much was proven to pass.
    pub fn raise(&mut self, target: f64) {
        self.target = self.target.max(target);
        if self.limit.is_some_and(|limit| target > limit + self.deviation(limit)) {
            self.limit = None;
        }
    }

    /// Whether it has come back to where the queue grew before, or knows of no such rate.
    pub fn is_at_limit(&self) -> bool {
        self.limit.is_none_or(|limit| self.target >= 0.95 * limit)
    }

    pub fn update(&mut self, now: i64, seen: Seen) {
        let since = now.saturating_sub(self.changed.unwrap_or(now)).clamp(0, 1_000_000);
        match seen.usage {
            Usage::Over if seen.queue >= seen.tolerated => {
                let pause = (seen.round_trip + 100_000).min(1_000_000);
                // Its effect is to be seen before the next one, which is for a queue that still grows.
                let early = |at| {
                    let since: i64 = now.saturating_sub(at);
                    since < pause || since < SETTLES && seen.queue < self.queue_then * 9 / 10
                };
                if !self.decreased.is_some_and(early) {
                    self.decrease(now, seen);
                }
                self.state = State::Hold;
            }
            Usage::Over | Usage::Under => self.state = State::Hold,
            Usage::Normal if self.state == State::Hold => self.state = State::Increase,
            Usage::Normal => self.increase(since as f64 / 1e6, seen),
        }
        self.changed = Some(now);
    }

    fn increase(&mut self, seconds: f64, seen: Seen) {
        let Some(rate) = seen.rate else {
            self.held_by_application = false;
            return;
        };
        if self.limit.is_some_and(|limit| rate > limit + self.deviation(limit)) {
            self.limit = None;
        }
        // More arrives than was thought to pass, and no queue grows: that is as good as a probe, of which
        // there is none where nothing can be repeated.
        if rate > self.target && self.limit.is_none() && seen.queue < STILL {
            self.target = rate;
        }
        let enough = seen.enough.min(HEADROOM * rate + 10_000.0);
        self.held_by_application = seen.application_limited || self.target >= enough;
        if self.held_by_application {
            return;
        }
        let grown = if self.limit.is_some() {
            self.target + self.careful_growth(seen.round_trip) * seconds
        } else {
            self.target * FACTOR.powf(seconds) + 1_000.0 * seconds
        };
        self.target = grown.min(enough);
    }

    /// About one packet for each time in which the network can answer, in bits per second per second.
    fn careful_growth(&self, round_trip: i64) -> f64 {
        let picture = self.target / PICTURES_PER_SECOND;
        let packet = picture / (picture / PACKET_BITS).ceil().max(1.0);
        let answer = (round_trip + 100_000).clamp(100_000, 2_000_000) as f64 / 1e6;
        (packet / answer).max(4_000.0)
    }

    fn decrease(&mut self, now: i64, seen: Seen) {
        self.decreased = Some(now);
        self.queue_then = seen.queue;
        self.held_by_application = false;
        let Some(rate) = seen.lately else {
            // Nothing is known of what arrives yet.
            self.target /= 2.0;
            return;
        };
        let mut lower = BACKOFF * rate;
        if let Some(limit) = self.limit {
            if lower > self.target {
                lower = BACKOFF * limit;
            }
            if rate < limit - self.deviation(limit) {
                self.limit = None;
            }
        }
        self.target = self.target.min(lower);
        self.learn(rate);
    }

    fn learn(&mut self, rate: f64) {
        let limit = self.limit.map_or(rate, |limit| 0.95 * limit + 0.05 * rate).max(1.0);
        let off = (limit - rate) / limit;
        self.variance = (0.95 * self.variance + 0.05 * off * off).clamp(0.000_4, 0.01);
        self.limit = Some(limit);
    }

    /// Three standard deviations of the limit.
    fn deviation(&self, limit: f64) -> f64 {
        3.0 * self.variance.sqrt() * limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(usage: Usage, rate: f64) -> Seen {
        Seen {
            usage,
            rate: Some(rate),
            lately: Some(rate),
            round_trip: 100_000,
            queue: 50_000,
            tolerated: 20_000,
            application_limited: false,
            enough: f64::MAX,
        }
    }

    fn run(aimd: &mut Aimd, from: i64, seconds: i64, seen: impl Fn(f64) -> Seen) -> i64 {
        for n in 1..=seconds * 10 {
            let now = seen(aimd.target());
            aimd.update(from + n * 100_000, now);
        }
        from + seconds * 1_000_000
    }

    #[test]
    fn growth_is_eight_per_cent_each_second_far_from_a_limit_and_slower_near_it() {
        let mut aimd = Aimd::new(1e6);
        let at = run(&mut aimd, 0, 10, |target| seen(Usage::Normal, target));
        let grown = aimd.target();
        assert!((2.1e6..2.2e6).contains(&grown), "{grown}");
        aimd.update(at, seen(Usage::Over, grown));
        let lower = aimd.target();
        assert!((0.84 * grown..0.86 * grown).contains(&lower));
        run(&mut aimd, at, 2, |target| seen(Usage::Normal, target));
        assert!(aimd.target() < 1.12 * lower, "{}", aimd.target());
    }

    #[test]
    fn what_arrives_without_a_queue_passes() {
        let still = |rate| Seen { queue: 3_000, ..seen(Usage::Normal, rate) };
        let mut aimd = Aimd::new(0.3e6);
        run(&mut aimd, 0, 1, |_| still(2e6));
        assert!(aimd.target() >= 2e6, "{}", aimd.target());
        // It was the link that made it slow down: what its queue gives back proves nothing.
        aimd.update(1_100_000, seen(Usage::Over, 2e6));
        let lower = aimd.target();
        run(&mut aimd, 1_100_000, 1, |_| still(2e6));
        assert!(aimd.target() < 1.2 * lower, "{lower} {}", aimd.target());
    }

    #[test]
    fn what_nobody_uses_neither_grows_nor_shrinks() {
        let mut aimd = Aimd::new(4e6);
        run(&mut aimd, 0, 60, |_| seen(Usage::Normal, 0.3e6));
        assert_eq!(aimd.target(), 4e6);
        assert!(aimd.held_by_application());
        let short = |_| Seen { queue: 5_000, ..seen(Usage::Over, 0.3e6) };
        run(&mut aimd, 60_000_000, 1, short);
        assert_eq!(aimd.target(), 4e6, "a trend without a queue is jitter");
    }
}
