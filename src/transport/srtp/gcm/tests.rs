use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LONGEST: usize = 1_600;
const LONGEST_AAD: usize = 64;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Whether this processor can run what is tested, be it the faster way or not.
fn able() -> bool {
    is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("avx")
}

fn own(key: &[u8]) -> Key {
    Key::new(key).expect("a key of 16 or 32 bytes")
}

fn library(key: &[u8]) -> LessSafeKey {
    let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key of 16 or 32 bytes"))
}

/// The sealed text and its tag, by this module: read from and written to places that lie so many bytes
/// beside where they would lie best.
fn ours(key: &Key, nonce: &[u8; 12], aad: &[u8], plain: &[u8], beside: usize) -> Vec<u8> {
    let shifted = |bytes: &[u8]| [&[0xee; 16][..beside], bytes].concat();
    let (aad, plain) = (shifted(aad), shifted(plain));
    let mut out = vec![0xee; plain.len() + TAG + beside];
    let len = out.len();
    key.seal(nonce, &aad[beside..], &plain[beside..], &mut out[beside..len - beside])
        .expect("lengths fit");
    assert!(out[..beside].iter().all(|byte| *byte == 0xee), "nothing is written before");
    assert!(out[len - beside..].iter().all(|byte| *byte == 0xee), "nothing is written behind");
    out[beside..len - beside].to_vec()
}

fn theirs(key: &LessSafeKey, nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut out).expect("seals");
    out
}

fn opened(key: &LessSafeKey, nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut text = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.open_in_place(nonce, Aad::from(aad), &mut text).ok().map(|plain| plain.to_vec())
}

