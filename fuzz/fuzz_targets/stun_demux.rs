//! Any first datagram finds its session or none, and a stranger's address leads nowhere.
#![no_main]

use rivero::transport::demux::{Demux, classify, local_ufrag};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut demux = Demux::new();
    demux.insert("abcd", 1);
    let found = demux.find("198.51.100.7:9".parse().expect("an address"), bytes);
    assert_eq!(found.is_some(), local_ufrag(bytes) == Some("abcd") && bytes[0] < 4);
    classify(bytes);
});
