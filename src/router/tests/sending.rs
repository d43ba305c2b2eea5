//! What waits for its time, what goes before it, and what probes consist of.

use super::{transport_wide::bench_with_repetitions, *};
use crate::rtp::transport_feedback::Writer;
use std::collections::BTreeMap;

/// A picture's packet of the usual size.
fn large(keyframe: bool) -> Vec<u8> {
    let mut payload = if keyframe { KEY } else { INTER }.to_vec();
    payload.resize(1_100, 0xaa);
    payload
}

/// A viewer who tells of each packet, as [`bench_with_repetitions`], and takes sound too; the source of
/// that.
fn bench_with_sound() -> (Bench, SourceKey) {
    let mut bench = bench_with_repetitions();
    let (now, viewer, publisher) = (bench.now(), bench.viewer, bench.publisher);
    let sound = SourceConfig { receiver_ssrc: 12, ..source_config(Kind::Audio, &[(111, OPUS)]) };
    let source = bench.router.add_source(publisher, sound);
    let mut extensions = Extensions::default();
    assert!(extensions.set(Extension::TransportSequence, 3));
    let config = SinkConfig {
        ssrc: 33,
        transport_cc: true,
        extensions,
        ..sink_config(Kind::Audio, &[(109, OPUS)])
    };
    let sink = bench.router.add_sink(viewer, config);
    bench.router.set_route(now, sink, Some(source));
    (bench, source)
}

impl Bench {
    /// A keyframe of so many packets, at once.
    fn send_picture(&mut self, first: u16, packets: u16) {
        for number in 0..packets {
            self.send(first + number, &large(number == 0));
        }
    }

    /// Numbers of their transport, and whether packets are sound, as they left.
    fn departures(&self) -> Vec<(u16, bool)> {
        let departure = |(header, ..): &(Vec<u8>, Vec<u8>, u64)| {
            let packet = RtpPacket::parse(header).unwrap();
            let number = packet.extension(3).expect("a number").try_into().unwrap();
            (u16::from_be_bytes(number), packet.ssrc == 33)
        };
        self.out.rtp.iter().map(departure).collect()
    }

    /// No index of a stream stands for two packets, and how often each left.
    fn indices(&self) -> BTreeMap<(u32, u64), usize> {
        let mut seen = BTreeMap::<_, Vec<_>>::new();
        for packet in &self.out.rtp {
            let ssrc = RtpPacket::parse(&packet.0).unwrap().ssrc;
            seen.entry((ssrc, packet.2)).or_default().push(packet);
        }
        for same in seen.values() {
            assert!(same.windows(2).all(|pair| pair[0] == pair[1]), "one index, one packet");
        }
        seen.into_iter().map(|(key, same)| (key, same.len())).collect()
    }
}

#[test]
fn sound_passes_a_picture_that_waits_and_numbers_follow_the_order_of_departure() {
    let (mut bench, sound) = bench_with_sound();
    bench.send_picture(1, 40);
    let at_once = bench.out.rtp.len();
    // 300 kbit/s are assumed, two and a half times that is the pace, and there are two sinks.
    assert!((2..12).contains(&at_once), "{at_once}");
    let mut bytes = vec![0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8];
    bytes.extend([7; 80]);
    let (now, packet) = (bench.now(), RtpPacket::parse(&bytes).unwrap());
    bench.router.forward(now, sound, &packet, &mut bench.out);
    assert!(bench.departures().last().unwrap().1, "it does not wait");
    bench.run_to(400);
    let left = bench.departures();
    assert_eq!(left.len(), 81);
    assert!(left.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)));
    let video = bench.out.rtp.iter().filter(|(header, ..)| header[11] == 22);
    let sequences: Vec<_> = video.map(|(.., index)| *index).collect();
    assert_eq!(sequences, (500..540).collect::<Vec<u64>>());
    assert_eq!(bench.router.take_drops().total(), 0);
}