/// Bytes without a pattern that blocks could hide in.
fn noise(len: usize, seed: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn nonce(seed: usize) -> [u8; 12] {
    noise(12, seed).try_into().expect("12 bytes")
}

/// The test cases of the specification that GCM was proposed with, those whose nonces have 96 bits.
#[test]
fn the_examples_of_the_specification_come_out() {
    if !able() {
        return;
    }
    let key = "feffe992 8665731c 6d6a8f94 67308308";
    let long_key = [key, key].concat();
    let zero = "00".repeat(16);
    let long_zero = "00".repeat(32);
    let first_nonce = "00".repeat(12);
    let nonce = "cafebabe facedbad decaf888";
    let aad = "feedface deadbeef feedface deadbeef abaddad2";
    let short = "d9313225 f88406e5 a55909c5 aff5269a 86a7a953 1534f7da 2e4c303d 8a318a72
        1c3c0c95 95680953 2fcf0e24 49a6b525 b16aedf5 aa0de657 ba637b39";
    let text = [short, "1aafd255"].concat();
    let sealed = "42831ec2 21777424 4b7221b7 84d0d49c e3aa212f 2c02a4e0 35c17e23 29aca12e
        21d514b2 5466931c 7d8f6a5a ac84aa05 1ba30b39 6a0aac97 3d58e091";
    let long_sealed = "522dc1f0 99567d07 f47f37a3 2a84427d 643a8cdc bfe5c0c9 7598a2bd 2555d1aa
        8cb08e48 590dbb3d a7b08b10 56828838 c5f61e63 93ba7a0a bcc9f662";
    let cases: [(&str, &str, &str, &str, String); 8] = [
        (&zero, &first_nonce, "", "", "58e2fccefa7e3061367f1d57a4e7455a".into()),
        (
            &zero,
            &first_nonce,
            "",
            &zero,
            "0388dace60b6a392f328c2b971b2fe78 ab6e47d42cec13bdf53a67b21257bddf".into(),
        ),
        (key, nonce, "", &text, [sealed, "473f5985 4d5c2af327cd64a62cf35abd2ba6fab4"].concat()),
        (key, nonce, aad, short, [sealed, "5bc94fbc3221a5db94fae95ae7121a47"].concat()),
        (&long_zero, &first_nonce, "", "", "530f8afbc74536b9a963b4f1c4cb738b".into()),
        (
            &long_zero,
            &first_nonce,
            "",
            &zero,
            "cea7403d4d606b6e074ec5d3baf39d18 d0d1c8a799996bf0265b98b5d48ab919".into(),
        ),
        (
            &long_key,
            nonce,
            "",
            &text,
            [long_sealed, "898015ad b094dac5d93471bdec1a502270e3cc6c"].concat(),
        ),
        (&long_key, nonce, aad, short, [long_sealed, "76fc6ece0f4e1768cddf8853bb2d551b"].concat()),
    ];
    for (key, nonce, aad, plain, expected) in cases {
        let (bytes, nonce) = (hex(key), hex(nonce).try_into().expect("12 bytes"));
        let (aad, plain, expected) = (hex(aad), hex(plain), hex(&expected));
        assert_eq!(theirs(&library(&bytes), &nonce, &aad, &plain), expected, "the example");
        assert_eq!(ours(&own(&bytes), &nonce, &aad, &plain, 0), expected);
    }
}

/// Of the lengths of associated data, each text takes five; thirteen texts in a row take them all.
#[test]
fn texts_of_every_length_become_what_the_library_makes_of_them() {
    if !able() {
        return;
    }
    for key_len in [16, 32] {
        let key = noise(key_len, key_len);
        let (own, library) = (own(&key), library(&key));
        for len in 0..=LONGEST {
            let plain = noise(len, len);
            for aad_len in (len % 13..=LONGEST_AAD).step_by(13) {
                let (aad, nonce) = (noise(aad_len, len + aad_len), nonce(len * 100 + aad_len));
                let sealed = ours(&own, &nonce, &aad, &plain, (len + aad_len) % 16);
                let case = format!("{key_len}, {len}, {aad_len}");
                assert_eq!(sealed, theirs(&library, &nonce, &aad, &plain), "{case}");
                assert_eq!(opened(&library, &nonce, &aad, &sealed), Some(plain.clone()), "{case}");
            }
        }
    }
}

#[test]
fn associated_data_of_every_length_is_authenticated_to_its_last_byte() {
    if !able() {
        return;
    }
    let key = noise(16, 1);
    let (own, library) = (own(&key), library(&key));
    for text_len in [0, 7, 96, 97, 500] {
        for len in 1..=200 {
            let (plain, mut aad) = (noise(text_len, len), noise(len, len));
            let sealed = ours(&own, &nonce(len), &aad, &plain, 0);
            assert_eq!(sealed, theirs(&library, &nonce(len), &aad, &plain), "{len}");
            aad[len - 1] ^= 1;
            assert_eq!(opened(&library, &nonce(len), &aad, &sealed), None, "{len}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for len in (0..64).filter(|len| ![16, 32].contains(len)) {
        assert!(Key::new(&vec![7; len]).is_none(), "{len} bytes are no key");
    }
    assert!(countable(64, LONGEST));
    assert!(countable((1 << 61) - 1, ((1 << 32) - 2) * 16));
    assert!(!countable(12, ((1 << 32) - 2) * 16 + 1));
    assert!(!countable(1 << 61, 12));
    if !able() {
        return;
    }
    let key = own(&[7; 16]);
    for len in 0..300 {
        let mut out = vec![0; len + 2 * TAG];
        for room in (0..out.len()).filter(|room| *room != len + TAG) {
            let sealed = key.seal(&[1; 12], b"header", &vec![3; len], &mut out[..room]);
            assert_eq!(sealed, Err(SrtpError::NoRoom), "{len}, {room}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_sealed_the_library_seals_alike_and_opens(
        long in any::<bool>(), key in any::<[u8; 32]>(), nonce in any::<[u8; 12]>(),
        aad in vec(any::<u8>(), 0..=LONGEST_AAD), plain in vec(any::<u8>(), 0..=LONGEST),
        beside in 0_usize..16,
    ) {
        if able() {
            let key = if long { &key[..] } else { &key[..16] };
            let library = library(key);
            let sealed = ours(&own(key), &nonce, &aad, &plain, beside);
            prop_assert_eq!(&sealed, &theirs(&library, &nonce, &aad, &plain));
            prop_assert_eq!(opened(&library, &nonce, &aad, &sealed), Some(plain));
        }
    }
}
