//! Control packets: reports, descriptions and goodbyes of RFC 3550 §6, feedback of RFC 4585 and
//! RFC 5104, and the receiver's estimated maximum bitrate (draft-alvestrand-rmcat-remb).
//!
//! Reading walks a compound packet without copying it and takes the reduced-size packets of
//! RFC 5506 too. Transport-wide feedback and extended reports are handed out raw.

mod read;
mod write;

pub use read::{
    Block, FirEntries, NackedSequences, Packets, ReportBlocks, Rtcp, RtcpError, SdesChunks, Ssrcs,
    packets,
};
pub use write::{
    write_bye, write_fir, write_nack, write_pli, write_receiver_report, write_remb,
    write_sdes_cname, write_sender_report,
};

/// Packet types.
pub(crate) const SR: u8 = 200;
pub(crate) const RR: u8 = 201;
pub(crate) const SDES: u8 = 202;
pub(crate) const BYE: u8 = 203;
pub(crate) const APP: u8 = 204;
pub(crate) const RTPFB: u8 = 205;
pub(crate) const PSFB: u8 = 206;
pub(crate) const XR: u8 = 207;

/// Report blocks that fit one report: its count has five bits.
pub const MAX_BLOCKS: usize = 31;

/// What a receiver says of one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Since the previous report, in 256ths.
    pub fraction_lost: u8,
    /// Since the beginning; 24 bits on the wire.
    pub lost: i32,
    /// Extended highest sequence number received.
    pub highest: u32,
    /// In ticks of the media clock.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time; zero if none came.
    pub last_sr: u32,
    /// Time since it came, in 2⁻¹⁶ s.
    pub since_sr: u32,
}

/// What a sender says of itself (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SenderInfo {
    pub ntp: super::NtpTime,
    pub timestamp: u32,
    pub packets: u32,
    pub octets: u32,
}

#[cfg(test)]
mod tests;
