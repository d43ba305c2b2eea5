//! The figures that calls over bad networks are to reach, as ratios and times of the simulated clock.

use super::flow::{Flow, Receiver, Sample, Simulation, Source};
use super::link::{Conditions, MS, Micros, SECOND};
use rivero::bandwidth::{Bounds, Limit, Means};
use rivero::rtp::Bitrate;

const M: f64 = 1e6;
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

fn follows(most: f64) -> Source {
    Source::Follows { most }
}

fn layers() -> Source {
    Source::Layers(vec![0.15 * M, 0.5 * M, 1.2 * M, 3.3 * M])
}

/// A link that falls from 4 to 1 Mbit/s after 20 s, and is back after 40.
fn steps() -> Conditions {
    Conditions::rate(4.0 * M).then(20 * SECOND, M).then(40 * SECOND, 4.0 * M)
}

fn one(seed: u64, conditions: Conditions, source: Source, seconds: i64) -> Flow {
    told(seed, conditions, source, Receiver::default(), seconds)
}

fn told(seed: u64, link: Conditions, source: Source, receiver: Receiver, seconds: i64) -> Flow {
    let call = Simulation::new(seed, link).flow_to(source, receiver, Bounds::default());
    call.run(seconds * SECOND).flows.remove(0)
}

/// When after `from` something holds to stay so for half a second, in ms.
pub fn within(
    flow: &Flow,
    from: Micros,
    most: Micros,
    what: &str,
    holds: impl Fn(&Sample) -> bool,
) {
    let after = flow.first(from, holds);
    let name = format!("{what}: {after:?} µs instead of {most}\n{}", flow.table());
    assert!(after.is_some_and(|after| after <= most), "{name}");
}

/// The figures of a link that falls and comes back.
fn follows_the_steps(flow: &Flow, empties_in: Micros, rises_in: Micros) {
    within(flow, 20 * SECOND, 2 * SECOND, "below the new rate", |sample| sample.target < M);
    // The queue is still short right after the drop.
    let grown = 20 * SECOND + 300 * MS;
    within(flow, grown, empties_in, "short queue", |sample| sample.queue < 100 * MS);
    within(flow, 40 * SECOND, rises_in, "most of the new rate", |sample| sample.target >= 3.2 * M);
}

#[test]
fn a_link_that_falls_and_comes_back_is_followed_down_and_up() {
    for seed in SEEDS {
        for source in [follows(5.0 * M), layers()] {
            for queue in [200, 400] {
                let conditions = Conditions { queue: queue * MS, ..steps() };
                let flow = one(seed, conditions, source.clone(), 60);
                follows_the_steps(&flow, 2_700 * MS, 12 * SECOND);
            }
        }
        let flow = one(seed, steps(), follows(5.0 * M), 60);
        let used = flow.mean(25 * SECOND, 40 * SECOND, |sample| sample.arrived);
        assert!(used > 0.75 * M, "{used} of the narrow link\n{}", flow.table());
        let used = flow.mean(5 * SECOND, 20 * SECOND, |sample| sample.arrived);
        assert!(used > 3.0 * M, "{used} of the wide link\n{}", flow.table());
    }
}

#[test]
fn feedback_that_is_late_or_half_lost_is_enough_to_follow_a_link() {
    let late = Receiver { late_by: 300 * MS, ..Receiver::default() };
    let half = Receiver { feedback_lost_per_mille: 500, ..Receiver::default() };
    for seed in SEEDS {
        for receiver in [&late, &half] {
            let flow = told(seed, steps(), follows(5.0 * M), receiver.clone(), 60);
            follows_the_steps(&flow, 3 * SECOND, 12 * SECOND);
        }
    }
}

#[test]
fn a_link_that_drops_instead_of_queueing_is_followed_by_its_losses() {
    for seed in SEEDS {
        let flow = one(seed, Conditions { queue: 30 * MS, ..steps() }, follows(5.0 * M), 60);
        within(&flow, 20 * SECOND, 2 * SECOND, "near the rate", |sample| sample.target < 1.2 * M);
        within(&flow, 40 * SECOND, 12 * SECOND, "most", |sample| sample.target >= 3.2 * M);
        let lost = |sample: &Sample| sample.sent - sample.arrived;
        let share = flow.mean(25 * SECOND, 40 * SECOND, lost)
            / flow.mean(25 * SECOND, 40 * SECOND, |sample| sample.sent);
        assert!(share < 0.15, "{share} is lost\n{}", flow.table());
    }
}

