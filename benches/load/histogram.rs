//! Durations in buckets of about 3 % width: quantiles of millions without keeping any.

use std::time::Duration;

/// Buckets in each doubling, as a power of two.
const FINE: u32 = 5;
const BUCKETS: usize = (64 << FINE) as usize;

#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u32]>,
    total: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0, longest: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, value: Duration) {
        let nanos = value.as_nanos() as u64;
        let count = &mut self.counts[bucket(nanos)];
        *count = count.saturating_add(1);
        self.total += 1;
        self.longest = self.longest.max(nanos);
    }

    pub fn merge(&mut self, other: &Self) {
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own = own.saturating_add(*more);
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// The value that this part of all lies below, in milliseconds; none of nothing.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let rank = (part * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return Some(middle(bucket).min(self.longest) as f64 / 1e6);
            }
        }
        None
    }

    /// In milliseconds.
    pub fn longest(&self) -> Option<f64> {
        (self.total > 0).then_some(self.longest as f64 / 1e6)
    }
}

fn bucket(nanos: u64) -> usize {
    let doublings = nanos.max(1).ilog2();
    match doublings.checked_sub(FINE) {
        Some(shift) => ((shift + 1) << FINE) as usize + ((nanos >> shift) as usize - (1 << FINE)),
        None => nanos as usize,
    }
}

fn middle(bucket: usize) -> u64 {
    let (shift, rest) = (bucket >> FINE, (bucket & ((1 << FINE) - 1)) as u64);
    match shift.checked_sub(1) {
        Some(shift) => ((rest + (1 << FINE)) << shift) + (1_u64 << shift) / 2,
        None => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_the_width_of_a_bucket() {
        let mut histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (part, expected) in [(0.5, 5.0), (0.99, 9.9), (1.0, 10.0)] {
            let found = histogram.quantile(part).expect("there are values");
            assert!((found / expected - 1.0).abs() < 0.033, "{part}: {found}");
        }
        assert_eq!(histogram.longest(), Some(10.0));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn every_duration_has_a_bucket_and_larger_ones_no_lower_one() {
        let mut last = 0;
        for shift in 0..64 {
            for nanos in [1_u64 << shift, (1 << shift) + (1 << shift) / 3, u64::MAX >> (63 - shift)]
            {
                let bucket = bucket(nanos);
                assert!(bucket >= last && bucket < BUCKETS, "{nanos}");
                last = bucket;
            }
        }
    }
}
