//! What one forwarded packet costs: 1 200 bytes of video through the real router to 100 sinks, each
//! with a header of its own and sealed as SRTP with AES-128-GCM (RFC 7714), without sockets; and what it
//! costs with viewers who tell of each packet, so that what goes to them is estimated and paced. Proves
//! on the way that forwarding allocates nothing.
//!
//! And how much faster a picture gets to 400 viewers, sockets included, when a second thread helps.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rivero::{
    pipeline::{Helpers, LentWay},
    router::{
        Alone, Crew, Egress, Lender, PeerConfig, PeerKey, Router, SinkConfig, SourceConfig,
        SourceKey,
    },
    rtp::{
        Codec, Extension, Extensions, Format, Kind, NtpTime, RtpPacket,
        rtcp::write_receiver_report, transport_feedback::Writer,
    },
    transport::{
        srtp::{Profile, Sender},
        udp::{SendBatch, UdpSocket},
    },
};
use slotmap::SecondaryMap;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

const PAYLOAD: usize = 1_200;
const SLOT: usize = 1_500;
/// Of the first sink; the others follow.
const SSRC: u32 = 1_000;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes unchanged to the system's allocator, whose promises are these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above, with the caller's promise about `size`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Seals into the slots of a batch, as a worker does before it hands them to the kernel.
struct SealingEgress {
    senders: SecondaryMap<PeerKey, Sender>,
    slots: Vec<[u8; SLOT]>,
    next: usize,
    bytes: u64,
    packets: u64,
}

impl Egress for SealingEgress {
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        let slot = &mut self.slots[self.next];
        self.next = (self.next + 1) % 32;
        let sealed = self.senders[to].seal_rtp(header, payload, index, slot);
        self.bytes += sealed.expect("an index that was not used yet") as u64;
        self.packets += 1;
    }

    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
}

/// Sends over loopback, to sockets that nobody reads.
struct SendingEgress {
    socket: UdpSocket,
    batch: SendBatch,
    parties: SecondaryMap<PeerKey, (Option<Box<Sender>>, SocketAddr)>,
    /// Kept so that somebody is there.
    _viewers: Vec<std::net::UdpSocket>,
}

impl SendingEgress {
    fn new(fan: &Fan) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (mut parties, mut viewers) = (SecondaryMap::new(), Vec::new());
        for (peer, sender) in sealing(fan).senders {
            let viewer = std::net::UdpSocket::bind(any).expect("a free port");
            let address = viewer.local_addr().expect("a bound socket");
            parties.insert(peer, (Some(Box::new(sender)), address));
            viewers.push(viewer);
        }
        let socket = UdpSocket::bind(any).expect("a free port");
        Self { socket, batch: SendBatch::new(), parties, _viewers: viewers }
    }
}

impl Egress for SendingEgress {
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        if self.batch.is_full() {
            self.batch.flush(&self.socket);
        }
        let (sender, address) = &mut self.parties[to];
        let sender = sender.as_mut().expect("a sender that is not lent");
        let sealed = sender.seal_rtp(header, payload, index, self.batch.slot());
        self.batch.commit(sealed.expect("an index that was not used yet"), *address);
    }

    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
}

impl Lender for SendingEgress {
    type Way = LentWay;

    fn flush(&mut self) {
        self.batch.flush(&self.socket);
    }

    fn lend(&mut self, to: PeerKey) -> Option<LentWay> {
        let (sender, address) = &mut self.parties[to];
        Some(LentWay::new(sender.take()?, 0, self.socket.local_addr(), *address))
    }

    fn give_back(&mut self, to: PeerKey, way: LentWay) {
        let (sender, unsent) = way.into_sender();
        assert_eq!(unsent, 0, "an index that was not used yet");
        self.parties[to].0 = Some(sender);
    }
}

/// Counts only: what is left is the router.
#[derive(Default)]
struct CountingEgress {
    bytes: u64,
}

impl Egress for CountingEgress {
    fn rtp(&mut self, _: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        self.bytes += (black_box(header).len() + black_box(payload).len()) as u64 + (index & 1);
    }

    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
}

