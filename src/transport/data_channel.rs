//! Data channels over one SCTP association (RFC 8831), opened in band (RFC 8832).
//!
//! A channel is a pair of streams with one number: even ones are opened by the client of DTLS, odd
//! ones by the server. Texts and binary messages, empty ones too, have up to [`MAX_MESSAGE`] bytes;
//! longer ones close their channel, for what was sent reliably cannot be left out silently.
//!
//! What waits to be sent is bounded: a session with much of it says so by
//! [`DataChannels::is_full`], and by [`DataOutput::Drained`] when there is room again. A peer that
//! takes nothing for a while counts as gone: it holds up nobody any more, and what is meant for it is
//! dropped until it has taken what waits.
//!
//! Left out: channels negotiated out of band, priorities (RFC 8260).

mod opening;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub use opening::{Control, MAX_NAME, Opening};

use super::sctp::{Content, MAX_MESSAGE, Reliability, Sctp, SctpEvent};
use super::{DropReason, DtlsRole};

/// Channels of one session.
pub const MAX_CHANNELS: usize = 256;
/// Bytes that wait to be sent before a session is full, and at which it is so no more.
const HIGH: usize = 1024 * 1024;
const LOW: usize = 256 * 1024;
/// Nothing more is taken beyond this.
const MOST: usize = 4 * 1024 * 1024;
/// How long a full session may hold others up without getting rid of anything. Four repetitions in a row
/// that are lost, each later than the one before, take 15 s on a network that is alive.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the descriptions say of data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataSettings {
    pub local_port: u16,
    pub remote_port: u16,
    /// The longest message the peer takes; none if it takes any (RFC 8841 §6).
    pub max_message: Option<usize>,
}

/// A message without the channel it goes over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// A text in UTF-8, or else bytes.
    pub is_text: bool,
    pub bytes: Bytes,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DataOutput {
    Opened(u16),
    Closed(u16),
    Message {
        channel: u16,
        message: Message,
    },
    /// There is room again after [`DataChannels::is_full`].
    Drained,
    Dropped(DropReason),
}

/// How a channel is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelOptions {
    pub label: String,
    pub protocol: String,
    pub ordered: bool,
    pub reliability: Reliability,
}

/// Why there is no new channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DataError {
    #[error("no association with the peer")]
    NotConnected,
    #[error("more than {MAX_CHANNELS} channels")]
    TooManyChannels,
    #[error("a label or protocol of more than {MAX_NAME} bytes")]
    NameTooLong,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelState {
    /// The peer has not answered yet.
    Opening,
    Open,
    /// The peer has yet to close its side.
    Closing,
}

/// A channel and what went over it.
#[derive(Clone, Debug)]
pub struct Channel {
    pub id: u16,
    pub label: String,
    pub protocol: String,
    pub ordered: bool,
    pub reliability: Reliability,
    pub state: ChannelState,
    pub messages_sent: u64,
    pub bytes_sent: u64,
    pub messages_received: u64,
    pub bytes_received: u64,
    /// Its place among all channels of the session, in the order of their opening.
    place: u64,
    /// Bytes that wait to be sent or acknowledged.
    buffered: usize,
    /// Whether clients were told that it is open.
    told: bool,
}

/// Whether the peer takes what is sent to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pace {
    Keeps,
    /// Since the instant it last took something.
    Full(Instant),
    /// For too long.
    Stuck,
}

/// All channels of a session.
pub struct DataChannels {
    role: DtlsRole,
    sctp: Sctp,
    max_message: usize,
    channels: BTreeMap<u16, Channel>,
    outputs: VecDeque<DataOutput>,
    next_id: u16,
    opened: u64,
    closed: u64,
    /// Bytes that wait on channels that live.
    buffered: usize,
    /// Bytes that waited on channels when those were closed, and may still do so; and how many of them
    /// stand before the last message of a living channel.
    orphaned: usize,
    orphaned_before: usize,
    pace: Pace,
}

impl DataChannels {
    pub fn new(role: DtlsRole, settings: DataSettings) -> Self {
        Self {
            role,
            sctp: Sctp::new(role, settings.local_port, settings.remote_port),
            max_message: settings.max_message.unwrap_or(MAX_MESSAGE).min(MAX_MESSAGE),
            channels: BTreeMap::new(),
            outputs: VecDeque::new(),
            next_id: match role {
                DtlsRole::Client => 0,
                DtlsRole::Server => 1,
            },
            opened: 0,
            closed: 0,
            buffered: 0,
            orphaned: 0,
            orphaned_before: 0,
            pace: Pace::Keeps,
        }
    }

