//! A sink stream: the gate it starts at, the header of its own, and sending again what its receiver
//! missed (RFC 4585 §6.2.1).
//!
//! Where it was agreed on, what is sent again goes out on a stream of its own (RFC 4588), as a new
//! packet with a number of that stream. Else it is the same packet under the same index, header
//! extensions included: an index is an SRTP nonce, and a nonce seals one plaintext only.

mod again;
mod layers;
mod notes;
mod patience;
mod redundant;

pub(super) use layers::Layers;

use super::{
    Egress, PeerKey, SinkKey, SourceKey,
    budget::Budget,
    clock::Stamp,
    header::{Fields, Layout},
    history::History,
    layers::Ascent,
    sending::{Held, Sending},
    source::Arrival,
    stats::{DropReason, SinkStats},
};
use crate::bandwidth::Class;
use crate::prefetch;
use crate::rtp::{
    Bitrate, Codec, Extension, Extensions, Format, Kind,
    extensions::Carried,
    red,
    rewrite::Rewriter,
    rtcp::{ReportBlock, SenderInfo},
};
use again::{Rtx, SENT_AUDIO, SENT_VIDEO};
use layers::{Changes, Choice, Selection};
use notes::{Notes, Sent};
pub(super) use patience::Lossy;
use patience::Patience;
use redundant::Redundant;
use std::time::{Duration, Instant};

/// Formats of one source that are told apart; an offer has fewer.
pub(super) const MAX_FORMATS: usize = 32;
/// In the map from formats: the sink cannot take it.
const NONE: u8 = 0xff;
/// In the map from formats: redundant audio, of which the sink takes what is newest.
const UNWRAP: u8 = 0xfe;
/// The bitrate is one over at least this much time.
const MEASURED: Duration = Duration::from_secs(1);

/// Between two keyframes that are asked for as too much was lost to be sent again, in milliseconds.
const ANEW: u32 = 1_000;

/// How a sink is negotiated.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    pub kind: Kind,
    pub ssrc: u32,
    /// Payload types with their formats, the preferred first.
    pub formats: Vec<(u8, Format)>,
    /// Whether the receiver may ask for packets again.
    pub nack: bool,
    /// The stream of its own that what is sent again goes out on, if there is one.
    pub rtx: Option<RtxConfig>,
    /// The negotiated numbers of header extensions.
    pub extensions: Extensions,
    /// Whether the receiver tells of each packet by its number in the transport.
    pub transport_cc: bool,
    /// What the extension for it says: the name of the media section.
    pub mid: Option<String>,
    /// Random, as RFC 3550 §5.1 wants it.
    pub sequence_start: u16,
    /// Random, as RFC 3550 §5.1 wants it.
    pub timestamp_start: u32,
}

/// The stream of what a sink sends again.
#[derive(Clone, Debug)]
pub struct RtxConfig {
    pub ssrc: u32,
    /// Its payload types, each with the one that it repeats.
    pub formats: Vec<(u8, u8)>,
    /// Random, as RFC 4588 §4 wants it.
    pub sequence_start: u16,
}

/// What a sink did with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Sent,
    /// The packet has to wait for its time.
    Held,
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

/// What is settled about a packet before it leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    index: u64,
    timestamp: u32,
    payload_type: u8,
    marker: bool,
    carried: Carried,
    changes: Changes,
}

/// The rates that a client set for a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendBounds {
    pub min: Option<Bitrate>,
    pub max: Option<Bitrate>,
}

