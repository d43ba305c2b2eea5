//! Distributions and levels that media workers tell of. A worker counts in plain numbers of its own
//! ([`Tally`]) and hands them over twice a second, so that a packet or a turn costs no atomic.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Buckets of a distribution; each but the last ends at twice where the one before ends.
const BUCKETS: usize = 16;

/// How often something had which size, by powers of two from `first` on.
#[derive(Clone, Debug)]
pub struct Tally {
    first: u64,
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Tally {
    /// The first bucket holds all up to `first`, which is at least 1.
    pub const fn new(first: u64) -> Self {
        Self { first, counts: [0; BUCKETS], sum: 0 }
    }

    #[inline]
    pub fn note(&mut self, value: u64) {
        let times = value.saturating_sub(1) / self.first;
        let bucket = (u64::BITS - times.leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.sum += value;
    }
}

/// The same for all to read; `scale` of what is counted make one of what is shown.
#[derive(Clone, Debug)]
pub struct Distribution(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    first: u64,
    scale: f64,
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Distribution {
    pub(super) fn new(first: u64, scale: f64) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self(Arc::new(Shared { first, scale, counts, sum: AtomicU64::new(0) }))
    }

    /// An empty tally whose buckets are these.
    pub fn tally(&self) -> Tally {
        Tally::new(self.0.first)
    }

    /// Adds what was counted, and empties the tally.
    pub fn take(&self, tally: &mut Tally) {
        for (shared, counted) in self.0.counts.iter().zip(&mut tally.counts) {
            match std::mem::take(counted) {
                0 => {}
                counted => drop(shared.fetch_add(counted, Ordering::Relaxed)),
            }
        }
        self.0.sum.fetch_add(std::mem::take(&mut tally.sum), Ordering::Relaxed);
    }
}

impl EncodeMetric for Distribution {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Shared { first, scale, counts, sum } = &*self.0;
        let buckets: [(f64, u64); BUCKETS] = std::array::from_fn(|bucket| {
            let end = match bucket {
                last if last + 1 == BUCKETS => f64::INFINITY,
                _ => (first << bucket) as f64 / scale,
            };
            (end, counts[bucket].load(Ordering::Relaxed))
        });
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = sum.load(Ordering::Relaxed) as f64 / scale;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Distribution {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_does_not_end_below_it() {
        for (value, bucket) in [
            (0, 0),
            (1, 0),
            (16, 0),
            (17, 1),
            (32, 1),
            (33, 2),
            (64, 2),
            (65, 3),
            (16 << 14, 14),
            ((16 << 14) + 1, 15),
            (u64::MAX, 15),
        ] {
            let mut tally = Tally::new(16);
            tally.note(value);
            assert_eq!(tally.counts.iter().position(|count| *count == 1), Some(bucket), "{value}");
        }
    }

    #[test]
    fn what_is_handed_over_is_counted_once() {
        let distribution = Distribution::new(1, 1.0);
        let mut tally = distribution.tally();
        tally.note(3);
        distribution.take(&mut tally);
        distribution.take(&mut tally);
        assert_eq!(distribution.0.counts[2].load(Ordering::Relaxed), 1);
        assert_eq!(distribution.0.sum.load(Ordering::Relaxed), 3);
    }
}
