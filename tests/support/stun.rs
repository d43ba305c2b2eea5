//! STUN messages as nobody should send them (RFC 8489), beside good ones.

use aws_lc_rs::hmac;

const COOKIE: u32 = 0x2112_a442;

pub const USERNAME: u16 = 0x0006;
pub const PRIORITY: u16 = 0x0024;
pub const USE_CANDIDATE: u16 = 0x0025;
pub const ICE_CONTROLLED: u16 = 0x8029;
pub const ICE_CONTROLLING: u16 = 0x802a;

/// A Binding request in the making.
pub struct Forged(Vec<u8>);

impl Forged {
    pub fn request() -> Self {
        let mut bytes = vec![0, 1, 0, 0];
        bytes.extend(COOKIE.to_be_bytes());
        bytes.extend([7; 12]);
        Self(bytes)
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.set_len(0);
        self
    }

    /// Signs all there is so far.
    pub fn integrity(mut self, password: &str) -> Self {
        self.set_len(24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let tag = hmac::sign(&key, &self.0);
        self.attribute(0x0008, tag.as_ref())
    }

    /// Ends with a checksum, off by `error`.
    pub fn fingerprint(mut self, error: u32) -> Vec<u8> {
        self.set_len(8);
        let sum = crc32(&self.0) ^ 0x5354_554e ^ error;
        self.attribute(0x8028, &sum.to_be_bytes()).0
    }

    fn set_len(&mut self, more: usize) {
        let len = (self.0.len() - 20 + more) as u16;
        self.0[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 }
        })
    })
}
