//! The way out of a worker: what takes datagrams and requests from the machine.

use std::net::SocketAddr;
use std::ops::Range;

use crate::elements::{Asker, LegKey};
use crate::transport::LinkOutput;

/// Where datagrams go.
pub trait Outbox {
    /// Sends what `fill` writes into a buffer of an Ethernet frame's length, from the socket bound to
    /// `local`; nothing when `fill` gives none.
    fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    );

    /// The same, with a mark for routers, see [`Leg::mark`].
    fn send_marked(
        &mut self,
        _mark: u8,
        local: SocketAddr,
        remote: SocketAddr,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        self.send(local, remote, fill);
    }

    /// Whatever waits to be sent is sent.
    fn flush(&mut self) {}

    /// Whether others than this one may send from the socket bound to `local`.
    fn is_shared(&self, _local: SocketAddr) -> bool {
        false
    }

    /// Does what a session wants with its connection to a TURN server.
    fn link(&mut self, _leg: LegKey, _output: LinkOutput) {}

    /// Sends over that connection the part of a buffer that `fill` returns.
    fn send_link(&mut self, _leg: LegKey, _fill: impl FnOnce(&mut [u8]) -> Option<Range<usize>>) {}

    /// Looks a name up, for [`Machine::handle_resolved`](super::Machine::handle_resolved).
    fn resolve(&mut self, _asker: Asker, _name: String) {}
}

/// The way out for what the router of a pipeline sends. The pipeline is borrowed from the machine
/// already, which a method could not know.
macro_rules! sealed {
    ($machine:ident, $pipeline:ident, $out:ident) => {
        $crate::pipeline::sealed::Sealed {
            legs: &mut $machine.net.legs,
            peers: &$pipeline.peers,
            plain: &mut $machine.net.plain.legs,
            plain_peers: &$pipeline.plain_peers,
            touched: &mut $machine.net.plain.touched,
            out: $out,
            unsent: &mut $machine.dropped.unsent,
        }
    };
}
pub(super) use sealed;

pub(super) fn transmit(
    out: &mut impl Outbox,
    mark: u8,
    local: SocketAddr,
    remote: SocketAddr,
    bytes: &[u8],
) {
    out.send_marked(mark, local, remote, |slot| {
        slot.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(bytes.len())
    });
}
