//! Shell: what other threads hand to a worker, and the bell that wakes it.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Span;

use crate::elements::Asker;
use crate::pipeline::{Command, Ticket};

/// Commands on their way to a worker. Bounded by the requests that control lets wait for an answer.
pub(in crate::pipeline) struct Mailbox {
    inner: Mutex<Inner>,
    stopped: AtomicBool,
    bell: OwnedFd,
}

/// Closes the mailbox of a thread that ends.
pub(super) struct Closing(pub Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.closed = true;
        inner.commands.clear();
    }
}

/// What was found out about a name that a session asked about.
pub(in crate::pipeline) struct Answer {
    pub asker: Asker,
    pub ip: Option<IpAddr>,
}

#[derive(Default)]
struct Inner {
    commands: Vec<(Command, Ticket, Span)>,
    /// Bounded by the questions that wait for one.
    answers: Vec<Answer>,
    closed: bool,
}

impl Mailbox {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nobody else owns it.
        let bell = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { inner: Mutex::default(), stopped: AtomicBool::new(false), bell })
    }

    pub fn push(&self, command: Command, ticket: Ticket) {
        let was_empty = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.closed {
                return;
            }
            // What is logged on the way is part of the request that asks for it.
            inner.commands.push((command, ticket, Span::current()));
            inner.commands.len() == 1
        };
        if was_empty {
            self.ring();
        }
    }

    /// Answers a question of a session.
    pub fn answer(&self, answer: Answer) {
        let was_empty = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.closed {
                return;
            }
            inner.answers.push(answer);
            inner.answers.len() == 1
        };
        if was_empty {
            self.ring();
        }
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn take(&self) -> (Vec<(Command, Ticket, Span)>, Vec<Answer>) {
        let mut count = 0_u64;
        // SAFETY: `count` has the eight bytes that an eventfd gives. That it may not be rung is fine.
        unsafe { libc::read(self.bell.as_raw_fd(), (&raw mut count).cast(), 8) };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut inner.commands), std::mem::take(&mut inner.answers))
    }

    /// What is readable when something came.
    pub(super) fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    fn ring(&self) {
        let one = 1_u64;
        // SAFETY: `one` has the eight bytes that an eventfd takes. It cannot be so full as to refuse.
        unsafe { libc::write(self.bell.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}
