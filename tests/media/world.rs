//! A router with publishers and viewers around it, each behind a link of its own, on a clock that
//! steps by milliseconds.

use crate::support::link::{Conditions, Link};
use rivero::{
    router::{
        Egress, PeerConfig, PeerKey, Router, RouterEvent, SinkConfig, SinkKey, SourceConfig,
        SourceKey,
    },
    rtp::{
        Codec, Format, Kind, NtpTime, RtpPacket,
        nack::Nacks,
        rtcp::{
            Rtcp, SenderInfo, packets, write_nack, write_pli, write_receiver_report,
            write_sender_report,
        },
        sequence::{Seen, Sighting, Unwrapper},
        stats::Reception,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

pub const VIDEO_PT: u8 = 96;
pub const AUDIO_PT: u8 = 111;
/// Viewers negotiated other numbers than publishers.
pub const VIEWER_VIDEO_PT: u8 = 102;
pub const VIEWER_AUDIO_PT: u8 = 109;

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What left the router, and the proof that no index was used for two packets.
#[derive(Default)]
struct Wire {
    left: Vec<(PeerKey, Vec<u8>)>,
    by_index: HashMap<(u32, u64), Vec<u8>>,
}

impl Egress for Wire {
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        let bytes = [header, payload].concat();
        assert_eq!(header[2..4], (index as u16).to_be_bytes(), "the index ends as the header does");
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let first = self.by_index.entry((ssrc, index)).or_insert_with(|| bytes.clone());
        assert_eq!(*first, bytes, "one index, one packet");
        self.left.push((to, bytes));
    }

    fn rtcp(&mut self, to: PeerKey, compound: &[u8]) {
        assert!(compound.len() < 1_200);
        self.left.push((to, compound.to_vec()));
    }
}

/// What a media payload says of itself, behind its two bytes of VP8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    pub keyframe: bool,
    pub frame: u32,
    pub index: u16,
    pub count: u16,
    /// Milliseconds of the world's clock.
    pub captured: u32,
    pub publisher: u8,
}

impl Piece {
    fn to_payload(self, size: usize) -> Vec<u8> {
        let descriptor = if self.index == 0 { 0x10 } else { 0 };
        let mut payload = vec![descriptor, u8::from(!self.keyframe)];
        payload.extend(self.frame.to_be_bytes());
        payload.extend(self.index.to_be_bytes());
        payload.extend(self.count.to_be_bytes());
        payload.extend(self.captured.to_be_bytes());
        payload.push(self.publisher);
        payload.resize(size.max(payload.len()), 0xaa);
        payload
    }

    fn read(payload: &[u8]) -> Self {
        let half = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        Self {
            keyframe: payload[1] & 1 == 0,
            frame: word(2),
            index: half(6),
            count: half(8),
            captured: word(10),
            publisher: payload[14],
        }
    }
}

/// One stream of a publisher.
pub struct Stream {
    pub source: SourceKey,
    pub ssrc: u32,
    pub sequence: u16,
    timestamp_start: u32,
    payload_type: u8,
    clock_rate: u32,
    pub frames: u32,
    packets: u32,
    kept: BTreeMap<u16, Vec<u8>>,
}

pub struct Publisher {
    pub peer: PeerKey,
    pub video: Stream,
    pub audio: Stream,
    /// Requests for keyframes, in milliseconds.
    pub asked: Vec<u64>,
    pub nacked: u64,
    pub rembs: Vec<u64>,
    pub answers_keyframes: bool,
    pub sending: bool,
    /// Padding packets after each frame.
    pub padding: u16,
    number: u8,
    keyframe_due: bool,
    clock_ahead: Duration,
    up: Link<Vec<u8>>,
    down: Link<Vec<u8>>,
}

/// One stream at a viewer.
#[derive(Default)]
pub struct Received {
    pub sink: SinkKey,
    pub ssrc: u32,
    unwrapper: Unwrapper,
    seen: Seen,
    nacks: Nacks,
    reception: Reception,
    frames: BTreeMap<(u8, u32), BTreeSet<u16>>,
    /// Publisher and frame number.
    pub complete: BTreeSet<(u8, u32)>,
    /// When all of a keyframe had come.
    pub first_keyframe_at: Option<u64>,
    /// In order of arrival, without duplicates: milliseconds, number, timestamp, what it is.
    pub log: Vec<(u64, u64, u32, Piece)>,
    /// Packets without payload.
    pub empty: u64,
    pub last_sr: Option<(SenderInfo, u64)>,
}