#[derive(Debug)]
pub(super) struct Sink {
    pub peer: PeerKey,
    /// What it is connected to: a source, or the first of several encodings of one.
    pub track: Option<SourceKey>,
    /// The one of them that it gets.
    pub source: Option<SourceKey>,
    /// The one that it goes over to with the next keyframe.
    pub next: Option<SourceKey>,
    /// Its ways up to better encodings.
    pub ascent: Ascent,
    /// Since when more would fit.
    pub better_since: Option<Instant>,
    /// Since when it waits for a picture to go up with.
    pub waits_since: Option<Instant>,
    pub selection: Selection,
    pub active: bool,
    pub stats: SinkStats,
    pub bounds: SendBounds,
    /// Its share of what may be sent to its peer; `None` as long as nobody knows of a limit.
    pub budget: Option<Bitrate>,
    /// What its link turned out not to exceed, if that is known.
    pub narrowest: Option<Bitrate>,
    /// When a keyframe was asked for instead of repetitions, in milliseconds of the router's clock.
    anew_at: Option<u32>,
    /// No pictures are sent: more would come than the link carries.
    pub fasting: bool,
    config: SinkConfig,
    layout: Layout,
    rtx: Option<Rtx>,
    redundant: Option<Redundant>,
    patience: Patience,
    repeats: Budget,
    /// Packets and bytes that were sent again on this very stream.
    again: (u64, u64),
    gate: Gate,
    rewriter: Rewriter,
    /// Index of the source's format to our payload type.
    payload_types: [u8; MAX_FORMATS],
    /// Payload types inside of the source's redundant audio, to ours.
    blocks: Vec<(u8, u8)>,
    sent: Notes,
    clock_rate: u32,
    /// When the bitrate was measured last, and the bytes that were sent before.
    measured: Option<(Instant, u64)>,
    /// Packets that were sent before the last report.
    reported: u64,
    /// So many of the next packets of this picture are sent twice.
    twice: u8,
    /// What the first timestamp of the source should become, by the sender's clock.
    meant: Option<u32>,
    /// Index of the source's format to its codec.
    codecs: [Option<Codec>; MAX_FORMATS],
    /// A payload that is not as the source sent it.
    patched: Vec<u8>,
}

impl Sink {
    pub fn new(peer: PeerKey, mut config: SinkConfig) -> Self {
        if !config.transport_cc {
            config.extensions = config.extensions.without(Extension::TransportSequence);
        }
        let mid = config.mid.as_deref();
        // A packet that may have to be sent again as it was says of its media only what is kept.
        let again = |number: &u8| {
            config.rtx.iter().flat_map(|rtx| &rtx.formats).any(|(_, repeated)| repeated == number)
        };
        // And if it is sent again under its index, all of its header is noted.
        let carries = !config.nack || config.formats.iter().all(|(number, _)| again(number));
        let layout = Layout::new(config.ssrc, &config.extensions, mid, carries);
        let redundant = Self::repeats_sound(&config);
        let notes = if config.kind == Kind::Video { SENT_VIDEO } else { SENT_AUDIO };
        let rtx = config.rtx.take();
        let rtx_ssrc = rtx.as_ref().map(|rtx| rtx.ssrc);
        let rtx = rtx.map(|rtx| Rtx::new(rtx, &config.extensions, mid));
        Self {
            peer,
            track: None,
            source: None,
            next: None,
            ascent: Ascent::default(),
            better_since: None,
            waits_since: None,
            selection: Selection::default(),
            active: true,
            stats: SinkStats { ssrc: config.ssrc, rtx_ssrc, ..SinkStats::default() },
            layout,
            rtx,
            redundant,
            patience: Patience::default(),
            bounds: SendBounds::default(),
            budget: None,
            narrowest: None,
            anew_at: None,
            fasting: false,
            repeats: Budget::default(),
            again: (0, 0),
            gate: Gate::Closed,
            rewriter: Rewriter::new(config.sequence_start, config.timestamp_start),
            payload_types: [NONE; MAX_FORMATS],
            blocks: Vec::new(),
            sent: Notes::new(notes, !carries),
            clock_rate: config.formats.first().map_or(90_000, |(_, one)| one.codec.clock_rate()),
            measured: None,
            reported: 0,
            twice: 0,
            meant: None,
            codecs: [None; MAX_FORMATS],
            patched: Vec::new(),
            config,
        }
    }

