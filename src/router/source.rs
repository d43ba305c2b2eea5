//! A source stream: places each packet in one endless sequence, counts, asks for what is lost,
//! notices keyframes and restarts, and keeps history for all its sinks.
//!
//! Sinks see numbers without the packets that nobody is to get: padding a sender probes with, and
//! payload types that were not negotiated. Such a packet leaves no gap if it came in order; one
//! that fills a gap goes out empty, so that receivers stop asking for it.

mod place;
mod rates;
mod repeated;

pub(super) use place::Place;
pub(super) use rates::Rates;

use super::{
    PeerKey, SinkKey, SourceKey,
    agenda::Appointment,
    clock::Stamp,
    feedback::Estimate,
    history::{History, Kept, Limits},
    sink::MAX_FORMATS,
    skips::Skips,
    stats::{DropReason, SourceStats},
};
use crate::rtp::{
    Bitrate, Codec, Extension, Extensions, Format, Kind, NtpTime, RtpPacket,
    extensions::{Carried, Reader, Said},
    keyframe::{Input, KeyframeRequests},
    nack::Nacks,
    rtcp::{ReportBlock, SenderInfo},
    sequence::{Seen, Sighting, WINDOW, nearest},
    stats::Reception,
    units::{ticks, to_middle_units},
};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Without a packet for this long the way was cut, and was not merely losing some.
const OUTAGE: Duration = Duration::from_secs(1);
/// A new sink begins with a keyframe that is no older, if no more bytes came since.
const YOUNG: Duration = Duration::from_millis(600);
const LITTLE: usize = 128 << 10;
/// Up to so many packets are repaired even then: there are sources that send one now and then.
const FEW: u64 = 8;

/// A step further ahead than this is a jump (MAX_DROPOUT of RFC 3550 appendix A.1).
const MAX_DROPOUT: u64 = 3_000;
/// Who spoke within this time is not replaced by an SSRC from before it: that is a late packet, or one of
/// several layers of a picture, and going to and fro would stop everybody who watches.
const SPEAKING: Duration = Duration::from_secs(1);
/// Places where numbers were left out that late packets can still be related to.
const MAX_SKIPS: usize = 32;
/// Former SSRCs that are remembered.
const MAX_FORMER: usize = 8;

/// How a source is negotiated.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    pub kind: Kind,
    /// Payload types with their formats.
    pub formats: Vec<(u8, Format)>,
    /// Whether the sender takes NACK, PLI, FIR and REMB.
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub remb: bool,
    /// Whether the sender is told of each packet that arrives by its number in the transport.
    pub transport_cc: bool,
    /// Payload types of repetitions, each with the one of `formats` that it repeats (RFC 4588).
    pub rtx: Vec<(u8, u8)>,
    /// Announced SSRCs of repetitions, each with the one that it repeats.
    pub rtx_ssrcs: Vec<(u32, u32)>,
    /// The negotiated numbers of header extensions.
    pub extensions: Extensions,
    /// Ours: the sender of feedback about this source.
    pub receiver_ssrc: u32,
    /// Of video: bytes from the last keyframe on that a new sink gets at once, however long ago that was.
    pub keyframe_cache: usize,
}

/// A packet that goes to the sinks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// In the sequence that sinks see.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    /// Index among the source's formats.
    pub format: u8,
    pub clock_rate: u32,
    /// Changes when sequence and timestamps start anew.
    pub generation: u32,
    /// The first packet of a keyframe.
    pub keyframe: bool,
    /// Higher than all before.
    pub newest: bool,
    /// It only fills a gap.
    pub empty: bool,
    /// Where it stands among layers and pictures.
    pub place: Place,
    /// What its header says that goes where it goes.
    pub carried: Carried,
}

impl Arrival {
    /// One that is kept, as if it came now and did not begin a keyframe.
    pub fn again(sequence: u64, kept: &Kept<'_>, clock_rate: u32, generation: u32) -> Self {
        Self {
            sequence,
            timestamp: kept.timestamp,
            marker: kept.marker,
            format: kept.format,
            clock_rate,
            generation,
            keyframe: false,
            newest: true,
            empty: kept.payload.is_empty(),
            place: kept.place,
            carried: Carried::default(),
        }
    }
}

/// The sender's clock as its last report had it.
#[derive(Clone, Copy, Debug)]
struct SenderClock {
    ntp: NtpTime,
    timestamp: u32,
    arrived: Instant,
}

