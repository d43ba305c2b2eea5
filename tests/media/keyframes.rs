//! Viewers start at keyframes, and publishers are not asked for more of them than need be.

use super::world::{World, ms, secs};
use crate::support::link::Conditions;

#[test]
fn a_late_viewer_starts_at_a_keyframe_within_a_second() {
    for seed in 0..20 {
        let mut world = World::new(seed * 100, Conditions::delay(30).jitter(10).loss_per_mille(30));
        let publisher = world.add_publisher();
        world.add_viewer(Some(publisher));
        world.run_for(secs(3) + ms(seed * 13));
        let late = world.add_viewer(Some(publisher));
        let joined = world.time;
        world.run_for(secs(2));
        let (at, piece) = world.viewers[late].first_video().unwrap();
        assert!(piece.keyframe && at < joined + 1_000, "{piece:?} {} ms late", at - joined);
        // A second request is needed when the network lost the first packet of all.
        let shown = world.viewers[late].video.first_keyframe_at.unwrap();
        assert!(shown < joined + 1_500, "shown {} ms late", shown - joined);
    }
}

#[test]
fn audio_starts_without_waiting() {
    let mut world = World::new(3, Conditions::delay(10));
    let publisher = world.add_publisher();
    world.publishers[publisher].answers_keyframes = false;
    world.run_for(secs(1));
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(ms(100));
    assert!(world.viewers[viewer].audio.log.len() >= 3);
    assert!(world.viewers[viewer].video.log.is_empty());
}

#[test]
fn requests_of_many_viewers_are_merged_and_repeated_until_answered() {
    let mut world = World::new(9, Conditions::delay(5));
    let publisher = world.add_publisher();
    world.run_for(ms(200));
    world.publishers[publisher].answers_keyframes = false;
    for viewer in 0..50 {
        world.add_viewer(Some(publisher));
        world.viewers[viewer].pli_every = Some(40);
    }
    world.run_for(ms(2_200));
    let asked = world.publishers[publisher].asked.clone();
    assert!((4..=5).contains(&asked.len()), "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 499), "{asked:?}");
    world.publishers[publisher].answers_keyframes = true;
    world.viewers.iter_mut().for_each(|viewer| viewer.pli_every = None);
    world.run_for(ms(800));
    let answered = world.publishers[publisher].asked.len();
    world.run_for(secs(5));
    assert_eq!(world.publishers[publisher].asked.len(), answered, "then it is quiet");
    for viewer in &world.viewers {
        assert!(viewer.first_video().unwrap().1.keyframe);
        assert!(world.router.sink_stats(viewer.video.sink).plis > 40);
    }
}

#[test]
fn a_request_that_is_lost_is_repeated() {
    let mut world = World::new(21, Conditions::delay(5));
    let publisher = world.add_publisher();
    // The last keyframe is too old to begin with.
    world.run_for(ms(1_000));
    let viewer = world.add_viewer(None);
    world.set_conditions(Conditions::delay(5).loss_per_mille(1_000));
    world.connect(viewer, publisher);
    world.run_for(ms(300));
    world.set_conditions(Conditions::delay(5));
    world.run_for(ms(400));
    assert!(world.viewers[viewer].first_video().is_some_and(|(_, piece)| piece.keyframe));
}

#[test]
fn a_sink_that_was_switched_off_starts_at_a_keyframe() {
    let mut world = World::new(22, Conditions::delay(5));
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(None);
    let sink = world.viewers[viewer].video.sink;
    world.router.set_active(world.now(), sink, false);
    world.connect(viewer, publisher);
    world.run_for(secs(1));
    assert!(world.viewers[viewer].video.log.is_empty());
    assert!(world.publishers[publisher].asked.is_empty(), "nobody waits for a keyframe");
    world.router.set_active(world.now(), sink, true);
    world.run_for(ms(200));
    assert!(world.viewers[viewer].first_video().unwrap().1.keyframe);
}