#[test]
fn what_waits_and_is_asked_for_leaves_first_and_once() {
    let mut bench = bench_with_repetitions();
    let viewer = bench.viewer;
    bench.send_picture(1, 40);
    bench.ms = 1;
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[535, 536, 600]));
    bench.run_to(500);
    let index = |packet: &(Vec<u8>, Vec<u8>, u64)| (packet.0[11] == 22).then_some(packet.2);
    let order: Vec<_> = bench.out.rtp.iter().filter_map(index).collect();
    let place = |wanted: u64| order.iter().position(|index| *index == wanted).unwrap();
    assert!(place(535) < place(534) && place(536) < place(534), "{order:?}");
    let indices = bench.indices();
    assert!((500..540).all(|index| indices.get(&(22, index)) == Some(&1)), "{indices:?}");
}

#[test]
fn a_switch_while_packets_wait_gives_no_index_twice() {
    let mut bench = bench_with_repetitions();
    let (now, sink) = (bench.now(), bench.sink);
    let config = SourceConfig { receiver_ssrc: 13, ..source_config(Kind::Video, &[(96, VP8)]) };
    let other = bench.router.add_source(bench.publisher, config);
    bench.send_picture(1, 30);
    bench.router.set_route(now, sink, Some(other));
    let first = std::mem::replace(&mut bench.source, other);
    bench.send_picture(9_000, 30);
    bench.router.set_route(now, sink, Some(first));
    bench.source = first;
    bench.send_picture(31, 30);
    bench.router.remove_source(other);
    bench.run_to(1_000);
    let indices = bench.indices();
    assert!(indices.values().all(|count| *count == 1), "{indices:?}");
    let drops = bench.router.take_drops();
    // Of the source that is gone nothing is left to send.
    assert!((1..=30).contains(&drops.of(DropReason::PacerForgotten)), "{:?}", drops);
}

#[test]
fn when_no_more_can_wait_the_picture_is_begun_anew() {
    let mut bench = bench_with_repetitions();
    for number in 0..1_500 {
        bench.send(number, &large(number == 0));
    }
    let drops = bench.router.take_drops();
    assert_eq!(drops.of(DropReason::PacerFull), 2, "once for each sink");
    assert!(drops.of(DropReason::WaitingForKeyframe) > 400);
    bench.run_to(600);
    bench.out.rtp.clear();
    bench.send(1_500, &large(true));
    bench.send(1_501, &large(false));
    bench.run_to(1_000);
    let sequences: Vec<_> =
        bench.out.rtp.iter().filter(|one| one.0[11] == 22).map(|one| one.2).collect();
    assert_eq!(sequences.len(), 2);
    assert_eq!(sequences[1], sequences[0] + 1);
}

/// A small source for five seconds, of which the viewer tells that all arrive; what was sent to
/// probe, in bytes, and what is known of the way in the end.
fn acknowledged(mut bench: Bench) -> (u64, u64) {
    let (viewer, mut sequence, mut told) = (bench.viewer, 0, 0);
    let mut at: Vec<u64> = Vec::new();
    while bench.ms < 5_000 {
        if bench.ms.is_multiple_of(33) {
            bench.send(sequence, &large(sequence == 0));
            sequence += 1;
        }
        let next = bench.ms + 1;
        bench.run_to(next);
        at.resize(bench.out.rtp.len(), bench.ms);
        if bench.ms.is_multiple_of(50) && at.len() > told {
            let ticks = at[told..].iter().map(|ms| Some((*ms as u32 + 20) * 4));
            bench.rtcp(viewer, |bytes| {
                Writer::default().write(bytes, 1, 22, 0, told as u16, ticks);
            });
            told = at.len();
        }
        bench.out.rtcp.clear();
    }
    (
        bench.router.sink_stats(bench.sink).padding_bytes,
        bench.router.available_to(bench.sink).expect("an estimate").target.bps(),
    )
}

