//! Numbers over all streams of a peer, what is told of them, and what else headers carry.

use super::*;
use crate::rtp::transport_feedback::{Status, TransportFeedback, Writer};

fn agreed(wanted: &[(Extension, u8)]) -> Extensions {
    let mut agreed = Extensions::default();
    assert!(wanted.iter().all(|&(extension, id)| agreed.set(extension, id)));
    agreed
}

/// Publisher and viewer with numbers over all they send.
pub(super) fn bench() -> Bench {
    let source = SourceConfig {
        transport_cc: true,
        extensions: agreed(&[(Extension::TransportSequence, 4)]),
        ..source_config(Kind::Video, &[(96, VP8)])
    };
    let sink = SinkConfig {
        transport_cc: true,
        extensions: agreed(&[(Extension::TransportSequence, 3)]),
        ..sink_config(Kind::Video, &[(100, VP8)])
    };
    Bench::new(source, sink)
}

/// The same with streams of repetitions.
pub(super) fn bench_with_repetitions() -> Bench {
    let source = SourceConfig {
        transport_cc: true,
        extensions: agreed(&[(Extension::TransportSequence, 4)]),
        rtx: vec![(97, 96)],
        ..source_config(Kind::Video, &[(96, VP8), (98, VP9)])
    };
    let rtx = RtxConfig { ssrc: 44, formats: vec![(101, 100)], sequence_start: 9 };
    let sink = SinkConfig {
        transport_cc: true,
        extensions: agreed(&[(Extension::TransportSequence, 3)]),
        rtx: Some(rtx),
        ..sink_config(Kind::Video, &[(100, VP8)])
    };
    let mut bench = Bench::new(source, sink);
    // A second stream to the same peer, repeated under its own numbers.
    let (now, viewer) = (bench.now(), bench.viewer);
    let second = SinkConfig {
        ssrc: 23,
        transport_cc: true,
        extensions: agreed(&[(Extension::TransportSequence, 3)]),
        ..sink_config(Kind::Video, &[(100, VP8)])
    };
    let second = bench.router.add_sink(viewer, second);
    bench.router.set_route(now, second, Some(bench.source));
    bench
}

impl Bench {
    /// A packet with a number of its transport.
    pub(super) fn send_numbered(&mut self, sequence: u16, number: u16) {
        let mut bytes = vec![0x90, 96];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 0x41]);
        bytes.extend(number.to_be_bytes());
        bytes.push(0);
        bytes.extend(KEY);
        self.send_bytes(&bytes);
    }

    /// The same for one that waited here.
    fn send_that_waited(&mut self, sequence: u16, number: u16, waited: u64) {
        self.waited = Duration::from_millis(waited);
        self.send_numbered(sequence, number);
        self.waited = Duration::ZERO;
    }

    /// What the publisher was told: when, and base and statuses of each message.
    fn told(&mut self, until: u64) -> Vec<(u64, u16, Vec<Status>)> {
        let mut told = Vec::new();
        while self.ms < until {
            self.run_to(self.ms + 1);
            for (peer, bytes) in std::mem::take(&mut self.out.rtcp) {
                for packet in packets(&bytes) {
                    if let Rtcp::TransportFeedback { raw, .. } = packet.unwrap() {
                        assert_eq!(peer, self.publisher);
                        let message = TransportFeedback::parse(raw).unwrap();
                        assert_eq!((message.sender, message.media), (11, 7));
                        told.push((self.ms, message.base, message.statuses().collect()));
                    }
                }
            }
        }
        told
    }

    /// The viewer says that all of `numbers` arrived at `tick`.
    fn acknowledge(&mut self, base: u16, count: usize, tick: u32) {
        let viewer = self.viewer;
        let statuses = vec![Some(tick); count];
        self.rtcp(viewer, |bytes| {
            Writer::default().write(bytes, 1, 22, 0, base, statuses.into_iter());
        });
    }

    /// Numbers of what left for the viewer.
    fn numbers(&self) -> Vec<u16> {
        let number = |header: &Vec<u8>| {
            let packet = RtpPacket::parse(header).unwrap();
            u16::from_be_bytes(packet.extension(3).unwrap().try_into().unwrap())
        };
        self.out.rtp.iter().map(|(header, ..)| number(header)).collect()
    }
}

