//! A receiver that lies, told by bytes: whatever it says, the rate stays within its bounds and the
//! machine goes on. Property tests and a fuzz target run it.

use rivero::bandwidth::{Bandwidth, Bounds, Fate, Limit, Means};
use rivero::rtp::Bitrate;
use std::time::{Duration, Instant};

/// As many calls as an input may cause: what they cost is not what is looked for.
const MOST_FATES: usize = 300_000;

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.next().unwrap_or(0)))
    }

    /// Small and large numbers alike: a byte, shifted by another.
    fn number(&mut self) -> u64 {
        u64::from(self.next().unwrap_or(0)) << (self.next().unwrap_or(0) % 57)
    }
}

/// # Panics
/// If the machine breaks a promise.
pub fn survive(input: &[u8], epoch: Instant) {
    let mut bytes = Bytes(input);
    let means = [Means::TransportWide, Means::TransportWide, Means::Remb, Means::Reports];
    let means = means[usize::from(bytes.next().unwrap_or(0) % 4)];
    let mut bounds = Bounds::default();
    let mut bandwidth = Bandwidth::new(epoch, means, bounds);
    let (mut now, mut seq, mut fates) = (epoch, 0u64, 0);
    while let Some(what) = bytes.next() {
        match what % 10 {
            0..=2 => {
                for _ in 0..bytes.next().unwrap_or(0) {
                    seq += 1;
                    now += Duration::from_micros(100);
                    bandwidth.sent(now, seq, 1_200);
                }
            }
            3 | 4 => {
                let count = if what > 250 { 65_535 } else { usize::from(what) };
                if fates + count > MOST_FATES {
                    continue;
                }
                fates += count;
                let (first, skip) = (seq.wrapping_sub(bytes.number()), bytes.number());
                let (arrived, step) = (bytes.number(), bytes.word() as i64 >> (what % 64));
                let ago = Duration::from_micros(bytes.number() % 100_000_000);
                let ahead = bytes.next().unwrap_or(0) > 250;
                let lost = u64::from(bytes.next().unwrap_or(0)) + 1;
                bandwidth.handle_feedback(
                    now,
                    (0..count as u64).map(|n| Fate {
                        seq: first.wrapping_add(n.wrapping_mul(skip.max(1))),
                        size: 1_200,
                        sent_at: if ahead {
                            now + ago
                        } else {
                            epoch.max(now - ago.min(now - epoch))
                        },
                        received_at: (n % lost != lost - 1).then(|| {
                            let at = (arrived as i64).wrapping_add(step.wrapping_mul(n as i64));
                            Duration::from_micros(at as u64)
                        }),
                    }),
                );
            }
            5 => bandwidth.handle_remb(now, Bitrate::from_bps(bytes.number())),
            6 => {
                let round_trip = Duration::from_micros(bytes.number());
                bandwidth.handle_report(now, what, (what > 100).then_some(round_trip));
            }
            7 => {
                let some = |rate: u64| (!rate.is_multiple_of(3)).then(|| Bitrate::from_bps(rate));
                bounds = Bounds {
                    min: some(bytes.number()),
                    max: some(bytes.number()),
                    start: some(bytes.number()),
                };
                bandwidth.set_bounds(now, bounds);
            }
            8 => bandwidth.set_wanted(Bitrate::from_bps(bytes.number())),
            _ => now += Duration::from_millis(bytes.number() % 20_000),
        }
        serve(&mut bandwidth, now, &mut seq);
        check(&bandwidth, bounds);
    }
}

/// Does what the machine asks for; it must not ask for the same moment again and again.
fn serve(bandwidth: &mut Bandwidth, now: Instant, seq: &mut u64) {
    for round in 0.. {
        assert!(round < 4, "it asks for more and more at one time");
        let Some(probe) = bandwidth.poll_probe(now) else { break };
        assert!(probe.packets > 0 && probe.packets < 200_000, "{probe:?}");
        for _ in 0..probe.packets.min(1_000) {
            *seq += 1;
            bandwidth.sent(now, *seq, 1_200);
        }
        if probe.packets > 1_000 {
            break;
        }
    }
    if bandwidth.poll_timeout(now).is_some_and(|due| due <= now) {
        bandwidth.handle_timeout(now);
        assert!(bandwidth.poll_timeout(now).is_none_or(|due| due > now), "time stands still");
    }
}

fn check(bandwidth: &Bandwidth, bounds: Bounds) {
    let estimate = bandwidth.estimate();
    let rate = estimate.target.bps();
    assert!(rate <= 10_000_000_000, "{estimate:?}");
    let max = bounds.max.map_or(u64::MAX, Bitrate::bps);
    assert!(rate <= max, "{estimate:?} beyond {bounds:?}");
    let min = bounds.min.map_or(30_000, Bitrate::bps).min(max).min(10_000_000_000);
    assert!(rate >= min, "{estimate:?} below {bounds:?}");
    assert!(Limit::ALL.contains(&estimate.reason));
    assert!(bandwidth.queueing_delay() <= Duration::from_secs(10));
    assert!(bandwidth.acknowledged().is_none_or(|rate| rate.bps() < u64::MAX));
}
