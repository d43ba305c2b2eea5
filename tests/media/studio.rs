//! One who sends a picture in several encodings at the same time, each with temporal layers, and those who
//! watch it as a decoder would: a picture counts only if all that it needs was shown.

use super::world::{is_rtcp, ms, numbered, secs};
use crate::support::link::{Conditions, Link};
use rivero::{
    router::{
        Egress, PeerConfig, PeerKey, Router, RtxConfig, SinkConfig, SinkKey, SourceConfig,
        SourceKey,
    },
    rtp::{
        Bitrate, Codec, Extension, Format, Kind, NtpTime, RtpPacket,
        nack::Nacks,
        rtcp::{Rtcp, SenderInfo, packets, write_nack, write_pli, write_sender_report},
        sequence::{Seen, Sighting, Unwrapper},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

const PAYLOAD_TYPE: u8 = 96;
const VIEWER_PAYLOAD_TYPE: u8 = 102;
const VIEWER_RTX: u8 = 103;
/// Milliseconds between two pictures.
const PICTURE: u64 = 33;
const DESCRIPTOR: usize = 6;

/// What a payload says of itself behind its descriptor and the header of its frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    pub encoding: u8,
    pub temporal: u8,
    pub picture: u32,
    /// The picture that it is predicted from; itself in a keyframe.
    pub needs: u32,
    pub index: u16,
    pub count: u16,
    pub captured: u32,
}

impl Piece {
    pub fn is_key(&self) -> bool {
        self.needs == self.picture
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend([self.encoding, self.temporal]);
        to.extend(self.picture.to_be_bytes());
        to.extend(self.needs.to_be_bytes());
        to.extend(self.index.to_be_bytes());
        to.extend(self.count.to_be_bytes());
        to.extend(self.captured.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        Self {
            encoding: bytes[0],
            temporal: bytes[1],
            picture: word(2),
            needs: word(6),
            index: half(10),
            count: half(12),
            captured: word(14),
        }
    }
}

pub struct Encoding {
    pub source: SourceKey,
    pub ssrc: u32,
    /// Bits per second.
    pub rate: u64,
    pub sending: bool,
    /// Whether requests for keyframes are answered.
    pub obeys: bool,
    pub asked: Vec<u64>,
    pub nacked: u64,
    sequence: u16,
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
    keyframe_due: bool,
    picture: u32,
    /// The last picture of each temporal layer.
    last: [u32; 3],
    packets: u32,
    kept: BTreeMap<u16, Vec<u8>>,
    /// The width and height of its pictures, if it tells.
    pub size: Option<(u16, u16)>,
}

/// The temporal layers of four pictures in a row, by the number of layers.
const PATTERNS: [[u8; 4]; 3] = [[0, 0, 0, 0], [0, 1, 0, 1], [0, 2, 1, 2]];

pub struct Camera {
    pub peer: PeerKey,
    pub encodings: Vec<Encoding>,
    pub temporal_layers: usize,
    pub rembs: Vec<u64>,
    up: Link<Vec<u8>>,
    down: Link<Vec<u8>>,
}

impl Camera {
    fn step(&mut self, now: Instant, time: u64) {
        while let Some(bytes) = self.down.receive(now) {
            for packet in packets(&bytes) {
                match packet.expect("well-formed") {
                    Rtcp::Pli { media, .. } => {
                        let one = self.encodings.iter_mut().find(|one| one.ssrc == media);
                        let one = one.expect("an encoding");
                        one.asked.push(time);
                        one.keyframe_due |= one.obeys;
                    }
                    Rtcp::Nack { media, lost, .. } => {
                        let one = self.encodings.iter_mut().find(|one| one.ssrc == media);
                        let one = one.expect("an encoding");
                        for sequence in lost {
                            one.nacked += 1;
                            if let Some(bytes) = one.kept.get(&sequence) {
                                self.up.send(now, bytes.clone());
                            }
                        }
                    }
                    Rtcp::Remb { bitrate, .. } => self.rembs.push(bitrate.bps()),
                    _ => {}
                }
            }
        }
        if time.is_multiple_of(PICTURE) {
            for index in 0..self.encodings.len() {
                for bytes in self.encodings[index].draw(index as u8, time, self.temporal_layers) {
                    self.up.send(now, bytes);
                }
            }
        }
        if time % 1_000 == 500 {
            for one in &self.encodings {
                let info = SenderInfo {
                    ntp: NtpTime::from_unix(secs(1_600_000_000) + ms(time)),
                    timestamp: one.timestamp_at(time),
                    packets: one.packets,
                    octets: 0,
                };
                let mut bytes = Vec::new();
                write_sender_report(&mut bytes, one.ssrc, &info, &[]);
                self.up.send(now, bytes);
            }
        }
    }
}

impl Encoding {
    fn timestamp_at(&self, time: u64) -> u32 {
        self.timestamp.wrapping_add(time as u32 * 90)
    }

    fn draw(&mut self, encoding: u8, time: u64, layers: usize) -> Vec<Vec<u8>> {
        if !self.sending {
            return Vec::new();
        }
        let turn = (time / PICTURE % 4) as usize;
        let key = std::mem::take(&mut self.keyframe_due);
        let temporal = if key { 0 } else { PATTERNS[layers - 1][turn] };
        self.picture += 1;
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7fff;
        self.tl0 = self.tl0.wrapping_add(u8::from(temporal == 0));
        // Of the newest of its own layer or one below; the first behind a base picture needs that alone.
        let base = self.last[0];
        let newest = self.last[..=usize::from(temporal)].iter().copied().max().unwrap_or(0);
        let (needs, sync) = match temporal {
            _ if key => (self.picture, false),
            0 => (base, false),
            1 => (base, true),
            _ => (newest, newest == base),
        };
        if key {
            self.last = [self.picture; 3];
        }
        self.last[usize::from(temporal)] = self.picture;
        let size = (self.rate * PICTURE / 8_000) as usize * if key { 4 } else { 1 };
        let count = size.div_ceil(1_000).max(1);
        let mut all = Vec::new();
        for index in 0..count {
            let first = if index == 0 { 0x90 } else { 0x80 };
            let mut bytes = vec![0x80, u8::from(index + 1 == count) << 7 | PAYLOAD_TYPE];
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.timestamp_at(time).to_be_bytes());
            bytes.extend(self.ssrc.to_be_bytes());
            let [high, low] = self.picture_id.to_be_bytes();
            let layer = temporal << 6 | u8::from(sync) << 5;
            bytes.extend([first, 0xe0, 0x80 | high, low, self.tl0, layer]);
            bytes.extend([u8::from(!key), 0, 0]);
            match self.size.filter(|_| key && index == 0) {
                Some((width, height)) => {
                    bytes.extend([0x9d, 0x01, 0x2a]);
                    bytes.extend(width.to_le_bytes());
                    bytes.extend(height.to_le_bytes());
                }
                None => bytes.extend([0; 7]),
            }
            let piece = Piece {
                encoding,
                temporal,
                picture: self.picture,
                needs,
                index: index as u16,
                count: count as u16,
                captured: time as u32,
            };
            piece.write(&mut bytes);
            bytes.resize(bytes.len() + size / count, 0xaa);
            self.kept.insert(self.sequence, bytes.clone());
            self.sequence = self.sequence.wrapping_add(1);
            self.packets += 1;
            all.push(bytes);
        }
        all
    }
}

/// A packet at a watcher.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub at: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub piece: Option<Piece>,
    pub picture_id: u16,
    pub tl0: u8,
}

