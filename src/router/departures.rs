//! What was sent to a peer, by the numbers of its transport, until the peer has told what of it
//! arrived (draft-holmer-rmcat-transport-wide-cc-extensions §3).
//!
//! A peer may say what it likes: what cannot be true changes nothing but counters.

use super::{clock::Stamp, stats::DropReason};
use crate::prefetch;
use crate::rtp::{
    Bitrate,
    sequence::nearest,
    transport_feedback::{Status, TICK, TransportFeedback},
};
use std::time::{Duration, Instant};

/// Packets that are remembered at first: with answers in time a second is enough.
const FIRST_WINDOW: usize = 256;
/// And at most, where answers are late: seconds of what one viewer gets.
const WINDOW: usize = 2_048;
/// When answers have been in time for so long, as many are remembered as they need. In microseconds.
const IN_TIME: u32 = 10_000_000;
/// So long an answer is waited for before its packet gives way to another, in microseconds.
const AWAITED: u32 = 8_000_000;
/// The first number is in the second cycle, so that numbers near it have a place below.
const FIRST: u64 = 1 << 16;
/// How far the receiver's time may lie behind that of the message before: messages overtake each other.
const OVERTAKING: i32 = 4_000; // ticks: 1 s
/// After so many messages in a row with such a time it is the receiver's clock that was set.
const CLOCK_WAS_SET: u8 = 8;
/// What statistics tell is measured over this much.
const MEASURED_OVER: Duration = Duration::from_millis(500);

/// Takes what a receiver says of the packets it was sent.
pub trait FeedbackSink {
    /// A packet, by its number in 64 bits, its size on the way as RTP, and when it left. `received_at`
    /// is the receiver's clock, whose origin means nothing; `None` for a packet that was missing when
    /// the receiver spoke, and may be told of again as received.
    fn packet(
        &mut self,
        sequence: u64,
        size: usize,
        sent_at: Instant,
        received_at: Option<Duration>,
    );
    /// All of a message was handed out.
    fn end(&mut self, now: Instant);
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Empty,
    Sent,
    Missing,
    /// Its receiver told of it, or it left a second time, so that one cannot tell what arrived.
    Done,
}

#[derive(Clone, Copy, Debug, Default)]
struct Departure {
    /// Microseconds since the router began, wrapping.
    us: u32,
    size: u16,
    state: State,
}

#[derive(Debug)]
pub(super) struct Departures {
    next: u64,
    /// A ring by number; a power of two.
    sent: Vec<Departure>,
    /// How far messages reached back since this time, in microseconds since the router began.
    reached: (usize, u32),
    /// The reference time of the newest message, in ticks, 64 bits wide.
    reference: Option<i64>,
    backwards: u8,
}

impl Default for Departures {
    fn default() -> Self {
        Self { next: FIRST, sent: Vec::new(), reached: (0, 0), reference: None, backwards: 0 }
    }
}

impl Departures {
    /// The number of a packet that leaves now; its low 16 bits stand in the packet.
    #[inline]
    pub fn send(&mut self, stamp: Stamp, size: usize) -> u64 {
        let number = self.next;
        let mut slot = self.slot(number);
        let full = self.sent.get(slot).is_none_or(|before| before.is_awaited(stamp));
        if full && self.sent.len() < WINDOW {
            self.grow();
            slot = self.slot(number);
        }
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        self.sent[slot] = Departure { us: stamp.us, size, state: State::Sent };
        self.next += 1;
        number
    }

    /// Packets are next.
    #[inline]
    pub fn expect(&self) {
        prefetch::element(&self.sent, self.slot(self.next));
    }

    /// Remembers more.
    #[cold]
    fn grow(&mut self) {
        self.resize((2 * self.sent.len()).clamp(FIRST_WINDOW, WINDOW));
        self.reached = (self.sent.len(), self.reached.1);
    }

    #[cold]
    fn resize(&mut self, length: usize) {
        let mut resized = vec![Departure::default(); length];
        for number in self.oldest().max(self.next.saturating_sub(length as u64))..self.next {
            resized[number as usize % length] = self.sent[self.slot(number)];
        }
        self.sent = resized;
    }

