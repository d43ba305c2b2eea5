//! Numbers that nobody behind the router is to miss: padding and what was not negotiated leave no
//! hole in the sequence that sinks see.

use std::collections::VecDeque;

/// Places where numbers were left out that late packets can still be related to.
const MAX_SKIPS: usize = 32;

/// Numbers of the sender to numbers without those left out, as pieces of equal shift.
#[derive(Debug, Default)]
pub(super) struct Skips {
    /// From this number on, the shift that is added.
    pieces: VecDeque<(u64, u64)>,
    /// Where the next generation begins.
    pub next: u64,
}

impl Skips {
    /// The sequence starts anew with `number`.
    pub fn begin(&mut self, number: u64) {
        self.pieces.clear();
        self.pieces.push_back((number, self.next.wrapping_sub(number)));
    }

    pub fn apply(&self, number: u64) -> Option<u64> {
        let (_, shift) = self.pieces.iter().rev().find(|(from, _)| *from <= number)?;
        Some(number.wrapping_add(*shift))
    }

    /// Leaves `number` out, the highest so far.
    pub fn skip(&mut self, number: u64) {
        match self.pieces.back_mut() {
            Some(piece) if piece.0 == number => {
                *piece = (number + 1, piece.1.wrapping_sub(1));
            }
            Some(&mut (_, shift)) => {
                if self.pieces.len() == MAX_SKIPS {
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
        let mut skips = Skips::default();
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
}
