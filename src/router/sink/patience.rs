//! How long a receiver should hold pictures back, told with each packet (the playout-delay extension of
//! libwebrtc). Browsers choose by what they saw so far, and show a picture that stands still when a
//! packet has to be sent again twice. Where a network loses packets it is known beforehand that this will
//! happen, and how long it takes; there the receiver is told to wait that long, and no longer.
//!
//! Left out: wishes of sources for less delay.

use std::time::Duration;

/// Losses, in 256ths as reports have them, from which on there is time for two repetitions, and for three.
const TWICE: f32 = 2.5;
const THRICE: f32 = 18.0;
/// What is left of the losses of earlier reports when another comes.
const FORGETS: f32 = 0.85;
/// Browsers that only receive do not know the round trip, and ask again after this long.
const ASKS_AGAIN: Duration = Duration::from_millis(100);
/// Until a loss is noticed, and for timers on the way.
const NOTICING: Duration = Duration::from_millis(30);
/// Whoever is this far away should rather see a picture stand still than talk to the past.
const LONGEST: Duration = Duration::from_millis(500);
/// The upper end that goes with it, as far as browsers go by themselves, in units of 10 ms.
const MOST: u16 = 1_000;

#[derive(Debug, Default)]
pub(super) struct Patience {
    /// In 256ths, as the worst of late.
    lost: f32,
    told: Option<[u8; 3]>,
}

impl Patience {
    /// The receiver reports such losses, in 256ths, and is so far away.
    pub fn report(&mut self, lost: u8, round_trip: Option<Duration>) {
        self.lost = f32::from(lost).max(self.lost * FORGETS);
        let repetitions = u32::from(self.lost >= TWICE) + u32::from(self.lost >= THRICE);
        let Some(round_trip) = round_trip.filter(|_| repetitions > 0) else {
            // Who was told to wait has to be told of the end of it.
            self.told = self.told.map(|_| content(0));
            return;
        };
        let wait = NOTICING + round_trip + repetitions * round_trip.max(ASKS_AGAIN);
        self.told = Some(content((wait.min(LONGEST).as_millis() / 10) as u16));
    }

    /// The content of the extension; `None` as long as it was never needed.
    #[inline]
    pub fn told(&self) -> Option<[u8; 3]> {
        self.told
    }
}

/// Twelve bits each for the least and the most delay, in units of 10 ms.
fn content(least: u16) -> [u8; 3] {
    let [_, a, b, c] = (u32::from(least) << 12 | u32::from(MOST)).to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Option<Duration> = Some(Duration::from_millis(100));

    fn least(patience: &Patience) -> Option<u64> {
        patience.told().map(|[a, b, _]| (u64::from(a) << 4 | u64::from(b) >> 4) * 10)
    }

    #[test]
    fn nobody_waits_for_what_is_not_lost() {
        let mut patience = Patience::default();
        for lost in [0, 1, 2] {
            patience.report(lost, FAR);
            assert_eq!(patience.told(), None);
        }
        patience.report(9, None);
        assert_eq!(patience.told(), None, "nobody knows for how long");
    }

    #[test]
    fn there_is_time_for_as_many_repetitions_as_the_losses_need() {
        let mut patience = Patience::default();
        patience.report(12, FAR);
        assert_eq!(least(&patience), Some(230));
        patience.report(26, FAR);
        assert_eq!(least(&patience), Some(330));
        assert_eq!(patience.told(), Some([0x02, 0x13, 0xe8]));
        patience.report(26, Some(Duration::from_millis(20)));
        assert_eq!(least(&patience), Some(250));
        patience.report(26, Some(Duration::from_secs(2)));
        assert_eq!(least(&patience), Some(500));
    }

    #[test]
    fn the_wait_ends_when_the_losses_have_ended_for_a_while() {
        let mut patience = Patience::default();
        patience.report(13, FAR);
        patience.report(0, FAR);
        assert_eq!(least(&patience), Some(230), "one good report is no good network");
        for _ in 0..12 {
            patience.report(0, FAR);
        }
        assert_eq!(patience.told(), Some(content(0)));
    }
}