pub struct Watcher {
    pub peer: PeerKey,
    pub sink: SinkKey,
    pub ssrc: u32,
    /// By number, in 64 bits.
    pub got: BTreeMap<u64, Packet>,
    pub repairs: bool,
    unwrapper: Unwrapper,
    seen: Seen,
    nacks: Nacks,
    up: Link<Vec<u8>>,
    down: Link<Vec<u8>>,
}

/// A picture that was shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub at: u64,
    pub piece: Piece,
}

impl Watcher {
    fn step(&mut self, now: Instant, time: u64) {
        while let Some(bytes) = self.down.receive(now) {
            if is_rtcp(&bytes) {
                continue;
            }
            let packet = RtpPacket::parse(&bytes).expect("well-formed");
            let packet = match packet.ssrc {
                ssrc if ssrc == self.ssrc => packet,
                _ => packet.repeated(VIEWER_PAYLOAD_TYPE, self.ssrc).expect("a number"),
            };
            let number = self.unwrapper.unwrap(packet.sequence);
            let before = self.seen.highest();
            match (self.seen.see(number), before) {
                (Sighting::Newest, Some(before)) if number > before + 1 => {
                    self.nacks.lost(now, before + 1..number);
                }
                (Sighting::Late, _) => self.nacks.arrived(number),
                (Sighting::Duplicate | Sighting::TooOld, _) => continue,
                _ => {}
            }
            let payload = packet.payload();
            let (mut picture_id, mut tl0, mut piece) = (0, 0, None);
            if !payload.is_empty() {
                let descriptor = rivero_vp8::Descriptor::parse(payload).expect("a descriptor");
                assert_eq!(descriptor.len, DESCRIPTOR);
                picture_id = descriptor.picture_id.expect("a number");
                tl0 = descriptor.tl0_picture_index.expect("an index");
                piece = Some(Piece::read(&payload[DESCRIPTOR + 10..]));
            }
            let (timestamp, marker) = (packet.timestamp, packet.marker);
            self.got.insert(number, Packet { at: time, timestamp, marker, piece, picture_id, tl0 });
        }
        let (mut bytes, mut ask) = (Vec::new(), Vec::new());
        self.nacks.handle_timeout(now, Some(ms(100)), &mut ask);
        if self.repairs && !ask.is_empty() {
            write_nack(&mut bytes, 1, self.ssrc, &ask);
        }
        // As browsers do when nothing is shown for a while.
        if time.is_multiple_of(500) && time > 1_000 {
            let shown = self.shown();
            if shown.last().is_some_and(|last| last.at + 1_500 < time) {
                write_pli(&mut bytes, 1, self.ssrc);
            }
        }
        if !bytes.is_empty() {
            self.up.send(now, bytes);
        }
    }

