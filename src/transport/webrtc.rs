//! One ICE, DTLS, SRTP and SCTP session: a BUNDLE of everything an endpoint exchanges with its peer.
//!
//! Sans-IO: datagrams and instants go in, datagrams and [`Event`]s come out. DTLS begins as soon as a
//! pair carries datagrams both ways. Nothing is learnt from a datagram before its MESSAGE-INTEGRITY or
//! SRTP tag is verified; DTLS and media are taken only from addresses that authenticated a STUN
//! message, and media is sent only over the selected pair.
//!
//! Addresses are marked by their path, see [`path`]. What goes over a relay is wrapped here, and leaves
//! as [`Output::Link`]; media is wrapped by whoever seals it, with [`Session::wrap`].
//!
//! An ICE restart changes credentials and ways, and nothing above them: DTLS, SRTP and SCTP go on.
//!
//! Left out: separate transports per media section.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use crate::prefetch;

use super::certificate::{Certificate, Fingerprint};
use super::data_channel::{
    ChannelOptions, DataChannels, DataError, DataOutput, DataSettings, Message,
};
use super::demux::{Datagram, classify};
use super::dtls::{Dtls, DtlsRole, DtlsState};
use super::ice::{Credentials, Ice, IceEvent, IceReport, IceState, LinkOutput, Servers, Traffic};
use super::path::{self, Path};
use super::srtp::{Receiver, Sender};
use super::{DropReason, TransportError};

/// What a session is made of.
pub struct Settings {
    pub certificate: Arc<Certificate>,
    /// Whether we nominate: the offerer does (RFC 8445 §6.1.1).
    pub controlling: bool,
}

/// What the peer's description says of its transport.
#[derive(Clone, Debug)]
pub struct RemoteParameters {
    pub ufrag: String,
    pub pwd: String,
    /// All of them: one must match the certificate.
    pub fingerprints: Vec<Fingerprint>,
    /// Our role.
    pub role: DtlsRole,
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// Consumed; look for outputs.
    Nothing,
    /// The plaintext RTP packet has this length and begins where the datagram began.
    Rtp(usize),
    /// The plaintext RTCP compound packet, likewise.
    Rtcp(usize),
    Dropped(DropReason),
}

/// What the session wants done.
#[derive(Debug)]
pub enum Output {
    Transmit {
        local: SocketAddr,
        remote: SocketAddr,
        bytes: BytesMut,
    },
    /// Datagrams from `remote` are for this session. `proven` says that the address also answered a
    /// check of ours; one that is not must not be taken from another session.
    Bind {
        remote: SocketAddr,
        proven: bool,
    },
    /// Media goes to this address: whatever else is forgotten, it stays with this session. None if it
    /// goes by the relay.
    Live(Option<SocketAddr>),
    /// The answer to this STUN transaction is for this session.
    Expect([u8; 12]),
    /// The address of a name is wanted, for [`Session::handle_resolved`].
    Resolve {
        number: u32,
        name: String,
    },
    /// What is to be done with the session's connection to a TURN server.
    Link(LinkOutput),
    Event(Event),
    /// A message came over a data channel.
    Message {
        channel: u16,
        message: Message,
    },
    /// Messages may be sent again after [`Session::is_full`].
    Drained,
    /// Something of a datagram or message was dropped.
    Dropped(DropReason),
}

/// What happened to the session, in the order in which Kurento tells of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    Ice(IceState),
    /// A local candidate that was gathered after the first ones: its line.
    Candidate(String),
    /// No further ones will come.
    GatheringDone,
    /// The candidate lines of the pair that carries the media.
    SelectedPair {
        local: String,
        remote: String,
    },
    Dtls(DtlsState),
    /// Media can flow both ways.
    Connected,
    /// The peer said goodbye.
    Closed,
    /// A data channel with this number opened.
    ChannelOpened(u16),
    ChannelClosed(u16),
}

