//! Whether the queue at the bottleneck grows: a line through the delays of the last bursts, and a
//! threshold that adapts to how much they vary (draft-ietf-rmcat-gcc-02 §5.3 and §5.4; the line in
//! place of the draft's Kalman filter is what libwebrtc is known to use, with these constants).

use super::groups::Deltas;

const WINDOW: usize = 20;
/// How much of the old a smoothed delay keeps.
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
/// The slope counts for more the more bursts it was seen over.
const MOST_COUNTED: f64 = 60.0;
/// Slopes grow this much faster than the threshold, then they are no noise any more.
const OUTLIER: f64 = 15.0;
const UP: f64 = 0.0087;
const DOWN: f64 = 0.039;
const FIRST_THRESHOLD: f64 = 12.5;
/// Longer than this the slope must be too steep, in ms.
const SUSTAINED: f64 = 10.0;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Usage {
    #[default]
    Normal,
    /// The queue grows.
    Over,
    /// The queue empties.
    Under,
}

#[derive(Debug)]
pub struct Overuse {
    /// When a burst arrived, and the smoothed sum of how much later than its predecessor each was, both
    /// in ms; a ring.
    points: [(f64, f64); WINDOW],
    next: usize,
    bursts: u32,
    first: Option<i64>,
    delay: f64,
    smoothed: f64,
    slope: f64,
    threshold: f64,
    /// How long the slope has been too steep, in ms and in bursts.
    steep_for: f64,
    steep: u32,
    updated: Option<i64>,
    usage: Usage,
}

impl Default for Overuse {
    fn default() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            next: 0,
            bursts: 0,
            first: None,
            delay: 0.0,
            smoothed: 0.0,
            slope: 0.0,
            threshold: FIRST_THRESHOLD,
            steep_for: 0.0,
            steep: 0,
            updated: None,
            usage: Usage::Normal,
        }
    }
}

impl Overuse {
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// A burst that arrived at `arrived` µs of the receiver's clock, `now` µs of ours.
    pub fn add(&mut self, deltas: Deltas, arrived: i64, now: i64) {
        let first = *self.first.get_or_insert(arrived);
        let later = (deltas.arrived - deltas.sent) as f64 / 1_000.0;
        self.delay = (self.delay + later).clamp(-1e7, 1e7);
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.delay;
        self.bursts = self.bursts.saturating_add(1);
        self.points[self.next] = (arrived.saturating_sub(first) as f64 / 1_000.0, self.smoothed);
        self.next = (self.next + 1) % WINDOW;
        let before = self.slope;
        if self.bursts as usize >= WINDOW
            && let Some(slope) = slope(&self.points)
        {
            self.slope = slope;
        }
        self.detect(before, deltas.sent as f64 / 1_000.0, now);
    }

    fn detect(&mut self, before: f64, sent: f64, now: i64) {
        if self.bursts < 2 {
            return;
        }
        let steepness = f64::from(self.bursts).min(MOST_COUNTED) * self.slope * GAIN;
        if steepness > self.threshold {
            // The slope was reached somewhere within the first interval.
            self.steep_for += if self.steep == 0 { sent / 2.0 } else { sent };
            self.steep += 1;
            if self.steep_for > SUSTAINED && self.steep > 1 && self.slope >= before {
                self.steep_for = 0.0;
                self.steep = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.steep_for = 0.0;
            self.steep = 0;
            self.usage = if steepness < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.adapt(steepness.abs(), now);
    }

    fn adapt(&mut self, steepness: f64, now: i64) {
        let since = now.saturating_sub(self.updated.unwrap_or(now)).clamp(0, 100_000);
        self.updated = Some(now);
        if steepness > self.threshold + OUTLIER {
            return;
        }
        let speed = if steepness < self.threshold { DOWN } else { UP };
        let step = speed * (steepness - self.threshold) * (since as f64 / 1_000.0);
        self.threshold = (self.threshold + step).clamp(6.0, 600.0);
    }
}

/// The slope of the line with the least squared distance; `None` if all arrived at one time.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let (mut x, mut y) = (0.0, 0.0);
    for point in points {
        x += point.0;
        y += point.1;
    }
    let (x, y) = (x / count, y / count);
    let (mut above, mut below) = (0.0, 0.0);
    for point in points {
        above += (point.0 - x) * (point.1 - y);
        below += (point.0 - x) * (point.0 - x);
    }
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The usages seen while bursts leave every 20 ms and arrive as `gap` says, in µs.
    fn usages(gap: impl Fn(i64) -> i64) -> Vec<Usage> {
        let mut overuse = Overuse::default();
        let mut arrived = 0;
        (0..200)
            .map(|n| {
                arrived += gap(n);
                overuse.add(Deltas { sent: 20_000, arrived: gap(n) }, arrived, n * 20_000);
                overuse.usage()
            })
            .collect()
    }

    #[test]
    fn a_steady_delay_is_normal_however_the_clocks_differ() {
        assert!(usages(|_| 20_000).iter().all(|usage| *usage == Usage::Normal));
        assert!(usages(|_| 20_004).iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn delays_that_only_vary_are_normal() {
        let seen = usages(|n| 20_000 + [3_000, -2_000, -1_000, 1_500, -1_500][n as usize % 5]);
        assert!(seen.iter().all(|usage| *usage == Usage::Normal), "{seen:?}");
    }

    #[test]
    fn a_growing_queue_is_noticed_and_so_is_its_end() {
        let seen = usages(|n| match n {
            0..60 => 20_000,
            60..100 => 30_000,
            100..140 => 10_000,
            _ => 20_000,
        });
        assert!(seen[..60].iter().all(|usage| *usage == Usage::Normal));
        assert!(seen[60..75].contains(&Usage::Over), "{seen:?}");
        assert!(seen[100..150].contains(&Usage::Under), "{seen:?}");
        assert_eq!(seen[199], Usage::Normal);
    }
}
