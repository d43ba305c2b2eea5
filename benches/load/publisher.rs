//! What a publishing client sends: 30 frames and 50 pieces of sound a second, together 290 packets.
//!
//! The packets of a frame leave as a browser's pacer lets them go, a few at a time and 5 ms apart.

use std::time::{Duration, Instant};

use super::stamp::{LEN, Stamp};

/// Between two frames.
const FRAME: Duration = Duration::from_nanos(33_333_333);
/// Between two pieces of sound.
const SOUND: Duration = Duration::from_millis(20);
/// Packets of a frame, and how many of them leave together.
const PIECES: u8 = 8;
const TOGETHER: u8 = 3;
const PACING: Duration = Duration::from_millis(5);
/// Behind by more than this, the rest is left out: a flood later would measure nothing.
const TOO_LATE: Duration = Duration::from_millis(200);

const VIDEO_PAYLOAD: usize = 1_150;
const AUDIO_PAYLOAD: usize = 120;
const HEADER: usize = 12;
pub const VIDEO_CLOCK: u32 = 90_000;
pub const AUDIO_CLOCK: u32 = 48_000;

#[derive(Debug)]
struct Line {
    ssrc: u32,
    payload_type: u8,
    /// Extended from the start on, as keys count it.
    sequence: u64,
    timestamp: u32,
    frame: u32,
    sent: u32,
    bytes: u32,
    due: Instant,
}

/// One packet before it is protected.
pub struct Packet<'a> {
    pub header: [u8; HEADER],
    pub payload: &'a [u8],
    pub index: u64,
}

#[derive(Debug)]
pub struct Publisher {
    video: Line,
    audio: Line,
    /// The next piece of the frame under way, and whether that is a keyframe.
    piece: u8,
    keyframe: bool,
    wanted: bool,
    payload: Vec<u8>,
    /// How often a keyframe was asked for, and packets were asked for again.
    pub asked: u64,
    pub nacked: u64,
    pub left_out: u64,
}

/// What a sender report says of a line.
pub struct LineReport {
    pub ssrc: u32,
    pub timestamp: u32,
    pub packets: u32,
    pub octets: u32,
}

impl Publisher {
    pub fn new(now: Instant, ssrcs: [u32; 2], payload_types: [u8; 2]) -> Self {
        let line = |at: usize| Line {
            ssrc: ssrcs[at],
            payload_type: payload_types[at],
            sequence: 1_000,
            timestamp: ssrcs[at],
            frame: 0,
            sent: 0,
            bytes: 0,
            due: now,
        };
        Self {
            audio: line(0),
            video: line(1),
            piece: 0,
            keyframe: true,
            wanted: true,
            payload: vec![0x5a; VIDEO_PAYLOAD],
            asked: 0,
            nacked: 0,
            left_out: 0,
        }
    }

    pub fn owns(&self, ssrc: u32) -> bool {
        ssrc == self.video.ssrc || ssrc == self.audio.ssrc
    }

    /// The next frame shall be one that a decoder can begin with.
    pub fn want_keyframe(&mut self) {
        self.asked += 1;
        self.wanted = true;
    }

    /// Nothing can be sent for a moment.
    pub fn put_off(&mut self, now: Instant) {
        for line in [&mut self.audio, &mut self.video] {
            line.due = line.due.max(now + FRAME);
        }
    }

    pub fn packets_sent(&self) -> u64 {
        u64::from(self.video.sent) + u64::from(self.audio.sent)
    }

    pub fn poll_timeout(&self) -> Instant {
        self.video.due.min(self.audio.due)
    }