/// One session with one peer.
pub struct Session {
    certificate: Arc<Certificate>,
    ice: Ice,
    dtls: Option<Dtls>,
    sender: Option<Box<Sender>>,
    receiver: Option<Receiver>,
    data_settings: Option<(DataSettings, bool)>,
    data: Option<Box<DataChannels>>,
    /// The DTLS state that the owner was told.
    told: DtlsState,
    /// Where the last DTLS datagram came from: where to answer while no pair is usable.
    dtls_from: Option<(SocketAddr, SocketAddr)>,
    outputs: VecDeque<Output>,
    closed: bool,
}

impl Session {
    /// A session with credentials of its own.
    ///
    /// # Errors
    /// [`TransportError::Randomness`] or [`TransportError::Ice`].
    pub fn new(now: Instant, settings: Settings) -> Result<Self, TransportError> {
        let provider = settings.certificate.provider.clone();
        Ok(Self {
            ice: Ice::new(now, settings.controlling, provider)?,
            certificate: settings.certificate,
            dtls: None,
            sender: None,
            receiver: None,
            data_settings: None,
            data: None,
            told: DtlsState::New,
            dtls_from: None,
            outputs: VecDeque::new(),
            closed: false,
        })
    }

    /// Our user fragment, 4 characters.
    pub fn ufrag(&self) -> &str {
        self.ice.ufrag()
    }

    /// Our password, 22 characters.
    pub fn pwd(&self) -> &str {
        self.ice.pwd()
    }

    /// Announces a concrete address of ours as a host candidate; a known one is no error.
    ///
    /// # Errors
    /// [`TransportError::TooManyCandidates`] after 16, [`TransportError::Closed`].
    pub fn add_local_candidate(&mut self, addr: SocketAddr) -> Result<(), TransportError> {
        self.announce(addr, None)
    }

    /// The same, for an address that peers are to reach at `shown`.
    ///
    /// # Errors
    /// As [`Session::add_local_candidate`].
    pub fn announce(
        &mut self,
        addr: SocketAddr,
        shown: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        self.check_open()?;
        self.ice.add_local(addr, shown)?;
        self.drain_ice();
        Ok(())
    }

    /// Announces an address that accepts TCP connections, and that connections may come from it.
    ///
    /// # Errors
    /// As [`Session::add_local_candidate`].
    pub fn announce_tcp(
        &mut self,
        addr: SocketAddr,
        shown: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        self.check_open()?;
        self.ice.add_local_tcp(addr, shown)?;
        self.drain_ice();
        Ok(())
    }

    /// Asks servers for further candidates. [`Event::Candidate`] tells of each, and
    /// [`Event::GatheringDone`] ends it, at once if there is no server to ask.
    pub fn gather(&mut self, now: Instant, servers: Servers) {
        if !self.closed {
            self.ice.gather(now, servers);
            self.drain_ice();
        }
    }

    /// Whether there is a TURN server that was asked for an address, and none of it is left.
    pub fn lacks_relay(&self) -> bool {
        !self.closed && self.ice.lacks_relay()
    }

    /// A name that [`Output::Resolve`] asked about has this address; `None` if nobody knows.
    pub fn handle_resolved(&mut self, now: Instant, number: u32, ip: Option<IpAddr>) {
        if !self.closed {
            self.ice.handle_resolved(now, number, ip);
            self.advance(now);
        }
    }

    /// The connection to the TURN server is open.
    pub fn handle_link_open(&mut self, now: Instant) {
        if !self.closed {
            self.ice.handle_link_open(now);
            self.advance(now);
        }
    }

    /// The connection to the TURN server could not be opened, or is gone.
    pub fn handle_link_lost(&mut self, now: Instant) {
        if !self.closed {
            self.ice.handle_link_lost(now);
            self.advance(now);
        }
    }

