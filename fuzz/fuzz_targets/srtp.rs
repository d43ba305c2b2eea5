//! Protected packets of any shape are opened or refused, in place, with every profile.
#![no_main]

use rivero::transport::srtp::{Profile, Receiver};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for profile in [
        Profile::AeadAes128Gcm,
        Profile::AeadAes256Gcm,
        Profile::Aes128CmHmacSha1_80,
        Profile::Aes128CmHmacSha1_32,
        Profile::Aes256CmHmacSha1_80,
        Profile::Aes256CmHmacSha1_32,
    ] {
        let (key, salt) = (vec![7; profile.key_len()], vec![9; profile.salt_len()]);
        let mut receiver = Receiver::new(profile, &key, &salt).expect("keys of the right length");
        let _ = receiver.open_rtp(&mut bytes.to_vec());
        let _ = receiver.open_rtcp(&mut bytes.to_vec());
    }
});
