//! What a sink notes about the packets it sent, so that they can be sent again.
//!
//! For most it is enough that they left, which is a bit: what is sent again on a stream of its own gets a
//! header of its own, and few packets are changed on their way. The rest is kept for sinks that need
//! it, from the first packet on that does. Once that has grown nothing is allocated.

use super::Changes;
use crate::prefetch;
use crate::rtp::AbsSendTime;

/// Times are kept to this, in ms: half a round trip is told well enough, and they wrap after minutes.
const TIME_UNIT: u32 = 2;
/// No longer pause can be told.
const LONGEST_PAUSE: u32 = 60_000;

/// How a packet left.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Sent {
    pub abs_send_time: AbsSendTime,
    pub transport_sequence: u16,
    pub changes: Changes,
}

/// What is known of an index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Noted {
    /// Nothing left under it.
    Unsent,
    Sent(Sent),
    /// It is so far back that nobody knows.
    Forgotten,
}

/// What a header said that is the same each time it is sent.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    abs_send_time: [u8; 3],
    transport_sequence: [u8; 2],
}

#[derive(Debug)]
pub(super) struct Notes {
    /// How many indices are told apart, a power of two.
    capacity: u32,
    /// Whether headers have to be known.
    exact: bool,
    /// One above the highest index that left.
    next: u64,
    /// A bit for each index that left. None before the first packet, as all of these.
    left: Vec<u64>,
    headers: Vec<Header>,
    /// When it was sent again the last time, see [`time`]; none before something was.
    repeated: Vec<u16>,
    /// None before something was changed.
    changes: Vec<Changes>,
}

