//! Repetitions on a stream of their own.

use super::*;

const RTX_SSRC: u32 = 8;

fn source() -> SourceConfig {
    SourceConfig {
        rtx: vec![(97, 96), (99, 55)],
        rtx_ssrcs: vec![(RTX_SSRC, 7), (9, 123)],
        ..source_config(Kind::Video, &[(96, VP8)])
    }
}

pub(super) fn sink() -> SinkConfig {
    let rtx = RtxConfig { ssrc: 33, formats: vec![(101, 100)], sequence_start: 65_535 };
    SinkConfig { rtx: Some(rtx), ..sink_config(Kind::Video, &[(100, VP8)]) }
}

/// A repetition of `sequence`, number `own` of its stream.
fn repeat(bench: &mut Bench, own: u16, sequence: u16, payload: &[u8]) {
    let payload = [&sequence.to_be_bytes()[..], payload].concat();
    bench.send_as(97, RTX_SSRC, own, &payload);
}

#[test]
fn a_repetition_takes_the_place_of_what_was_lost() {
    let mut bench = Bench::new(source(), sink());
    bench.send(10, KEY);
    bench.send(13, INTER);
    bench.run_to(6);
    repeat(&mut bench, 900, 12, INTER);
    // One whose stream was not announced is known by its payload type.
    bench.send_as(97, 4_711, 901, &[&11_u16.to_be_bytes(), INTER].concat());
    assert_eq!(bench.sequences(), [500, 503, 502, 501]);
    assert_eq!(bench.out.rtp[2].1, INTER);
    bench.run_to(900);
    let stats = bench.router.source_stats(bench.source);
    assert_eq!((stats.nacks, stats.nacked_packets, stats.given_up), (1, 2, 0));
    assert_eq!((stats.packets, stats.rtx_packets, stats.repaired), (4, 2, 2));
    // The network did lose them.
    assert_eq!((stats.lost, stats.ssrc), (2, Some(7)));
    bench.send(14, INTER);
    assert_eq!(bench.sequences().last(), Some(&504));
}

#[test]
fn repetitions_without_sense_are_dropped_by_name_and_change_nothing() {
    let mut bench = Bench::new(source(), sink());
    repeat(&mut bench, 1, 10, KEY);
    assert_eq!(bench.dropped(DropReason::RtxOutOfWindow), 1, "nothing came that it could repeat");
    bench.send(10_000, KEY);
    bench.send(10_001, INTER);
    let before = bench.out.rtp.len();
    bench.send_as(97, RTX_SSRC, 2, &[5]);
    bench.send_as(99, RTX_SSRC, 3, &[0x27, 0x10, 1, 2]);
    bench.send_as(97, 9, 4, &[0x27, 0x10, 1, 2]);
    for far in [10_001 - 2_048, 10_001 + 129, 40_000, 30_000] {
        repeat(&mut bench, 5, far, INTER);
    }
    for sequence in [10_001, 10_000, 10_001] {
        repeat(&mut bench, 6, sequence, INTER);
    }
    bench.send_as(97, RTX_SSRC, 7, &[]);
    // Media of the stream of repetitions is no new beginning of the stream.
    bench.send_as(96, RTX_SSRC, 8, KEY);
    for (reason, count) in [
        (DropReason::RtxTooShort, 1),
        (DropReason::RtxUnknownFormat, 2),
        (DropReason::RtxForeign, 1),
        (DropReason::RtxOutOfWindow, 5),
        (DropReason::RtxDuplicate, 3),
        (DropReason::RtxPadding, 1),
    ] {
        assert_eq!(bench.dropped(reason), count, "{reason:?}");
    }
    assert_eq!(bench.out.rtp.len(), before);
    let stats = bench.router.source_stats(bench.source);
    assert_eq!((stats.ssrc, stats.lost, stats.drops.total()), (Some(7), 0, 13));
}

