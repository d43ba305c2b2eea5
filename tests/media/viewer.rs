//! One who watches: puts frames together, asks for what is missing, reports.

use super::world::{Piece, VIEWER_AUDIO_PT, VIEWER_VIDEO_PT, is_rtcp, ms};
use crate::support::link::Link;
use rivero::{
    router::{PeerKey, SinkKey},
    rtp::{
        Bitrate, RtpPacket,
        nack::Nacks,
        rtcp::{
            Rtcp, SenderInfo, packets, write_nack, write_pli, write_receiver_report, write_remb,
        },
        sequence::{Seen, Sighting, Unwrapper},
        stats::Reception,
        transport_feedback::Writer,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// One stream at a viewer.
#[derive(Default)]
pub struct Received {
    pub sink: SinkKey,
    pub ssrc: u32,
    pub(super) unwrapper: Unwrapper,
    pub(super) seen: Seen,
    pub(super) nacks: Nacks,
    pub(super) reception: Reception,
    pub(super) frames: BTreeMap<(u8, u32), BTreeSet<u16>>,
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

/// Numbers over all that comes, to be told of.
#[derive(Default)]
pub struct Numbers {
    /// Of the header extension.
    pub id: u8,
    pub(super) unwrapper: Unwrapper,
    /// Ticks of arrival.
    pub arrived: BTreeMap<u64, u32>,
    pub(super) next: Option<u64>,
    pub(super) messages: u8,
}

impl Numbers {
    fn take(&mut self, time: u64, packet: &RtpPacket<'_>) {
        let content = packet.extension(self.id).expect("every packet has a number");
        let number = u16::from_be_bytes(content.try_into().expect("two bytes"));
        let number = self.unwrapper.unwrap(number);
        self.arrived.entry(number).or_insert(time as u32 * 4);
        // One that comes late is told of again, with all behind it.
        self.next = self.next.map(|next| next.min(number));
    }

    fn tell(&mut self, out: &mut Vec<u8>, media: u32) {
        let Some((&last, _)) = self.arrived.last_key_value() else { return };
        let first = self.arrived.first_key_value().map_or(last, |(first, _)| *first);
        let mut next = self.next.unwrap_or(first);
        while next <= last {
            let statuses = (next..=last).map(|number| self.arrived.get(&number).copied());
            let told = Writer::default().write(out, 1, media, self.messages, next as u16, statuses);
            self.messages = self.messages.wrapping_add(1);
            next += told.max(1) as u64;
        }
        self.next = Some(next);
    }
}

pub struct Viewer {
    pub peer: PeerKey,
    pub video: Received,
    pub audio: Received,
    /// While set, a PLI is sent each time this much passed.
    pub pli_every: Option<u64>,
    pub reports: bool,
    pub remb: Option<u64>,
    /// SSRC and payload type of the stream of repetitions.
    pub rtx: Option<(u32, u8)>,
    /// Of those, how many came.
    pub repeated: u64,
    pub numbers: Option<Numbers>,
    pub(super) joined: u64,
    pub(super) up: Link<Vec<u8>>,
    pub(super) down: Link<Vec<u8>>,
}

impl Viewer {
    pub(super) fn step(&mut self, now: Instant, time: u64) {
        while let Some(bytes) = self.down.receive(now) {
            if is_rtcp(&bytes) {
                self.handle_rtcp(time, &bytes);
                continue;
            }
            let packet = RtpPacket::parse(&bytes).unwrap();
            if let Some(numbers) = &mut self.numbers {
                numbers.take(time, &packet);
            }
            if let Some((ssrc, payload_type)) = self.rtx
                && packet.ssrc == ssrc
            {
                assert_eq!(packet.payload_type, payload_type);
                self.repeated += 1;
                let original = packet.repeated(VIEWER_VIDEO_PT, self.video.ssrc);
                self.video.receive(now, time, &original.expect("a number"), true);
                continue;
            }
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
                let bitrate = Bitrate::from_bps(remb);
                write_remb(&mut bytes, 1, bitrate, &[self.video.ssrc]);
            }
        }
        if let Some(numbers) = &mut self.numbers
            && age.is_multiple_of(100)
        {
            numbers.tell(&mut bytes, self.video.ssrc);
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
        let words = self.log.iter().flat_map(|&(at, number, timestamp, piece)| {
            [at, number, u64::from(timestamp), u64::from(piece.frame)]
        });
        words.fold(0xcbf2_9ce4_8422_2325, |digest, word| {
            (digest ^ word).wrapping_mul(0x0100_0000_01b3)
        })
    }
}
