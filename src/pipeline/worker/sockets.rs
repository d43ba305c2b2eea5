//! Shell: the sockets that all sessions of a worker share, and everything else that it sends by.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::Mailbox;
use crate::elements::{Asker, LegKey};
use crate::pipeline::machine::Outbox;
use crate::pipeline::own_sockets::OwnSockets;
use crate::pipeline::resolver::{Question, Resolver};
use crate::pipeline::streams::Streams;
use crate::transport::LinkOutput;
use crate::transport::path::{self, Path};
use crate::transport::tcp::MAX_FRAME;
use crate::transport::udp::{SendBatch, SendStats, UdpSocket};

/// The worker's sockets with what waits to be sent from each.
pub(super) struct Sockets {
    pub list: Vec<(UdpSocket, SendBatch)>,
    /// Those of single endpoints.
    pub own: OwnSockets,
    pub stats: SendStats,
    pub streams: Streams,
    pub resolver: Resolver,
    /// Names that nobody had time to look up.
    pub unasked: u64,
    pub mailbox: Arc<Mailbox>,
    pub now: Instant,
}

impl Sockets {
    pub fn flush_all(&mut self) {
        self.streams.flush();
        for (socket, batch) in &mut self.list {
            if !batch.is_empty() {
                self.stats += batch.flush(socket);
            }
        }
        self.own.flush();
    }
}

impl Outbox for Sockets {
    fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        self.send_marked(0, local, remote, fill);
    }

    fn send_marked(
        &mut self,
        mark: u8,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        if path::of(local) == Path::Tcp {
            let mut slot = [0; MAX_FRAME];
            if let Some(len) = fill(&mut slot) {
                self.streams.send(self.now, local, remote, &slot[..len]);
            }
            return;
        }
        let Some((socket, batch)) = self.list.iter_mut().find(|(one, _)| one.local_addr() == local)
        else {
            return self.own.send(local, remote, fill);
        };
        if batch.is_full() {
            self.stats += batch.flush(socket);
        }
        if let Some(len) = fill(batch.slot()) {
            batch.commit_marked(len, remote, mark);
        }
    }

    fn flush(&mut self) {
        self.flush_all();
    }

    fn is_shared(&self, local: SocketAddr) -> bool {
        self.list.iter().any(|(one, _)| one.local_addr() == local)
    }

    fn link(&mut self, leg: LegKey, output: LinkOutput) {
        self.streams.link(self.now, leg, output);
    }

    fn send_link(&mut self, leg: LegKey, fill: impl FnOnce(&mut [u8]) -> Option<Range<usize>>) {
        self.streams.send_link(leg, fill);
    }

    fn resolve(&mut self, asker: Asker, name: String) {
        let question = Question { name, asker, mailbox: self.mailbox.clone() };
        self.unasked += u64::from(!self.resolver.ask(question));
    }
}
