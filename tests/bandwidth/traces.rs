//! The traces of the network bench (`benches/network/traces`), which it plays to browsers in minutes,
//! played to the estimator in milliseconds.

use super::figures::within;
use super::flow::{Flow, Receiver, Sample, Simulation, Source};
use super::link::{MS, Micros, SECOND};
use rivero::bandwidth::Bounds;
use rivero_network::{Direction, Trace};

const M: f64 = 1e6;
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn trace(name: &str) -> Trace {
    let path = format!("{}/benches/network/traces/{name}.trace", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Trace::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A call whose feedback takes the trace's other direction.
fn played(name: &str, seed: u64, source: Source, seconds: i64) -> Flow {
    let trace = trace(name);
    let back = trace.course(Direction::Up)[0].1;
    let receiver = Receiver {
        // The simulation itself takes 25 ms for a report.
        late_by: (back.delay.as_micros() as Micros - 25 * MS).max(0),
        feedback_lost_per_mille: (back.loss * 1_000.0) as u64,
        ..Receiver::default()
    };
    let call = Simulation::new(seed, &trace).flow_to(source, receiver, Bounds::default());
    call.run(seconds * SECOND).flows.remove(0)
}

fn follows(most: f64) -> Source {
    Source::Follows { most }
}

/// The layers of the bench's simulcast source, each with what is below it.
fn layers() -> Source {
    Source::Layers(vec![0.2 * M, 0.55 * M, 2.05 * M])
}

#[test]
fn losses_of_five_and_ten_per_cent_each_way_leave_a_source_its_rate() {
    for seed in SEEDS {
        for (name, least) in [("loss5", 0.98), ("loss10", 0.98), ("bursts", 0.95)] {
            let flow = played(name, seed, follows(2.5 * M), 60);
            let enough = |sample: &Sample| sample.target >= 2.5 * M;
            let share = flow.share(5 * SECOND, 60 * SECOND, enough);
            assert!(share >= least, "{name}, seed {seed}: {share}\n{}", flow.table());
        }
    }
}

#[test]
fn the_step_down_and_up_is_followed_in_time() {
    for seed in SEEDS {
        let flow = played("step-4-1-4", seed, follows(5.0 * M), 60);
        within(&flow, 20 * SECOND, 2 * SECOND, "below", |sample| sample.target < M);
        // The queue is still short right after the drop.
        let grown = 20 * SECOND + 300 * MS;
        let short = |sample: &Sample| sample.queue < 100 * MS;
        within(&flow, grown, 2_700 * MS, "short queue", short);
        within(&flow, 40 * SECOND, 12 * SECOND, "above", |sample| sample.target >= 3.2 * M);
    }
}

#[test]
fn a_large_encoding_that_almost_fills_a_link_does_not_make_the_estimate_fall_to_the_small_one() {
    for seed in SEEDS {
        let source = Source::Encodings(vec![0.2 * M, 0.55 * M, 3.4 * M]);
        let flow = played("step-4-1-4", seed, source, 60);
        for (from, until) in [(6, 20), (46, 60)] {
            let least = flow.least(from * SECOND, until * SECOND, |sample| sample.target);
            assert!(least > 2.0 * M, "seed {seed}: {least}\n{}", flow.table());
        }
        within(&flow, 40 * SECOND, 12 * SECOND, "above", |sample| sample.target >= 3.2 * M);
    }
}

#[test]
fn the_trace_that_browsers_get_in_every_test_run_is_followed() {
    for seed in SEEDS {
        let flow = played("short", seed, follows(1.2 * M), 34);
        let enough = |sample: &Sample| sample.target >= 1.2 * M;
        let share = flow.share(5 * SECOND, 12 * SECOND, enough);
        assert!(share > 0.98, "seed {seed}: {share}\n{}", flow.table());
        within(&flow, 12 * SECOND, 3 * SECOND, "below", |sample| sample.target < 0.6 * M);
        within(&flow, 22 * SECOND, 10 * SECOND, "above", enough);
    }
}

#[test]
fn a_start_without_a_limit_reaches_the_source_within_four_seconds() {
    for seed in SEEDS {
        let flow = played("start-unlimited", seed, follows(2.5 * M), 10);
        within(&flow, 0, 4 * SECOND, "full rate", |sample| sample.target >= 2.5 * M);
    }
}

#[test]
fn a_link_that_opens_from_300_kbit_to_2_mbit_is_used_within_twelve_seconds() {
    for seed in SEEDS {
        let flow = played("climb-300k-2m", seed, follows(2.5 * M), 50);
        within(&flow, 20 * SECOND, 12 * SECOND, "most of it", |sample| sample.target >= 1.6 * M);
    }
}

#[test]
fn viewers_on_three_links_get_the_layer_their_link_carries() {
    for seed in SEEDS {
        let links = [("viewer-3M", 2.05 * M), ("viewer-1M", 0.55 * M), ("viewer-300k", 0.2 * M)];
        for (name, layer) in links {
            let flow = played(name, seed, layers(), 60);
            let rate = flow.mean(10 * SECOND, 60 * SECOND, |sample| sample.arrived);
            assert!(rate > 0.85 * layer, "{name}, seed {seed}: {rate}\n{}", flow.table());
            let long = |sample: &Sample| sample.queue > 150 * MS;
            let share = flow.share(10 * SECOND, 60 * SECOND, long);
            assert!(share < 0.05, "{name}, seed {seed}: {share} waits\n{}", flow.table());
        }
    }
}

#[test]
fn a_wireless_network_and_one_that_reorders_are_used() {
    for seed in SEEDS {
        let flow = played("wifi", seed, follows(2.5 * M), 60);
        let rate = flow.mean(5 * SECOND, 60 * SECOND, |sample| sample.arrived);
        assert!(rate > 0.9 * M, "seed {seed}: {rate}\n{}", flow.table());
        let long = flow.share(5 * SECOND, 60 * SECOND, |sample| sample.queue > 250 * MS);
        assert!(long < 0.1, "seed {seed}: {long} waits\n{}", flow.table());
        let flow = played("reorder", seed, follows(2.5 * M), 30);
        let share = flow.share(6 * SECOND, 30 * SECOND, |sample| sample.target >= 2.5 * M);
        assert!(share > 0.98, "seed {seed}: {share}\n{}", flow.table());
    }
}
