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

    /// How long after `from`, and the moment that it takes to fill, the queue is short for half a second.
    fn short_queue(&self, from: u64) -> u64 {
        let after: Vec<_> = self.samples.iter().filter(|sample| sample.at > from + 300).collect();
        let short = after.windows(10).find(|window| window.iter().all(|one| one.queue <= 100));
        short.map_or(u64::MAX, |window| window[0].at - from)
    }

    /// The rate of the camera.
    fn camera(&mut self) -> f64 {
        self.stage.publisher(self.publisher).camera.as_ref().expect("a camera").rate()
    }

    /// Another viewer of the same source.
    fn join(&mut self, down: Conditions) -> (usize, String) {
        let pipeline = self.source.split('/').next().expect("a pipeline").to_owned();
        let (viewer, sink) = self.stage.join(&pipeline, Role::modern_viewer(self.stage.time));
        self.stage.browsers[viewer].down.set(down);
        self.stage.invoke(&self.source.clone(), "connect", json!({"sink": sink}));
        (viewer, sink)
    }

    /// What statistics tell of the way to the viewer.
    fn available(&mut self) -> (f64, String) {
        let stats = self.stage.invoke(&self.sink.clone(), "getStats", json!({}));
        let entries = stats.as_object().expect("entries").values();
        let rate = |entry: &serde_json::Value| entry["availableOutgoingBitrate"].as_f64();
        let pair = entries.max_by_key(|entry| rate(entry).map(|rate| rate as u64)).expect("some");
        let limit = pair["availableOutgoingLimit"].as_str().expect("a word");
        (rate(pair).expect("a rate"), limit.to_owned())
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
        let short = call.short_queue(20_000);
        let back = call.first(40_000, |sent| sent >= 3.2e6);
        let text = call.table();
        assert!(below <= 2_000, "{seed}: below the new rate after {below} ms\n{text}");
        assert!(short <= 3_000, "{seed}: a short queue after {short} ms\n{text}");
        assert!(back <= 12_000, "{seed}: most of the new rate after {back} ms\n{text}");
        let used = call.mean(25_000, 40_000, |one| one.sent);
        assert!(used > 0.65e6, "{seed}: {used} of the narrow link\n{text}");
        let frozen = call.frozen(20_000, 60_000);
        assert!(frozen < 2_000, "{seed}: frozen for {frozen} ms\n{text}");
    }
}

#[test]
fn a_start_on_an_unlimited_link_reaches_the_full_rate_within_four_seconds() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, 2.5e6, link());
        call.run_to(8_000);
        let full = call.first(0, |sent| sent >= 2.45e6);
        assert!(full <= 4_000, "{seed}: full rate after {full} ms\n{}", call.table());
        assert_eq!(call.frozen(1_000, 8_000), 0, "{seed}");
    }
}

#[test]
fn the_slowest_link_counts_and_a_viewer_that_comes_does_not() {
    let mut call = Call::new(4, 2.5e6, link());
    call.run_to(6_000);
    let fast = call.camera();
    assert!(fast > 2.4e6, "{fast}\n{}", call.table());
    let (other, _) = call.join(link());
    call.run_to(9_000);
    let least = call.samples.iter().filter(|one| one.at > 6_000).map(|one| one.camera);
    let least = least.fold(f64::MAX, f64::min);
    assert!(least > 2.4e6, "{least}\n{}", call.table());
    call.stage.browsers[other].down.set(link().rate(800, 400));
    call.run_to(20_000);
    let rate = call.mean(14_000, 20_000, |one| one.camera);
    assert!((0.4e6..0.85e6).contains(&rate), "{rate}\n{}", call.table());
    // Nothing comes back from him: he holds nobody down, long before anybody knows that he is gone.
    call.stage.browsers[other].up.set(link().loss_per_mille(1_000));
    call.stage.browsers[other].down.set(link().loss_per_mille(1_000));
    call.run_to(28_000);
    let rate = call.mean(26_000, 28_000, |one| one.camera);
    assert!(rate > 2e6, "{rate}\n{}", call.table());
}

#[test]
fn a_source_that_nobody_watches_for_long_is_told_to_send_half_until_somebody_does() {
    let mut call = Call::new(5, 2.5e6, link());
    call.run_to(5_000);
    let (source, sink) = (call.source.clone(), call.sink.clone());
    call.stage.invoke(&source, "disconnect", json!({"sink": sink}));
    call.run_to(34_000);
    assert!(call.camera() > 2.4e6, "a moment is no reason\n{}", call.table());
    call.run_to(38_000);
    let half = call.camera();
    assert!((1.0e6..1.4e6).contains(&half), "{half}\n{}", call.table());
    call.stage.invoke(&source, "connect", json!({"sink": sink}));
    call.run_to(44_000);
    assert!(call.first(38_000, |sent| sent > 2.4e6) < 4_000, "{}", call.table());
}

