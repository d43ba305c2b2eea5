//! Control packets to bytes. Each function appends one packet, so a compound one is a row of calls
//! on the same buffer.

use super::{BYE, MAX_BLOCKS, PSFB, RR, RTPFB, ReportBlock, SDES, SR, SenderInfo};
use crate::rtp::Bitrate;

/// Blocks beyond [`MAX_BLOCKS`] are left out; they belong in a further receiver report.
pub fn write_sender_report(
    out: &mut Vec<u8>,
    ssrc: u32,
    info: &SenderInfo,
    blocks: &[ReportBlock],
) {
    let blocks = &blocks[..blocks.len().min(MAX_BLOCKS)];
    packet(out, blocks.len() as u8, SR, |out| {
        out.extend(ssrc.to_be_bytes());
        out.extend(info.ntp.bits().to_be_bytes());
        for word in [info.timestamp, info.packets, info.octets] {
            out.extend(word.to_be_bytes());
        }
        write_blocks(out, blocks);
    });
}

/// Blocks beyond [`MAX_BLOCKS`] are left out.
pub fn write_receiver_report(out: &mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) {
    let blocks = &blocks[..blocks.len().min(MAX_BLOCKS)];
    packet(out, blocks.len() as u8, RR, |out| {
        out.extend(ssrc.to_be_bytes());
        write_blocks(out, blocks);
    });
}

/// One chunk for each of `ssrcs` (at most 31), all of one participant (RFC 3550 §6.5.1). A name is
/// cut to the 255 bytes its length can say.
pub fn write_sdes_cname(out: &mut Vec<u8>, ssrcs: &[u32], cname: &str) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_BLOCKS)];
    let name = &cname.as_bytes()[..cname.len().min(255)];
    packet(out, ssrcs.len() as u8, SDES, |out| {
        for ssrc in ssrcs {
            let start = out.len();
            out.extend(ssrc.to_be_bytes());
            out.extend([1, name.len() as u8]);
            out.extend(name);
            out.push(0);
            while !(out.len() - start).is_multiple_of(4) {
                out.push(0);
            }
        }
    });
}

pub fn write_bye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_BLOCKS)];
    packet(out, ssrcs.len() as u8, BYE, |out| {
        out.extend(ssrcs.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
    });
}

/// Asks for `lost` again, which are in ascending order (RFC 4585 §6.2.1).
pub fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: &[u64]) {
    packet(out, 1, RTPFB, |out| {
        out.extend(sender.to_be_bytes());
        out.extend(media.to_be_bytes());
        let mut rest = lost;
        while let Some((&first, tail)) = rest.split_first() {
            let covered = tail.iter().take_while(|&&next| next > first && next - first <= 16);
            let mask = covered.clone().fold(0u16, |mask, next| mask | 1 << (next - first - 1));
            rest = &tail[covered.count()..];
            out.extend((first as u16).to_be_bytes());
            out.extend(mask.to_be_bytes());
        }
    });
}

/// Picture loss indication (RFC 4585 §6.3.1).
pub fn write_pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    packet(out, 1, PSFB, |out| {
        out.extend(sender.to_be_bytes());
        out.extend(media.to_be_bytes());
    });
}

/// Full intra request; `command` grows with each new request (RFC 5104 §4.3.1).
pub fn write_fir(out: &mut Vec<u8>, sender: u32, media: u32, command: u8) {
    packet(out, 4, PSFB, |out| {
        out.extend(sender.to_be_bytes());
        out.extend([0; 4]);
        out.extend(media.to_be_bytes());
        out.extend([command, 0, 0, 0]);
    });
}

/// What all of `ssrcs` (at most 255) together may send.
pub fn write_remb(out: &mut Vec<u8>, sender: u32, bitrate: Bitrate, ssrcs: &[u32]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    let exponent = (64 - bitrate.bps().leading_zeros()).saturating_sub(18);
    let mantissa = (bitrate.bps() >> exponent) as u32;
    packet(out, 15, PSFB, |out| {
        out.extend(sender.to_be_bytes());
        out.extend([0; 4]);
        out.extend(b"REMB");
        let word = (ssrcs.len() as u32) << 24 | exponent << 18 | mantissa;
        out.extend(word.to_be_bytes());
        out.extend(ssrcs.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
    });
}

fn write_blocks(out: &mut Vec<u8>, blocks: &[ReportBlock]) {
    for block in blocks {
        let loss = u32::from(block.fraction_lost) << 24 | (block.lost as u32 & 0x00ff_ffff);
        let words = [block.ssrc, loss, block.highest, block.jitter, block.last_sr, block.since_sr];
        out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }
}

/// Header, body, and then the length that became of it.
fn packet(out: &mut Vec<u8>, count: u8, packet_type: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0x80 | count, packet_type, 0, 0]);
    body(out);
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}
