//! One who sends a camera and a microphone: makes frames, answers requests for them.

use super::{
    camera::Camera,
    world::{Piece, ms, secs},
};
use crate::support::link::Link;
use rivero::{
    router::{PeerKey, SourceKey},
    rtp::{
        NtpTime,
        rtcp::{Rtcp, SenderInfo, packets, write_sender_report},
        sequence::nearest,
        transport_feedback::{Status, TransportFeedback},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// One stream of a publisher.
pub struct Stream {
    pub source: SourceKey,
    pub ssrc: u32,
    pub sequence: u16,
    pub(super) timestamp_start: u32,
    pub(super) payload_type: u8,
    pub(super) clock_rate: u32,
    pub frames: u32,
    pub(super) packets: u32,
    pub(super) kept: BTreeMap<u16, Vec<u8>>,
}

/// A stream of repetitions (RFC 4588).
#[derive(Clone, Debug)]
pub struct Rtx {
    pub ssrc: u32,
    pub payload_type: u8,
    pub sequence: u16,
    pub packets: u64,
}

/// Numbers over all packets of a peer, and what the other end tells of them.
#[derive(Clone, Debug, Default)]
pub struct Numbering {
    /// Of the header extension.
    pub id: u8,
    pub next: u64,
    /// Ticks of arrival, by number.
    pub told: BTreeMap<u64, u32>,
    /// Numbers that were called lost and not received since.
    pub missing: BTreeSet<u64>,
    pub messages: u64,
    /// As the network had it, in milliseconds.
    pub arrived: BTreeMap<u64, u64>,
}

impl Numbering {
    pub fn new(id: u8, next: u64) -> Self {
        Self { id, next, ..Self::default() }
    }

    /// Puts the next number into a packet that has no header extension yet.
    pub fn number(&mut self, bytes: &mut Vec<u8>) {
        let [high, low] = (self.next as u16).to_be_bytes();
        self.next += 1;
        bytes[0] |= 0x10;
        bytes.splice(12..12, [0xbe, 0xde, 0, 1, self.id << 4 | 1, high, low, 0]);
    }

    pub fn take(&mut self, raw: &[u8]) {
        let message = TransportFeedback::parse(raw).expect("a well-formed message");
        let first = nearest(self.next - 1, message.base);
        assert!(first + u64::from(message.count) <= self.next, "nobody knows what comes");
        self.messages += 1;
        for status in message.statuses() {
            match status {
                Status::Lost(range) => {
                    let numbers = range.map(|place| first + u64::from(place));
                    self.missing.extend(numbers.filter(|one| !self.told.contains_key(one)));
                }
                Status::Received { place, tick } => {
                    let number = first + u64::from(place);
                    self.missing.remove(&number);
                    assert_eq!(*self.told.entry(number).or_insert(tick), tick);
                }
            }
        }
    }
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
    /// Repetitions go out on a stream of their own.
    pub rtx: Option<Rtx>,
    pub numbering: Option<Numbering>,
    /// Decides how large pictures are.
    pub camera: Option<Camera>,
    pub(super) number: u8,
    pub(super) keyframe_due: bool,
    pub(super) clock_ahead: Duration,
    pub(super) up: Link<Vec<u8>>,
    pub(super) down: Link<Vec<u8>>,
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

    /// The next picture is a keyframe.
    pub fn ask_for_keyframe(&mut self) {
        self.keyframe_due = true;
    }

    pub(super) fn step(&mut self, now: Instant, time: u64) {
        while let Some(bytes) = self.down.receive(now) {
            self.handle_rtcp(now, time, &bytes);
        }
        if !self.sending {
            return;
        }
        self.fill_probe(now);
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
            self.send(now, bytes);
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

    fn send(&mut self, now: Instant, mut bytes: Vec<u8>) {
        if let Some(numbering) = &mut self.numbering {
            if let Some(camera) = &mut self.camera {
                camera.sent(now, numbering.next, bytes.len());
            }
            numbering.number(&mut bytes);
        }
        self.up.send(now, bytes);
    }

    /// Repeats what was sent, as browsers probe with.
    fn fill_probe(&mut self, now: Instant) {
        let Some(packets) = self.camera.as_mut().map(|camera| camera.probe(now)) else { return };
        for back in 0..packets {
            let number = self.video.sequence.wrapping_sub(1 + back % 8);
            if let Some(bytes) = self.video.kept.get(&number) {
                let bytes = self.repeat(bytes.clone());
                self.send(now, bytes);
            }
        }
    }

    /// What is sent in answer to a request for a packet.
    fn repeat(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(rtx) = &mut self.rtx {
            let original = [bytes[2], bytes[3]];
            bytes[1] = bytes[1] & 0x80 | rtx.payload_type;
            bytes[2..4].copy_from_slice(&rtx.sequence.to_be_bytes());
            bytes[8..12].copy_from_slice(&rtx.ssrc.to_be_bytes());
            bytes.splice(12..12, original);
            rtx.sequence = rtx.sequence.wrapping_add(1);
            rtx.packets += 1;
        }
        bytes
    }

    fn send_frame(&mut self, now: Instant, time: u64) {
        let keyframe = std::mem::take(&mut self.keyframe_due);
        let mut count = if keyframe { 12 } else { 1 + (self.video.frames % 5) as u16 };
        if let Some(camera) = &mut self.camera {
            count = camera.picture(keyframe, 1_100);
        }
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
            self.send(now, bytes);
        }
        for _ in 0..self.padding {
            let bytes = self.video.packet(time, false, &[], 200);
            self.send(now, bytes);
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
                            let bytes = self.repeat(bytes.clone());
                            self.send(now, bytes);
                        }
                    }
                }
                Rtcp::TransportFeedback { raw, .. } => {
                    let numbering = self.numbering.as_mut().expect("agreed on");
                    if let Some(camera) = &mut self.camera {
                        camera.handle_feedback(now, numbering.next, raw);
                    }
                    numbering.take(raw);
                }
                Rtcp::Remb { bitrate, .. } => {
                    self.rembs.push(bitrate.bps());
                    if let Some(camera) = &mut self.camera {
                        camera.remb = Some(bitrate.bps() as f64);
                    }
                }
                _ => {}
            }
        }
    }
}
