//! What the router counts, and the names under which it drops.

use super::feedback::Limit;
use crate::rtp::{Bitrate, Format};
use std::time::Duration;

/// Why a packet, or a request for one, went no further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// It was here before.
    Duplicate,
    /// So late that nobody can place it.
    TooOld,
    /// Far from the sequence before it, and alone there.
    SequenceJump,
    /// Of an SSRC from before the present one.
    FormerSsrc,
    /// A payload type nobody negotiated.
    UnknownPayloadType,
    /// The sink has no payload type for this format.
    Format,
    /// A video sink starts at a keyframe.
    WaitingForKeyframe,
    /// From before the sink was connected to this source.
    BeforeSwitch,
    /// Of a layer that the sink does not take.
    Layer,
    /// A dependency descriptor that cannot be used; its packet goes on without.
    Descriptor,
    /// A picture whose number is far from those before; it is numbered on.
    PictureJump,
    /// The sink is switched off.
    Inactive,
    /// Asked for again, but not kept, or never received.
    NotKept,
    /// Asked for again within a round trip.
    RepeatedTooSoon,
    /// Asked for again beyond what a sink may repeat.
    RepeatBudget,
    /// A repetition was asked for again; the packet in it is asked for by itself.
    RepetitionNacked,
    /// A repetition without the number of what it repeats.
    RtxTooShort,
    /// A repetition of a payload type that nobody negotiated.
    RtxUnknownFormat,
    /// A repetition for another stream than the one that comes.
    RtxForeign,
    /// A repetition of a packet far from those that come.
    RtxOutOfWindow,
    /// A repetition of a packet that had arrived: networks are probed with such ones.
    RtxDuplicate,
    /// A repetition of nothing, to probe the network with.
    RtxPadding,
    /// The number in its transport is far from those before.
    TransportSequence,
    /// Arrivals that came too fast to be told to their sender.
    ArrivalsForgotten,
    /// Feedback about a transport that cannot be read.
    MalformedFeedback,
    /// Feedback about packets that were never sent.
    FeedbackUnsent,
    /// Feedback from long before the one before it.
    FeedbackTime,
    /// More has to wait for its time than may.
    PacerFull,
    /// It waited for its time longer than it was kept.
    PacerForgotten,
    /// The sink gets no pictures for a while, as its link carries far less.
    Starved,
    /// A compound control packet that cannot be read to its end.
    MalformedRtcp,
    /// Feedback that says nothing about any packet or stream.
    EmptyFeedback,
    /// A control packet about streams that its sender has no part in.
    ForeignSsrc,
}

impl DropReason {
    pub const ALL: [Self; 33] = [
        Self::Duplicate,
        Self::TooOld,
        Self::SequenceJump,
        Self::FormerSsrc,
        Self::UnknownPayloadType,
        Self::Format,
        Self::WaitingForKeyframe,
        Self::BeforeSwitch,
        Self::Layer,
        Self::Descriptor,
        Self::PictureJump,
        Self::Inactive,
        Self::NotKept,
        Self::RepeatedTooSoon,
        Self::RepeatBudget,
        Self::RepetitionNacked,
        Self::RtxTooShort,
        Self::RtxUnknownFormat,
        Self::RtxForeign,
        Self::RtxOutOfWindow,
        Self::RtxDuplicate,
        Self::RtxPadding,
        Self::TransportSequence,
        Self::ArrivalsForgotten,
        Self::MalformedFeedback,
        Self::FeedbackUnsent,
        Self::FeedbackTime,
        Self::PacerFull,
        Self::PacerForgotten,
        Self::Starved,
        Self::MalformedRtcp,
        Self::EmptyFeedback,
        Self::ForeignSsrc,
    ];

