//! One client: a session, what it sends and what it gets. Sans-IO but for the slots it writes into.
//!
//! A viewer may open a part of its pictures only, so that one core can take what a server sends from
//! another: of all others the header is read, which is not enciphered and has what loss, order and
//! feedback need. Until its first picture was whole it opens all.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rivero::rtp::rtcp::{
    Rtcp, SenderInfo, packets, write_pli, write_receiver_report, write_remb, write_sdes_cname,
    write_sender_report,
};
use rivero::rtp::transport_feedback::Writer;
use rivero::rtp::{Bitrate, NtpTime, RtpPacket};
use rivero::transport::webrtc::{Event, Output, Received, Session};
use rivero::transport::{DropReason, DtlsState, TransportError};
use tokio::sync::oneshot;

use super::chat::{self, Chat};
use super::feedback::{Arrivals, EVERY};
use super::histogram::Histogram;
use super::offer::{Answer, PAYLOAD_TYPES, REPETITIONS, TRANSPORT_SEQUENCE};
use super::publisher::{Pictures, Publisher};
use super::sockets::{Place, Sockets, is_own};
use super::stream::{Counts, Stream};

/// Between two reports.
const REPORTS: Duration = Duration::from_secs(1);
/// How long a client waits for its first picture before it asks for one, and between two wishes.
const IMPATIENCE: Duration = Duration::from_millis(300);
/// What a client claims to be able to receive.
const BANDWIDTH: Bitrate = Bitrate::from_bps(20_000_000);

/// What becomes of a client, told once each.
pub struct Told {
    pub connected: Option<oneshot::Sender<Instant>>,
    pub first_frame: Option<oneshot::Sender<Instant>>,
}

/// What a client is made of.
pub struct Joining {
    pub session: Session,
    pub answer: Answer,
    /// If it publishes, of audio and video.
    pub ssrcs: Option<[u32; 2]>,
    pub pictures: Pictures,
    /// How many times as often as a camera it sends.
    pub rate: u32,
    /// If it sends messages.
    pub chat: Option<chat::Settings>,
    /// Of so many pictures it opens one.
    pub opens: u32,
    pub told: Told,
}

pub struct Client {
    session: Session,
    place: Option<Place>,
    ssrcs: Option<[u32; 2]>,
    pictures: Pictures,
    rate: u32,
    chat: Option<Chat>,
    opens: u32,
    /// The length of the tag behind each packet, once media can flow.
    tag: usize,
    transport_cc: bool,
    arrivals: Arrivals,
    feedback_at: Option<Instant>,
    /// Since it is connected, if it publishes.
    pub publisher: Option<Publisher>,
    audio: Stream,
    video: Stream,
    told: Told,
    remb: bool,
    /// The SSRC of its reports, if it sends nothing else.
    reporter: u32,
    report_at: Option<Instant>,
    ask_at: Option<Instant>,
    /// When the thread looks after it, which is never later than it wants.
    pub scheduled: Option<Instant>,
    pub undecryptable: u64,
    pub dropped: u64,
    pub repetitions: u64,
    scratch: Vec<u8>,
}

/// What all clients of a thread share while one of them works.
pub struct Shared<'a> {
    pub sockets: &'a mut Sockets,
    /// The zero of the time in stamps.
    pub origin: Instant,
    /// The wall clock now, for sender reports.
    pub ntp: NtpTime,
    pub writer: &'a mut Writer,
    pub delays: &'a mut Histogram,
}

impl Client {
    /// # Errors
    /// What the session refuses, or [`TransportError::Ice`] if the system has no socket for it.
    pub fn new(
        now: Instant,
        number: usize,
        joining: Joining,
        shared: &mut Shared<'_>,
    ) -> Result<Self, TransportError> {
        let Joining { session, answer, ssrcs, pictures, rate, chat, opens, told } = joining;
        let mut client = Self {
            session,
            place: None,
            ssrcs,
            pictures,
            rate,
            chat: chat.filter(|_| answer.data.is_some()).map(Chat::new),
            opens: opens.max(1),
            tag: 0,
            transport_cc: answer.transport_cc,
            arrivals: Arrivals::default(),
            feedback_at: None,
            publisher: None,
            audio: Stream::default(),
            video: Stream::default(),
            told,
            remb: answer.remb,
            reporter: 0x0100_0000 + number as u32,
            report_at: None,
            ask_at: None,
            scheduled: None,
            undecryptable: 0,
            dropped: 0,
            repetitions: 0,
            scratch: Vec::new(),
        };
        if let Some(settings) = answer.data {
            client.session.carry_data(settings, true);
        }
        client.session.start(now, answer.remote)?;
        for line in &answer.candidates {
            client.add_candidate(now, number, line, shared)?;
        }
        Ok(client)
    }

