//! What waits to be sent to a connection beside replies. A client that does not read loses its
//! connection when its queue is full, never its session.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

/// Why the server closes a connection: a close code of RFC 6455 §7.4 and a text for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Farewell {
    pub code: u16,
    pub reason: &'static str,
}

/// The queue is full.
const TOO_SLOW: Farewell = Farewell { code: 1008, reason: "Events are not read fast enough" };

/// The sending end of a connection's queue.
#[derive(Debug)]
pub struct Outbox {
    messages: mpsc::Sender<Bytes>,
    /// Taken when the connection is told to close.
    close: Option<oneshot::Sender<Farewell>>,
}

/// The receiving end: messages in order, and the reason to close should there be one.
#[derive(Debug)]
pub struct Inbox {
    pub messages: mpsc::Receiver<Bytes>,
    pub close: oneshot::Receiver<Farewell>,
}

/// A queue for at most `capacity` messages.
pub fn queue(capacity: usize) -> (Outbox, Inbox) {
    let (messages, receiver) = mpsc::channel(capacity.max(1));
    let (close, closed) = oneshot::channel();
    (Outbox { messages, close: Some(close) }, Inbox { messages: receiver, close: closed })
}

impl Outbox {
    /// Queues a message, or tells the connection to close.
    pub fn push(&mut self, message: Bytes, metrics: &Metrics) {
        match self.messages.try_send(message) {
            Ok(()) => metrics.event_sent(),
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics.events_dropped("slow_reader", 1);
                if self.close(TOO_SLOW) {
                    metrics.connection_cut("slow_reader");
                }
            }
            Err(mpsc::error::TrySendError::Closed(_)) => metrics.events_dropped("closing", 1),
        }
    }

    /// Tells the connection to close; false when it was told so before.
    pub fn close(&mut self, farewell: Farewell) -> bool {
        // The connection may be gone by itself, which is as good.
        self.close.take().map(|close| close.send(farewell)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_is_told_to_close_once_the_queue_is_full() {
        let metrics = Metrics::new();
        let (mut outbox, mut inbox) = queue(2);
        for _ in 0..2 {
            outbox.push(Bytes::from_static(b"{}"), &metrics);
        }
        assert!(inbox.close.try_recv().is_err());
        outbox.push(Bytes::from_static(b"{}"), &metrics);
        outbox.push(Bytes::from_static(b"{}"), &metrics);
        assert_eq!(inbox.close.try_recv(), Ok(TOO_SLOW));
        assert!(inbox.messages.try_recv().is_ok() && inbox.messages.try_recv().is_ok());
        assert!(inbox.messages.try_recv().is_err());
    }
}
