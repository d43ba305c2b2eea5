//! Sound that survives losses: earlier packets repeated in later ones (RFC 2198), made here for a receiver
//! that takes redundant audio and says that it loses packets. Browsers do not ask for sound again, so
//! what a network loses on the way to them is heard, if nothing comes twice.
//!
//! Left out: sources that repeat by themselves, which are passed on as they are.

/// Packets that are repeated at most.
const DEPTH: usize = 2;
/// Losses, in 256ths as reports have them, from which on one packet is repeated, and two are.
const ONE: f32 = 2.5;
const BOTH: f32 = 10.0;
/// What is left of the losses of earlier reports when another comes.
const FORGETS: f32 = 0.85;
/// A header tells of ten bits of length, and of fourteen of time.
const MAX_BLOCK: usize = (1 << 10) - 1;
const MAX_AGE: u32 = (1 << 14) - 1;
/// Such packets are no longer small.
const MAX_PACKET: usize = 1_100;

#[derive(Debug, Default)]
struct Block {
    timestamp: u32,
    /// Empty when nothing stands here.
    payload: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Redundant {
    /// Number of the format of such packets.
    number: u8,
    /// Of what is repeated.
    encoding: u8,
    /// In 256ths, as the worst of late.
    lost: f32,
    /// The newest last.
    kept: [Block; DEPTH],
    buffer: Vec<u8>,
}

impl Redundant {
    pub fn new(number: u8, encoding: u8) -> Self {
        let kept = [const { Block { timestamp: 0, payload: Vec::new() } }; DEPTH];
        Self { number, encoding, lost: 0.0, kept, buffer: Vec::new() }
    }

    /// The receiver reports such losses, in 256ths.
    pub fn report(&mut self, lost: u8) {
        self.lost = f32::from(lost).max(self.lost * FORGETS);
        if self.depth() == 0 {
            self.kept.iter_mut().for_each(|block| block.payload.clear());
        }
    }

    fn depth(&self) -> usize {
        usize::from(self.lost >= ONE) + usize::from(self.lost >= BOTH)
    }

    /// Under which format [`Self::written`] is to be sent instead of a packet, and how long that is;
    /// `None` where the packet itself is.
    #[inline]
    pub fn wrap(&mut self, format: u8, timestamp: u32, payload: &[u8]) -> Option<(u8, usize)> {
        if self.lost < ONE || format != self.encoding {
            return None;
        }
        self.write(timestamp, payload)
    }

    fn write(&mut self, timestamp: u32, payload: &[u8]) -> Option<(u8, usize)> {
        let newest = self.kept[DEPTH - 1].timestamp;
        let is_late = timestamp.wrapping_sub(newest) as i32 <= 0;
        if payload.is_empty() || is_late && !self.kept[DEPTH - 1].payload.is_empty() {
            return None;
        }
        self.buffer.clear();
        let mut length = payload.len();
        let mut fits = [false; DEPTH];
        // The newest are the more useful ones.
        for at in (DEPTH - self.depth()..DEPTH).rev() {
            let Block { timestamp: own, payload } = &self.kept[at];
            let age = timestamp.wrapping_sub(*own);
            let size = 1..=MAX_BLOCK.min(MAX_PACKET.saturating_sub(length));
            fits[at] = age <= MAX_AGE && size.contains(&payload.len());
            length += if fits[at] { payload.len() } else { 0 };
        }
        for (block, _) in self.kept.iter().zip(fits).filter(|(_, fits)| *fits) {
            let age = timestamp.wrapping_sub(block.timestamp);
            let rest = age << 10 | block.payload.len() as u32;
            self.buffer.push(0x80 | self.encoding);
            self.buffer.extend(&rest.to_be_bytes()[1..]);
        }
        self.buffer.push(self.encoding);
        for (block, _) in self.kept.iter().zip(fits).filter(|(_, fits)| *fits) {
            self.buffer.extend(&block.payload);
        }
        self.buffer.extend(payload);
        self.kept.rotate_left(1);
        let block = &mut self.kept[DEPTH - 1];
        block.timestamp = timestamp;
        block.payload.clear();
        if payload.len() <= MAX_BLOCK {
            block.payload.extend(payload);
        }
        Some((self.number, self.buffer.len()))
    }

    /// What the last call of [`Self::wrap`] wrote.
    pub fn written(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::red;

    fn lossy(lost: u8) -> Redundant {
        let mut redundant = Redundant::new(63, 111);
        redundant.report(lost);
        redundant
    }

    fn sent(redundant: &mut Redundant, timestamp: u32, payload: &[u8]) -> Option<Vec<u8>> {
        redundant.wrap(111, timestamp, payload).map(|(number, length)| {
            let bytes = redundant.written();
            assert_eq!((number, length), (63, bytes.len()));
            let newest = red::primary(bytes).expect("redundant audio");
            assert_eq!((newest.payload_type, newest.payload), (111, payload));
            bytes.to_vec()
        })
    }

    #[test]
    fn nothing_is_repeated_to_whoever_loses_nothing() {
        let mut redundant = lossy(1);
        assert_eq!(sent(&mut redundant, 960, &[1]), None);
        redundant.report(13);
        assert!(sent(&mut redundant, 1_920, &[2]).is_some());
        for _ in 0..20 {
            redundant.report(0);
        }
        assert_eq!(sent(&mut redundant, 2_880, &[3]), None);
    }

    #[test]
    fn the_more_is_lost_the_more_is_repeated() {
        let mut redundant = lossy(5);
        assert_eq!(sent(&mut redundant, 960, &[1]).unwrap(), [111, 1]);
        assert_eq!(sent(&mut redundant, 1_920, &[2]).unwrap(), [239, 0x0f, 0, 1, 111, 1, 2]);
        redundant.report(25);
        let both = [239, 0x1e, 0, 1, 239, 0x0f, 0, 1, 111, 1, 2, 3];
        assert_eq!(sent(&mut redundant, 2_880, &[3]).unwrap(), both);
    }

    #[test]
    fn what_is_late_other_old_or_large_repeats_nothing() {
        let mut redundant = lossy(25);
        let first = u32::MAX - 100;
        assert!(sent(&mut redundant, first, &[1]).is_some());
        assert_eq!(redundant.wrap(13, first.wrapping_add(960), &[7]), None, "another format");
        let next = first.wrapping_add(960);
        assert_eq!(sent(&mut redundant, next, &[2]).unwrap().len(), 7, "time wraps");
        assert_eq!(sent(&mut redundant, first, &[1]), None, "late");
        assert_eq!(sent(&mut redundant, next.wrapping_add(1 << 14), &[3]).unwrap(), [111, 3]);
        let large = vec![9; 1_090];
        let next = next.wrapping_add((1 << 14) + 960);
        assert_eq!(sent(&mut redundant, next, &large).unwrap().len(), 4 + 1 + 1 + 1_090);
        // The large one is not repeated; what was repeated once is, for there is room.
        assert_eq!(sent(&mut redundant, next.wrapping_add(960), &large).unwrap().len(), 1_096);
    }
}
