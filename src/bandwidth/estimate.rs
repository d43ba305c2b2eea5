//! What goes into an estimate and what comes out of it, as the rest of the server sees it.

use crate::rtp::Bitrate;
use std::time::{Duration, Instant};

/// What a receiver tells its sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Means {
    /// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportWide,
    /// Its own estimate (draft-alvestrand-rmcat-remb-03).
    Remb,
    /// Receiver reports at most.
    Reports,
}

/// The rates between which the estimate moves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    pub min: Option<Bitrate>,
    /// Wins over `min`.
    pub max: Option<Bitrate>,
    pub start: Option<Bitrate>,
}

/// What became of one packet, as transport-wide feedback tells.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// Its number of the transport, unwrapped.
    pub seq: u64,
    /// In bytes, as it stood in the datagram.
    pub size: u32,
    pub sent_at: Instant,
    /// On the receiver's clock, whatever its origin; `None` if it did not arrive.
    pub received_at: Option<Duration>,
}

/// What holds the estimate where it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Limit {
    /// Nothing was reported yet.
    Start,
    /// A queue that grew.
    Delay,
    Loss,
    /// The receiver's own estimate.
    Remb,
    /// Too little is sent to learn more.
    Application,
    /// A probe is under way.
    Probing,
    /// Feedback has ceased.
    Silence,
    Minimum,
    Maximum,
    /// The receiver reports nothing that could limit.
    Nothing,
}

impl Limit {
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Delay,
        Self::Loss,
        Self::Remb,
        Self::Application,
        Self::Probing,
        Self::Silence,
        Self::Minimum,
        Self::Maximum,
        Self::Nothing,
    ];

    /// For statistics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Delay => "delay",
            Self::Loss => "loss",
            Self::Remb => "remb",
            Self::Application => "application",
            Self::Probing => "probing",
            Self::Silence => "silence",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::Nothing => "nothing",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Estimate {
    pub target: Bitrate,
    pub reason: Limit,
}

/// What was not believed, and what came to nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Fates of packets that were not sent yet.
    pub refused: u64,
    /// Receivers' clocks that jumped.
    pub clock_jumps: u64,
    /// Probes that were not filled, and those that came back too mangled to measure.
    pub probes_unfilled: u64,
    pub probes_unclear: u64,
}

impl Counts {
    /// With the names they are shown under.
    pub const fn named(self) -> [(&'static str, u64); 4] {
        [
            ("refused", self.refused),
            ("clock_jumps", self.clock_jumps),
            ("probes_unfilled", self.probes_unfilled),
            ("probes_unclear", self.probes_unclear),
        ]
    }

    /// What was counted after `before`.
    pub const fn since(self, before: Self) -> Self {
        Self {
            refused: self.refused - before.refused,
            clock_jumps: self.clock_jumps - before.clock_jumps,
            probes_unfilled: self.probes_unfilled - before.probes_unfilled,
            probes_unclear: self.probes_unclear - before.probes_unclear,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, one: Self) {
        self.refused += one.refused;
        self.clock_jumps += one.clock_jumps;
        self.probes_unfilled += one.probes_unfilled;
        self.probes_unclear += one.probes_unclear;
    }
}