    /// Whoever asks for sound again gets it from what is kept of the source, as it came from there.
    fn repeats_sound(config: &SinkConfig) -> Option<Redundant> {
        let of = |codec| {
            config.formats.iter().find(|(_, own)| own.codec == codec).map(|(number, _)| *number)
        };
        let formats = of(Codec::Red).zip(of(Codec::Opus)).filter(|_| !config.nack);
        formats.map(|(number, encoding)| Redundant::new(number, encoding))
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
        self.next = None;
        self.meant = None;
        self.close();
        self.codecs = [None; MAX_FORMATS];
        for (slot, (_, sent)) in self.codecs.iter_mut().zip(formats) {
            *slot = Some(sent.codec);
        }
        self.payload_types = [NONE; MAX_FORMATS];
        for (slot, (_, sent)) in self.payload_types.iter_mut().zip(formats) {
            // The first of the best: `max_by_key` alone would take the last.
            let best = self.config.formats.iter().rev().max_by_key(|(_, own)| own.takes(*sent));
            *slot = best.filter(|(_, own)| own.takes(*sent) > 0).map_or(NONE, |(pt, _)| *pt);
        }
        let pairs = || formats.iter().zip(self.payload_types);
        let taken = pairs().filter(|(_, own)| *own != NONE);
        self.blocks = taken.map(|(&(number, _), own)| (number, own)).collect();
        for (slot, (_, sent)) in self.payload_types.iter_mut().zip(formats) {
            if sent.codec == Codec::Red && *slot == NONE && !self.blocks.is_empty() {
                *slot = UNWRAP;
            }
        }
    }

    /// Goes over to another encoding of what it is connected to, whose keyframe begins. `meant` is what
    /// the keyframe's timestamp would have been in the encoding before.
    pub fn switch(&mut self, source: SourceKey, formats: &[(u8, Format)], meant: Option<u32>) {
        let meant = meant.and_then(|timestamp| self.rewriter.timestamp(timestamp));
        self.connect(Some(source), formats);
        self.meant = meant;
        self.stats.switches += 1;
    }

    /// Lets nothing through until the stream can start anew.
    pub fn close(&mut self) {
        self.gate = Gate::Closed;
        self.rewriter.end();
    }

    /// Whether nothing ever left, so that no clock of its receiver has to be kept.
    pub fn is_new(&self) -> bool {
        self.stats.packets == 0
    }

    /// Whether a keyframe of the connected source would be of use now.
    pub fn waits_for_keyframe(&self) -> bool {
        self.config.kind == Kind::Video
            && self.active
            && !self.fasting
            && self.gate == Gate::Closed
            && self.payload_types.iter().any(|&payload_type| payload_type != NONE)
    }

    /// Packets are next: what each of them needs.
    #[inline]
    pub fn expect(&self) {
        prefetch::value(&self.source);
        prefetch::value(&self.selection.jumped);
        self.selection.expect();
        prefetch::value(&self.stats.packets);
        prefetch::value(&self.config.kind);
        prefetch::value(&self.layout);
        prefetch::value(&self.repeats);
        prefetch::value(&self.gate);
        prefetch::value(&self.rewriter);
        prefetch::value(&self.payload_types[0]);
        prefetch::value(&self.codecs[0]);
        prefetch::value(&self.sent);
    }

    /// The same, of what its numbers point at.
    #[inline]
    pub fn expect_index(&self) {
        self.selection.expect_number();
        self.sent.expect(self.rewriter.next());
    }