#[derive(Debug)]
pub(super) struct Source {
    pub peer: PeerKey,
    pub config: SourceConfig,
    /// Those that get packets, or wait for a keyframe to get them.
    pub sinks: Vec<SinkKey>,
    /// Of several encodings of one source that come at the same time: the first, which stands for all;
    /// and at the first all of them.
    pub lead: Option<SourceKey>,
    pub encodings: Vec<SourceKey>,
    /// At the first, or a source alone: those that are connected to any of them.
    pub watchers: Vec<SinkKey>,
    pub rates: Rates,
    /// The most that it was lately, in bits per second.
    pub most: u64,
    /// Sinks that may start with what is there since the last keyframe.
    pub starting: Vec<SinkKey>,
    /// At the first of several encodings: since when nobody could take all of them.
    pub unused_since: Option<Instant>,
    /// Whether its packets are of more than one layer.
    pub layered: bool,
    /// Width times height of the last keyframe, where it can be read.
    pub pixels: Option<u32>,
    pub keyframes: KeyframeRequests,
    pub nacks: Nacks,
    pub history: History,
    pub estimate: Estimate,
    pub stats: SourceStats,
    pub last_packet_at: Option<Instant>,
    pub appointment: Appointment,
    /// Since when nobody gets it, and what it sent until then.
    pub unwatched: Option<(Instant, Bitrate)>,
    /// Number of the last FIR command.
    pub fir_command: u8,
    /// SSRCs from before the present one, the last first; zeros where there was none.
    former: [u32; MAX_FORMER],
    generation: u32,
    /// After a jump: the number that would confirm it.
    jumped_to: Option<u16>,
    seen: Seen,
    skips: Skips<MAX_SKIPS>,
    reception: Reception,
    /// The SSRC of repetitions that was not announced.
    repeats_as: Option<u32>,
    /// What repetitions brought, of this generation.
    repaired: u64,
    /// Of generations before this one.
    lost_before: i64,
    reader: Reader,
    /// The number of the dependency descriptor, and its templates.
    descriptor: Option<u8>,
    structure: Option<rivero_av1::Structure>,
    clock: Option<SenderClock>,
    /// The last packet's payload type and its index.
    format: Option<(u8, u8)>,
    clock_rate: u32,
    /// Generation and timestamp of the last keyframe.
    keyframe_at: Option<(u32, u32)>,
    /// The last keyframe: the number of its first packet, generation and timestamp, and when it came.
    start: Option<(u64, (u32, u32), Instant)>,
    origin: Instant,
}

impl Source {
    pub fn new(origin: Instant, peer: PeerKey, mut config: SourceConfig) -> Self {
        config.formats.truncate(MAX_FORMATS);
        let limits = match config.kind {
            Kind::Video => Limits::video(config.keyframe_cache),
            Kind::Audio => Limits::AUDIO,
        };
        let read = if config.transport_cc {
            config.extensions
        } else {
            config.extensions.without(Extension::TransportSequence)
        };
        Self {
            peer,
            sinks: Vec::new(),
            lead: None,
            encodings: Vec::new(),
            watchers: Vec::new(),
            rates: Rates::default(),
            most: 0,
            starting: Vec::new(),
            unused_since: None,
            layered: false,
            pixels: None,
            keyframes: KeyframeRequests::default(),
            nacks: Nacks::default(),
            history: History::new(limits),
            estimate: Estimate::default(),
            stats: SourceStats::default(),
            last_packet_at: None,
            appointment: Appointment::default(),
            unwatched: None,
            fir_command: 0,
            former: [0; MAX_FORMER],
            generation: 0,
            jumped_to: None,
            seen: Seen::default(),
            skips: Skips::default(),
            reception: Reception::default(),
            repeats_as: None,
            repaired: 0,
            lost_before: 0,
            reader: Reader::new(&read),
            descriptor: config.extensions.get(Extension::DependencyDescriptor),
            structure: None,
            clock: None,
            format: None,
            clock_rate: config.formats.first().map_or(90_000, |(_, one)| one.codec.clock_rate()),
            keyframe_at: None,
            start: None,
            origin,
            config,
        }
    }

    /// What the header of a packet says.
    #[inline]
    pub fn read(&self, packet: &RtpPacket<'_>) -> Said {
        self.reader.read(packet)
    }