pub struct Viewer {
    pub peer: PeerKey,
    pub video: Received,
    pub audio: Received,
    /// While set, a PLI is sent each time this much passed.
    pub pli_every: Option<u64>,
    pub reports: bool,
    pub remb: Option<u64>,
    joined: u64,
    up: Link<Vec<u8>>,
    down: Link<Vec<u8>>,
}

pub struct World {
    pub router: Router,
    pub publishers: Vec<Publisher>,
    pub viewers: Vec<Viewer>,
    pub events: Vec<RouterEvent>,
    start: Instant,
    /// Milliseconds since the start.
    pub time: u64,
    conditions: Conditions,
    seed: u64,
    wire: Wire,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a world")]
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        let start = Instant::now();
        Self {
            router: Router::new(start),
            publishers: Vec::new(),
            viewers: Vec::new(),
            events: Vec::new(),
            start,
            time: 0,
            conditions,
            seed,
            wire: Wire::default(),
        }
    }

    pub fn now(&self) -> Instant {
        self.start + ms(self.time)
    }

    pub fn ntp(&self) -> NtpTime {
        NtpTime::from_unix(secs(1_700_000_000) + ms(self.time))
    }

    fn link(&mut self) -> Link<Vec<u8>> {
        self.seed += 1;
        Link::new(self.seed, self.conditions)
    }

    pub fn add_publisher(&mut self) -> usize {
        let number = self.publishers.len() as u8;
        let config = PeerConfig { cname: format!("publisher-{number}"), remb: true };
        let peer = self.router.add_peer(self.now(), config);
        let mut stream = |kind, ssrc: u32, payload_type, codec: Codec, sequence| {
            let video = kind == Kind::Video;
            let source = self.router.add_source(
                peer,
                SourceConfig {
                    kind,
                    formats: vec![(payload_type, Format::new(codec, ""))],
                    nack: video,
                    pli: video,
                    fir: false,
                    remb: video,
                    abs_send_time: Some(3),
                    receiver_ssrc: 0xff00_0000 | ssrc,
                },
            );
            Stream {
                source,
                ssrc,
                sequence,
                timestamp_start: 0xffff_0000u32.wrapping_add(ssrc << 12),
                payload_type,
                clock_rate: codec.clock_rate(),
                frames: 0,
                packets: 0,
                kept: BTreeMap::new(),
            }
        };
        let base = 1_000 * (u32::from(number) + 1);
        let video = stream(Kind::Video, base, VIDEO_PT, Codec::Vp8, 65_400 + u16::from(number));
        let audio = stream(Kind::Audio, base + 1, AUDIO_PT, Codec::Opus, 17);
        let (up, down) = (self.link(), self.link());
        self.publishers.push(Publisher {
            peer,
            video,
            audio,
            asked: Vec::new(),
            nacked: 0,
            rembs: Vec::new(),
            answers_keyframes: true,
            sending: true,
            padding: 0,
            number,
            keyframe_due: true,
            clock_ahead: secs(u64::from(number) * 1_000 + 77),
            up,
            down,
        });
        self.publishers.len() - 1
    }

    /// A viewer of `publisher`, if one is named.
    pub fn add_viewer(&mut self, publisher: Option<usize>) -> usize {
        let number = self.viewers.len() as u32;
        let config = PeerConfig { cname: format!("viewer-{number}"), remb: false };
        let peer = self.router.add_peer(self.now(), config);
        let mut received = |kind, ssrc, formats: Vec<(u8, Format)>| {
            let sink = self.router.add_sink(
                peer,
                SinkConfig {
                    kind,
                    ssrc,
                    formats,
                    nack: kind == Kind::Video,
                    abs_send_time: Some(5),
                    sequence_start: 65_500,
                    timestamp_start: 0xffff_ff00,
                },
            );
            Received { sink, ssrc, ..Received::default() }
        };
        let base = 0x0a00_0000 + 2 * number;
        let vp8 = (VIEWER_VIDEO_PT, Format::new(Codec::Vp8, ""));
        let video = received(Kind::Video, base, vec![(98, Format::new(Codec::Vp9, "")), vp8]);
        let opus = (VIEWER_AUDIO_PT, Format::new(Codec::Opus, ""));
        let audio = received(Kind::Audio, base + 1, vec![opus]);
        let (up, down) = (self.link(), self.link());
        let joined = self.time;
        self.viewers.push(Viewer {
            peer,
            video,
            audio,
            pli_every: None,
            reports: true,
            remb: None,
            joined,
            up,
            down,
        });
        let viewer = self.viewers.len() - 1;
        if let Some(publisher) = publisher {
            self.connect(viewer, publisher);
        }
        viewer
    }

    pub fn connect(&mut self, viewer: usize, publisher: usize) {
        let (now, viewer) = (self.now(), &self.viewers[viewer]);
        let publisher = &self.publishers[publisher];
        self.router.set_route(now, viewer.video.sink, Some(publisher.video.source));
        self.router.set_route(now, viewer.audio.sink, Some(publisher.audio.source));
    }

    /// For links that are made from now on.
    pub fn set_new_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
        for publisher in &mut self.publishers {
            publisher.up.set(conditions);
            publisher.down.set(conditions);
        }
        for viewer in &mut self.viewers {
            viewer.up.set(conditions);
            viewer.down.set(conditions);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.step();
            self.time += 1;
        }
    }

    fn step(&mut self) {
        let (now, ntp, time) = (self.now(), self.ntp(), self.time);
        for publisher in &mut self.publishers {
            publisher.step(now, time);
            while let Some(bytes) = publisher.up.receive(now) {
                if is_rtcp(&bytes) {
                    self.router.handle_rtcp(now, ntp, publisher.peer, &bytes, &mut self.wire);
                    continue;
                }
                let packet = RtpPacket::parse(&bytes).unwrap();
                let video = packet.payload_type == VIDEO_PT;
                let stream = if video { &publisher.video } else { &publisher.audio };
                self.router.forward(now, stream.source, &packet, &mut self.wire);
            }
        }
        for viewer in &mut self.viewers {
            viewer.step(now, time);
            while let Some(bytes) = viewer.up.receive(now) {
                self.router.handle_rtcp(now, ntp, viewer.peer, &bytes, &mut self.wire);
            }
        }
        if self.router.poll_timeout().is_some_and(|at| at <= now) {
            self.router.handle_timeout(now, ntp, &mut self.wire);
            assert!(self.router.poll_timeout().is_none_or(|at| at > now), "a timeout is handled");
        }
        self.events.extend(std::iter::from_fn(|| self.router.poll_event()));
        for (to, bytes) in self.wire.left.drain(..) {
            let publisher = self.publishers.iter_mut().find(|one| one.peer == to);
            let viewer = self.viewers.iter_mut().find(|one| one.peer == to);
            match (publisher, viewer) {
                (Some(publisher), _) => publisher.down.send(now, bytes),
                (_, Some(viewer)) => viewer.down.send(now, bytes),
                _ => panic!("a packet to nobody"),
            }
        }
    }
}

