//! A camera whose pictures are as large as its sender's own estimate and what it is told allow.

use rivero::{
    bandwidth::{Bandwidth, Bounds, Fate, Means},
    rtp::{
        Bitrate,
        sequence::nearest,
        transport_feedback::{Status, TransportFeedback},
    },
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const PICTURES_PER_SECOND: f64 = 30.0;
/// Sound and headers.
const OTHERS: f64 = 60_000.0;
/// Of pictures between keyframes.
const KEYFRAME: f64 = 4.0;

pub struct Camera {
    /// Its best picture, in bits per second.
    pub most: f64,
    /// The last REMB.
    pub remb: Option<f64>,
    /// Whether it makes pictures smaller.
    pub obeys: bool,
    bandwidth: Bandwidth,
    sent: BTreeMap<u64, (Instant, u32)>,
    /// What a keyframe took from the pictures after it, in bytes.
    owes: f64,
}

impl Camera {
    pub fn new(now: Instant, most: f64) -> Self {
        let mut bandwidth = Bandwidth::new(now, Means::TransportWide, Bounds::default());
        bandwidth.set_wanted(Bitrate::from_bps(most as u64));
        Self { most, remb: None, obeys: true, bandwidth, sent: BTreeMap::new(), owes: 0.0 }
    }

    /// What is sent of video, in bits per second.
    pub fn rate(&self) -> f64 {
        if !self.obeys {
            return self.most;
        }
        let allowed = self.bandwidth.estimate().target.bps() as f64;
        let told = self.remb.unwrap_or(f64::MAX);
        (allowed.min(told) - OTHERS).clamp(30_000.0, self.most)
    }

    /// Packets of the next picture.
    pub fn picture(&mut self, keyframe: bool, size: usize) -> u16 {
        let usual = self.rate() / PICTURES_PER_SECOND / 8.0;
        let bytes = if keyframe {
            self.owes += (KEYFRAME - 1.0) * usual;
            KEYFRAME * usual
        } else {
            let less = self.owes.min(0.2 * usual);
            self.owes -= less;
            usual - less
        };
        // The last packet is smaller than the others.
        ((bytes - 300.0) / size as f64).round().max(0.0) as u16 + 1
    }

    pub fn sent(&mut self, now: Instant, number: u64, size: usize) {
        self.sent.insert(number, (now, size as u32));
        self.bandwidth.sent(now, number, size as u32);
    }

    /// Packets to send beside media.
    pub fn probe(&mut self, now: Instant) -> u16 {
        if self.bandwidth.poll_timeout(now).is_some_and(|due| due <= now) {
            self.bandwidth.handle_timeout(now);
        }
        self.bandwidth.poll_probe(now).map_or(0, |probe| probe.packets.min(100) as u16)
    }

    pub fn handle_feedback(&mut self, now: Instant, next: u64, raw: &[u8]) {
        let message = TransportFeedback::parse(raw).expect("a well-formed message");
        let first = nearest(next - 1, message.base);
        let mut fates = Vec::new();
        for status in message.statuses() {
            let (places, tick) = match status {
                Status::Lost(places) => (places, None),
                Status::Received { place, tick } => (place..place + 1, Some(tick)),
            };
            for place in places {
                let seq = first + u64::from(place);
                let Some(&(sent_at, size)) = self.sent.get(&seq) else { continue };
                let received_at = tick.map(|tick| Duration::from_micros(u64::from(tick) * 250));
                fates.push(Fate { seq, size, sent_at, received_at });
            }
        }
        self.bandwidth.handle_feedback(now, fates);
    }
}
