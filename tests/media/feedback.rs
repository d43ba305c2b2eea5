//! Transport-wide feedback: publishers learn when each of their packets arrived, and what viewers tell of
//! theirs is understood.

use super::world::{World, ms, secs};
use crate::support::link::Conditions;
use rivero::rtp::transport_feedback::{MAX_STATUSES, Writer};
use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
};
use rtc::shared::marshal::Unmarshal;

fn world(seed: u64, conditions: Conditions, rtx: bool) -> World {
    let mut world = World::new(seed, conditions);
    (world.rtx, world.transport_cc) = (rtx, true);
    world
}

#[test]
fn every_arrival_can_be_reconstructed_from_what_a_publisher_is_told() {
    for (seed, rtx) in [(1, true), (2, false), (3, true), (4, true)] {
        let conditions = Conditions::delay(30).jitter(8).loss_per_mille(50).reorder(60, 30);
        let mut world = world(seed, conditions.duplicate_per_mille(20), rtx);
        let publisher = world.add_publisher();
        world.add_viewer(Some(publisher));
        // What the publisher is told is not lost on its way; what arrives late is told of again.
        world.publishers[publisher].down.set(Conditions::delay(30));
        world.run_for(secs(30));
        world.publishers[publisher].sending = false;
        world.run_for(secs(1));
        let numbering = world.publishers[publisher].numbering.as_ref().unwrap();
        assert!(numbering.arrived.len() > 3_000 && numbering.next > 65_536 + 3_000);
        let told: Vec<_> = numbering.told.iter().map(|(&number, &tick)| (number, tick)).collect();
        let arrived: Vec<_> =
            numbering.arrived.iter().map(|(&number, &at)| (number, at as u32 * 4)).collect();
        assert_eq!(told, arrived, "{seed}");
        let last = *numbering.arrived.last_key_value().unwrap().0;
        let lost = (65_300..last).filter(|number| !numbering.arrived.contains_key(number));
        // Those before the first arrival are unknown to the other end.
        let first = *numbering.arrived.first_key_value().unwrap().0;
        let lost: Vec<_> = lost.filter(|number| *number > first).collect();
        assert!(lost.len() > 100);
        assert_eq!(numbering.missing.iter().copied().collect::<Vec<_>>(), lost);
        // Every 50 to 100 ms, and no more.
        assert!((250..620).contains(&numbering.messages), "{}", numbering.messages);
    }
}

#[test]
fn a_publisher_without_agreement_is_told_nothing_of_its_numbers() {
    let mut world = World::new(5, Conditions::delay(10));
    let publisher = world.add_publisher();
    world.publishers[publisher].numbering = Some(super::publisher::Numbering::new(4, 1));
    world.add_viewer(Some(publisher));
    world.run_for(secs(2));
    assert_eq!(world.publishers[publisher].numbering.as_ref().unwrap().messages, 0);
}

#[test]
fn what_viewers_tell_is_what_the_network_did_to_them() {
    for (seed, loss) in [(6, 0), (7, 50), (8, 100)] {
        let mut world = world(seed, Conditions::delay(20), true);
        let publisher = world.add_publisher();
        world.set_new_conditions(Conditions::delay(40).jitter(5));
        let viewer = world.add_viewer(Some(publisher));
        world.viewers[viewer].down.set(Conditions::delay(40).jitter(5).loss_per_mille(loss));
        let (mut missing, mut rounds) = (0, 0);
        world.run_for(secs(2));
        for _ in 0..40 {
            world.run_for(ms(500));
            let peer = world.router.peer_stats(world.viewers[viewer].peer);
            missing += u64::from(peer.fraction_missing);
            rounds += 1;
        }
        let peer = world.router.peer_stats(world.viewers[viewer].peer);
        assert!(peer.feedback_received > 200, "{peer:?}");
        let sent = world.router.source_stats(world.publishers[publisher].video.source).bitrate;
        let rate = peer.acknowledged.bps() as f64 / sent.bps() as f64;
        assert!((0.7..1.5).contains(&rate), "{rate} of {sent:?}");
        let share = missing * 1_000 / (rounds * 256);
        assert!(share.abs_diff(loss) <= 15, "{share} instead of {loss} of 1000");
        assert_eq!(world.router.take_drops().total(), 0);
    }
}

#[test]
fn a_publisher_that_estimates_by_itself_is_told_limits_only() {
    let mut world = world(9, Conditions::delay(10), true);
    let publisher = world.add_publisher();
    let viewer = world.add_viewer(Some(publisher));
    world.run_for(secs(3));
    assert!(world.publishers[publisher].rembs.is_empty());
    world.viewers[viewer].remb = Some(250_000);
    world.run_for(secs(2));
    let told = *world.publishers[publisher].rembs.last().unwrap();
    assert!((249_000..=250_000).contains(&told), "{told}");
    let source = world.publishers[publisher].video.source;
    world.router.set_video_receive_bounds(source, 0, 200);
    world.run_for(secs(1));
    let told = *world.publishers[publisher].rembs.last().unwrap();
    assert!((199_000..=200_000).contains(&told), "{told}");
}

#[test]
fn an_independent_reader_understands_our_messages() {
    let mut random = crate::support::link::Random::seeded(10);
    for _ in 0..500 {
        let mut tick = random.next() as u32;
        let statuses: Vec<_> = (0..1 + random.below(400))
            .map(|_| {
                let step = match random.below(10) {
                    0 => 300 + random.below(20_000) as u32,
                    1 => (random.below(600) as u32).wrapping_neg(),
                    _ => random.below(200) as u32,
                };
                tick = tick.wrapping_add(step);
                (!random.per_mille(150)).then_some(tick)
            })
            .collect();
        let (mut bytes, base) = (Vec::new(), random.next() as u16);
        let told = Writer::default().write(&mut bytes, 1, 2, 3, base, statuses.iter().copied());
        if told == 0 {
            assert!(statuses.iter().take(MAX_STATUSES).all(Option::is_none));
            continue;
        }
        let read = TransportLayerCc::unmarshal(&mut &bytes[..]).expect("it reads our message");
        assert_eq!((read.sender_ssrc, read.media_ssrc, read.fb_pkt_count), (1, 2, 3));
        assert_eq!(
            (read.base_sequence_number, usize::from(read.packet_status_count)),
            (base, told)
        );
        let mut symbols = Vec::new();
        for chunk in &read.packet_chunks {
            match chunk {
                PacketStatusChunk::RunLengthChunk(run) => {
                    symbols.extend(vec![run.packet_status_symbol; run.run_length.into()]);
                }
                PacketStatusChunk::StatusVectorChunk(vector) => symbols.extend(&vector.symbol_list),
            }
        }
        let mut deltas = read.recv_deltas.iter();
        let mut time = i64::from(read.reference_time) * 64_000;
        for (status, symbol) in statuses.iter().zip(symbols).take(told) {
            let arrived = symbol != SymbolTypeTcc::PacketNotReceived;
            assert_eq!(arrived, status.is_some());
            if let Some(tick) = status {
                time += deltas.next().expect("a time for each").delta;
                assert_eq!((time / 250) as u32, *tick);
            }
        }
        assert!(deltas.next().is_none());
    }
}
