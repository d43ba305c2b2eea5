//! What was read can be written and read again, and any offer can be answered, by both kinds of
//! endpoint.
#![no_main]

use rivero::sdp::plain::{PlainLocal, accept_plain, answer_plain};
use rivero::sdp::{Crypto, Suite};
use rivero::sdp::{Description, parse};
use rivero_fuzz::{capabilities, local};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(offer) = parse(text) else { return };
    let again: Description = parse(&offer.to_string()).expect("own text");
    assert_eq!(again.to_string(), offer.to_string());
    if let Ok(answer) = rivero::sdp::answer(&offer, &capabilities(), &local()) {
        let text = answer.local.to_string();
        let read = parse(&text).expect("own answer");
        assert_eq!(read.media.len(), offer.media.len());
        for (ours, theirs) in read.media.iter().zip(&offer.media) {
            assert!(ours.formats.len() <= theirs.formats.len());
        }
        let _ = rivero::sdp::accept(&offer, &answer.local, &capabilities());
    }
    let suite = Suite::Aes128Sha1_80;
    let crypto = Crypto { tag: 1, suite, key: vec![7; 30], lifetime: None };
    for crypto in [None, Some(crypto)] {
        let local = PlainLocal {
            session_id: 3_900_000_000,
            cname: "fuzz".to_owned(),
            address: [192, 0, 2, 1].into(),
            crypto,
            ssrcs: (1..=64).collect(),
        };
        let ports = |section: usize| Some((5_000 + 2 * section as u16, 5_001 + 2 * section as u16));
        if let Ok(answer) = answer_plain(&offer, &capabilities(), &local, ports) {
            let text = parse(&answer.local.to_string()).expect("own answer");
            assert_eq!(text.media.len(), offer.media.len());
            let _ = accept_plain(&offer, &text, &capabilities(), &local);
        }
    }
});