#[test]
fn a_start_on_an_unlimited_link_reaches_the_source_within_four_seconds() {
    for seed in SEEDS {
        for delay in [5, 50, 150] {
            let conditions = Conditions { delay: delay * MS, ..Conditions::rate(1_000.0 * M) };
            for source in [follows(2.5 * M), Source::Layers(vec![0.15 * M, 0.6 * M, 2.5 * M])] {
                let flow = one(seed, conditions.clone(), source, 8);
                within(&flow, 0, 4 * SECOND, "the source's rate", |sample| {
                    sample.target >= 2.5 * M
                });
            }
        }
    }
}

#[test]
fn five_and_ten_per_cent_of_loss_on_a_wide_link_take_nothing_from_the_source() {
    for seed in SEEDS {
        for loss in [50, 100] {
            let wide = || Conditions { loss_per_mille: loss, ..Conditions::rate(100.0 * M) };
            let late = Conditions { loss_from: 10 * SECOND, ..wide() };
            let bursts =
                Conditions { loss_per_mille: loss / 3, loss_goes_on_per_mille: 667, ..wide() };
            for conditions in [wide(), late, bursts] {
                for source in [follows(2.5 * M), Source::Fixed(2.5 * M)] {
                    let flow = one(seed, conditions.clone(), source, 30);
                    let less = |sample: &Sample| sample.target < 2.5 * M;
                    let share = flow.share(5 * SECOND, 30 * SECOND, less);
                    assert!(share < 0.02, "{loss}: {share}\n{}", flow.table());
                }
            }
        }
    }
}

#[test]
fn two_calls_share_a_link_within_one_to_two() {
    for (rate, most) in [(1.0 * M, 2.5 * M), (4.0 * M, 5.0 * M), (10.0 * M, 15.0 * M)] {
        for seed in 1..=2 {
            let call = Simulation::new(seed, Conditions::rate(rate));
            let call = call.flow(follows(most)).flow(follows(most)).later(10 * SECOND);
            let call = call.run(70 * SECOND);
            let [one, other] = [0, 1]
                .map(|n| call.flows[n].mean(20 * SECOND, 70 * SECOND, |sample| sample.arrived));
            assert!(one < 2.0 * other && other < 2.0 * one, "{one} and {other} of {rate}");
            assert!(one + other > 0.65 * rate, "{one} and {other} of {rate}");
        }
    }
}

#[test]
fn jitter_and_reordering_are_not_taken_for_a_narrow_link() {
    for seed in SEEDS {
        let jitter = Conditions { jitter: 30 * MS, ..Conditions::rate(100.0 * M) };
        let reorder = Conditions {
            jitter: 10 * MS,
            reorder_per_mille: 100,
            reorder_by: 30 * MS,
            ..Conditions::rate(100.0 * M)
        };
        for conditions in [jitter, reorder] {
            let flow = one(seed, conditions, follows(2.5 * M), 30);
            let share = flow.share(6 * SECOND, 30 * SECOND, |sample| sample.target < 2.5 * M);
            assert!(share < 0.02, "{share}\n{}", flow.table());
        }
    }
}

#[test]
fn a_rate_that_swings_is_neither_feared_nor_ignored() {
    for seed in SEEDS {
        let mut conditions = Conditions::rate(3.0 * M);
        for n in 1..20 {
            conditions =
                conditions.then(n * 3 * SECOND, if n % 2 == 0 { 3.0 * M } else { 1.5 * M });
        }
        let flow = one(seed, conditions, follows(5.0 * M), 60);
        let used = flow.mean(5 * SECOND, 60 * SECOND, |sample| sample.arrived);
        assert!(used > 1.2 * M, "{used}\n{}", flow.table());
        let long = flow.share(5 * SECOND, 60 * SECOND, |sample| sample.queue > 200 * MS);
        assert!(long < 0.2, "{long}\n{}", flow.table());
    }
}

