//! The newest packets of one source, kept once for all its sinks: a ring of bytes and an index by
//! sequence number. Storing a packet copies its payload and allocates nothing, once the ring has
//! grown to hold a second of the stream or to its limit.

use super::source::Place;
use std::time::{Duration, Instant};

/// The ring grows until it holds this much time, or until it holds what new sinks are to get at once.
const RETENTION: Duration = Duration::from_secs(2);
const RETENTION_OF_KEYFRAMES: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A power of two.
    pub packets: usize,
    pub first_bytes: usize,
    pub max_bytes: usize,
    pub retention: Duration,
}

impl Limits {
    pub const VIDEO: Self =
        Self { packets: 1_024, first_bytes: 64 << 10, max_bytes: 512 << 10, retention: RETENTION };
    pub const AUDIO: Self =
        Self { packets: 128, first_bytes: 8 << 10, max_bytes: 64 << 10, retention: RETENTION };

    /// For video of which so many bytes are wanted since its last keyframe.
    pub fn video(keyframe_cache: usize) -> Self {
        if keyframe_cache <= Self::VIDEO.max_bytes / 4 {
            return Self::VIDEO;
        }
        // What is kept besides, for those who miss something; and small packets are many.
        let max_bytes = (keyframe_cache + Self::VIDEO.max_bytes).next_power_of_two();
        let packets = Self::VIDEO.packets * (max_bytes / Self::VIDEO.max_bytes);
        Self { packets, max_bytes, retention: RETENTION_OF_KEYFRAMES, ..Self::VIDEO }
    }
}

/// What is needed to send a packet once more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Kept<'a> {
    pub timestamp: u32,
    pub marker: bool,
    pub format: u8,
    pub place: Place,
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    sequence: u64,
    /// Position in the endless tape of which the ring holds the end.
    at: u64,
    timestamp: u32,
    length: u16,
    format: u8,
    marker: bool,
    place: Place,
}

const EMPTY: Slot = Slot {
    sequence: u64::MAX,
    at: 0,
    timestamp: 0,
    length: 0,
    format: 0,
    marker: false,
    place: Place::UNKNOWN,
};

#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    /// Tape position of the ring's first byte in this lap.
    base: u64,
    /// Where the next payload goes.
    head: u64,
    /// What lies before is overwritten.
    floor: u64,
    lap_started: Option<Instant>,
}

impl History {
    /// Takes no memory before the first packet.
    pub fn new(limits: Limits) -> Self {
        let (slots, bytes) = (Vec::new(), Vec::new());
        Self { limits, slots, bytes, base: 0, head: 0, floor: 0, lap_started: None }
    }

    /// Keeps a packet; one larger than the whole ring may be is not kept.
    pub fn store(&mut self, now: Instant, sequence: u64, packet: Kept<'_>) {
        let Ok(length) = u16::try_from(packet.payload.len()) else { return };
        if !self.make_room(now, usize::from(length)) {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize(self.limits.packets, EMPTY);
        }
        let from = (self.head - self.base) as usize;
        self.bytes[from..from + usize::from(length)].copy_from_slice(packet.payload);
        let slot = self.slot_of(sequence);
        self.slots[slot] = Slot {
            sequence,
            at: self.head,
            timestamp: packet.timestamp,
            length,
            format: packet.format,
            marker: packet.marker,
            place: packet.place,
        };
        self.head += u64::from(length);
        self.floor = self.floor.max(self.head.saturating_sub(self.bytes.len() as u64));
    }

