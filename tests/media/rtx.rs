//! Repetitions on a stream of their own (RFC 4588), in both directions.

use super::world::{World, secs};
use crate::support::link::Conditions;

/// Runs a call of one publisher and three viewers; what is not whole, but for the last moment.
fn call(seed: u64, conditions: Conditions) -> (World, Vec<u32>) {
    let mut world = World::new(seed, conditions);
    world.rtx = true;
    let publisher = world.add_publisher();
    for _ in 0..3 {
        world.add_viewer(Some(publisher));
    }
    world.run_for(secs(20));
    let sent = world.publishers[publisher].video.frames;
    let mut missing = Vec::new();
    for viewer in &world.viewers {
        // Whoever misses the very first packet does not know of it.
        let &(_, first) = viewer.video.complete.first().unwrap();
        assert!(first < 40, "the first keyframe came soon: {first}");
        let whole = |frame: &u32| viewer.video.complete.contains(&(0, *frame));
        missing.extend((first..sent - 40).filter(|frame| !whole(frame)));
    }
    (world, missing)
}

#[test]
fn a_tenth_lost_in_both_directions_is_repaired() {
    for seed in 1..6 {
        let conditions = Conditions::delay(30).jitter(5).loss_per_mille(100);
        let (world, missing) = call(seed, conditions.reorder(50, 25).duplicate_per_mille(30));
        assert!(missing.is_empty(), "frames {missing:?} are not whole");
        let publisher = &world.publishers[0];
        let source = world.router.source_stats(publisher.video.source);
        let sent_again = publisher.rtx.as_ref().unwrap().packets;
        assert!(source.rtx_packets > 100 && source.rtx_packets <= sent_again * 11 / 10);
        assert!(source.repaired > 100 && source.repaired <= source.rtx_packets, "{source:?}");
        assert_eq!(source.given_up, 0);
        // What was repaired had been lost, and reports say so.
        assert!(source.lost > 50, "{source:?}");
        for viewer in &world.viewers {
            let sink = world.router.sink_stats(viewer.video.sink);
            assert!(viewer.repeated > 100 && sink.retransmitted_packets >= viewer.repeated / 2);
            assert_eq!(sink.rtx_ssrc, viewer.rtx.map(|(ssrc, _)| ssrc));
            // A sender report counts its own stream only.
            let (info, _) = viewer.video.last_sr.unwrap();
            assert!(u64::from(info.packets) <= sink.packets, "{info:?} {sink:?}");
        }
    }
}

#[test]
fn without_loss_nothing_is_repeated() {
    let (world, missing) = call(7, Conditions::delay(30).jitter(10));
    assert!(missing.is_empty());
    assert_eq!(world.publishers[0].rtx.as_ref().unwrap().packets, 0);
    assert!(world.viewers.iter().all(|viewer| viewer.repeated == 0));
}

#[test]
fn losses_hold_down_no_sender_that_is_told_a_rate_out_of_them() {
    let (world, _) = call(8, Conditions::delay(20).loss_per_mille(60));
    let publisher = &world.publishers[0];
    let measured = world.router.source_stats(publisher.video.source).bitrate.bps();
    let told = *publisher.rembs.last().unwrap();
    assert!(told > measured, "{told} of {measured}");
}