    /// `key` is this sink's own.
    #[inline]
    pub fn forward(
        &mut self,
        key: SinkKey,
        stamp: Stamp,
        arrival: &Arrival,
        payload: &[u8],
        sending: &mut Sending,
        out: &mut impl Egress,
    ) -> Verdict {
        let mut verdict = Verdict::Sent;
        let (payload_type, payload) = self.outgoing(arrival.format, payload);
        if self.gate != Gate::Open(arrival.generation) || payload_type == NONE || !self.active {
            match self.try_open(stamp, arrival, payload_type) {
                Ok(()) => {
                    verdict = Verdict::Started;
                    self.begin_twice(sending);
                }
                Err(reason) => {
                    self.stats.drops.count(reason);
                    return match reason {
                        DropReason::WaitingForKeyframe => Verdict::WantsKeyframe,
                        _ => Verdict::Dropped,
                    };
                }
            }
        }
        let codec = self.codecs[usize::from(arrival.format) % MAX_FORMATS];
        let choice = self.selection.choose(arrival, codec);
        if std::mem::take(&mut self.selection.jumped) {
            self.stats.drops.count(DropReason::PictureJump);
        }
        let (number, changes) = match choice {
            Choice::Send(number, changes) => (number, changes),
            Choice::Leave => {
                self.stats.drops.count(DropReason::Layer);
                return verdict;
            }
            Choice::TooOld => {
                self.stats.drops.count(DropReason::TooOld);
                return Verdict::Dropped;
            }
        };
        let size = self.layout.len() + if changes.is_empty() { 0 } else { payload.len() };
        let waits = !sending.admit(stamp.now, self.class(), size);
        if waits && sending.is_full() {
            return self.overflow();
        }
        let unused = self.rewriter.next();
        let rewritten = self.rewriter.rewrite(stamp.now, number, arrival.timestamp);
        let Ok((index, timestamp)) = rewritten else {
            self.stats.drops.count(DropReason::BeforeSwitch);
            return Verdict::Dropped;
        };
        if self.config.nack && index < unused && self.sent.was_sent(index) {
            // Whoever asked for it while it waited for the others of its batch has got it.
            self.stats.drops.count(DropReason::Duplicate);
            return Verdict::Dropped;
        }
        let Arrival { sequence, marker, carried, .. } = *arrival;
        let marker = marker || changes.sets_marker();
        let leaving = Leaving { index, timestamp, payload_type, marker, carried, changes };
        let Some(source) = self.source.filter(|_| waits) else {
            self.depart(stamp, &leaving, payload, sending, out);
            if self.twice > 0 {
                self.send_twice(key, index, size, marker, sending);
                return if verdict == Verdict::Sent { Verdict::Held } else { verdict };
            }
            return verdict;
        };
        if sending.hold(size, Held::Packet { sink: key, source, sequence, leaving }).is_err() {
            return self.overflow();
        }
        if self.twice > 0 {
            self.send_twice(key, index, size, marker, sending);
        }
        if verdict == Verdict::Sent { Verdict::Held } else { verdict }
    }

    /// A packet leaves that had to wait.
    pub fn forward_held(
        &mut self,
        stamp: Stamp,
        leaving: &Leaving,
        payload: &[u8],
        sending: &mut Sending,
        out: &mut impl Egress,
    ) {
        // Whoever asked for it in the meantime has got it.
        if self.active && !self.sent.was_sent(leaving.index) {
            self.depart(stamp, leaving, payload, sending, out);
        }
    }

    #[inline]
    fn depart(
        &mut self,
        stamp: Stamp,
        leaving: &Leaving,
        payload: &[u8],
        sending: &mut Sending,
        out: &mut impl Egress,
    ) {
        let Leaving { index, timestamp, payload_type, marker, carried, changes } = *leaving;
        let payload = changed(changes, payload, &mut self.patched);
        let redundant =
            self.redundant.as_mut().and_then(|one| one.wrap(payload_type, timestamp, payload));
        let size = redundant.map_or(payload.len(), |(_, size)| size);
        let whole = self.layout.len() + size;
        let transport_sequence = sending.depart(stamp, whole, self.layout.is_numbered());
        if self.config.nack {
            self.repeats.sent(stamp.ms, size);
            let abs_send_time = stamp.abs_send_time;
            self.sent.note(index, Sent { abs_send_time, transport_sequence, changes });
        }
        self.stats.packets += 1;
        self.stats.bytes += size as u64;
        let fields = Fields {
            marker,
            payload_type: redundant.map_or(payload_type, |(number, _)| number),
            sequence: index as u16,
            timestamp,
            abs_send_time: stamp.abs_send_time,
            transport_sequence,
            playout_delay: self.patience.told(),
        };
        let payload = match &self.redundant {
            Some(one) if redundant.is_some() => one.written(),
            _ => payload,
        };
        let (header, length) = self.layout.write(&fields, &carried);
        out.rtp(self.peer, &header[..length], payload, index);
    }

    /// Whether a keyframe is to be asked for instead of repetitions: not again and again.
    pub fn begins_anew(&mut self, ms: u32) -> bool {
        let due = self.anew_at.is_none_or(|at| ms.wrapping_sub(at) >= ANEW);
        if due {
            self.anew_at = Some(ms);
        }
        due && self.is_video()
    }