    /// DTLS is ready.
    pub fn connect(&mut self, now: Instant) {
        self.sctp.connect(now);
        self.take_events(now);
    }

    /// Whether channels can be opened.
    pub fn is_connected(&self) -> bool {
        self.sctp.is_connected()
    }

    /// Takes an SCTP packet of the peer.
    pub fn handle_packet(&mut self, now: Instant, packet: BytesMut) {
        self.sctp.handle_packet(now, packet);
        self.take_events(now);
    }

    /// Opens a channel; its number.
    ///
    /// # Errors
    /// [`DataError`]
    pub fn open(&mut self, now: Instant, options: ChannelOptions) -> Result<u16, DataError> {
        if !self.is_connected() {
            return Err(DataError::NotConnected);
        }
        if options.label.len() > MAX_NAME || options.protocol.len() > MAX_NAME {
            return Err(DataError::NameTooLong);
        }
        let id = self.free_id().ok_or(DataError::TooManyChannels)?;
        // In order until the peer knows of the channel (RFC 8832 §6).
        self.sctp.open(id, true, Reliability::Reliable).map_err(|_| DataError::NotConnected)?;
        let opening = Control::Open(Opening {
            label: options.label.clone(),
            protocol: options.protocol.clone(),
            ordered: options.ordered,
            reliability: options.reliability,
        });
        let sent = self.sctp.send(now, id, Content::Control, &opening.to_bytes());
        sent.map_err(|_| DataError::NotConnected)?;
        self.add(id, options, ChannelState::Opening);
        self.sctp.flush(now);
        self.take_events(now);
        Ok(id)
    }

    /// Closes a channel; [`DataOutput::Closed`] follows. One that is not there is no error.
    pub fn close(&mut self, now: Instant, id: u16) {
        self.begin_close(now, id);
        self.take_events(now);
    }

    fn begin_close(&mut self, now: Instant, id: u16) {
        if let Some(channel) = self.channels.get_mut(&id)
            && channel.state != ChannelState::Closing
        {
            channel.state = ChannelState::Closing;
            self.sctp.close(now, id);
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`DropReason::DataNotOpen`], [`DropReason::DataTooLong`], and [`DropReason::DataSlowPeer`] when
    /// too much waits already.
    pub fn send(&mut self, now: Instant, id: u16, message: &Message) -> Result<(), DropReason> {
        let len = message.bytes.len();
        let channel = self.channels.get_mut(&id).ok_or(DropReason::DataNotOpen)?;
        if channel.state == ChannelState::Closing {
            return Err(DropReason::DataNotOpen);
        }
        if len > self.max_message {
            return Err(DropReason::DataTooLong);
        }
        let waits = self.buffered + self.orphaned;
        let skips = channel.reliability != Reliability::Reliable && self.pace != Pace::Keeps;
        if skips || self.pace == Pace::Stuck || waits + len > MOST {
            return Err(DropReason::DataSlowPeer);
        }
        // SCTP has no empty messages (RFC 8831 §6.6).
        let nothing = Bytes::from_static(&[0]);
        let (content, bytes) = match (message.is_text, len) {
            (true, 0) => (Content::EmptyText, &nothing),
            (false, 0) => (Content::EmptyBinary, &nothing),
            (true, _) => (Content::Text, &message.bytes),
            (false, _) => (Content::Binary, &message.bytes),
        };
        self.sctp.send(now, id, content, bytes).map_err(|_| DropReason::DataNotOpen)?;
        channel.messages_sent += 1;
        channel.bytes_sent += len as u64;
        channel.buffered += bytes.len();
        if channel.ordered {
            self.orphaned_before = self.orphaned;
        }
        self.buffered += bytes.len();
        if self.pace == Pace::Keeps && self.buffered + self.orphaned >= HIGH {
            self.pace = Pace::Full(now);
        }
        Ok(())
    }

    /// Puts on their way what [`Self::send`] was given.
    pub fn flush(&mut self, now: Instant) {
        self.sctp.flush(now);
        self.take_events(now);
    }

    /// Bytes of messages that wait to be sent or acknowledged.
    pub fn waiting(&self) -> usize {
        self.buffered + self.orphaned
    }

    /// Whether whoever sends over this session should wait.
    pub fn is_full(&self) -> bool {
        matches!(self.pace, Pace::Full(_))
    }

    /// Whether messages of the peer are taken. While they are not, it has to wait.
    pub fn set_reading(&mut self, now: Instant, reading: bool) {
        self.sctp.set_reading(now, reading);
        self.take_events(now);
    }

    /// The channels, by number.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.values()
    }

