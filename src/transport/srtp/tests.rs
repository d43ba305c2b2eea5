use proptest::collection::vec;
use proptest::prelude::*;
use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

use super::cipher::{GcmKey, Opening, Sealing, Transform, library};
use super::kdf::{self, Label};
use super::sender::HISTORY;
use super::*;

const PROFILES: [Profile; 6] = [
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
    Profile::Aes128CmHmacSha1_80,
    Profile::Aes128CmHmacSha1_32,
    Profile::Aes256CmHmacSha1_80,
    Profile::Aes256CmHmacSha1_32,
];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn key(profile: Profile) -> (Vec<u8>, Vec<u8>) {
    let bytes: Vec<u8> = (0_u8..64).map(|at| at.wrapping_mul(7).wrapping_add(3)).collect();
    (bytes[..profile.key_len()].to_vec(), bytes[40..40 + profile.salt_len()].to_vec())
}

fn sender(profile: Profile) -> Sender {
    let (key, salt) = key(profile);
    Sender::new(profile, &key, &salt).expect("lengths fit")
}

fn receiver(profile: Profile) -> Receiver {
    let (key, salt) = key(profile);
    Receiver::new(profile, &key, &salt).expect("lengths fit")
}

fn oracle(profile: Profile) -> Context {
    let (key, salt) = key(profile);
    let name = match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Profile::Aes128CmHmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Profile::Aes256CmHmacSha1_80 => ProtectionProfile::Aes256CmHmacSha1_80,
        Profile::Aes256CmHmacSha1_32 => ProtectionProfile::Aes256CmHmacSha1_32,
    };
    let provider = AwsLcRsProvider::new();
    Context::new(&key, &salt, name, None, None, provider.crypto()).expect("lengths fit")
}

fn header(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut header = vec![0x80, 96];
    header.extend(sequence.to_be_bytes());
    header.extend(7_000_u32.to_be_bytes());
    header.extend(ssrc.to_be_bytes());
    header
}

fn packet(index: u64, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = header(index as u16, ssrc);
    packet.extend(payload);
    packet
}

fn seal(sender: &mut Sender, index: u64, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = [0; 1500];
    let len =
        sender.seal_rtp(&header(index as u16, ssrc), payload, index, &mut out).expect("seals");
    out[..len].to_vec()
}

fn open(receiver: &mut Receiver, sealed: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut packet = sealed.to_vec();
    receiver.open_rtp(&mut packet).map(|len| packet[..len].to_vec())
}

