//! Batches, and sinks that others than the router's own thread serve.

use super::*;
use std::collections::BTreeMap;

type Sent = (Vec<u8>, Vec<u8>, u64);

/// What left to each party.
#[derive(Default)]
struct Parties {
    sent: BTreeMap<PeerKey, Vec<Sent>>,
    rtcp: usize,
    /// What leaves to this one leaves from here only.
    kept: Option<PeerKey>,
}

#[derive(Default)]
struct Lane(Vec<Sent>);

impl Egress for Parties {
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        let sent = (header.to_vec(), payload.to_vec(), index);
        self.sent.entry(to).or_default().push(sent);
    }

    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {
        self.rtcp += 1;
    }
}

impl Way for Lane {
    type Out = ();

    fn rtp(&mut self, header: &[u8], payload: &[u8], index: u64, (): &mut ()) {
        self.0.push((header.to_vec(), payload.to_vec(), index));
    }
}

impl Lender for Parties {
    type Way = Lane;

    fn flush(&mut self) {}

    fn lend(&mut self, to: PeerKey) -> Option<Lane> {
        (self.kept != Some(to)).then(Lane::default)
    }

    fn give_back(&mut self, to: PeerKey, way: Lane) {
        self.sent.entry(to).or_default().extend(way.0);
    }
}

/// A thread for each share; they come back in the opposite order.
#[derive(Default)]
struct Threads {
    offered: Vec<Share<Lane>>,
    shares: usize,
}

impl Crew<Lane> for Threads {
    fn begin(&mut self) -> bool {
        true
    }

    fn empty(&mut self) -> Share<Lane> {
        Share::default()
    }

    fn offer(&mut self, share: Share<Lane>) {
        self.shares += 1;
        self.offered.push(share);
    }

    fn served(&mut self) -> Option<Share<Lane>> {
        let mut share = self.offered.pop()?;
        let serve = move || {
            share.serve(&mut ());
            share
        };
        std::thread::spawn(serve).join().ok()
    }

    fn keep(&mut self, _: Share<Lane>) {}
}

/// A publisher of video and a hundred viewers; the fourth takes it twice.
struct Crowd {
    router: Router,
    start: Instant,
    source: SourceKey,
    viewers: Vec<PeerKey>,
    sinks: Vec<SinkKey>,
    out: Parties,
}

impl Crowd {
    fn new(start: Instant) -> Self {
        let mut router = Router::new(start);
        let config = PeerConfig { cname: "rivero".to_owned(), remb: true };
        let publisher = router.add_peer(start, config.clone());
        let source =
            router.add_source(publisher, source_config(Kind::Video, &[(96, VP8), (98, VP9)]));
        let mut crowd =
            Self { router, start, source, viewers: vec![], sinks: vec![], out: Parties::default() };
        for number in 0..100 {
            let viewer = crowd.router.add_peer(start, config.clone());
            crowd.viewers.push(viewer);
            crowd.add_sink(viewer, number);
        }
        crowd.add_sink(crowd.viewers[3], 100);
        crowd.out.kept = Some(crowd.viewers[7]);
        crowd
    }

    fn add_sink(&mut self, viewer: PeerKey, number: u32) {
        let mut config = sink_config(Kind::Video, &[(100, VP8)]);
        config.ssrc += number;
        config.transport_cc = true;
        config.extensions.set(Extension::TransportSequence, 3);
        let sink = self.router.add_sink(viewer, config);
        self.router.set_route(self.start, sink, Some(self.source));
        self.sinks.push(sink);
    }

    fn take(&mut self, ms: u64, sequence: u16, payload: &[u8]) {
        let mut bytes = vec![0x80, 96];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend((u32::from(sequence) * 3_000).to_be_bytes());
        bytes.extend([0, 0, 0, 7]);
        bytes.extend(payload);
        let packet = RtpPacket::parse(&bytes).unwrap();
        let now = self.start + Duration::from_millis(ms);
        self.router.take(now, self.source, &packet, &mut self.out);
    }
}

#[test]
fn whoever_serves_a_sink_it_gets_the_same() {
    let start = Bench::video().start;
    let run = |deliver: &mut dyn FnMut(&mut Router, &mut Parties)| {
        let mut crowd = Crowd::new(start);
        for (batch, numbers) in [1..5, 5..6, 6..30].into_iter().enumerate() {
            for sequence in numbers {
                let payload = if sequence == 2 { KEY } else { INTER };
                crowd.take(20 * batch as u64, sequence, payload);
            }
            deliver(&mut crowd.router, &mut crowd.out);
        }
        // Somebody waits for a keyframe, which two others overtake.
        for sink in [0, 7, 50] {
            crowd.router.set_active(start, crowd.sinks[sink], false);
            crowd.router.set_active(start, crowd.sinks[sink], true);
        }
        for (sequence, payload) in [(32, INTER), (31, INTER), (30, KEY), (33, INTER)] {
            crowd.take(80, sequence, payload);
        }
        deliver(&mut crowd.router, &mut crowd.out);
        let stats: Vec<_> =
            crowd.sinks.iter().map(|one| crowd.router.sink_stats(*one).packets).collect();
        (crowd.out.sent, crowd.out.rtcp, stats)
    };
    let alone = run(&mut |router, out| router.deliver(out));
    let mut crew = Threads::default();
    let shared = run(&mut |router, out| router.deliver_with(out, &mut crew));
    // Of four batches one has too few packets to be worth it.
    assert_eq!(crew.shares, 3 * 7);
    assert_eq!(alone.2[1..3], [32, 32]);
    assert!(alone == shared);
}

#[test]
fn what_was_asked_for_while_it_waited_leaves_once() {
    let mut bench = Bench::video();
    for (sequence, payload) in [(1, KEY), (2, INTER), (4, INTER)] {
        bench.send(sequence, payload);
    }
    let mut late = vec![0x80, 96, 0, 3];
    late.extend([0, 0, 35, 40, 0, 0, 0, 7]);
    late.extend(INTER);
    let now = bench.now();
    let packet = RtpPacket::parse(&late).unwrap();
    bench.router.take(now, bench.source, &packet, &mut bench.out);
    assert_eq!(bench.sequences(), [500, 501, 503]);
    bench.rtcp(bench.viewer, |out| {
        write_receiver_report(out, 1, &[]);
        write_nack(out, 1, 22, &[502]);
    });
    assert_eq!(bench.sequences(), [500, 501, 503, 502]);
    bench.router.deliver(&mut bench.out);
    assert_eq!(bench.sequences(), [500, 501, 503, 502]);
    assert_eq!(bench.dropped(DropReason::Duplicate), 1);
}