#[test]
fn a_viewer_behind_a_very_narrow_link_sees_a_picture_soon() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, 2.5e6, link());
        call.run_to(5_000);
        let (late, _) = call.join(link().rate(300, 300));
        call.run_to(25_000);
        let video = &call.stage.viewer(late).video;
        let first = video.first_keyframe_at.map_or(u64::MAX, |at| at - 5_000);
        assert!(first < 5_000, "{seed}: a picture after {first} ms\n{}", call.table());
        let shown = video.log.iter().filter(|(at, ..)| *at > 15_000).map(|(.., piece)| piece.frame);
        let shown: std::collections::BTreeSet<_> =
            shown.filter(|frame| video.complete.contains(&(0, *frame))).collect();
        assert!(
            shown.len() > 250,
            "{seed}: {} pictures in ten seconds\n{}",
            shown.len(),
            call.table()
        );
    }
}

#[test]
fn a_bound_on_what_is_sent_takes_effect_at_once_and_its_default_none() {
    let mut call = Call::new(6, 2.5e6, link());
    call.run_to(5_000);
    let sink = call.sink.clone();
    let read = call.stage.invoke(&sink, "getMaxVideoSendBandwidth", json!({}));
    assert_eq!(read, json!(500));
    assert!(call.camera() > 2.4e6, "{}", call.table());
    for kbps in [400, 1_200] {
        let given = json!({"maxVideoSendBandwidth": kbps});
        call.stage.invoke(&sink, "setMaxVideoSendBandwidth", given);
        let read = call.stage.invoke(&sink, "getMaxVideoSendBandwidth", json!({}));
        assert_eq!(read, json!(kbps));
        let from = call.stage.time;
        call.run_to(from + 4_000);
        let rate = call.mean(from + 1_500, from + 4_000, |one| one.sent);
        let bound = 1_000.0 * f64::from(kbps);
        assert!((0.7 * bound..1.25 * bound).contains(&rate), "{rate}\n{}", call.table());
        let (available, limit) = call.available();
        assert!((bound..bound + 100_000.0).contains(&available), "{available}");
        assert_eq!(limit, "maximum");
    }
    call.stage.invoke(&sink, "setMaxVideoSendBandwidth", json!({"maxVideoSendBandwidth": 0}));
    call.run_to(call.stage.time + 5_000);
    assert!(call.camera() > 2.4e6, "{}", call.table());
    assert_ne!(call.available().1, "maximum");
}

#[test]
fn a_source_that_does_not_obey_leaves_a_narrow_link_its_sound() {
    let mut call = Call::new(7, 2.5e6, link());
    call.run_to(4_000);
    call.stage.publisher(call.publisher).camera.as_mut().expect("a camera").obeys = false;
    call.set(link().rate(300, 400));
    call.run_to(34_000);
    let video = |from, to| call.mean(from, to, |one| one.sent);
    let heard = |call: &Call, from: u64, to: u64| {
        let log = &call.stage.viewer(call.viewer).audio.log;
        log.iter().filter(|(at, ..)| (from..to).contains(at)).count()
    };
    // 50 packets are sent each second.
    let share = heard(&call, 14_000, 34_000) as f64 / 1_000.0;
    assert!(share > 0.8, "{share} of sound arrives\n{}", call.table());
    assert!(video(14_000, 34_000) < 1e6, "{}", call.table());
    // Nor is it told that all is well only because nothing is sent for a while.
    let told = call.samples.iter().filter(|one| one.at > 7_000).map(|one| one.told);
    let told = told.fold(0.0, f64::max);
    assert!(told < 1e6, "{told}\n{}", call.table());
    let shown = call.stage.viewer(call.viewer).video.complete.len();
    call.set(link());
    call.run_to(60_000);
    let more = call.stage.viewer(call.viewer).video.complete.len() - shown;
    assert!(more > 10 * 30, "{more} pictures once it is wide again\n{}", call.table());
}

#[test]
fn a_keyframe_passes_a_narrow_link_whole() {
    for seed in 1..=3 {
        let mut call = Call::new(seed, 2.5e6, link().rate(1_000, 400));
        call.run_to(15_000);
        for _ in 0..5 {
            call.stage.publisher(call.publisher).ask_for_keyframe();
            call.run_to(call.stage.time + 2_000);
        }
        let video = &call.stage.viewer(call.viewer).video;
        let mut keyframes: Vec<_> =
            video.log.iter().filter(|(at, .., piece)| *at > 15_000 && piece.keyframe).collect();
        keyframes.dedup_by_key(|(.., piece)| piece.frame);
        assert!(keyframes.len() >= 5, "{}", keyframes.len());
        for (.., piece) in keyframes {
            let whole = video.complete.contains(&(piece.publisher, piece.frame));
            assert!(whole, "{seed}: {piece:?}\n{}", call.table());
        }
        let drops = call.stage.all_dropped();
        assert_eq!(drops.get("pacer_full").copied().unwrap_or(0), 0);
    }
}