#[test]
fn what_is_asked_for_again_leaves_on_a_stream_of_its_own() {
    let mut config = sink();
    config.extensions.set(Extension::AbsSendTime, 5);
    config.extensions.set(Extension::Mid, 6);
    config.mid = Some("v".to_owned());
    let mut bench = Bench::new(source(), config);
    for sequence in 0..3 {
        bench.send(sequence, KEY);
    }
    let viewer = bench.viewer;
    for ms in [1_500, 1_510, 1_600] {
        bench.ms = ms;
        bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[501, 502]));
    }
    let again: Vec<_> = bench.out.rtp[3..].to_vec();
    assert_eq!(again.len(), 4, "once per round trip");
    for (at, (header, payload, index)) in again.iter().enumerate() {
        let original = &bench.out.rtp[1 + at % 2];
        let packet = RtpPacket::parse(header).unwrap();
        assert_eq!((packet.payload_type, packet.ssrc, *index), (101, 33, 65_535 + at as u64));
        assert_eq!(payload[..2], (original.2 as u16).to_be_bytes());
        assert_eq!(payload[2..], original.1);
        assert_eq!(header[4..8], original.0[4..8], "the same time");
        let sent_at = if at < 2 { [0x06, 0, 0] } else { [0x06, 0x66, 0x66] };
        assert_eq!(packet.extension(5), Some(&sent_at[..]), "a time of sending of its own");
        assert_eq!(packet.extension(6), Some(&b"v"[..]));
    }
    let stats = bench.router.sink_stats(bench.sink);
    assert_eq!((stats.packets, stats.retransmitted_packets, stats.rtx_ssrc), (3, 4, Some(33)));
    bench.run_to(2_300);
    let reports = bench.said(viewer, |one| match one {
        Rtcp::SenderReport { ssrc, info, .. } => Some((ssrc, info.packets, info.octets)),
        _ => None,
    });
    assert_eq!(reports[0], (22, 3, 3 * KEY.len() as u32));
}

#[test]
fn what_concerns_repetitions_themselves_is_understood_and_ignored() {
    let mut bench = Bench::new(source(), sink());
    bench.send(1, KEY);
    let (viewer, publisher) = (bench.viewer, bench.publisher);
    bench.rtcp(viewer, |bytes| {
        write_nack(bytes, 1, 33, &[65_535, 0]);
        let block = crate::rtp::rtcp::ReportBlock { ssrc: 33, lost: 5, ..Default::default() };
        write_receiver_report(bytes, 1, &[block]);
    });
    let info = SenderInfo { ntp: NtpTime::from_bits(1), timestamp: 1, packets: 1, octets: 1 };
    bench.rtcp(publisher, |bytes| write_sender_report(bytes, RTX_SSRC, &info, &[]));
    assert_eq!(bench.out.rtp.len(), 1);
    for peer in [viewer, publisher] {
        assert_eq!(bench.router.peer_stats(peer).unknown_ssrc, 0);
    }
    let stats = bench.router.sink_stats(bench.sink);
    assert_eq!((stats.nacks, stats.lost), (0, 0));
    assert_eq!(bench.router.take_drops().of(DropReason::RepetitionNacked), 1);
}

#[test]
fn a_payload_type_without_a_partner_is_repeated_in_its_own_stream() {
    let mut config = sink();
    config.rtx.as_mut().unwrap().formats.clear();
    let mut bench = Bench::new(source(), config);
    bench.send(1, KEY);
    bench.ms = 50;
    let viewer = bench.viewer;
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[500]));
    assert_eq!(bench.out.rtp[1], bench.out.rtp[0]);
}

#[test]
fn a_request_for_all_packets_there_are_costs_no_more_than_the_budget() {
    for config in [sink(), sink_config(Kind::Video, &[(100, VP8)])] {
        let mut bench = Bench::new(source(), config);
        let (packet, all) = ([KEY, &[7; 996]].concat(), (0..65_536).collect::<Vec<u64>>());
        for sequence in 0..1_000 {
            bench.ms += u64::from(sequence % 2);
            bench.send(sequence, &packet);
        }
        let viewer = bench.viewer;
        for _ in 0..20 {
            bench.ms += 25;
            bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &all));
        }
        let stats = bench.router.sink_stats(bench.sink);
        assert_eq!(stats.nacked_packets, 20 * 65_536);
        // A million bytes were sent in half a second.
        assert!((400_000..=500_000).contains(&stats.retransmitted_bytes), "{stats:?}");
        assert_eq!(bench.out.rtp.len() as u64, 1_000 + stats.retransmitted_packets);
        assert!(stats.drops.of(DropReason::RepeatBudget) > 400);
    }
}

/// Sinks with a stream of repetitions note little of what they sent.
#[test]
fn what_is_asked_for_too_late_is_counted_and_not_taken_for_what_came_since() {
    let mut bench = Bench::new(source(), sink());
    bench.send(0, KEY);
    for sequence in 1..1_100 {
        bench.send(sequence, INTER);
    }
    let (left, viewer) = (bench.out.rtp.len(), bench.viewer);
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[500, 575]));
    assert_eq!(bench.out.rtp.len(), left);
    assert_eq!(bench.dropped(DropReason::NotKept), 2);
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[576, 1_599]));
    let repeated: Vec<_> = bench.out.rtp[left..]
        .iter()
        .map(|(_, payload, _)| u16::from_be_bytes([payload[0], payload[1]]))
        .collect();
    assert_eq!(repeated, [576, 1_599]);
    bench.ms += 10;
    bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[1_599]));
    assert_eq!(bench.dropped(DropReason::RepeatedTooSoon), 1);
}