    /// Bytes that it occupies.
    pub fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.bytes.capacity()
    }

    pub fn get(&self, sequence: u64) -> Option<Kept<'_>> {
        let slot = self.slots.get(self.slot_of(sequence))?;
        if slot.sequence != sequence || slot.at < self.floor {
            return None;
        }
        let lap =
            if slot.at >= self.base { self.base } else { self.base - self.bytes.len() as u64 };
        let from = (slot.at - lap) as usize;
        Some(Kept {
            timestamp: slot.timestamp,
            marker: slot.marker,
            format: slot.format,
            place: slot.place,
            payload: &self.bytes[from..from + usize::from(slot.length)],
        })
    }

    fn slot_of(&self, sequence: u64) -> usize {
        sequence as usize & (self.limits.packets - 1)
    }

    /// Makes the next `length` bytes of the tape one piece of the ring: by growing it while the
    /// stream fills it too fast, else by starting over at its first byte.
    fn make_room(&mut self, now: Instant, length: usize) -> bool {
        let fits =
            |history: &Self| (history.head - history.base) as usize + length <= history.bytes.len();
        if fits(self) {
            return true;
        }
        let started = *self.lap_started.get_or_insert(now);
        let size = self.bytes.len();
        let wanted = match size {
            0 => self.limits.first_bytes,
            _ if now.saturating_duration_since(started) < self.limits.retention => 2 * size,
            _ => size,
        };
        let wanted = wanted.max(length.next_power_of_two()).min(self.limits.max_bytes).max(size);
        if length > wanted {
            return false;
        }
        if wanted > size {
            // The previous lap is all overwritten by now; positions of this one stay right.
            self.floor = self.floor.max(self.base);
            self.bytes.resize(wanted, 0);
            if fits(self) {
                return true;
            }
        }
        self.base += self.bytes.len() as u64;
        self.head = self.base;
        self.lap_started = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
    fn start() -> Instant {
        Instant::now()
    }

    const SMALL: Limits =
        Limits { packets: 16, first_bytes: 64, max_bytes: 512, retention: RETENTION };

    fn packet(sequence: u64, payload: &[u8]) -> Kept<'_> {
        Kept {
            timestamp: sequence as u32 * 3,
            marker: sequence.is_multiple_of(2),
            format: 1,
            place: Place::default(),
            payload,
        }
    }

    #[test]
    fn a_packet_too_large_for_the_ring_is_not_kept() {
        let (now, mut history) = (start(), History::new(SMALL));
        history.store(now, 1, packet(1, &[1; 100]));
        history.store(now, 2, packet(2, &[2; 513]));
        assert_eq!(history.get(1), Some(packet(1, &[1; 100])));
        assert_eq!(history.get(2), None);
    }

    #[test]
    fn a_slow_stream_leaves_the_ring_small() {
        let (mut now, mut history) = (start(), History::new(SMALL));
        for sequence in 0..100 {
            history.store(now, sequence, packet(sequence, &[0; 10]));
            now += Duration::from_millis(500);
        }
        assert_eq!(history.bytes.len(), 64);
        assert!((94..100).all(|sequence| history.get(sequence).is_some()));
    }

    proptest! {
        /// What is found is what was stored, and what fits the ring is found.
        #[test]
        fn the_ring_agrees_with_a_list(
            packets in vec((0usize..120, 0u64..60, prop::bool::weighted(0.2)), 1..200),
        ) {
            let (mut now, mut history) = (start(), History::new(SMALL));
            let mut stored: Vec<(u64, Vec<u8>)> = Vec::new();
            let mut next = 100;
            for (length, ms, skip) in packets {
                now += Duration::from_millis(ms);
                next += 1 + u64::from(skip);
                let payload = vec![next as u8; length];
                history.store(now, next, packet(next, &payload));
                stored.push((next, payload));
                let mut newer = 0;
                for (sequence, payload) in stored.iter().rev() {
                    let found = history.get(*sequence);
                    newer += payload.len() + 120; // What a lap's end may waste.
                    if newer <= history.bytes.len() && next - sequence < 16 {
                        prop_assert!(found.is_some());
                    }
                    if let Some(found) = found {
                        prop_assert_eq!(found, packet(*sequence, payload));
                    }
                }
            }
        }
    }
}
