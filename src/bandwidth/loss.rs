//! The rate that losses allow.
//!
//! The draft (draft-ietf-rmcat-gcc-02 §6) slows down at 10 % of loss whatever its cause, and so a call
//! over a wireless link that loses 10 % at any rate dies of its own estimate. Here, in the spirit of
//! the likelihood-based control of newer libwebrtc, two explanations compete for the last seconds: a
//! link that loses a share of what it is given, and a link that lets pass a rate and loses what exceeds
//! it. Only the second is a reason to slow down. Where the rate did not vary, the two look alike; then
//! a heavy loss is taken for a limit once, and that very step tells which it was.
//!
//! Queues that grow before they lose are the delay controller's; this is for those too short to be
//! seen, and for peers that report nothing but loss.

/// A bin lasts at least this long, in µs, and has at least so many packets, but no more than a second.
const BIN: i64 = 200_000;
const BIN_PACKETS: u32 = 10;
const LONGEST_BIN: i64 = 1_000_000;
const BINS: usize = 24;
/// How much of its weight a bin keeps when the next one comes: two seconds count.
const AGEING: f64 = 0.9;
/// Loss that is no reason to stop growing.
const HARMLESS: f64 = 0.02;
/// Loss of this much above what the link always loses is a limit, unless the bins say otherwise.
const HEAVY: f64 = 0.25;
/// An explanation is believed when it leaves less than this share of what the other leaves unexplained;
/// the one that costs the call its quality has to be the better one by far.
const CLEARLY: f64 = 0.4;
const BY_FAR: f64 = 0.2;
/// No link that carries a call at all loses more than this whatever it is given.
const MOST: f64 = 0.35;
/// How long the link is believed to lose what it was found to lose, in µs.
const REMEMBERED: i64 = 30_000_000;
/// Growth per second of a limit that was found.
const FACTOR: f64 = 1.08;
/// It grows while more than this share of it is sent.
const USED: f64 = 0.7;

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    /// Bits per second.
    sent: f64,
    delivered: f64,
}

impl Bin {
    fn is_lossy(&self) -> bool {
        self.delivered < (1.0 - HARMLESS / 2.0) * self.sent
    }
}

#[derive(Clone, Copy, Debug)]
struct Open {
    began: i64,
    first: u64,
    last: u64,
    packets: u32,
    bytes: u64,
    lost: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Unknown,
    /// A share is lost at any rate.
    Share,
    /// What exceeds a rate is lost.
    Rate,
}

#[derive(Debug, Default)]
pub struct LossControl {
    open: Option<Open>,
    /// A ring, and how many of it are filled.
    bins: [Bin; BINS],
    next: usize,
    filled: usize,
    highest: Option<u64>,
    limit: Option<f64>,
    /// The share that the link loses at any rate, and until when that is believed.
    inherent: f64,
    inherent_until: i64,
    /// Bins since the limit was lowered.
    since: u32,
    closed: Option<i64>,
}

impl LossControl {
    /// What became of a packet, told by transport-wide feedback. `sent` is in µs.
    pub fn add(&mut self, seq: u64, size: u32, sent: i64, arrived: bool) {
        if self.highest.is_some_and(|highest| seq <= highest) {
            // Told of before; if it was called lost it was only late.
            if arrived && let Some(open) = &mut self.open {
                open.lost = open.lost.saturating_sub(u64::from(size));
            }
            return;
        }
        self.highest = Some(seq);
        if let Some(open) = self.open {
            let lasted = sent.saturating_sub(open.began);
            if lasted >= LONGEST_BIN || (lasted >= BIN && open.packets >= BIN_PACKETS) {
                self.open = None;
                self.close(open, lasted, sent);
            }
        }
        let fresh = Open { began: sent, first: seq, last: seq, packets: 0, bytes: 0, lost: 0 };
        let open = self.open.get_or_insert(fresh);
        open.last = seq;
        open.packets += 1;
        open.bytes += u64::from(size);
        open.lost += if arrived { 0 } else { u64::from(size) };
    }

    /// A receiver report: of `bytes` sent in `time` µs this share was lost.
    pub fn report(&mut self, now: i64, bytes: u64, time: i64, lost: f64) {
        if time >= BIN && bytes > 0 {
            let sent = bytes as f64 * 8e6 / time as f64;
            let bin = Bin { sent, delivered: sent * (1.0 - lost.clamp(0.0, 1.0)) };
            self.observe(now, bin, time, true);
        }
    }

