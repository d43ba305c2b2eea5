//! What stands before and behind the router, for one packet of 1 200 bytes: finding its session among
//! thousands, and SRTP both ways in each of its transforms; sealing also for one with sound, where what does
//! not grow with a packet weighs most, and with the keys of many viewers in turn. And what a viewer who
//! leaves and comes costs the router of a source that many watch.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rivero::{
    router::{PeerConfig, Router, SinkConfig, SinkKey, SourceConfig, SourceKey},
    rtp::{Codec, Extensions, Format, Kind},
    transport::{
        demux::Demux,
        srtp::{Profile, Receiver, Sender},
    },
};
use std::{
    hint::black_box,
    net::SocketAddr,
    time::{Duration, Instant},
};

const PAYLOAD: usize = 1_200;
const SOUND: usize = 120;
const HEADER: usize = 12;
/// Packets that leave to one viewer before it is the next one's turn.
const RUN: u64 = 8;
const VIEWERS: usize = 500;
const SLOT: usize = 1_500;
const SESSIONS: u16 = 5_000;
const PROFILES: [Profile; 3] =
    [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmHmacSha1_80];

/// The header of the packet with that index.
fn header(index: u64) -> [u8; HEADER] {
    let mut header = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
    header
}

fn keys(profile: Profile) -> (Vec<u8>, Vec<u8>) {
    (vec![0x11; profile.key_len()], vec![0x5a; profile.salt_len()])
}

fn srtp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("srtp");
    group.throughput(Throughput::Elements(1));
    for profile in PROFILES {
        let (key, salt) = keys(profile);
        let sender = || Sender::new(profile, &key, &salt).expect("lengths fit");
        for (name, len) in [("seal", PAYLOAD), ("seal_sound", SOUND)] {
            group.bench_function(BenchmarkId::new(name, profile.as_str()), |bencher| {
                let (mut sender, mut slot, mut index) = (sender(), [0; SLOT], 0);
                let payload = &[0xab; PAYLOAD][..len];
                bencher.iter(|| {
                    index += 1;
                    let sealed = sender.seal_rtp(&header(index), payload, index, &mut slot);
                    black_box(sealed.expect("an index that was not used yet"))
                });
            });
        }
        group.bench_function(BenchmarkId::new("seal_for_many", profile.as_str()), |bencher| {
            let mut senders: Vec<_> = (0..VIEWERS).map(|_| sender()).collect();
            let (payload, mut slot, mut packet) = ([0xab; PAYLOAD], [0; SLOT], 0);
            bencher.iter(|| {
                let (turn, of_run) = (packet / RUN, packet % RUN);
                let (round, viewer) = (turn / VIEWERS as u64, turn % VIEWERS as u64);
                let index = round * RUN + of_run;
                packet += 1;
                let sender = &mut senders[viewer as usize];
                let sealed = sender.seal_rtp(&header(index), &payload, index, &mut slot);
                black_box(sealed.expect("an index that was not used yet"))
            });
        });
        group.bench_function(BenchmarkId::new("open", profile.as_str()), |bencher| {
            let (mut sender, mut index) = (sender(), 0);
            let mut receiver = Receiver::new(profile, &key, &salt).expect("lengths fit");
            bencher.iter_batched_ref(
                || {
                    index += 1;
                    let mut packet = [0; SLOT];
                    let sealed =
                        sender.seal_rtp(&header(index), &[0xab; PAYLOAD], index, &mut packet);
                    (packet, sealed.expect("an index that was not used yet"))
                },
                |(packet, len)| receiver.open_rtp(&mut packet[..*len]).expect("just sealed"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn demux(criterion: &mut Criterion) {
    let local = SocketAddr::from(([192, 0, 2, 1], 8_000));
    let remote = |number: u16| SocketAddr::from(([10, 0, 0, 1], 1_024 + number));
    let mut demux = Demux::new();
    for number in 0..SESSIONS {
        assert!(demux.insert(&format!("u{number}"), number));
        demux.bind(remote(number), number, true);
    }
    let mut packet = [0; HEADER + PAYLOAD];
    packet[..HEADER].copy_from_slice(&header(1));
    let mut group = criterion.benchmark_group("demux");
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("by_address", SESSIONS), |bencher| {
        let mut number = 0;
        bencher.iter(|| {
            // As far apart as those of strangers.
            number = (number + 1_237) % SESSIONS;
            let found = demux.find(local, remote(number), black_box(&packet));
            assert_eq!(found, Some(number));
        });
    });
    group.finish();
}

/// A source that so many watch, and one of them.
#[expect(clippy::disallowed_methods, reason = "any instant will do as the origin")]
fn watched(viewers: u32) -> (Router, Instant, SourceKey, SinkKey) {
    let now = Instant::now();
    let mut router = Router::new(now);
    let formats = vec![(96, Format::new(Codec::Vp8, ""))];
    let config = |cname: &str| PeerConfig { cname: cname.to_owned(), remb: true };
    let publisher = router.add_peer(now, config("publisher"));
    let source = SourceConfig {
        kind: Kind::Video,
        formats: formats.clone(),
        nack: true,
        pli: true,
        fir: true,
        remb: true,
        transport_cc: false,
        rtx: Vec::new(),
        rtx_ssrcs: Vec::new(),
        extensions: Extensions::default(),
        receiver_ssrc: 1,
        keyframe_cache: 0,
    };
    let source = router.add_source(publisher, source);
    let mut middle = None;
    for number in 0..viewers {
        let peer = router.add_peer(now, config("viewer"));
        let sink = SinkConfig {
            kind: Kind::Video,
            ssrc: 1_000 + number,
            formats: formats.clone(),
            nack: true,
            rtx: None,
            extensions: Extensions::default(),
            transport_cc: false,
            mid: None,
            sequence_start: 0,
            timestamp_start: 0,
        };
        let sink = router.add_sink(peer, sink);
        router.set_route(now, sink, Some(source));
        if number == viewers / 2 {
            middle = Some(sink);
        }
    }
    (router, now, source, middle.expect("there are viewers"))
}

fn leave_and_come(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("leave_and_come");
    for viewers in [10, 1_000, 10_000] {
        group.bench_function(BenchmarkId::from_parameter(viewers), |bencher| {
            let (mut router, mut now, source, sink) = watched(viewers);
            bencher.iter(|| {
                now += Duration::from_micros(100);
                router.set_route(now, sink, None);
                router.set_route(now, sink, Some(source));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, srtp, demux, leave_and_come);
criterion_main!(benches);
