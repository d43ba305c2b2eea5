//! Redundant audio, repetitions and header extensions are found in any packet, or are not there.
#![no_main]

use rivero::rtp::extensions::Reader;
use rivero::rtp::{Extension, Extensions, RtpPacket, red};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(newest) = red::primary(bytes) {
        assert!(newest.payload.len() < bytes.len());
    }
    let Ok(packet) = RtpPacket::parse(bytes) else { return };
    let mut agreed = Extensions::default();
    for (at, extension) in Extension::ALL.into_iter().enumerate() {
        agreed.set(extension, at as u8 + 1);
    }
    let said = Reader::new(&agreed).read(&packet);
    assert_eq!(packet.elements().count() == 0 && said != Default::default(), false);
    if let Some(repeated) = packet.repeated(96, 1) {
        assert_eq!(repeated.payload().len() + 2, packet.payload().len());
    }
    red::primary(packet.payload());
});