    /// In bits per second; `None` as long as losses limit nothing.
    pub fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// A limit above this limits nothing.
    pub fn forget_above(&mut self, rate: f64) {
        if self.limit.is_some_and(|limit| limit > rate) {
            self.limit = None;
        }
    }

    /// A probe got through at this rate.
    pub fn raise(&mut self, rate: f64) {
        self.limit = self.limit.map(|limit| limit.max(rate));
    }

    /// The share lost of late.
    pub fn lately(&self) -> f64 {
        share_lost(self.newest().take(3))
    }

    fn close(&mut self, open: Open, lasted: i64, now: i64) {
        // Packets that no feedback told of were sent too.
        let numbers = open.last.saturating_sub(open.first).saturating_add(1) as f64;
        let told = f64::from(open.packets) / numbers.max(1.0);
        if lasted > 4 * LONGEST_BIN || told < 0.2 {
            return;
        }
        let sent = open.bytes as f64 * 8e6 / lasted as f64 / told;
        let share = open.lost as f64 / open.bytes.max(1) as f64;
        let bin = Bin { sent, delivered: sent * (1.0 - share.min(1.0)) };
        self.observe(now, bin, lasted, false);
    }

    /// Where nothing probes, a limit grows even if it is not used.
    fn observe(&mut self, now: i64, bin: Bin, lasted: i64, blindly: bool) {
        self.bins[self.next] = bin;
        self.next = (self.next + 1) % BINS;
        self.filled = (self.filled + 1).min(BINS);
        self.since = self.since.saturating_add(1);
        self.closed = Some(now);
        if now > self.inherent_until {
            self.inherent = 0.0;
        }
        let lately = self.lately();
        if lately <= HARMLESS + self.inherent {
            let seconds = lasted as f64 / 1e6;
            let used = |limit: f64| blindly || bin.sent > USED * limit;
            let grown = |limit| if used(limit) { limit * FACTOR.powf(seconds) } else { limit };
            self.limit = self.limit.map(grown);
            if lately <= HARMLESS {
                return;
            }
        }
        let (verdict, rate, share) = self.judge();
        match verdict {
            Verdict::Share => {
                self.limit = None;
                self.inherent = share;
                self.inherent_until = now.saturating_add(REMEMBERED);
            }
            Verdict::Rate if self.since > 1 => self.lower(0.95 * rate),
            Verdict::Unknown if self.since > 3 && lately > HEAVY + self.inherent => {
                let (mut delivered, mut count) = (0.0, 0.0);
                for bin in self.newest().take(2) {
                    delivered += bin.delivered;
                    count += 1.0;
                }
                self.lower(delivered / count);
            }
            Verdict::Rate | Verdict::Unknown => {}
        }
    }

    /// Never by more than half in one step: an outage is not a rate.
    fn lower(&mut self, rate: f64) {
        let sent = self.newest().next().map_or(0.0, |bin| bin.sent);
        let before = self.limit.map_or(sent, |limit| limit.min(sent));
        let rate = rate.max(before / 2.0).max(1.0);
        self.limit = Some(self.limit.map_or(rate, |limit| limit.min(rate)));
        self.since = 0;
    }

    /// Which explanation leaves less unexplained; the rate that passes, and the share that is lost.
    fn judge(&self) -> (Verdict, f64, f64) {
        let unknown = (Verdict::Unknown, 0.0, 0.0);
        let (mut passed, mut lossy, mut weight) = (0.0, 0.0, 1.0);
        for bin in self.newest().filter(|bin| bin.is_lossy()) {
            passed += weight * bin.delivered;
            lossy += weight;
            weight *= AGEING;
        }
        if lossy < 2.0 {
            return unknown;
        }
        let rate = passed / lossy;
        let known = self.bins_like_now(rate);
        let (mut sent, mut lost) = (0.0, 0.0);
        weight = 1.0;
        for bin in self.newest().take(known) {
            sent += weight * bin.sent;
            lost += weight * (bin.sent - bin.delivered);
            weight *= AGEING;
        }
        if known < 6 || sent <= 0.0 {
            return unknown;
        }
        let share = lost / sent;
        let (mut by_share, mut by_rate) = (0.0, 0.0);
        weight = 1.0;
        for bin in self.newest().take(known) {
            let off = bin.delivered - (1.0 - share) * bin.sent;
            by_share += weight * off * off;
            let off = bin.delivered - bin.sent.min(rate);
            by_rate += weight * off * off;
            weight *= AGEING;
        }
        let verdict = if by_rate < BY_FAR * by_share {
            Verdict::Rate
        } else if share < MOST && self.lately() < share + HEAVY && by_share < CLEARLY * by_rate {
            Verdict::Share
        } else {
            Verdict::Unknown
        };
        (verdict, rate, share)
    }

