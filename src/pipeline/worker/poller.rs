//! Shell: waits until there is something to read.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::Parts;
use crate::pipeline::streams::Epoll;

/// Sockets of endpoints and connections that are told of at once; others are told of the next time.
const MAX_READY: usize = 64;

/// Waits for sockets and the mailbox.
pub(super) struct Poller {
    pub epoll: Epoll,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// The mailbox's token; a socket's is its number.
    pub(super) const MAILBOX: u64 = u64::MAX;

    pub(super) fn new(parts: &Parts) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nobody else owns it.
        let epoll = Epoll::new(unsafe { OwnedFd::from_raw_fd(fd) });
        epoll.add(parts.mailbox.bell(), Self::MAILBOX, libc::EPOLLIN)?;
        for (number, socket) in parts.sockets.iter().enumerate() {
            epoll.add(socket.as_raw_fd(), number as u64, libc::EPOLLIN)?;
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; parts.sockets.len() + MAX_READY];
        Ok(Self { epoll, events })
    }

    /// Waits until something is ready or `wait` is over, without one for as long as it takes; returns
    /// how many are ready.
    pub(super) fn wait(&mut self, wait: Option<Duration>) -> usize {
        // Rounded up: a timer must not be looked at before its time, again and again.
        let millis = wait
            .map_or(-1, |wait| i32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX));
        // SAFETY: `events` has room for as many events as the call is told.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.raw(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                millis,
            )
        };
        // Only EINTR is possible, and then the loop just comes round again.
        usize::try_from(count).unwrap_or(0)
    }

    /// The token of the n-th that was ready, and for what.
    pub(super) fn ready(&self, number: usize) -> (u64, u32) {
        (self.events[number].u64, self.events[number].events)
    }
}