    /// Takes a packet in, which came at `came`. `None` for one that has its place and goes no further.
    ///
    /// # Errors
    /// The reason why the packet counts for nothing.
    pub fn receive(
        &mut self,
        stamp: Stamp,
        came: Instant,
        packet: &RtpPacket<'_>,
        carried: Carried,
    ) -> Result<Option<Arrival>, DropReason> {
        self.follow_ssrc(stamp.now, packet.ssrc)?;
        let number = self.place(packet.sequence)?;
        let before = self.seen.highest();
        let sighting = self.seen.see(number);
        if sighting == Sighting::TooOld {
            return Err(DropReason::TooOld);
        }
        let known = self.format_of(packet.payload_type);
        let arrived = ticks(came.saturating_duration_since(self.origin), self.clock_rate);
        self.reception.take(number, packet.timestamp, arrived);
        self.stats.packets += 1;
        self.stats.bytes += packet.payload().len() as u64;
        let before_that = self.last_packet_at.replace(stamp.now);
        let outage = before_that.is_some_and(|at| stamp.now >= at + OUTAGE);
        let newest = match sighting {
            Sighting::Newest => true,
            Sighting::Late => false,
            Sighting::Duplicate | Sighting::TooOld => return Err(DropReason::Duplicate),
        };
        self.watch_losses(stamp.now, number, before, newest, outage);
        self.measure(stamp.now, packet.payload().len());
        self.admit(stamp, packet, number, newest, known, carried)
    }

    /// Lets a packet that has its place through to the sinks.
    fn admit(
        &mut self,
        stamp: Stamp,
        packet: &RtpPacket<'_>,
        number: u64,
        newest: bool,
        known: Option<u8>,
        carried: Carried,
    ) -> Result<Option<Arrival>, DropReason> {
        let empty = packet.payload().is_empty() || known.is_none();
        if empty && newest {
            self.skips.skip(number);
            if known.is_none() {
                return Err(DropReason::UnknownPayloadType);
            }
            return Ok(None);
        }
        let sequence = self.skips.apply(number).ok_or(DropReason::TooOld)?;
        let format = known.or(self.format.map(|(_, index)| index));
        let format = format.ok_or(DropReason::UnknownPayloadType)?;
        let payload = if empty { &[] } else { packet.payload() };
        let keyframe = !empty && self.notice_keyframe(stamp.now, format, packet.timestamp, payload);
        let codec = self.config.formats[usize::from(format)].1.codec;
        let place = if empty { Place::default() } else { self.place_of(codec, packet) };
        if self.config.kind == Kind::Video {
            let bytes = packet.header_len() + payload.len();
            self.rates.add(stamp.ms, bytes, place.index(), packet.timestamp);
            self.layered |= place.index() > 0;
        }
        if self.config.kind == Kind::Video || self.config.nack {
            let (timestamp, marker) = (packet.timestamp, packet.marker);
            let kept = Kept { timestamp, marker, format, place, payload };
            self.history.store(stamp.now, sequence, kept);
        }
        if keyframe {
            self.note_start(stamp.now, sequence, (self.generation, packet.timestamp));
        }
        Ok(Some(Arrival {
            sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            format,
            clock_rate: self.clock_rate,
            generation: self.generation,
            keyframe,
            newest,
            empty,
            place,
            carried,
        }))
    }

    fn place_of(&mut self, codec: Codec, packet: &RtpPacket<'_>) -> Place {
        let descriptor = self.descriptor.and_then(|number| packet.extension(number));
        let Some(descriptor) = descriptor else { return Place::of(codec, packet.payload()) };
        match rivero_av1::Structure::read(&mut self.structure, descriptor) {
            Ok(frame) => Place::of_frame(&frame),
            Err(_) => {
                // It goes to all sinks.
                self.stats.drops.count(DropReason::Descriptor);
                Place::default()
            }
        }
    }

    fn note_start(&mut self, now: Instant, sequence: u64, picture: (u32, u32)) {
        // Parameter sets and each slice of a picture may say the same, and a keyframe may come late.
        self.start = match self.start {
            Some((first, known, at)) if known == picture => Some((first.min(sequence), known, at)),
            Some((first, known, _)) if known.0 == picture.0 && first > sequence => self.start,
            _ => Some((sequence, picture, now)),
        };
    }

    /// The numbers of what a new sink is to get before what comes next: all from the last keyframe on,
    /// if that is whole, little and not old.
    pub fn start(&self, now: Instant) -> Option<RangeInclusive<u64>> {
        let (first, (generation, _), at) = self.start?;
        let young = now.saturating_duration_since(at) <= YOUNG;
        let most = self.config.keyframe_cache.max(if young { LITTLE } else { 0 });
        if generation != self.generation || most == 0 {
            return None;
        }
        // Parameter sets may have been lost in front of what is known to begin a picture.
        let codec = self.config.formats[usize::from(self.history.get(first)?.format)].1.codec;
        if matches!(codec, Codec::H264 | Codec::H265) {
            self.history.get(first.checked_sub(1)?)?;
        }
        let newest = self.newest_sequence()?;
        let mut bytes = 0;
        for sequence in first..=newest {
            bytes += self.history.get(sequence)?.payload.len();
            if bytes > most {
                return None;
            }
        }
        Some(first..=newest)
    }

