//! A client that sends messages over a data channel and gets them back: how many go through, and how
//! long each is under way there and back. So many are under way as `window` says; the next is sent
//! when one has come back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rivero::transport::Reliability;
use rivero::transport::data_channel::{ChannelOptions, Message};
use rivero::transport::webrtc::Session;

use super::histogram::Histogram;
use super::stamp::{LEN, Stamp};
use super::stream::Counts;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of each message.
    pub bytes: usize,
    pub window: usize,
}

pub struct Chat {
    settings: Settings,
    channel: Option<u16>,
    open: bool,
    pub sent: u64,
    pub counts: Counts,
    under_way: usize,
}

impl Chat {
    pub fn new(settings: Settings) -> Self {
        let settings = Settings { bytes: settings.bytes.max(LEN), ..settings };
        Self {
            settings,
            channel: None,
            open: false,
            sent: 0,
            counts: Counts::default(),
            under_way: 0,
        }
    }

    /// Opens the channel as soon as there is an association.
    pub fn advance(&mut self, now: Instant, session: &mut Session) {
        let connected = session.data().is_some_and(|data| data.is_connected());
        if self.channel.is_none() && connected {
            let options = ChannelOptions {
                label: "bench".to_owned(),
                protocol: String::new(),
                ordered: true,
                reliability: Reliability::Reliable,
            };
            // What cannot be opened is noticed by who waits for the first message.
            self.channel = session.open_channel(now, options).ok();
        }
    }

    pub fn opened(&mut self, channel: u16) {
        self.open |= self.channel == Some(channel);
    }

    pub fn take(&mut self, message: &Message, time: Duration, delays: &mut Histogram) {
        self.under_way = self.under_way.saturating_sub(1);
        self.counts.expected += 1;
        self.counts.received += 1;
        self.counts.bytes += message.bytes.len() as u64;
        match Stamp::read(&message.bytes) {
            Some(stamp) => delays.record(time.saturating_sub(stamp.sent)),
            None => self.counts.foreign += 1,
        }
    }

    /// Sends as many as may be under way; true if there were any.
    pub fn send(&mut self, now: Instant, time: Duration, session: &mut Session) -> bool {
        let Some(channel) = self.channel.filter(|_| self.open) else { return false };
        let before = self.sent;
        while self.under_way < self.settings.window && !session.is_full() {
            let stamp = Stamp {
                sent: time,
                frame: self.sent as u32,
                index: 0,
                count: 1,
                keyframe: false,
                packet: self.sent as u32,
            };
            let mut bytes = vec![0x5a; self.settings.bytes];
            stamp.write(&mut bytes);
            let message = Message { is_text: false, bytes: Bytes::from(bytes) };
            if session.send_message(now, channel, &message).is_err() {
                break;
            }
            self.sent += 1;
            self.under_way += 1;
        }
        if self.sent > before {
            session.flush(now);
        }
        self.sent > before
    }
}
