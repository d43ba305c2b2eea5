//! Answers of neighbours, streams of frames, and messages of a TURN server, all of them anybody's bytes.
#![no_main]

use rivero::transport::mdns;
use rivero::transport::tcp::{Frame, Framing, MAX_FRAME};
use rivero_fuzz::{leased, now};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for (name, _) in mdns::answers(bytes) {
        assert!(name.len() <= 1_024);
    }
    for framing in [Framing::Rfc4571, Framing::Turn] {
        let mut rest = bytes;
        while let Frame::Whole { body, used } = framing.next(rest) {
            assert!(body.end <= used && used <= rest.len() && body.len() <= MAX_FRAME);
            if used == 0 {
                panic!("a frame has at least its length");
            }
            rest = &rest[used..];
        }
    }
    let mut session = leased();
    if let Ok(Some((_, _, range))) = session.handle_link(now(), bytes) {
        assert!(range.end <= bytes.len());
    }
    while session.poll_output().is_some() {}
});
