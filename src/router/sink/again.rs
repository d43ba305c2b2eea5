//! Sending again what a receiver missed (RFC 4585 §6.2.1), and what must be kept for it.

use super::{
    Changes, Choice, MAX_FORMATS, NONE, RtxConfig, Sink, changed,
    notes::{Noted, Sent},
};
use crate::router::{
    Egress, PeerKey, SinkKey,
    clock::Stamp,
    header::{Fields, Layout},
    history::{History, Kept},
    sending::{Held, Sending},
    stats::DropReason,
};
use crate::rtp::{Extensions, extensions::Carried, sequence::nearest};
use std::time::Duration;

/// Packets that can be asked for again.
pub(super) const SENT_VIDEO: u32 = 1_024;
pub(super) const SENT_AUDIO: u32 = 128;
/// Between two retransmissions of a packet while no round trip was measured; else it is half of that.
/// Receivers that only receive do not know the round trip and ask again every 100 ms: a whole round
/// trip would let a request that comes a moment early wait for yet another one.
const DEFAULT_PAUSE: Duration = Duration::from_millis(20);

/// Probes repeat the newest packets, no more than so many of them, and none so small.
const PROBED: u64 = 24;
/// Packets of a first picture that are sent twice.
const TWICE: u8 = 96;
const SMALL: usize = 200;

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
        self.sent.memory()
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
        let first = match self.sent.noted(index) {
            // And with it what exactly was sent.
            Noted::Forgotten => return Err(DropReason::NotKept),
            Noted::Unsent => true,
            Noted::Sent(_) => false,
        };
        if !first && self.sent.was_repeated(index, stamp.ms, pause) {
            return Err(DropReason::RepeatedTooSoon);
        }
        if !self.repeats.take(stamp.ms, kept.payload.len(), most) {
            return Err(DropReason::RepeatBudget);
        }
        if !first {
            self.sent.repeat(index, stamp.ms);
        }
        Ok((index, self.layout.len() + kept.payload.len()))
    }

    /// Whether a packet is still to be sent once more that nobody may have asked for: it left, and was not
    /// sent again since.
    pub fn may_send_twice(&mut self, stamp: Stamp, index: u64) -> bool {
        let once = matches!(self.sent.noted(index), Noted::Sent(_))
            && !self.sent.was_repeated(index, stamp.ms, u32::MAX);
        if once {
            self.sent.repeat(index, stamp.ms);
        }
        once
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
        let (first, sent) = match self.sent.noted(index) {
            Noted::Forgotten => return Err(DropReason::NotKept),
            Noted::Unsent => {
                let changes = self.choose_late(sequence, &kept)?;
                (true, Sent { changes, ..Sent::default() })
            }
            Noted::Sent(sent) => (false, sent),
        };
        let changes = sent.changes;
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
            let transport_sequence = fields.transport_sequence;
            let abs_send_time = stamp.abs_send_time;
            self.sent.note(index, Sent { abs_send_time, transport_sequence, changes });
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
                if left >= bytes {
                    continue;
                }
                let Noted::Sent(Sent { changes, .. }) = self.sent.noted(index) else { continue };
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

    /// The receiver's first picture begins, over a way on which what is lost is missed for long: its packets
    /// are sent twice, as every twentieth may be lost and one that is missing is one picture less. Without
    /// a stream of repetitions they are not.
    pub(super) fn begin_twice(&mut self, sending: &Sending) {
        let first = self.is_new() && self.rtx.is_some() && self.is_video();
        self.twice = if first && sending.is_far() { TWICE } else { 0 };
    }

    /// A packet of the first picture left, or waits to.
    #[cold]
    pub(super) fn send_twice(
        &mut self,
        key: SinkKey,
        index: u64,
        size: usize,
        ends: bool,
        sending: &mut Sending,
    ) {
        self.twice = if ends { 0 } else { self.twice - 1 };
        if let Err(reason) = sending.hold(size, Held::Twice { sink: key, index }) {
            self.stats.drops.count(reason);
        }
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
