//! SCTP (RFC 9260) over DTLS (RFC 8261), with the association of `rtc`, for data channels.
//!
//! Streams carry messages with an identifier of their payload, partially reliable if wished (RFC
//! 3758), and are reset one by one (RFC 6525). The side that is the client of DTLS associates; the
//! other waits, and answers an INIT that comes again as it answered before. A peer that begins on its
//! own all the same finds its INIT answered by ours.
//!
//! What surrounds the library here, beyond what [`gate`] says:
//! * It takes every INIT for another association: it is shown one.
//! * It repeats some requests for resets for ever and others never, and asks several at once, which
//!   RFC 6525 §5.1.1 forbids: they are sent here, one after the other, until they are answered.
//! * It says nothing when there is room again: it is made to.
//! * It stops retransmitting after five attempts and says nothing: that limit is taken away, since
//!   ICE knows better whether the peer is there.
//!
//! Left out: several addresses, interleaved messages (RFC 8260), streams added later.

mod gate;

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, TimerConfig,
    TransportConfig,
};
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;

use super::{DropReason, DtlsRole};
use gate::{Entered, Gate, Init, Leaving, MAX_STREAMS, NOWHERE, Refusal};

/// Stands for both ends wherever the library wants an address.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9));
/// What is kept of the peer's data until it makes messages.
const RECEIVE_WINDOW: u32 = 1024 * 1024;
/// A longer message is not taken. This is also what browsers send at most.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// Attempts of a peer to associate, each other than the one before.
const MAX_ATTEMPTS: u32 = 16;
/// Before a reset is asked for again; each time twice as long.
const FIRST_REPETITION: Duration = Duration::from_millis(500);
const MAX_REPETITIONS: u32 = 8;
/// Requests for resets that wait for their turn.
const MAX_RESETS: usize = MAX_STREAMS as usize;

/// What a message is (RFC 8831 §8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// Of the protocol that opens channels.
    Control,
    Text,
    Binary,
    EmptyText,
    EmptyBinary,
    Unknown,
}

/// How hard it is tried to deliver a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reliability {
    Reliable,
    /// Sent again so many times at most.
    Retransmits(u32),
    /// Given up after so many milliseconds.
    Lifetime(u32),
}

#[derive(Debug, Eq, PartialEq)]
pub(super) enum SctpEvent {
    Connected,
    Message {
        stream: u16,
        content: Content,
        bytes: Bytes,
    },
    /// A message longer than [`MAX_MESSAGE`] came, and is gone.
    TooLong(u16),
    /// So many bytes need not be kept any more, for they arrived or were given up.
    Released {
        stream: u16,
        bytes: usize,
    },
    /// Both directions of a stream are as new.
    Reset(u16),
    Dropped(DropReason),
    /// There is no association any more.
    Ended,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    New,
    Connecting,
    Connected,
    Ended,
}

/// A request to reset streams that the peer has yet to answer.
struct Reset {
    number: u32,
    packet: BytesMut,
    repetitions: u32,
}

pub(super) struct Sctp {
    role: DtlsRole,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    gate: Gate,
    state: State,
    outgoing: VecDeque<BytesMut>,
    events: VecDeque<SctpEvent>,
    /// Streams with messages that were not read.
    readable: BTreeSet<u16>,
    reading: bool,
    /// The INIT that was answered, and the answer.
    init: Option<(Init, BytesMut)>,
    attempts: u32,
    /// The first of them is under way.
    resets: VecDeque<Reset>,
    reset_at: Option<Instant>,
}

impl Sctp {
    pub(super) fn new(role: DtlsRole, local_port: u16, remote_port: u16) -> Self {
        Self {
            role,
            endpoint: endpoint(role),
            association: None,
            gate: Gate::new(local_port, remote_port),
            state: State::New,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            readable: BTreeSet::new(),
            reading: true,
            init: None,
            attempts: 0,
            resets: VecDeque::new(),
            reset_at: None,
        }
    }

