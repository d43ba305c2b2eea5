//! Interarrival jitter as receiver reports carry it (RFC 3550 §6.4.1, appendix A.8).
//!
//! Times are in ticks of the media clock.

/// The running estimate: a sixteenth of each deviation is taken in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jitter {
    transit: Option<u32>,
    /// Sixteen times the jitter, so that no fraction is lost to rounding.
    scaled: u32,
}

impl Jitter {
    /// `arrival` is the local time and `timestamp` the packet's, both in ticks.
    pub fn take(&mut self, arrival: u32, timestamp: u32) {
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let deviation = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // A jump of the sender's clock would otherwise spoil the estimate for minutes.
            if deviation < 1 << 24 {
                self.scaled = self.scaled - ((self.scaled + 8) >> 4) + deviation;
            }
        }
    }

    pub fn ticks(&self) -> u32 {
        self.scaled >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_packets_have_no_jitter() {
        let mut jitter = Jitter::default();
        for packet in 0..100u32 {
            jitter.take(packet.wrapping_mul(960).wrapping_add(77), packet * 960);
        }
        assert_eq!(jitter.ticks(), 0);
    }

    #[test]
    fn alternating_delays_converge_to_their_difference() {
        let mut jitter = Jitter::default();
        for packet in 0..400u32 {
            jitter.take(packet * 960 + (packet % 2) * 480, packet * 960);
        }
        assert!((470..=480).contains(&jitter.ticks()), "{}", jitter.ticks());
    }
}
