//! Transport-wide feedback can be read from any bytes, in steps bounded by their number, and what was
//! read can be written again.
#![no_main]

use rivero::rtp::transport_feedback::{MAX_STATUSES, Status, TransportFeedback, Writer};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(message) = TransportFeedback::parse(bytes) else { return };
    let (mut steps, mut told) = (0, Vec::new());
    for status in message.statuses() {
        steps += 1;
        match status {
            Status::Lost(range) => told.resize(range.end as usize, None),
            Status::Received { place, tick } => {
                assert_eq!(place as usize, told.len());
                told.push(Some(tick));
            }
        }
    }
    assert!(steps <= 7 * bytes.len());
    assert_eq!(told.len(), usize::from(message.count));
    let mut again = Vec::new();
    let statuses = told.iter().copied();
    let written = Writer::default().write(&mut again, 1, 2, message.number, message.base, statuses);
    assert!(written <= MAX_STATUSES && again.len() < 1_000);
    if written > 0 {
        let again = TransportFeedback::parse(&again).expect("what was written can be read");
        assert_eq!((again.base, usize::from(again.count)), (message.base, written));
    }
});
