//! The way out for what the router of a pipeline sends: sealed by the session of each party, into a slot
//! of the socket that its datagrams leave from.

use std::net::SocketAddr;

use slotmap::{SecondaryMap, SlotMap};

use super::machine::Outbox;
use crate::elements::{Leg, LegKey, PlainKey, PlainLeg};
use crate::prefetch;
use crate::router::{Egress, Lender, PeerKey, Step, Way};
use crate::transport::path::{self, Path};
use crate::transport::srtp::Sender;
use crate::transport::{HEADROOM, Traffic, plain};

/// What the router sends, sealed by the session of each party on its way out.
pub(super) struct Sealed<'a, O> {
    pub legs: &'a mut SlotMap<LegKey, Leg>,
    pub peers: &'a SecondaryMap<PeerKey, LegKey>,
    pub plain: &'a mut SlotMap<PlainKey, PlainLeg>,
    pub plain_peers: &'a SecondaryMap<PeerKey, PlainKey>,
    /// Ways of plain RTP with something to tell.
    pub touched: &'a mut Vec<PlainKey>,
    pub out: &'a mut O,
    pub unsent: &'a mut u64,
}

impl<O: Outbox> Sealed<'_, O> {
    fn seal(&mut self, to: PeerKey, seal: impl FnOnce(&mut Sender, &mut [u8]) -> Option<usize>) {
        let key = self.peers.get(to).copied();
        let leg = key.and_then(|key| Some((key, self.legs.get_mut(key)?)));
        let mut sealed = None;
        if let Some((key, leg)) = leg
            && let Some((local, remote)) = leg.session.selected()
        {
            let session = &mut leg.session;
            if path::of(local) == Path::Relay {
                self.out.send_link(key, |slot| {
                    let len = seal(session.srtp()?, slot.get_mut(HEADROOM..)?)?;
                    let range = session.wrap(remote, slot, len);
                    sealed = range.is_some().then_some(len);
                    range
                });
            } else if let Some(srtp) = session.srtp() {
                self.out.send_marked(leg.mark, local, remote, |slot| {
                    sealed = seal(srtp, slot);
                    sealed
                });
            }
            if let Some(len) = sealed {
                let sent = Traffic { packets: 1, bytes: len as u64 };
                leg.session.count_sent(local, remote, sent);
            }
        }
        *self.unsent += u64::from(sealed.is_none());
    }

    /// Sends by a way of plain RTP; false when the party has none.
    fn plainly(
        &mut self,
        to: PeerKey,
        path: impl FnOnce(&plain::Session) -> Option<(SocketAddr, SocketAddr)>,
        write: impl FnOnce(&mut plain::Session, &mut [u8]) -> Option<usize>,
    ) -> bool {
        let Some(&key) = self.plain_peers.get(to) else { return false };
        let mut written = false;
        if let Some(leg) = self.plain.get_mut(key)
            && let Some((local, remote)) = path(&leg.session)
        {
            self.out.send(local, remote, |slot| {
                let len = write(&mut leg.session, slot);
                written = len.is_some();
                len
            });
            if leg.session.has_events() {
                self.touched.push(key);
            }
        }
        *self.unsent += u64::from(!written);
        true
    }
}

impl<O: Outbox> Egress for Sealed<'_, O> {
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        let write = |session: &mut plain::Session, slot: &mut [u8]| {
            session.write_rtp(header, payload, index, slot)
        };
        if !self.plainly(to, plain::Session::rtp_path, write) {
            self.seal(to, |srtp, slot| srtp.seal_rtp(header, payload, index, slot).ok());
        }
    }

    fn rtcp(&mut self, to: PeerKey, compound: &[u8]) {
        let write =
            |session: &mut plain::Session, slot: &mut [u8]| session.write_rtcp(compound, slot);
        if !self.plainly(to, plain::Session::rtcp_path, write) {
            self.seal(to, |srtp, slot| srtp.seal_rtcp(compound, slot).ok());
        }
    }

    #[inline]
    fn expect(&mut self, to: PeerKey, step: Step) {
        let Some(leg) = self.peers.get(to).and_then(|key| self.legs.get(*key)) else { return };
        match step {
            Step::Sink => {}
            Step::Party => {
                prefetch::value(&leg.mark);
                leg.session.expect_sending();
            }
            Step::Keys => leg.session.expect_keys(),
            Step::Indices => leg.session.expect_indices(),
        }
    }
}

/// Where a thread sends from that helps with a batch.
pub trait Wire {
    /// As [`Outbox::send_marked`].
    fn send(
        &mut self,
        mark: u8,
        local: SocketAddr,
        remote: SocketAddr,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>,
    );
}

/// The way to one party, while it is lent.
pub struct LentWay {
    sender: Box<Sender>,
    mark: u8,
    local: SocketAddr,
    remote: SocketAddr,
    sent: Traffic,
    unsent: u64,
}

impl LentWay {
    /// Datagrams leave from the socket that is bound to `local`.
    pub fn new(sender: Box<Sender>, mark: u8, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { sender, mark, local, remote, sent: Traffic::default(), unsent: 0 }
    }

    /// What was lent, and what could not be sealed.
    pub fn into_sender(self) -> (Box<Sender>, u64) {
        (self.sender, self.unsent)
    }
}

impl Way for LentWay {
    type Out = dyn Wire;

    fn rtp(&mut self, header: &[u8], payload: &[u8], index: u64, out: &mut Self::Out) {
        let Self { sender, mark, local, remote, sent, unsent } = self;
        let mut sealed = None;
        out.send(*mark, *local, *remote, &mut |slot| {
            sealed = sender.seal_rtp(header, payload, index, slot).ok();
            sealed
        });
        match sealed {
            Some(len) => {
                sent.packets += 1;
                sent.bytes += len as u64;
            }
            None => *unsent += 1,
        }
    }
}

impl<O: Outbox> Lender for Sealed<'_, O> {
    type Way = LentWay;

    fn flush(&mut self) {
        self.out.flush();
    }

    fn lend(&mut self, to: PeerKey) -> Option<LentWay> {
        let leg = self.legs.get_mut(*self.peers.get(to)?)?;
        let (local, remote) = leg.session.selected()?;
        if path::of(local) != Path::Udp || !self.out.is_shared(local) {
            return None;
        }
        Some(LentWay::new(leg.session.lend_srtp()?, leg.mark, local, remote))
    }

    fn give_back(&mut self, to: PeerKey, way: LentWay) {
        let LentWay { sender, local, remote, sent, unsent, .. } = way;
        *self.unsent += unsent;
        let key = self.peers.get(to).copied();
        if let Some(leg) = key.and_then(|key| self.legs.get_mut(key)) {
            leg.session.give_back_srtp(sender);
            leg.session.count_sent(local, remote, sent);
        }
    }
}
