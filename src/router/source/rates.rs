//! What a source sends, over the last two seconds and by layer, to choose among by budget.
//!
//! A keyframe is many times as large as what follows; so that it does not look like a rate, the
//! fullest quarter of a second is left out.

use super::place::LAYERS;
use crate::rtp::Bitrate;

/// Whole pieces of 256 ms, and the one under way.
const PIECES: usize = 9;
const PIECE_BITS: u32 = 8;
/// With fewer whole pieces none is left out.
const MIN_TRIMMED: usize = 4;
/// Longest time between pictures that is believed, in milliseconds.
const MAX_INTERVAL: u32 = 1_000;

#[derive(Clone, Debug)]
pub(in crate::router) struct Rates {
    piece: u32,
    bytes: [u32; PIECES],
    /// Whole pieces so far.
    whole: usize,
    begun: bool,
    /// By layer, fading.
    layers: [u32; LAYERS * LAYERS],
    /// Timestamp of the newest picture and when it came; the time between two, smoothed.
    picture: Option<(u32, u32)>,
    interval_ms: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            piece: 0,
            bytes: [0; PIECES],
            whole: 0,
            begun: false,
            layers: [0; LAYERS * LAYERS],
            picture: None,
            interval_ms: 33,
        }
    }
}

impl Rates {
    /// Counts a packet of `bytes` at `ms` of the router's clock.
    pub fn add(&mut self, ms: u32, bytes: usize, layer: usize, timestamp: u32) {
        self.turn(ms);
        let bytes = bytes as u32;
        let at = (self.piece as usize) % PIECES;
        if self.bytes[at] == 0 && self.bytes.iter().all(|piece| *piece == 0) {
            // The silence before is no part of the rate.
            self.whole = 0;
        }
        self.bytes[at] = self.bytes[at].saturating_add(bytes);
        self.layers[layer] = self.layers[layer].saturating_add(bytes);
        match self.picture {
            Some((known, _)) if known == timestamp => {}
            Some((_, at)) => {
                let step = ms.wrapping_sub(at).min(MAX_INTERVAL);
                self.interval_ms = (self.interval_ms * 7 + step) / 8;
                self.picture = Some((timestamp, ms));
            }
            None => self.picture = Some((timestamp, ms)),
        }
    }

    /// The rate at `ms`; `None` before there is one.
    pub fn total(&mut self, ms: u32) -> Option<Bitrate> {
        self.turn(ms);
        if self.whole == 0 {
            return None;
        }
        let under_way = (self.piece as usize) % PIECES;
        let pieces =
            || (1..=self.whole).map(|back| self.bytes[(under_way + PIECES - back) % PIECES]);
        let sum: u64 = pieces().map(u64::from).sum();
        let (bytes, count) = if self.whole >= MIN_TRIMMED {
            (sum - pieces().max().map_or(0, u64::from), self.whole - 1)
        } else {
            (sum, self.whole)
        };
        Some(Bitrate::from_bps(bytes * 8_000 / ((count as u64) << PIECE_BITS)))
    }

    /// Of `total`, what layers up to these two are, in 1/256.
    pub fn share(&self, spatial: u8, temporal: u8) -> u64 {
        let sum = |keep: &dyn Fn(usize, usize) -> bool| {
            let kept = (0..LAYERS * LAYERS).filter(|at| keep(at / LAYERS, at % LAYERS));
            kept.map(|at| u64::from(self.layers[at])).sum::<u64>()
        };
        let part = sum(&|s, t| s <= usize::from(spatial) && t <= usize::from(temporal));
        (part * 256).checked_div(sum(&|_, _| true)).unwrap_or(256)
    }

    /// The highest spatial and temporal layer that comes.
    pub fn highest(&self) -> (u8, u8) {
        let coming = || (0..LAYERS * LAYERS).filter(|at| self.layers[*at] > 0);
        let spatial = coming().map(|at| at / LAYERS).max().unwrap_or(0);
        let temporal = coming().map(|at| at % LAYERS).max().unwrap_or(0);
        (spatial as u8, temporal as u8)
    }

    /// Milliseconds between two pictures.
    pub fn interval_ms(&self) -> u32 {
        self.interval_ms
    }

    fn turn(&mut self, ms: u32) {
        let piece = ms >> PIECE_BITS;
        if !std::mem::replace(&mut self.begun, true) {
            self.piece = piece;
        }
        let passed = piece.wrapping_sub(self.piece).min(PIECES as u32);
        if passed == 0 {
            return;
        }
        for step in 0..passed {
            self.bytes[piece.wrapping_sub(step) as usize % PIECES] = 0;
            // Faded out within seconds, and to nothing at all.
            self.layers.iter_mut().for_each(|bytes| *bytes -= bytes.div_ceil(8));
        }
        self.whole = (self.whole + passed as usize).min(PIECES - 1);
        self.piece = piece;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_does_not_look_like_a_rate() {
        let mut rates = Rates::default();
        for ms in (0..4_000).step_by(20) {
            rates.add(ms, if ms == 3_000 { 40_000 } else { 1_250 }, 0, ms);
        }
        let kbps = rates.total(4_000).unwrap().kbps();
        assert!((450..550).contains(&kbps), "{kbps}");
        assert!((19..22).contains(&rates.interval_ms()));
    }

    #[test]
    fn a_rate_is_known_soon_and_ends_with_the_stream() {
        let mut rates = Rates::default();
        assert_eq!(rates.total(10), None);
        for ms in (10..600).step_by(10) {
            rates.add(ms, 1_250, 0, ms);
        }
        assert!(rates.total(600).unwrap().kbps() > 900);
        assert_eq!(rates.total(9_000).unwrap().bps(), 0);
        assert_eq!(rates.highest(), (0, 0));
    }

    #[test]
    fn a_silence_is_no_part_of_the_rate_after_it() {
        let mut rates = Rates::default();
        rates.add(0, 1_250, 0, 0);
        for ms in (8_200..9_000).step_by(10) {
            let known = rates.total(ms);
            assert!(ms < 8_300 || known.is_none_or(|rate| rate.kbps() > 800), "{ms}: {known:?}");
            rates.add(ms, 1_250, 0, ms);
        }
        assert!(rates.total(9_000).is_some());
    }

    #[test]
    fn layers_have_shares() {
        let mut rates = Rates::default();
        for step in 0..400 {
            rates.add(step * 10, 1_000, [0, 2, 1, 2][step as usize % 4], step);
        }
        assert_eq!(rates.highest(), (0, 2));
        assert!((60..68).contains(&rates.share(0, 0)), "{}", rates.share(0, 0));
        assert!((124..132).contains(&rates.share(0, 1)));
        assert_eq!(rates.share(7, 7), 256);
    }

    #[test]
    fn a_layer_that_ended_is_forgotten() {
        let mut rates = Rates::default();
        rates.add(0, 100, 2, 0);
        for ms in (0..20_000).step_by(10) {
            rates.add(ms, 1_250, 0, ms);
        }
        assert_eq!(rates.highest(), (0, 0));
    }
}