    /// Takes a message from the TURN server. If it holds a datagram of a peer, returns the addresses it
    /// went between and where it lies in `bytes`: that is for [`Session::handle_datagram`].
    ///
    /// # Errors
    /// Why the message was dropped.
    pub fn handle_link(
        &mut self,
        now: Instant,
        bytes: &[u8],
    ) -> Result<Option<(SocketAddr, SocketAddr, Range<usize>)>, DropReason> {
        if self.closed {
            return Err(DropReason::Closed);
        }
        let relayed = self.ice.handle_link(now, bytes);
        self.advance(now);
        let local = self.ice.relayed();
        Ok(relayed?.and_then(|(peer, range)| Some((path::relay(local?), peer, range))))
    }

    /// Makes a message for the TURN server of the `len` bytes that follow the first
    /// [`HEADROOM`](super::HEADROOM) of `slot`: where it lies.
    pub fn wrap(&self, remote: SocketAddr, slot: &mut [u8], len: usize) -> Option<Range<usize>> {
        self.ice.wrap(remote, slot, len)
    }

    /// How long the last check took to be answered.
    pub fn round_trip(&self) -> Option<std::time::Duration> {
        self.ice.round_trip()
    }

    /// Counts datagrams that were sealed for a pair by whoever sends them.
    pub fn count_sent(&mut self, local: SocketAddr, remote: SocketAddr, sent: Traffic) {
        self.ice.count_sent(local, remote, sent);
    }

    /// Candidates and pairs, and what went over them.
    pub fn report(&self) -> IceReport {
        self.ice.report()
    }

    /// Our candidates in Kurento's text: `candidate:1 1 UDP 2015364095 10.0.0.1 8000 typ host`.
    pub fn local_candidates(&self) -> Vec<String> {
        self.ice.local_candidates().map(str::to_owned).collect()
    }

    /// Data channels were negotiated, `alone` or beside media. Called before [`Session::start`].
    pub fn carry_data(&mut self, settings: DataSettings, alone: bool) {
        self.data_settings = Some((settings, alone));
    }

    /// The descriptions are exchanged: checks begin, and DTLS follows as soon as a pair works.
    ///
    /// # Errors
    /// [`TransportError::AlreadyStarted`], [`TransportError::Closed`], or what ICE and DTLS refuse.
    pub fn start(&mut self, now: Instant, remote: RemoteParameters) -> Result<(), TransportError> {
        self.check_open()?;
        if self.dtls.is_some() {
            return Err(TransportError::AlreadyStarted);
        }
        let mut dtls = Dtls::new(self.certificate.clone(), remote.role, remote.fingerprints)?;
        if let Some((settings, alone)) = self.data_settings {
            self.data = Some(Box::new(DataChannels::new(remote.role, settings)));
            dtls.carry_data(alone);
        }
        self.ice.start(now, &remote.ufrag, &remote.pwd);
        self.dtls = Some(dtls);
        self.advance(now);
        Ok(())
    }

    /// New credentials of both sides: a way is looked for anew, and meanwhile all goes on over the old
    /// one. Before [`Session::start`] only ours are taken.
    ///
    /// # Errors
    /// [`TransportError::Closed`]
    pub fn restart(
        &mut self,
        now: Instant,
        ours: Credentials,
        ufrag: &str,
        pwd: &str,
    ) -> Result<(), TransportError> {
        self.check_open()?;
        self.ice.restart(now, ours, ufrag, pwd);
        self.advance(now);
        Ok(())
    }

    /// Takes a candidate line of the peer, also before [`Session::start`]. Lines that lead nowhere,
    /// like the empty one, are no error.
    ///
    /// # Errors
    /// [`TransportError::Candidate`], [`TransportError::TooManyCandidates`] after 64; the session goes
    /// on.
    pub fn add_remote_candidate(&mut self, now: Instant, line: &str) -> Result<(), TransportError> {
        self.check_open()?;
        let added = self.ice.add_remote(now, line);
        self.drain_ice();
        added
    }

