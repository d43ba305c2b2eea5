//! A compound packet can be walked to its end, lists and all: printing reads every one of them.
#![no_main]

use rivero::rtp::rtcp::packets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let walked = packets(bytes).map(|packet| format!("{packet:?}")).count();
    assert!(walked <= bytes.len() / 4 + 1);
});