/// Notes when packets left for each viewer, in ticks of 250 µs.
struct Noting {
    tick: u32,
    left: Vec<Vec<u32>>,
}

impl Egress for Noting {
    fn rtp(&mut self, _: PeerKey, header: &[u8], payload: &[u8], _: u64) {
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        self.left[(ssrc - SSRC) as usize].push(self.tick);
        black_box(payload);
    }

    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
}

/// A router with one publisher and its viewers, and the packet that is sent again and again under
/// ascending numbers.
struct Fan {
    router: Router,
    source: SourceKey,
    viewers: Vec<PeerKey>,
    packet: Vec<u8>,
    sequence: u32,
    now: Instant,
}

impl Fan {
    fn new(sinks: u32) -> Self {
        Self::with(sinks, false)
    }

    /// With `numbered`, packets have a number of their transport and the name of their section too.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin")]
    fn with(sinks: u32, numbered: bool) -> Self {
        let now = Instant::now();
        let mut extensions = Extensions::default();
        extensions.set(Extension::AbsSendTime, 3);
        if numbered {
            extensions.set(Extension::TransportSequence, 4);
            extensions.set(Extension::Mid, 5);
        }
        let mut router = Router::new(now);
        let formats = vec![(96, Format::new(Codec::Vp8, ""))];
        let config = |cname: &str| PeerConfig { cname: cname.to_owned(), remb: true };
        let publisher = router.add_peer(now, config("publisher"));
        let source = router.add_source(
            publisher,
            SourceConfig {
                kind: Kind::Video,
                formats: formats.clone(),
                nack: true,
                pli: true,
                fir: true,
                remb: true,
                transport_cc: false,
                rtx: Vec::new(),
                rtx_ssrcs: Vec::new(),
                extensions,
                receiver_ssrc: 1,
                keyframe_cache: 0,
            },
        );
        let viewers = (0..sinks).map(|number| {
            let peer = router.add_peer(now, config("viewer"));
            let sink = router.add_sink(
                peer,
                SinkConfig {
                    kind: Kind::Video,
                    ssrc: SSRC + number,
                    formats: formats.clone(),
                    nack: true,
                    rtx: None,
                    extensions,
                    transport_cc: numbered,
                    mid: Some("video0".to_owned()),
                    // As far apart as random ones, so that sinks do not share cache sets.
                    sequence_start: (number as u16).wrapping_mul(40_503),
                    timestamp_start: number,
                },
            );
            router.set_route(now, sink, Some(source));
            peer
        });
        let viewers = viewers.collect();
        let mut packet = vec![0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet.extend([0x10, 0x00]);
        packet.resize(12 + PAYLOAD, 0xab);
        Self { router, source, viewers, packet, sequence: 0, now }
    }

    /// One packet, a third of a millisecond after the one before: 29 Mbit/s.
    fn forward(&mut self, out: &mut impl Egress) {
        self.take(out);
        self.router.deliver(out);
    }

    fn take(&mut self, out: &mut impl Egress) {
        self.now += Duration::from_micros(333);
        self.sequence += 1;
        self.packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        self.packet[4..8].copy_from_slice(&(self.sequence * 30).to_be_bytes());
        // Only the first packet is a keyframe's.
        self.packet[13] = u8::from(self.sequence > 1);
        let packet = RtpPacket::parse(&self.packet).expect("a well-formed packet");
        self.router.take(self.now, self.source, &packet, out);
    }

    fn timeout(&mut self, out: &mut impl Egress) {
        let ntp = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        self.router.handle_timeout(self.now, ntp, out);
    }
}

fn sealing(fan: &Fan) -> SealingEgress {
    let mut senders = SecondaryMap::new();
    for (number, &peer) in fan.viewers.iter().enumerate() {
        let sender = Sender::new(Profile::AeadAes128Gcm, &[number as u8; 16], &[0x5a; 12]);
        senders.insert(peer, sender.expect("a key of 16 and a salt of 12 bytes"));
    }
    SealingEgress { senders, slots: vec![[0; SLOT]; 32], next: 0, bytes: 0, packets: 0 }
}

/// CPU time of this thread: what it costs, however busy the machine is.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux, and `time` is a timespec to write to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the thread's clock can be read");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Forwards until buffers have grown, then counts allocations and CPU time.
fn prove_no_allocation(name: &str, sinks: u32, fan: &mut Fan, out: &mut impl Egress) {
    const PACKETS: u64 = 20_000;
    for _ in 0..10_000 {
        fan.forward(out);
    }
    fan.timeout(out);
    let (allocated, started) = (ALLOCATIONS.load(Ordering::Relaxed), cpu_time());
    for _ in 0..PACKETS {
        fan.forward(out);
    }
    let took = cpu_time() - started;
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocated;
    assert_eq!(allocations, 0, "forwarding must not allocate");
    let each = took.as_nanos() as f64 / (PACKETS * u64::from(sinks)) as f64;
    println!("{name}, {sinks} sinks: {each:.1} ns of CPU per sink, {allocations} allocations");
}

/// Pictures of eight packets each 33 ms, of which each viewer tells 66 ms later. Counts all that the router
/// does: forwarding, estimating, pacing, sharing and reporting.
fn told_of_each_packet(sinks: u32) {
    const PICTURE: u32 = 8;
    const PICTURES: u32 = 1_500;
    let mut fan = Fan::with(sinks, true);
    let (start, count) = (fan.now, sinks as usize);
    let left = (0..sinks).map(|_| Vec::with_capacity(1_000)).collect();
    let (mut out, mut told) = (Noting { tick: 0, left }, vec![0u64; count]);
    let (mut writer, mut message) = (Writer::default(), Vec::with_capacity(2_000));
    let (mut took, mut allocated) = (Duration::ZERO, 0);
    for picture in 0..2 * PICTURES {
        let mut measure = |work: &mut dyn FnMut()| {
            let (before, started) = (ALLOCATIONS.load(Ordering::Relaxed), cpu_time());
            work();
            if picture >= PICTURES {
                took += cpu_time() - started;
                allocated += ALLOCATIONS.load(Ordering::Relaxed) - before;
            }
        };
        measure(&mut || {
            for _ in 0..PICTURE {
                out.tick = ((fan.now - start).as_micros() / 250) as u32;
                fan.forward(&mut out);
            }
            for _ in 0..30 {
                fan.now += Duration::from_millis(1);
                out.tick = ((fan.now - start).as_micros() / 250) as u32;
                if fan.router.poll_timeout().is_some_and(|due| due <= fan.now) {
                    fan.timeout(&mut out);
                }
            }
        });
        if picture % 2 == 0 {
            continue;
        }
        for (number, &viewer) in fan.viewers.iter().enumerate() {
            message.clear();
            write_receiver_report(&mut message, 1, &[]);
            // A way of 20 ms, over which packets come one after the other.
            let mut last = 0;
            for tick in &mut out.left[number] {
                last = (*tick + 80).max(last + 1);
                *tick = last;
            }
            let statuses = out.left[number].iter().map(|tick| Some(*tick));
            let (ssrc, first) = (SSRC + number as u32, told[number] as u16);
            told[number] +=
                writer.write(&mut message, 1, ssrc, (picture / 2) as u8, first, statuses) as u64;
            out.left[number].clear();
            let (now, ntp) = (fan.now, NtpTime::from_unix(Duration::from_secs(1_700_000_000)));
            measure(&mut || fan.router.handle_rtcp(now, ntp, viewer, &message, &mut out));
        }
    }
    assert_eq!(allocated, 0, "estimating must not allocate");
    let each = took.as_nanos() as f64 / f64::from(PICTURES * PICTURE * sinks);
    println!("router alone, told of each packet, {sinks} sinks: {each:.1} ns of CPU per sink");
}

/// How long it takes until pictures of eight packets each have left to many viewers, with nobody's help and
/// with a helper's.
#[expect(clippy::disallowed_methods, reason = "what two threads do at a time is not CPU time")]
fn with_a_helper(sinks: u32) {
    const PICTURE: u32 = 8;
    const PICTURES: u32 = 300;
    let (helpers, threads) = Helpers::start(1).expect("a thread");
    // Somebody else's core is free.
    helpers.rest();
    let mut took = Vec::new();
    for helped in [false, true] {
        // Without numbers in the transport nobody is paced: nobody here would tell what arrived.
        let mut fan = Fan::with(sinks, false);
        let mut out = SendingEgress::new(&fan);
        let mut crew: Box<dyn Crew<LentWay>> = match helped {
            true => Box::new(helpers.team(std::slice::from_ref(&out.socket))),
            false => Box::new(Alone),
        };
        let (mut started, mut allocated) = (Instant::now(), 0);
        for picture in 0..2 * PICTURES {
            if picture == PICTURES {
                (started, allocated) = (Instant::now(), ALLOCATIONS.load(Ordering::Relaxed));
            }
            for _ in 0..PICTURE {
                fan.take(&mut out);
            }
            fan.router.deliver_with(&mut out, &mut *crew);
            out.flush();
        }
        let wall = started.elapsed();
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocated;
        assert_eq!(allocations, 0, "forwarding must not allocate");
        let each = wall.as_nanos() as f64 / f64::from(PICTURES * PICTURE * sinks);
        let who = if helped { "a helper" } else { "nobody's help" };
        println!("pictures to {sinks} sockets with {who}: {each:.0} ns for each packet and sink");
        took.push(wall);
    }
    println!("which is {:.2} times as fast", took[0].as_secs_f64() / took[1].as_secs_f64());
    helpers.stop();
    for thread in threads {
        thread.join().expect("a helper that did not fail");
    }
}

/// What the cipher alone costs here, for the packet's size and a hundred keys in turn: what is left of
/// the figures below is ours. Machines with and without vector AES differ by a factor of four.
fn seal_alone() {
    const ROUNDS: u32 = 200_000;
    let key = |number: u8| UnboundKey::new(&AES_128_GCM, &[number; 16]).expect("16 bytes");
    let keys: Vec<_> = (0..100).map(|number| LessSafeKey::new(key(number))).collect();
    let mut slot = [0xab; SLOT];
    let started = cpu_time();
    for round in 0..ROUNDS {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&round.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = keys[round as usize % keys.len()]
            .seal_in_place_separate_tag(nonce, Aad::from([0; 20]), &mut slot[..PAYLOAD])
            .expect("a payload far below the limit");
        black_box(tag.as_ref());
    }
    let each = (cpu_time() - started).as_nanos() as f64 / f64::from(ROUNDS);
    println!("AES-128-GCM alone, {PAYLOAD} bytes: {each:.1} ns of CPU");
}

fn fan_out(criterion: &mut Criterion) {
    seal_alone();
    for sinks in [1, 100] {
        let mut fan = Fan::new(sinks);
        let mut out = sealing(&fan);
        prove_no_allocation("router and AES-128-GCM", sinks, &mut fan, &mut out);
        assert_eq!(out.packets, 30_000 * u64::from(sinks), "every sink got every packet");
        let mut out = CountingEgress::default();
        prove_no_allocation("router alone", sinks, &mut Fan::new(sinks), &mut out);
    }
    told_of_each_packet(100);
    [50, 400].into_iter().for_each(with_a_helper);
    let mut group = criterion.benchmark_group("fan_out");
    for sinks in [1, 10, 100] {
        group.throughput(Throughput::Elements(u64::from(sinks)));
        group.bench_function(BenchmarkId::new("router_and_srtp", sinks), |bencher| {
            let mut fan = Fan::new(sinks);
            let mut out = sealing(&fan);
            bencher.iter(|| fan.forward(&mut out));
        });
        group.bench_function(BenchmarkId::new("router_alone", sinks), |bencher| {
            let mut fan = Fan::new(sinks);
            let mut out = CountingEgress::default();
            bencher.iter(|| fan.forward(&mut out));
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
