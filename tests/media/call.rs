//! A whole call: reports in both directions, lip sync, events, statistics.

use super::{
    viewer::Received,
    world::{World, ms, secs},
};
use crate::support::link::Conditions;
use rivero::{
    router::RouterEvent,
    rtp::rtcp::{write_bye, write_pli, write_receiver_report},
};

/// When a frame is to be played by the viewer's reckoning, minus when it was captured, in ms.
fn playout_offset(stream: &Received, clock_rate: f64) -> f64 {
    let (info, _) = stream.last_sr.unwrap();
    let &(_, _, timestamp, piece) = stream.log.last().unwrap();
    let since = f64::from(timestamp.wrapping_sub(info.timestamp) as i32) / clock_rate * 1_000.0;
    let ntp = info.ntp.bits() as f64 / 4_294_967_296.0 * 1_000.0;
    ntp + since - f64::from(piece.captured)
}

#[test]
fn audio_and_video_of_one_publisher_stay_in_sync() {
    let mut world = World::new(1, Conditions::delay(30).jitter(20));
    let (one, two) = (world.add_publisher(), world.add_publisher());
    let viewer = world.add_viewer(Some(one));
    world.run_for(secs(8));
    for publisher in [two, one] {
        let viewer = &world.viewers[viewer];
        let apart =
            playout_offset(&viewer.video, 90_000.0) - playout_offset(&viewer.audio, 48_000.0);
        assert!(apart.abs() < 2.0, "{apart} ms apart");
        world.connect(0, publisher);
        world.run_for(secs(8));
    }
}

#[test]
fn a_run_is_the_same_with_the_same_seed() {
    let run = |seed| {
        let conditions = Conditions::delay(25).jitter(20).loss_per_mille(50).reorder(50, 20);
        let mut world = World::new(seed, conditions);
        let publisher = world.add_publisher();
        let viewer = world.add_viewer(Some(publisher));
        world.run_for(secs(5));
        (world.viewers[viewer].video.digest(), world.publishers[publisher].nacked)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn reports_measure_round_trips_and_losses() {
    let mut world = World::new(2, Conditions::delay(40).loss_per_mille(100));
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(10));
    let sink = world.router.sink_stats(world.viewers[viewer].audio.sink);
    let round_trip = sink.round_trip.unwrap();
    assert!(round_trip >= ms(79) && round_trip <= ms(83), "{round_trip:?}");
    // Losses before us and behind us, and nobody repairs audio.
    assert!((20..150).contains(&sink.lost), "{}", sink.lost);
    assert!((400..500).contains(&sink.packets));
    let source = world.router.source_stats(world.publishers[publisher].audio.source);
    assert!((20..90).contains(&source.lost), "{}", source.lost);
    assert!(source.bitrate.kbps() > 20 && source.bitrate.kbps() < 40, "{:?}", source.bitrate);
    assert_eq!(
        source.packets as i64 + source.lost,
        i64::from(world.publishers[0].audio.frames) - 2
    );
}

#[test]
fn the_first_report_and_a_goodbye_are_told_once() {
    let mut world = World::new(3, Conditions::delay(10));
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(4));
    let (sender, receiver) = (world.publishers[publisher].peer, world.viewers[viewer].peer);
    assert_eq!(world.events, [RouterEvent::FirstRtcp(sender), RouterEvent::FirstRtcp(receiver)]);
    world.publishers[publisher].sending = false;
    let mut bytes = Vec::new();
    write_receiver_report(&mut bytes, 1, &[]);
    write_bye(&mut bytes, &[world.publishers[publisher].video.ssrc]);
    let (now, ntp) = (world.now(), world.ntp());
    let mut out = Nowhere;
    world.router.handle_rtcp(now, ntp, sender, &bytes, &mut out);
    world.router.handle_rtcp(now, ntp, sender, &bytes[8..], &mut out);
    assert_eq!(world.router.poll_event(), Some(RouterEvent::Bye(sender)));
    assert_eq!(world.router.poll_event(), None);
}

#[test]
fn requests_about_foreign_streams_are_counted_and_ignored() {
    let mut world = World::new(4, Conditions::delay(10));
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(1));
    let asked = world.publishers[publisher].asked.len();
    let mut bytes = Vec::new();
    write_pli(&mut bytes, 1, 0xdead_beef);
    let peer = world.viewers[viewer].peer;
    let (now, ntp) = (world.now(), world.ntp());
    world.router.handle_rtcp(now, ntp, peer, &bytes, &mut Nowhere);
    world.router.handle_rtcp(now, ntp, peer, &[0x80, 206, 0, 9], &mut Nowhere);
    let stats = world.router.peer_stats(peer);
    assert_eq!((stats.unknown_ssrc, stats.malformed), (1, 1));
    world.run_for(secs(1));
    assert_eq!(world.publishers[publisher].asked.len(), asked);
}

#[test]
fn a_publisher_is_told_the_lowest_rate_of_its_viewers() {
    let mut world = World::new(5, Conditions::delay(10));
    let publisher = world.add_publisher();
    let (one, two) = (world.add_viewer(Some(publisher)), world.add_viewer(Some(publisher)));
    world.viewers[one].remb = Some(900_000);
    world.viewers[two].remb = Some(200_000);
    world.run_for(secs(3));
    let told = *world.publishers[publisher].rembs.last().unwrap();
    assert!((199_000..=200_000).contains(&told), "{told}");
    let source = world.publishers[publisher].video.source;
    world.router.set_video_receive_bounds(source, 250, 0);
    world.run_for(secs(1));
    let told = *world.publishers[publisher].rembs.last().unwrap();
    assert!((249_000..=250_000).contains(&told), "{told}");
    world.router.remove_sink(world.viewers[two].video.sink);
    world.run_for(secs(1));
    assert!(*world.publishers[publisher].rembs.last().unwrap() > 300_000);
}

#[test]
fn what_is_removed_leaves_nothing_behind() {
    let mut world = World::new(6, Conditions::delay(10));
    let publisher = world.add_publisher();
    for _ in 0..3 {
        world.add_viewer(Some(publisher));
    }
    world.run_for(secs(1));
    let peer = world.viewers.pop().unwrap().peer;
    world.router.remove_peer(peer);
    world.run_for(secs(1));
    let peer = world.publishers.pop().unwrap().peer;
    world.router.remove_peer(peer);
    let before: Vec<_> = world.viewers.iter().map(|one| one.video.log.len()).collect();
    world.run_for(secs(1));
    let after: Vec<_> = world.viewers.iter().map(|one| one.video.log.len()).collect();
    // Only what was still under way.
    assert!(before.iter().zip(&after).all(|(before, after)| after - before < 10));
}

struct Nowhere;

impl rivero::router::Egress for Nowhere {
    fn rtp(&mut self, _: rivero::router::PeerKey, _: &[u8], _: &[u8], _: u64) {}
    fn rtcp(&mut self, _: rivero::router::PeerKey, _: &[u8]) {}
}