    /// A packet of the history as it arrived.
    pub fn arrival_of(&self, sequence: u64) -> Option<(Arrival, &[u8])> {
        let kept = self.history.get(sequence)?;
        let arrival = Arrival {
            keyframe: self.start.is_some_and(|(first, ..)| first == sequence),
            ..Arrival::again(sequence, &kept, self.clock_rate, self.generation)
        };
        Some((arrival, kept.payload))
    }

    /// What was repaired counts as received: the rate that a sender without transport-wide feedback is
    /// told must not fall for losses that nobody sees.
    fn measure(&mut self, now: Instant, bytes: usize) {
        let received = self.reception.received() + self.repaired;
        self.estimate.packet(now, bytes, self.reception.expected(), received);
    }

    /// The highest number that sinks have seen of this source.
    pub fn newest_sequence(&self) -> Option<u64> {
        self.skips.apply(self.seen.highest()?)
    }

    pub fn is_video(&self) -> bool {
        self.config.kind == Kind::Video
    }

    /// When a request may be due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let times = [self.nacks.poll_timeout(), self.keyframes.poll_timeout()];
        times.into_iter().flatten().min()
    }

    pub fn wants_keyframe(&mut self, now: Instant) {
        if self.config.kind == Kind::Video {
            self.keyframes.handle_input(now, Input::Wanted);
        }
    }

    /// A sender report of this source came.
    pub fn sender_report(&mut self, now: Instant, info: &SenderInfo) {
        let (ntp, timestamp) = (info.ntp, info.timestamp);
        self.clock = Some(SenderClock { ntp, timestamp, arrived: now });
    }

    /// The media timestamp that belongs to `remote`, a time of the sender's clock.
    pub fn timestamp_at(&self, remote: impl FnOnce() -> Option<NtpTime>) -> Option<u32> {
        let clock = self.clock?;
        let passed = i128::from(remote()?.minus(clock.ntp)) * i128::from(self.clock_rate);
        Some(clock.timestamp.wrapping_add((passed >> 32) as u32))
    }

    /// When, by the sender's clock, a media timestamp was, and the inverse: two sources of one sender
    /// are related by them.
    pub fn sent_at(&self, timestamp: u32) -> Option<NtpTime> {
        let clock = self.clock?;
        let ticks = i64::from(timestamp.wrapping_sub(clock.timestamp) as i32);
        let passed = (i128::from(ticks) << 32) / i128::from(self.clock_rate);
        Some(NtpTime::from_bits(clock.ntp.bits().wrapping_add(passed as u64)))
    }

    /// The block about this source; `None` before its first packet.
    pub fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        let ssrc = self.stats.ssrc?;
        let (last_sr, since_sr) = self.clock.map_or((0, 0), |clock| {
            let since = now.saturating_duration_since(clock.arrived);
            (clock.ntp.middle(), to_middle_units(since))
        });
        let mut block = self.reception.report(ssrc, last_sr, since_sr);
        let lost = i64::from(block.lost) + self.lost_before;
        block.lost = lost.clamp(-0x80_0000, 0x7f_ffff) as i32;
        Some(block)
    }

    /// Between the last two reports, in 256ths.
    pub fn fraction_lost(&self) -> u8 {
        self.reception.fraction_lost()
    }

    pub fn stats(&self) -> SourceStats {
        let nanos = u64::from(self.reception.jitter()) * 1_000_000_000 / u64::from(self.clock_rate);
        let format = self.format.and_then(|(_, index)| self.config.formats.get(usize::from(index)));
        SourceStats {
            format: format.map(|(_, format)| *format),
            lost: self.lost_before + self.reception.lost(),
            fraction_lost: self.fraction_lost(),
            jitter: Duration::from_nanos(nanos),
            bitrate: self.estimate.measured(),
            ..self.stats
        }
    }

    fn follow_ssrc(&mut self, now: Instant, ssrc: u32) -> Result<(), DropReason> {
        match self.stats.ssrc {
            Some(known) if known == ssrc => {}
            Some(_) if self.repeats_as(ssrc) => return Err(DropReason::RtxUnknownFormat),
            Some(known) => {
                let speaks = self
                    .last_packet_at
                    .is_some_and(|at| now.saturating_duration_since(at) < SPEAKING);
                if speaks && self.former.contains(&ssrc) {
                    return Err(DropReason::FormerSsrc);
                }
                if !self.former.contains(&known) {
                    self.former.rotate_right(1);
                    self.former[0] = known;
                }
                self.stats.ssrc = Some(ssrc);
                self.restart();
            }
            None => self.stats.ssrc = Some(ssrc),
        }
        Ok(())
    }

    /// The packet's number, 64 bits wide. A lone packet far away is an error; the next one there
    /// means that the sender started anew.
    fn place(&mut self, sequence: u16) -> Result<u64, DropReason> {
        if let Some(highest) = self.seen.highest() {
            let number = nearest(highest, sequence);
            if number < highest + MAX_DROPOUT && number + WINDOW > highest {
                self.jumped_to = None;
                return Ok(number);
            }
            if self.jumped_to.replace(sequence.wrapping_add(1)) != Some(sequence) {
                return Err(DropReason::SequenceJump);
            }
            self.restart();
        }
        let number = u64::from(sequence);
        self.skips.begin(number);
        Ok(number)
    }

    fn restart(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if let Some(newest) = self.newest_sequence() {
            self.skips.next = newest + 1;
        }
        self.lost_before += self.reception.lost();
        self.seen = Seen::default();
        self.reception = Reception::default();
        self.repaired = 0;
        self.nacks.clear();
        self.clock = None;
        self.jumped_to = None;
        self.estimate.restart();
    }

    /// Asks again for what did not come. Not for what was sent while nothing at all came: so late it
    /// helps nobody, and a player that is given old pictures in a hurry loses its idea of time. A fresh
    /// start is the quicker way then.
    fn watch_losses(
        &mut self,
        now: Instant,
        number: u64,
        before: Option<u64>,
        newest: bool,
        outage: bool,
    ) {
        // What nobody gets of several encodings needs no repair.
        if !self.config.nack || self.lead.is_some() && self.sinks.is_empty() {
            return;
        }
        match before {
            Some(before) if newest && outage && number > before + FEW => {
                self.nacks.clear();
                self.wants_keyframe(now);
            }
            Some(before) if newest && number > before + 1 => {
                self.nacks.lost(now, before + 1..number)
            }
            _ if !newest => self.nacks.arrived(number),
            _ => {}
        }
    }

    /// The index of a payload type among the formats. A change of clock starts a new generation,
    /// for timestamps go on in other units.
    fn format_of(&mut self, payload_type: u8) -> Option<u8> {
        if let Some((known, index)) = self.format
            && known == payload_type
        {
            return Some(index);
        }
        let index = self.config.formats.iter().position(|(one, _)| *one == payload_type)?;
        let clock_rate = self.config.formats[index].1.codec.clock_rate();
        if self.format.is_some() && clock_rate != self.clock_rate {
            self.generation = self.generation.wrapping_add(1);
            self.clock = None;
        }
        self.clock_rate = clock_rate;
        self.format = Some((payload_type, index as u8));
        Some(index as u8)
    }

    fn notice_keyframe(
        &mut self,
        now: Instant,
        format: u8,
        timestamp: u32,
        payload: &[u8],
    ) -> bool {
        let starts = match self.config.formats[usize::from(format)].1.codec {
            Codec::Vp8 => rivero_vp8::starts_keyframe(payload),
            Codec::Vp9 => rivero_vp9::starts_keyframe(payload),
            Codec::H264 => rivero_h264::starts_keyframe(payload),
            Codec::H265 => rivero_h265::starts_keyframe(payload),
            Codec::Av1 => rivero_av1::starts_keyframe(payload),
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma | Codec::Amr => false,
        };
        if starts {
            let codec = self.config.formats[usize::from(format)].1.codec;
            self.pixels = pixels(codec, payload).or(self.pixels);
            // Parameter sets and each slice of a picture may say the same.
            let picture = Some((self.generation, timestamp));
            if std::mem::replace(&mut self.keyframe_at, picture) != picture {
                self.stats.keyframes += 1;
            }
            self.keyframes.handle_input(now, Input::Arrived);
        }
        starts
    }
}

/// Of the keyframe that starts with this payload, for codecs that say it where it is cheap to read.
fn pixels(codec: Codec, payload: &[u8]) -> Option<u32> {
    match codec {
        Codec::Vp8 => {
            let (width, height) = rivero_vp8::keyframe_size(payload)?;
            Some(u32::from(width) * u32::from(height))
        }
        Codec::Vp9 => {
            let (width, height) = rivero_vp9::keyframe_size(payload)?;
            Some(width.saturating_mul(height))
        }
        _ => None,
    }
}
