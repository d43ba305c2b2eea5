//! One client: a session, what it sends and what it gets. Sans-IO but for the slots it writes into.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rivero::rtp::rtcp::{
    Rtcp, SenderInfo, packets, write_pli, write_receiver_report, write_remb, write_sdes_cname,
    write_sender_report,
};
use rivero::rtp::{Bitrate, NtpTime, RtpPacket};
use rivero::transport::webrtc::{Event, Output, Received, Session};
use rivero::transport::{DropReason, DtlsState, TransportError};
use tokio::sync::oneshot;

use super::histogram::Histogram;
use super::offer::{Answer, PAYLOAD_TYPES};
use super::publisher::Publisher;
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
    pub told: Told,
}

pub struct Client {
    session: Session,
    place: Option<Place>,
    ssrcs: Option<[u32; 2]>,
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
    scratch: Vec<u8>,
}

/// What all clients of a thread share while one of them works.
pub struct Shared<'a> {
    pub sockets: &'a mut Sockets,
    /// The zero of the time in stamps.
    pub origin: Instant,
    /// The wall clock now, for sender reports.
    pub ntp: NtpTime,
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
        let Joining { session, answer, ssrcs, told } = joining;
        let mut client = Self {
            session,
            place: None,
            ssrcs,
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
            scratch: Vec::new(),
        };
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

    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &mut [u8],
        delays: &mut Histogram,
        origin: Instant,
    ) -> Taken {
        let Some(place) = self.place else { return Taken::Media };
        match self.session.handle_datagram(now, SocketAddr::V4(place.address), from, bytes) {
            Received::Rtp(len) => {
                if let Ok(packet) = RtpPacket::parse(&bytes[..len]) {
                    self.take_media(now, now - origin, &packet, delays);
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

    pub fn handle_timeout(&mut self, now: Instant, shared: &mut Shared<'_>) {
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        if self.publisher.as_ref().is_some_and(|publisher| publisher.poll_timeout() <= now) {
            self.publish(now, shared);
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
        let own = [self.report_at, self.ask_at, publishing, self.session.poll_timeout()];
        own.into_iter().flatten().min()
    }

    /// Does what the session wants done.
    pub fn drain(&mut self, now: Instant, shared: &mut Shared<'_>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Transmit { remote, bytes, .. } => {
                    let Some(place) = self.place else { continue };
                    if let Some(slot) = shared.sockets.slot(&place).get_mut(..bytes.len()) {
                        slot.copy_from_slice(&bytes);
                        shared.sockets.commit(&place, bytes.len(), remote);
                    }
                }
                Output::Event(Event::Dtls(DtlsState::Connected)) => self.begin(now),
                Output::Event(Event::Closed) => {
                    self.publisher = None;
                    self.report_at = None;
                }
                Output::Dropped(_) => self.dropped += 1,
                // Names, connections and channels are not for this kind of client.
                _ => {}
            }
        }
    }

    pub fn close(&mut self, now: Instant, shared: &mut Shared<'_>) {
        self.session.close(now);
        self.drain(now, shared);
    }

    /// What came of both streams.
    pub fn counts(&self) -> Counts {
        let mut counts = self.audio.counts();
        counts.add(&self.video.counts());
        counts
    }

    /// Media can flow.
    fn begin(&mut self, now: Instant) {
        if let Some(connected) = self.told.connected.take() {
            // Who does not wait any more has given the client up.
            let _ = connected.send(now);
        }
        // Spread, so that not all report at once.
        let spread = Duration::from_millis(u64::from(self.reporter) * 37 % 1_000);
        self.report_at = Some(now + spread);
        self.ask_at = self.told.first_frame.is_some().then_some(now + IMPATIENCE);
        self.publisher = self.ssrcs.map(|ssrcs| Publisher::new(now, ssrcs, PAYLOAD_TYPES));
    }

    fn take_media(
        &mut self,
        now: Instant,
        time: Duration,
        packet: &RtpPacket<'_>,
        delays: &mut Histogram,
    ) {
        let [audio, _] = PAYLOAD_TYPES;
        let video = packet.payload_type != audio;
        let stream = if video { &mut self.video } else { &mut self.audio };
        let RtpPacket { ssrc, sequence, timestamp, .. } = *packet;
        stream.take(time, ssrc, sequence, timestamp, packet.payload(), delays);
        if video
            && self.video.shown
            && let Some(first_frame) = self.told.first_frame.take()
        {
            self.ask_at = None;
            let _ = first_frame.send(now);
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
            if let Ok(len) = keys.seal_rtp(&packet.header, packet.payload, packet.index, slot) {
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
        if self.remb && self.video.has_begun() {
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
