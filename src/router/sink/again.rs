//! Sending again what a receiver missed (RFC 4585 §6.2.1), and what must be kept for it.

use super::{Changes, Choice, MAX_FORMATS, NONE, RtxConfig, Sink, changed};
use crate::router::{
    Egress, PeerKey,
    clock::Stamp,
    header::{Fields, Layout},
    history::{History, Kept},
    sending::Sending,
    stats::DropReason,
};
use crate::rtp::{AbsSendTime, Extensions, Kind, extensions::Carried, sequence::nearest};
use std::time::Duration;

/// Packets that can be asked for again.
const SENT_VIDEO: usize = 1_024;
const SENT_AUDIO: usize = 128;
/// Between two retransmissions of a packet while no round trip was measured; else it is half of that.
/// Receivers that only receive do not know the round trip and ask again every 100 ms: a whole round
/// trip would let a request that comes a moment early wait for yet another one.
const DEFAULT_PAUSE: Duration = Duration::from_millis(20);

/// Probes repeat the newest packets, no more than so many of them, and none so small.
const PROBED: u64 = 24;
const SMALL: usize = 200;

/// What is needed to send the same once more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SentPacket {
    /// How often the ring had gone round, plus one; zero while nothing was here.
    turn: u32,
    abs_send_time: AbsSendTime,
    /// Milliseconds of the router's clock, with the lowest bit set; zero for never.
    resent_at: u32,
    transport_sequence: u16,
    changes: Changes,
}

/// The stream of repetitions.
#[derive(Debug)]
pub(super) struct Rtx {
    layout: Layout,
    formats: Vec<(u8, u8)>,
    next: u64,
}

impl Sink {
    /// Bytes of notes about what was sent.
    pub fn notes(&self) -> usize {
        self.sent.capacity() * size_of::<SentPacket>()
    }

    /// Whether packet `sequence` of the receiver's counting is to be sent again now, or for the first time
    /// when it came to us too late for this sink; its index and its size. The link bears repetitions of
    /// `most` bytes in a second, where that is known.
    pub fn may_resend(
        &mut self,
        stamp: Stamp,
        sequence: u16,
        history: &History,
        round_trip: Option<Duration>,
        most: Option<u64>,
    ) -> Result<(u64, usize), DropReason> {
        if !self.config.nack {
            return Err(DropReason::NotKept);
        }
        let index = nearest(self.rewriter.next().saturating_sub(1), sequence);
        let (_, kept, ..) = self.find(index, history).ok_or(DropReason::NotKept)?;
        let pause =
            round_trip.map_or(DEFAULT_PAUSE, |round_trip| round_trip / 2).as_millis() as u32;
        let (slot, turn) = (slot_of(&self.sent, index), turn_of(&self.sent, index));
        let sent = self.sent.get(slot).copied().unwrap_or_default();
        // What stood here is forgotten, and with it what exactly was sent.
        if sent.turn > turn {
            return Err(DropReason::NotKept);
        }
        let first = sent.turn != turn;
        let ms = stamp.ms | 1;
        if !first && sent.resent_at != 0 && ms.wrapping_sub(sent.resent_at) < pause {
            return Err(DropReason::RepeatedTooSoon);
        }
        if !self.repeats.take(stamp.ms, kept.payload.len(), most) {
            return Err(DropReason::RepeatBudget);
        }
        if !first {
            self.sent[slot].resent_at = ms;
        }
        Ok((index, self.layout.len() + kept.payload.len()))
    }

    /// Sends a packet again that [`Self::may_resend`] let through. `buffer` is for putting a repetition
    /// together.
    pub fn resend(
        &mut self,
        stamp: Stamp,
        index: u64,
        history: &History,
        sending: &mut Sending,
        buffer: &mut Vec<u8>,
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        let (sequence, kept, payload_type, timestamp) =
            self.find(index, history).ok_or(DropReason::NotKept)?;
        let sent = self.sent.get(slot_of(&self.sent, index)).copied().unwrap_or_default();
        let turn = turn_of(&self.sent, index);
        if sent.turn > turn {
            return Err(DropReason::NotKept);
        }
        let first = sent.turn != turn;
        let changes = if first { self.choose_late(sequence, &kept)? } else { sent.changes };
        let payload = changed(changes, kept.payload, &mut self.patched);
        self.stats.retransmitted_packets += 1;
        self.stats.retransmitted_bytes += payload.len() as u64;
        let mut fields = Fields {
            marker: kept.marker || changes.sets_marker(),
            payload_type,
            sequence: index as u16,
            timestamp,
            abs_send_time: stamp.abs_send_time,
            transport_sequence: 0,
            playout_delay: None,
        };
        if let Some(rtx) = self.rtx.as_mut().filter(|_| !first)
            && let Some((number, _)) = rtx.formats.iter().find(|(_, of)| *of == payload_type)
        {
            fields.payload_type = *number;
            buffer.clear();
            buffer.extend(fields.sequence.to_be_bytes());
            buffer.extend(payload);
            rtx.send(stamp, self.peer, fields, buffer, sending, out);
            return Ok(());
        }
        self.again.0 += 1;
        self.again.1 += payload.len() as u64;
        let size = self.layout.len() + payload.len();
        if first {
            fields.transport_sequence = sending.depart(stamp, size, self.layout.is_numbered());
            let sent = (stamp.abs_send_time, fields.transport_sequence, changes);
            Self::remember(&mut self.sent, self.config.kind, index, false, sent);
        } else {
            fields.abs_send_time = sent.abs_send_time;
            fields.transport_sequence = sent.transport_sequence;
            if self.layout.is_numbered() {
                sending.departures.send_again(sent.transport_sequence);
            }
            sending.bandwidth.sent(stamp.now, 0, size as u32);
        }
        let (header, length) = self.layout.write(&fields, &Carried::default());
        out.rtp(self.peer, &header[..length], payload, index);
        Ok(())
    }