    /// A message reached back so far. Answers that were late once may never be again, and there are many
    /// viewers.
    fn note_reach(&mut self, stamp: Stamp, reach: usize) {
        let (before, since) = self.reached;
        let most = before.max(reach);
        self.reached.0 = most;
        if stamp.us.wrapping_sub(since) < IN_TIME {
            return;
        }
        self.reached = (0, stamp.us);
        let enough = (2 * most).next_power_of_two().clamp(FIRST_WINDOW, WINDOW);
        if enough < self.sent.len() {
            self.resize(enough);
        }
    }

    /// Bytes that it occupies.
    pub fn memory(&self) -> usize {
        self.sent.capacity() * size_of::<Departure>()
    }

    /// A packet leaves once more under its number.
    pub fn send_again(&mut self, number: u16) {
        let number = nearest(self.next - 1, number);
        if self.is_known(number) {
            let slot = self.slot(number);
            self.sent[slot].state = State::Done;
        }
    }

    /// Takes a message in.
    ///
    /// # Errors
    /// When it cannot be true; then nothing was handed out.
    pub fn take(
        &mut self,
        stamp: Stamp,
        message: &TransportFeedback<'_>,
        sink: &mut impl FeedbackSink,
    ) -> Result<(), DropReason> {
        let first = nearest(self.next - 1, message.base);
        if first < FIRST || first + u64::from(message.count) > self.next {
            return Err(DropReason::FeedbackUnsent);
        }
        let reference = self.place(message.reference_tick())?;
        let oldest = self.oldest();
        for status in message.statuses() {
            match status {
                Status::Lost(places) => {
                    let (from, to) =
                        (first + u64::from(places.start), first + u64::from(places.end));
                    for number in from.max(oldest)..to {
                        let slot = self.slot(number);
                        let departure = &mut self.sent[slot];
                        if departure.state == State::Sent {
                            departure.state = State::Missing;
                            let (size, sent_at) =
                                (usize::from(departure.size), departure.at(stamp));
                            sink.packet(number, size, sent_at, None);
                        }
                    }
                }
                Status::Received { place, tick } => {
                    let number = first + u64::from(place);
                    if !self.is_known(number) {
                        continue;
                    }
                    let slot = self.slot(number);
                    let departure = &mut self.sent[slot];
                    if departure.state != State::Done {
                        departure.state = State::Done;
                        let step = tick.wrapping_sub(message.reference_tick()) as i32;
                        let ticks = u64::try_from(reference + i64::from(step)).unwrap_or(0);
                        let received_at = Duration::from_micros(ticks * TICK.as_micros() as u64);
                        let (size, sent_at) = (usize::from(departure.size), departure.at(stamp));
                        sink.packet(number, size, sent_at, Some(received_at));
                    }
                }
            }
        }
        sink.end(stamp.now);
        self.note_reach(stamp, (self.next - first) as usize);
        Ok(())
    }

    fn is_known(&self, number: u64) -> bool {
        (self.oldest()..self.next).contains(&number)
    }

    /// The first number that is remembered.
    fn oldest(&self) -> u64 {
        (self.next - self.sent.len() as u64).max(FIRST)
    }

    fn slot(&self, number: u64) -> usize {
        number as usize & self.sent.len().wrapping_sub(1)
    }

    /// The reference time of a message, 64 bits wide.
    fn place(&mut self, tick: u32) -> Result<i64, DropReason> {
        let Some(newest) = self.reference else {
            let first = 1 << 32 | i64::from(tick);
            self.reference = Some(first);
            return Ok(first);
        };
        let step = tick.wrapping_sub(newest as u32) as i32;
        if step < -OVERTAKING {
            self.backwards += 1;
            if self.backwards < CLOCK_WAS_SET {
                return Err(DropReason::FeedbackTime);
            }
            // From here on by the new clock, which has the old one's future before it.
            self.backwards = 0;
            self.reference = Some(newest + i64::from(step) + (1 << 32));
            return Ok(newest + i64::from(step) + (1 << 32));
        }
        self.backwards = 0;
        let placed = newest + i64::from(step);
        self.reference = Some(newest.max(placed));
        Ok(placed)
    }
}

impl Departure {
    /// Whether its receiver has not told of it, and may still do.
    #[inline]
    fn is_awaited(&self, stamp: Stamp) -> bool {
        match self.state {
            State::Empty | State::Done => false,
            State::Sent | State::Missing => stamp.us.wrapping_sub(self.us) < AWAITED,
        }
    }

