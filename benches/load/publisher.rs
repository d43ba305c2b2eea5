//! What a publishing client sends: 30 pictures and 50 pieces of sound a second.
//!
//! The packets of a picture leave in one burst and have one size but for the last, as those of a
//! browser do.

use std::time::{Duration, Instant};

use super::offer::TRANSPORT_SEQUENCE;
use super::stamp::{LEN, Stamp};

/// Between two pictures.
const FRAME: Duration = Duration::from_nanos(33_333_333);
/// Between two pieces of sound.
const SOUND: Duration = Duration::from_millis(20);
/// Behind by more than this, the rest is left out: a flood later would measure nothing.
const TOO_LATE: Duration = Duration::from_millis(200);

/// Times still differ from picture to picture and from sound to sound.
pub const MOST_RATE: u32 = 500;

const LONGEST: usize = 1_150;
const AUDIO_PAYLOAD: usize = 120;
/// Of RTP, and with the number for transport-wide feedback.
const PLAIN_HEADER: usize = 12;
const HEADER: usize = 20;
pub const VIDEO_CLOCK: u32 = 90_000;
pub const AUDIO_CLOCK: u32 = 48_000;

/// How large pictures are. Sound has 48 kbit/s beside each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pictures {
    /// 500 kbit/s, as of 540x360: two packets for each.
    Small,
    /// 550 kbit/s: with the sound it is 600.
    Medium,
    /// 2.2 Mbit/s: eight packets for each, and 290 a second with the sound.
    #[default]
    Large,
}

impl Pictures {
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    pub const fn about(self) -> &'static str {
        match self {
            Self::Small => "500 kbit/s, 110 packets/s with the sound",
            Self::Medium => "550 kbit/s, 110 packets/s with the sound",
            Self::Large => "2.2 Mbit/s, 290 packets/s with the sound",
        }
    }

    /// Packets of a picture, and the payload of each and of the last.
    const fn pieces(self) -> (u8, usize, usize) {
        match self {
            Self::Small => (2, 1_042, 1_042),
            Self::Medium => (2, 1_146, 1_146),
            Self::Large => (8, LONGEST, 1_050),
        }
    }
}

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
    header: [u8; HEADER],
    header_len: usize,
    pub payload: &'a [u8],
    pub index: u64,
}

impl Packet<'_> {
    pub fn header(&self) -> &[u8] {
        &self.header[..self.header_len]
    }
}

#[derive(Debug)]
pub struct Publisher {
    pictures: Pictures,
    /// How many times as often as a camera it sends.
    rate: u32,
    /// The next number over both lines, if the server wants to hear of such.
    number: Option<u16>,
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
    pub fn new(
        now: Instant,
        pictures: Pictures,
        ssrcs: [u32; 2],
        payload_types: [u8; 2],
        numbered: bool,
    ) -> Self {
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
            pictures,
            rate: 1,
            number: numbered.then_some(0),
            audio: line(0),
            video: line(1),
            piece: 0,
            keyframe: true,
            wanted: true,
            payload: vec![0x5a; LONGEST],
            asked: 0,
            nacked: 0,
            left_out: 0,
        }
    }

    /// Sends pictures and sound so many times as often.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate.clamp(1, MOST_RATE);
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
        let (pieces, piece, last) = self.pictures.pieces();
        if self.piece == 0 {
            let late = now.saturating_duration_since(self.video.due);
            if late > TOO_LATE {
                let missed = late.as_nanos() * u128::from(self.rate) / FRAME.as_nanos();
                self.left_out += missed as u64 * u64::from(pieces);
                self.video.due = now;
            }
            self.keyframe = std::mem::take(&mut self.wanted);
            self.video.frame = self.video.frame.wrapping_add(1);
        }
        let (index, keyframe) = (self.piece, self.keyframe);
        self.piece = (self.piece + 1) % pieces;
        let marker = self.piece == 0;
        let len = if marker { last } else { piece };
        let stamp = self.video.stamp(time, index, pieces, keyframe);
        stamp.write_video(&mut self.payload[..len]);
        let (header, header_len, index) = self.video.header(marker, len, &mut self.number);
        if marker {
            self.video.due += FRAME / self.rate;
            self.video.timestamp = self.video.timestamp.wrapping_add(VIDEO_CLOCK / 30 / self.rate);
        }
        Some(Packet { header, header_len, payload: &self.payload[..len], index })
    }

    fn sound(&mut self, now: Instant, time: Duration) -> Packet<'_> {
        if now.saturating_duration_since(self.audio.due) > TOO_LATE {
            self.audio.due = now;
        }
        self.audio.due += SOUND / self.rate;
        self.audio.frame = self.audio.frame.wrapping_add(1);
        let stamp = self.audio.stamp(time, 0, 1, false);
        // The end of the buffer, which video writes anew for each packet.
        let payload = &mut self.payload[LONGEST - AUDIO_PAYLOAD..];
        stamp.write_audio(payload);
        let (header, header_len, index) = self.audio.header(false, AUDIO_PAYLOAD, &mut self.number);
        self.audio.timestamp = self.audio.timestamp.wrapping_add(AUDIO_CLOCK / 50 / self.rate);
        Packet { header, header_len, payload, index }
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

    fn header(
        &mut self,
        marker: bool,
        len: usize,
        number: &mut Option<u16>,
    ) -> ([u8; HEADER], usize, u64) {
        let index = self.sequence;
        self.sequence += 1;
        self.sent = self.sent.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(len as u32);
        let mut header = [0; HEADER];
        header[0] = 0x80;
        header[1] = self.payload_type | u8::from(marker) << 7;
        header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let Some(number) = number else { return (header, PLAIN_HEADER, index) };
        // One word of extensions in the short form (RFC 8285 §4.2).
        header[0] |= 0x10;
        header[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
        let [high, low] = number.to_be_bytes();
        header[16..].copy_from_slice(&[TRANSPORT_SEQUENCE << 4 | 1, high, low, 0]);
        *number = number.wrapping_add(1);
        (header, HEADER, index)
    }
}

