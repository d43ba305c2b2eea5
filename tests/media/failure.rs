//! A bug that shows while one pipeline is at work ends that pipeline and nothing else on its worker.

use super::{
    browser::Role,
    stage::Stage,
    world::{ms, secs},
};
use crate::support::link::Conditions;
use rivero::{
    pipeline::LentWay,
    router::{Crew, Share},
};
use serde_json::json;

/// A pipeline with a call in it: its id, and the numbers of publisher and viewer.
fn call(stage: &mut Stage) -> (String, usize, usize) {
    let pipeline = stage.create("MediaPipeline", None);
    let (publisher, source) = stage.join(&pipeline, Role::publisher(0));
    let (viewer, sink) = stage.join(&pipeline, Role::viewer(0));
    stage.invoke(&source, "connect", json!({"sink": sink}));
    (pipeline, publisher, viewer)
}

/// Lets the server panic when it sends to the browser that `cursed` picks, and checks who is gone.
fn ends_alone(seed: u64, cursed: impl Fn(&mut Stage) -> (String, usize)) {
    fails_alone(seed, cursed, |stage, number| stage.curse(number));
}

/// Lets the server panic while the pipeline that `among` makes is at work, and checks who is gone.
fn fails_alone(
    seed: u64,
    among: impl Fn(&mut Stage) -> (String, usize),
    doom: impl Fn(&mut Stage, usize),
) {
    let mut stage = Stage::new(seed, Conditions::delay(10));
    let (first, ..) = call(&mut stage);
    let (doomed, number) = among(&mut stage);
    let (last, publisher, viewer) = call(&mut stage);
    stage.run_for(secs(4));
    assert_eq!(stage.pipelines(), 3);
    let before = stage.told.len();
    doom(&mut stage, number);
    stage.run_for(secs(10));

    assert_eq!(stage.pipelines(), 2, "{:?}", stage.destroyed);
    assert!(stage.destroyed.iter().all(|id| id.starts_with(&doomed)), "{:?}", stage.destroyed);
    assert_eq!(stage.destroyed.last(), Some(&doomed), "children go first");
    let [told] = &stage.told[before..] else { panic!("more than one: {:?}", stage.told) };
    assert_eq!((told.name, &told.source), ("Error", &doomed));
    assert_eq!(told.data["type"], "UNEXPECTED_ELEMENT_ERROR");

    // The others do not notice: nothing is missing that was sent before, meanwhile or after.
    stage.publisher(publisher).sending = false;
    stage.run_for(ms(500));
    let sent = stage.publisher(publisher).video.frames;
    assert_eq!(stage.viewer(viewer).video.complete.len() as u32, sent);
    for pipeline in [first, last] {
        stage.release(&pipeline);
    }
    assert_eq!(stage.pipelines(), 0);
}

#[test]
fn a_failure_while_media_is_forwarded_ends_one_pipeline() {
    ends_alone(1, |stage| {
        let (pipeline, _, viewer) = call(stage);
        (pipeline, viewer)
    });
}

#[test]
fn a_failure_while_a_report_is_due_ends_one_pipeline() {
    ends_alone(2, |stage| {
        let (pipeline, publisher, _) = call(stage);
        (pipeline, publisher)
    });
}

#[test]
fn a_failure_in_a_session_without_media_ends_one_pipeline() {
    ends_alone(3, |stage| {
        let pipeline = stage.create("MediaPipeline", None);
        let (lonely, _) = stage.join(&pipeline, Role::viewer(0));
        (pipeline, lonely)
    });
}

/// Helps with one batch, and fails while shares of it are out.
#[derive(Default)]
struct Clumsy {
    has_helped: bool,
    offered: Vec<Share<LentWay>>,
}

impl Crew<LentWay> for Clumsy {
    fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.has_helped, true)
    }

    fn empty(&mut self) -> Share<LentWay> {
        Share::default()
    }

    fn offer(&mut self, share: Share<LentWay>) {
        self.offered.push(share);
    }

    fn served(&mut self) -> Option<Share<LentWay>> {
        panic!("{} shares are not back", self.offered.len());
    }

    fn keep(&mut self, _: Share<LentWay>) {}
}

#[test]
fn a_failure_of_those_who_help_ends_one_pipeline() {
    let crowd = |stage: &mut Stage| {
        let pipeline = stage.create("MediaPipeline", None);
        let (publisher, source) = stage.join(&pipeline, Role::publisher(0));
        for _ in 0..20 {
            let (_, sink) = stage.join(&pipeline, Role::viewer(0));
            stage.invoke(&source, "connect", json!({"sink": sink}));
        }
        (pipeline, publisher)
    };
    fails_alone(4, crowd, |stage, publisher| {
        stage.set_crew(Box::new(Clumsy::default()));
        // A picture of many packets is worth help.
        stage.publisher(publisher).ask_for_keyframe();
    });
}
