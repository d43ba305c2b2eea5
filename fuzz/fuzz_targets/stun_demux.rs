//! Any first datagram finds its session or none, and a stranger's address leads nowhere.
#![no_main]

use rivero::transport::demux::{Demux, classify, local_ufrag};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut demux = Demux::new();
    demux.insert("abcd", 1);
    let [local, remote] = ["192.0.2.1:8000", "198.51.100.7:9"].map(|at| at.parse().expect("one"));
    let found = demux.find(local, remote, bytes);
    let named = local_ufrag(bytes) == Some("abcd") && bytes[0] < 4;
    // The transactions of a session begin with its user fragment.
    let answers = bytes.get(8..12) == Some(b"abcd") && bytes[0] & 1 == 1;
    assert!(!named || found.is_some());
    assert!(found.is_none() || named || answers);
    classify(bytes);
});
