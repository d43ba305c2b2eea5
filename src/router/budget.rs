//! How much a sink may send again: a share of what it sent in the last second.

/// Of what was sent. A network that loses a tenth asks for an eighth again, bursts for more; whoever
/// asks for more than half again has a link that repetitions fill for good.
const SHARE: (u64, u64) = (1, 2);
/// This much may be sent again in any case, so that a keyframe that was lost as a whole comes at once.
const LEAST: u64 = 64 << 10;
/// Pieces of the second, each this many milliseconds.
const PIECES: usize = 4;
const PIECE_BITS: u32 = 8;

/// Bytes of the last second, in pieces that are forgotten one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    piece: u32,
    sent: [u32; PIECES],
    again: [u32; PIECES],
}

impl Budget {
    #[inline]
    pub fn sent(&mut self, ms: u32, bytes: usize) {
        let at = self.turn(ms);
        self.sent[at] = self.sent[at].saturating_add(bytes as u32);
    }

    /// Takes what it costs to send so much again, if there is enough left, and no more than `allowed` was
    /// sent again in the last second.
    pub fn take(&mut self, ms: u32, bytes: usize, allowed: Option<u64>) -> bool {
        let at = self.turn(ms);
        let sum =
            |pieces: &[u32; PIECES]| pieces.iter().map(|&piece| u64::from(piece)).sum::<u64>();
        let most = (sum(&self.sent) * SHARE.0 / SHARE.1).max(LEAST);
        let most = most.min(allowed.unwrap_or(u64::MAX));
        let fits = sum(&self.again) + bytes as u64 <= most;
        if fits {
            self.again[at] = self.again[at].saturating_add(bytes as u32);
        }
        fits
    }

    #[inline]
    fn turn(&mut self, ms: u32) -> usize {
        let piece = ms >> PIECE_BITS;
        if piece != self.piece {
            self.forget(piece);
        }
        piece as usize % PIECES
    }

    fn forget(&mut self, piece: u32) {
        for passed in 0..piece.wrapping_sub(self.piece).min(PIECES as u32) {
            let at = piece.wrapping_sub(passed) as usize % PIECES;
            (self.sent[at], self.again[at]) = (0, 0);
        }
        self.piece = piece;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many packets of 1 000 bytes can be sent again at a moment.
    fn taken(budget: &mut Budget, ms: u32) -> usize {
        (0..10_000).take_while(|_| budget.take(ms, 1_000, None)).count()
    }

    #[test]
    fn half_of_the_last_second_can_be_sent_again() {
        let mut budget = Budget::default();
        for ms in 0..1_000 {
            budget.sent(ms, 1_000);
        }
        assert_eq!(taken(&mut budget, 999), 500);
        assert_eq!(taken(&mut budget, 1_000), 0);
        // What was sent and what was sent again grow old.
        assert_eq!(taken(&mut budget, 5_000), 65);
        assert_eq!(taken(&mut budget, 5_800), 0);
        assert_eq!(taken(&mut budget, 6_100), 65);
    }
}