    /// The reason as a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::SequenceJump => "sequence_jump",
            Self::FormerSsrc => "former_ssrc",
            Self::UnknownPayloadType => "unknown_payload_type",
            Self::Format => "format",
            Self::WaitingForKeyframe => "waiting_for_keyframe",
            Self::BeforeSwitch => "before_switch",
            Self::Layer => "layer",
            Self::Descriptor => "descriptor",
            Self::PictureJump => "picture_jump",
            Self::Inactive => "inactive",
            Self::NotKept => "not_kept",
            Self::RepeatedTooSoon => "repeated_too_soon",
            Self::RepeatBudget => "repeat_budget",
            Self::RepetitionNacked => "repetition_nacked",
            Self::RtxTooShort => "rtx_too_short",
            Self::RtxUnknownFormat => "rtx_unknown_format",
            Self::RtxForeign => "rtx_foreign",
            Self::RtxOutOfWindow => "rtx_out_of_window",
            Self::RtxDuplicate => "rtx_duplicate",
            Self::RtxPadding => "rtx_padding",
            Self::TransportSequence => "transport_sequence",
            Self::ArrivalsForgotten => "arrivals_forgotten",
            Self::MalformedFeedback => "malformed_feedback",
            Self::FeedbackUnsent => "feedback_unsent",
            Self::FeedbackTime => "feedback_time",
            Self::PacerFull => "pacer_full",
            Self::PacerForgotten => "pacer_forgotten",
            Self::Starved => "starved",
            Self::MalformedRtcp => "malformed_rtcp",
            Self::EmptyFeedback => "empty_feedback",
            Self::ForeignSsrc => "foreign_ssrc",
        }
    }
}

/// A counter per reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl Drops {
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own += other);
    }

    /// What was counted since `before`, an earlier state of the same counters.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_sub(before.0[at])))
    }

    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.0).filter(|&(_, count)| count > 0)
    }
}

/// What came from a source, and what it was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceStats {
    /// Known from the first packet on.
    pub ssrc: Option<u32>,
    pub format: Option<Format>,
    /// With those that came as repetitions on a stream of their own.
    pub packets: u64,
    /// Payload bytes, without padding.
    pub bytes: u64,
    /// Of those, what came on a stream of repetitions.
    pub rtx_packets: u64,
    pub rtx_bytes: u64,
    /// Lost packets that such a repetition brought.
    pub repaired: u64,
    /// Negative when duplicates outnumber losses. Repetitions on a stream of their own do not count.
    pub lost: i64,
    /// Between the last two reports, in 256ths.
    pub fraction_lost: u8,
    pub jitter: Duration,
    pub round_trip: Option<Duration>,
    /// Over the last measuring interval.
    pub bitrate: Bitrate,
    pub keyframes: u64,
    /// NACK packets sent, and the sequence numbers in them.
    pub nacks: u64,
    pub nacked_packets: u64,
    /// Lost packets that were given up.
    pub given_up: u64,
    pub plis: u64,
    pub firs: u64,
    /// The last REMB sent, and what held it down.
    pub remb: Option<Bitrate>,
    pub limit: Option<Limit>,
    pub drops: Drops,
}

/// What went to a sink, and what came back about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinkStats {
    pub ssrc: u32,
    /// Where retransmissions come from, if not from there.
    pub rtx_ssrc: Option<u32>,
    /// Without retransmissions.
    pub packets: u64,
    /// Payload bytes, without retransmissions.
    pub bytes: u64,
    pub retransmitted_packets: u64,
    pub retransmitted_bytes: u64,
    /// Repetitions that nobody asked for, to find out what the link carries.
    pub padding_packets: u64,
    pub padding_bytes: u64,
    /// As the receiver last reported it.
    pub lost: i64,
    /// As the receiver last reported it, in 256ths.
    pub fraction_lost: u8,
    /// As the receiver last reported it.
    pub jitter: Duration,
    pub round_trip: Option<Duration>,
    /// Of what was sent in the last second or so, payloads and what was sent again.
    pub bitrate: Bitrate,
    /// NACK packets received, and the sequence numbers in them.
    pub nacks: u64,
    pub nacked_packets: u64,
    pub plis: u64,
    pub firs: u64,
    /// How often it went over to another encoding of what it is connected to.
    pub switches: u64,
    /// The last REMB received.
    pub remb: Option<Bitrate>,
    pub drops: Drops,
}

/// What one peer's control packets were like.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerStats {
    pub rtcp_received: u64,
    pub rtcp_sent: u64,
    /// Compound packets that could not be read to their end.
    pub malformed: u64,
    /// Reports and requests about an SSRC that is not this peer's.
    pub unknown_ssrc: u64,
    pub round_trip: Option<Duration>,
    /// Transport-wide feedback messages, both ways.
    pub feedback_sent: u64,
    pub feedback_received: u64,
    /// By the peer's feedback, over the last half second of it: what arrived, and what was missing of
    /// all, in 256ths.
    pub acknowledged: Bitrate,
    pub fraction_missing: u8,
}