    /// Takes a candidate of the server; those that are not UDP over IPv4 lead nowhere here.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn add_candidate(
        &mut self,
        now: Instant,
        number: usize,
        line: &str,
        shared: &mut Shared<'_>,
    ) -> Result<(), TransportError> {
        let Some(server) = address_of(line) else { return Ok(()) };
        if self.place.is_none() {
            let place = shared.sockets.place(number, server, is_own(server));
            let place = place.map_err(|error| TransportError::Ice(error.to_string()))?;
            self.session.add_local_candidate(SocketAddr::V4(place.address))?;
            self.place = Some(place);
        }
        self.session.add_remote_candidate(now, line)?;
        self.drain(now, shared);
        Ok(())
    }

    /// Takes a datagram that the system had at `at`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        at: Duration,
        from: SocketAddr,
        bytes: &mut [u8],
        delays: &mut Histogram,
    ) -> Taken {
        let Some(place) = self.place else { return Taken::Media };
        if let Some(packet) = self.passes_over(bytes) {
            let tagged = packet.payload().len();
            self.count(at, &packet, tagged.saturating_sub(self.tag));
            return Taken::Media;
        }
        match self.session.handle_datagram(now, SocketAddr::V4(place.address), from, bytes) {
            Received::Rtp(len) => {
                if let Ok(packet) = RtpPacket::parse(&bytes[..len]) {
                    self.take_media(now, at, &packet, delays);
                }
                Taken::Media
            }
            Received::Rtcp(len) => {
                self.take_reports(&bytes[..len]);
                Taken::Media
            }
            Received::Dropped(DropReason::SrtpAuthentication | DropReason::SrtpMalformed) => {
                self.undecryptable += 1;
                Taken::Media
            }
            Received::Dropped(_) => {
                self.dropped += 1;
                Taken::Media
            }
            Received::Nothing => Taken::Other,
        }
    }

    /// The packet, if it is media of which the header is enough.
    fn passes_over<'a>(&self, bytes: &'a [u8]) -> Option<RtpPacket<'a>> {
        // RTP and RTCP on one port are told apart by the second byte (RFC 5761 §4).
        let media = bytes.len() > 12 && bytes[0] >> 6 == 2 && !(192..224).contains(&bytes[1]);
        if self.opens == 1 || !self.video.shown || !media {
            return None;
        }
        // Padding is under the cipher.
        let packet = RtpPacket::parse(bytes).ok().filter(|_| bytes[0] & 0x20 == 0)?;
        // All packets of a picture have one time.
        (!lot(packet.timestamp).is_multiple_of(self.opens)).then_some(packet)
    }

    pub fn handle_timeout(&mut self, now: Instant, shared: &mut Shared<'_>) {
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        if self.publisher.as_ref().is_some_and(|publisher| publisher.poll_timeout() <= now) {
            self.publish(now, shared);
        }
        if self.feedback_at.is_some_and(|due| due <= now) {
            self.feedback_at = Some(now + EVERY);
            self.tell_arrivals(shared);
        }
        if self.report_at.is_some_and(|due| due <= now) {
            self.report_at = Some(now + REPORTS);
            self.report(now, shared);
        }
        if self.ask_at.is_some_and(|due| due <= now) {
            self.ask_at = (!self.video.shown).then_some(now + IMPATIENCE);
            if self.ask_at.is_some() && self.video.has_begun() {
                let mut compound = std::mem::take(&mut self.scratch);
                compound.clear();
                write_receiver_report(&mut compound, self.reporter, &[]);
                write_pli(&mut compound, self.reporter, self.video.ssrc());
                self.send_compound(&compound, shared);
                self.scratch = compound;
            }
        }
        self.drain(now, shared);
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let publishing = self.publisher.as_ref().map(Publisher::poll_timeout);
        let session = self.session.poll_timeout();
        let own = [self.feedback_at, self.report_at, self.ask_at, publishing, session];
        own.into_iter().flatten().min()
    }

    /// Does what the session wants done.
    pub fn drain(&mut self, now: Instant, shared: &mut Shared<'_>) {
        loop {
            while let Some(output) = self.session.poll_output() {
                self.handle_output(now, output, shared);
            }
            let Some(chat) = &mut self.chat else { return };
            chat.advance(now, &mut self.session);
            chat.send(now, now - shared.origin, &mut self.session);
            let Some(output) = self.session.poll_output() else { return };
            self.handle_output(now, output, shared);
        }
    }

    fn handle_output(&mut self, now: Instant, output: Output, shared: &mut Shared<'_>) {
        match output {
            Output::Transmit { remote, bytes, .. } => {
                let Some(place) = self.place else { return };
                if let Some(slot) = shared.sockets.slot(&place).get_mut(..bytes.len()) {
                    slot.copy_from_slice(&bytes);
                    shared.sockets.commit(&place, bytes.len(), remote);
                }
            }
            Output::Event(Event::Dtls(DtlsState::Connected)) => self.begin(now),
            Output::Event(Event::ChannelOpened(channel)) => {
                self.chat.iter_mut().for_each(|chat| chat.opened(channel));
            }
            Output::Message { message, .. } => {
                if let Some(chat) = &mut self.chat {
                    chat.take(&message, now - shared.origin, shared.delays);
                }
                if let Some(first) = self.told.first_frame.take() {
                    self.ask_at = None;
                    let _ = first.send(now);
                }
            }
            Output::Event(Event::Closed) => {
                self.publisher = None;
                self.report_at = None;
                self.feedback_at = None;
            }
            Output::Dropped(_) => self.dropped += 1,
            // Names and connections are not for this kind of client.
            _ => {}
        }
    }

    pub fn close(&mut self, now: Instant, shared: &mut Shared<'_>) {
        self.session.close(now);
        self.drain(now, shared);
        if let Some(place) = self.place.take() {
            shared.sockets.leave(&place);
        }
    }

    /// What came of both streams, or of messages.
    pub fn counts(&self) -> Counts {
        let mut counts = self.audio.counts();
        counts.add(&self.video.counts());
        counts.add(&self.chat.as_ref().map(|chat| chat.counts).unwrap_or_default());
        counts
    }

    /// From now on it sends so many times as often, if it publishes.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.publisher.iter_mut().for_each(|publisher| publisher.set_rate(rate));
    }

    pub fn messages_sent(&self) -> u64 {
        self.chat.as_ref().map_or(0, |chat| chat.sent)
    }

    /// The longest that no picture came, since there was one.
    pub fn silence(&self, now: Duration) -> Duration {
        self.video.silence(now)
    }

    /// Media can flow.
    fn begin(&mut self, now: Instant) {
        if let Some(connected) = self.told.connected.take() {
            // Who does not wait any more has given the client up.
            let _ = connected.send(now);
        }
        if self.chat.is_some() {
            return;
        }
        self.tag = self.session.srtp().map_or(0, |keys| keys.profile().tag_len());
        let watches = self.told.first_frame.is_some();
        // Spread, so that not all report at once.
        let spread = |within: u64| Duration::from_millis(u64::from(self.reporter) * 37 % within);
        self.report_at = Some(now + spread(1_000));
        self.feedback_at = (self.transport_cc && watches).then(|| now + spread(100));
        self.ask_at = watches.then_some(now + IMPATIENCE);
        let rate = self.rate;
        self.publisher = self.ssrcs.map(|ssrcs| {
            let mut publisher =
                Publisher::new(now, self.pictures, ssrcs, PAYLOAD_TYPES, self.transport_cc);
            publisher.set_rate(rate);
            publisher
        });
    }

    /// Takes a packet by its header; whether it is a new one of a stream, and of video.
    fn count(&mut self, at: Duration, packet: &RtpPacket<'_>, len: usize) -> (bool, bool) {
        if self.transport_cc
            && let Some(&[high, low]) = packet.extension(TRANSPORT_SEQUENCE)
        {
            self.arrivals.note(u16::from_be_bytes([high, low]), at);
        }
        let [audio, _] = PAYLOAD_TYPES;
        let RtpPacket { ssrc, sequence, timestamp, payload_type, .. } = *packet;
        if payload_type == REPETITIONS {
            // Nobody asked for it: the server tries what the way carries.
            self.repetitions += 1;
            return (false, false);
        }
        let video = payload_type != audio;
        let stream = if video { &mut self.video } else { &mut self.audio };
        (stream.count(at, ssrc, sequence, timestamp, len), video)
    }

    fn take_media(
        &mut self,
        now: Instant,
        at: Duration,
        packet: &RtpPacket<'_>,
        delays: &mut Histogram,
    ) {
        let payload = packet.payload();
        let (new, video) = self.count(at, packet, payload.len());
        if !new {
            return;
        }
        let stream = if video { &mut self.video } else { &mut self.audio };
        stream.look(at, payload, delays);
        if video
            && self.video.shown
            && let Some(first_frame) = self.told.first_frame.take()
        {
            self.ask_at = None;
            let _ = first_frame.send(now);
        }
    }

    fn tell_arrivals(&mut self, shared: &mut Shared<'_>) {
        while !self.arrivals.is_empty() {
            let mut compound = std::mem::take(&mut self.scratch);
            compound.clear();
            let media = self.video.ssrc();
            if self.arrivals.write(&mut compound, shared.writer, self.reporter, media) {
                self.send_compound(&compound, shared);
            }
            self.scratch = compound;
        }
    }

    fn take_reports(&mut self, compound: &[u8]) {
        let Some(publisher) = &mut self.publisher else { return };
        for packet in packets(compound).flatten() {
            match packet {
                Rtcp::Pli { media, .. } if publisher.owns(media) => publisher.want_keyframe(),
                Rtcp::Fir { entries, .. } if { entries }.any(|(ssrc, _)| publisher.owns(ssrc)) => {
                    publisher.want_keyframe();
                }
                Rtcp::Nack { lost, .. } => publisher.nacked += lost.count() as u64,
                _ => {}
            }
        }
    }

    fn publish(&mut self, now: Instant, shared: &mut Shared<'_>) {
        let (Some(publisher), Some(place)) = (&mut self.publisher, self.place) else { return };
        let to = self.session.selected().map(|(_, to)| to);
        let (Some(to), Some(keys)) = (to, self.session.srtp()) else {
            publisher.put_off(now);
            return;
        };
        while let Some(packet) = publisher.poll_packet(now, now - shared.origin) {
            let slot = shared.sockets.slot(&place);
            if let Ok(len) = keys.seal_rtp(packet.header(), packet.payload, packet.index, slot) {
                shared.sockets.commit(&place, len, to);
            }
        }
    }

    fn report(&mut self, now: Instant, shared: &mut Shared<'_>) {
        let mut compound = std::mem::take(&mut self.scratch);
        compound.clear();
        let blocks: Vec<_> =
            [self.audio.report(), self.video.report()].into_iter().flatten().collect();
        match &self.publisher {
            Some(publisher) => {
                for (at, line) in publisher.reports().into_iter().enumerate() {
                    let info = SenderInfo {
                        ntp: shared.ntp,
                        timestamp: line.timestamp,
                        packets: line.packets,
                        octets: line.octets,
                    };
                    let blocks = if at == 0 { &blocks[..] } else { &[] };
                    write_sender_report(&mut compound, line.ssrc, &info, blocks);
                }
                let ssrcs = publisher.reports().map(|line| line.ssrc);
                write_sdes_cname(&mut compound, &ssrcs, "bench");
            }
            None => write_receiver_report(&mut compound, self.reporter, &blocks),
        }
        if self.remb && !self.transport_cc && self.video.has_begun() {
            write_remb(&mut compound, self.reporter, BANDWIDTH, &[self.video.ssrc()]);
        }
        debug_assert!(self.report_at.is_none_or(|next| next > now));
        self.send_compound(&compound, shared);
        self.scratch = compound;
    }

    fn send_compound(&mut self, compound: &[u8], shared: &mut Shared<'_>) {
        let (Some(place), Some((_, to))) = (self.place, self.session.selected()) else { return };
        let Some(keys) = self.session.srtp() else { return };
        if let Ok(len) = keys.seal_rtcp(compound, shared.sockets.slot(&place)) {
            shared.sockets.commit(&place, len, to);
        }
    }
}

