//! Shell: the sockets that belong to single endpoints, bound and closed while the worker runs.
//!
//! The machine asks for them through [`Binder`] in the middle of a command, and may send from them at
//! once; so they are shared between it and the worker's loop, which live on one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::streams::Epoll;
use crate::transport::ports::Binder;
use crate::transport::udp::{RecvBatch, SendBatch, SendStats, UdpSocket};

/// The sockets of one worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct OwnSockets(Rc<RefCell<Inner>>);

struct Inner {
    /// Who waits for the sockets.
    epoll: Epoll,
    slots: Vec<Option<UdpSocket>>,
    free: Vec<usize>,
    by_address: HashMap<SocketAddr, usize>,
    /// Many sockets send little each, so they share one batch: it is that of one socket at a time.
    batch: SendBatch,
    batch_of: usize,
    stats: SendStats,
}

impl OwnSockets {
    /// Tokens from here on are sockets of endpoints.
    pub const FIRST_TOKEN: u64 = 1 << 32;

    pub fn new(epoll: Epoll) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            epoll,
            slots: Vec::new(),
            free: Vec::new(),
            by_address: HashMap::new(),
            batch: SendBatch::new(),
            batch_of: 0,
            stats: SendStats::default(),
        })))
    }

    /// Receives what waits at the socket of a token; its address and how many came. None for a socket
    /// that was closed meanwhile.
    pub fn receive(&self, token: u64, batch: &mut RecvBatch) -> Option<(SocketAddr, usize)> {
        let inner = self.0.borrow();
        let socket = inner.slots.get((token - Self::FIRST_TOKEN) as usize)?.as_ref()?;
        let local = socket.local_addr();
        match socket.recv_batch(batch) {
            Ok(count) => Some((local, count)),
            Err(error) => {
                tracing::warn!(%local, %error, "cannot receive");
                None
            }
        }
    }

    /// Lets `fill` write a datagram that is sent from `local`; nothing when no socket has that address.
    pub fn send(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let inner = &mut *self.0.borrow_mut();
        let Some(&slot) = inner.by_address.get(&local) else { return };
        if inner.batch_of != slot || inner.batch.is_full() {
            inner.flush();
            inner.batch_of = slot;
        }
        if let Some(len) = fill(inner.batch.slot()) {
            inner.batch.commit(len, remote);
        }
    }

    pub fn flush(&self) {
        self.0.borrow_mut().flush();
    }

    /// Whether [`Self::take_stats`] has something.
    pub fn has_sent(&self) -> bool {
        self.0.borrow().stats != SendStats::default()
    }

    /// What was sent since this was asked last.
    pub fn take_stats(&self) -> SendStats {
        std::mem::take(&mut self.0.borrow_mut().stats)
    }
}

impl Inner {
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Some(Some(socket)) = self.slots.get(self.batch_of) {
            self.stats += self.batch.flush(socket);
        }
    }
}

impl Binder for OwnSockets {
    fn bind(&mut self, address: SocketAddr) -> io::Result<()> {
        let inner = &mut *self.0.borrow_mut();
        let socket = UdpSocket::bind(address)?;
        let slot = inner.free.pop().unwrap_or_else(|| {
            inner.slots.push(None);
            inner.slots.len() - 1
        });
        let token = Self::FIRST_TOKEN + slot as u64;
        if let Err(error) = inner.epoll.add(socket.as_raw_fd(), token, libc::EPOLLIN) {
            inner.free.push(slot);
            return Err(error);
        }
        inner.by_address.insert(address, slot);
        inner.slots[slot] = Some(socket);
        Ok(())
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        OwnSockets::send(self, from, to, |slot| {
            slot.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(bytes.len())
        });
    }

    fn close(&mut self, address: SocketAddr) {
        let inner = &mut *self.0.borrow_mut();
        let Some(slot) = inner.by_address.remove(&address) else { return };
        if inner.batch_of == slot {
            inner.flush();
        }
        // The poller forgets a socket that is closed.
        inner.slots[slot] = None;
        inner.free.push(slot);
    }
}
