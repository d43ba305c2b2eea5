//! Whether a payload starts a keyframe can be asked of any bytes, in every codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|payload: &[u8]| {
    rivero_vp8::starts_keyframe(payload);
    rivero_vp9::starts_keyframe(payload);
    rivero_h264::starts_keyframe(payload);
    rivero_h265::starts_keyframe(payload);
    rivero_av1::starts_keyframe(payload);
});
