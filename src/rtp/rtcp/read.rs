//! Bytes to control packets.

use super::{APP, BYE, PSFB, RR, RTPFB, ReportBlock, SDES, SR, SenderInfo, XR};
use crate::rtp::{Bitrate, NtpTime};

/// Why the rest of a compound packet cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RtcpError {
    #[error("RTCP header with version {0} instead of 2")]
    Version(u8),
    #[error("RTCP packet of type {0} is cut short")]
    Short(u8),
    #[error("RTCP packet of type {0} has padding that does not fit")]
    Padding(u8),
}

/// One control packet inside a compound one.
#[derive(Clone, Copy, Debug)]
pub enum Rtcp<'a> {
    SenderReport {
        ssrc: u32,
        info: SenderInfo,
        blocks: ReportBlocks<'a>,
    },
    ReceiverReport {
        ssrc: u32,
        blocks: ReportBlocks<'a>,
    },
    Sdes {
        chunks: SdesChunks<'a>,
    },
    Bye {
        ssrcs: Ssrcs<'a>,
    },
    Nack {
        sender: u32,
        media: u32,
        lost: NackedSequences<'a>,
    },
    Pli {
        sender: u32,
        media: u32,
    },
    Fir {
        sender: u32,
        entries: FirEntries<'a>,
    },
    Remb {
        sender: u32,
        bitrate: Bitrate,
        ssrcs: Ssrcs<'a>,
    },
    /// Transport-wide feedback, from the packet's header on.
    TransportFeedback {
        sender: u32,
        media: u32,
        raw: &'a [u8],
    },
    /// A type or format that is not interpreted.
    Other {
        packet_type: u8,
        count: u8,
        body: &'a [u8],
    },
}

/// Walks a compound packet. After an error nothing more comes.
pub fn packets(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound }
}

#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Rtcp<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (packet, rest) = match split(self.rest) {
            Ok(parts) => parts,
            Err(error) => {
                self.rest = &[];
                return Some(Err(error));
            }
        };
        self.rest = rest;
        Some(interpret(packet).inspect_err(|_| self.rest = &[]))
    }
}

/// The first packet and what follows it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), RtcpError> {
    let &[first, packet_type, l0, l1] = bytes.first_chunk().ok_or(RtcpError::Short(0))?;
    if first >> 6 != 2 {
        return Err(RtcpError::Version(first >> 6));
    }
    let length = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
    bytes.split_at_checked(length).ok_or(RtcpError::Short(packet_type))
}

fn interpret(packet: &[u8]) -> Result<Rtcp<'_>, RtcpError> {
    let (count, packet_type) = (packet[0] & 0x1f, packet[1]);
    let mut body = &packet[4..];
    if packet[0] & 0x20 != 0 {
        let padding = usize::from(body.last().copied().unwrap_or(0));
        let kept = body.len().checked_sub(padding).filter(|_| padding > 0);
        body = &body[..kept.ok_or(RtcpError::Padding(packet_type))?];
    }
    let short = RtcpError::Short(packet_type);
    let blocks = |bytes: &'_ [u8]| bytes.len() >= usize::from(count) * 24;
    Ok(match packet_type {
        SR => {
            let (head, tail) = body.split_at_checked(24).ok_or(short)?;
            if !blocks(tail) {
                return Err(short);
            }
            let info = SenderInfo {
                ntp: NtpTime::from_bits(u64::from(word(head, 1)) << 32 | u64::from(word(head, 2))),
                timestamp: word(head, 3),
                packets: word(head, 4),
                octets: word(head, 5),
            };
            let blocks = Blocks::new(&tail[..usize::from(count) * 24]);
            Rtcp::SenderReport { ssrc: word(head, 0), info, blocks }
        }
        RR => {
            let (head, tail) = body.split_at_checked(4).ok_or(short)?;
            if !blocks(tail) {
                return Err(short);
            }
            let blocks = Blocks::new(&tail[..usize::from(count) * 24]);
            Rtcp::ReceiverReport { ssrc: word(head, 0), blocks }
        }
        SDES => {
            let chunks = SdesChunks { rest: body, left: count };
            if chunks.count() < usize::from(count) {
                return Err(short);
            }
            Rtcp::Sdes { chunks }
        }
        BYE => {
            let ssrcs = body.get(..usize::from(count) * 4).ok_or(short)?;
            Rtcp::Bye { ssrcs: Blocks::new(ssrcs) }
        }
        RTPFB | PSFB => {
            let (head, tail) = body.split_at_checked(8).ok_or(short)?;
            let (sender, media) = (word(head, 0), word(head, 1));
            match (packet_type, count) {
                (RTPFB, 1) => Rtcp::Nack { sender, media, lost: NackedSequences::new(tail) },
                (RTPFB, 15) => Rtcp::TransportFeedback { sender, media, raw: packet },
                (PSFB, 1) => Rtcp::Pli { sender, media },
                (PSFB, 4) => Rtcp::Fir { sender, entries: Blocks::new(tail) },
                (PSFB, 15) if tail.starts_with(b"REMB") => remb(sender, &tail[4..]).ok_or(short)?,
                _ => Rtcp::Other { packet_type, count, body },
            }
        }
        APP if body.len() < 8 => return Err(short),
        XR if !are_whole(body) => return Err(short),
        _ => Rtcp::Other { packet_type, count, body },
    })
}