// A stamp must fit into the smallest packet.
const _: () = assert!(AUDIO_PAYLOAD > LEN && LONGEST > LEN + 11);

#[cfg(test)]
mod tests {
    use super::*;
    use rivero::clock::Clock;
    use rivero::rtp::RtpPacket;

    #[test]
    fn a_second_has_290_packets_and_the_frame_after_a_wish_is_a_keyframe() {
        let start = Clock::start().now();
        let mut publisher = Publisher::new(start, Pictures::Large, [1, 2], [111, 96], false);
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
    fn a_publisher_sends_as_many_times_as_often_as_it_is_told() {
        let start = Clock::start().now();
        let mut publisher = Publisher::new(start, Pictures::Large, [1, 2], [111, 96], false);
        publisher.set_rate(10);
        let mut packets = 0;
        for micros in (0..1_000_000).step_by(500) {
            let time = Duration::from_micros(micros);
            while publisher.poll_packet(start + time, time).is_some() {
                packets += 1;
            }
        }
        assert!((2_880..=2_920).contains(&packets), "{packets}");
    }

    #[test]
    fn a_picture_leaves_at_once_in_pieces_of_one_size_but_the_last() {
        let start = Clock::start().now();
        for (pictures, bits) in
            [(Pictures::Small, 548), (Pictures::Medium, 598), (Pictures::Large, 2_232)]
        {
            let mut publisher = Publisher::new(start, pictures, [1, 2], [111, 96], true);
            let (mut bytes, mut numbers) = (0, Vec::new());
            for millis in 0..1_000 {
                let time = Duration::from_millis(millis);
                let mut sizes = Vec::new();
                while let Some(packet) = publisher.poll_packet(start + time, time) {
                    let whole = [packet.header(), packet.payload].concat();
                    let read = RtpPacket::parse(&whole).expect("a packet");
                    let number = read.extension(TRANSPORT_SEQUENCE).expect("a number");
                    numbers.push(u16::from_be_bytes([number[0], number[1]]));
                    bytes += packet.payload.len();
                    if read.ssrc == 2 {
                        sizes.push(packet.payload.len());
                    }
                }
                let (count, piece, last) = pictures.pieces();
                if let Some((end, rest)) = sizes.split_last() {
                    assert_eq!((*end, rest.len() + 1), (last, usize::from(count)));
                    assert!(rest.iter().all(|size| *size == piece));
                }
            }
            assert!(numbers.iter().copied().eq(0..numbers.len() as u16));
            assert_eq!(bytes * 8 / 1_000, bits);
        }
    }

    #[test]
    fn what_was_missed_for_long_is_not_sent_in_a_flood() {
        let start = Clock::start().now();
        let mut publisher = Publisher::new(start, Pictures::Large, [1, 2], [111, 96], false);
        let time = Duration::from_secs(20);
        let mut packets = 0;
        while publisher.poll_packet(start + time, time).is_some() {
            packets += 1;
        }
        assert!(packets < 20, "{packets}");
        assert!(publisher.left_out > 4_000);
    }
}
