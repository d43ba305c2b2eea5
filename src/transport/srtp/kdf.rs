//! Session keys out of a master key and salt (RFC 3711 §4.3, for GCM RFC 7714 §11).
//!
//! The key derivation rate is always zero, so each key is derived once.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::SrtpError;

/// What a derived key is for.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// A key for AES in counter mode, of 128 or 256 bits.
pub(super) fn counter_mode(key: &[u8]) -> Result<EncryptingKey, SrtpError> {
    let algorithm = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return Err(SrtpError::KeyLength),
    };
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::ctr)
        .map_err(|_| SrtpError::KeyLength)
}

/// Encrypts or decrypts `bytes` with the keystream that starts at `iv`.
pub(super) fn apply_keystream(
    key: &EncryptingKey,
    iv: [u8; 16],
    bytes: &mut [u8],
) -> Result<(), SrtpError> {
    key.less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(iv)))
        .map(|_| ())
        .map_err(|_| SrtpError::Malformed)
}

/// Fills `out` with the key that `label` names.
pub(super) fn derive(
    master_key: &[u8],
    master_salt: &[u8],
    label: Label,
    out: &mut [u8],
) -> Result<(), SrtpError> {
    // A salt of 96 bits stands at the high end of the 112; the low two bytes of the block count.
    let mut iv = [0; 16];
    iv.get_mut(..master_salt.len())
        .filter(|_| master_salt.len() <= 14)
        .ok_or(SrtpError::KeyLength)?
        .copy_from_slice(master_salt);
    iv[7] ^= label as u8;
    out.fill(0);
    apply_keystream(&counter_mode(master_key)?, iv, out)
}