    /// No more can wait: the picture is broken, and goes on at the next keyframe.
    #[cold]
    fn overflow(&mut self) -> Verdict {
        self.stats.drops.count(DropReason::PacerFull);
        self.close();
        Verdict::WantsKeyframe
    }

    #[inline]
    fn class(&self) -> Class {
        if self.config.kind == Kind::Audio { Class::Audio } else { Class::Video }
    }

    pub fn is_video(&self) -> bool {
        self.config.kind == Kind::Video
    }

    /// Whether its packets have a number of their transport.
    #[inline]
    pub fn is_numbered(&self) -> bool {
        self.layout.is_numbered()
    }

    /// After a start at a keyframe that came late: what came between it and now.
    pub fn catch_up(
        &mut self,
        key: SinkKey,
        stamp: Stamp,
        after: u64,
        newest: u64,
        history: &History,
        sending: &mut Sending,
        out: &mut impl Egress,
    ) {
        let Gate::Open(generation) = self.gate else { return };
        for sequence in after + 1..=newest {
            let Some(kept) = history.get(sequence) else { continue };
            let arrival = Arrival::again(sequence, &kept, self.clock_rate, generation);
            self.forward(key, stamp, &arrival, kept.payload, sending, out);
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

    /// The receiver loses so much of another of its streams, in 256ths.
    pub fn shares_losses(&mut self, fraction_lost: u8) {
        if let Some(redundant) = &mut self.redundant {
            redundant.report(fraction_lost);
        }
    }

    /// Takes in what the receiver reports of this stream, and what is known of the way from its source; how
    /// many packets were sent since the report before.
    pub fn report(
        &mut self,
        block: &ReportBlock,
        round_trip: Option<Duration>,
        source: Lossy,
    ) -> u64 {
        self.stats.lost = i64::from(block.lost);
        self.stats.fraction_lost = block.fraction_lost;
        let nanos = u64::from(block.jitter) * 1_000_000_000 / u64::from(self.clock_rate);
        self.stats.jitter = Duration::from_nanos(nanos);
        self.stats.round_trip = round_trip.or(self.stats.round_trip);
        let lost = block.fraction_lost;
        self.patience.report(Lossy { lost, round_trip: self.stats.round_trip }, source);
        let sent = self.stats.packets - self.reported;
        self.reported = self.stats.packets;
        sent
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
            packets: (self.stats.packets + self.again.0) as u32,
            octets: (self.stats.bytes + self.again.1) as u32,
        })
    }

    /// What of a payload leaves, and under which payload type.
    #[inline]
    fn outgoing<'a>(&self, format: u8, payload: &'a [u8]) -> (u8, &'a [u8]) {
        match self.payload_types[usize::from(format) % MAX_FORMATS] {
            UNWRAP => self.newest_block(payload),
            payload_type => (payload_type, payload),
        }
    }

    fn newest_block<'a>(&self, payload: &'a [u8]) -> (u8, &'a [u8]) {
        // An empty payload only fills a gap, which it does as any.
        let any = || Some((self.blocks.first()?.1, payload)).filter(|_| payload.is_empty());
        let newest = red::primary(payload).and_then(|newest| {
            let mut known = self.blocks.iter().filter(|(sent, _)| *sent == newest.payload_type);
            known.next().map(|(_, own)| (*own, newest.payload))
        });
        newest.or_else(any).unwrap_or((NONE, payload))
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
        if self.fasting {
            return Err(DropReason::Starved);
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
        let (sequence, timestamp) = (arrival.sequence, arrival.timestamp);
        let meant = self.meant.take();
        self.rewriter.begin_at(stamp.now, sequence, timestamp, arrival.clock_rate, meant);
        self.selection.begin(sequence, arrival.place);
        self.gate = Gate::Open(arrival.generation);
        Ok(())
    }
}

/// The payload as it goes out. The source's is shared by all its sinks, so what changes is a copy.
#[inline]
fn changed<'a>(changes: Changes, payload: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if changes.is_empty() {
        return &[];
    }
    if !changes.touches_payload() {
        return payload;
    }
    buffer.clear();
    buffer.extend_from_slice(payload);
    changes.apply(buffer);
    buffer
}
