//! What reaches a session otherwise than by a datagram of its peer: by way of its TURN server, and from
//! whoever looks names up.

use std::net::IpAddr;

use super::{Machine, Outbox};
use crate::elements::{Asker, LegKey, Moment};

impl Machine {
    /// A message of the TURN server of a session arrived.
    pub fn handle_link(
        &mut self,
        at: Moment,
        key: LegKey,
        bytes: &mut [u8],
        out: &mut impl Outbox,
    ) {
        let Some(leg) = self.net.legs.get_mut(key) else { return };
        self.at_work = Some(leg.owner.pipeline);
        match leg.session.handle_link(at.now, bytes) {
            Ok(Some((local, remote, range))) => {
                self.handle_of(at, key, local, remote, &mut bytes[range], out);
            }
            Ok(None) => {}
            Err(reason) => {
                *self.dropped_by_transport.entry(reason.as_str()).or_default() += 1;
            }
        }
        self.net.touched.push(key);
        self.settle(at, out);
    }

    /// The connection of a session to its TURN server opened, or is lost.
    pub fn handle_link_state(
        &mut self,
        at: Moment,
        key: LegKey,
        open: bool,
        out: &mut impl Outbox,
    ) {
        let Some(leg) = self.net.legs.get_mut(key) else { return };
        self.at_work = Some(leg.owner.pipeline);
        if open {
            leg.session.handle_link_open(at.now);
        } else {
            leg.session.handle_link_lost(at.now);
        }
        self.net.touched.push(key);
        self.settle(at, out);
    }

    /// A name that a session asked about was looked up.
    pub fn handle_resolved(
        &mut self,
        at: Moment,
        asker: Asker,
        ip: Option<IpAddr>,
        out: &mut impl Outbox,
    ) {
        match asker {
            Asker::Session(key, number) => {
                let Some(leg) = self.net.legs.get_mut(key) else { return };
                self.at_work = Some(leg.owner.pipeline);
                leg.session.handle_resolved(at.now, number, ip);
                self.net.touched.push(key);
            }
            Asker::Plain(key) => {
                let Some(leg) = self.net.plain.legs.get_mut(key) else { return };
                self.at_work = Some(leg.owner.pipeline);
                leg.session.handle_resolved(ip);
                self.net.plain.touched.push(key);
            }
        }
        self.settle(at, out);
    }
}
