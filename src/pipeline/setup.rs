//! What may wait until media was sent: the datagrams of handshakes, and how much of a turn set-up takes.
//!
//! A step of a DTLS handshake costs as much as forwarding a hundred packets. So when many join at once,
//! their handshakes wait in one line, in the order of arrival, and the worker works them off between
//! batches of media, a share of its time at most. Media then waits for one step and never for a storm.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slotmap::SecondaryMap;

use crate::elements::LegKey;

/// Datagrams that wait. A handshake has three or four; what is lost here is sent again by the peer.
const MOST: usize = 8_192;
/// Of one session: more than any flight has, and no peer may fill the line.
const MOST_OF_SESSION: u8 = 32;

/// One part of a turn is for set-up, within these bounds: an idle worker does a step or two and looks for
/// media again; one with long turns must not let those who join wait for ever.
const SHARE: u32 = 8;
const LEAST: Duration = Duration::from_micros(250);
const LONGEST: Duration = Duration::from_millis(3);

/// How long set-up may go on after a turn that took `turn` without it. What was begun is ended.
pub(super) fn allowance(turn: Duration) -> Duration {
    (turn / SHARE).clamp(LEAST, LONGEST)
}

/// A datagram of a handshake, and the addresses it went between.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Waiting {
    pub leg: LegKey,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub bytes: Box<[u8]>,
    pub came: Instant,
}

/// The line.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    waiting: VecDeque<Waiting>,
    by_session: SecondaryMap<LegKey, u8>,
    bytes: usize,
    /// What found no room.
    refused: u64,
}

impl Handshakes {
    /// Puts a copy of a datagram at the end; false, and counted, if there is no room for it.
    pub fn push(
        &mut self,
        leg: LegKey,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
        came: Instant,
    ) -> bool {
        // A session that is gone already has no place to count in.
        let Some(entry) = self.by_session.entry(leg) else { return false };
        let count = entry.or_default();
        if *count >= MOST_OF_SESSION || self.waiting.len() >= MOST {
            self.refused += 1;
            return false;
        }
        *count += 1;
        self.bytes += bytes.len();
        self.waiting.push_back(Waiting { leg, local, remote, bytes: bytes.into(), came });
        true
    }

    pub fn pop(&mut self) -> Option<Waiting> {
        let next = self.waiting.pop_front()?;
        self.bytes -= next.bytes.len();
        match self.by_session.get_mut(next.leg) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.by_session.remove(next.leg)),
        }
        Some(next)
    }

    /// Whether something of that session waits: what comes after it has to wait as well.
    pub fn has(&self, leg: LegKey) -> bool {
        !self.waiting.is_empty() && self.by_session.contains_key(leg)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many found no room since this was asked last.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;
    use crate::clock::Clock;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn datagrams_leave_the_line_as_they_came() {
        let mut legs: SlotMap<LegKey, ()> = SlotMap::with_key();
        let now = Clock::start().now();
        let [one, other] = [(); 2].map(|()| legs.insert(()));
        let mut line = Handshakes::default();
        for (number, leg) in [one, other, one].into_iter().enumerate() {
            assert!(line.push(leg, address(1), address(2), &[number as u8; 3], now));
        }
        assert_eq!((line.len(), line.bytes()), (3, 9));
        assert!(line.has(one) && line.has(other));
        for (number, leg) in [one, other, one].into_iter().enumerate() {
            let next = line.pop().expect("waits");
            assert_eq!((next.leg, &next.bytes[..]), (leg, &[number as u8; 3][..]));
            assert_eq!(next.came, now);
        }
        assert!(!line.has(one) && !line.has(other));
        assert_eq!((line.pop(), line.bytes()), (None, 0));
    }

    #[test]
    fn no_session_fills_the_line_and_all_together_do_not_outgrow_it() {
        let mut legs: SlotMap<LegKey, ()> = SlotMap::with_key();
        let now = Clock::start().now();
        let mut line = Handshakes::default();
        let greedy = legs.insert(());
        let taken =
            (0..100).filter(|_| line.push(greedy, address(1), address(2), &[22], now)).count();
        assert_eq!(taken, usize::from(MOST_OF_SESSION));
        assert!(line.push(legs.insert(()), address(1), address(3), &[22], now), "others get in");
        while line.len() < MOST {
            let leg = legs.insert(());
            (0..MOST_OF_SESSION).for_each(|_| {
                line.push(leg, address(1), address(4), &[22], now);
            });
        }
        let before = line.take_refused();
        assert!(before >= 100 - u64::from(MOST_OF_SESSION));
        assert!(!line.push(legs.insert(()), address(1), address(5), &[22], now));
        assert_eq!((line.len(), line.take_refused()), (MOST, 1));
    }

    #[test]
    fn set_up_takes_a_share_of_long_turns_and_little_of_short_ones() {
        assert_eq!(allowance(Duration::ZERO), LEAST);
        assert_eq!(allowance(Duration::from_millis(8)), Duration::from_millis(1));
        assert_eq!(allowance(Duration::from_secs(1)), LONGEST);
    }
}
