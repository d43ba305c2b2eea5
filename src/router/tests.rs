use super::*;
use crate::rtp::{
    Codec, Extension, Extensions, Format, Kind,
    rtcp::{
        Rtcp, SenderInfo, packets, write_bye, write_fir, write_nack, write_receiver_report,
        write_sender_report,
    },
};
use std::time::Duration;

mod redundant;
mod rtx;
mod sending;
mod shares;
mod transport_wide;

const VP8: Format = Format { codec: Codec::Vp8, profile: 0 };
const VP9: Format = Format { codec: Codec::Vp9, profile: 0 };
const OPUS: Format = Format { codec: Codec::Opus, profile: 0 };
const PCMU: Format = Format { codec: Codec::Pcmu, profile: 0 };
const KEY: &[u8] = &[0x10, 0, 1, 2];
const INTER: &[u8] = &[0x10, 1, 1, 2];

/// Header, payload and index of each packet, and each compound packet.
#[derive(Default)]
struct Out {
    rtp: Vec<(Vec<u8>, Vec<u8>, u64)>,
    rtcp: Vec<(PeerKey, Vec<u8>)>,
}

impl Egress for Out {
    fn rtp(&mut self, _: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        self.rtp.push((header.to_vec(), payload.to_vec(), index));
    }

    fn rtcp(&mut self, to: PeerKey, compound: &[u8]) {
        self.rtcp.push((to, compound.to_vec()));
    }
}

struct Bench {
    router: Router,
    out: Out,
    start: Instant,
    ms: u64,
    /// Between the coming of a packet and now.
    waited: Duration,
    publisher: PeerKey,
    source: SourceKey,
    viewer: PeerKey,
    sink: SinkKey,
}

fn source_config(kind: Kind, formats: &[(u8, Format)]) -> SourceConfig {
    SourceConfig {
        kind,
        formats: formats.to_vec(),
        nack: true,
        pli: true,
        fir: true,
        remb: false,
        transport_cc: false,
        rtx: Vec::new(),
        rtx_ssrcs: Vec::new(),
        extensions: Extensions::default(),
        receiver_ssrc: 11,
        keyframe_cache: 0,
    }
}

