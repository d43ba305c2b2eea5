//! How long a receiver should hold pictures back, told with each packet (the playout-delay extension of
//! libwebrtc). Browsers choose by what they saw so far, and show a picture that stands still when a
//! packet has to be sent again twice. Where a network loses packets it is known beforehand that this will
//! happen, and how long it takes; there the receiver is told to wait that long, and no longer. What is lost
//! on the way from the source comes later as well, by the time that it takes us to get it again.
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

/// What is known of a way: losses of late, in 256ths, and how long it takes there and back.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::router) struct Lossy {
    pub lost: u8,
    pub round_trip: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Patience {
    /// In 256ths, as the worst of late: on the way to the receiver, and from the source.
    lost: f32,
    lost_before: f32,
    told: Option<[u8; 3]>,
}

impl Patience {
    /// The receiver reports losses, and such were on the way from the source.
    pub fn report(&mut self, receiver: Lossy, source: Lossy) {
        let lost = |before: f32, way: Lossy| f32::from(way.lost).max(before * FORGETS);
        self.lost = lost(self.lost, receiver);
        self.lost_before = lost(self.lost_before, source);
        let repetitions = u32::from(self.lost >= TWICE) + u32::from(self.lost >= THRICE);
        let own = receiver.round_trip.filter(|_| repetitions > 0);
        let own = own.map(|way| NOTICING + way + repetitions * way.max(ASKS_AGAIN));
        let before = source.round_trip.filter(|_| self.lost_before >= TWICE);
        let before = before.map(|way| NOTICING + way);
        self.told = if own.is_none() && before.is_none() {
            // Who was told to wait has to be told of the end of it.
            self.told.map(|_| content(0))
        } else {
            let wait = own.unwrap_or_default() + before.unwrap_or_default();
            Some(content((wait.min(LONGEST).as_millis() / 10) as u16))
        };
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

    const GOOD: Lossy = Lossy { lost: 0, round_trip: Some(Duration::from_millis(100)) };

    fn loses(lost: u8) -> Lossy {
        Lossy { lost, ..GOOD }
    }

    fn least(patience: &Patience) -> Option<u64> {
        patience.told().map(|[a, b, _]| (u64::from(a) << 4 | u64::from(b) >> 4) * 10)
    }

    #[test]
    fn nobody_waits_for_what_is_not_lost() {
        let mut patience = Patience::default();
        for lost in [0, 1, 2] {
            patience.report(loses(lost), loses(lost));
            assert_eq!(patience.told(), None);
        }
        let unknown = Lossy { lost: 9, round_trip: None };
        patience.report(unknown, unknown);
        assert_eq!(patience.told(), None, "nobody knows for how long");
    }

    #[test]
    fn there_is_time_for_as_many_repetitions_as_the_losses_need() {
        let mut patience = Patience::default();
        patience.report(loses(12), GOOD);
        assert_eq!(least(&patience), Some(230));
        patience.report(loses(26), GOOD);
        assert_eq!(least(&patience), Some(330));
        assert_eq!(patience.told(), Some([0x02, 0x13, 0xe8]));
        patience.report(Lossy { lost: 26, round_trip: Some(Duration::from_millis(20)) }, GOOD);
        assert_eq!(least(&patience), Some(250));
        patience.report(Lossy { lost: 26, round_trip: Some(Duration::from_secs(2)) }, GOOD);
        assert_eq!(least(&patience), Some(500));
    }

    #[test]
    fn what_is_lost_before_us_takes_time_as_well() {
        let mut patience = Patience::default();
        patience.report(GOOD, loses(13));
        assert_eq!(least(&patience), Some(130));
        patience.report(loses(13), loses(13));
        assert_eq!(least(&patience), Some(360));
    }

    #[test]
    fn the_wait_ends_when_the_losses_have_ended_for_a_while() {
        let mut patience = Patience::default();
        patience.report(loses(13), GOOD);
        patience.report(GOOD, GOOD);
        assert_eq!(least(&patience), Some(230), "one good report is no good network");
        for _ in 0..12 {
            patience.report(GOOD, GOOD);
        }
        assert_eq!(patience.told(), Some(content(0)));
    }
}
