//! Whatever a receiver says of what it got, the estimate stays within its bounds, and the machine never
//! stops, waits for the past, or asks for more at one time than it can use.
#![no_main]

#[path = "../../tests/bandwidth/liar.rs"]
mod liar;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| liar::survive(bytes, rivero_fuzz::now()));