/// Draws a lot from a time, such that those that follow each other in any step have nothing in common
/// (the last steps of MurmurHash3).
const fn lot(time: u32) -> u32 {
    let mut lot = time;
    lot = (lot ^ lot >> 16).wrapping_mul(0x85eb_ca6b);
    lot = (lot ^ lot >> 13).wrapping_mul(0xc2b2_ae35);
    lot ^ lot >> 16
}

/// Whether a datagram may have changed what the session waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    Media,
    Other,
}

/// The address of a candidate over UDP and IPv4.
fn address_of(line: &str) -> Option<Ipv4Addr> {
    let mut words = line.split_ascii_whitespace().skip(2);
    words.next().filter(|word| word.eq_ignore_ascii_case("udp"))?;
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_pictures_in_a_row_the_wanted_part_is_drawn() {
        for (step, of) in [(3_000, 4), (3_000, 8), (960, 8), (1, 3)] {
            for start in [0, 7, u32::MAX - 90_000] {
                let drawn = |time: &u32| lot(start.wrapping_add(time * step)).is_multiple_of(of);
                let drawn = (0..300).filter(drawn).count() as u32;
                assert!((150 / of..450 / of).contains(&drawn), "{drawn} of 300, one of {of}");
            }
        }
    }

    #[test]
    fn only_candidates_over_udp_and_ipv4_lead_anywhere() {
        for (line, address) in [
            ("candidate:1 1 UDP 2015363327 127.0.0.1 4000 typ host", Some("127.0.0.1")),
            ("candidate:1 1 udp 2015363327 10.1.2.3 4000 typ host", Some("10.1.2.3")),
            ("candidate:2 1 TCP 1 127.0.0.1 4000 typ host tcptype passive", None),
            ("candidate:3 1 UDP 1 ::1 4000 typ host", None),
            ("candidate:3 1 UDP", None),
            ("", None),
        ] {
            let expected = address.map(|text| text.parse::<Ipv4Addr>().expect("an address"));
            assert_eq!(address_of(line), expected, "{line}");
        }
    }
}
