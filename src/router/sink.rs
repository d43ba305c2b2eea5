//! A sink stream: the gate it starts at, the header of its own, and sending again what its receiver
//! missed (RFC 4585 §6.2.1).
//!
//! A retransmission is the same packet under the same index, header extension included: an index is
//! an SRTP nonce, and a nonce seals one plaintext only.

use super::{
    Egress, PeerKey, SourceKey,
    clock::Stamp,
    history::{History, Kept},
    source::Arrival,
    stats::{DropReason, SinkStats},
};
use crate::rtp::{
    AbsSendTime, Bitrate, Format, Kind,
    rewrite::Rewriter,
    rtcp::{ReportBlock, SenderInfo},
    sequence::nearest,
};
use std::time::{Duration, Instant};

/// Formats of one source that are told apart; an offer has fewer.
pub(super) const MAX_FORMATS: usize = 32;
/// In the map from formats: the sink cannot take it.
const NONE: u8 = 0xff;
/// Packets that can be asked for again.
const SENT_VIDEO: usize = 1_024;
const SENT_AUDIO: usize = 128;
/// The bitrate is one over at least this much time.
const MEASURED: Duration = Duration::from_secs(1);
/// Between two retransmissions of a packet while no round trip was measured.
const DEFAULT_PAUSE: Duration = Duration::from_millis(20);

/// How a sink is negotiated.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    pub kind: Kind,
    pub ssrc: u32,
    /// Payload types with their formats, the preferred first.
    pub formats: Vec<(u8, Format)>,
    /// Whether the receiver may ask for packets again.
    pub nack: bool,
    /// The negotiated number of the abs-send-time header extension, 1 to 14.
    pub abs_send_time: Option<u8>,
    /// Random, as RFC 3550 §5.1 wants it.
    pub sequence_start: u16,
    /// Random, as RFC 3550 §5.1 wants it.
    pub timestamp_start: u32,
}

/// What a sink did with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Sent,
    /// The sink started with this packet.
    Started,
    Dropped,
    WantsKeyframe,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Gate {
    Closed,
    /// Lets packets of this generation of its source through.
    Open(u32),
}

#[derive(Clone, Copy, Debug)]
struct SentPacket {
    index: u64,
    abs_send_time: AbsSendTime,
    /// Milliseconds of the router's clock, with the lowest bit set; zero for never.
    resent_at: u32,
}

#[derive(Debug)]
pub(super) struct Sink {
    pub peer: PeerKey,
    pub source: Option<SourceKey>,
    pub active: bool,
    pub stats: SinkStats,
    /// When the last REMB came, whose value stands in `stats`.
    pub remb_at: Option<Instant>,
    config: SinkConfig,
    gate: Gate,
    rewriter: Rewriter,
    /// Index of the source's format to our payload type.
    payload_types: [u8; MAX_FORMATS],
    sent: Vec<SentPacket>,
    clock_rate: u32,
    /// When the bitrate was measured last, and the bytes that were sent before.
    measured: Option<(Instant, u64)>,
}

impl Sink {
    pub fn new(peer: PeerKey, mut config: SinkConfig) -> Self {
        config.abs_send_time = config.abs_send_time.filter(|id| (1..=14).contains(id));
        Self {
            peer,
            source: None,
            active: true,
            stats: SinkStats { ssrc: config.ssrc, ..SinkStats::default() },
            remb_at: None,
            gate: Gate::Closed,
            rewriter: Rewriter::new(config.sequence_start, config.timestamp_start),
            payload_types: [NONE; MAX_FORMATS],
            sent: Vec::new(),
            clock_rate: config.formats.first().map_or(90_000, |(_, one)| one.codec.clock_rate()),
            measured: None,
            config,
        }
    }

    pub fn ssrc(&self) -> u32 {
        self.config.ssrc
    }

    pub fn formats(&self) -> &[(u8, Format)] {
        &self.config.formats
    }

    /// Connects to a source that sends in `formats`, or to none.
    pub fn connect(&mut self, source: Option<SourceKey>, formats: &[(u8, Format)]) {
        self.source = source;
        self.close();
        self.payload_types = [NONE; MAX_FORMATS];
        for (slot, (_, sent)) in self.payload_types.iter_mut().zip(formats) {
            // The first of the best: `max_by_key` alone would take the last.
            let best = self.config.formats.iter().rev().max_by_key(|(_, own)| own.takes(*sent));
            *slot = best.filter(|(_, own)| own.takes(*sent) > 0).map_or(NONE, |(pt, _)| *pt);
        }
    }