    fn at(&self, stamp: Stamp) -> Instant {
        let ago = Duration::from_micros(stamp.us.wrapping_sub(self.us).into());
        stamp.now.checked_sub(ago).unwrap_or(stamp.now)
    }
}

/// What of a peer's feedback is told in statistics.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    pub bitrate: Bitrate,
    /// In 256ths.
    pub fraction_lost: u8,
    began: Option<Instant>,
    bytes: u64,
    received: u32,
    missing: u32,
}

impl FeedbackSink for Acknowledged {
    fn packet(&mut self, _: u64, size: usize, _: Instant, received_at: Option<Duration>) {
        match received_at {
            Some(_) => {
                self.bytes += size as u64;
                self.received += 1;
            }
            None => self.missing += 1,
        }
    }

    fn end(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let took = now.saturating_duration_since(began);
        if took < MEASURED_OVER {
            return;
        }
        self.bitrate = Bitrate::of(self.bytes, took).unwrap_or_default();
        let all = u64::from(self.received) + u64::from(self.missing);
        let lost = u64::from(self.missing) * 256;
        self.fraction_lost = lost.checked_div(all).map_or(0, |lost| lost.min(255) as u8);
        *self = Self {
            bitrate: self.bitrate,
            fraction_lost: self.fraction_lost,
            began: Some(now),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::transport_feedback::Writer;

    #[derive(Default)]
    struct Arrived(Vec<u64>);

    impl FeedbackSink for Arrived {
        fn packet(&mut self, number: u64, _: usize, _: Instant, received_at: Option<Duration>) {
            self.0.extend(received_at.map(|_| number));
        }

        fn end(&mut self, _: Instant) {}
    }

    /// Sends a packet each millisecond for `ms`, of which the receiver tells so many at a time and so late,
    /// which changes with time; how many packets it could tell of, and the bytes that this took.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin")]
    fn told_in(ms: u64, count: u64, late: impl Fn(u64) -> u64) -> (usize, usize) {
        let (origin, mut departures, mut arrived) =
            (Instant::now(), Departures::default(), Arrived::default());
        for ms in 0..ms {
            let stamp = Stamp::new(origin, origin + Duration::from_millis(ms));
            departures.send(stamp, 1_000);
            let Some(sent) = ms.checked_sub(late(ms)).filter(|sent| sent % count == 0) else {
                continue;
            };
            let (mut bytes, base) = (Vec::new(), (FIRST + sent) as u16);
            let statuses = (0..count.min(ms - sent)).map(|at| Some(4 * (sent + at) as u32));
            Writer::default().write(&mut bytes, 1, 2, 0, base, statuses);
            let Some(message) = TransportFeedback::parse(&bytes) else { continue };
            let _ = departures.take(stamp, &message, &mut arrived);
        }
        (arrived.0.len(), departures.memory())
    }

    fn told(count: u64, late: u64) -> (usize, usize) {
        told_in(6_000, count, |_| late)
    }

    #[test]
    fn memory_that_late_answers_took_is_given_back_when_they_come_in_time() {
        let [small, large] = [FIRST_WINDOW, WINDOW].map(|length| length * size_of::<Departure>());
        let (_, held) = told_in(15_000, 50, |_| 1_900);
        assert_eq!(held, large, "they are always late");
        let late_once = |ms| if (5_000..7_000).contains(&ms) { 1_900 } else { 60 };
        let (_, held) = told_in(9_000, 50, late_once);
        assert!(held > small);
        let (told, held) = told_in(40_000, 50, late_once);
        assert_eq!(held, small);
        assert!(told > 36_000, "and what is sent meanwhile is told of: {told}");
    }

    #[test]
    fn answers_that_are_late_are_understood_and_those_in_time_take_little_memory() {
        let (soon, small) = told(50, 100);
        assert!((5_800..6_000).contains(&soon), "{soon}");
        assert_eq!(small, FIRST_WINDOW * size_of::<Departure>());
        let (late, large) = told(50, 1_900);
        // Until it has grown nothing is lost.
        assert!((4_000..6_000 - 1_850).contains(&late), "{late}");
        assert_eq!(large, WINDOW * size_of::<Departure>());
        let (too_late, most) = told(50, 3_000);
        assert_eq!((too_late, most), (0, large), "and no more than that is remembered");
    }
}
