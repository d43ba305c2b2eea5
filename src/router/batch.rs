//! Packets that arrived together, on their way from sources to sinks.
//!
//! Sources take all packets of a batch in first. Then each sink gets all that are for it, one after the
//! other: what is known of it is fetched into the cache once, and what leaves to one party leaves together.
//! The payloads are copied here, once for all sinks, for the places they arrived at are used again.

use super::{SourceKey, clock::Stamp, source::Arrival};
use std::{ops::Range, sync::Arc};

/// So many packets wait at most before they go on.
pub(super) const MOST: usize = 64;
const NONE: u16 = u16::MAX;

/// What sinks need to know of the packets, and nothing that changes: it may be read by several threads.
#[derive(Debug, Default)]
pub(super) struct Packets {
    list: Vec<Packet>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Packet {
    pub arrival: Arrival,
    pub stamp: Stamp,
    /// The highest number that sinks had seen of the source when it came.
    pub newest: u64,
    payload: Range<usize>,
    /// The next one of the same source.
    next: u16,
}

/// The packets of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub source: SourceKey,
    pub first: u16,
    last: u16,
    pub packets: u16,
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    packets: Arc<Packets>,
    groups: Vec<Group>,
}

impl Batch {
    /// Whether the next packet has to wait until these have gone on.
    pub fn is_full(&self) -> bool {
        self.packets.list.len() >= MOST
    }

    pub fn push(
        &mut self,
        source: SourceKey,
        arrival: Arrival,
        stamp: Stamp,
        newest: u64,
        payload: &[u8],
    ) {
        let packets = self.own();
        let number = packets.list.len() as u16;
        let start = packets.bytes.len();
        packets.bytes.extend_from_slice(payload);
        let payload = start..packets.bytes.len();
        packets.list.push(Packet { arrival, stamp, newest, payload, next: NONE });
        // Packets of one source mostly come one after the other.
        match self.groups.iter_mut().rev().find(|group| group.source == source) {
            Some(group) => {
                let last = std::mem::replace(&mut group.last, number);
                group.packets += 1;
                self.own().list[usize::from(last)].next = number;
            }
            None => self.groups.push(Group { source, first: number, last: number, packets: 1 }),
        }
    }

    /// All there is, to go on.
    pub fn begin(&mut self) -> (Arc<Packets>, Vec<Group>) {
        (self.packets.clone(), std::mem::take(&mut self.groups))
    }

    /// All packets went on, and nobody has them any more.
    pub fn end(&mut self, mut groups: Vec<Group>) {
        groups.clear();
        self.groups = groups;
        let packets = self.own();
        packets.list.clear();
        packets.bytes.clear();
    }

    fn own(&mut self) -> &mut Packets {
        if Arc::get_mut(&mut self.packets).is_none() {
            // Somebody failed and keeps them.
            self.packets = Arc::default();
        }
        Arc::get_mut(&mut self.packets).expect("packets that nobody else has")
    }
}

impl Packets {
    /// The packets of a group from one of them on, with their places.
    pub fn from(&self, first: u16) -> impl Iterator<Item = (u16, &Packet)> {
        let mut next = first;
        std::iter::from_fn(move || {
            let place = next;
            let packet = self.list.get(usize::from(place))?;
            next = packet.next;
            Some((place, packet))
        })
    }

    /// The place behind this one in its group; there may be nothing.
    pub fn after(&self, place: u16) -> u16 {
        self.list.get(usize::from(place)).map_or(NONE, |packet| packet.next)
    }

    pub fn payload(&self, packet: &Packet) -> &[u8] {
        &self.bytes[packet.payload.clone()]
    }
}