fn is_rtcp(bytes: &[u8]) -> bool {
    (192..224).contains(&bytes[1])
}

impl Stream {
    fn packet(&mut self, time: u64, marker: bool, payload: &[u8], padding: u8) -> Vec<u8> {
        let timestamp = self.timestamp(time);
        let mut bytes = vec![0x80, u8::from(marker) << 7 | self.payload_type];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(payload);
        if padding > 0 {
            bytes[0] |= 0x20;
            bytes.resize(bytes.len() + usize::from(padding) - 1, 0);
            bytes.push(padding);
        }
        self.kept.insert(self.sequence, bytes.clone());
        self.sequence = self.sequence.wrapping_add(1);
        self.packets += 1;
        bytes
    }

    fn timestamp(&self, time: u64) -> u32 {
        self.timestamp_start.wrapping_add((time * u64::from(self.clock_rate) / 1_000) as u32)
    }
}

impl Publisher {
    /// Starts anew, as a browser does that was reloaded.
    pub fn restart_video(&mut self, ssrc: u32) {
        self.video.ssrc = ssrc;
        self.video.sequence = self.video.sequence.wrapping_add(20_000);
        self.video.timestamp_start = self.video.timestamp_start.wrapping_add(1 << 30);
        self.video.kept.clear();
        self.keyframe_due = true;
    }

