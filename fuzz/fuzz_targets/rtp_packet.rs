//! An RTP packet's parts lie inside the packet, and no extension is longer than its header.
#![no_main]

use rivero::rtp::RtpPacket;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(packet) = RtpPacket::parse(bytes) {
        assert!(packet.header_len() + packet.payload().len() <= bytes.len());
        for id in 0..=255 {
            assert!(packet.extension(id).is_none_or(|found| found.len() < packet.header_len()));
        }
    }
});
