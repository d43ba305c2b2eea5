//! RFC 3550 as numbers: packets, sequence numbers, statistics and control packets, without sockets,
//! clocks or codecs.

pub mod extensions;
pub mod format;
pub mod jitter;
pub mod keyframe;
pub mod nack;
pub mod packet;
pub mod red;
pub mod rewrite;
pub mod rtcp;
pub mod sequence;
pub mod stats;
pub mod transport_feedback;
pub mod units;

pub use extensions::{Extension, Extensions};
pub use format::{Codec, Format, Kind};
pub use packet::{PacketError, RtpPacket};
pub use units::{AbsSendTime, Bitrate, NtpTime};
