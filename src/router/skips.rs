//! Numbers that nobody behind is to miss: padding, what was not negotiated, and layers that a sink does
//! not take leave no hole in the sequence.

use crate::prefetch;
use std::collections::VecDeque;

/// Numbers of the sender to numbers without those left out, as pieces of equal shift. Late packets can
/// be related to the last `N` places where numbers were left out.
#[derive(Debug, Default)]
pub(super) struct Skips<const N: usize> {
    /// From this number on, the shift that is added.
    pieces: VecDeque<(u64, u64)>,
    /// Where the next generation begins.
    pub next: u64,
}

impl<const N: usize> Skips<N> {
    /// The sequence starts anew with `number`.
    pub fn begin(&mut self, number: u64) {
        self.pieces.clear();
        self.pieces.push_back((number, self.next.wrapping_sub(number)));
    }

    /// A number is next, and mostly it belongs to the last piece.
    #[inline]
    pub fn expect(&self) {
        if let Some(piece) = self.pieces.back() {
            prefetch::value(piece);
        }
    }

    pub fn apply(&self, number: u64) -> Option<u64> {
        let (_, shift) = self.pieces.iter().rev().find(|(from, _)| *from <= number)?;
        Some(number.wrapping_add(*shift))
    }

    /// The number that became `applied`, unless that is beyond what can be told.
    pub fn invert(&self, applied: u64) -> Option<u64> {
        let starts = |&(from, shift): &(u64, u64)| from.wrapping_add(shift) <= applied;
        let (_, shift) = self.pieces.iter().rev().find(|piece| starts(piece))?;
        Some(applied.wrapping_sub(*shift))
    }

    /// Leaves `number` out, the highest so far.
    pub fn skip(&mut self, number: u64) {
        match self.pieces.back_mut() {
            Some(piece) if piece.0 == number => {
                *piece = (number + 1, piece.1.wrapping_sub(1));
            }
            Some(&mut (_, shift)) => {
                if self.pieces.len() == N {
                    self.pieces.pop_front();
                }
                self.pieces.push_back((number + 1, shift.wrapping_sub(1)));
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_left_out_close_up_and_late_ones_keep_their_place() {
        let mut skips = Skips::<4>::default();
        skips.begin(10);
        let base = skips.apply(10).unwrap();
        // 11 is lost, 12 to 13 are padding, 14 is media, 16 padding.
        skips.skip(12);
        skips.skip(13);
        assert_eq!(skips.apply(11), Some(base + 1));
        assert_eq!(skips.apply(14), Some(base + 2));
        skips.skip(16);
        assert_eq!(skips.apply(15), Some(base + 3));
        assert_eq!(skips.apply(17), Some(base + 4));
        assert_eq!(skips.apply(9), None);
    }
    #[test]
    fn what_was_applied_can_be_inverted_and_is_forgotten_in_the_end() {
        let mut skips = Skips::<4> { next: 10, ..Skips::default() };
        skips.begin(10);
        for number in [12, 13, 16, 20] {
            skips.skip(number);
        }
        for number in [10, 11, 14, 15, 17, 18, 19, 21, 22] {
            assert_eq!(skips.apply(number).and_then(|one| skips.invert(one)), Some(number));
        }
        skips.skip(30);
        assert_eq!((skips.apply(11), skips.invert(11)), (None, None));
        assert_eq!(skips.apply(31), Some(26));
    }
}
