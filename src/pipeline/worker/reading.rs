//! Shell: reads what is ready, batch by batch, and gives each datagram to the machine.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Shell, Sockets};
use crate::elements::Moment;
use crate::pipeline::machine::Machine;
use crate::pipeline::streams::Owner;
use crate::transport::udp::{Incoming, RecvBatch};

/// Batches read from one socket before others get their turn.
const MAX_BATCHES: usize = 8;

/// What came of a datagram waits this long at most for others that arrive meanwhile: what goes to one
/// destination leaves together, and nobody waits when nothing comes.
const LEAVES_AFTER: Duration = Duration::from_micros(300);

impl Shell {
    pub(super) fn read_stream(&mut self, number: usize, events: u32) {
        let at = self.moment();
        if self.out.streams.datagrams(number).is_some() {
            self.with_room(|shell, room| shell.read_link(at, number, room));
            return;
        }
        self.out.streams.serve(at.now, number, events);
        let mut message = std::mem::take(&mut self.message);
        while let Some(owner) = self.out.streams.next(number, &mut message) {
            self.counts.packets += 1;
            self.counts.bytes += message.len() as u64;
            let bytes = &mut message[..];
            match owner {
                Owner::Peer { local, remote } => {
                    let mut taken = None;
                    self.guarded(at, |machine, out| {
                        taken = machine.handle_datagram(at, local, remote, bytes, out);
                    });
                    if let Some(leg) = taken {
                        self.out.streams.set_known(number, leg);
                    }
                }
                Owner::Link(leg) => {
                    self.guarded(at, |machine, out| machine.handle_link(at, leg, bytes, out));
                }
            }
        }
        self.message = message;
        self.guarded(at, |machine, out| machine.end_of_batch(at, out));
        self.tell_links(at);
        self.flush(at.now);
    }

    /// Takes what a TURN server sent by UDP.
    fn read_link(&mut self, at: Moment, number: usize, batch: &mut RecvBatch) {
        for _ in 0..MAX_BATCHES {
            let Some((socket, server, leg)) = self.out.streams.datagrams(number) else { break };
            if !matches!(socket.recv_batch(batch), Ok(1..)) {
                break;
            }
            let reading = self.clock.reading();
            for Incoming { came, bytes, .. } in batch.iter_mut().filter(|one| one.from == server) {
                self.counts.packets += 1;
                self.counts.bytes += bytes.len() as u64;
                let at = Moment { came: came.map_or(at.now, |came| reading.when(came)), ..at };
                self.guarded(at, |machine, out| machine.handle_link(at, leg, bytes, out));
            }
            self.guarded(at, |machine, out| machine.end_of_batch(at, out));
        }
        self.flush(at.now);
    }

    /// Runs `read` with the room for datagrams, which is the same every time: a new one would cost more
    /// than the few packets that an endpoint's own port has at once.
    pub(super) fn with_room(&mut self, read: impl FnOnce(&mut Self, &mut RecvBatch)) {
        let mut room = self.received.take().unwrap_or_default();
        read(self, &mut room);
        self.received = Some(room);
    }

    pub(super) fn read_socket(&mut self, number: usize, batch: &mut RecvBatch) {
        self.read_batches(|shell| {
            let (socket, _) = shell.out.list.get(number)?;
            let local = socket.local_addr();
            match socket.recv_batch(batch) {
                Ok(0) => None,
                Ok(_) => Some(shell.handle_batch(batch, |machine, at, remote, bytes, out| {
                    machine.handle_datagram(at, local, remote, bytes, out);
                })),
                Err(error) => {
                    tracing::warn!(%local, %error, "cannot receive");
                    None
                }
            }
        });
    }

    pub(super) fn read_own_socket(&mut self, token: u64, batch: &mut RecvBatch) {
        self.read_batches(|shell| {
            let (local, count) = shell.out.own.receive(token, batch)?;
            (count > 0).then(|| {
                shell.handle_batch(batch, |machine, at, remote, bytes, out| {
                    machine.handle_plain_datagram(at, local, remote, bytes, out);
                })
            })
        });
    }

    /// Reads batches until none waits, lets what came of them go on together, looks what has arrived
    /// meanwhile, and sends all of it together, see [`LEAVES_AFTER`]. `read` gives the time at which
    /// what it read had arrived.
    fn read_batches(&mut self, mut read: impl FnMut(&mut Self) -> Option<Moment>) {
        let (mut oldest, mut taken) = (None, None);
        for _ in 0..MAX_BATCHES {
            let arrived = read(self);
            if let Some(at) = arrived {
                taken = Some(at);
                // Nothing of it goes on, so nothing has to be waited for: most batches are one report.
                let goes_on = oldest.is_some() || self.machine.has_packets();
                oldest.get_or_insert(at.now);
                if !goes_on {
                    break;
                }
            }
            let Some(since) = oldest else { break };
            let late = self.clock.now().saturating_duration_since(since) >= LEAVES_AFTER;
            if arrived.is_some() && !late {
                continue;
            }
            let Some(at) = taken.take() else { break };
            self.guarded(at, |machine, out| machine.end_of_batch(at, out));
            if self.clock.now().saturating_duration_since(since) >= LEAVES_AFTER {
                self.flush(since);
                oldest = None;
            }
        }
        if let Some(at) = taken {
            self.guarded(at, |machine, out| machine.end_of_batch(at, out));
        }
        if let Some(since) = oldest {
            self.flush(since);
        }
    }

    /// Gives each datagram to the machine; when they arrived.
    fn handle_batch(
        &mut self,
        batch: &mut RecvBatch,
        handle: impl Fn(&mut Machine, Moment, SocketAddr, &mut [u8], &mut Sockets),
    ) -> Moment {
        self.counts.truncated += batch.truncated() as u64;
        self.batches.note(batch.len() as u64);
        let reading = self.clock.reading();
        let at = self.moment_of(reading);
        for Incoming { from, came, bytes } in batch.iter_mut() {
            self.counts.packets += 1;
            self.counts.bytes += bytes.len() as u64;
            let at = Moment { came: came.map_or(at.now, |came| reading.when(came)), ..at };
            self.guarded(at, |machine, out| handle(machine, at, from, bytes, out));
        }
        at
    }
}
