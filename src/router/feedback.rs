//! What a sender may send at most, told to it as REMB: a local estimate out of losses and measured
//! rate, cut to what those behind it can take (draft-alvestrand-rmcat-remb).
//!
//! The estimate is Kurento's: it climbs by a factor until the first loss and then by steps, stays
//! within twice what really comes, and falls by a factor when losses are more than a few percent.

use crate::rtp::Bitrate;
use std::time::{Duration, Instant};

/// The estimate changes at most this often.
const INTERVAL: Duration = Duration::from_millis(200);
/// No sender is told to stay below this.
const FLOOR: Bitrate = Bitrate::from_bps(30_000);
/// Told while nothing was measured.
const UNMEASURED: Bitrate = Bitrate::from_bps(2_000_000);
/// More than anybody sends.
const UNLIMITED: Bitrate = Bitrate::from_bps(1_000_000_000);
/// How much of the steady rate an interval of measuring changes.
const SMOOTHING: f64 = 0.15;

/// What holds the rate down that a sender is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Nothing was measured yet.
    Unmeasured,
    /// It climbs no higher than twice what really comes.
    Measured,
    /// Losses on the way to us.
    Loss,
    /// The link to a receiver behind us carries less, by its word or by our estimate.
    Receiver,
    /// Nobody watches.
    Unwatched,
    /// The upper bound that was set.
    Maximum,
    /// The lower bound that was set: all else asks for less.
    Minimum,
    /// No sender is told to stay below 30 kbit/s.
    Floor,
}

impl Limit {
    /// One word for statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmeasured => "unmeasured",
            Self::Measured => "measured",
            Self::Loss => "loss",
            Self::Receiver => "receiver",
            Self::Unwatched => "unwatched",
            Self::Maximum => "maximum",
            Self::Minimum => "minimum",
            Self::Floor => "floor",
        }
    }
}

/// What is known of those who get a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Behind {
    /// Nothing that limits.
    Open,
    /// This much can be taken.
    Narrow(Bitrate),
    /// Nobody watches; so much is told.
    Nobody(Bitrate),
}

/// The constants of the estimate, under the names that the remote API gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RembParams {
    /// Packets after which an interval's loss is taken at its word; with fewer it is averaged.
    pub packets_recv_interval_top: u32,
    pub exponential_factor: f32,
    /// Bits per second.
    pub lineal_factor_min: u32,
    pub lineal_factor_grade: f32,
    pub decrement_factor: f32,
    pub threshold_factor: f32,
    /// In 256ths: fewer losses only stop the climb.
    pub up_losses: u32,
}

impl Default for RembParams {
    fn default() -> Self {
        Self {
            packets_recv_interval_top: 100,
            exponential_factor: 0.04,
            lineal_factor_min: 50,
            lineal_factor_grade: 30.0,
            decrement_factor: 0.5,
            threshold_factor: 0.8,
            up_losses: 12,
        }
    }
}

