//! How long packets stay here: from their arrival until they are handed to what they are routed to, and
//! until they have left.
//!
//! All packets of a batch arrive at one moment, are routed and leave together, so a batch is measured
//! and not each packet: how many packets each stream had in it is the difference of the counters that
//! are there anyway. While nothing is measured nothing is done.
//!
//! Left out: what is sent again, and what a sink that starts is sent from the history.

use super::{Router, SinkKey, SourceKey};
use slotmap::SecondaryMap;
use std::time::{Duration, Instant};

/// A mean is one over the last one to two of these.
const PERIOD: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Latencies {
    sources: SecondaryMap<SourceKey, Measured>,
    sinks: SecondaryMap<SinkKey, Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    /// Packets of the stream so far.
    counted: u64,
    current: Sum,
    former: Sum,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    packets: u64,
    nanos: u128,
}

impl Measured {
    fn from(counted: u64) -> Self {
        Self { counted, ..Self::default() }
    }

    /// `packets` is the stream's counter after a batch that took that long.
    fn add(&mut self, now: Instant, packets: u64, took: Duration) {
        let new = packets.saturating_sub(self.counted);
        self.counted = packets;
        if new == 0 {
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= PERIOD {
            self.former = std::mem::take(&mut self.current);
            self.since = Some(now);
        }
        self.current.packets += new;
        self.current.nanos += took.as_nanos() * u128::from(new);
    }

    /// In nanoseconds; zero before the first packet.
    fn mean(&self) -> f64 {
        let packets = self.current.packets + self.former.packets;
        let nanos = self.current.nanos + self.former.nanos;
        if packets == 0 { 0.0 } else { nanos as f64 / packets as f64 }
    }
}

impl Router {
    /// Begins to measure latencies, with nothing remembered of before, or ends it.
    pub fn measure_latencies(&mut self, on: bool) {
        if on == self.latencies.is_some() {
            return;
        }
        self.latencies = on.then(|| {
            let sources = self.sources.iter();
            let sinks = self.sinks.iter();
            Latencies {
                sources: sources
                    .map(|(key, one)| (key, Measured::from(one.stats.packets)))
                    .collect(),
                sinks: sinks.map(|(key, one)| (key, Measured::from(one.stats.packets))).collect(),
            }
        });
    }

    /// A batch that arrived at `arrived` was routed at `routed` and had left at `departed`.
    pub fn measured(&mut self, arrived: Instant, routed: Instant, departed: Instant) {
        let Some(latencies) = &mut self.latencies else { return };
        let took = routed.saturating_duration_since(arrived);
        for (key, one) in &self.sources {
            if let Some(measured) = latencies.sources.entry(key) {
                measured.or_default().add(departed, one.stats.packets, took);
            }
        }
        let took = departed.saturating_duration_since(arrived);
        for (key, one) in &self.sinks {
            if let Some(measured) = latencies.sinks.entry(key) {
                measured.or_default().add(departed, one.stats.packets, took);
            }
        }
    }

    /// How long packets of a source take until they are handed to what they are routed to, on average
    /// and in nanoseconds. Zero while nothing came, or nothing is measured.
    pub fn input_latency(&self, source: SourceKey) -> f64 {
        let latencies = self.latencies.as_ref();
        latencies.and_then(|all| all.sources.get(source)).map_or(0.0, Measured::mean)
    }

    /// How long packets that leave by a sink were here, likewise.
    pub fn output_latency(&self, sink: SinkKey) -> f64 {
        let latencies = self.latencies.as_ref();
        latencies.and_then(|all| all.sinks.get(sink)).map_or(0.0, Measured::mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin")]
    fn a_mean_counts_packets_and_forgets_what_is_long_ago() {
        let start = Instant::now();
        let mut measured = Measured::from(10);
        assert_eq!(measured.mean(), 0.0);
        measured.add(start, 11, micros(300));
        measured.add(start + micros(50), 14, micros(100));
        assert_eq!(measured.mean(), 150_000.0);
        // A batch of other streams.
        measured.add(start + micros(60), 14, micros(9_000));
        assert_eq!(measured.mean(), 150_000.0);
        measured.add(start + PERIOD, 18, micros(50));
        assert_eq!(measured.mean(), 100_000.0);
        measured.add(start + 2 * PERIOD, 19, micros(70));
        assert_eq!(measured.mean(), 54_000.0);
    }
}
