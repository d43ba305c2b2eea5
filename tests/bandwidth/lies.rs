use super::flow::{Simulation, Source};
use super::liar::survive;
use super::link::{Conditions, MS, SECOND};
use proptest::prelude::*;
use rivero::bandwidth::{Bandwidth, Bounds, Fate, Means};
use rivero::rtp::Bitrate;
use std::time::{Duration, Instant};

fn epoch() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed, and any will do")]
    Instant::now()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn whatever_a_receiver_says_the_rate_stays_within_its_bounds(
        input in proptest::collection::vec(any::<u8>(), 0..600)
    ) {
        survive(&input, epoch());
    }
}

#[test]
fn a_receiver_that_claims_to_get_all_at_once_gains_nothing_beyond_the_maximum() {
    let start = epoch();
    let bounds = Bounds { max: Some(Bitrate::from_kbps(2_000)), ..Bounds::default() };
    let mut bandwidth = Bandwidth::new(start, Means::TransportWide, bounds);
    bandwidth.set_wanted(Bitrate::from_kbps(100_000));
    let mut seq = 0;
    for round in 1..600u64 {
        let now = start + Duration::from_millis(round * 50);
        let packets = bandwidth.poll_probe(now).map_or(5, |probe| probe.packets + 5);
        let first = seq + 1;
        for _ in 0..packets {
            seq += 1;
            bandwidth.sent(now, seq, 1_200);
        }
        let told = (first..=seq).map(|seq| Fate {
            seq,
            size: 1_200,
            sent_at: now,
            received_at: Some(Duration::from_micros(seq)),
        });
        bandwidth.handle_feedback(now + Duration::from_millis(40), told);
        assert!(bandwidth.estimate().target <= Bitrate::from_kbps(2_000));
    }
}

#[test]
fn a_clock_that_runs_backwards_does_not_stop_the_machine() {
    let call = Simulation::new(3, Conditions::rate(4e6)).flow(Source::Follows { most: 2.5e6 });
    let mut call = call.run(10 * SECOND);
    let now = call.epoch() + Duration::from_millis(10_001);
    let flow = &mut call.flows[0];
    for back in 0..2_000u64 {
        let fate = Fate {
            seq: 1 + back % 500,
            size: 1_200,
            sent_at: now - Duration::from_millis(100),
            received_at: Some(Duration::from_secs(100_000 - 40 * back)),
        };
        flow.bandwidth.handle_feedback(now, [fate]);
    }
    let call = call.run(20 * SECOND);
    let flow = &call.flows[0];
    let least = flow.mean(15 * SECOND, 20 * SECOND, |sample| sample.target);
    assert!(least >= 2.5e6, "{}", flow.table());
    assert!(flow.share(15 * SECOND, 20 * SECOND, |sample| sample.queue < 100 * MS) > 0.99);
}