fn sink_config(kind: Kind, formats: &[(u8, Format)]) -> SinkConfig {
    SinkConfig {
        kind,
        ssrc: 22,
        formats: formats.to_vec(),
        nack: true,
        rtx: None,
        extensions: Extensions::default(),
        transport_cc: false,
        mid: None,
        sequence_start: 500,
        timestamp_start: 9_000,
    }
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn new(source: SourceConfig, sink: SinkConfig) -> Self {
        let start = Instant::now();
        let mut router = Router::new(start);
        let config = PeerConfig { cname: "rivero".to_owned(), remb: true };
        let publisher = router.add_peer(start, config.clone());
        let viewer = router.add_peer(start, config);
        let source = router.add_source(publisher, source);
        let sink = router.add_sink(viewer, sink);
        router.set_route(start, sink, Some(source));
        Self {
            router,
            out: Out::default(),
            start,
            ms: 0,
            waited: Duration::ZERO,
            publisher,
            source,
            viewer,
            sink,
        }
    }

    fn video() -> Self {
        Self::new(
            source_config(Kind::Video, &[(96, VP8), (98, VP9)]),
            sink_config(Kind::Video, &[(100, VP8)]),
        )
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    fn ntp(&self) -> NtpTime {
        NtpTime::from_unix(Duration::from_millis(1_000_000 + self.ms))
    }

    fn send(&mut self, sequence: u16, payload: &[u8]) {
        self.send_as(96, 7, sequence, payload);
    }

    fn send_as(&mut self, payload_type: u8, ssrc: u32, sequence: u16, payload: &[u8]) {
        let mut bytes = vec![0x80, payload_type];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend((u32::from(sequence) * 3_000).to_be_bytes());
        bytes.extend(ssrc.to_be_bytes());
        bytes.extend(payload);
        self.send_bytes(&bytes);
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        let (now, packet) = (self.now(), RtpPacket::parse(bytes).unwrap());
        let times = (now, now - self.waited);
        self.router.forward(times, self.source, &packet, &mut self.out);
    }

    fn rtcp(&mut self, from: PeerKey, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        let (now, ntp) = (self.now(), self.ntp());
        self.router.handle_rtcp(now, ntp, from, &bytes, &mut self.out);
    }

    fn run_to(&mut self, ms: u64) {
        while self.ms < ms {
            self.ms += 1;
            let (now, ntp) = (self.now(), self.ntp());
            self.router.handle_timeout(now, ntp, &mut self.out);
        }
    }

    /// Low 16 bits of what left for the sink.
    fn sequences(&self) -> Vec<u16> {
        self.out.rtp.iter().map(|(header, ..)| u16::from_be_bytes([header[2], header[3]])).collect()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let source = self.router.source_stats(self.source).drops.of(reason);
        source + self.router.sink_stats(self.sink).drops.of(reason)
    }

    /// What was said to a peer, control packet by control packet.
    fn said<T>(&self, to: PeerKey, pick: impl Fn(Rtcp<'_>) -> Option<T>) -> Vec<T> {
        let to_peer = self.out.rtcp.iter().filter(|(peer, _)| *peer == to);
        to_peer.flat_map(|(_, bytes)| packets(bytes)).filter_map(|one| pick(one.unwrap())).collect()
    }
}

#[test]
fn the_header_that_leaves_is_our_own() {
    let mut config = sink_config(Kind::Video, &[(100, VP8)]);
    config.extensions.set(Extension::AbsSendTime, 5);
    let mut bench = Bench::new(source_config(Kind::Video, &[(96, VP8)]), config);
    bench.ms = 1_500;
    // One contributing source, one foreign extension, a marker, padding.
    let mut bytes = vec![0xb1, 0x80 | 96, 0, 9, 0, 0, 0, 50, 0, 0, 0, 7, 1, 2, 3, 4];
    bytes.extend([0xbe, 0xde, 0, 1, 0x12, 9, 9, 9]);
    bytes.extend(KEY);
    bytes.extend([0, 0, 0, 4]);
    bench.send_bytes(&bytes);
    let (header, payload, index) = &bench.out.rtp[0];
    let mut expected = vec![0x90, 0x80 | 100, 0x01, 0xf4, 0, 0, 0x23, 0x28, 0, 0, 0, 22];
    expected.extend([0xbe, 0xde, 0, 1, 0x52, 0x06, 0, 0]); // 1.5 s of 18-bit fractions
    assert_eq!((header, payload.as_slice(), *index), (&expected, KEY, 500));
}

#[test]
fn without_the_extension_the_header_has_twelve_bytes() {
    let mut bench = Bench::video();
    bench.send(1, KEY);
    assert_eq!(bench.out.rtp[0].0.len(), 12);
}

#[test]
fn what_a_sink_cannot_take_is_dropped_with_a_reason_and_leaves_no_gap() {
    let mut bench = Bench::video();
    bench.send(1, KEY);
    bench.send_as(98, 7, 2, &[0x88, 0x11, 0x82]);
    bench.send_as(55, 7, 3, &[1, 2, 3]);
    bench.send(4, KEY);
    assert_eq!(bench.sequences(), [500, 501]);
    assert_eq!(bench.dropped(DropReason::Format), 1);
    assert_eq!(bench.dropped(DropReason::UnknownPayloadType), 1);
}

#[test]
fn duplicates_and_strays_do_not_pass() {
    let mut bench = Bench::video();
    for sequence in [1, 2, 2, 1, 30_000, 3] {
        bench.send(sequence, KEY);
    }
    assert_eq!(bench.sequences(), [500, 501, 502]);
    assert_eq!(bench.dropped(DropReason::Duplicate), 2);
    assert_eq!(bench.dropped(DropReason::SequenceJump), 1);
}

#[test]
fn two_packets_after_a_jump_are_a_new_beginning() {
    let mut bench = Bench::video();
    bench.send(1, KEY);
    bench.send(30_000, KEY);
    bench.send(30_001, INTER);
    bench.send(30_002, KEY);
    assert_eq!(bench.sequences(), [500, 501]);
    assert_eq!(bench.dropped(DropReason::WaitingForKeyframe), 1);
}

#[test]
fn packets_of_a_former_ssrc_do_not_bring_it_back() {
    let mut bench = Bench::video();
    bench.send_as(96, 7, 1, KEY);
    bench.send_as(96, 8, 900, KEY);
    bench.send_as(96, 7, 2, INTER);
    bench.send_as(96, 8, 901, INTER);
    assert_eq!(bench.sequences(), [500, 501, 502]);
    assert_eq!(bench.dropped(DropReason::FormerSsrc), 1);
    assert_eq!(bench.router.source_stats(bench.source).ssrc, Some(8));
}

#[test]
fn of_several_ssrcs_at_a_time_one_stays_until_it_falls_silent() {
    let mut bench = Bench::video();
    for number in 0..50 {
        for ssrc in [7, 8, 9] {
            bench.send_as(96, ssrc, number, KEY);
        }
        bench.ms += 20;
    }
    assert_eq!(bench.sequences(), (500..552).collect::<Vec<u16>>());
    assert_eq!(bench.dropped(DropReason::FormerSsrc), 98);
    assert_eq!(bench.router.source_stats(bench.source).ssrc, Some(9));
    bench.ms += 1_000;
    bench.send_as(96, 7, 50, KEY);
    assert_eq!(bench.router.source_stats(bench.source).ssrc, Some(7));
}

#[test]
fn a_nack_is_answered_with_the_same_bytes_once_per_round_trip() {
    let mut config = sink_config(Kind::Video, &[(100, VP8)]);
    config.extensions.set(Extension::AbsSendTime, 1);
    let mut bench = Bench::new(source_config(Kind::Video, &[(96, VP8)]), config);
    for sequence in 0..3 {
        bench.send(sequence, KEY);
    }
    let viewer = bench.viewer;
    for ms in [10, 15, 40] {
        bench.ms = ms;
        bench.rtcp(viewer, |bytes| write_nack(bytes, 1, 22, &[501, 400]));
    }
    assert_eq!(bench.sequences(), [500, 501, 502, 501, 501]);
    assert_eq!(bench.out.rtp[3], bench.out.rtp[1]);
    assert_eq!(bench.out.rtp[4], bench.out.rtp[1]);
    assert_eq!(bench.dropped(DropReason::RepeatedTooSoon), 1);
    assert_eq!(bench.dropped(DropReason::NotKept), 3);
    let stats = bench.router.sink_stats(bench.sink);
    assert_eq!((stats.nacks, stats.nacked_packets), (3, 6));
    assert_eq!((stats.packets, stats.retransmitted_packets), (3, 2));
}

#[test]
fn a_loss_before_us_stays_a_gap_until_it_is_filled() {
    let mut bench = Bench::video();
    bench.send(10, KEY);
    bench.send(12, INTER);
    bench.run_to(6);
    let publisher = bench.publisher;
    let asked = bench.said(publisher, |one| match one {
        Rtcp::Nack { sender: 11, media: 7, lost } => Some(lost.collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(asked, [vec![11]]);
    bench.send(11, INTER);
    assert_eq!(bench.sequences(), [500, 502, 501]);
    bench.run_to(400);
    assert_eq!(bench.router.source_stats(bench.source).nacks, 1);
}

#[test]
fn what_was_sent_while_the_way_was_cut_is_not_asked_for_but_a_fresh_start_is() {
    // How long nothing came, how many packets were missed, and whether they are asked for.
    for (quiet, missed, repaired) in [(2_500, 50, false), (900, 18, true), (2_500, 7, true)] {
        let mut bench = Bench::video();
        bench.send(10, KEY);
        bench.send(11, INTER);
        bench.run_to(quiet);
        bench.send(12 + missed, INTER);
        bench.run_to(quiet + 200);
        let stats = bench.router.source_stats(bench.source);
        assert_eq!((stats.nacks > 0, stats.plis > 0), (repaired, !repaired), "{quiet} {missed}");
        bench.send(13 + missed, KEY);
        assert_eq!(bench.sequences().last(), Some(&(503 + missed)));
    }
}

#[test]
fn a_keyframe_whose_start_comes_late_is_sent_whole() {
    let mut bench = Bench::video();
    let rest = [0x00, 0, 1];
    bench.send(9, INTER);
    bench.send(11, &rest);
    bench.send(12, &rest);
    assert!(bench.out.rtp.is_empty());
    bench.send(10, KEY);
    assert_eq!(bench.sequences(), [500, 501, 502]);
}

#[test]
fn a_gap_that_turns_out_to_be_padding_is_filled_with_nothing() {
    let mut bench = Bench::video();
    bench.send(1, KEY);
    bench.send(3, INTER);
    bench.send(2, &[]);
    bench.send(4, &[]);
    bench.send(5, INTER);
    assert_eq!(bench.sequences(), [500, 502, 501, 503]);
    assert!(bench.out.rtp[2].1.is_empty());
}

#[test]
fn keyframes_are_asked_for_by_the_means_that_was_negotiated() {
    for (pli, fir, plis, firs) in [(true, true, 2, 0), (false, true, 0, 2), (false, false, 0, 0)] {
        let mut config = source_config(Kind::Video, &[(96, VP8)]);
        (config.pli, config.fir) = (pli, fir);
        let mut bench = Bench::new(config, sink_config(Kind::Video, &[(96, VP8)]));
        bench.send(1, INTER);
        bench.run_to(900);
        let publisher = bench.publisher;
        let commands = bench.said(publisher, |one| match one {
            Rtcp::Fir { entries, .. } => Some(entries.collect::<Vec<_>>()),
            _ => None,
        });
        if firs > 0 {
            assert_eq!(commands, [vec![(7, 1)], vec![(7, 2)]]);
        }
        let stats = bench.router.source_stats(bench.source);
        assert_eq!((stats.plis, stats.firs), (plis, firs));
    }
}

#[test]
fn the_pace_of_requests_counts_from_those_that_left() {
    // Wanted from the start, due when nobody knew whom to ask, and then due again soon.
    for first in [1, 250, 499, 770] {
        let mut bench = Bench::video();
        bench.run_to(first);
        bench.send(1, INTER);
        let mut left = vec![];
        let publisher = bench.publisher;
        while bench.ms < first + 3_000 {
            bench.run_to(bench.ms + 1);
            let plis = bench.said(publisher, |one| matches!(one, Rtcp::Pli { .. }).then_some(()));
            if plis.len() > left.len() {
                left.push(bench.ms);
            }
        }
        assert!(left.len() >= 5 && left[0] <= first + 1, "{left:?}");
        assert!(left.windows(2).all(|pair| pair[1] - pair[0] >= 499), "{left:?}");
    }
}

#[test]
fn a_fir_of_a_viewer_reaches_the_publisher() {
    let mut bench = Bench::video();
    bench.send(1, KEY);
    bench.run_to(600);
    let (viewer, publisher) = (bench.viewer, bench.publisher);
    bench.rtcp(viewer, |bytes| write_fir(bytes, 1, 22, 9));
    let plis = bench.said(publisher, |one| matches!(one, Rtcp::Pli { .. }).then_some(()));
    assert_eq!(plis.len(), 1);
    assert_eq!(bench.router.sink_stats(bench.sink).firs, 1);
}

#[test]
fn a_route_asks_for_a_keyframe_at_once() {
    let mut bench = Bench::video();
    let now = bench.now();
    assert_eq!(bench.router.poll_timeout(), Some(now));
    let ntp = bench.ntp();
    bench.router.handle_timeout(now, ntp, &mut bench.out);
    assert!(bench.router.poll_timeout().is_some_and(|at| at > now));
}

#[test]
fn another_clock_rate_starts_a_new_epoch() {
    let mut config = sink_config(Kind::Audio, &[(111, OPUS), (0, PCMU)]);
    config.nack = false;
    let mut bench = Bench::new(source_config(Kind::Audio, &[(111, OPUS), (0, PCMU)]), config);
    bench.send_as(111, 7, 1, &[1]);
    bench.ms = 20;
    bench.send_as(0, 7, 2, &[1]);
    let stamps: Vec<_> =
        bench.out.rtp.iter().map(|(header, ..)| (header[1], header[4..8].to_vec())).collect();
    let (first, second) = (9_000u32, 9_000u32 + 160);
    assert_eq!(stamps[0], (111, first.to_be_bytes().to_vec()));
    assert_eq!(stamps[1], (0, second.to_be_bytes().to_vec()));
    assert_eq!(bench.sequences(), [500, 501]);
}

#[test]
fn reports_name_us_and_answer_the_sender() {
    let mut bench = Bench::video();
    bench.send(1, KEY);
    bench.ms = 100;
    let sent = NtpTime::from_bits(0x1234_5678_9abc_def0);
    let info = SenderInfo { ntp: sent, timestamp: 3_000 + 9_000, packets: 1, octets: 4 };
    let (publisher, viewer) = (bench.publisher, bench.viewer);
    bench.rtcp(publisher, |bytes| write_sender_report(bytes, 7, &info, &[]));
    bench.run_to(620);
    let (ntp_at_sr, rate) = (NtpTime::from_unix(Duration::from_millis(1_000_100)), 90.0);
    let blocks = bench.said(publisher, |one| match one {
        Rtcp::ReceiverReport { ssrc: 11, mut blocks } => blocks.next(),
        _ => None,
    });
    assert_eq!((blocks[0].ssrc, blocks[0].highest, blocks[0].last_sr), (7, 1, 0x5678_9abc));
    let since = (u64::from(blocks[0].since_sr) * 1_000) >> 16;
    assert!((299..=500).contains(&since), "{since}");
    let reports = bench.said(viewer, |one| match one {
        Rtcp::SenderReport { ssrc: 22, info, .. } => Some(info),
        _ => None,
    });
    // The sender was at 12 000 when its report came, 100 ms after its packet of 3 000 was sent.
    let passed = reports[0].ntp.minus(ntp_at_sr) as f64 / 4_294_967.296;
    let expected = 9_000.0 + 9_000.0 + passed * rate;
    assert!((f64::from(reports[0].timestamp) - expected).abs() < 2.0);
    assert_eq!((reports[0].packets, reports[0].octets), (1, KEY.len() as u32));
    let names = bench.said(viewer, |one| match one {
        Rtcp::Sdes { mut chunks } => chunks.next().and_then(|(_, name)| name.map(<[u8]>::to_vec)),
        _ => None,
    });
    assert_eq!(names[0], b"rivero");
}

#[test]
fn remb_is_sent_only_where_it_was_negotiated() {
    for remb in [true, false] {
        let mut config = source_config(Kind::Video, &[(96, VP8)]);
        config.remb = remb;
        let mut bench = Bench::new(config, sink_config(Kind::Video, &[(96, VP8)]));
        bench.send(1, KEY);
        bench.run_to(700);
        let publisher = bench.publisher;
        let told = bench.said(publisher, |one| match one {
            Rtcp::Remb { sender: 11, bitrate, .. } => Some(bitrate.kbps()),
            _ => None,
        });
        assert_eq!(told, if remb { vec![2_000] } else { vec![] });
    }
}

#[test]
fn a_receiver_without_streams_can_say_goodbye() {
    let mut bench = Bench::video();
    let viewer = bench.viewer;
    bench.rtcp(viewer, |bytes| write_receiver_report(bytes, 1, &[]));
    bench.rtcp(viewer, |bytes| write_bye(bytes, &[5]));
    bench.rtcp(viewer, |bytes| write_bye(bytes, &[1]));
    assert_eq!(bench.router.poll_event(), Some(RouterEvent::FirstRtcp(viewer)));
    assert_eq!(bench.router.poll_event(), Some(RouterEvent::Bye(viewer)));
    assert_eq!(bench.router.poll_event(), None);
    assert_eq!(bench.router.peer_stats(viewer).unknown_ssrc, 1);
}

#[test]
fn a_sink_without_a_source_gets_nothing_and_a_removed_one_is_no_trouble() {
    let mut bench = Bench::video();
    bench.send(1, KEY);
    let (now, sink) = (bench.now(), bench.sink);
    bench.router.set_route(now, sink, None);
    bench.send(2, KEY);
    assert_eq!(bench.sequences(), [500]);
    bench.router.remove_peer(bench.publisher);
    bench.send(3, KEY);
    bench.router.set_route(now, sink, Some(bench.source));
    bench.router.remove_sink(sink);
    bench.router.set_route(now, sink, None);
    bench.run_to(1_000);
    assert_eq!(bench.router.source_stats(bench.source).packets, 0);
}

proptest::proptest! {
    /// Whatever a peer sends, in whatever order, nothing breaks, and what leaves keeps the rule
    /// that an index belongs to one packet.
    #[test]
    fn no_input_breaks_the_router(
        inputs in proptest::collection::vec((0u8..9, proptest::prelude::any::<u16>(), 0u64..80), 1..200),
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
    ) {
        let mut bench = transport_wide::bench_with_repetitions();
        let (publisher, viewer) = (bench.publisher, bench.viewer);
        for (kind, number, ms) in inputs {
            let near = number % 64;
            match kind {
                0 => bench.send(near, KEY),
                1 => bench.send(near, INTER),
                2 => bench.send(near, &[]),
                3 => bench.send_as(96, u32::from(number % 3), number, KEY),
                4 => bench.rtcp(viewer, |bytes| {
                    for ssrc in [22, 23, 44] {
                        write_nack(bytes, 1, ssrc, &[u64::from(near) + 500, u64::from(number)]);
                    }
                    bytes.extend([0x80 | near as u8 & 0x1f, 200 + number as u8 % 8, 0, 15]);
                    bytes.extend(&noise);
                }),
                5 => bench.send_as(97, 8, near, &[&number.to_be_bytes()[..], &noise].concat()),
                6 => bench.send_numbered(near, number),
                7 => bench.rtcp(viewer, |bytes| {
                    bytes.extend([0x8f, 205, 0, (2 + noise.len() / 4) as u8, 0, 0, 0, 1, 0, 0, 0, 22]);
                    bytes.extend(&noise[..noise.len() / 4 * 4]);
                }),
                _ => bench.rtcp(publisher, |bytes| bytes.extend(&noise)),
            }
            bench.run_to(bench.ms + ms % 9);
        }
        let mut first = std::collections::HashMap::new();
        for (header, payload, index) in &bench.out.rtp {
            let before = first.entry((&header[8..12], *index)).or_insert((header, payload));
            proptest::prop_assert_eq!(*before, (header, payload));
        }
    }
}

/// A source of which a new sink gets up to 3 000 bytes at once.
fn with_keyframe_cache() -> Bench {
    let source = SourceConfig {
        keyframe_cache: 3_000,
        ..source_config(Kind::Video, &[(96, VP8), (98, VP9)])
    };
    Bench::new(source, sink_config(Kind::Video, &[(100, VP8)]))
}

/// Another viewer that is connected now; how many packets it has got at once, and requests for keyframes.
fn joins(bench: &mut Bench) -> (usize, usize) {
    let (now, before) = (bench.now(), bench.out.rtp.len());
    let asked = |bench: &Bench| {
        bench.said(bench.publisher, |one| matches!(one, Rtcp::Pli { .. }).then_some(())).len()
    };
    let asked_before = asked(bench);
    let config = PeerConfig { cname: "rivero".to_owned(), remb: true };
    let viewer = bench.router.add_peer(now, config);
    let sink = bench.router.add_sink(viewer, sink_config(Kind::Video, &[(100, VP8)]));
    bench.router.set_route(now, sink, Some(bench.source));
    bench.run_to(bench.ms + 1);
    let got = bench.out.rtp[before..].iter().map(|(_, payload, _)| payload.clone());
    let got: Vec<_> = got.collect();
    assert!(got.is_empty() || got[0] == KEY, "it begins with the keyframe");
    (got.len(), asked(bench) - asked_before)
}

#[test]
fn a_new_viewer_gets_what_is_there_since_the_last_keyframe() {
    let mut bench = with_keyframe_cache();
    bench.send(1, KEY);
    for sequence in 2..=20 {
        bench.ms += 33;
        bench.send(sequence, &[0x10, 1, sequence as u8]);
    }
    assert_eq!(joins(&mut bench), (20, 0));
    // From then on it gets what the others get.
    let before = bench.out.rtp.len();
    bench.send(21, &[0x10, 1, 21]);
    assert_eq!(bench.out.rtp.len() - before, 2);
}

#[test]
fn what_is_too_much_or_has_holes_is_not_begun_with() {
    let mut bench = with_keyframe_cache();
    assert_eq!(joins(&mut bench), (0, 0), "nothing came yet, so nobody can be asked");
    bench.send(1, KEY);
    bench.send(2, &[0x10, 1, 2]);
    bench.send(4, &[0x10, 1, 4]);
    bench.ms += 1_000;
    assert_eq!(joins(&mut bench), (0, 1), "the third is missing");
    bench.send(3, &[0x10, 1, 3]);
    bench.send(5, KEY);
    assert_eq!(joins(&mut bench), (1, 0));
    for sequence in 6..=9 {
        bench.send(sequence, &[0x11; 1_000]);
    }
    bench.ms += 1_000;
    assert_eq!(joins(&mut bench), (0, 1), "more than 3 000 bytes");
}

#[test]
fn a_viewer_who_was_expected_finds_its_keyframe_there() {
    let mut bench = Bench::video();
    let (now, asked) = (bench.now(), |bench: &Bench| {
        bench.said(bench.publisher, |one| matches!(one, Rtcp::Pli { .. }).then_some(())).len()
    });
    bench.send(1, KEY);
    bench.run_to(5_000);
    let viewer = bench.router.add_peer(now, PeerConfig { cname: "rivero".to_owned(), remb: true });
    let sink = bench.router.add_sink(viewer, sink_config(Kind::Video, &[(100, VP8)]));
    bench.router.set_active(now, sink, false);
    bench.router.set_route(now, sink, Some(bench.source));
    bench.run_to(5_010);
    assert_eq!(asked(&bench), 0, "it cannot take anything yet");
    bench.router.expect(bench.now(), sink);
    bench.run_to(5_020);
    assert_eq!(asked(&bench), 1);
    bench.send(2, KEY);
    bench.run_to(5_100);
    bench.send(3, INTER);
    let before = bench.out.rtp.len();
    bench.router.set_active(bench.now(), sink, true);
    // What comes before the timer does goes after what was there.
    bench.send(4, INTER);
    let got: Vec<_> = bench.out.rtp[before..].iter().map(|(_, payload, _)| &payload[..]).collect();
    assert_eq!(
        got,
        [KEY, INTER, INTER, INTER],
        "three for the new one, and the last for the other"
    );
    bench.run_to(6_000);
    assert_eq!(asked(&bench), 1);
}