    /// DTLS is ready: the client begins.
    pub(super) fn connect(&mut self, now: Instant) {
        if self.state != State::New {
            return;
        }
        self.state = State::Connecting;
        if self.role == DtlsRole::Client {
            match self.endpoint.connect(now, ClientConfig::new(transport()), PEER) {
                Ok(association) => self.association = Some(association),
                Err(error) => {
                    tracing::debug!(%error, "no association");
                    self.end();
                }
            }
        }
        self.drain(now);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Streams that may be used: those below this number.
    pub(super) fn streams(&self) -> u16 {
        let negotiated =
            self.association.as_ref().and_then(|(_, known)| known.negotiated_max_streams());
        negotiated.unwrap_or(0).min(MAX_STREAMS)
    }

    /// Takes a packet of the peer.
    pub(super) fn handle_packet(&mut self, now: Instant, mut packet: BytesMut) {
        if matches!(self.state, State::New | State::Ended) {
            self.events.push_back(SctpEvent::Dropped(DropReason::SctpUnexpected));
            return;
        }
        match self.gate.enter(&mut packet) {
            Ok(Entered::Init(init)) => self.handle_init(now, init, packet),
            Ok(Entered::Chunks) => self.feed(now, packet.freeze()),
            Ok(Entered::Nothing) => {}
            Ok(Entered::Abort) => self.end(),
            Err(Refusal::Drop(reason)) => self.events.push_back(SctpEvent::Dropped(reason)),
            Err(Refusal::End(reason)) => {
                self.events.push_back(SctpEvent::Dropped(reason));
                self.abort(now);
            }
        }
        for reason in std::mem::take(&mut self.gate.left_out) {
            self.events.push_back(SctpEvent::Dropped(reason));
        }
        self.handle_answers(now);
        self.drain(now);
        self.handle_waiting_reset(now);
    }

    fn handle_init(&mut self, now: Instant, init: Init, mut packet: BytesMut) {
        if self.role == DtlsRole::Client || self.state == State::Connected {
            self.events.push_back(SctpEvent::Dropped(DropReason::SctpUnexpected));
            return;
        }
        if let Some((known, answer)) = &self.init
            && *known == init
        {
            if self.attempts < MAX_ATTEMPTS {
                self.attempts += 1;
                self.outgoing.push_back(answer.clone());
            } else {
                self.events.push_back(SctpEvent::Dropped(DropReason::SctpFlood));
            }
            return;
        }
        if self.attempts == MAX_ATTEMPTS {
            self.events.push_back(SctpEvent::Dropped(DropReason::SctpFlood));
            return;
        }
        self.attempts += 1;
        self.endpoint = endpoint(self.role);
        self.association = None;
        self.gate.begin(&mut packet, init);
        if let Some((handle, DatagramEvent::NewAssociation(association))) =
            self.endpoint.handle(now, PEER, None, packet.freeze())
        {
            self.association = Some((handle, association));
        }
        self.drain(now);
        self.init = self.outgoing.back().map(|answer| (init, answer.clone()));
    }

    fn feed(&mut self, now: Instant, packet: Bytes) {
        if let Some((known, DatagramEvent::AssociationEvent(event))) =
            self.endpoint.handle(now, PEER, None, packet)
            && let Some((handle, association)) = &mut self.association
            && *handle == known
        {
            association.handle_event(event);
        }
    }

    /// Makes a stream ours, if it is not yet, and says how its messages are to be sent.
    pub(super) fn open(
        &mut self,
        stream: u16,
        ordered: bool,
        reliability: Reliability,
    ) -> Result<(), DropReason> {
        let Some((_, association)) = &mut self.association else {
            return Err(DropReason::SctpUnexpected);
        };
        let (kind, value) = match reliability {
            Reliability::Reliable => (ReliabilityType::Reliable, 0),
            Reliability::Retransmits(times) => (ReliabilityType::Rexmit, times),
            Reliability::Lifetime(millis) => (ReliabilityType::Timed, millis),
        };
        let known = association.stream(stream).is_ok();
        let opened = if known {
            association.stream(stream)
        } else {
            association.open_stream(stream, PayloadProtocolIdentifier::Binary)
        };
        opened
            .and_then(|mut stream| stream.set_reliability_params(!ordered, kind, value))
            .map_err(|_| DropReason::SctpUnexpected)
    }

    /// Queues a message.
    pub(super) fn send(
        &mut self,
        now: Instant,
        stream: u16,
        content: Content,
        bytes: &Bytes,
    ) -> Result<(), DropReason> {
        let Some((_, association)) = &mut self.association else {
            return Err(DropReason::SctpUnexpected);
        };
        let identifier = match content {
            Content::Control => PayloadProtocolIdentifier::Dcep,
            Content::Text => PayloadProtocolIdentifier::String,
            Content::Binary => PayloadProtocolIdentifier::Binary,
            Content::EmptyText => PayloadProtocolIdentifier::StringEmpty,
            Content::EmptyBinary => PayloadProtocolIdentifier::BinaryEmpty,
            Content::Unknown => return Err(DropReason::SctpUnexpected),
        };
        association
            .stream(stream)
            .and_then(|mut stream| stream.write_chunk_with_ppi(now, bytes, identifier))
            .map(drop)
            .map_err(|_| DropReason::SctpUnexpected)
    }

    /// Takes what was queued to the outgoing packets.
    pub(super) fn flush(&mut self, now: Instant) {
        self.drain(now);
    }

    /// Resets a stream, behind what was sent on it. [`SctpEvent::Reset`] follows when the peer has
    /// done the same.
    pub(super) fn close(&mut self, now: Instant, stream: u16) {
        // What is unread would keep the stream alive.
        self.readable.remove(&stream);
        self.read(stream);
        if let Some((_, association)) = &mut self.association
            && let Ok(mut open) = association.stream(stream)
        {
            self.gate.close(stream);
            if let Err(error) = open.close(now) {
                tracing::debug!(%error, stream, "cannot be reset");
            }
        }
        self.drain(now);
    }

    /// Whether messages are read as they come. What is not read fills the window and stops the peer.
    pub(super) fn set_reading(&mut self, now: Instant, reading: bool) {
        if self.reading == reading {
            return;
        }
        self.reading = reading;
        self.gate.set_reading(reading);
        if reading && self.is_connected() {
            for stream in std::mem::take(&mut self.readable) {
                self.read(stream);
            }
            self.feed(now, self.gate.nudge().freeze());
            self.drain(now);
            self.handle_waiting_reset(now);
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<SctpEvent> {
        self.events.pop_front()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.outgoing.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let library = self.association.as_ref().and_then(|(_, known)| known.poll_timeout());
        library.into_iter().chain(self.reset_at).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association
            && association.poll_timeout().is_some_and(|due| due <= now)
        {
            association.handle_timeout(now);
        }
        if self.reset_at.is_some_and(|due| due <= now) {
            self.repeat_reset(now);
        }
        self.drain(now);
        self.handle_waiting_reset(now);
    }

    /// Ends the association at once and tells the peer.
    pub(super) fn abort(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association
            && association.abort().is_err()
        {
            self.association = None;
        }
        self.drain(now);
        self.end();
    }

    fn end(&mut self) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.events.push_back(SctpEvent::Ended);
        }
        self.association = None;
        self.resets.clear();
        self.reset_at = None;
        self.readable.clear();
    }

    /// Hands on what the association has to say.
    fn drain(&mut self, now: Instant) {
        while let Some((_, association)) = &mut self.association
            && let Some(event) = association.poll()
        {
            match event {
                Event::Connected if self.state == State::Connecting => {
                    self.state = State::Connected;
                    self.init = None;
                    self.events.push_back(SctpEvent::Connected);
                }
                Event::HandshakeFailed { reason } => {
                    tracing::debug!(%reason, "SCTP failed");
                    self.end();
                }
                Event::Stream(StreamEvent::Readable { id }) => {
                    if self.reading || id == NOWHERE {
                        self.read(id);
                    } else {
                        self.readable.insert(id);
                    }
                }
                Event::Stream(StreamEvent::BufferedAmountReleased { id, n_bytes }) => {
                    self.events.push_back(SctpEvent::Released { stream: id, bytes: n_bytes });
                }
                Event::AssociationLost { id, .. } => {
                    self.gate.reset(id);
                    self.readable.remove(&id);
                    self.events.push_back(SctpEvent::Reset(id));
                }
                _ => {}
            }
        }
        let Some((_, association)) = &mut self.association else { return };
        while association.accept_stream().is_some() {}
        while association.poll_endpoint_event().is_some() {}
        let mut packets = Vec::new();
        while let Some(transmit) = association.poll_transmit(now) {
            if let Payload::RawEncode(list) = transmit.message {
                packets.extend(list);
            }
        }
        let closed = association.is_closed() && self.state == State::Connected;
        for packet in packets {
            self.leave(now, packet);
        }
        if closed {
            self.end();
        }
    }

    fn leave(&mut self, now: Instant, packet: Bytes) {
        // Packets of one burst lie in one buffer, and then this copies.
        let mut packet = packet.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        match self.gate.leave(&mut packet) {
            Leaving::Packet => self.outgoing.push_back(packet),
            Leaving::Reset(number) => {
                let known = self.resets.iter().any(|reset| reset.number == number);
                if !known && self.resets.len() < MAX_RESETS {
                    self.resets.push_back(Reset { number, packet, repetitions: 0 });
                    self.ask_reset(now);
                }
            }
        }
    }

    /// Sends the first request for a reset, unless it is under way.
    fn ask_reset(&mut self, now: Instant) {
        if let (None, Some(reset)) = (self.reset_at, self.resets.front()) {
            self.outgoing.push_back(reset.packet.clone());
            self.reset_at = Some(now + FIRST_REPETITION);
        }
    }

    fn repeat_reset(&mut self, now: Instant) {
        self.reset_at = None;
        let Some(reset) = self.resets.front_mut() else { return };
        if reset.repetitions == MAX_REPETITIONS {
            self.resets.pop_front();
            self.ask_reset(now);
            return;
        }
        reset.repetitions += 1;
        self.outgoing.push_back(reset.packet.clone());
        self.reset_at = Some(now + FIRST_REPETITION * 2_u32.pow(reset.repetitions));
    }

    fn handle_answers(&mut self, now: Instant) {
        for number in self.gate.take_answered() {
            if self.resets.front().is_some_and(|reset| reset.number == number) {
                self.resets.pop_front();
                self.reset_at = None;
                self.ask_reset(now);
            }
        }
    }

    /// The peer's request for a reset, if what it waits for has come.
    fn handle_waiting_reset(&mut self, now: Instant) {
        if self.gate.reset_waits() && self.is_connected() {
            // Acknowledges now what would be acknowledged in a while, and so tells the gate of it.
            self.feed(now, self.gate.nudge().freeze());
            self.drain(now);
        }
        if let Some(packet) = self.gate.take_reset() {
            self.feed(now, packet.freeze());
            self.drain(now);
        }
    }

    /// Takes all messages of a stream that are whole.
    fn read(&mut self, id: u16) {
        let Some((_, association)) = &mut self.association else { return };
        while let Ok(mut stream) = association.stream(id)
            && let Ok(Some(message)) = stream.read_sctp()
        {
            if id == NOWHERE {
                continue;
            }
            let content = match message.ppi {
                PayloadProtocolIdentifier::Dcep => Content::Control,
                PayloadProtocolIdentifier::String => Content::Text,
                PayloadProtocolIdentifier::Binary => Content::Binary,
                PayloadProtocolIdentifier::StringEmpty => Content::EmptyText,
                PayloadProtocolIdentifier::BinaryEmpty => Content::EmptyBinary,
                _ => Content::Unknown,
            };
            self.events.push_back(match message.to_payload(MAX_MESSAGE) {
                Ok(bytes) => SctpEvent::Message { stream: id, content, bytes: bytes.freeze() },
                Err(Error::ErrShortBuffer) => SctpEvent::TooLong(id),
                Err(_) => SctpEvent::Dropped(DropReason::SctpMalformed),
            });
        }
    }
}

fn endpoint(role: DtlsRole) -> Endpoint {
    let server = (role == DtlsRole::Server).then(|| Arc::new(ServerConfig::new(transport())));
    Endpoint::new(PEER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), server)
}

fn transport() -> TransportConfig {
    let timers = TimerConfig {
        max_t3_rtx_retrans: usize::MAX,
        max_reconfig_retrans: 0,
        ..TimerConfig::default()
    };
    TransportConfig::default()
        .with_max_receive_buffer_size(RECEIVE_WINDOW)
        // Of what is sent; the peer's own limit is looked at before.
        .with_max_message_size(MAX_MESSAGE as u32)
        .with_max_num_outbound_streams(MAX_STREAMS)
        .with_max_num_inbound_streams(MAX_STREAMS)
        .with_timer_config(timers)
}
