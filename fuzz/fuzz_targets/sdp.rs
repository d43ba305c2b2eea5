//! What was read can be written and read again, and any offer can be answered.
#![no_main]

use rivero::sdp::{Description, parse};
use rivero_fuzz::{capabilities, local};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(offer) = parse(text) else { return };
    let again: Description = parse(&offer.to_string()).expect("own text");
    assert_eq!(again.to_string(), offer.to_string());
    if let Ok(answer) = rivero::sdp::answer(&offer, &capabilities(), &local()) {
        let text = answer.local.to_string();
        assert_eq!(parse(&text).expect("own answer").media.len(), offer.media.len());
        let _ = rivero::sdp::accept(&offer, &answer.local, &capabilities());
    }
});