/// Whether the blocks of an extended report are as long as they say (RFC 3611 §3).
fn are_whole(body: &[u8]) -> bool {
    let Some(mut rest) = body.get(4..) else { return false };
    while !rest.is_empty() {
        let Some(&[_, _, high, low]) = rest.first_chunk() else { return false };
        let len = 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = rest.get(len..) else { return false };
        rest = after;
    }
    true
}

fn remb(sender: u32, bytes: &[u8]) -> Option<Rtcp<'_>> {
    let (&[count, high, middle, low], tail) = bytes.split_first_chunk()?;
    let mantissa = u64::from(high & 3) << 16 | u64::from(middle) << 8 | u64::from(low);
    let exponent = u32::from(high >> 2);
    let bps = mantissa.checked_shl(exponent).filter(|bps| bps >> exponent == mantissa);
    let ssrcs = tail.get(..usize::from(count) * 4)?;
    let bitrate = Bitrate::from_bps(bps.unwrap_or(u64::MAX));
    Some(Rtcp::Remb { sender, bitrate, ssrcs: Blocks::new(ssrcs) })
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let word = bytes.get(4 * index..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_be_bytes(*word))
}

/// What stands in a packet a number of times, in pieces of one size.
pub trait Block: Copy {
    const SIZE: usize;
    fn read(piece: &[u8]) -> Self;
}

#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a, T> {
    rest: &'a [u8],
    kind: std::marker::PhantomData<T>,
}

impl<'a, T> Blocks<'a, T> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest, kind: std::marker::PhantomData }
    }
}

impl<T: Block> Iterator for Blocks<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let (piece, rest) = self.rest.split_at_checked(T::SIZE)?;
        self.rest = rest;
        Some(T::read(piece))
    }
}

pub type ReportBlocks<'a> = Blocks<'a, ReportBlock>;
pub type Ssrcs<'a> = Blocks<'a, u32>;
/// SSRCs asked for a keyframe, each with the number of the command.
pub type FirEntries<'a> = Blocks<'a, (u32, u8)>;

impl Block for ReportBlock {
    const SIZE: usize = 24;

    fn read(piece: &[u8]) -> Self {
        Self {
            ssrc: word(piece, 0),
            fraction_lost: (word(piece, 1) >> 24) as u8,
            lost: ((word(piece, 1) << 8) as i32) >> 8,
            highest: word(piece, 2),
            jitter: word(piece, 3),
            last_sr: word(piece, 4),
            since_sr: word(piece, 5),
        }
    }
}

impl Block for u32 {
    const SIZE: usize = 4;

    fn read(piece: &[u8]) -> Self {
        word(piece, 0)
    }
}

impl Block for (u32, u8) {
    const SIZE: usize = 8;

    fn read(piece: &[u8]) -> Self {
        (word(piece, 0), (word(piece, 1) >> 24) as u8)
    }
}

/// A number and a mask of the sixteen that follow it, as NACK names losses.
impl Block for (u16, u16) {
    const SIZE: usize = 4;

    fn read(piece: &[u8]) -> Self {
        ((word(piece, 0) >> 16) as u16, word(piece, 0) as u16)
    }
}

/// The sequence numbers a NACK names, ascending within each of its entries.
#[derive(Clone, Copy, Debug)]
pub struct NackedSequences<'a> {
    entries: Blocks<'a, (u16, u16)>,
    next: u16,
    /// Bit 0 stands for `next`.
    mask: u32,
}

impl<'a> NackedSequences<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { entries: Blocks::new(bytes), next: 0, mask: 0 }
    }
}

impl Iterator for NackedSequences<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            let (first, following) = self.entries.next()?;
            (self.next, self.mask) = (first, u32::from(following) << 1 | 1);
        }
        let skip = self.mask.trailing_zeros();
        let sequence = self.next.wrapping_add(skip as u16);
        self.next = sequence.wrapping_add(1);
        self.mask = self.mask >> skip >> 1;
        Some(sequence)
    }
}

/// The chunks of a source description: an SSRC and its CNAME, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct SdesChunks<'a> {
    rest: &'a [u8],
    left: u8,
}

impl<'a> Iterator for SdesChunks<'a> {
    type Item = (u32, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (ssrc, items) = self.rest.split_at_checked(4)?;
        let (mut at, mut cname) = (0, None);
        loop {
            match items.get(at) {
                None => self.left = 0,
                Some(0) => at = (at + 4) & !3, // The chunk ends with zeros, up to a whole word.
                Some(&kind) => {
                    let length = usize::from(*items.get(at + 1)?);
                    let text = items.get(at + 2..at + 2 + length)?;
                    if kind == 1 {
                        cname = cname.or(Some(text));
                    }
                    at += 2 + length;
                    continue;
                }
            }
            break;
        }
        self.rest = items.get(at..).unwrap_or(&[]);
        Some((word(ssrc, 0), cname))
    }
}
