//! What a sender may send at most, told to it as REMB: a local estimate out of losses and measured
//! rate, cut to what the sinks behind it report (draft-alvestrand-rmcat-remb).
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
/// How long a sink's report holds.
pub(super) const REPORT_HOLDS: Duration = Duration::from_secs(10);

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

    /// What the sender is told, when the most restricted of its sinks reports `downstream`.
    pub fn remb(&self, downstream: Option<Bitrate>) -> Bitrate {
        let estimate =
            self.value.map_or(UNMEASURED, |value| Bitrate::from_bps(value.round() as u64));
        let mut value = downstream.map_or(estimate, |downstream| downstream.min(estimate));
        if self.bounds.max > Bitrate::default() {
            value = value.min(self.bounds.max);
        }
        value.max(self.bounds.min).max(FLOOR)
    }

    /// What a sender that estimates by itself, out of transport-wide feedback, is told: such a sender
    /// takes the lower of its own estimate and this one. Ours knows losses only and begins low, so it
    /// would hold down what the sender finds out; only what the sender cannot know is told, what was
    /// configured and what the most restricted sink can take. `None` as long as there was neither; once
    /// there was, its end must be told too, as the last word holds.
    pub fn cap(&mut self, downstream: Option<Bitrate>) -> Option<Bitrate> {
        let max = Some(self.bounds.max).filter(|max| *max > Bitrate::default());
        let least = self.bounds.min.max(FLOOR);
        let cap = [max, downstream].into_iter().flatten().min().map(|cap| cap.max(least));
        self.capped |= cap.is_some();
        cap.or(self.capped.then_some(UNLIMITED))
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
        assert_eq!(after(&[]).remb(None), UNMEASURED);
        assert_eq!(after(&[(400, 0.0)]).remb(None), kbps(400));
    }

    #[test]
    fn without_loss_it_climbs_to_twice_what_comes() {
        assert_eq!(after(&[(500, 0.0), (500, 0.0)]).remb(None).kbps(), 520);
        assert_eq!(after(&[(500, 0.0); 60]).remb(None), kbps(1_000));
    }

    #[test]
    fn few_losses_stop_the_climb_and_many_halve_it() {
        assert_eq!(after(&[(500, 0.0), (500, 0.0), (500, 6.0)]).remb(None), kbps(500));
        assert_eq!(after(&[(500, 0.0), (500, 0.0), (500, 40.0)]).remb(None), kbps(250));
        // Behind a loss the climb is exponential below the threshold and by steps above it.
        let stepping = after(&[(600, 0.0), (600, 6.0), (600, 0.0)]);
        assert_eq!(stepping.remb(None).bps(), 600_000 + 120_000 / 30);
    }

    #[test]
    fn a_sender_that_estimates_by_itself_is_told_limits_and_their_end() {
        let mut estimate = after(&[(500, 0.0), (500, 40.0)]);
        assert_eq!(estimate.cap(None), None);
        assert_eq!(estimate.cap(Some(kbps(900))), Some(kbps(900)));
        assert_eq!(estimate.cap(Some(kbps(20))), Some(kbps(100)));
        assert_eq!(estimate.cap(None), Some(UNLIMITED));
        estimate.bounds.max = kbps(700);
        assert_eq!(estimate.cap(Some(kbps(900))), Some(kbps(700)));
        assert_eq!(estimate.cap(None), Some(kbps(700)));
    }

    #[test]
    fn bounds_and_sinks_cut_it() {
        let mut estimate = after(&[(500, 0.0)]);
        assert_eq!(estimate.remb(Some(kbps(300))), kbps(300));
        assert_eq!(estimate.remb(Some(kbps(900))), kbps(500));
        assert_eq!(estimate.remb(Some(kbps(20))), kbps(100));
        estimate.bounds = Bounds { min: Bitrate::default(), max: kbps(250) };
        assert_eq!(estimate.remb(None), kbps(250));
        assert_eq!(estimate.remb(Some(kbps(1))), FLOOR);
    }
}
