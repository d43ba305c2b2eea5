//! A session whose peer is validated survives whatever that peer sends: STUN, DTLS records, SRTP.
#![no_main]

use rivero_fuzz::{Exchange, datagrams};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut exchange = Exchange::validated();
    for datagram in datagrams(bytes) {
        exchange.receive(datagram);
    }
});
