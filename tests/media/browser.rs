//! A browser's end of a call: a transport session around a publisher or a viewer, and its offer.

use super::{
    camera::Camera,
    publisher::{Numbering, Publisher, Rtx, Stream},
    viewer::{Numbers, Received, Viewer},
    world::{AUDIO_PT, RTX_PT, VIDEO_PT, VIEWER_AUDIO_PT, VIEWER_RTX_PT, VIEWER_VIDEO_PT, secs},
};
use crate::support::link::{Conditions, Link};
use rivero::{
    rtp::{RtpPacket, sequence::Unwrapper},
    transport::{
        Certificate, DtlsRole, DtlsState, Fingerprint, KeyKind,
        webrtc::{Event, Output, Received as Arrived, RemoteParameters, Session, Settings},
    },
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

/// What a browser does with media.
pub enum Role {
    Publisher(Box<Publisher>),
    Viewer(Box<Viewer>),
}

pub struct Browser {
    pub address: SocketAddr,
    pub role: Role,
    pub connected: bool,
    /// To the server, and from it.
    pub up: Link<Vec<u8>>,
    pub down: Link<Vec<u8>>,
    /// Keeps its part of the handshake to itself.
    pub mute_dtls: bool,
    /// The server's user fragment and password.
    pub server: (String, String),
    session: Session,
    /// The extended sequence number of each stream it sends.
    sent: HashMap<u32, Unwrapper>,
}

/// One for all: making a certificate is slow, and nothing depends on whose it is.
fn certificate() -> Arc<Certificate> {
    static MADE: OnceLock<Arc<Certificate>> = OnceLock::new();
    let make = || Arc::new(Certificate::generate(KeyKind::Ecdsa).expect("a certificate"));
    MADE.get_or_init(make).clone()
}

fn nothing() -> Link<Vec<u8>> {
    Link::new(1, Conditions::delay(0))
}

fn stream(ssrc: u32, payload_type: u8, clock_rate: u32, sequence: u16) -> Stream {
    Stream {
        source: Default::default(),
        ssrc,
        sequence,
        timestamp_start: 0xffff_0000 + ssrc,
        payload_type,
        clock_rate,
        frames: 0,
        packets: 0,
        kept: Default::default(),
    }
}

impl Role {
    pub fn publisher(number: u8) -> Self {
        let base = 1_000 * (u32::from(number) + 1);
        Self::Publisher(Box::new(Publisher {
            peer: Default::default(),
            video: stream(base, VIDEO_PT, 90_000, 65_000),
            audio: stream(base + 1, AUDIO_PT, 48_000, 17),
            asked: Vec::new(),
            nacked: 0,
            rembs: Vec::new(),
            answers_keyframes: true,
            sending: true,
            padding: 0,
            rtx: None,
            numbering: None,
            camera: None,
            number,
            keyframe_due: true,
            clock_ahead: secs(77),
            up: nothing(),
            down: nothing(),
        }))
    }

    /// As [`Self::publisher`], and agrees on a stream of repetitions and numbers over all packets.
    pub fn modern_publisher(number: u8) -> Self {
        let mut role = Self::publisher(number);
        if let Self::Publisher(one) = &mut role {
            let ssrc = 0x00aa_0000 + one.video.ssrc;
            one.rtx = Some(Rtx { ssrc, payload_type: RTX_PT, sequence: 65_520, packets: 0 });
            one.numbering = Some(Numbering::new(4, 65_300));
        }
        role
    }

    /// As [`Self::modern_publisher`], with a camera that follows what the network is told to carry.
    pub fn camera(now: Instant, number: u8, most: f64) -> Self {
        let mut role = Self::modern_publisher(number);
        if let Self::Publisher(one) = &mut role {
            one.camera = Some(Camera::new(now, most));
        }
        role
    }

    /// As [`Self::viewer`], and agrees on the same.
    pub fn modern_viewer(joined: u64) -> Self {
        let mut role = Self::viewer(joined);
        if let Self::Viewer(one) = &mut role {
            // The SSRC is known with the answer.
            one.rtx = Some((0, VIEWER_RTX_PT));
            one.numbers = Some(Numbers { id: 6, ..Numbers::default() });
            one.remb = None;
        }
        role
    }

    pub fn viewer(joined: u64) -> Self {
        Self::Viewer(Box::new(Viewer {
            peer: Default::default(),
            video: Received::default(),
            audio: Received::default(),
            pli_every: None,
            reports: true,
            remb: Some(2_000_000),
            rtx: None,
            repeated: 0,
            numbers: None,
            joined,
            up: nothing(),
            down: nothing(),
        }))
    }
}

impl Browser {
    pub fn new(now: Instant, address: SocketAddr, role: Role, links: [Link<Vec<u8>>; 2]) -> Self {
        let settings = Settings { certificate: certificate(), controlling: true };
        let mut session = Session::new(now, settings).expect("a session");
        session.add_local_candidate(address).expect("room for one");
        let [up, down] = links;
        Self {
            address,
            role,
            connected: false,
            up,
            down,
            mute_dtls: false,
            server: Default::default(),
            session,
            sent: HashMap::new(),
        }
    }

    pub fn ufrag(&self) -> &str {
        self.session.ufrag()
    }

    /// Seals a control packet, whatever it is, and sends it.
    pub fn send_rtcp(&mut self, now: Instant, compound: &[u8]) {
        let srtp = self.session.srtp().expect("keys since it is connected");
        let mut sealed = vec![0; compound.len() + 64];
        let len = srtp.seal_rtcp(compound, &mut sealed).expect("seals");
        sealed.truncate(len);
        self.up.send(now, sealed);
    }

    /// Seals a packet of media, whatever it is, and sends it.
    pub fn send_rtp(&mut self, now: Instant, header: &[u8], payload: &[u8], index: u64) {
        let srtp = self.session.srtp().expect("keys since it is connected");
        let mut sealed = vec![0; header.len() + payload.len() + 64];
        let len = srtp.seal_rtp(header, payload, index, &mut sealed).expect("seals");
        sealed.truncate(len);
        self.up.send(now, sealed);
    }

    pub fn offer(&self) -> String {
        let (ufrag, pwd) = (self.session.ufrag(), self.session.pwd());
        let certificate = certificate();
        let fingerprint = certificate.fingerprint();
        let (direction, audio, video, extension) = match &self.role {
            Role::Publisher(_) => ("sendonly", AUDIO_PT, VIDEO_PT, 3),
            Role::Viewer(_) => ("recvonly", VIEWER_AUDIO_PT, VIEWER_VIDEO_PT, 5),
        };
        let (rtx, numbers) = self.modern();
        let section = |kind: &str, mid: u8, number: u8, codec: &str| {
            let more = rtx.filter(|_| mid == 1).map(|(number, _)| format!(" {number}"));
            let more = more.unwrap_or_default();
            let source = match &self.role {
                Role::Publisher(one) => {
                    let ssrc = if mid == 0 { one.audio.ssrc } else { one.video.ssrc };
                    format!("a=ssrc:{ssrc} cname:browser\r\n")
                }
                Role::Viewer(_) => String::new(),
            };
            format!(
                "m={kind} 9 UDP/TLS/RTP/SAVPF {number}{more}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
                 a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=fingerprint:sha-256 {fingerprint}\r\n\
                 a=setup:actpass\r\na={direction}\r\na=rtcp-mux\r\na=rtpmap:{number} {codec}\r\n\
                 a=extmap:{extension} http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
                 {source}"
            )
        };
        let mut repetitions = String::new();
        if let Some((number, ssrc)) = rtx {
            repetitions = format!("a=rtpmap:{number} rtx/90000\r\na=fmtp:{number} apt={video}\r\n");
            if let (Role::Publisher(one), Some(ssrc)) = (&self.role, ssrc) {
                let media = one.video.ssrc;
                let lines =
                    format!("a=ssrc-group:FID {media} {ssrc}\r\na=ssrc:{ssrc} cname:browser\r\n");
                repetitions += &lines;
            }
        }
        let numbered = |payload_type: u8| {
            let extension =
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
            let line = |id: u8| {
                format!("a=extmap:{id} {extension}\r\na=rtcp-fb:{payload_type} transport-cc\r\n")
            };
            numbers.map_or_else(String::new, line)
        };
        let (of_audio, of_video) = (numbered(audio), numbered(video));
        format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n{}{of_audio}{}\
             {repetitions}{of_video}a=rtcp-fb:{video} nack\r\na=rtcp-fb:{video} nack pli\r\na=rtcp-fb:{video} goog-remb\r\n",
            section("audio", 0, audio, "opus/48000/2"),
            section("video", 1, video, "VP8/90000"),
        )
    }

    /// Payload type, and SSRC if it sends them, of repetitions; and the id of numbers over all packets.
    fn modern(&self) -> (Option<(u8, Option<u32>)>, Option<u8>) {
        match &self.role {
            Role::Publisher(one) => (
                one.rtx.as_ref().map(|rtx| (rtx.payload_type, Some(rtx.ssrc))),
                one.numbering.as_ref().map(|numbering| numbering.id),
            ),
            Role::Viewer(one) => (
                one.rtx.map(|(_, payload_type)| (payload_type, None)),
                one.numbers.as_ref().map(|numbers| numbers.id),
            ),
        }
    }

    /// The line of its only candidate.
    pub fn candidate(&self) -> String {
        self.session.local_candidates().remove(0)
    }

    /// Takes the server's answer and begins.
    pub fn start(&mut self, now: Instant, answer: &str) {
        let value = |name: &str| attribute(answer, name);
        self.server = (value("ice-ufrag").to_owned(), value("ice-pwd").to_owned());
        let (hash, text) = value("fingerprint").split_once(' ').expect("two words");
        let remote = RemoteParameters {
            ufrag: value("ice-ufrag").to_owned(),
            pwd: value("ice-pwd").to_owned(),
            fingerprints: vec![Fingerprint::parse(hash, text).expect("a fingerprint")],
            role: DtlsRole::Server,
        };
        assert_eq!(value("setup"), "active");
        if let Role::Viewer(viewer) = &mut self.role {
            let (audio, video) = answer.split_once("m=video").expect("two sections");
            for (received, section) in [(&mut viewer.audio, audio), (&mut viewer.video, video)] {
                let (ssrc, _) = attribute(section, "ssrc").split_once(' ').expect("a name");
                received.ssrc = ssrc.parse().expect("a number");
            }
            viewer.numbers = viewer.numbers.take().filter(|_| answer.contains("transport-cc"));
            if let Some((ssrc, _)) = &mut viewer.rtx {
                let (_, video) = answer.split_once("m=video").expect("two sections");
                let group = attribute(video, "ssrc-group");
                let wanted = format!("FID {} ", viewer.video.ssrc);
                let repetitions = group.strip_prefix(&wanted).expect("a pair");
                *ssrc = repetitions.parse().expect("a number");
            }
        }
        self.session.start(now, remote).expect("starts");
    }

    pub fn add_candidate(&mut self, now: Instant, line: &str) {
        self.session.add_remote_candidate(now, line).expect("a candidate");
    }

    /// Lives through one millisecond.
    pub fn step(&mut self, now: Instant, time: u64, server: SocketAddr) {
        while let Some(mut bytes) = self.down.receive(now) {
            let arrived = self.session.handle_datagram(now, self.address, server, &mut bytes);
            if let Arrived::Rtp(len) | Arrived::Rtcp(len) = arrived {
                bytes.truncate(len);
                match &mut self.role {
                    Role::Publisher(publisher) => publisher.down.send(now, bytes),
                    Role::Viewer(viewer) => viewer.down.send(now, bytes),
                }
            }
        }
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit { bytes, .. }
                    if self.mute_dtls && (20..64).contains(&bytes[0]) => {}
                Output::Transmit { bytes, .. } => self.up.send(now, bytes.to_vec()),
                Output::Event(Event::Dtls(DtlsState::Connected)) => self.connected = true,
                _ => {}
            }
        }
        if self.connected {
            self.step_media(now, time);
        }
    }

    fn step_media(&mut self, now: Instant, time: u64) {
        let plain = match &mut self.role {
            Role::Publisher(publisher) => {
                publisher.step(now, time);
                &mut publisher.up
            }
            Role::Viewer(viewer) => {
                viewer.step(now, time);
                &mut viewer.up
            }
        };
        let srtp = self.session.srtp().expect("keys since it is connected");
        while let Some(bytes) = plain.receive(now) {
            let mut sealed = vec![0; bytes.len() + 64];
            let len = if super::world::is_rtcp(&bytes) {
                srtp.seal_rtcp(&bytes, &mut sealed)
            } else {
                let packet = RtpPacket::parse(&bytes).expect("what a publisher makes is RTP");
                let (header, payload) = bytes.split_at(packet.header_len());
                let unwrapper = self.sent.entry(packet.ssrc).or_default();
                // The rollover counter starts at zero (RFC 3711 §3.3.1).
                let index = unwrapper.unwrap(packet.sequence) - (1 << 16);
                srtp.seal_rtp(header, payload, index, &mut sealed)
            };
            sealed.truncate(len.expect("seals"));
            self.up.send(now, sealed);
        }
    }
}

fn attribute<'a>(sdp: &'a str, name: &str) -> &'a str {
    let start = format!("a={name}:");
    let line = sdp.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {name} in {sdp}"))
}
