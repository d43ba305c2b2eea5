//! A router with publishers and viewers around it, each behind a link of its own, on a clock that
//! steps by milliseconds.

use super::{
    publisher::{Numbering, Publisher, Rtx, Stream},
    viewer::{Numbers, Received, Viewer},
};
use crate::support::link::{Conditions, Link};
use rivero::{
    router::{
        Egress, PeerConfig, PeerKey, Router, RouterEvent, RtxConfig, SinkConfig, SourceConfig,
    },
    rtp::{Codec, Extension, Extensions, Format, Kind, NtpTime, RtpPacket, sequence::nearest},
};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

pub const VIDEO_PT: u8 = 96;
pub const AUDIO_PT: u8 = 111;
/// Viewers negotiated other numbers than publishers.
pub const VIEWER_VIDEO_PT: u8 = 102;
pub const VIEWER_AUDIO_PT: u8 = 109;

/// Of repetitions, where they have a stream of their own.
pub const RTX_PT: u8 = 97;
pub const VIEWER_RTX_PT: u8 = 103;

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn numbered(wanted: &[(Extension, u8)]) -> Extensions {
    let mut agreed = Extensions::default();
    assert!(wanted.iter().all(|&(extension, id)| agreed.set(extension, id)));
    agreed
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
    pub(super) fn to_payload(self, size: usize) -> Vec<u8> {
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

    pub(super) fn read(payload: &[u8]) -> Self {
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

pub struct World {
    pub router: Router,
    pub publishers: Vec<Publisher>,
    pub viewers: Vec<Viewer>,
    pub events: Vec<RouterEvent>,
    /// Whether those who join agree on streams of repetitions, and on numbers over all their packets.
    pub rtx: bool,
    pub transport_cc: bool,
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
            rtx: false,
            transport_cc: false,
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
                    transport_cc: self.transport_cc,
                    rtx: if self.rtx && video { vec![(RTX_PT, payload_type)] } else { Vec::new() },
                    rtx_ssrcs: Vec::new(),
                    extensions: numbered(&[
                        (Extension::AbsSendTime, 3),
                        (Extension::TransportSequence, 4),
                    ]),
                    receiver_ssrc: 0xff00_0000 | ssrc,
                    keyframe_cache: 0,
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
            rtx: self.rtx.then_some(Rtx {
                ssrc: 0x00aa_0000 + base,
                payload_type: RTX_PT,
                sequence: 65_520,
                packets: 0,
            }),
            numbering: self.transport_cc.then(|| Numbering::new(4, 65_300)),
            camera: None,
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
                    rtx: (self.rtx && kind == Kind::Video).then(|| RtxConfig {
                        ssrc: ssrc | 1 << 30,
                        formats: vec![(VIEWER_RTX_PT, VIEWER_VIDEO_PT)],
                        sequence_start: 65_530,
                    }),
                    extensions: numbered(&[
                        (Extension::AbsSendTime, 5),
                        (Extension::TransportSequence, 6),
                        (Extension::Mid, 7),
                    ]),
                    transport_cc: self.transport_cc,
                    mid: Some("video".to_owned()),
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
            rtx: self.rtx.then_some((base | 1 << 30, VIEWER_RTX_PT)),
            repeated: 0,
            numbers: self.transport_cc.then(|| Numbers { id: 6, ..Numbers::default() }),
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
                if let Some(numbering) = &mut publisher.numbering {
                    let content = packet.extension(numbering.id).expect("a number");
                    let number = u16::from_be_bytes(content.try_into().expect("two bytes"));
                    numbering.arrived.entry(nearest(numbering.next, number)).or_insert(time);
                }
                let video = packet.payload_type != AUDIO_PT;
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

pub(super) fn is_rtcp(bytes: &[u8]) -> bool {
    (192..224).contains(&bytes[1])
}