    /// Lets nothing through until the stream can start anew.
    pub fn close(&mut self) {
        self.gate = Gate::Closed;
        self.rewriter.end();
    }

    /// Whether a keyframe of the connected source would be of use now.
    pub fn waits_for_keyframe(&self) -> bool {
        self.config.kind == Kind::Video
            && self.active
            && self.gate == Gate::Closed
            && self.payload_types.iter().any(|&payload_type| payload_type != NONE)
    }

    #[inline]
    pub fn forward(
        &mut self,
        stamp: Stamp,
        arrival: &Arrival,
        payload: &[u8],
        out: &mut impl Egress,
    ) -> Verdict {
        let mut verdict = Verdict::Sent;
        let payload_type = self.payload_types[usize::from(arrival.format) % MAX_FORMATS];
        if self.gate != Gate::Open(arrival.generation) || payload_type == NONE || !self.active {
            match self.try_open(stamp, arrival, payload_type) {
                Ok(()) => verdict = Verdict::Started,
                Err(reason) => {
                    self.stats.drops.count(reason);
                    return match reason {
                        DropReason::WaitingForKeyframe => Verdict::WantsKeyframe,
                        _ => Verdict::Dropped,
                    };
                }
            }
        }
        let rewritten = self.rewriter.rewrite(stamp.now, arrival.sequence, arrival.timestamp);
        let Ok((index, timestamp)) = rewritten else {
            self.stats.drops.count(DropReason::BeforeSwitch);
            return Verdict::Dropped;
        };
        if self.config.nack {
            self.remember(index, stamp.abs_send_time);
        }
        self.stats.packets += 1;
        self.stats.bytes += payload.len() as u64;
        let (header, length) =
            self.header(arrival.marker, payload_type, index, timestamp, stamp.abs_send_time);
        out.rtp(self.peer, &header[..length], payload, index);
        verdict
    }

    /// Sends packet `sequence` of the receiver's counting again, or for the first time when it came
    /// to us too late for this sink.
    pub fn resend(
        &mut self,
        stamp: Stamp,
        sequence: u16,
        history: &History,
        round_trip: Option<Duration>,
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        if !self.config.nack {
            return Err(DropReason::NotKept);
        }
        let index = nearest(self.rewriter.next().saturating_sub(1), sequence);
        let (kept, payload_type, timestamp) =
            self.find(index, history).ok_or(DropReason::NotKept)?;
        let pause = round_trip.unwrap_or(DEFAULT_PAUSE).as_millis() as u32;
        let slot = self.slot_of(index);
        let abs_send_time = match self.sent.get_mut(slot) {
            Some(sent) if sent.index == index => {
                let ms = stamp.ms | 1;
                if sent.resent_at != 0 && ms.wrapping_sub(sent.resent_at) < pause {
                    return Err(DropReason::RepeatedTooSoon);
                }
                sent.resent_at = ms;
                sent.abs_send_time
            }
            // What stood here is forgotten, and with it what exactly was sent.
            Some(sent) if sent.index > index && sent.index != u64::MAX => {
                return Err(DropReason::NotKept);
            }
            _ => {
                self.remember(index, stamp.abs_send_time);
                stamp.abs_send_time
            }
        };
        self.stats.retransmitted_packets += 1;
        self.stats.retransmitted_bytes += kept.payload.len() as u64;
        let (header, length) =
            self.header(kept.marker, payload_type, index, timestamp, abs_send_time);
        out.rtp(self.peer, &header[..length], kept.payload, index);
        Ok(())
    }

    /// After a start at a keyframe that came late: what came between it and now.
    pub fn catch_up(
        &mut self,
        stamp: Stamp,
        after: u64,
        newest: u64,
        history: &History,
        out: &mut impl Egress,
    ) {
        let Gate::Open(generation) = self.gate else { return };
        for sequence in after + 1..=newest {
            let Some(kept) = history.get(sequence) else { continue };
            let arrival = Arrival {
                sequence,
                timestamp: kept.timestamp,
                marker: kept.marker,
                format: kept.format,
                generation,
                clock_rate: self.clock_rate,
                keyframe: false,
                newest: true,
                empty: kept.payload.is_empty(),
            };
            self.forward(stamp, &arrival, kept.payload, out);
        }
    }

    /// Measures the bitrate; called again and again as long as there is a way to the receiver.
    pub fn measure(&mut self, now: Instant) {
        let bytes = self.stats.bytes + self.stats.retransmitted_bytes;
        let (since, before) = *self.measured.get_or_insert((now, bytes));
        let passed = now.saturating_duration_since(since);
        if passed >= MEASURED {
            self.stats.bitrate = Bitrate::of(bytes - before, passed).unwrap_or_default();
            self.measured = Some((now, bytes));
        }
    }

