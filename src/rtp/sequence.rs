//! Numbers that wrap on the wire, unwrapped: sequence numbers of 16 bits and timestamps of 32 bits
//! become 64-bit ones (the guess of RFC 3711 appendix A), and a window over them tells what was
//! already here.

/// 16-bit sequence numbers to 64 bits: each is taken as the nearest to the highest so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper {
    highest: Option<u64>,
}

impl Unwrapper {
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// The first number lands in the second cycle, so that earlier ones have a place below it.
    pub fn unwrap(&mut self, sequence: u16) -> u64 {
        let value = self.peek(sequence);
        self.highest = self.highest.max(Some(value));
        value
    }

    /// What [`Self::unwrap`] would say, without taking it in.
    pub fn peek(&self, sequence: u16) -> u64 {
        match self.highest {
            None => (1 << 16) | u64::from(sequence),
            Some(highest) => nearest(highest, sequence),
        }
    }

    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// The 64-bit number nearest to `reference` whose low 16 bits are `sequence`.
pub fn nearest(reference: u64, sequence: u16) -> u64 {
    let step = sequence.wrapping_sub(reference as u16) as i16;
    let near = reference.wrapping_add_signed(i64::from(step));
    // Below zero there is nothing: a number that would land there is one of the first cycle.
    if step < 0 && near > reference { u64::from(sequence) } else { near }
}

/// 32-bit timestamps to 64 bits, by the same guess.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampUnwrapper {
    highest: Option<u64>,
}

impl TimestampUnwrapper {
    pub fn unwrap(&mut self, timestamp: u32) -> u64 {
        let value = match self.highest {
            None => (1 << 32) | u64::from(timestamp),
            Some(highest) => {
                let step = timestamp.wrapping_sub(highest as u32) as i32;
                highest.saturating_add_signed(i64::from(step))
            }
        };
        self.highest = self.highest.max(Some(value));
        value
    }
}

/// How many numbers back a [`Seen`] window remembers.
pub const WINDOW: u64 = 2_048;
const WORDS: usize = (WINDOW / 64) as usize;

/// Which of the newest [`WINDOW`] numbers have been here.
#[derive(Clone, Debug)]
pub struct Seen {
    highest: Option<u64>,
    words: [u64; WORDS],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sighting {
    /// Higher than all before.
    Newest,
    /// Below the highest, and not here before.
    Late,
    Duplicate,
    /// Below the window: nobody knows.
    TooOld,
}

impl Default for Seen {
    fn default() -> Self {
        Self { highest: None, words: [0; WORDS] }
    }
}

impl Seen {
    pub fn see(&mut self, number: u64) -> Sighting {
        let sighting = match self.highest {
            None => Sighting::Newest,
            Some(highest) if number > highest => {
                self.clear_between(highest, number);
                Sighting::Newest
            }
            Some(highest) if number + WINDOW <= highest => return Sighting::TooOld,
            Some(_) if self.words[word(number)] & bit(number) != 0 => return Sighting::Duplicate,
            Some(_) => Sighting::Late,
        };
        self.highest = self.highest.max(Some(number));
        self.words[word(number)] |= bit(number);
        sighting
    }

    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    fn clear_between(&mut self, old: u64, new: u64) {
        if new - old >= WINDOW {
            self.words = [0; WORDS];
            return;
        }
        for number in old + 1..=new {
            self.words[word(number)] &= !bit(number);
        }
    }
}

const fn word(number: u64) -> usize {
    (number / 64) as usize % WORDS
}

const fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeSet;

    #[test]
    fn a_wrap_counts_a_cycle_and_reordering_around_it_does_not() {
        let mut unwrapper = Unwrapper::new();
        let seen = [65_534, 65_535, 1, 0, 65_533, 2].map(|number| unwrapper.unwrap(number));
        assert_eq!(seen, [0x1fffe, 0x1ffff, 0x20001, 0x20000, 0x1fffd, 0x20002]);
    }

    #[test]
    fn nothing_lies_below_zero() {
        assert_eq!(nearest(3, 65_535), 65_535);
        assert_eq!(nearest(65_536, 65_535), 65_535);
    }

    #[test]
    fn timestamps_wrap_too() {
        let mut unwrapper = TimestampUnwrapper::default();
        let first = unwrapper.unwrap(u32::MAX - 10);
        assert_eq!(unwrapper.unwrap(20) - first, 31);
        assert_eq!(first - unwrapper.unwrap(u32::MAX - 11), 1);
    }

    proptest! {
        #[test]
        fn unwrapping_never_loses_a_cycle(start: u16, steps in vec(-30_000i64..30_000, 1..500)) {
            let mut unwrapper = Unwrapper::new();
            let mut highest = unwrapper.unwrap(start);
            for step in steps {
                let number = highest.saturating_add_signed(step);
                prop_assert_eq!(unwrapper.unwrap(number as u16), number);
                highest = highest.max(number);
            }
        }

        #[test]
        fn the_window_agrees_with_a_set(numbers in vec(0u64..6_000, 1..800)) {
            let (mut seen, mut set) = (Seen::default(), BTreeSet::new());
            for number in numbers {
                let highest = set.last().copied();
                let expected = match highest {
                    Some(highest) if number + WINDOW <= highest => Sighting::TooOld,
                    Some(_) if set.contains(&number) => Sighting::Duplicate,
                    Some(highest) if number < highest => Sighting::Late,
                    _ => Sighting::Newest,
                };
                set.insert(number);
                prop_assert_eq!(seen.see(number), expected);
            }
        }
    }
}