    /// The pictures that a decoder shows, in order, and when: once all of it and all before it came that
    /// it needs. What never came is given up at the next keyframe.
    pub fn shown(&self) -> Vec<Shown> {
        let mut pictures: BTreeMap<u64, (Piece, BTreeSet<u16>, u64, u16)> = BTreeMap::new();
        let mut first_of = HashMap::new();
        for (number, one) in &self.got {
            let Some(piece) = one.piece else { continue };
            let key = *first_of.entry((piece.encoding, piece.picture)).or_insert(*number);
            let (.., came, at, _) =
                pictures.entry(key).or_insert((piece, BTreeSet::new(), 0, one.picture_id));
            came.insert(piece.index);
            *at = (*at).max(one.at);
        }
        let mut shown: Vec<Shown> = Vec::new();
        let mut have: BTreeSet<(u8, u32)> = BTreeSet::new();
        let (mut last_id, mut at_least) = (None::<u16>, 0);
        for (piece, came, at, id) in pictures.into_values() {
            if came.len() < usize::from(piece.count) {
                continue;
            }
            let expected = last_id.map(|last| last.wrapping_add(1) & 0x7fff);
            let counts_on = expected.is_none_or(|expected| expected == id);
            let decodes =
                piece.is_key() || have.contains(&(piece.encoding, piece.needs)) && counts_on;
            if !decodes {
                continue;
            }
            at_least = at.max(at_least);
            last_id = Some(id);
            have.insert((piece.encoding, piece.picture));
            shown.push(Shown { at: at_least, piece });
        }
        shown
    }

    /// Which encoding was shown, each with the time of its first picture.
    pub fn encodings(&self) -> Vec<(u8, u64)> {
        let mut all: Vec<(u8, u64)> = Vec::new();
        for one in self.shown() {
            if all.last().is_none_or(|(encoding, _)| *encoding != one.piece.encoding) {
                all.push((one.piece.encoding, one.at));
            }
        }
        all
    }