/// The lower and upper bound of what is told; an upper bound of zero is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub min: Bitrate,
    pub max: Bitrate,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { min: Bitrate::from_kbps(100), max: Bitrate::default() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Estimate {
    pub params: RembParams,
    pub bounds: Bounds,
    interval: Option<Interval>,
    measured: Bitrate,
    /// Measured, and averaged over a second or so. Bits per second.
    steady: f64,
    /// `None` before the first measurement. Bits per second.
    value: Option<f64>,
    highest_measured: f64,
    /// Above it the climb is by steps; none before the first loss.
    threshold: Option<f64>,
    step: f64,
    /// Averaged, in 256ths.
    loss: f64,
    /// The sender was told a cap once.
    capped: bool,
}

/// What the counters were when the interval began.
#[derive(Clone, Copy, Debug)]
struct Interval {
    began: Instant,
    bytes: u64,
    expected: u64,
    received: u64,
}

impl Estimate {
    /// Counts a packet; closes the interval when it is over. Of all packets so far `expected` should
    /// have come, and `received` have.
    #[inline]
    pub fn packet(&mut self, now: Instant, bytes: usize, expected: u64, received: u64) {
        let begin = Interval { began: now, bytes: 0, expected, received };
        let interval = self.interval.get_or_insert(begin);
        interval.bytes += bytes as u64;
        let took = now.saturating_duration_since(interval.began);
        if took >= INTERVAL {
            let closed = *interval;
            *interval = begin;
            let expected = expected - closed.expected;
            let received = received - closed.received;
            let measured = Bitrate::of(closed.bytes, took).unwrap_or_default();
            let lost = expected.saturating_sub(received);
            let fraction = if expected == 0 { 0.0 } else { lost as f64 * 256.0 / expected as f64 };
            self.close_interval(measured, expected, fraction);
        }
    }

    /// Sequence numbers start anew, so counters of before mean nothing.
    pub fn restart(&mut self) {
        self.interval = None;
    }

    pub fn measured(&self) -> Bitrate {
        self.measured
    }

    /// What comes, without the ups and downs of pictures.
    pub fn steady(&self) -> Bitrate {
        Bitrate::from_bps(self.steady as u64)
    }

    /// What the sender is told, and what holds that down.
    pub fn limited(&self, behind: Behind) -> (Bitrate, Limit) {
        let lossy = self.threshold.is_some() && !self.at_top();
        let estimate = match self.value {
            None => (UNMEASURED, Limit::Unmeasured),
            Some(value) => {
                let limit = if lossy { Limit::Loss } else { Limit::Measured };
                (Bitrate::from_bps(value.round() as u64), limit)
            }
        };
        let uppers = self.uppers(behind);
        self.raised(uppers.fold(estimate, |low, one| if one.0 < low.0 { one } else { low }))
    }

    /// What is set from outside: nothing higher is told.
    fn uppers(&self, behind: Behind) -> impl Iterator<Item = (Bitrate, Limit)> + use<> {
        let receiver = match behind {
            Behind::Open => None,
            Behind::Narrow(rate) => Some((rate, Limit::Receiver)),
            Behind::Nobody(rate) => Some((rate, Limit::Unwatched)),
        };
        let maximum = Some((self.bounds.max, Limit::Maximum));
        let maximum = maximum.filter(|(max, _)| *max > Bitrate::default());
        [receiver, maximum].into_iter().flatten()
    }

    /// Nothing lower than the lower bounds is told. That nobody watches remains the reason.
    fn raised(&self, told: (Bitrate, Limit)) -> (Bitrate, Limit) {
        if told.1 == Limit::Unwatched {
            return (told.0.max(self.bounds.min), Limit::Unwatched);
        }
        let lowers = [(self.bounds.min, Limit::Minimum), (FLOOR, Limit::Floor)];
        lowers.into_iter().fold(told, |high, one| if one.0 > high.0 { one } else { high })
    }

    /// Whether it climbed as far as it may.
    fn at_top(&self) -> bool {
        self.value.is_some_and(|value| value >= 2.0 * self.highest_measured)
    }

    /// What a sender that estimates by itself, out of transport-wide feedback, is told: such a sender
    /// takes the lower of its own estimate and this one. Ours knows losses only and begins low, so it
    /// would hold down what the sender finds out; only what the sender cannot know is told, what was
    /// configured and what those behind can take. `None` as long as there was neither; once
    /// there was, its end must be told too, as the last word holds.
    pub fn cap(&mut self, behind: Behind) -> Option<(Bitrate, Option<Limit>)> {
        let Some(lowest) = self.uppers(behind).min_by_key(|(rate, _)| *rate) else {
            return self.capped.then_some((UNLIMITED, None));
        };
        self.capped = true;
        let (rate, limit) = self.raised(lowest);
        Some((rate, Some(limit)))
    }

    fn close_interval(&mut self, measured: Bitrate, packets: u64, fraction_lost: f64) {
        self.measured = measured;
        let weight = packets as f64 / f64::from(self.params.packets_recv_interval_top.max(1));
        let weight = weight.min(1.0);
        self.loss = self.loss * (1.0 - weight) + fraction_lost * weight;
        if self.loss < 0.5 {
            self.loss = 0.0;
        }
        let measured = measured.bps() as f64;
        self.steady = match self.value {
            None => measured,
            Some(_) => self.steady + SMOOTHING * (measured - self.steady),
        };
        self.highest_measured = self.highest_measured.max(measured);
        let Some(value) = self.value else {
            self.value = Some(measured);
            return;
        };
        self.value =
            Some(if self.loss == 0.0 { self.climb(value) } else { self.retreat(value, measured) });
    }

    fn climb(&self, value: f64) -> f64 {
        let higher = if self.threshold.is_none_or(|threshold| value < threshold) {
            value * (1.0 + f64::from(self.params.exponential_factor))
        } else {
            value + self.step
        };
        higher.min(2.0 * self.highest_measured)
    }

    fn retreat(&mut self, value: f64, measured: f64) -> f64 {
        let base = value.min(self.highest_measured);
        let threshold = base * f64::from(self.params.threshold_factor);
        let grade = f64::from(self.params.lineal_factor_grade).max(1.0);
        self.threshold = Some(threshold);
        self.step = ((base - threshold) / grade).max(f64::from(self.params.lineal_factor_min));
        if self.loss < f64::from(self.params.up_losses) {
            return base;
        }
        // What came at better times promises nothing any more.
        self.highest_measured = measured;
        base * f64::from(self.params.decrement_factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Estimate {
        fn remb(&self, behind: Behind) -> Bitrate {
            self.limited(behind).0
        }
    }

    const fn kbps(kbps: u64) -> Bitrate {
        Bitrate::from_kbps(kbps)
    }

    fn after(intervals: &[(u64, f64)]) -> Estimate {
        let mut estimate = Estimate::default();
        for &(measured, loss) in intervals {
            estimate.close_interval(kbps(measured), 100, loss);
        }
        estimate
    }

    #[test]
    fn two_megabits_are_told_until_something_is_measured() {
        assert_eq!(after(&[]).remb(Behind::Open), UNMEASURED);
        assert_eq!(after(&[(400, 0.0)]).remb(Behind::Open), kbps(400));
    }

    #[test]
    fn without_loss_it_climbs_to_twice_what_comes() {
        assert_eq!(after(&[(500, 0.0), (500, 0.0)]).remb(Behind::Open).kbps(), 520);
        assert_eq!(after(&[(500, 0.0); 60]).remb(Behind::Open), kbps(1_000));
    }

    #[test]
    fn few_losses_stop_the_climb_and_many_halve_it() {
        assert_eq!(after(&[(500, 0.0), (500, 0.0), (500, 6.0)]).remb(Behind::Open), kbps(500));
        assert_eq!(after(&[(500, 0.0), (500, 0.0), (500, 40.0)]).remb(Behind::Open), kbps(250));
        // Behind a loss the climb is exponential below the threshold and by steps above it.
        let stepping = after(&[(600, 0.0), (600, 6.0), (600, 0.0)]);
        assert_eq!(stepping.remb(Behind::Open).bps(), 600_000 + 120_000 / 30);
    }

    #[test]
    fn what_holds_it_down_has_a_name() {
        let limit = |estimate: &Estimate, behind| estimate.limited(behind).1;
        assert_eq!(limit(&after(&[]), Behind::Open), Limit::Unmeasured);
        let mut estimate = after(&[(500, 0.0)]);
        assert_eq!(limit(&estimate, Behind::Open), Limit::Measured);
        assert_eq!(limit(&estimate, Behind::Narrow(kbps(300))), Limit::Receiver);
        assert_eq!(limit(&estimate, Behind::Narrow(kbps(900))), Limit::Measured);
        assert_eq!(limit(&estimate, Behind::Narrow(kbps(20))), Limit::Minimum);
        estimate.bounds = Bounds { min: Bitrate::default(), max: kbps(250) };
        assert_eq!(limit(&estimate, Behind::Narrow(kbps(300))), Limit::Maximum);
        assert_eq!(limit(&estimate, Behind::Narrow(kbps(1))), Limit::Floor);
        assert_eq!(limit(&after(&[(500, 0.0), (500, 40.0)]), Behind::Open), Limit::Loss);
        // Behind a loss it climbs again, and is held by losses no longer once it is at the top.
        assert_eq!(limit(&after(&[(500, 0.0), (500, 6.0), (500, 0.0)]), Behind::Open), Limit::Loss);
    }

    #[test]
    fn a_sender_that_estimates_by_itself_is_told_limits_and_their_end() {
        let mut estimate = after(&[(500, 0.0), (500, 40.0)]);
        let told = |rate, limit| Some((rate, Some(limit)));
        assert_eq!(estimate.cap(Behind::Open), None);
        assert_eq!(estimate.cap(Behind::Narrow(kbps(900))), told(kbps(900), Limit::Receiver));
        assert_eq!(estimate.cap(Behind::Narrow(kbps(20))), told(kbps(100), Limit::Minimum));
        assert_eq!(estimate.cap(Behind::Open), Some((UNLIMITED, None)));
        estimate.bounds.max = kbps(700);
        assert_eq!(estimate.cap(Behind::Narrow(kbps(900))), told(kbps(700), Limit::Maximum));
        assert_eq!(estimate.cap(Behind::Open), told(kbps(700), Limit::Maximum));
    }

    #[test]
    fn bounds_and_sinks_cut_it() {
        let mut estimate = after(&[(500, 0.0)]);
        assert_eq!(estimate.remb(Behind::Narrow(kbps(300))), kbps(300));
        assert_eq!(estimate.remb(Behind::Narrow(kbps(900))), kbps(500));
        assert_eq!(estimate.remb(Behind::Narrow(kbps(20))), kbps(100));
        estimate.bounds = Bounds { min: Bitrate::default(), max: kbps(250) };
        assert_eq!(estimate.remb(Behind::Open), kbps(250));
        assert_eq!(estimate.remb(Behind::Narrow(kbps(1))), FLOOR);
    }
}