#[test]
fn probes_repeat_what_was_sent_where_there_is_a_stream_for_it() {
    let (padding, rate) = acknowledged(bench_with_repetitions());
    assert!((5_000..100_000).contains(&padding), "{padding}");
    assert!(rate > 700_000, "{rate}");
    let (padding, rate) = acknowledged(transport_wide::bench());
    assert!(padding == 0 && rate > 300_000, "{padding} {rate}");
}

#[test]
fn requests_of_a_thousand_viewers_are_one() {
    let mut bench = Bench::video();
    let now = bench.now();
    let config = PeerConfig { cname: "rivero".to_owned(), remb: true };
    let viewers: Vec<_> = (0..1_000)
        .map(|number| {
            let viewer = bench.router.add_peer(now, config.clone());
            let ssrc = 1_000 + number;
            let config = SinkConfig { ssrc, ..sink_config(Kind::Video, &[(100, VP8)]) };
            let sink = bench.router.add_sink(viewer, config);
            bench.router.set_route(now, sink, Some(bench.source));
            (viewer, ssrc)
        })
        .collect();
    bench.send(1, KEY);
    bench.run_to(600);
    bench.out.rtcp.clear();
    for round in 0..10 {
        for &(viewer, ssrc) in &viewers {
            bench.rtcp(viewer, |bytes| crate::rtp::rtcp::write_pli(bytes, 1, ssrc));
        }
        let until = 600 + (round + 1) * 100;
        bench.run_to(until);
    }
    let publisher = bench.publisher;
    let to_publisher = bench.out.rtcp.iter().filter(|(to, _)| *to == publisher);
    let asked: usize = to_publisher
        .map(|(_, bytes)| {
            packets(bytes).filter(|packet| matches!(packet, Ok(Rtcp::Pli { .. }))).count()
        })
        .sum();
    assert!((2..=3).contains(&asked), "{asked} in a second");
}

/// How often packets of a viewer's first picture, and of its second, left within half a second.
fn sent_of_first_pictures(bench: &mut Bench) -> [Vec<usize>; 2] {
    bench.send_picture(1, 7);
    bench.send_as(96 | 0x80, 7, 8, &large(false));
    bench.send_picture(9, 8);
    bench.run_to(500);
    // A repetition begins with the number of what it repeats.
    let number = |(header, payload, index): &(Vec<u8>, Vec<u8>, u64)| match header[11] {
        22 => *index,
        _ => u64::from(u16::from_be_bytes([payload[0], payload[1]])),
    };
    let numbers: Vec<_> = bench.out.rtp.iter().map(number).collect();
    let count = |one: u64| numbers.iter().filter(|number| **number == one).count();
    [(500..508).map(count).collect(), (508..516).map(count).collect()]
}

#[test]
fn a_first_picture_is_sent_twice_over_a_long_way_and_once_over_a_short_one() {
    for (ms, times) in [(100, 2), (39, 1)] {
        let mut bench = Bench::new(source_config(Kind::Video, &[(96, VP8)]), rtx::sink());
        let viewer = bench.viewer;
        bench.router.set_round_trip(viewer, Duration::from_millis(ms));
        let [first, second] = sent_of_first_pictures(&mut bench);
        assert_eq!(first, [times; 8], "{ms} ms");
        assert_eq!(second, [1; 8], "{ms} ms");
        let indices = bench.indices();
        assert!(indices.values().all(|count| *count == 1), "{indices:?}");
    }
}

#[test]
fn what_of_a_first_picture_was_asked_for_again_is_not_sent_a_third_time() {
    let mut bench = Bench::new(source_config(Kind::Video, &[(96, VP8)]), rtx::sink());
    let viewer = bench.viewer;
    bench.router.set_round_trip(viewer, Duration::from_millis(100));
    bench.send_picture(1, 8);
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[500]));
    bench.run_to(40);
    let again =
        bench.out.rtp.iter().filter(|(header, payload, _)| {
            header[11] != 22 && payload[..2] == 500u16.to_be_bytes()
        });
    assert_eq!(again.count(), 1);
}