    /// There is no way to the receiver.
    pub fn stop_measuring(&mut self) {
        self.stats.bitrate = Bitrate::default();
        self.measured = None;
    }

    /// Takes in what the receiver reports of this stream.
    pub fn report(&mut self, block: &ReportBlock, round_trip: Option<Duration>) {
        self.stats.lost = i64::from(block.lost);
        self.stats.fraction_lost = block.fraction_lost;
        let nanos = u64::from(block.jitter) * 1_000_000_000 / u64::from(self.clock_rate);
        self.stats.jitter = Duration::from_nanos(nanos);
        self.stats.round_trip = round_trip.or(self.stats.round_trip);
    }

    /// What a sender report says. `source_timestamp` is the source's media time at this moment, if
    /// its own reports tell; else the stream's last timestamp is carried on by the wall clock.
    /// Nothing before the first packet.
    pub fn sender_info(
        &self,
        now: Instant,
        ntp: crate::rtp::NtpTime,
        source_timestamp: Option<u32>,
    ) -> Option<SenderInfo> {
        let own = self.rewriter.timestamp_at(now, self.clock_rate)?;
        let translated = source_timestamp.and_then(|timestamp| self.rewriter.timestamp(timestamp));
        Some(SenderInfo {
            ntp,
            timestamp: translated.unwrap_or(own),
            packets: (self.stats.packets + self.stats.retransmitted_packets) as u32,
            octets: (self.stats.bytes + self.stats.retransmitted_bytes) as u32,
        })
    }

    #[cold]
    fn try_open(
        &mut self,
        stamp: Stamp,
        arrival: &Arrival,
        payload_type: u8,
    ) -> Result<(), DropReason> {
        if !self.active {
            return Err(DropReason::Inactive);
        }
        self.close();
        if payload_type == NONE {
            return Err(DropReason::Format);
        }
        match self.config.kind {
            Kind::Video if !arrival.keyframe => return Err(DropReason::WaitingForKeyframe),
            Kind::Audio if !arrival.newest => return Err(DropReason::BeforeSwitch),
            _ => {}
        }
        self.clock_rate = arrival.clock_rate;
        self.rewriter.begin(stamp.now, arrival.sequence, arrival.timestamp, arrival.clock_rate);
        self.gate = Gate::Open(arrival.generation);
        Ok(())
    }

    fn find<'a>(&self, index: u64, history: &'a History) -> Option<(Kept<'a>, u8, u32)> {
        let kept = history.get(self.rewriter.source_of(index)?)?;
        let payload_type = self.payload_types[usize::from(kept.format) % MAX_FORMATS];
        let timestamp = self.rewriter.timestamp(kept.timestamp)?;
        (payload_type != NONE).then_some((kept, payload_type, timestamp))
    }

    #[inline]
    fn remember(&mut self, index: u64, abs_send_time: AbsSendTime) {
        if self.sent.is_empty() {
            let size = if self.config.kind == Kind::Video { SENT_VIDEO } else { SENT_AUDIO };
            let empty = SentPacket { index: u64::MAX, abs_send_time, resent_at: 0 };
            self.sent.resize(size, empty);
        }
        let slot = self.slot_of(index);
        let sent = &mut self.sent[slot];
        // A packet later than the ring is long must not push a newer one out.
        if sent.index == u64::MAX || sent.index < index {
            *sent = SentPacket { index, abs_send_time, resent_at: 0 };
        }
    }

    fn slot_of(&self, index: u64) -> usize {
        index as usize & self.sent.len().wrapping_sub(1)
    }

    /// The fixed header and, when negotiated, the one extension that is ours.
    #[inline]
    fn header(
        &self,
        marker: bool,
        payload_type: u8,
        index: u64,
        timestamp: u32,
        abs_send_time: AbsSendTime,
    ) -> ([u8; 20], usize) {
        let mut header = [0; 20];
        header[0] = 0x80;
        header[1] = u8::from(marker) << 7 | payload_type;
        header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.config.ssrc.to_be_bytes());
        let Some(id) = self.config.abs_send_time else { return (header, 12) };
        header[0] |= 0x10;
        header[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
        let element = u32::from(id << 4 | 2) << 24 | abs_send_time.bits();
        header[16..20].copy_from_slice(&element.to_be_bytes());
        (header, 20)
    }
}