#[test]
fn counter_mode_follows_rfc_3711_appendix_b2() {
    let key = kdf::counter_mode(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).expect("128 bits");
    let mut iv = [0; 16];
    iv.copy_from_slice(&hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"));
    let mut stream = [0; 48];
    kdf::apply_keystream(&key, iv, &mut stream).expect("counter mode takes any length");
    let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
                    41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(stream.to_vec(), hex(expected));
}

#[test]
fn keys_are_derived_as_in_rfc_3711_appendix_b3() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let derive = |label, len| {
        let mut out = vec![0; len];
        kdf::derive(&key, &salt, label, &mut out).expect("lengths fit");
        out
    };
    assert_eq!(derive(Label::RtpEncryption, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(derive(Label::RtpSalt, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
    let authentication = "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
        E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25 6D6E919A48B610EF17C2041E47403576";
    assert_eq!(derive(Label::RtpAuthentication, 80), hex(authentication));
}

#[test]
fn counter_mode_of_256_bits_follows_rfc_6188_section_7_1() {
    let key = hex("57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98");
    let key = kdf::counter_mode(&key).expect("256 bits");
    let mut iv = [0; 16];
    iv.copy_from_slice(&hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd0000"));
    let mut stream = [0; 48];
    kdf::apply_keystream(&key, iv, &mut stream).expect("counter mode takes any length");
    let expected = "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac
                    63c4868b7096d88421b563b8c94c9a31";
    assert_eq!(stream.to_vec(), hex(expected));
}

#[test]
fn keys_of_256_bits_are_derived_as_in_rfc_6188_section_7_2() {
    let key = hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
    let salt = hex("3b04803de51ee7c96423ab5b78d2");
    let derive = |label, len| {
        let mut out = vec![0; len];
        kdf::derive(&key, &salt, label, &mut out).expect("lengths fit");
        out
    };
    let encryption = "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4";
    assert_eq!(derive(Label::RtpEncryption, 32), hex(encryption));
    assert_eq!(derive(Label::RtpSalt, 14), hex("fa31791685ca444a9e07c6c64e93"));
    let authentication = "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05";
    assert_eq!(derive(Label::RtpAuthentication, 20), hex(authentication));
}

#[test]
fn a_short_tag_is_for_rtp_alone() {
    for profile in [Profile::Aes128CmHmacSha1_32, Profile::Aes256CmHmacSha1_32] {
        let mut sender = sender(profile);
        assert_eq!(seal(&mut sender, 1, 5, b"payload").len(), 12 + 7 + 4);
        let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
        let mut out = [0; 100];
        assert_eq!(sender.seal_rtcp(&report, &mut out), Ok(8 + 4 + 10), "{profile:?}");
    }
}

#[test]
fn a_sender_says_when_its_key_is_all_but_used_up() {
    let mut sender = sender(Profile::Aes128CmHmacSha1_80);
    seal(&mut sender, (1 << 48) - (1 << 16) - 1, 5, b"x");
    assert!(!sender.is_worn());
    seal(&mut sender, (1 << 48) - (1 << 16), 5, b"y");
    assert!(sender.is_worn());
}

/// RFC 7714 §16 and §17 give session keys, not master keys.
fn session_transform<Gcm: GcmKey>(profile: Profile) -> Transform<Gcm> {
    let key: Vec<u8> = (0..profile.key_len() as u8).collect();
    Transform::with_session_keys(&key, b"Quid pro quo")
}

#[test]
fn rtp_is_sealed_as_in_rfc_7714_section_16() {
    let packet = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
                      69736120 696e2070 61727465 73207472 6573");
    let cases = [
        (
            Profile::AeadAes128Gcm,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
             0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            Profile::AeadAes256Gcm,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
             9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ];
    for (profile, expected) in cases {
        let mut out = [0; 100];
        let len = session_transform::<Sealing>(profile)
            .seal_rtp(&packet[..12], &packet[12..], 0x5501_a0b2, 0xf17b, &mut out)
            .expect("seals");
        assert_eq!(out[..len].to_vec(), hex(expected), "{profile:?}");
        let len = session_transform::<Opening>(profile)
            .open_rtp(&mut out[..len], 12, 0x5501_a0b2, 0xf17b)
            .expect("opens");
        assert_eq!(out[..len].to_vec(), packet);
    }
}

#[test]
fn packets_look_the_same_whichever_way_they_are_sealed() {
    for key_len in [16, 32] {
        let key = vec![0x2b; key_len];
        let chosen = Sealing::new(&key).expect("16 or 32 bytes");
        let library = Sealing::Library(library(&key).expect("16 or 32 bytes"));
        for len in [0, 1, 95, 96, 120, 950, 1_200] {
            let (plain, mut out, mut other) =
                (vec![0xab; len], vec![0; len + 16], vec![0; len + 16]);
            chosen.seal([9; 12], &header(7, 5), &plain, &mut out).expect("seals");
            library.seal([9; 12], &header(7, 5), &plain, &mut other).expect("seals");
            assert_eq!(out, other, "{key_len}, {len}");
            assert!(chosen.seal([9; 12], b"", &plain, &mut out[1..]).is_err());
            assert!(library.seal([9; 12], b"", &plain, &mut out[1..]).is_err());
        }
    }
}

#[test]
fn rtcp_is_sealed_as_in_rfc_7714_section_17() {
    let packet = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                      deadbeef deadbeef deadbeef deadbeef deadbeef");
    let expected = hex("81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d
        c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4");
    let sealing: Transform<Sealing> = session_transform(Profile::AeadAes128Gcm);
    let mut out = [0; 100];
    let len = sealing.seal_rtcp(&packet, 0x4d61_7273, 0x5d4, &mut out).expect("seals");
    assert_eq!(out[..len].to_vec(), expected);
    let opening: Transform<Opening> = session_transform(Profile::AeadAes128Gcm);
    assert_eq!(opening.rtcp_index(&out[..len]), Ok((0x5d4, true)));
    let len = opening.open_rtcp(&mut out[..len], 0x4d61_7273, 0x5d4, true).expect("opens");
    assert_eq!(out[..len].to_vec(), packet);
}

#[test]
fn a_replayed_or_altered_packet_is_refused() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = (sender(profile), receiver(profile));
        let sealed = seal(&mut sender, 1, 5, b"payload");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 0x04;
            assert!(open(&mut receiver, &altered).is_err(), "{profile:?}, byte {at}");
        }
        assert_eq!(open(&mut receiver, &sealed), Ok(packet(1, 5, b"payload")));
        assert_eq!(open(&mut receiver, &sealed), Err(SrtpError::Replay));
        open(&mut receiver, &seal(&mut sender, 1 + 1024, 5, b"later")).expect("jumps ahead");
        assert_eq!(open(&mut receiver, &sealed), Err(SrtpError::TooOld));
    }
}

#[test]
fn a_forged_packet_does_not_move_the_window() {
    let (mut sender, mut receiver) = (sender(PROFILES[0]), receiver(PROFILES[0]));
    open(&mut receiver, &seal(&mut sender, 10, 5, b"one")).expect("opens");
    for ssrc in 0..1_000 {
        let forged = packet(30_000, ssrc, &[0; 40]);
        assert_eq!(open(&mut receiver, &forged), Err(SrtpError::Authentication));
    }
    open(&mut receiver, &seal(&mut sender, 11, 5, b"two")).expect("opens");
}

#[test]
fn an_index_never_carries_two_contents() {
    let mut sender = sender(PROFILES[0]);
    let mut out = [0; 100];
    let first = seal(&mut sender, 70_000, 5, b"one");
    assert_eq!(seal(&mut sender, 70_000, 5, b"one"), first);
    let other = sender.seal_rtp(&header(70_000_u64 as u16, 5), b"two", 70_000, &mut out);
    assert_eq!(other, Err(SrtpError::IndexReused));
    seal(&mut sender, 70_000 + HISTORY as u64, 5, b"far");
    let old = sender.seal_rtp(&header(70_000_u64 as u16, 5), b"one", 70_000, &mut out);
    assert_eq!(old, Err(SrtpError::TooOld));
    let mismatch = sender.seal_rtp(&header(1, 5), b"one", 2, &mut out);
    assert_eq!(mismatch, Err(SrtpError::IndexMismatch));
}

#[test]
fn streams_are_bounded() {
    let (mut sender, mut receiver) = (sender(PROFILES[0]), receiver(PROFILES[0]));
    let mut out = [0; 100];
    for ssrc in 0..MAX_STREAMS as u32 {
        open(&mut receiver, &seal(&mut sender, 1, ssrc, b"x")).expect("opens");
    }
    let full = sender.seal_rtp(&header(1, 1_000), b"x", 1, &mut out);
    assert_eq!(full, Err(SrtpError::TooManyStreams));
}

#[test]
fn exported_material_is_cut_for_both_roles() {
    for profile in PROFILES {
        let material: Vec<u8> = (0..profile.exporter_len() as u8).collect();
        let pair = |client| {
            Keys::from_exporter(profile, &material).expect("length fits").into_pair(client)
        };
        let (mut client, _) = pair(true).expect("lengths fit");
        let (_, mut server) = pair(false).expect("lengths fit");
        open(&mut server, &seal(&mut client, 9, 1, b"payload")).expect("opens");
        assert!(Keys::from_exporter(profile, &material[1..]).is_err());
    }
}

#[test]
fn short_or_odd_bytes_are_refused() {
    for profile in PROFILES {
        let mut receiver = receiver(profile);
        for len in 0..64 {
            for first in [0x00, 0x80, 0x8f, 0x90, 0x9f, 0xbf, 0xff] {
                let mut bytes = vec![first; len];
                assert!(receiver.open_rtp(&mut bytes).is_err());
                assert!(receiver.open_rtcp(&mut bytes).is_err());
            }
        }
    }
}

/// Steps that wrap the sequence number often, in an order shaken within a small window.
fn shaken() -> impl Strategy<Value = Vec<u64>> {
    (0_u64..32_768, vec((1_u64..1_500, 0_u64..200), 1..120)).prop_map(|(start, steps)| {
        let mut index = start;
        let mut order: Vec<(u64, u64)> = steps
            .into_iter()
            .map(|(step, delay)| {
                index += step;
                (index + delay, index)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, index)| index).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_oracle_opens_what_we_seal(
        profile in 0_usize..6, start in 0_u64..65_536, steps in vec(1_u64..9_000, 1..60),
        payload in vec(any::<u8>(), 0..300),
    ) {
        let (mut sender, mut oracle) = (sender(PROFILES[profile]), oracle(PROFILES[profile]));
        let mut index = start;
        for step in steps {
            let opened = oracle.decrypt_rtp(&seal(&mut sender, index, 77, &payload));
            prop_assert_eq!(opened.expect("opens").to_vec(), packet(index, 77, &payload));
            index += step;
        }
    }

    #[test]
    fn we_open_what_the_oracle_seals_in_any_order(
        profile in 0_usize..6, arrivals in shaken(), payload in vec(any::<u8>(), 0..300),
    ) {
        let (mut oracle, mut receiver) = (oracle(PROFILES[profile]), receiver(PROFILES[profile]));
        let mut sent: Vec<u64> = arrivals.clone();
        sent.sort_unstable();
        let sealed: Vec<(u64, Vec<u8>)> = sent
            .into_iter()
            .map(|index| {
                let sealed = oracle.encrypt_rtp(&packet(index, 77, &payload)).expect("seals");
                (index, sealed.to_vec())
            })
            .collect();
        for index in arrivals {
            let at = sealed.binary_search_by_key(&index, |&(index, _)| index).expect("was sent");
            prop_assert_eq!(open(&mut receiver, &sealed[at].1), Ok(packet(index, 77, &payload)));
            prop_assert_eq!(open(&mut receiver, &sealed[at].1), Err(SrtpError::Replay));
        }
    }

    #[test]
    fn reports_cross_both_ways(profile in 0_usize..6, words in vec(vec(any::<u32>(), 0..40), 1..20)) {
        let profile = PROFILES[profile];
        let (mut ours, mut theirs) = (sender(profile), oracle(profile));
        let mut receiver = receiver(profile);
        for body in words {
            let mut plain = vec![0x80, 201, 0, body.len() as u8 + 1, 0, 0, 0, 9];
            plain.extend(body.into_iter().flat_map(u32::to_be_bytes));
            let mut out = [0; 300];
            let len = ours.seal_rtcp(&plain, &mut out).expect("seals");
            prop_assert_eq!(oracle(profile).decrypt_rtcp(&out[..len]).expect("opens").to_vec(), plain.clone());
            let mut sealed = theirs.encrypt_rtcp(&plain).expect("seals").to_vec();
            let copy = sealed.clone();
            let len = receiver.open_rtcp(&mut sealed).expect("opens");
            prop_assert_eq!(&sealed[..len], &plain[..]);
            prop_assert_eq!(receiver.open_rtcp(&mut copy.clone()), Err(SrtpError::Replay));
        }
    }
}
