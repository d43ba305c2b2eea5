//! Lines of candidates and fingerprints, one on each line of the input: a session goes on whatever they
//! say, and keeps so many at most.
#![no_main]

use std::net::Ipv4Addr;

use rivero::transport::Fingerprint;
use rivero::transport::webrtc::Output;
use rivero_fuzz::{leased, now};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut session = leased();
    let mut asked = Vec::new();
    let mut taken = 0;
    for line in text.split('\n') {
        if let Some((hash, value)) = line.split_once(' ') {
            let _ = Fingerprint::parse(hash, value);
        }
        taken += usize::from(session.add_remote_candidate(now(), line).is_ok());
        while let Some(output) = session.poll_output() {
            if let Output::Resolve { number, name } = output {
                assert!(name.len() < 1_000);
                asked.push(number);
            }
        }
    }
    assert!(asked.len() <= taken + 1 && asked.len() <= 65);
    for number in asked {
        session.handle_resolved(now(), number, Some(Ipv4Addr::LOCALHOST.into()));
    }
    if let Some(at) = session.poll_timeout() {
        session.handle_timeout(at);
    }
});
