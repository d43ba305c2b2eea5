//! Many who join at once, beside a call that goes on.

use super::{
    browser::Role,
    stage::Stage,
    world::{ms, secs},
};
use crate::support::link::Conditions;
use serde_json::json;

const STORM: usize = 40;

#[test]
fn those_who_join_in_a_storm_wait_in_line_and_all_get_in() {
    let mut stage = Stage::new(31, Conditions::delay(10));
    // A step of a handshake in each millisecond, as on a worker that has little time.
    stage.patience = 1;
    let pipeline = stage.create("MediaPipeline", None);
    let (publisher, source) = stage.join(&pipeline, Role::publisher(0));
    let (early, sink) = stage.join(&pipeline, Role::viewer(0));
    stage.invoke(&source, "connect", json!({"sink": sink}));
    stage.run_for(secs(3));
    assert_eq!((stage.handshakes(), stage.shaken().done), (0, 2));
    let before = (stage.viewer(early).video.complete.len(), sent(&mut stage, publisher));

    let joined = stage.time;
    let storm: Vec<usize> = (0..STORM)
        .map(|_| {
            let (number, sink) = stage.join(&pipeline, Role::viewer(joined));
            stage.invoke(&source, "connect", json!({"sink": sink}));
            number
        })
        .collect();
    let (mut longest, mut under_way) = (0, 0);
    for _ in 0..4_000 {
        let waited = stage.handshakes();
        stage.run_for(ms(1));
        let levels = stage.levels();
        // Those that came in this step may be more, but of those before no more than one was taken.
        assert!(levels.handshakes + 1 >= waited);
        assert_eq!(levels.handshakes == 0, levels.handshake_bytes == 0);
        longest = longest.max(levels.handshakes);
        under_way = under_way.max(levels.shaking);
    }
    assert!(longest >= STORM / 2, "only {longest} waited");
    assert!(under_way >= STORM / 2, "only {under_way} at a time");
    let levels = stage.levels();
    assert_eq!((levels.handshakes, levels.shaking, levels.sessions), (0, 0, STORM + 2));
    let shaken = stage.shaken();
    assert_eq!((shaken.begun, shaken.done, shaken.failed), (STORM as u64, STORM as u64, 0));
    assert_eq!(stage.dropped("handshakes_full"), 0);
    for number in storm {
        let shown = stage.viewer(number).video.first_keyframe_at;
        assert!(shown.is_some_and(|at| at - joined < 2_000), "{number}: {shown:?} after {joined}");
    }
    // Whoever watched already did not notice, but for what is on its way.
    let sent = sent(&mut stage, publisher) - before.1;
    let shown = stage.viewer(early).video.complete.len() - before.0;
    assert!(shown + 2 >= sent as usize, "{shown} of {sent}");
}

fn sent(stage: &mut Stage, publisher: usize) -> u32 {
    stage.publisher(publisher).video.frames
}

#[test]
fn what_comes_to_a_hub_late_finds_those_who_listen_there_already() {
    let mut stage = Stage::new(32, Conditions::delay(10));
    let pipeline = stage.create("MediaPipeline", None);
    let hub = stage.create("DispatcherOneToMany", Some(&pipeline));
    let [inward, outward] = [(); 2].map(|()| stage.create("HubPort", Some(&hub)));
    let through = stage.create("PassThrough", Some(&pipeline));
    let (viewer, sink) = stage.join(&pipeline, Role::viewer(0));
    stage.invoke(&through, "connect", json!({"sink": sink}));
    stage.invoke(&outward, "connect", json!({"sink": through}));
    stage.invoke(&hub, "setSource", json!({"source": inward}));
    stage.run_for(secs(1));
    let (_, source) = stage.join(&pipeline, Role::publisher(0));
    stage.invoke(&source, "connect", json!({"sink": inward}));
    stage.run_for(secs(2));
    assert!(stage.viewer(viewer).video.first_keyframe_at.is_some(), "the way begins at its end");

    stage.invoke(&hub, "removeSource", json!({}));
    stage.run_for(ms(100));
    let shown = stage.viewer(viewer).video.complete.len();
    stage.run_for(secs(1));
    assert_eq!(stage.viewer(viewer).video.complete.len(), shown, "the hub gives nothing");
    stage.invoke(&hub, "setSource", json!({"source": inward}));
    stage.run_for(secs(2));
    assert!(stage.viewer(viewer).video.complete.len() > shown + 10, "and gives it again");
    stage.release(&inward);
    stage.run_for(ms(100));
    let shown = stage.viewer(viewer).video.complete.len();
    stage.run_for(secs(1));
    assert_eq!(stage.viewer(viewer).video.complete.len(), shown, "the port is gone");
}
