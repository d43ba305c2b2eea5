//! What a client has sent of messages that are not answered yet, and how long it takes with one.
//!
//! Frames are followed from below the WebSocket (RFC 6455 §5.2), for what lies above hands out whole
//! messages only. Every connection may hold [`FREE`] bytes; what is beyond comes from a budget of all.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes that every connection may hold.
const FREE: usize = 64 * 1024;
/// Bytes of a frame's header: two, a length of up to eight, four of the mask.
const MAX_HEADER: usize = 14;

/// Follows the frames in a stream of bytes.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; MAX_HEADER],
    known: usize,
    /// Bytes of the frame that are still to come.
    missing: u64,
    data: bool,
    /// Whether a message has begun whose last frame has not.
    open: bool,
    /// Messages, and control frames between messages, that have come whole.
    whole: u64,
}

impl Frames {
    /// The bytes of messages among `bytes`.
    fn handle_input(&mut self, mut bytes: &[u8]) -> usize {
        let mut held = 0;
        while !bytes.is_empty() {
            if self.missing > 0 {
                let step = usize::try_from(self.missing).unwrap_or(usize::MAX).min(bytes.len());
                self.missing -= step as u64;
                held += if self.data { step } else { 0 };
                bytes = &bytes[step..];
                self.count();
                continue;
            }
            self.header[self.known] = bytes[0];
            self.known += 1;
            bytes = &bytes[1..];
            let [first, second, ..] = self.header;
            let long = match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let masked = if second & 0x80 == 0 { 0 } else { 4 };
            if self.known < 2 || self.known < 2 + long + masked {
                continue;
            }
            let length = self.header[2..2 + long].iter();
            let length = length.fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
            self.missing = if long == 0 { u64::from(second & 0x7f) } else { length };
            self.known = 0;
            // Opcodes from 8 on are those of control frames, which may stand inside a message.
            self.data = first & 0x08 == 0;
            if self.data {
                self.open = first & 0x80 == 0;
            }
            self.count();
        }
        held
    }

    fn count(&mut self) {
        if !self.is_midway() {
            self.whole = self.whole.wrapping_add(1);
        }
    }

    /// Whether a message, or any frame, has begun and is not finished.
    fn is_midway(&self) -> bool {
        self.open || self.known > 0 || self.missing > 0
    }
}

/// Bytes that all connections hold together beyond what is free.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

impl Budget {
    fn take(&self, bytes: usize, limit: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// A message was begun and not finished in time.
    Slow,
    /// All connections together hold too much.
    Full,
}

/// How much may be held, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// For a message from its first byte to its last.
    pub patience: Duration,
    /// Bytes of the budget.
    pub limit: usize,
}

/// A stream that fails once its peer is too slow with a message or all hold too much.
#[derive(Debug)]
pub struct Receiving<S> {
    stream: S,
    frames: Frames,
    budget: Arc<Budget>,
    allowance: Allowance,
    /// Bytes of messages that have come and are not done with.
    held: usize,
    /// Runs while a message is not finished.
    waiting: Option<Pin<Box<Sleep>>>,
    refusal: Option<Refusal>,
}

impl<S> Receiving<S> {
    /// `read` has come already.
    pub fn new(stream: S, read: &[u8], budget: Arc<Budget>, allowance: Allowance) -> Self {
        let mut frames = Frames::default();
        // Less than what is free, for so much is never read of a request's head.
        let held = frames.handle_input(read);
        Self { stream, frames, budget, allowance, held, waiting: None, refusal: None }
    }

    /// `bytes` of messages are done with.
    pub fn done(&mut self, bytes: usize) {
        let before = share(self.held);
        self.held = self.held.saturating_sub(bytes);
        self.budget.give_back(before - share(self.held));
    }

    /// Nothing was read for a while, for which the peer is not to blame.
    pub fn resume(&mut self) {
        self.waiting = None;
    }

    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The stream itself, for what is read and thrown away.
    pub fn raw(&mut self) -> &mut S {
        &mut self.stream
    }

    fn refuse<T>(&mut self, refusal: Refusal) -> Poll<io::Result<T>> {
        self.refusal = Some(refusal);
        Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()))
    }
}

