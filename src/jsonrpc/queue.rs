//! What waits to be sent to a connection beside replies. A client that does not read loses its
//! connection when its queue is full, never its session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// Bytes of what is queued; the receiving end takes off what it took.
    bytes: Arc<AtomicUsize>,
    capacity: usize,
    /// Taken when the connection is told to close.
    close: Option<oneshot::Sender<Farewell>>,
}

/// The receiving end: messages in order, and the reason to close should there be one.
#[derive(Debug)]
pub struct Inbox {
    pub messages: Messages,
    pub close: oneshot::Receiver<Farewell>,
}

/// The messages of an [`Inbox`].
#[derive(Debug)]
pub struct Messages {
    queue: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Messages {
    /// The next message; none when the connection is forgotten.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let message = self.queue.recv().await?;
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

    /// The next message, if there is one already.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        let message = self.queue.try_recv().ok()?;
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }
}

/// A queue for at most so many messages, of so many bytes together.
pub fn queue(messages: usize, bytes: usize) -> (Outbox, Inbox) {
    let capacity = bytes;
    let (messages, queue) = mpsc::channel(messages.max(1));
    let (close, closed) = oneshot::channel();
    let bytes = Arc::new(AtomicUsize::new(0));
    (
        Outbox { messages, bytes: bytes.clone(), capacity, close: Some(close) },
        Inbox { messages: Messages { queue, bytes }, close: closed },
    )
}

impl Outbox {
    /// Queues a message, or tells the connection to close.
    pub fn push(&mut self, message: Bytes, metrics: &Metrics) {
        let length = message.len();
        // Only this end adds, so what is there can only become less meanwhile.
        let queued = self.bytes.load(Ordering::Relaxed);
        let sent = if queued > 0 && queued + length > self.capacity {
            Err(mpsc::error::TrySendError::Full(message))
        } else {
            self.bytes.fetch_add(length, Ordering::Relaxed);
            self.messages.try_send(message)
        };
        match sent {
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
        let (mut outbox, mut inbox) = queue(2, 1_000);
        for _ in 0..2 {
            outbox.push(Bytes::from_static(b"{}"), &metrics);
        }
        assert!(inbox.close.try_recv().is_err());
        outbox.push(Bytes::from_static(b"{}"), &metrics);
        outbox.push(Bytes::from_static(b"{}"), &metrics);
        assert_eq!(inbox.close.try_recv(), Ok(TOO_SLOW));
        assert!(inbox.messages.try_recv().is_some() && inbox.messages.try_recv().is_some());
        assert!(inbox.messages.try_recv().is_none());
    }

    #[test]
    fn long_messages_fill_the_queue_sooner_and_one_alone_always_fits() {
        let metrics = Metrics::new();
        let (mut outbox, mut inbox) = queue(100, 10);
        outbox.push(Bytes::from_static(b"longer than the queue"), &metrics);
        assert!(inbox.messages.try_recv().is_some());
        outbox.push(Bytes::from_static(b"123456"), &metrics);
        outbox.push(Bytes::from_static(b"1234"), &metrics);
        assert!(inbox.close.try_recv().is_err());
        outbox.push(Bytes::from_static(b"1"), &metrics);
        assert_eq!(inbox.close.try_recv(), Ok(TOO_SLOW));
    }
}
