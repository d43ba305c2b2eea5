//! A transport session in use by an element, and how its packets find their source in the router.

use crate::router::{PeerKey, SourceKey};
use crate::transport::webrtc::Session;

use super::{ObjectKey, PipelineKey};

/// Synchronisation sources a peer may use on one transport beyond those that its description names.
const MAX_SSRCS: usize = 32;

/// The object that something of a worker belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    pub pipeline: PipelineKey,
    pub object: ObjectKey,
}

/// One transport session with the party of the router at its other end.
pub struct Leg {
    pub session: Session,
    pub owner: Owner,
    /// None until the description of the peer is known.
    pub peer: Option<PeerKey>,
    pub inbound: Inbound,
    /// How its packets are marked for routers: the byte of the IP header (RFC 2474), 0 for not at all.
    pub mark: u8,
    /// It was said that another session has the pair of addresses which this one would use.
    pub crowded_out: bool,
}

/// Which source a packet belongs to: by SSRC once it is known, before that by payload type.
#[derive(Debug, Default)]
pub struct Inbound {
    by_ssrc: Vec<Stream>,
    by_payload_type: Vec<(u8, SourceKey)>,
}

#[derive(Debug)]
struct Stream {
    ssrc: u32,
    source: SourceKey,
    /// Whether a packet came since the stream was last found silent.
    flowing: bool,
}

/// What [`Inbound::source`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    pub source: SourceKey,
    /// Whether this is the first packet after a silence.
    pub woke: bool,
}

impl Inbound {
    /// Packets with these SSRCs, or else with these payload types, belong to `source`.
    pub fn add(&mut self, source: SourceKey, ssrcs: &[u32], payload_types: &[u8]) {
        for &ssrc in ssrcs {
            self.learn(ssrc, source);
        }
        self.by_payload_type.extend(payload_types.iter().map(|&number| (number, source)));
    }

    fn learn(&mut self, ssrc: u32, source: SourceKey) -> bool {
        let room = self.by_ssrc.len() < MAX_SSRCS;
        if room {
            self.by_ssrc.push(Stream { ssrc, source, flowing: false });
        }
        room
    }

    /// The source of an authenticated packet; none when its payload type was not negotiated.
    pub fn source(&mut self, ssrc: u32, payload_type: u8) -> Option<Found> {
        let known = self.by_payload_type.iter().find(|(number, _)| *number == payload_type);
        let &(_, negotiated) = known?;
        let at = match self.by_ssrc.iter().position(|stream| stream.ssrc == ssrc) {
            Some(at) => at,
            None if self.learn(ssrc, negotiated) => self.by_ssrc.len() - 1,
            None => return None,
        };
        let stream = &mut self.by_ssrc[at];
        let woke = !std::mem::replace(&mut stream.flowing, true);
        Some(Found { source: stream.source, woke })
    }

    /// Lets the next packet of `source` count as the first after a silence.
    pub fn silence(&mut self, source: SourceKey) {
        for stream in self.by_ssrc.iter_mut().filter(|stream| stream.source == source) {
            stream.flowing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn packets_find_their_source_by_ssrc_and_then_by_payload_type() {
        let mut keys: SlotMap<SourceKey, ()> = SlotMap::with_key();
        let (audio, video) = (keys.insert(()), keys.insert(()));
        let mut inbound = Inbound::default();
        inbound.add(audio, &[11], &[111, 0]);
        inbound.add(video, &[], &[96]);
        assert_eq!(inbound.source(11, 111), Some(Found { source: audio, woke: true }));
        assert_eq!(inbound.source(11, 111), Some(Found { source: audio, woke: false }));
        assert_eq!(inbound.source(22, 96), Some(Found { source: video, woke: true }));
        assert_eq!(inbound.source(33, 97), None);
        inbound.silence(audio);
        assert_eq!(inbound.source(11, 0), Some(Found { source: audio, woke: true }));
    }

    #[test]
    fn a_peer_cannot_fill_the_table_of_streams() {
        let mut keys: SlotMap<SourceKey, ()> = SlotMap::with_key();
        let video = keys.insert(());
        let mut inbound = Inbound::default();
        inbound.add(video, &[], &[96]);
        let accepted = (0..1_000).filter(|ssrc| inbound.source(*ssrc, 96).is_some()).count();
        assert_eq!(accepted, MAX_SSRCS);
    }
}