#[test]
fn a_publisher_is_told_soon_of_much_and_in_time_of_little() {
    let mut bench = bench();
    bench.ms = 1_000;
    bench.send_numbered(1, 65_535);
    bench.send_numbered(2, 1);
    bench.ms = 1_003;
    bench.send_numbered(3, 2);
    let told = bench.told(2_000);
    let tick = |ms: u32| ms * 4;
    let expected = vec![
        Status::Received { place: 0, tick: tick(1_000) },
        Status::Lost(1..2),
        Status::Received { place: 2, tick: tick(1_000) },
        Status::Received { place: 3, tick: tick(1_003) },
    ];
    assert_eq!(told, [(1_100, 65_535, expected)]);
    // Late: told of with what is behind it.
    bench.send_numbered(4, 0);
    let told = bench.told(3_000);
    assert_eq!((told[0].1, told[0].2.len()), (0, 3));
    assert_eq!(told[0].2[0], Status::Received { place: 0, tick: tick(2_000) });
    // Thirty packets at once, and thirty more a moment later.
    for number in 3..33 {
        bench.send_numbered(number + 2, number);
    }
    let first = bench.told(3_010);
    assert_eq!((first.len(), first[0].0), (1, 3_001));
    for number in 33..63 {
        bench.send_numbered(number + 2, number);
    }
    let second = bench.told(4_000);
    assert_eq!((second.len(), second[0].0), (1, 3_051));
    assert_eq!((second[0].1, second[0].2.len()), (33, 30));
}

#[test]
fn a_publisher_is_told_when_packets_came_and_not_when_they_were_looked_at() {
    let mut bench = bench();
    bench.ms = 1_000;
    for (number, waited) in [(1, 30), (2, 20), (3, 10), (4, 0)] {
        bench.send_that_waited(number, number, waited);
    }
    let told = bench.told(2_000);
    let came = |place: u32| 4 * (970 + 10 * place);
    let expected = (0..4).map(|place| Status::Received { place, tick: came(place) }).collect();
    assert_eq!(told, [(1_100, 1, expected)]);
}

#[test]
fn numbers_far_behind_count_when_they_go_on() {
    let mut bench = bench();
    bench.send_numbered(1, 30_000);
    bench.told(200);
    bench.send_numbered(2, 5);
    assert_eq!(bench.told(400), []);
    assert_eq!(bench.dropped(DropReason::TransportSequence), 1);
    bench.send_numbered(3, 6);
    let told = bench.told(600);
    assert_eq!((told.len(), told[0].1, told[0].2.len()), (1, 6, 1));
    // Further ahead than anybody can be told of: what was not told before is counted.
    bench.send_numbered(4, 7);
    bench.send_numbered(5, 7_000);
    assert_eq!(bench.dropped(DropReason::ArrivalsForgotten), 1);
    let told = bench.told(800);
    assert_eq!(told.last().unwrap().2.last(), Some(&Status::Received { place: 63, tick: 2_400 }));
    assert!(told.len() <= 4, "{told:?}");
}

#[test]
fn packets_are_numbered_over_all_streams_of_a_peer() {
    let mut bench = bench();
    let rtx = RtxConfig { ssrc: 44, formats: vec![(101, 100)], sequence_start: 9 };
    let config = SinkConfig {
        ssrc: 23,
        rtx: Some(rtx),
        transport_cc: true,
        extensions: agreed(&[(Extension::TransportSequence, 3)]),
        ..sink_config(Kind::Video, &[(100, VP8)])
    };
    let (now, viewer) = (bench.now(), bench.viewer);
    let second = bench.router.add_sink(viewer, config);
    bench.router.set_route(now, second, Some(bench.source));
    bench.send(1, KEY);
    bench.send(2, INTER);
    assert_eq!(bench.numbers(), [0, 1, 2, 3]);
    // A repetition with an SSRC of its own is a packet of its own; one without is the same again.
    bench.ms = 100;
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 23, &[500, 501]));
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[500]));
    assert_eq!(bench.numbers(), [0, 1, 2, 3, 4, 5, 0]);
    assert_eq!(bench.out.rtp[6], bench.out.rtp[0]);
    // Nobody can tell which of the two arrived, so it says nothing of the network.
    bench.acknowledge(0, 6, 400);
    bench.ms = 700;
    bench.acknowledge(5, 1, 2_800);
    let stats = bench.router.peer_stats(viewer);
    assert_eq!((stats.feedback_received, stats.fraction_missing), (2, 0));
    let bits = 8 * (5 * (KEY.len() as u64 + 20) + 2 * 2);
    assert_eq!(stats.acknowledged.bps(), bits * 1_000 / 600);
}

