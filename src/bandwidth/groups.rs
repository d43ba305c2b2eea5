//! Bursts of packets, and how much further apart they arrive than they were sent
//! (draft-ietf-rmcat-gcc-02 §5.2).
//!
//! A sender hands packets to the network in bursts, and a wireless link delivers in bursts of its own;
//! single packets would only measure those. Times are microseconds: of our clock where a packet was
//! sent, of the receiver's where it arrived. The two have no common origin, so only differences within
//! one clock are used.

/// What leaves within this time is one burst.
const BURST: i64 = 5_000;
/// What a link held back and let go at once belongs together, for at most this long.
const LONGEST_BURST: i64 = 100_000;
/// A receiver's clock that runs ahead of ours by more than this between two bursts was set anew.
const CLOCK_JUMP: i64 = 3_000_000;
/// So many bursts that arrive before their predecessors mean a clock that was set back.
const BACKWARDS: u8 = 3;

/// How far the last two bursts are apart, in microseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deltas {
    pub sent: i64,
    pub arrived: i64,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    first_arrived: i64,
    last_arrived: i64,
    /// Our time when feedback told of the last packet.
    told: i64,
}

#[derive(Debug, Default)]
pub struct Groups {
    current: Option<Group>,
    previous: Option<Group>,
    backwards: u8,
}

/// What a packet has shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// It belongs to a burst that may go on.
    Nothing,
    /// It opens a burst, so that two whole ones can be compared.
    Deltas(Deltas),
    /// The receiver's clock jumped: what was learnt from it so far does not go on.
    Reset,
}

impl Groups {
    /// A packet sent and arrived at these times, of which feedback told at `told`.
    pub fn add(&mut self, sent: i64, arrived: i64, told: i64) -> Step {
        let fresh = Group {
            first_sent: sent,
            last_sent: sent,
            first_arrived: arrived,
            last_arrived: arrived,
            told,
        };
        let Some(current) = &mut self.current else {
            self.current = Some(fresh);
            return Step::Nothing;
        };
        if sent < current.first_sent {
            // A late packet of an earlier burst: that burst is measured already.
            return Step::Nothing;
        }
        if current.holds(sent, arrived) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrived = current.last_arrived.max(arrived);
            current.told = told;
            return Step::Nothing;
        }
        let whole = *current;
        let Some(previous) = self.previous else {
            self.previous = Some(whole);
            self.current = Some(fresh);
            return Step::Nothing;
        };
        let deltas = Deltas {
            sent: whole.last_sent.saturating_sub(previous.last_sent),
            arrived: whole.last_arrived.saturating_sub(previous.last_arrived),
        };
        let here = whole.told.saturating_sub(previous.told);
        if deltas.arrived.saturating_sub(here.max(deltas.sent)) > CLOCK_JUMP {
            *self = Self { current: Some(fresh), ..Self::default() };
            return Step::Reset;
        }
        if deltas.arrived < 0 {
            self.backwards += 1;
            self.current = Some(fresh);
            if self.backwards < BACKWARDS {
                return Step::Nothing;
            }
            *self = Self { current: Some(fresh), ..Self::default() };
            return Step::Reset;
        }
        self.backwards = 0;
        self.previous = Some(whole);
        self.current = Some(fresh);
        Step::Deltas(deltas)
    }
}

impl Group {
    fn holds(&self, sent: i64, arrived: i64) -> bool {
        if sent.saturating_sub(self.first_sent) <= BURST {
            return true;
        }
        let since = arrived.saturating_sub(self.last_arrived);
        let caught_up = since < sent.saturating_sub(self.last_sent);
        caught_up
            && since <= BURST
            && arrived.saturating_sub(self.first_arrived) < LONGEST_BURST
            && arrived >= self.first_arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What packets of (sent, arrived) milliseconds show; feedback tells of each 50 ms later.
    fn steps(packets: &[(i64, i64)]) -> Vec<Step> {
        let mut groups = Groups::default();
        let add = |&(sent, arrived): &(i64, i64)| {
            groups.add(sent * 1_000, arrived * 1_000, sent * 1_000 + 50_000)
        };
        packets.iter().map(add).filter(|step| *step != Step::Nothing).collect()
    }

    fn deltas(sent: i64, arrived: i64) -> Step {
        Step::Deltas(Deltas { sent: sent * 1_000, arrived: arrived * 1_000 })
    }

    #[test]
    fn bursts_are_compared_and_not_packets() {
        let packets = [(0, 100), (2, 103), (4, 106), (30, 130), (33, 140), (60, 160)];
        assert_eq!(steps(&packets), [deltas(29, 34)]);
    }

    #[test]
    fn packets_that_a_link_held_back_and_let_go_are_one_burst() {
        let packets = [(0, 100), (20, 120), (30, 121), (40, 122), (70, 150), (100, 180)];
        assert_eq!(steps(&packets), [deltas(40, 22), deltas(30, 28)]);
    }

    #[test]
    fn a_late_packet_of_an_earlier_burst_changes_nothing() {
        let packets = [(0, 100), (30, 130), (1, 131), (60, 160), (90, 190)];
        assert_eq!(steps(&packets), [deltas(30, 30), deltas(30, 30)]);
    }

    #[test]
    fn a_clock_that_is_set_starts_the_comparison_anew() {
        let ahead = [(0, 0), (20, 20), (40, 9_000), (60, 9_020), (80, 9_040), (100, 9_060)];
        assert_eq!(steps(&ahead), [deltas(20, 20), Step::Reset, deltas(20, 20)]);
        let back: Vec<_> = (0..12).map(|n| (n * 20, 9_000 + n * 20 - n / 3 * 4_000)).collect();
        assert!(steps(&back).contains(&deltas(20, 20)));
        let always: Vec<_> = (0..8).map(|n| (n * 20, 9_000 - n * 30)).collect();
        assert!(steps(&always).contains(&Step::Reset));
    }
}