    /// How many of the newest bins tell of the link as it is: not those before it changed, when nothing
    /// was lost of more than passes now.
    fn bins_like_now(&self, rate: f64) -> usize {
        let (mut known, mut other) = (0, 0);
        for (back, bin) in self.newest().enumerate() {
            if bin.is_lossy() || bin.sent <= 1.05 * rate {
                known = back + 1;
                other = 0;
            } else {
                other += 1;
                if other == 3 {
                    break;
                }
            }
        }
        known
    }

    fn newest(&self) -> impl Iterator<Item = &Bin> {
        (1..=self.filled).map(|back| &self.bins[(self.next + BINS - back) % BINS])
    }
}

fn share_lost<'a>(bins: impl Iterator<Item = &'a Bin>) -> f64 {
    let (mut sent, mut delivered) = (0.0, 0.0);
    for bin in bins {
        sent += bin.sent;
        delivered += bin.delivered;
    }
    if sent > 0.0 { 1.0 - delivered / sent } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends at `rate` for some bins, of which `lost` of so many packets get lost.
    fn run(
        control: &mut LossControl,
        bins: u64,
        rate: impl Fn(u64) -> u64,
        lost: impl Fn(f64) -> f64,
    ) {
        let mut chance = 1u64;
        for bin in 0..bins {
            let began = control.highest.map_or(0, |seq| seq + 1);
            let packets = rate(bin) / 5 / 8_000;
            let from = control.closed.unwrap_or(0) + 1;
            for n in 0..=packets {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let share = lost(rate(bin) as f64);
                let arrived = (chance >> 33) as f64 / (1u64 << 31) as f64 >= share;
                let sent = from + (n * 200_000 / packets) as i64;
                control.add(began + n, 1_000, sent, arrived);
            }
        }
    }

    /// Rates as pictures of different sizes make them.
    fn varied(bin: u64) -> u64 {
        2_000_000 + [0, 500_000, 200_000, 900_000, 400_000][bin as usize % 5]
    }

    #[test]
    fn a_share_that_is_lost_at_any_rate_limits_nothing() {
        for share in [0.05, 0.1, 0.2] {
            let mut control = LossControl::default();
            run(&mut control, 300, varied, |_| share);
            assert_eq!(control.limit(), None, "{share}");
        }
    }

    #[test]
    fn a_rate_beyond_which_all_is_lost_is_found() {
        let mut control = LossControl::default();
        run(&mut control, 60, varied, |rate| (1.0 - 1.8e6 / rate).max(0.0));
        let limit = control.limit().expect("a limit");
        assert!((1.5e6..1.9e6).contains(&limit), "{limit}");
    }

    #[test]
    fn heavy_loss_limits_until_it_turns_out_to_be_the_link() {
        let mut control = LossControl::default();
        run(&mut control, 20, |_| 4_000_000, |_| 0.0);
        run(&mut control, 4, |_| 4_000_000, |_| 0.3);
        let limit = control.limit().expect("a limit");
        assert!(limit <= 2.9e6, "{limit}");
        // The sender obeys, and as much is lost as before.
        run(&mut control, 30, |bin| 1_000_000 + bin % 4 * 200_000, |_| 0.3);
        assert_eq!(control.limit(), None);
    }

    #[test]
    fn a_link_that_loses_most_is_too_narrow_whatever_it_is_given() {
        let mut control = LossControl::default();
        run(&mut control, 20, |_| 4_000_000, |_| 0.0);
        run(&mut control, 4, |_| 4_000_000, |_| 0.75);
        assert!(control.limit().expect("a limit") <= 2.1e6);
        run(&mut control, 30, |bin| 1_000_000 + bin % 4 * 200_000, |_| 0.75);
        assert!(control.limit().expect("a limit") <= 0.5e6);
    }
}