#[test]
fn keyframes_of_a_source_that_fits_are_not_taken_for_a_narrow_link() {
    for seed in SEEDS {
        let flow = one(seed, Conditions::rate(4.0 * M), Source::Fixed(3.0 * M), 60);
        let least = flow.least(5 * SECOND, 60 * SECOND, |sample| sample.target);
        assert!(least >= 3.0 * M, "{least}\n{}", flow.table());
    }
}

#[test]
fn an_estimate_that_nobody_uses_does_not_grow_and_what_is_enough_is_not_probed() {
    for seed in SEEDS {
        let flow = one(seed, Conditions::rate(100.0 * M), Source::Fixed(0.2 * M), 60);
        let first = flow.samples[100].target;
        let last = flow.samples.last().expect("samples");
        assert!(last.target <= first.max(0.4 * M), "{}", flow.table());
        assert_eq!(last.reason, Limit::Application);
        assert_eq!(flow.probe_bytes, 0, "300 kbit/s were enough from the start");
    }
}

#[test]
fn a_viewer_that_wants_more_in_the_middle_of_a_call_gets_it_soon() {
    for seed in SEEDS {
        let call = Simulation::new(seed, Conditions::rate(8.0 * M)).flow(Source::Fixed(0.2 * M));
        let mut call = call.run(20 * SECOND);
        call.flows[0].source = Source::Layers(vec![0.2 * M, 0.8 * M, 2.5 * M]);
        call.flows[0].bandwidth.set_wanted(Bitrate::from_kbps(2_500));
        let call = call.run(30 * SECOND);
        let enough = |sample: &Sample| sample.target >= 2.5 * M;
        within(&call.flows[0], 20 * SECOND, 4 * SECOND, "what is wanted", enough);
    }
}

#[test]
fn an_outage_ends_with_a_picture_soon_after() {
    for seed in SEEDS {
        let gone = Conditions::rate(4.0 * M).then(10 * SECOND, 0.0).then(13 * SECOND, 4.0 * M);
        let flow = one(seed, gone, follows(2.5 * M), 30);
        let back = |sample: &Sample| sample.target >= 2.0 * M;
        within(&flow, 13 * SECOND, 6 * SECOND, "back", back);
    }
}

#[test]
fn probes_cost_little() {
    for seed in SEEDS {
        for source in [follows(5.0 * M), layers()] {
            let flow = one(seed, steps(), source, 60);
            let sent = flow.mean(0, 60 * SECOND, |sample| sample.sent) * 60.0 / 8.0;
            let share = flow.probe_bytes as f64 / sent;
            assert!(share < 0.02, "{share}");
        }
    }
}

#[test]
fn the_pacer_holds_little_while_the_estimate_is_ample_and_loses_nothing() {
    for seed in SEEDS {
        let flow = one(seed, Conditions::rate(100.0 * M), follows(2.5 * M), 30);
        let waits = flow.share(5 * SECOND, 30 * SECOND, |sample| sample.pacing > 20);
        assert!(waits < 0.02, "{waits}");
        assert_eq!(flow.dropped, 0);
    }
}

#[test]
fn receivers_that_only_report_are_served_by_their_losses() {
    for means in [Means::Reports, Means::Remb] {
        let receiver = Receiver { means, ..Receiver::default() };
        for seed in SEEDS {
            let lossy = Conditions { loss_per_mille: 50, ..Conditions::rate(100.0 * M) };
            let flow = told(seed, lossy, follows(2.5 * M), receiver.clone(), 40);
            let rate = flow.mean(30 * SECOND, 40 * SECOND, |sample| sample.target);
            assert!(rate >= 2.4 * M, "{means:?} {rate}\n{}", flow.table());
            let narrow = Conditions { queue: 200 * MS, ..Conditions::rate(M) };
            let flow = told(seed, narrow, follows(2.5 * M), receiver.clone(), 60);
            let lost = |sample: &Sample| sample.sent - sample.arrived;
            let share = flow.mean(20 * SECOND, 60 * SECOND, lost)
                / flow.mean(20 * SECOND, 60 * SECOND, |sample| sample.sent);
            assert!(share < 0.15, "{means:?} {share}\n{}", flow.table());
        }
    }
}