impl Notes {
    /// Takes no memory before the first packet. With `exact` it is known what the headers said.
    pub fn new(capacity: u32, exact: bool) -> Self {
        Self {
            capacity: capacity.next_power_of_two().max(64),
            exact,
            next: 0,
            left: Vec::new(),
            headers: Vec::new(),
            repeated: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Bytes that it occupies.
    pub fn memory(&self) -> usize {
        self.left.capacity() * size_of::<u64>()
            + self.headers.capacity() * size_of::<Header>()
            + self.repeated.capacity() * size_of::<u16>()
            + self.changes.capacity() * size_of::<Changes>()
    }

    /// This index is next.
    #[inline]
    pub fn expect(&self, index: u64) {
        prefetch::element(&self.left, self.slot(index) / 64);
        prefetch::element(&self.headers, self.slot(index));
    }

    /// A packet leaves for the first time.
    #[inline]
    pub fn note(&mut self, index: u64, sent: Sent) {
        if self.left.is_empty() {
            self.begin();
        }
        if index >= self.next {
            self.pass_to(index);
        } else if self.is_forgotten(index) {
            // A packet later than the notes reach must not push a newer one out.
            return;
        }
        let slot = self.slot(index);
        self.left[slot / 64] |= 1 << (slot % 64);
        if self.exact {
            let [_, time @ ..] = sent.abs_send_time.bits().to_be_bytes();
            let transport_sequence = sent.transport_sequence.to_be_bytes();
            self.headers[slot] = Header { abs_send_time: time, transport_sequence };
        }
        if let Some(at) = self.repeated.get_mut(slot) {
            *at = 0;
        }
        if self.changes.is_empty() && sent.changes != Changes::default() {
            self.changes = vec![Changes::default(); self.capacity as usize];
        }
        if let Some(changes) = self.changes.get_mut(slot) {
            *changes = sent.changes;
        }
    }

    /// Whether a packet with this index left, or one that took its place since.
    #[inline]
    pub fn was_sent(&self, index: u64) -> bool {
        index < self.next && (self.is_forgotten(index) || self.has(index))
    }

    pub fn noted(&self, index: u64) -> Noted {
        if index >= self.next {
            return Noted::Unsent;
        }
        if self.is_forgotten(index) {
            return Noted::Forgotten;
        }
        if !self.has(index) {
            return Noted::Unsent;
        }
        let slot = self.slot(index);
        let header = self.headers.get(slot).copied().unwrap_or_default();
        let [high, middle, low] = header.abs_send_time;
        Noted::Sent(Sent {
            abs_send_time: AbsSendTime::from_bits(u32::from_be_bytes([0, high, middle, low])),
            transport_sequence: u16::from_be_bytes(header.transport_sequence),
            changes: self.changes.get(slot).copied().unwrap_or_default(),
        })
    }

    /// Whether a packet that left was sent again less than `pause` ago, all in ms.
    pub fn was_repeated(&self, index: u64, ms: u32, pause: u32) -> bool {
        let Some(&at) = self.repeated.get(self.slot(index)) else { return false };
        let since = u32::from(time(ms).wrapping_sub(at)) * TIME_UNIT;
        at != 0 && since < pause.min(LONGEST_PAUSE)
    }

    /// A packet that left is sent again.
    pub fn repeat(&mut self, index: u64, ms: u32) {
        if self.repeated.is_empty() {
            self.repeated = vec![0; self.capacity as usize];
        }
        let slot = self.slot(index);
        self.repeated[slot] = time(ms);
    }

    #[cold]
    fn begin(&mut self) {
        self.left = vec![0; self.capacity as usize / 64];
        if self.exact {
            self.headers = vec![Header::default(); self.capacity as usize];
        }
    }

    /// `index` becomes the highest: nothing left under those before it that are not noted.
    #[inline]
    fn pass_to(&mut self, index: u64) {
        let from = self.next.max((index + 1).saturating_sub(self.capacity.into()));
        for passed in from..=index {
            let slot = self.slot(passed);
            self.left[slot / 64] &= !(1 << (slot % 64));
        }
        self.next = index + 1;
    }

    fn is_forgotten(&self, index: u64) -> bool {
        index + u64::from(self.capacity) < self.next
    }

    fn has(&self, index: u64) -> bool {
        let slot = self.slot(index);
        self.left.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn slot(&self, index: u64) -> usize {
        index as usize & (self.capacity as usize - 1)
    }
}

/// Never zero, which says that it never was.
fn time(ms: u32) -> u16 {
    ((ms / TIME_UNIT) as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    fn sent(number: u16) -> Sent {
        Sent {
            abs_send_time: AbsSendTime::from_bits(number.into()),
            transport_sequence: number,
            changes: Changes::default(),
        }
    }

    #[test]
    fn a_packet_beyond_the_notes_is_forgotten_and_not_taken_for_a_newer_one() {
        let mut notes = Notes::new(64, true);
        assert_eq!(notes.noted(1_000), Noted::Unsent);
        for index in 1_000..1_064 {
            notes.note(index, sent(index as u16));
        }
        assert_eq!(notes.noted(1_000), Noted::Sent(sent(1_000)));
        notes.note(1_064, sent(1_064));
        assert_eq!((notes.noted(1_000), notes.was_sent(1_000)), (Noted::Forgotten, true));
        notes.note(1_000, sent(7));
        assert_eq!(notes.noted(1_064), Noted::Sent(sent(1_064)));
    }

    #[test]
    fn what_was_passed_over_is_unsent_and_has_its_place() {
        let mut notes = Notes::new(64, true);
        notes.note(10, sent(10));
        notes.note(200, sent(200));
        assert_eq!((notes.noted(199), notes.was_sent(199)), (Noted::Unsent, false));
        assert_eq!(notes.noted(138), Noted::Unsent, "not 10, which had its place");
        notes.note(138, sent(138));
        assert_eq!(notes.noted(138), Noted::Sent(sent(138)));
    }

    #[test]
    fn a_pause_counts_from_the_last_repetition_of_the_same_packet() {
        let mut notes = Notes::new(64, false);
        notes.note(5, sent(5));
        assert!(!notes.was_repeated(5, 1_000, 20));
        notes.repeat(5, 1_000);
        assert!(notes.was_repeated(5, 1_010, 20));
        assert!(!notes.was_repeated(5, 1_024, 20));
        assert!(!notes.was_repeated(6, 1_010, 20));
        notes.note(69, sent(69));
        assert!(!notes.was_repeated(69, 1_010, 20));
    }

    #[test]
    fn most_sinks_need_a_bit_for_each_packet() {
        let mut notes = Notes::new(1_024, false);
        assert_eq!(notes.memory(), 0);
        for index in 0..5_000 {
            notes.note(index, sent(1));
        }
        assert_eq!(notes.memory(), 128);
    }

    proptest! {
        /// As a map that remembers all would tell it.
        #[test]
        fn notes_tell_what_was_noted(steps in vec((0u64..200, any::<u16>()), 1..400)) {
            let (mut notes, mut all, mut highest) = (Notes::new(64, true), BTreeMap::new(), 0);
            for (step, number) in steps {
                // Mostly near the highest, before and behind it.
                let index = (highest + step % 80).saturating_sub(70) + u64::from(step > 190) * 500;
                if !notes.was_sent(index) {
                    notes.note(index, sent(number));
                    all.insert(index, number);
                    highest = highest.max(index);
                }
            }
            for index in highest.saturating_sub(63)..=highest {
                let told = all.get(&index).map_or(Noted::Unsent, |number| Noted::Sent(sent(*number)));
                prop_assert_eq!(notes.noted(index), told);
            }
        }
    }
}