    /// Takes a datagram that arrived at `local` from `remote`; media is opened in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &mut [u8],
    ) -> Received {
        let kind = classify(bytes);
        let done = match kind {
            _ if self.closed => Err(DropReason::Closed),
            Datagram::Rtp | Datagram::Rtcp => {
                return match self.open(kind, local, remote, bytes) {
                    Ok(len) if kind == Datagram::Rtp => Received::Rtp(len),
                    Ok(len) => Received::Rtcp(len),
                    Err(reason) => Received::Dropped(reason),
                };
            }
            Datagram::Stun => self.ice.handle_stun(now, local, remote, bytes),
            Datagram::Dtls => self.handle_dtls(now, local, remote, bytes),
            Datagram::Unknown => Err(DropReason::UnknownProtocol),
        };
        self.advance(now);
        done.map_or_else(Received::Dropped, |()| Received::Nothing)
    }

    /// The pair that carries the media: our address and the peer's.
    pub fn selected(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.ice.selected()
    }

    /// Whether this session is in touch with that address.
    pub fn uses(&self, now: Instant, remote: SocketAddr) -> bool {
        !self.closed && self.ice.uses(now, remote)
    }

    /// The protection of what we send, once DTLS is connected.
    pub fn srtp(&mut self) -> Option<&mut Sender> {
        self.sender.as_deref_mut()
    }

    /// Media is sent next: a hint, as the two that follow.
    #[inline]
    pub fn expect_sending(&self) {
        prefetch::value(&self.sender);
        self.ice.expect_sending();
    }

    #[inline]
    pub fn expect_keys(&self) {
        self.sender.as_deref().into_iter().for_each(prefetch::value);
    }

    #[inline]
    pub fn expect_indices(&self) {
        self.sender.as_deref().into_iter().for_each(Sender::expect);
    }

    /// Lends it, for [`Self::give_back_srtp`].
    pub fn lend_srtp(&mut self) -> Option<Box<Sender>> {
        self.sender.take()
    }

    pub fn give_back_srtp(&mut self, sender: Box<Sender>) {
        self.sender = Some(sender);
    }

    /// The data channels, where they were negotiated; none before [`Session::start`].
    pub fn data(&self) -> Option<&DataChannels> {
        self.data.as_deref()
    }

    /// Opens a data channel; its number.
    ///
    /// # Errors
    /// [`DataError`]
    pub fn open_channel(
        &mut self,
        now: Instant,
        options: ChannelOptions,
    ) -> Result<u16, DataError> {
        let data = self.data.as_mut().filter(|_| !self.closed).ok_or(DataError::NotConnected)?;
        let id = data.open(now, options)?;
        self.advance(now);
        Ok(id)
    }

    /// Closes a data channel; [`Event::ChannelClosed`] follows.
    pub fn close_channel(&mut self, now: Instant, id: u16) {
        if let Some(data) = &mut self.data {
            data.close(now, id);
            self.advance(now);
        }
    }

    /// Queues a message; [`Session::flush`] sends it on its way.
    ///
    /// # Errors
    /// Why it cannot be sent: [`DropReason::DataNotOpen`], [`DropReason::DataTooLong`],
    /// [`DropReason::DataSlowPeer`].
    pub fn send_message(
        &mut self,
        now: Instant,
        channel: u16,
        message: &Message,
    ) -> Result<(), DropReason> {
        let data = self.data.as_mut().filter(|_| !self.closed).ok_or(DropReason::DataNotOpen)?;
        data.send(now, channel, message)
    }

    /// Sends what was queued.
    pub fn flush(&mut self, now: Instant) {
        if let Some(data) = self.data.as_mut().filter(|_| !self.closed) {
            data.flush(now);
            self.advance(now);
        }
    }

    /// Whether senders of messages should wait for [`Output::Drained`].
    pub fn is_full(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.is_full())
    }

    /// Whether messages of the peer are taken.
    pub fn set_reading(&mut self, now: Instant, reading: bool) {
        if let Some(data) = self.data.as_mut().filter(|_| !self.closed) {
            data.set_reading(now, reading);
            self.advance(now);
        }
    }

    /// Bytes of messages that wait to be sent or acknowledged.
    pub fn waiting(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.waiting())
    }

    /// Whether a datagram of DTLS between these addresses belongs to a handshake, which takes long.
    pub fn shakes_hands(&mut self, local: SocketAddr, remote: SocketAddr) -> bool {
        let begun = self.dtls.as_ref().map(Dtls::state);
        !self.closed
            && matches!(begun, Some(DtlsState::New | DtlsState::Connecting))
            && self.ice.is_validated(local, remote)
    }

    pub fn ice_state(&self) -> IceState {
        self.ice.state()
    }

    pub fn dtls_state(&self) -> DtlsState {
        self.told
    }

    /// Says goodbye to the peer and drops whatever still comes.
    pub fn close(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        if let Some(data) = &mut self.data {
            data.abort(now);
        }
        self.drain_data(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
        self.send_dtls(now);
        self.sender = None;
        self.receiver = None;
        self.ice.close();
        self.drain_ice();
        self.closed = true;
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        // There is something in seconds only, but for messages.
        if self.outputs.is_empty() && self.data.is_none() {
            self.outputs = VecDeque::new();
        }
        output
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let dtls = self.dtls.as_ref().and_then(Dtls::poll_timeout);
        let data = self.data.as_ref().and_then(|data| data.poll_timeout());
        self.ice.poll_timeout().into_iter().chain(dtls).chain(data).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        self.ice.handle_timeout(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
        }
        if let Some(data) = &mut self.data {
            data.handle_timeout(now);
        }
        self.advance(now);
    }

    fn check_open(&self) -> Result<(), TransportError> {
        if self.closed { Err(TransportError::Closed) } else { Ok(()) }
    }

    fn open(
        &mut self,
        kind: Datagram,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &mut [u8],
    ) -> Result<usize, DropReason> {
        if !self.ice.is_validated(local, remote) {
            return Err(DropReason::UnvalidatedAddress);
        }
        let receiver = self.receiver.as_mut().ok_or(DropReason::NoKeys)?;
        let opened = match kind {
            Datagram::Rtcp => receiver.open_rtcp(bytes),
            _ => receiver.open_rtp(bytes),
        }?;
        self.ice.count_received(bytes.len());
        Ok(opened)
    }

    fn handle_dtls(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        if !self.ice.is_validated(local, remote) {
            return Err(DropReason::UnvalidatedAddress);
        }
        let dtls = self.dtls.as_mut().ok_or(DropReason::NotStarted)?;
        self.dtls_from = Some((local, remote));
        self.ice.count_received(bytes.len());
        dtls.handle_datagram(now, bytes)
    }

    /// Passes on what ICE and DTLS have to say after an input.
    fn advance(&mut self, now: Instant) {
        self.drain_ice();
        let (ready, round_trip) = (self.ice.asked_over().is_some(), self.ice.round_trip());
        if let Some(dtls) = &mut self.dtls {
            dtls.set_round_trip(round_trip);
            if ready && dtls.state() == DtlsState::New && dtls.connect(now).is_err() {
                dtls.close(now);
            }
            if let Some((sender, receiver)) = dtls.take_keys() {
                self.sender = Some(Box::new(sender));
                self.receiver = Some(receiver);
            }
        }
        // Channels open only after clients know of the connection they are on.
        self.tell_dtls();
        self.drain_data(now);
        self.send_dtls(now);
    }

    /// Hands packets of SCTP back and forth, and tells of channels and messages.
    fn drain_data(&mut self, now: Instant) {
        let Some(dtls) = &mut self.dtls else { return };
        let state = dtls.state();
        let Some(data) = &mut self.data else {
            while dtls.poll_data().is_some() {
                self.outputs.push_back(Output::Dropped(DropReason::SctpUnexpected));
            }
            return;
        };
        match state {
            DtlsState::Connected => data.connect(now),
            DtlsState::Closed | DtlsState::Failed => data.abort(now),
            DtlsState::New | DtlsState::Connecting => {}
        }
        while let Some(packet) = dtls.poll_data() {
            data.handle_packet(now, packet);
        }
        while let Some(packet) = data.poll_transmit() {
            dtls.send(now, &packet);
        }
        while let Some(output) = data.poll_output() {
            self.outputs.push_back(match output {
                DataOutput::Opened(id) => Output::Event(Event::ChannelOpened(id)),
                DataOutput::Closed(id) => Output::Event(Event::ChannelClosed(id)),
                DataOutput::Message { channel, message } => Output::Message { channel, message },
                DataOutput::Drained => Output::Drained,
                DataOutput::Dropped(reason) => Output::Dropped(reason),
            });
        }
    }

    fn drain_ice(&mut self) {
        while let Some(event) = self.ice.poll_event() {
            self.outputs.push_back(match event {
                IceEvent::State(state) => Output::Event(Event::Ice(state)),
                IceEvent::Selected { local, remote } => {
                    Output::Event(Event::SelectedPair { local, remote })
                }
                IceEvent::Validated { remote, proven } => Output::Bind { remote, proven },
                IceEvent::Live(remote) => Output::Live(remote),
                IceEvent::Candidate(line) => Output::Event(Event::Candidate(line)),
                IceEvent::GatheringDone => Output::Event(Event::GatheringDone),
                IceEvent::Resolve { number, name } => Output::Resolve { number, name },
                IceEvent::Expect(transaction) => Output::Expect(transaction),
                IceEvent::Link(output) => Output::Link(output),
            });
        }
        while let Some((local, remote, bytes)) = self.ice.poll_transmit() {
            self.outputs.push_back(Output::Transmit { local, remote, bytes });
        }
    }

    fn send_dtls(&mut self, now: Instant) {
        let Some(dtls) = &mut self.dtls else {
            return;
        };
        // Of what goes to an address that has answered nothing yet nothing is repeated.
        let asked_over = || self.ice.asked_over().filter(|_| !dtls.is_repeating());
        let route = self.ice.usable().or(self.dtls_from).or_else(asked_over);
        while let Some(bytes) = dtls.poll_transmit() {
            // Without a route a retransmission tries again.
            if let Some((local, remote)) = route {
                let sent = Traffic { packets: 1, bytes: bytes.len() as u64 };
                self.ice.count_sent(local, remote, sent);
            }
            match route {
                Some((local, remote)) if path::of(local) == Path::Relay => {
                    self.ice.send(now, local, remote, bytes);
                }
                Some((local, remote)) => {
                    self.outputs.push_back(Output::Transmit { local, remote, bytes });
                }
                None => {}
            }
        }
        self.drain_ice();
    }

    /// Tells of DTLS, but never before ICE has selected a pair: clients expect that order.
    fn tell_dtls(&mut self) {
        let Some(dtls) = &self.dtls else {
            return;
        };
        let state = dtls.state();
        if state == self.told || self.ice.selected().is_none() && state != DtlsState::Failed {
            return;
        }
        if self.told == DtlsState::New && state != DtlsState::New {
            for passed in [DtlsState::New, DtlsState::Connecting] {
                self.outputs.push_back(Output::Event(Event::Dtls(passed)));
            }
        }
        self.told = state;
        match state {
            DtlsState::Connected => {
                self.outputs.push_back(Output::Event(Event::Connected));
                self.outputs.push_back(Output::Event(Event::Dtls(state)));
            }
            DtlsState::Failed => self.outputs.push_back(Output::Event(Event::Dtls(state))),
            DtlsState::Closed => {
                self.outputs.push_back(Output::Event(Event::Dtls(state)));
                self.outputs.push_back(Output::Event(Event::Closed));
            }
            DtlsState::New | DtlsState::Connecting => {}
        }
    }
}

#[cfg(test)]
mod tests;