    /// Sends the newest packets once more, on the stream of repetitions, until they are so many bytes: so a
    /// probe is filled, and what was lost of them is repaired. Without that stream, or before anything
    /// was sent, nothing is; how much was.
    pub fn probe(
        &mut self,
        stamp: Stamp,
        bytes: usize,
        history: &History,
        sending: &mut Sending,
        buffer: &mut Vec<u8>,
        out: &mut impl Egress,
    ) -> usize {
        let mut left = 0;
        let newest = self.rewriter.next();
        while left < bytes && self.rtx.is_some() {
            let before = left;
            for back in 1..=PROBED.min(newest) {
                let index = newest - back;
                if left >= bytes || !self.was_sent(index) {
                    continue;
                }
                let Some((_, kept, payload_type, timestamp)) = self.find(index, history) else {
                    continue;
                };
                // A small packet fills little, for as much work.
                if kept.payload.len() < SMALL {
                    continue;
                }
                let Some(rtx) = &mut self.rtx else { break };
                let format = rtx.formats.iter().find(|(_, of)| *of == payload_type);
                let Some(&(payload_type, _)) = format else { continue };
                let changes = self.sent[slot_of(&self.sent, index)].changes;
                let payload = changed(changes, kept.payload, &mut self.patched);
                let fields = Fields {
                    marker: kept.marker || changes.sets_marker(),
                    payload_type,
                    sequence: 0,
                    timestamp,
                    abs_send_time: stamp.abs_send_time,
                    transport_sequence: 0,
                    playout_delay: None,
                };
                buffer.clear();
                buffer.extend((index as u16).to_be_bytes());
                buffer.extend(payload);
                let size = rtx.send(stamp, self.peer, fields, buffer, sending, out);
                sending.spend(stamp.now, size);
                self.stats.padding_packets += 1;
                self.stats.padding_bytes += payload.len() as u64;
                left += size;
            }
            if left == before {
                break;
            }
        }
        left
    }

    /// Whether a packet with this number left, or one that took its place since.
    pub(super) fn was_sent(&self, index: u64) -> bool {
        let sent = self.sent.get(slot_of(&self.sent, index));
        sent.is_some_and(|sent| sent.turn >= turn_of(&self.sent, index))
    }

    /// The packet behind an outgoing index, with its number at the source.
    fn find<'a>(&self, index: u64, history: &'a History) -> Option<(u64, Kept<'a>, u8, u32)> {
        let sequence = self.selection.source_of(self.rewriter.source_of(index)?)?;
        let kept = history.get(sequence)?;
        let (payload_type, payload) = self.outgoing(kept.format, kept.payload);
        let timestamp = self.rewriter.timestamp(kept.timestamp)?;
        let kept = Kept { payload, ..kept };
        (payload_type != NONE).then_some((sequence, kept, payload_type, timestamp))
    }

    /// What becomes of a packet that never went out, as it came too late.
    fn choose_late(&mut self, sequence: u64, kept: &Kept<'_>) -> Result<Changes, DropReason> {
        let codec = self.codecs[usize::from(kept.format) % MAX_FORMATS];
        match self.selection.choose_late(sequence, kept, codec) {
            Choice::Send(_, changes) => Ok(changes),
            Choice::Leave | Choice::TooOld => Err(DropReason::NotKept),
        }
    }

    /// Keeps how packet `index` went out: its time of sending, its number in the transport, and how it
    /// was changed.
    /// Nothing newer went out if it is the `newest`: then nothing is to be read, which would have to be
    /// waited for.
    #[inline]
    pub(super) fn remember(
        ring: &mut Vec<SentPacket>,
        kind: Kind,
        index: u64,
        newest: bool,
        (abs_send_time, transport_sequence, changes): (AbsSendTime, u16, Changes),
    ) {
        if ring.is_empty() {
            let size = if kind == Kind::Video { SENT_VIDEO } else { SENT_AUDIO };
            ring.resize(size, SentPacket::default());
        }
        let (slot, turn) = (slot_of(ring, index), turn_of(ring, index));
        let sent = &mut ring[slot];
        // A packet later than the ring is long must not push a newer one out.
        if newest || sent.turn < turn {
            *sent = SentPacket { turn, abs_send_time, resent_at: 0, transport_sequence, changes };
        }
    }
}

fn slot_of(ring: &[SentPacket], index: u64) -> usize {
    index as usize & ring.len().wrapping_sub(1)
}

/// Of the shortest ring, and more than there are in the life of a key.
fn turn_of(ring: &[SentPacket], index: u64) -> u32 {
    // Its length is a power of two, and to divide by what is not known beforehand takes long.
    (index >> ring.len().max(1).trailing_zeros()) as u32 + 1
}

impl Rtx {
    pub fn new(config: RtxConfig, extensions: &Extensions, mid: Option<&str>) -> Self {
        Self {
            layout: Layout::new(config.ssrc, extensions, mid, false),
            formats: config.formats,
            next: u64::from(config.sequence_start),
        }
    }

    /// Sends a repetition, whose `payload` begins with the number of what it repeats.
    fn send(
        &mut self,
        stamp: Stamp,
        to: PeerKey,
        mut fields: Fields,
        payload: &[u8],
        sending: &mut Sending,
        out: &mut impl Egress,
    ) -> usize {
        let index = self.next;
        self.next += 1;
        fields.sequence = index as u16;
        let size = self.layout.len() + payload.len();
        fields.transport_sequence = sending.depart(stamp, size, self.layout.is_numbered());
        let (header, length) = self.layout.write(&fields, &Carried::default());
        out.rtp(to, &header[..length], payload, index);
        size
    }
}