    /// The longest time without a new picture, between two moments.
    pub fn longest_freeze(&self, from: u64, to: u64) -> u64 {
        let times = self.shown().into_iter().map(|one| one.at).filter(|at| (from..to).contains(at));
        let times: Vec<u64> = [from].into_iter().chain(times).chain([to]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// What was shown between two moments.
    pub fn pictures_between(&self, from: u64, to: u64) -> Vec<Shown> {
        self.shown().into_iter().filter(|one| (from..to).contains(&one.at)).collect()
    }
}

/// What left the router, and the proof that no index was used for two packets.
#[derive(Default)]
pub struct Wire {
    pub left: Vec<(PeerKey, Vec<u8>)>,
    pub by_index: HashMap<(u32, u64), Vec<u8>>,
}

impl Egress for Wire {
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        let bytes = [header, payload].concat();
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let first = self.by_index.entry((ssrc, index)).or_insert_with(|| bytes.clone());
        assert_eq!(*first, bytes, "one index, one packet");
        self.left.push((to, bytes));
    }

    fn rtcp(&mut self, to: PeerKey, compound: &[u8]) {
        self.left.push((to, compound.to_vec()));
    }
}

/// A camera, its watchers, and the router between them.
pub struct Studio {
    pub router: Router,
    pub camera: Camera,
    pub watchers: Vec<Watcher>,
    pub time: u64,
    pub rtx: bool,
    start: Instant,
    conditions: Conditions,
    seed: u64,
    pub wire: Wire,
}

impl Studio {
    /// `rates` are those of the encodings, in bits per second.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a world")]
    pub fn new(seed: u64, conditions: Conditions, rates: &[u64], temporal_layers: usize) -> Self {
        let start = Instant::now();
        let mut router = Router::new(start);
        let peer = router.add_peer(start, PeerConfig { cname: "camera".to_owned(), remb: true });
        let mut encodings = Vec::new();
        for (index, &rate) in rates.iter().enumerate() {
            let source = router.add_source(
                peer,
                SourceConfig {
                    kind: Kind::Video,
                    formats: vec![(PAYLOAD_TYPE, Format::new(Codec::Vp8, ""))],
                    nack: true,
                    pli: true,
                    fir: false,
                    remb: true,
                    transport_cc: true,
                    rtx: Vec::new(),
                    rtx_ssrcs: Vec::new(),
                    extensions: numbered(&[]),
                    receiver_ssrc: 0xff00_0000,
                    keyframe_cache: 0,
                },
            );
            let seed = (seed as u32).wrapping_mul(7) + index as u32;
            encodings.push(Encoding {
                source,
                ssrc: 100 + index as u32,
                rate,
                sending: true,
                obeys: true,
                asked: Vec::new(),
                nacked: 0,
                sequence: 65_400u16.wrapping_add(seed as u16).wrapping_mul(977),
                timestamp: seed.wrapping_mul(0x9e37_79b9),
                picture_id: seed.wrapping_mul(4_321) as u16 & 0x7fff,
                tl0: seed.wrapping_mul(77) as u8,
                keyframe_due: true,
                picture: 0,
                last: [0; 3],
                packets: 0,
                kept: BTreeMap::new(),
                size: Some((320 << index, 180 << index)),
            });
        }
        let sources: Vec<_> = encodings.iter().map(|one| one.source).collect();
        router.join_encodings(&sources);
        let (up, down) = (Link::new(seed, conditions), Link::new(seed + 1, conditions));
        let camera = Camera { peer, encodings, temporal_layers, rembs: Vec::new(), up, down };
        Self {
            router,
            camera,
            watchers: Vec::new(),
            time: 0,
            rtx: true,
            start,
            conditions,
            seed: seed + 2,
            wire: Wire::default(),
        }
    }

    pub fn now(&self) -> Instant {
        self.start + ms(self.time)
    }

    /// A packet of an encoding arrives now, and what is due happens.
    pub fn arrive(&mut self, encoding: usize, bytes: &[u8]) {
        let (now, ntp) = (self.now(), self.ntp());
        let packet = RtpPacket::parse(bytes).expect("well-formed");
        let source = self.camera.encodings[encoding].source;
        self.router.forward(now, source, &packet, &mut self.wire);
        if self.router.poll_timeout().is_some_and(|at| at <= now) {
            self.router.handle_timeout(now, ntp, &mut self.wire);
        }
    }