/// What of it comes from the budget.
const fn share(held: usize) -> usize {
    held.saturating_sub(FREE)
}

impl<S> Drop for Receiving<S> {
    fn drop(&mut self) {
        self.budget.give_back(share(self.held));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Receiving<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if result.is_pending() {
            if !this.frames.is_midway() {
                return Poll::Pending;
            }
            let patience = this.allowance.patience;
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
            return match waiting.as_mut().poll(cx) {
                Poll::Ready(()) => this.refuse(Refusal::Slow),
                Poll::Pending => Poll::Pending,
            };
        }
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        let whole = this.frames.whole;
        let held = this.held.saturating_add(this.frames.handle_input(fresh));
        if this.frames.whole != whole {
            this.waiting = None;
        }
        if !this.budget.take(share(held) - share(this.held), this.allowance.limit) {
            return this.refuse(Refusal::Full);
        }
        this.held = held;
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Receiving<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const TEXT: u8 = 0x81;
    const BEGINNING: u8 = 0x01;
    const END: u8 = 0x80;
    const PING: u8 = 0x89;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + length, 0xff);
        bytes
    }

    #[test]
    fn frames_are_followed_whatever_their_length_and_however_they_are_cut() {
        let parts = [(TEXT, 5), (BEGINNING, 200), (PING, 9), (END, 70_000), (PING, 0), (TEXT, 0)];
        let bytes: Vec<_> =
            parts.iter().flat_map(|(first, length)| frame(*first, *length)).collect();
        for size in [1, 7, 4_096, bytes.len()] {
            let mut frames = Frames::default();
            let held: usize = bytes.chunks(size).map(|part| frames.handle_input(part)).sum();
            assert_eq!((held, frames.is_midway()), (70_205, false), "{size}");
            // A text, a message of two frames, a ping behind it, a text without a letter.
            assert_eq!(frames.whole, 4, "{size}");
        }
    }

    #[test]
    fn a_message_is_midway_until_its_last_frame_has_come() {
        let mut frames = Frames::default();
        for (bytes, midway) in [
            (&[TEXT][..], true),
            (&[0x80][..], true),
            (&[0; 4][..], false),
            (&frame(BEGINNING, 3)[..], true),
            (&frame(PING, 0)[..], true),
            (&frame(0, 3)[..], true),
            (&frame(END, 0)[..], false),
        ] {
            frames.handle_input(bytes);
            assert_eq!(frames.is_midway(), midway, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn the_budget_is_that_of_all_and_what_is_done_with_goes_back() {
        let budget = Arc::new(Budget::default());
        let allowance = Allowance { patience: Duration::from_secs(60), limit: 100_000 };
        let length = FREE + 60_000;
        let mut ends = [(); 2].map(|()| {
            let (near, far) = duplex(1 << 20);
            (Receiving::new(near, &[], budget.clone(), allowance), far)
        });
        let mut buffer = vec![0; length + MAX_HEADER];
        for (_, far) in &mut ends {
            far.write_all(&frame(TEXT, length)).await.expect("room");
        }
        let [(first, _), (second, _)] = &mut ends;
        first.read_exact(&mut buffer).await.expect("within the budget");
        assert!(second.read_exact(&mut buffer).await.is_err());
        assert_eq!(second.refusal(), Some(Refusal::Full));
        first.done(length);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
        let [(mut first, mut far), _] = ends;
        far.write_all(&frame(TEXT, length)).await.expect("room");
        first.read_exact(&mut buffer).await.expect("within the budget");
        assert_eq!(budget.0.load(Ordering::Relaxed), 60_000);
        drop(first);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn only_who_begins_a_message_must_finish_it() {
        let allowance = Allowance { patience: Duration::from_millis(1), limit: 0 };
        let (near, mut far) = duplex(1_000);
        let mut near = Receiving::new(near, &[], Arc::default(), allowance);
        far.write_all(&[TEXT]).await.expect("room");
        let mut buffer = [0; 100];
        assert_eq!(near.read(&mut buffer).await.expect("a byte"), 1);
        assert!(near.read(&mut buffer).await.is_err());
        assert_eq!(near.refusal(), Some(Refusal::Slow));
    }
}