#[test]
fn feedback_that_lies_changes_nothing_but_counters() {
    let mut bench = bench();
    let viewer = bench.viewer;
    // Before anything was sent.
    bench.acknowledge(0, 1, 40);
    for sequence in 0..3_000 {
        bench.ms = u64::from(sequence);
        bench.send(sequence, KEY);
    }
    bench.acknowledge(2_000, 300, 100_000);
    bench.ms += 600;
    bench.acknowledge(2_300, 100, 103_000);
    let before = bench.router.peer_stats(viewer);
    assert_eq!(before.fraction_missing, 0);
    assert!(before.acknowledged.bps() > 10_000);
    let mut all = vec![0xaf & !0x20, 205, 0, 9, 0, 0, 0, 1, 0, 0, 0, 22, 0x0b, 0xb7, 0xff, 0xff];
    all.extend([0, 2, 0, 0]);
    all.extend([0x1f, 0xff].repeat(9));
    all.extend([0, 0]);
    bench.ms += 1_000;
    // Packets that were never sent; all there are, of which the last one was not; times long gone.
    bench.acknowledge(2_999, 2, 104_000);
    bench.acknowledge(40_000, 9, 104_000);
    bench.rtcp(viewer, |bytes| bytes.extend(&all));
    bench.acknowledge(2_400, 300, 10_000);
    bench.acknowledge(2_400, 300, 90_000);
    // Forgotten long ago, and told of already: true, and no news.
    bench.acknowledge(100, 300, 103_500);
    bench.acknowledge(2_000, 300, 103_500);
    // Times that go back between packets, and a message that is cut.
    let cut = [0x8f, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 22, 0x0b, 0, 0, 9, 0, 0, 0, 0];
    bench.rtcp(viewer, |bytes| bytes.extend(cut));
    let after = bench.router.peer_stats(viewer);
    assert_eq!(after.fraction_missing, 0);
    assert_eq!(after.feedback_received, before.feedback_received + 2);
    let drops = bench.router.take_drops();
    assert_eq!(drops.of(DropReason::FeedbackUnsent), 4);
    assert_eq!(drops.of(DropReason::FeedbackTime), 2);
    assert_eq!(drops.of(DropReason::MalformedFeedback), 1);
    assert_eq!(drops.total(), 7);
    // The truth still counts.
    bench.acknowledge(2_400, 300, 104_000);
    bench.ms += 600;
    bench.acknowledge(2_700, 100, 106_000);
    let told = bench.router.peer_stats(viewer);
    assert_eq!(told.feedback_received, after.feedback_received + 2);
    assert!(told.acknowledged.bps() > 10_000, "{told:?}");
}

#[test]
fn a_receiver_whose_clock_was_set_is_believed_again_soon() {
    let mut bench = bench();
    for sequence in 0..100 {
        bench.send(sequence, KEY);
    }
    bench.acknowledge(0, 1, 1_000_000);
    for number in 1..=20 {
        bench.acknowledge(number, 1, 5_000 + u32::from(number));
    }
    let received = bench.router.peer_stats(bench.viewer).feedback_received;
    assert_eq!(received, 1 + 13);
    assert_eq!(bench.router.take_drops().of(DropReason::FeedbackTime), 7);
}

#[test]
fn what_belongs_to_the_media_goes_along_under_the_numbers_of_each_sink() {
    let source = SourceConfig {
        extensions: agreed(&[(Extension::AudioLevel, 1), (Extension::AbsCaptureTime, 2)]),
        nack: false,
        ..source_config(Kind::Audio, &[(111, OPUS)])
    };
    let numbers =
        [(Extension::AudioLevel, 10), (Extension::AbsCaptureTime, 11), (Extension::Mid, 12)];
    let config = SinkConfig {
        extensions: agreed(&numbers),
        nack: false,
        mid: Some("a0".to_owned()),
        ..sink_config(Kind::Audio, &[(111, OPUS)])
    };
    let mut bench = Bench::new(source, config.clone());
    let (now, viewer) = (bench.now(), bench.viewer);
    let repeating = SinkConfig { ssrc: 23, nack: true, ..config };
    let repeating = bench.router.add_sink(viewer, repeating);
    bench.router.set_route(now, repeating, Some(bench.source));
    // The publisher's clock is 10 s behind ours.
    let publisher = bench.publisher;
    let ntp = NtpTime::from_bits(bench.ntp().bits() - (10 << 32));
    let info = SenderInfo { ntp, timestamp: 0, packets: 0, octets: 0 };
    bench.send_as(111, 7, 0, &[1]);
    bench.rtcp(publisher, |bytes| write_sender_report(bytes, 7, &info, &[]));
    bench.out.rtp.clear();
    let mut bytes =
        vec![0x90, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 5, 0x10, 0x8a, 0x2f];
    bytes.extend(77_u64.to_be_bytes());
    bytes.extend((3_u64 << 32).to_be_bytes());
    bytes.extend([0, 1, 2]);
    bench.send_bytes(&bytes);
    let packet = RtpPacket::parse(&bench.out.rtp[0].0).unwrap();
    assert_eq!(packet.extension(10), Some(&[0x8a][..]));
    assert_eq!(packet.extension(12), Some(&b"a0"[..]));
    let time = packet.extension(11).unwrap();
    assert_eq!(time[..8], 77_u64.to_be_bytes());
    // Clock of capture minus ours: 3 s before the publisher's, and that 10 s behind.
    assert_eq!(time[8..], (-7_i64 << 32).to_be_bytes());
    // One that must be able to send the very same again says only what it keeps.
    let packet = RtpPacket::parse(&bench.out.rtp[1].0).unwrap();
    assert_eq!((packet.elements().count(), packet.extension(12)), (1, Some(&b"a0"[..])));
    // Without the extensions nothing is left of them.
    bench.send_as(111, 7, 2, &[1]);
    let packet = RtpPacket::parse(&bench.out.rtp[2].0).unwrap();
    assert_eq!(packet.elements().count(), 1);
}
