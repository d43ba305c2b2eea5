//! Reception statistics of one source, and the report block made of them (RFC 3550 §6.4.1,
//! appendices A.1 and A.3). Sequence numbers come unwrapped.

use super::{jitter::Jitter, rtcp::ReportBlock};

#[derive(Clone, Copy, Debug, Default)]
pub struct Reception {
    first: Option<u64>,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    fraction_lost: u8,
    jitter: Jitter,
}

impl Reception {
    /// Takes a packet in: duplicates and late ones count as received, as the RFC has it.
    /// `arrival` is local time in ticks of the media clock.
    pub fn take(&mut self, sequence: u64, timestamp: u32, arrival: u32) {
        let newest = self.first.is_none() || sequence > self.highest;
        self.first = Some(self.first.map_or(sequence, |first| first.min(sequence)));
        self.highest = self.highest.max(sequence);
        self.received += 1;
        // Late packets are mostly retransmissions, which say nothing about the path's jitter.
        if newest {
            self.jitter.take(arrival, timestamp);
        }
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }

    /// Expected minus received: negative when duplicates outnumber losses.
    pub fn lost(&self) -> i64 {
        self.expected() as i64 - self.received as i64
    }

    /// Of the packets expected between the last two reports, in 256ths.
    pub fn fraction_lost(&self) -> u8 {
        self.fraction_lost
    }

    /// In ticks of the media clock.
    pub fn jitter(&self) -> u32 {
        self.jitter.ticks()
    }

    /// The block for the next report; closes the interval that `fraction_lost` speaks of.
    /// `last_sr` and `since_sr` are in units of 2⁻¹⁶ s, zero before a sender report came.
    pub fn report(&mut self, ssrc: u32, last_sr: u32, since_sr: u32) -> ReportBlock {
        let expected = self.expected() - self.expected_before;
        let received = self.received - self.received_before;
        self.expected_before = self.expected();
        self.received_before = self.received;
        self.fraction_lost = match expected.saturating_sub(received) {
            0 => 0,
            lost => u8::try_from(lost * 256 / expected).unwrap_or(u8::MAX),
        };
        ReportBlock {
            ssrc,
            fraction_lost: self.fraction_lost,
            lost: self.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest: self.highest as u32,
            jitter: self.jitter(),
            last_sr,
            since_sr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reception(sequences: &[u64]) -> Reception {
        let mut reception = Reception::default();
        for &sequence in sequences {
            reception.take(sequence, 0, 0);
        }
        reception
    }

    #[test]
    fn losses_are_what_was_expected_and_did_not_come() {
        let mut one = reception(&[70_000, 70_001, 70_003, 70_007]);
        assert_eq!((one.expected(), one.received(), one.lost()), (8, 4, 4));
        let block = one.report(5, 1, 2);
        assert_eq!((block.fraction_lost, block.lost, block.highest), (128, 4, 70_007));
        one.take(70_008, 0, 0);
        assert_eq!(one.report(5, 1, 2).fraction_lost, 0);
    }

    #[test]
    fn late_packets_repair_and_duplicates_make_the_loss_negative() {
        assert_eq!(reception(&[10, 12, 11]).lost(), 0);
        assert_eq!(reception(&[10, 11, 11]).lost(), -1);
        assert_eq!(reception(&[10, 9]).lost(), 0);
        assert_eq!(reception(&[10, 11, 11]).report(1, 0, 0).fraction_lost, 0);
    }

    #[test]
    fn nothing_received_reports_nothing() {
        let block = Reception::default().report(9, 0, 0);
        assert_eq!((block.fraction_lost, block.lost, block.highest), (0, 0, 0));
    }
}
