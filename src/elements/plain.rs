//! The ways of plain RTP in a worker: each has two ports of its own, so that a packet finds its way by
//! the address it arrived at.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use slotmap::SlotMap;

use crate::router::PeerKey;
use crate::transport::plain::Session;
use crate::transport::ports::{PortError, Ports};

use super::{Inbound, Owner, PipelineKey, PlainKey};

/// Bytes of a farewell: a report, a name of 255 bytes at most, a goodbye, and what protects them.
const MAX_FAREWELL: usize = 512;

/// One section of an endpoint with the party of the router at its other end.
pub struct PlainLeg {
    pub session: Session,
    pub owner: Owner,
    /// None until the description of the peer is known.
    pub peer: Option<PeerKey>,
    pub inbound: Inbound,
}

/// All of one worker.
pub struct PlainNet {
    pub legs: SlotMap<PlainKey, PlainLeg>,
    by_local: HashMap<SocketAddr, PlainKey>,
    ports: Ports,
    /// Sessions that have events to tell which no packet of theirs brought.
    pub touched: Vec<PlainKey>,
    /// Names of hosts whose addresses are wanted, for [`Session::handle_resolved`].
    pub questions: Vec<(PlainKey, String)>,
}

impl PlainNet {
    pub fn new(ports: Ports) -> Self {
        let (touched, questions) = (Vec::new(), Vec::new());
        let (legs, by_local) = (SlotMap::with_key(), HashMap::new());
        Self { legs, by_local, ports, touched, questions }
    }

    /// Opens a pair of ports at `ip`.
    ///
    /// # Errors
    /// [`PortError`]
    pub fn open(&mut self, owner: Owner, ip: IpAddr) -> Result<PlainKey, PortError> {
        let pair = self.ports.open(ip)?;
        let (session, inbound) = (Session::new(pair), Inbound::default());
        let key = self.legs.insert(PlainLeg { session, owner, peer: None, inbound });
        self.by_local.extend([(pair.rtp, key), (pair.rtcp, key)]);
        Ok(key)
    }

    /// Says something to the peer by the port of RTCP, if it is known where that is.
    pub fn say(&mut self, key: PlainKey, compound: &[u8]) {
        let Some(leg) = self.legs.get_mut(key) else { return };
        let mut sealed = [0; MAX_FAREWELL];
        if let Some((from, to)) = leg.session.rtcp_path()
            && let Some(len) = leg.session.write_rtcp(compound, &mut sealed)
        {
            self.ports.send(from, to, &sealed[..len]);
        }
    }

    /// Gives the ports back; what still arrives there is for nobody.
    pub fn close(&mut self, key: PlainKey) {
        if let Some(leg) = self.legs.remove(key) {
            let pair = leg.session.pair();
            self.by_local.remove(&pair.rtp);
            self.by_local.remove(&pair.rtcp);
            self.ports.close(pair);
        }
    }

    /// Closes all of a pipeline.
    pub fn close_all(&mut self, pipeline: PipelineKey) {
        let legs = self.legs.iter().filter(|(_, leg)| leg.owner.pipeline == pipeline);
        for key in legs.map(|(key, _)| key).collect::<Vec<_>>() {
            self.close(key);
        }
    }

    /// The session that has that address.
    pub fn find(&self, local: SocketAddr) -> Option<PlainKey> {
        self.by_local.get(&local).copied()
    }
}