    fn step(&mut self, now: Instant, time: u64) {
        while let Some(bytes) = self.down.receive(now) {
            self.handle_rtcp(now, time, &bytes);
        }
        if !self.sending {
            return;
        }
        let offset = u64::from(self.number) * 7;
        if (time + offset).is_multiple_of(33) {
            self.send_frame(now, time);
        }
        if (time + offset).is_multiple_of(20) {
            let piece = Piece {
                keyframe: false,
                frame: self.audio.frames,
                index: 0,
                count: 1,
                captured: time as u32,
                publisher: self.number,
            };
            let bytes = self.audio.packet(time, false, &piece.to_payload(80), 0);
            self.audio.frames += 1;
            self.up.send(now, bytes);
        }
        if (time + offset) % 1_000 == 400 {
            let unix = secs(1_600_000_000) + self.clock_ahead + ms(time);
            for stream in [&self.video, &self.audio] {
                let info = SenderInfo {
                    ntp: NtpTime::from_unix(unix),
                    timestamp: stream.timestamp(time),
                    packets: stream.packets,
                    octets: 0,
                };
                let mut bytes = Vec::new();
                write_sender_report(&mut bytes, stream.ssrc, &info, &[]);
                self.up.send(now, bytes);
            }
        }
    }

    fn send_frame(&mut self, now: Instant, time: u64) {
        let keyframe = std::mem::take(&mut self.keyframe_due);
        let count = if keyframe { 12 } else { 1 + (self.video.frames % 5) as u16 };
        for index in 0..count {
            let piece = Piece {
                keyframe,
                frame: self.video.frames,
                index,
                count,
                captured: time as u32,
                publisher: self.number,
            };
            let size = if index + 1 == count { 300 } else { 1_100 };
            let bytes = self.video.packet(time, index + 1 == count, &piece.to_payload(size), 0);
            self.up.send(now, bytes);
        }
        for _ in 0..self.padding {
            let bytes = self.video.packet(time, false, &[], 200);
            self.up.send(now, bytes);
        }
        self.video.frames += 1;
    }

    fn handle_rtcp(&mut self, now: Instant, time: u64, compound: &[u8]) {
        for (position, packet) in packets(compound).enumerate() {
            let packet = packet.unwrap();
            let report = matches!(packet, Rtcp::SenderReport { .. } | Rtcp::ReceiverReport { .. });
            assert!(report || position > 0, "a compound packet begins with a report");
            match packet {
                // What was under way when the stream started anew names the former SSRC.
                Rtcp::Pli { media, .. } if media == self.video.ssrc => {
                    self.asked.push(time);
                    self.keyframe_due |= self.answers_keyframes;
                }
                Rtcp::Nack { lost, .. } => {
                    for sequence in lost {
                        self.nacked += 1;
                        if let Some(bytes) = self.video.kept.get(&sequence) {
                            self.up.send(now, bytes.clone());
                        }
                    }
                }
                Rtcp::Remb { bitrate, .. } => {
                    self.rembs.push(bitrate.bps());
                }
                _ => {}
            }
        }
    }
}