    /// A watcher asks for packets again, now.
    pub fn ask(&mut self, watcher: usize, lost: &[u64]) {
        let (now, ntp, mut bytes) = (self.now(), self.ntp(), Vec::new());
        let Watcher { peer, ssrc, .. } = self.watchers[watcher];
        write_nack(&mut bytes, 1, ssrc, lost);
        self.router.handle_rtcp(now, ntp, peer, &bytes, &mut self.wire);
    }

    fn ntp(&self) -> NtpTime {
        NtpTime::from_unix(secs(1_700_000_000) + ms(self.time))
    }

    /// What is connected to stands for all encodings.
    pub fn lead(&self) -> SourceKey {
        self.camera.encodings[0].source
    }

    pub fn join(&mut self, kbps: Option<u64>) -> usize {
        let number = self.watchers.len() as u32;
        let config = PeerConfig { cname: format!("watcher-{number}"), remb: false };
        let peer = self.router.add_peer(self.now(), config);
        let ssrc = 0x0a00_0000 + number;
        let sink = self.router.add_sink(
            peer,
            SinkConfig {
                kind: Kind::Video,
                ssrc,
                formats: vec![(VIEWER_PAYLOAD_TYPE, Format::new(Codec::Vp8, ""))],
                nack: true,
                rtx: self.rtx.then(|| RtxConfig {
                    ssrc: ssrc | 1 << 30,
                    formats: vec![(VIEWER_RTX, VIEWER_PAYLOAD_TYPE)],
                    sequence_start: 65_530,
                }),
                extensions: numbered(&[(Extension::AbsSendTime, 5)]),
                transport_cc: false,
                mid: None,
                sequence_start: 65_500,
                timestamp_start: 0xffff_ff00,
            },
        );
        self.seed += 2;
        let (up, down) =
            (Link::new(self.seed, self.conditions), Link::new(self.seed + 1, self.conditions));
        self.watchers.push(Watcher {
            peer,
            sink,
            ssrc,
            got: BTreeMap::new(),
            repairs: true,
            unwrapper: Unwrapper::new(),
            seen: Seen::default(),
            nacks: Nacks::default(),
            up,
            down,
        });
        let watcher = self.watchers.len() - 1;
        self.allow(watcher, kbps);
        self.router.set_route(self.now(), sink, Some(self.lead()));
        watcher
    }

    pub fn allow(&mut self, watcher: usize, kbps: Option<u64>) {
        let sink = self.watchers[watcher].sink;
        let most = kbps.map(Bitrate::from_kbps);
        self.router.set_video_send_bounds(self.now(), sink, None, most);
    }

    pub fn run_for(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.step();
            self.time += 1;
        }
    }

    fn step(&mut self) {
        let (now, time) = (self.now(), self.time);
        let ntp = self.ntp();
        self.camera.step(now, time);
        while let Some(bytes) = self.camera.up.receive(now) {
            if is_rtcp(&bytes) {
                self.router.handle_rtcp(now, ntp, self.camera.peer, &bytes, &mut self.wire);
                continue;
            }
            let packet = RtpPacket::parse(&bytes).expect("well-formed");
            let one = self.camera.encodings.iter().find(|one| one.ssrc == packet.ssrc);
            let source = one.expect("an encoding").source;
            self.router.forward(now, source, &packet, &mut self.wire);
        }
        for watcher in &mut self.watchers {
            watcher.step(now, time);
            while let Some(bytes) = watcher.up.receive(now) {
                self.router.handle_rtcp(now, ntp, watcher.peer, &bytes, &mut self.wire);
            }
        }
        if self.router.poll_timeout().is_some_and(|at| at <= now) {
            self.router.handle_timeout(now, ntp, &mut self.wire);
        }
        for (to, bytes) in self.wire.left.drain(..) {
            let watcher = self.watchers.iter_mut().find(|one| one.peer == to);
            match watcher {
                Some(watcher) => watcher.down.send(now, bytes),
                None => self.camera.down.send(now, bytes),
            }
        }
    }
}
