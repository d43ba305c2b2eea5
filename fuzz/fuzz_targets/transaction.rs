//! References of a transaction: whatever stands in parameters and replies, putting one into the other
//! ends, stays within its bound, and leaves none behind.
#![no_main]

use rivero::rpc::transaction::substitute;
use serde_json::Value;

const BOUND: usize = 100_000;

// The text has the parameters in its first line and the replies behind it.
libfuzzer_sys::fuzz_target!(|text: &str| {
    let Some((params, replies)) = text.split_once('\n') else { return };
    let (Ok(mut params), Ok(Value::Array(replies))) =
        (serde_json::from_str::<Value>(params), serde_json::from_str(replies))
    else {
        return;
    };
    let before = params.to_string().len();
    let mut left = BOUND;
    if substitute(&mut params, &replies, &mut left).is_ok() {
        // Escapes make a text up to six times as long as what it stands for.
        assert!(params.to_string().len() <= before + 6 * (BOUND - left));
    }
});