impl Viewer {
    fn step(&mut self, now: Instant, time: u64) {
        while let Some(bytes) = self.down.receive(now) {
            if is_rtcp(&bytes) {
                self.handle_rtcp(time, &bytes);
                continue;
            }
            let packet = RtpPacket::parse(&bytes).unwrap();
            match packet.ssrc {
                ssrc if ssrc == self.video.ssrc => {
                    assert_eq!(packet.payload_type, VIEWER_VIDEO_PT);
                    self.video.receive(now, time, &packet, true);
                }
                ssrc if ssrc == self.audio.ssrc => {
                    assert_eq!(packet.payload_type, VIEWER_AUDIO_PT);
                    self.audio.receive(now, time, &packet, false);
                }
                _ => panic!("a stream nobody announced"),
            }
        }
        let mut bytes = Vec::new();
        let mut ask = Vec::new();
        self.video.nacks.handle_timeout(now, Some(ms(100)), &mut ask);
        if !ask.is_empty() {
            write_nack(&mut bytes, 1, self.video.ssrc, &ask);
        }
        let age = time - self.joined;
        let asks = self.pli_every.is_some_and(|every| age.is_multiple_of(every));
        // As browsers do that got something, and cannot show it.
        let stuck = self.first_video().is_some_and(|(at, _)| (time - at) % 300 == 250)
            && self.video.first_keyframe_at.is_none();
        if asks || stuck {
            write_pli(&mut bytes, 1, self.video.ssrc);
        }
        if self.reports && age % 1_000 == 900 {
            for stream in [&mut self.video, &mut self.audio] {
                let (last_sr, since) = stream.last_sr.map_or((0, 0), |(info, at)| {
                    (info.ntp.middle(), ((time - at) << 16) as u32 / 1_000)
                });
                let block = stream.reception.report(stream.ssrc, last_sr, since);
                write_receiver_report(&mut bytes, 1, &[block]);
            }
            if let Some(remb) = self.remb {
                let bitrate = rivero::rtp::Bitrate::from_bps(remb);
                rivero::rtp::rtcp::write_remb(&mut bytes, 1, bitrate, &[self.video.ssrc]);
            }
        }
        if !bytes.is_empty() {
            self.up.send(now, bytes);
        }
    }

    fn handle_rtcp(&mut self, time: u64, compound: &[u8]) {
        for packet in packets(compound) {
            if let Rtcp::SenderReport { ssrc, info, .. } = packet.unwrap() {
                let video = ssrc == self.video.ssrc;
                let stream = if video { &mut self.video } else { &mut self.audio };
                assert_eq!(ssrc, stream.ssrc);
                stream.last_sr = Some((info, time));
            }
        }
    }

    /// When the first packet came, and what it was.
    pub fn first_video(&self) -> Option<(u64, Piece)> {
        self.video.log.first().map(|&(at, _, _, piece)| (at, piece))
    }
}

impl Received {
    fn receive(&mut self, now: Instant, time: u64, packet: &RtpPacket<'_>, repair: bool) {
        assert_eq!(packet.extension(5).map(<[u8]>::len), Some(3));
        let number = self.unwrapper.unwrap(packet.sequence);
        let before = self.seen.highest();
        let sighting = self.seen.see(number);
        self.reception.take(number, packet.timestamp, 0);
        match (sighting, before) {
            (Sighting::Newest, Some(before)) if repair && number > before + 1 => {
                self.nacks.lost(now, before + 1..number);
            }
            (Sighting::Late, _) => self.nacks.arrived(number),
            (Sighting::Duplicate | Sighting::TooOld, _) => return,
            _ => {}
        }
        if packet.payload().is_empty() {
            self.empty += 1;
            return;
        }
        let piece = Piece::read(packet.payload());
        assert_eq!(packet.marker, repair && piece.index + 1 == piece.count);
        self.log.push((time, number, packet.timestamp, piece));
        let pieces = self.frames.entry((piece.publisher, piece.frame)).or_default();
        pieces.insert(piece.index);
        if pieces.len() == usize::from(piece.count) {
            self.complete.insert((piece.publisher, piece.frame));
            if piece.keyframe {
                self.first_keyframe_at.get_or_insert(time);
            }
        }
    }

    /// Numbers that were never filled, between the first and the last.
    pub fn gaps(&self) -> Vec<u64> {
        let numbers: BTreeSet<u64> = self.log.iter().map(|&(_, number, ..)| number).collect();
        let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else {
            return Vec::new();
        };
        (first..=last).filter(|number| !numbers.contains(number)).collect()
    }

    /// A digest of all that was received and when, to compare runs.
    pub fn digest(&self) -> u64 {
        let mut queue: VecDeque<u64> = VecDeque::new();
        for &(at, number, timestamp, piece) in &self.log {
            queue.extend([at, number, u64::from(timestamp), u64::from(piece.frame)]);
        }
        queue.into_iter().fold(0xcbf2_9ce4_8422_2325, |digest, word| {
            (digest ^ word).wrapping_mul(0x0100_0000_01b3)
        })
    }
}
