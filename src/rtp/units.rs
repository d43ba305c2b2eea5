//! Quantities that would otherwise be bare integers of doubtful scale.

use std::time::Duration;

/// Bits per second. The remote API speaks of kbps: see [`Bitrate::from_kbps`].
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Bitrate(u64);

impl Bitrate {
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }

    pub const fn from_kbps(kbps: u64) -> Self {
        Self(kbps.saturating_mul(1_000))
    }

    /// The rate at which `bytes` pass in `time`; `None` for no time at all.
    pub fn of(bytes: u64, time: Duration) -> Option<Self> {
        let bits = u128::from(bytes) * 8 * 1_000_000;
        let bps = bits.checked_div(time.as_micros())?;
        Some(Self(u64::try_from(bps).unwrap_or(u64::MAX)))
    }

    pub const fn bps(self) -> u64 {
        self.0
    }

    pub const fn kbps(self) -> u64 {
        self.0 / 1_000
    }
}

/// Wall clock time as sender reports carry it: seconds since 1900 in the upper 32 bits, fractions
/// of 2⁻³² s in the lower ones (RFC 3550 §4). Arithmetic wraps, as the era does in 2036.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NtpTime(u64);

impl NtpTime {
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// `since_unix_epoch` is the time since 1970-01-01 00:00 UTC.
    pub fn from_unix(since_unix_epoch: Duration) -> Self {
        const FROM_1900_TO_1970: u64 = 2_208_988_800;
        Self(FROM_1900_TO_1970 << 32).plus(since_unix_epoch)
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    pub const fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The middle 32 bits: units of 2⁻¹⁶ s, as LSR and DLSR have them (RFC 3550 §6.4.1).
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    pub fn plus(self, time: Duration) -> Self {
        let whole = time.as_secs() << 32;
        let part = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        Self(self.0.wrapping_add(whole).wrapping_add(part))
    }

    /// `self` − `other` in units of 2⁻³² s; negative when `other` is later.
    pub const fn minus(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }
}

/// A time of 2⁻¹⁶ s units, the scale of DLSR and of round trips measured with it.
pub fn from_middle_units(units: u32) -> Duration {
    Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16)
}

/// `time` in units of 2⁻¹⁶ s, at most what 32 bits hold.
pub fn to_middle_units(time: Duration) -> u32 {
    u32::try_from((time.as_nanos() << 16) / 1_000_000_000).unwrap_or(u32::MAX)
}

/// Media clock ticks that pass in `time`, wrapped as RTP timestamps are.
pub fn ticks(time: Duration, clock_rate: u32) -> u32 {
    let rate = u64::from(clock_rate);
    let whole = time.as_secs().wrapping_mul(rate);
    let part = u64::from(time.subsec_nanos()) * rate / 1_000_000_000;
    whole.wrapping_add(part) as u32
}

/// The abs-send-time header extension: 24 bits, 6 for seconds and 18 for fractions of one. Only
/// differences mean something, so any steady clock will do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AbsSendTime(u32);

impl AbsSendTime {
    pub fn new(elapsed: Duration) -> Self {
        let part = (u64::from(elapsed.subsec_nanos()) << 18) / 1_000_000_000;
        Self((((elapsed.as_secs() & 0x3f) << 18) | part) as u32)
    }

    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 0x00ff_ffff)
    }

    pub const fn bits(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unix_epoch_is_at_its_ntp_second() {
        let time = NtpTime::from_unix(Duration::from_millis(1_500));
        assert_eq!(time.seconds(), 2_208_988_801);
        assert_eq!(time.bits() as u32, 1 << 31);
        assert_eq!(time.middle(), (2_208_988_801 << 16) | 0x8000);
    }

    #[test]
    fn differences_survive_the_end_of_an_era() {
        let before = NtpTime::from_bits(u64::MAX);
        assert_eq!(before.plus(Duration::from_secs(1)).minus(before), 1 << 32);
        assert_eq!(before.minus(before.plus(Duration::from_secs(1))), -(1 << 32));
    }

    #[test]
    fn scales_convert_into_each_other() {
        assert_eq!(from_middle_units(1 << 15), Duration::from_millis(500));
        assert_eq!(to_middle_units(Duration::from_millis(500)), 1 << 15);
        assert_eq!(to_middle_units(Duration::from_secs(1 << 40)), u32::MAX);
        assert_eq!(ticks(Duration::from_millis(20), 48_000), 960);
        assert_eq!(AbsSendTime::new(Duration::from_millis(64_500)).bits(), 1 << 17);
        assert_eq!(Bitrate::of(125, Duration::from_millis(1)), Some(Bitrate::from_kbps(1_000)));
        assert_eq!(Bitrate::of(125, Duration::ZERO), None);
    }
}
