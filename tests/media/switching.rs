//! A viewer sees one continuous stream, whoever it is connected to.

use super::{
    viewer::Viewer,
    world::{World, ms, secs},
};
use crate::support::link::Conditions;

/// Numbers without holes, timestamps at the pace of the wall clock, new frames at keyframes.
fn is_continuous(viewer: &Viewer) {
    let log = &viewer.video.log;
    assert!(viewer.video.gaps().is_empty());
    for pair in log.windows(2) {
        let ((at, number, timestamp, piece), (next_at, next_number, next_timestamp, next)) =
            (pair[0], pair[1]);
        assert_eq!(next_number, number + 1);
        let ticks = i64::from(next_timestamp.wrapping_sub(timestamp) as i32);
        let passed = (next_at - at) as i64 * 90;
        let same = piece.publisher == next.publisher && piece.frame == next.frame;
        assert!(if same { ticks == 0 } else { ticks > 0 }, "{piece:?} {next:?}");
        assert!((ticks - passed).abs() < 60 * 90, "{ticks} ticks in {passed}");
        if piece.publisher != next.publisher {
            assert!(next.keyframe && next.index == 0, "{next:?}");
        }
    }
}

#[test]
fn switching_between_publishers_gives_one_stream() {
    let mut world = World::new(1, Conditions::delay(20));
    let (one, two) = (world.add_publisher(), world.add_publisher());
    let viewer = world.add_viewer(Some(one));
    for turn in 0..10 {
        world.run_for(secs(2) + ms(turn * 37));
        world.connect(viewer, if turn % 2 == 0 { two } else { one });
    }
    world.run_for(secs(2));
    let seen: Vec<_> =
        world.viewers[viewer].video.log.iter().map(|(.., one)| one.publisher).collect();
    assert_eq!(seen.chunk_by(|a, b| a == b).count(), 11);
    is_continuous(&world.viewers[viewer]);
}

#[test]
fn a_publisher_that_starts_anew_goes_on_in_the_same_stream() {
    let mut world = World::new(2, Conditions::delay(20));
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(2));
    world.publishers[publisher].restart_video(0x1234_5678);
    world.run_for(secs(2));
    let same_ssrc = world.publishers[publisher].video.ssrc;
    world.publishers[publisher].restart_video(same_ssrc);
    world.run_for(secs(2));
    is_continuous(&world.viewers[viewer]);
    let last = world.viewers[viewer].video.log.last().unwrap().0;
    assert!(last > 5_900, "it goes on to the end: {last}");
}

#[test]
fn a_pause_of_the_publisher_shows_in_timestamps_only() {
    let mut world = World::new(3, Conditions::delay(20));
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(1));
    world.publishers[publisher].sending = false;
    world.run_for(secs(3));
    world.publishers[publisher].sending = true;
    world.run_for(secs(1));
    is_continuous(&world.viewers[viewer]);
}

#[test]
fn switching_under_loss_keeps_each_index_for_one_packet() {
    let conditions = Conditions::delay(20).jitter(5).loss_per_mille(80).reorder(80, 30);
    let mut world = World::new(4, conditions);
    let (one, two) = (world.add_publisher(), world.add_publisher());
    let viewer = world.add_viewer(Some(one));
    for turn in 0..20 {
        world.run_for(ms(700));
        world.connect(viewer, if turn % 2 == 0 { two } else { one });
    }
    // The wire asserts that retransmissions equal what was first sent under their index.
    let stats = world.router.sink_stats(world.viewers[viewer].video.sink);
    assert!(stats.retransmitted_packets > 0);
}
