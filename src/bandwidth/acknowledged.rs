//! How much arrives: the rate of what the receiver says it got, on the receiver's clock.
//!
//! Stretches of which feedback was lost count neither as bytes nor as time, so that a lost message does
//! not look like a slower link.

/// A sample is taken over at least this time, in µs.
const SAMPLE: i64 = 150_000;
/// A longer pause between two packets says that nothing was sent, not that the link is slow.
const PAUSE: i64 = 1_000_000;
/// A last sample so many times the steady rate is a rise that the latter has not followed yet.
const RISEN: f64 = 1.5;

#[derive(Debug, Default)]
pub struct Acknowledged {
    /// When the last packet arrived, and its number.
    last: Option<(i64, u64)>,
    bytes: u64,
    span: i64,
    /// Bits per second of the last whole sample.
    latest: Option<f64>,
    smoothed: Option<f64>,
    /// How far the smoothed rate may be off, as the variance of a Bayesian estimate.
    variance: f64,
}

impl Acknowledged {
    pub fn add(&mut self, seq: u64, size: u32, arrived: i64) {
        let Some((before, number)) = self.last else {
            self.last = Some((arrived, seq));
            return;
        };
        if seq <= number {
            // Late, and already past: its bytes belong to the sample that is open.
            self.bytes += u64::from(size);
            return;
        }
        let since = arrived.saturating_sub(before);
        self.last = Some((arrived.max(before), seq));
        if since > PAUSE {
            self.start_over();
            return;
        }
        if since < 0 {
            self.bytes += u64::from(size);
            if since < -PAUSE {
                // The clock was set back.
                self.last = Some((arrived, seq));
                self.start_over();
            }
            return;
        }
        self.bytes += u64::from(size);
        self.span += since;
        if self.span >= SAMPLE {
            self.close();
        }
    }

    /// Nothing is known of what lies before packet `seq`: counting starts again with it.
    pub fn skip_to(&mut self, seq: u64, arrived: i64) {
        self.last = Some((arrived, seq));
    }

    /// The steady rate, in bits per second.
    pub fn rate(&self) -> Option<f64> {
        self.smoothed
    }

    /// While a queue stands, what the bottleneck lets pass right now: the lower of the steady rate and that
    /// of the last tenths of a second, unless so much more has just begun to arrive that the steady rate
    /// is still the one of before.
    pub fn lately(&self) -> Option<f64> {
        let (steady, latest) = (self.smoothed?, self.latest?);
        Some(if latest > RISEN * steady { latest } else { latest.min(steady) })
    }

    fn start_over(&mut self) {
        self.bytes = 0;
        self.span = 0;
    }

    fn close(&mut self) {
        let sample = self.bytes as f64 * 8.0 * 1e6 / self.span as f64;
        self.start_over();
        self.latest = Some(sample);
        let Some(rate) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variance = 50.0;
            return;
        };
        // A sample far from the rate is trusted less: it may be a picture that is larger than others.
        let off = 10.0 * (rate - sample).abs() / rate.max(1_000.0);
        let doubt = (off * off).clamp(1.0, 1e6);
        let before = self.variance + 5.0;
        self.smoothed = Some((doubt * rate + before * sample) / (doubt + before));
        self.variance = doubt * before / (doubt + before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 000 bytes every `gap` ms, `count` times.
    fn run(acknowledged: &mut Acknowledged, from: (u64, i64), count: u64, gap: i64) -> (u64, i64) {
        for n in 1..=count {
            acknowledged.add(from.0 + n, 1_000, from.1 + n as i64 * gap * 1_000);
        }
        (from.0 + count, from.1 + count as i64 * gap * 1_000)
    }

    #[test]
    fn a_drop_is_seen_within_half_a_second() {
        let mut acknowledged = Acknowledged::default();
        let at = run(&mut acknowledged, (0, 0), 1_000, 2);
        assert!((3.9e6..4.1e6).contains(&acknowledged.rate().unwrap()));
        run(&mut acknowledged, at, 60, 8);
        assert!((0.9e6..1.1e6).contains(&acknowledged.lately().unwrap()));
    }

    #[test]
    fn a_rise_is_seen_with_its_first_sample() {
        let mut acknowledged = Acknowledged::default();
        let at = run(&mut acknowledged, (0, 0), 250, 16);
        assert!((0.45e6..0.55e6).contains(&acknowledged.lately().unwrap()));
        run(&mut acknowledged, at, 120, 2);
        assert!((3.5e6..4.1e6).contains(&acknowledged.lately().unwrap()));
    }

    #[test]
    fn a_stretch_without_feedback_changes_no_rate() {
        let mut acknowledged = Acknowledged::default();
        let mut at = (0, 0);
        for _ in 0..20 {
            at = run(&mut acknowledged, at, 50, 2);
            at = (at.0 + 50, at.1 + 100_000);
            acknowledged.skip_to(at.0, at.1);
        }
        assert!((3.9e6..4.1e6).contains(&acknowledged.rate().unwrap()));
    }
}
