//! As much of STUN (RFC 8489) as must be known before anybody believes a message: where its
//! attributes lie and whether MESSAGE-INTEGRITY holds. Nothing here allocates.
//!
//! Messages are built and answered by the ICE agent. Left out: MESSAGE-INTEGRITY-SHA256, which ICE
//! does not use, and FINGERPRINT, which adds nothing once the integrity is verified.

use aws_lc_rs::{constant_time, hmac};

pub(super) const COOKIE: u32 = 0x2112_a442;
pub(super) const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(super) const USE_CANDIDATE: u16 = 0x0025;
const HEADER: usize = 20;

/// The class of a Binding message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// The class of a well-formed Binding message; `None` for anything else.
pub(super) fn binding_class(bytes: &[u8]) -> Option<Class> {
    body(bytes)?;
    match [bytes[0], bytes[1]] {
        [0x00, 0x01] => Some(Class::Request),
        [0x00, 0x11] => Some(Class::Indication),
        [0x01, 0x01] => Some(Class::Success),
        [0x01, 0x11] => Some(Class::Error),
        _ => None,
    }
}

/// The value of the first attribute of this type that lies before MESSAGE-INTEGRITY: what follows is
/// not covered by it.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .take_while(|attribute| attribute.kind != MESSAGE_INTEGRITY)
        .find(|attribute| attribute.kind == kind)
        .map(|attribute| attribute.value)
}

/// The HMAC key of a password.
pub(super) fn key(password: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password)
}

/// Verifies the MESSAGE-INTEGRITY made with `key` (RFC 8489 §14.5) and returns where it ends: what
/// follows is not covered and must not be believed.
pub(super) fn verify(bytes: &[u8], key: &hmac::Key) -> Option<usize> {
    let integrity = attributes(bytes).find(|attribute| attribute.kind == MESSAGE_INTEGRITY)?;
    let end = integrity.at + 4 + integrity.value.len();
    // The HMAC was taken as if the message ended after this attribute.
    let covered_len = (end - HEADER) as u16;
    let mut context = hmac::Context::with_key(key);
    context.update(&bytes[..2]);
    context.update(&covered_len.to_be_bytes());
    context.update(&bytes[4..integrity.at]);
    constant_time::verify_slices_are_equal(context.sign().as_ref(), integrity.value).ok()?;
    Some(end)
}

/// Shortens the header's length to a message that ends at `end`, as [`verify`] found it.
pub(super) fn set_end(message: &mut [u8], end: usize) {
    message[2..4].copy_from_slice(&((end - HEADER) as u16).to_be_bytes());
}

struct Attribute<'a> {
    at: usize,
    kind: u16,
    value: &'a [u8],
}

/// The attributes in order; ends at the first that does not fit.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let end = body(bytes).map_or(0, |body| HEADER + body.len());
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let head = bytes.get(at..at + 4).filter(|_| at + 4 <= end)?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = bytes.get(at + 4..at + 4 + len).filter(|_| at + 4 + len <= end)?;
        let attribute = Attribute { at, kind, value };
        at += 4 + len.next_multiple_of(4);
        Some(attribute)
    })
}

/// What follows the header, if header and length are those of a STUN message.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.get(..HEADER)?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let whole = header[0] < 4
        && header[4..8] == COOKIE.to_be_bytes()
        && len.is_multiple_of(4)
        && bytes.len() == HEADER + len;
    whole.then(|| &bytes[HEADER..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 5769 §2.1.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c
        69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149a
        eaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";

    fn sample() -> Vec<u8> {
        let digits: Vec<u8> =
            SAMPLE.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn the_sample_request_of_rfc_5769_verifies() {
        let bytes = sample();
        let key = key(b"VOkJxbRl1RmTxUk/WvJxBt");
        assert_eq!(binding_class(&bytes), Some(Class::Request));
        assert_eq!(attribute(&bytes, USERNAME), Some(&b"evtj:h6vY"[..]));
        assert_eq!(verify(&bytes, &key), Some(bytes.len() - 8));
        for at in 0..bytes.len() - 8 {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            // The length is not covered as it stands, and a wrong one is no message at all.
            assert_eq!(verify(&altered, &key), None, "byte {at}");
        }
    }

    #[test]
    fn what_follows_the_integrity_is_not_believed() {
        let mut bytes = sample();
        assert_eq!(attribute(&bytes, USE_CANDIDATE), None);
        bytes.truncate(bytes.len() - 8);
        bytes.extend([0x00, 0x25, 0, 0, 0x00, 0x25, 0, 0]);
        assert_eq!(verify(&bytes, &key(b"VOkJxbRl1RmTxUk/WvJxBt")), Some(bytes.len() - 8));
        assert_eq!(attribute(&bytes, USE_CANDIDATE), None);
    }
}