    pub fn channel(&self, id: u16) -> Option<&Channel> {
        self.channels.get(&id)
    }

    /// How many channels were opened and closed so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.opened, self.closed)
    }

    /// The channel that was opened first of those that can send.
    pub fn first(&self) -> Option<u16> {
        self.usable().min_by_key(|channel| channel.place).map(|channel| channel.id)
    }

    /// The channel with that label, the one opened first if there are several.
    pub fn labelled(&self, label: &str) -> Option<u16> {
        let same = self.usable().filter(|channel| channel.label == label);
        same.min_by_key(|channel| channel.place).map(|channel| channel.id)
    }

    fn usable(&self) -> impl Iterator<Item = &Channel> {
        self.channels.values().filter(|channel| channel.state != ChannelState::Closing)
    }

    pub fn poll_output(&mut self) -> Option<DataOutput> {
        self.outputs.pop_front()
    }

    /// An SCTP packet for the peer.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.sctp.poll_transmit()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let give_up = match self.pace {
            Pace::Full(since) => Some(since + PATIENCE),
            Pace::Keeps | Pace::Stuck => None,
        };
        self.sctp.poll_timeout().into_iter().chain(give_up).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.sctp.handle_timeout(now);
        self.take_events(now);
        if let Pace::Full(since) = self.pace
            && since + PATIENCE <= now
        {
            self.pace = Pace::Stuck;
            self.outputs.push_back(DataOutput::Drained);
        }
    }

    /// Ends the association at once.
    pub fn abort(&mut self, now: Instant) {
        self.sctp.abort(now);
        self.take_events(now);
    }

    /// A number for a channel of ours. Those that were used last are used again last.
    fn free_id(&mut self) -> Option<u16> {
        let streams = self.sctp.streams();
        if self.channels.len() >= MAX_CHANNELS {
            return None;
        }
        let first = match self.role {
            DtlsRole::Client => 0,
            DtlsRole::Server => 1,
        };
        for _ in 0..streams.div_ceil(2) {
            let id = if self.next_id < streams { self.next_id } else { first };
            self.next_id = id + 2;
            if id < streams && !self.channels.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    fn add(&mut self, id: u16, options: ChannelOptions, state: ChannelState) {
        self.opened += 1;
        let channel = Channel {
            id,
            label: options.label,
            protocol: options.protocol,
            ordered: options.ordered,
            reliability: options.reliability,
            state,
            messages_sent: 0,
            bytes_sent: 0,
            messages_received: 0,
            bytes_received: 0,
            place: self.opened,
            buffered: 0,
            told: false,
        };
        self.channels.insert(id, channel);
    }

    fn tell_open(&mut self, id: u16) {
        if let Some(channel) = self.channels.get_mut(&id) {
            if channel.state == ChannelState::Opening {
                channel.state = ChannelState::Open;
            }
            if !std::mem::replace(&mut channel.told, true) {
                self.outputs.push_back(DataOutput::Opened(id));
            }
        }
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.sctp.poll_event() {
            match event {
                SctpEvent::Connected => {}
                SctpEvent::Message { stream, content: Content::Control, bytes } => {
                    self.handle_control(now, stream, &bytes);
                }
                SctpEvent::Message { stream, content, bytes } => {
                    self.handle_message(stream, content, bytes);
                }
                SctpEvent::TooLong(stream) => {
                    self.outputs.push_back(DataOutput::Dropped(DropReason::DataTooLong));
                    self.begin_close(now, stream);
                }
                SctpEvent::Released { stream, bytes } => self.release(now, stream, bytes),
                SctpEvent::Reset(stream) => self.remove(now, stream),
                SctpEvent::Dropped(reason) => self.outputs.push_back(DataOutput::Dropped(reason)),
                SctpEvent::Ended => {
                    for id in self.channels.keys().copied().collect::<Vec<_>>() {
                        self.remove(now, id);
                    }
                    self.orphaned = 0;
                    self.settle_pace(now, true);
                }
            }
        }
    }

    fn handle_control(&mut self, now: Instant, stream: u16, bytes: &[u8]) {
        let refused = match Control::parse(bytes) {
            Some(Control::Ack) => {
                self.handle_ack(stream);
                return;
            }
            Some(Control::Open(opening)) => match self.accept(now, stream, opening) {
                Ok(()) => return,
                Err(reason) => reason,
            },
            None => DropReason::DataOpening,
        };
        self.outputs.push_back(DataOutput::Dropped(refused));
        // Who speaks out of turn does not know what channel this is (RFC 8832 §6).
        if self.channels.contains_key(&stream) {
            self.begin_close(now, stream);
        } else {
            self.sctp.close(now, stream);
        }
    }

    fn accept(&mut self, now: Instant, stream: u16, opening: Opening) -> Result<(), DropReason> {
        let ours = match self.role {
            DtlsRole::Client => 0,
            DtlsRole::Server => 1,
        };
        if self.channels.contains_key(&stream) || stream % 2 == ours {
            return Err(DropReason::DataOpening);
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(DropReason::DataTooManyChannels);
        }
        self.sctp.open(stream, opening.ordered, opening.reliability)?;
        self.sctp.send(now, stream, Content::Control, &Control::Ack.to_bytes())?;
        let options = ChannelOptions {
            label: opening.label,
            protocol: opening.protocol,
            ordered: opening.ordered,
            reliability: opening.reliability,
        };
        self.add(stream, options, ChannelState::Open);
        self.tell_open(stream);
        self.sctp.flush(now);
        Ok(())
    }

    fn handle_ack(&mut self, stream: u16) {
        let Some(channel) = self.channels.get(&stream) else {
            self.outputs.push_back(DataOutput::Dropped(DropReason::DataOpening));
            return;
        };
        if channel.state == ChannelState::Opening
            && let Err(reason) = self.sctp.open(stream, channel.ordered, channel.reliability)
        {
            self.outputs.push_back(DataOutput::Dropped(reason));
        }
        self.tell_open(stream);
    }

    fn handle_message(&mut self, stream: u16, content: Content, bytes: Bytes) {
        let (is_text, bytes) = match content {
            Content::Text => (true, bytes),
            Content::Binary => (false, bytes),
            Content::EmptyText => (true, Bytes::new()),
            Content::EmptyBinary => (false, Bytes::new()),
            Content::Control | Content::Unknown => {
                self.outputs.push_back(DataOutput::Dropped(DropReason::DataNoMessage));
                return;
            }
        };
        if is_text && std::str::from_utf8(&bytes).is_err() {
            self.outputs.push_back(DataOutput::Dropped(DropReason::DataNoMessage));
            return;
        }
        // Who answers with a message knows the channel, wherever its acknowledgement may be.
        self.tell_open(stream);
        let Some(channel) = self.channels.get_mut(&stream) else {
            self.outputs.push_back(DataOutput::Dropped(DropReason::DataNoChannel));
            return;
        };
        channel.messages_received += 1;
        channel.bytes_received += bytes.len() as u64;
        let message = Message { is_text, bytes };
        self.outputs.push_back(DataOutput::Message { channel: stream, message });
    }

    fn release(&mut self, now: Instant, stream: u16, bytes: usize) {
        if let Some(channel) = self.channels.get_mut(&stream) {
            // Opening messages are acknowledged as well and were not counted.
            let bytes = bytes.min(channel.buffered);
            channel.buffered -= bytes;
            self.buffered -= bytes;
        }
        if self.buffered == 0 {
            self.orphaned = self.orphaned.saturating_sub(self.orphaned_before);
            self.orphaned_before = 0;
        }
        self.settle_pace(now, true);
    }

    fn remove(&mut self, now: Instant, id: u16) {
        if let Some(channel) = self.channels.remove(&id) {
            self.closed += 1;
            self.buffered -= channel.buffered;
            self.orphaned += channel.buffered;
            if channel.told {
                self.outputs.push_back(DataOutput::Closed(id));
            }
            self.settle_pace(now, false);
        }
    }

    /// Notes how the peer gets on; `moved` says that it took something.
    fn settle_pace(&mut self, now: Instant, moved: bool) {
        let waits = self.buffered + self.orphaned;
        match self.pace {
            Pace::Full(_) if waits <= LOW => {
                self.pace = Pace::Keeps;
                self.outputs.push_back(DataOutput::Drained);
            }
            Pace::Full(_) if moved => self.pace = Pace::Full(now),
            Pace::Stuck if waits <= LOW => self.pace = Pace::Keeps,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
