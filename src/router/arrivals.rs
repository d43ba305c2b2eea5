//! What arrived from a peer, by the numbers of its transport, until the peer is told of it
//! (draft-holmer-rmcat-transport-wide-cc-extensions §3).
//!
//! Each number is told of once; one that comes late is told of again with all behind it, as the draft
//! has no other way to say so.

use super::stats::DropReason;
use crate::rtp::{
    sequence::nearest,
    transport_feedback::{MAX_STATUSES, Writer},
    units::ticks,
};
use std::time::{Duration, Instant};

/// Numbers that are remembered.
const WINDOW: u64 = 1_024;
const WORDS: usize = (WINDOW / 64) as usize;
/// Of a second, as the messages count.
const TICKS: u32 = 4_000;
/// Between an arrival and the message about it, at most.
const LONGEST: Duration = Duration::from_millis(100);
/// Between two messages, when there is much to tell: estimators want it soon, and more often than this
/// would cost upload without helping them.
const SHORTEST: Duration = Duration::from_millis(50);
const MUCH: u32 = 20;

#[derive(Debug, Default)]
pub(super) struct Arrivals {
    highest: Option<u64>,
    /// The first number that the next message tells of.
    start: u64,
    /// By number, in ticks since the router began; counts where a bit is set.
    ticks: Vec<u32>,
    arrived: [u64; WORDS],
    /// After a number far below: the one that would confirm that the peer counts anew.
    jumped_to: Option<u16>,
    /// Arrivals that no message told of.
    untold: u32,
    due: Option<Instant>,
    told_at: Option<Instant>,
    messages: u8,
}

impl Arrivals {
    /// A packet with this number came, `came` after the router began.
    ///
    /// # Errors
    /// When the number, or numbers before it, will not be told of.
    pub fn note(&mut self, now: Instant, came: Duration, sequence: u16) -> Result<(), DropReason> {
        let number = self.place(sequence)?;
        let highest = *self.highest.get_or_insert(number);
        for skipped in (highest + 1..=number).rev().take(WINDOW as usize) {
            self.arrived[word(skipped)] &= !bit(skipped);
        }
        if self.arrived[word(number)] & bit(number) != 0 {
            return Ok(()); // The network doubled it.
        }
        self.arrived[word(number)] |= bit(number);
        self.ticks[slot(number)] = ticks(came, TICKS);
        self.highest = Some(highest.max(number));
        self.start = self.start.min(number);
        self.untold += 1;
        let soon = self.told_at.map_or(now, |at| (at + SHORTEST).max(now));
        let due = if self.untold >= MUCH { soon } else { now + LONGEST };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        let oldest = (highest.max(number) + 1).saturating_sub(WINDOW);
        if self.start < oldest {
            let untold = highest >= self.start;
            self.start = oldest;
            if untold {
                return Err(DropReason::ArrivalsForgotten);
            }
        }
        Ok(())
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Appends a message about what has not been told, if it is time; whether it did. Then there may
    /// be more.
    pub fn write(
        &mut self,
        now: Instant,
        writer: &mut Writer,
        out: &mut Vec<u8>,
        sender: u32,
        media: u32,
    ) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        let highest = self.highest.unwrap_or(0);
        while self.start <= highest {
            let first = self.start;
            let status = |number: u64| {
                let arrived = self.arrived[word(number)] & bit(number) != 0;
                arrived.then(|| self.ticks[slot(number)])
            };
            let statuses = (first..=highest).map(status);
            let told =
                writer.write(out, sender, media, self.messages, first as u16, statuses) as u64;
            if told > 0 {
                self.start += told;
                self.messages = self.messages.wrapping_add(1);
                return true;
            }
            // None of those that would have fitted arrived. If one was to follow, it was lost.
            self.start += MAX_STATUSES as u64;
        }
        self.start = highest + 1;
        self.rest(now);
        false
    }

    /// All is told, or there is nobody to tell.
    pub fn rest(&mut self, now: Instant) {
        self.untold = 0;
        self.due = None;
        self.told_at = Some(now);
    }

    fn place(&mut self, sequence: u16) -> Result<u64, DropReason> {
        if let Some(highest) = self.highest {
            let number = nearest(highest, sequence);
            if number + WINDOW > highest {
                self.jumped_to = None;
                return Ok(number);
            }
            if self.jumped_to.replace(sequence.wrapping_add(1)) != Some(sequence) {
                return Err(DropReason::TransportSequence);
            }
        }
        if self.ticks.is_empty() {
            self.ticks.resize(WINDOW as usize, 0);
        }
        self.highest = None;
        self.jumped_to = None;
        self.arrived = [0; WORDS];
        let number = 1 << 16 | u64::from(sequence);
        self.start = number;
        Ok(number)
    }
}

fn slot(number: u64) -> usize {
    (number % WINDOW) as usize
}

fn word(number: u64) -> usize {
    slot(number) / 64
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}
