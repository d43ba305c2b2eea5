//! The way from camera to viewer through the whole server, over links that carry less than the camera
//! could send: who finds out, how soon, and what the viewer sees of it.

use super::{browser::Role, stage::Stage, world::ms};
use crate::support::link::Conditions;
use serde_json::json;

/// What was seen each 50 ms.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: u64,
    /// Bits per second that the server sent to the viewer, and that its link let pass.
    sent: f64,
    /// The wait at the viewer's bottleneck, in ms.
    queue: u64,
    /// What the camera sends.
    camera: f64,
    told: f64,
}

struct Call {
    stage: Stage,
    publisher: usize,
    source: String,
    viewer: usize,
    sink: String,
    samples: Vec<Sample>,
}

const STEP: u64 = 50;

fn link() -> Conditions {
    Conditions::delay(25).jitter(2)
}

impl Call {
    fn new(seed: u64, most: f64, down: Conditions) -> Self {
        let mut stage = Stage::new(seed, link());
        let pipeline = stage.create("MediaPipeline", None);
        let camera = Role::camera(stage.now(), 0, most);
        let (publisher, source) = stage.join(&pipeline, camera);
        let (viewer, sink) = stage.join(&pipeline, Role::modern_viewer(0));
        stage.browsers[viewer].down.set(down);
        stage.invoke(&source, "connect", json!({"sink": sink}));
        Self { stage, publisher, source, viewer, sink, samples: Vec::new() }
    }

    fn set(&mut self, down: Conditions) {
        self.stage.browsers[self.viewer].down.set(down);
    }

    fn run_to(&mut self, until: u64) {
        while self.stage.time < until {
            let before = self.stage.carried.get(&self.viewer).map_or(0, |carried| carried.1);
            self.stage.run_for(ms(STEP));
            let bytes =
                self.stage.carried.get(&self.viewer).map_or(0, |carried| carried.1) - before;
            let camera = self.stage.publisher(self.publisher).camera.as_ref().expect("a camera");
            let (camera, told) = (camera.rate(), camera.remb.unwrap_or(0.0));
            let now = self.stage.now();
            self.samples.push(Sample {
                at: self.stage.time,
                sent: bytes as f64 * 8_000.0 / STEP as f64,
                queue: self.stage.browsers[self.viewer].down.waits(now).as_millis() as u64,
                camera,
                told,
            });
        }
    }

    /// The mean of what is sent in windows of half a second after `from`; when the first holds.
    fn first(&self, from: u64, holds: impl Fn(f64) -> bool) -> u64 {
        let after: Vec<_> = self.samples.iter().filter(|sample| sample.at > from).collect();
        let mean = |window: &[&Sample]| {
            window.iter().map(|sample| sample.sent).sum::<f64>() / window.len() as f64
        };
        let found = after.windows(10).find(|window| holds(mean(window)));
        found.map_or(u64::MAX, |window| window[9].at - from)
    }

    fn mean(&self, from: u64, to: u64, of: impl Fn(&Sample) -> f64) -> f64 {
        let between = self.samples.iter().filter(|sample| (from..to).contains(&sample.at));
        let values: Vec<_> = between.map(of).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    /// From when on after `from` the queue is short and stays so until `to`.
    fn short_queue(&self, from: u64, to: u64) -> u64 {
        let between = self.samples.iter().filter(|sample| (from..to).contains(&sample.at));
        let long = between.filter(|sample| sample.queue > 100).map(|sample| sample.at + STEP);
        long.max().map_or(0, |last| last - from)
    }

    /// Stretches without a new whole picture of more than 200 ms between two moments, in all.
    fn frozen(&self, from: u64, to: u64) -> u64 {
        let mut shown: Vec<u64> = Vec::new();
        let video = &self.stage.viewer(self.viewer).video;
        let mut pieces = std::collections::BTreeMap::<u32, usize>::new();
        for (at, _, _, piece) in &video.log {
            let count = pieces.entry(piece.frame).or_default();
            *count += 1;
            if *count == usize::from(piece.count) {
                shown.push(*at);
            }
        }
        shown.retain(|at| (from..to).contains(at));
        shown.push(to);
        let gaps = shown.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.filter(|gap| *gap > 200).sum()
    }

    fn table(&self) -> String {
        let line = |chunk: &[Sample]| {
            let mean = |of: fn(&Sample) -> f64| {
                chunk.iter().map(of).sum::<f64>() / chunk.len() as f64 / 1_000.0
            };
            format!(
                "{:6} ms sent {:6.0} camera {:6.0} told {:8.0} queue {:4.0}\n",
                chunk[0].at,
                mean(|one| one.sent),
                mean(|one| one.camera),
                mean(|one| one.told),
                mean(|one| one.queue as f64 * 1_000.0),
            )
        };
        self.samples.chunks(10).map(line).collect()
    }
}

#[test]
fn a_link_that_falls_from_four_to_one_and_comes_back_is_followed() {
    for seed in 1..=3 {
        let rate = |kbps| link().rate(kbps, 400);
        let mut call = Call::new(seed, 5e6, rate(4_000));
        call.run_to(20_000);
        call.set(rate(1_000));
        call.run_to(40_000);
        call.set(rate(4_000));
        call.run_to(60_000);
        let below = call.first(20_000, |sent| sent < 1e6);
        let short = call.short_queue(20_000, 40_000);
        let back = call.first(40_000, |sent| sent >= 3.2e6);
        let frozen = call.frozen(5_000, 60_000);
        let drops = call.stage.all_dropped();
        let drops: Vec<_> = drops.into_iter().filter(|(_, count)| *count > 0).collect();
        eprintln!("DROPS {drops:?} asked {:?}", call.stage.publisher(call.publisher).asked);
        eprintln!("FIG {seed}: below {below} short {short} back {back} frozen {frozen}");
        let text = call.table();
        if std::env::var("TABLE").is_ok() {
            eprintln!("{text}");
        }
        assert!(below <= 2_000, "{seed}: below the new rate after {below} ms\n{text}");
        assert!(back <= 12_000, "{seed}: most of the new rate after {back} ms\n{text}");
    }
}

#[test]
fn a_start_on_an_unlimited_link_reaches_the_full_rate_within_four_seconds() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, 2.5e6, link());
        call.run_to(8_000);
        let full = call.first(0, |sent| sent >= 2.45e6);
        eprintln!("FIG {seed}: full {full}");
        let text = call.table();
        assert!(full <= 4_000, "{seed}: full rate after {full} ms\n{text}");
    }
}