    /// The next packet that is due; `time` is `now` by the clock of the harness.
    pub fn poll_packet(&mut self, now: Instant, time: Duration) -> Option<Packet<'_>> {
        if self.audio.due <= now {
            return Some(self.sound(now, time));
        }
        if self.video.due > now {
            return None;
        }
        if self.piece == 0 {
            let late = now.saturating_duration_since(self.video.due);
            if late > TOO_LATE {
                self.left_out += (late.as_nanos() / FRAME.as_nanos()) as u64 * u64::from(PIECES);
                self.video.due = now;
            }
            self.keyframe = std::mem::take(&mut self.wanted);
            self.video.frame = self.video.frame.wrapping_add(1);
        }
        let (index, keyframe) = (self.piece, self.keyframe);
        self.piece = (self.piece + 1) % PIECES;
        if self.piece == 0 {
            let paced = PACING * u32::from((PIECES - 1) / TOGETHER);
            self.video.due += FRAME - paced;
        } else if self.piece.is_multiple_of(TOGETHER) {
            self.video.due += PACING;
        }
        let marker = self.piece == 0;
        let packet = self.video.stamp(time, index, PIECES, keyframe);
        packet.write_video(&mut self.payload);
        let (header, index) = self.video.header(marker, VIDEO_PAYLOAD);
        if marker {
            self.video.timestamp = self.video.timestamp.wrapping_add(VIDEO_CLOCK / 30);
        }
        Some(Packet { header, payload: &self.payload, index })
    }

    fn sound(&mut self, now: Instant, time: Duration) -> Packet<'_> {
        if now.saturating_duration_since(self.audio.due) > TOO_LATE {
            self.audio.due = now;
        }
        self.audio.due += SOUND;
        self.audio.frame = self.audio.frame.wrapping_add(1);
        let stamp = self.audio.stamp(time, 0, 1, false);
        // The end of the buffer, which video writes anew for each packet.
        let payload = &mut self.payload[VIDEO_PAYLOAD - AUDIO_PAYLOAD..];
        stamp.write_audio(payload);
        let (header, index) = self.audio.header(false, AUDIO_PAYLOAD);
        self.audio.timestamp = self.audio.timestamp.wrapping_add(AUDIO_CLOCK / 50);
        Packet { header, payload, index }
    }

    pub fn reports(&self) -> [LineReport; 2] {
        [&self.audio, &self.video].map(|line| LineReport {
            ssrc: line.ssrc,
            timestamp: line.timestamp,
            packets: line.sent,
            octets: line.bytes,
        })
    }
}

impl Line {
    fn stamp(&self, sent: Duration, index: u8, count: u8, keyframe: bool) -> Stamp {
        Stamp { sent, frame: self.frame, index, count, keyframe, packet: self.sent }
    }

    fn header(&mut self, marker: bool, len: usize) -> ([u8; HEADER], u64) {
        let index = self.sequence;
        self.sequence += 1;
        self.sent = self.sent.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(len as u32);
        let mut header = [0; HEADER];
        header[0] = 0x80;
        header[1] = self.payload_type | u8::from(marker) << 7;
        header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        (header, index)
    }
}

// A stamp must fit into the smallest packet.
const _: () = assert!(AUDIO_PAYLOAD > LEN && VIDEO_PAYLOAD > LEN + 11);

#[cfg(test)]
mod tests {
    use super::*;
    use rivero::clock::Clock;

    #[test]
    fn a_second_has_290_packets_and_the_frame_after_a_wish_is_a_keyframe() {
        let start = Clock::start().now();
        let mut publisher = Publisher::new(start, [1, 2], [111, 96]);
        let (mut packets, mut keyframes) = (0, Vec::new());
        for millis in 0..10_000 {
            let time = Duration::from_millis(millis);
            if millis == 5_000 {
                publisher.want_keyframe();
            }
            while let Some(packet) = publisher.poll_packet(start + time, time) {
                packets += 1;
                let stamp = Stamp::read(packet.payload).expect("a stamp");
                if stamp.keyframe && stamp.index == 0 {
                    keyframes.push(millis);
                }
            }
        }
        assert!((2_890..=2_910).contains(&packets), "{packets}");
        assert_eq!(keyframes.len(), 2, "{keyframes:?}");
        assert!((5_000..5_034).contains(&keyframes[1]), "{keyframes:?}");
    }

    #[test]
    fn what_was_missed_for_long_is_not_sent_in_a_flood() {
        let start = Clock::start().now();
        let mut publisher = Publisher::new(start, [1, 2], [111, 96]);
        let time = Duration::from_secs(20);
        let mut packets = 0;
        while publisher.poll_packet(start + time, time).is_some() {
            packets += 1;
        }
        assert!(packets < 20, "{packets}");
        assert!(publisher.left_out > 4_000);
    }
}
