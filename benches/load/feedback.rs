//! What a viewer tells of arrivals over all packets of its transport, as browsers do ten times a
//! second (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::time::Duration;

use rivero::rtp::sequence::Unwrapper;
use rivero::rtp::transport_feedback::{MAX_STATUSES, TICK, Writer};

/// Between two messages.
pub const EVERY: Duration = Duration::from_millis(100);
/// Arrivals that wait to be told of; more come only at rates that nobody sends to one viewer.
const MOST: usize = 8_192;
/// A step of the numbers by more than this is a new beginning.
const JUMP: u64 = 2_000;

#[derive(Default)]
pub struct Arrivals {
    unwrapper: Unwrapper,
    /// The first that was not told of yet.
    base: Option<u64>,
    /// With the tick of each.
    seen: Vec<(u64, u32)>,
    sorted: bool,
    messages: u8,
}

impl Arrivals {
    /// A packet with this number arrived at a time of the harness's clock.
    pub fn note(&mut self, number: u16, at: Duration) {
        let number = self.unwrapper.unwrap(number);
        let base = *self.base.get_or_insert(number);
        // What is older was told of as lost.
        if number < base || self.seen.len() == MOST {
            return;
        }
        if number - base > JUMP && self.seen.is_empty() {
            self.base = Some(number);
        }
        self.sorted = self.seen.last().is_none_or(|(last, _)| self.sorted && *last < number);
        self.seen.push((number, (at.as_nanos() / TICK.as_nanos()) as u32));
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Appends a message about what arrived, as much as fits one; false if there is nothing to tell.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        writer: &mut Writer,
        sender: u32,
        media: u32,
    ) -> bool {
        if !self.sorted {
            self.seen.sort_unstable();
            self.seen.dedup_by_key(|(number, _)| *number);
            self.sorted = true;
        }
        let (Some(base), Some(&(first, _))) = (self.base, self.seen.first()) else { return false };
        // A row of losses that one message cannot tell of is passed over.
        let base = if first - base < MAX_STATUSES as u64 { base } else { first };
        let mut rest = self.seen.iter().copied().peekable();
        let statuses = (base..).map_while(|number| match rest.peek() {
            Some((next, tick)) if *next == number => {
                let tick = *tick;
                rest.next();
                Some(Some(tick))
            }
            Some(_) => Some(None),
            None => None,
        });
        let told = writer.write(out, sender, media, self.messages, base as u16, statuses) as u64;
        self.messages = self.messages.wrapping_add(1);
        let base = base + told;
        self.base = Some(base);
        if told == 0 {
            // A step of time that cannot be said; the next message begins behind it.
            self.seen.clear();
            return false;
        }
        let left = self.seen.iter().position(|(number, _)| *number >= base);
        self.seen.drain(..left.unwrap_or(self.seen.len()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rivero::rtp::transport_feedback::{Status, TransportFeedback};

    fn told(arrivals: &mut Arrivals, base: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut came, mut lost, mut writer) = (Vec::new(), Vec::new(), Writer::default());
        let mut out = Vec::new();
        while arrivals.write(&mut out, &mut writer, 1, 2) {
            let message = TransportFeedback::parse(&out).expect("a message");
            let start = base + u64::from(message.base.wrapping_sub(base as u16));
            for status in message.statuses() {
                match status {
                    Status::Lost(range) => lost.extend(range.map(|at| start + u64::from(at))),
                    Status::Received { place, .. } => came.push(start + u64::from(place)),
                }
            }
            out.clear();
        }
        (came, lost)
    }

    #[test]
    fn each_packet_is_told_of_once_over_wraps_and_in_any_order() {
        let mut arrivals = Arrivals::default();
        let base = 65_500_u64;
        arrivals.note(base as u16, Duration::ZERO);
        let first = told(&mut arrivals, base);
        assert_eq!(first, (vec![base], vec![]));
        for number in [1, 3, 2, 3, 40, 700] {
            arrivals.note((base + number) as u16, Duration::from_millis(number));
        }
        let (came, lost) = told(&mut arrivals, base);
        assert_eq!(came, [1, 2, 3, 40, 700].map(|number| base + number));
        assert_eq!(lost, (4..40).map(|number| base + number).collect::<Vec<_>>());
        // Late, and told of as lost: not again.
        arrivals.note((base + 20) as u16, Duration::from_secs(1));
        assert!(arrivals.is_empty());
        // A new beginning far away is none to count up to.
        arrivals.note((base + 30_000) as u16, Duration::from_secs(1));
        assert_eq!(told(&mut arrivals, base), (vec![base + 30_000], vec![]));
    }
}
