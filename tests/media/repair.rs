//! Frames arrive whole though the network loses packets on both sides of the router.

use super::world::{World, secs};
use crate::support::link::Conditions;

/// Runs a call of one publisher and three viewers; every frame but those of the last moment.
fn frames_survive(seed: u64, conditions: Conditions) {
    let mut world = World::new(seed, conditions);
    let publisher = world.add_publisher();
    for _ in 0..3 {
        world.add_viewer(Some(publisher));
    }
    world.run_for(secs(20));
    let sent = world.publishers[publisher].video.frames;
    for viewer in &world.viewers {
        let first = viewer.video.log.iter().map(|(.., piece)| piece.frame).min().unwrap();
        assert!(first < 40, "the first keyframe came soon: {first}");
        let missing: Vec<_> = (first..sent - 40)
            .filter(|&frame| !viewer.video.complete.contains(&(0, frame)))
            .collect();
        assert!(missing.is_empty(), "frames {missing:?} of {sent} are not whole");
    }
    let stats = world.router.source_stats(world.publishers[publisher].video.source);
    assert_eq!(stats.given_up, 0);
}

#[test]
fn video_survives_one_percent_of_loss() {
    frames_survive(1, Conditions::delay(20).loss_per_mille(10));
}

#[test]
fn video_survives_five_percent_of_loss_with_jitter() {
    frames_survive(2, Conditions::delay(40).jitter(15).loss_per_mille(50));
}

#[test]
fn video_survives_ten_percent_of_loss_reordering_and_duplication() {
    let conditions = Conditions::delay(30).jitter(5).loss_per_mille(100);
    frames_survive(3, conditions.reorder(50, 25).duplicate_per_mille(30));
}

#[test]
fn without_loss_nothing_is_asked_for_again() {
    let mut world = World::new(4, Conditions::delay(30).jitter(10));
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(5));
    assert_eq!(world.publishers[publisher].nacked, 0);
    let stats = world.router.sink_stats(world.viewers[viewer].video.sink);
    assert_eq!((stats.nacks, stats.retransmitted_packets, stats.lost), (0, 0, 0));
    assert!(world.viewers[viewer].video.gaps().is_empty());
}

#[test]
fn losses_towards_a_viewer_are_not_asked_of_the_publisher() {
    let mut world = World::new(5, Conditions::delay(10));
    let publisher = world.add_publisher();
    world.set_new_conditions(Conditions::delay(10).loss_per_mille(50));
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(5));
    let sink = world.router.sink_stats(world.viewers[viewer].video.sink);
    assert!(sink.retransmitted_packets > 10, "{sink:?}");
    let source = world.router.source_stats(world.publishers[publisher].video.source);
    assert_eq!((source.lost, source.nacks), (0, 0));
}

#[test]
fn padding_leaves_no_gaps() {
    let conditions = Conditions::delay(20).jitter(3).loss_per_mille(30).reorder(100, 15);
    let mut world = World::new(6, conditions);
    let publisher = world.add_publisher();
    world.publishers[publisher].padding = 3;
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(10));
    let video = &world.viewers[viewer].video;
    let sent = world.publishers[publisher].video.frames;
    assert!((10..sent - 40).all(|frame| video.complete.contains(&(0, frame))));
    // What was padding and came out of order goes out empty; nothing else is missing at the end.
    let open = video.gaps().len() as u64 - video.empty;
    assert!(open < 30, "{open} of {} gaps are open", video.gaps().len());
}

#[test]
fn padding_in_order_is_not_seen_at_all() {
    let mut world = World::new(7, Conditions::delay(20));
    let publisher = world.add_publisher();
    world.publishers[publisher].padding = 5;
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(5));
    let video = &world.viewers[viewer].video;
    assert_eq!((video.gaps().len(), video.empty), (0, 0));
}
