//! A transport session in use by an element, and how its packets find their source in the router.

use crate::router::{PeerKey, SourceKey};
use crate::rtp::{Extension, Extensions, RtpPacket};
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

/// Which source a packet belongs to: by SSRC once it is known, before that by the name of the encoding
/// that it says (RFC 8852), or by payload type.
#[derive(Debug, Default)]
pub struct Inbound {
    by_ssrc: Vec<Stream>,
    /// No source where only SSRC or name tell.
    by_payload_type: Vec<(u8, Option<SourceKey>)>,
    named: Vec<Named>,
}

#[derive(Debug)]
struct Stream {
    ssrc: u32,
    source: SourceKey,
    /// Whether a packet came since the stream was last found silent.
    flowing: bool,
}

/// An encoding with a name.
#[derive(Debug)]
struct Named {
    section: Option<Box<[u8]>>,
    rid: Box<[u8]>,
    source: SourceKey,
    /// The numbers of the header extensions that say section and name, and the name of what is sent
    /// again.
    extensions: [Option<u8>; 3],
}

/// What is known of a stream before it comes.
#[derive(Clone, Debug)]
pub struct Announced {
    pub source: SourceKey,
    /// Of media and of what is sent again.
    pub ssrcs: Vec<u32>,
    pub rid: Option<String>,
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
        self.by_payload_type.extend(payload_types.iter().map(|&number| (number, Some(source))));
    }

    /// Packets of a section belong to one of its encodings, by SSRC or by name. What says neither belongs
    /// to none.
    pub fn add_encodings(
        &mut self,
        encodings: &[Announced],
        section: Option<&str>,
        extensions: &Extensions,
        payload_types: &[u8],
    ) {
        self.by_payload_type.extend(payload_types.iter().map(|&number| (number, None)));
        let known = [Extension::Mid, Extension::StreamId, Extension::RepairedStreamId];
        let extensions = known.map(|extension| extensions.get(extension));
        for Announced { source, ssrcs, rid } in encodings {
            for &ssrc in ssrcs {
                self.learn(ssrc, *source);
            }
            self.named.extend(rid.as_deref().map(|rid| Named {
                section: section.map(|section| section.as_bytes().into()),
                rid: rid.as_bytes().into(),
                source: *source,
                extensions,
            }));
        }
    }

    fn learn(&mut self, ssrc: u32, source: SourceKey) -> bool {
        let room = self.by_ssrc.len() < MAX_SSRCS;
        if room {
            self.by_ssrc.push(Stream { ssrc, source, flowing: false });
        }
        room
    }

    /// The source of an authenticated packet; none when its payload type was not negotiated, or it does
    /// not say which of several encodings it belongs to.
    pub fn source(&mut self, packet: &RtpPacket<'_>) -> Option<Found> {
        let known = self.by_payload_type.iter().find(|(number, _)| *number == packet.payload_type);
        let &(_, negotiated) = known?;
        let at = match self.by_ssrc.iter().position(|stream| stream.ssrc == packet.ssrc) {
            Some(at) => at,
            None => {
                let source = negotiated.or_else(|| self.named(packet))?;
                self.learn(packet.ssrc, source).then(|| self.by_ssrc.len() - 1)?
            }
        };
        let stream = &mut self.by_ssrc[at];
        let woke = !std::mem::replace(&mut stream.flowing, true);
        Some(Found { source: stream.source, woke })
    }

    #[cold]
    fn named(&self, packet: &RtpPacket<'_>) -> Option<SourceKey> {
        let says = |number: Option<u8>| packet.extension(number?);
        let is_it = |named: &&Named| {
            let [section, rid, repaired] = named.extensions;
            let elsewhere =
                says(section).is_some_and(|says| Some(says) != named.section.as_deref());
            let name = says(repaired).or_else(|| says(rid));
            !elsewhere && name == Some(&*named.rid)
        };
        self.named.iter().find(is_it).map(|named| named.source)
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

    /// A packet with header extensions in the one-byte form.
    fn bytes(ssrc: u32, payload_type: u8, extensions: &[(u8, &str)]) -> Vec<u8> {
        let mut elements = Vec::new();
        for (number, content) in extensions {
            elements.push(number << 4 | (content.len() - 1) as u8);
            elements.extend(content.as_bytes());
        }
        elements.resize(elements.len().next_multiple_of(4), 0);
        let mut bytes = vec![0x90, payload_type, 0, 1, 0, 0, 0, 0];
        bytes.extend(ssrc.to_be_bytes());
        bytes.extend([0xbe, 0xde, 0, (elements.len() / 4) as u8]);
        bytes.extend(elements);
        bytes
    }

    fn found(inbound: &mut Inbound, ssrc: u32, number: u8, said: &[(u8, &str)]) -> Option<Found> {
        inbound.source(&RtpPacket::parse(&bytes(ssrc, number, said)).expect("a packet"))
    }

    #[test]
    fn packets_find_their_source_by_ssrc_and_then_by_payload_type() {
        let mut keys: SlotMap<SourceKey, ()> = SlotMap::with_key();
        let (audio, video) = (keys.insert(()), keys.insert(()));
        let mut inbound = Inbound::default();
        inbound.add(audio, &[11], &[111, 0]);
        inbound.add(video, &[], &[96]);
        let found = |inbound: &mut Inbound, ssrc, number| found(inbound, ssrc, number, &[]);
        assert_eq!(found(&mut inbound, 11, 111), Some(Found { source: audio, woke: true }));
        assert_eq!(found(&mut inbound, 11, 111), Some(Found { source: audio, woke: false }));
        assert_eq!(found(&mut inbound, 22, 96), Some(Found { source: video, woke: true }));
        assert_eq!(found(&mut inbound, 33, 97), None);
        inbound.silence(audio);
        assert_eq!(found(&mut inbound, 11, 0), Some(Found { source: audio, woke: true }));
    }

    /// Two encodings, by the names `q` and `h`.
    fn encodings() -> (Inbound, SourceKey, SourceKey) {
        let mut keys: SlotMap<SourceKey, ()> = SlotMap::with_key();
        let (quarter, half) = (keys.insert(()), keys.insert(()));
        let announced = [(quarter, "q"), (half, "h")].map(|(source, rid)| Announced {
            source,
            ssrcs: Vec::new(),
            rid: Some(rid.to_owned()),
        });
        let mut agreed = Extensions::default();
        let numbers =
            [(Extension::Mid, 4), (Extension::StreamId, 5), (Extension::RepairedStreamId, 6)];
        assert!(numbers.iter().all(|&(extension, number)| agreed.set(extension, number)));
        let mut inbound = Inbound::default();
        inbound.add_encodings(&announced, Some("1"), &agreed, &[96, 97]);
        (inbound, quarter, half)
    }

    #[test]
    fn encodings_are_told_apart_by_name_until_their_ssrc_is_known() {
        let (mut inbound, quarter, half) = encodings();
        let mut source = |ssrc, number, said: &[(u8, &str)]| {
            found(&mut inbound, ssrc, number, said).map(|found| found.source)
        };
        assert_eq!(source(1, 96, &[]), None, "nobody knows yet");
        assert_eq!(source(1, 96, &[(4, "1"), (5, "q")]), Some(quarter));
        assert_eq!(source(1, 96, &[]), Some(quarter));
        assert_eq!(source(2, 96, &[(5, "h")]), Some(half));
        assert_eq!(source(3, 97, &[(4, "1"), (6, "h")]), Some(half), "what is sent again");
        assert_eq!(source(4, 96, &[(4, "0"), (5, "q")]), None, "another section");
        assert_eq!(source(4, 96, &[(5, "f")]), None, "a name that was not agreed on");
    }

    #[test]
    fn names_cannot_fill_the_table_of_streams() {
        let (mut inbound, quarter, _) = encodings();
        let strangers =
            (100..1_100).filter(|ssrc| found(&mut inbound, *ssrc, 96, &[(5, "z")]).is_some());
        assert_eq!(strangers.count(), 0);
        let known =
            (100..1_100).filter(|ssrc| found(&mut inbound, *ssrc, 96, &[(5, "q")]).is_some());
        assert_eq!(known.count(), MAX_SSRCS);
        assert_eq!(found(&mut inbound, 100, 96, &[]).map(|found| found.source), Some(quarter));
    }

    #[test]
    fn a_peer_cannot_fill_the_table_of_streams() {
        let mut keys: SlotMap<SourceKey, ()> = SlotMap::with_key();
        let video = keys.insert(());
        let mut inbound = Inbound::default();
        inbound.add(video, &[], &[96]);
        let accepted =
            (0..1_000).filter(|ssrc| found(&mut inbound, *ssrc, 96, &[]).is_some()).count();
        assert_eq!(accepted, MAX_SSRCS);
    }
}
