//! Keys of SRTP in a description: `a=crypto` (RFC 4568), with the suites of 256 bits of RFC 6188.
//!
//! Only what both sides can mean without more ado: one key, no master key identifier, no session
//! parameters but the hint for the size of the replay window. Other lines are passed over.

/// Cipher and authentication. All are AES in counter mode with HMAC-SHA1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suite {
    Aes128Sha1_32,
    Aes128Sha1_80,
    Aes256Sha1_32,
    Aes256Sha1_80,
}

impl Suite {
    pub const ALL: [Self; 4] =
        [Self::Aes128Sha1_32, Self::Aes128Sha1_80, Self::Aes256Sha1_32, Self::Aes256Sha1_80];

    /// The name in `a=crypto`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Sha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::Aes128Sha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Aes256Sha1_32 => "AES_256_CM_HMAC_SHA1_32",
            Self::Aes256Sha1_80 => "AES_256_CM_HMAC_SHA1_80",
        }
    }

    /// Bytes of master key and salt, which travel as one.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Sha1_32 | Self::Aes128Sha1_80 => 30,
            Self::Aes256Sha1_32 | Self::Aes256Sha1_80 => 46,
        }
    }
}

/// One `a=crypto` line: the key that its author sends with.
#[derive(Clone, Eq, PartialEq)]
pub struct Crypto {
    pub tag: u32,
    pub suite: Suite,
    /// Master key and salt, [`Suite::key_len`] bytes.
    pub key: Vec<u8>,
    /// Packets after which the key must not be used any more, if its author says so.
    pub lifetime: Option<u64>,
}

/// Without the key: what is logged should not open media.
impl std::fmt::Debug for Crypto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crypto({} {})", self.tag, self.suite.name())
    }
}

impl Crypto {
    /// Reads the value of an `a=crypto` line; none for one that cannot be used here.
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next().filter(|tag| tag.len() <= 9)?.parse().ok()?;
        let name = words.next()?;
        let suite = Suite::ALL.into_iter().find(|suite| suite.name() == name)?;
        let (method, info) = words.next()?.split_once(':')?;
        if !method.eq_ignore_ascii_case("inline") {
            return None;
        }
        // What is not understood must not be accepted (RFC 4568 §6.3); a window is only a wish.
        if !words.all(|parameter| parameter.starts_with("WSH=") || parameter.starts_with('-')) {
            return None;
        }
        let mut parts = info.split('|');
        let key = decode_base64(parts.next()?).filter(|key| key.len() == suite.key_len())?;
        let lifetime = match parts.next() {
            Some(text) => Some(lifetime(text)?),
            None => None,
        };
        parts.next().is_none().then_some(Self { tag, suite, key, lifetime })
    }

    /// The value of the line.
    pub fn value(&self) -> String {
        format!("{} {} inline:{}", self.tag, self.suite.name(), encode_base64(&self.key))
    }
}

/// `2^20`, or a number.
fn lifetime(text: &str) -> Option<u64> {
    match text.strip_prefix("2^") {
        Some(power) => 1_u64.checked_shl(power.parse().ok()?),
        None => text.parse().ok(),
    }
    .filter(|packets| *packets > 0)
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with its padding (RFC 4648 §4).
fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut block = [0; 3];
        block[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, block[0], block[1], block[2]]);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() { DIGITS[value as usize].into() } else { '=' });
        }
    }
    text
}

/// The bytes of a Base64 text, whose padding may be missing; none for any other text.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2 || digits.len() % 4 == 1 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk";

    #[test]
    fn a_line_is_read_with_its_lifetime_and_written_without() {
        let line = format!("7 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^20 WSH=64");
        let crypto = Crypto::parse(&line).expect("a usable line");
        assert_eq!((crypto.tag, crypto.suite), (7, Suite::Aes128Sha1_32));
        assert_eq!(crypto.key, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcd");
        assert_eq!(crypto.lifetime, Some(1 << 20));
        assert_eq!(crypto.value(), format!("7 AES_CM_128_HMAC_SHA1_32 inline:{KEY}"));
    }

    #[test]
    fn a_line_that_asks_for_more_than_is_known_is_passed_over() {
        for line in [
            String::new(),
            "1".to_owned(),
            format!("x AES_CM_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 AES_256_CM_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 uri:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^99"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY};inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP"),
            "1 AES_CM_128_HMAC_SHA1_80 inline:!!!!".to_owned(),
        ] {
            assert_eq!(Crypto::parse(&line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn base64_gives_back_what_it_was_given(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let text = encode_base64(&bytes);
            prop_assert_eq!(decode_base64(&text), Some(bytes.clone()));
            prop_assert_eq!(decode_base64(text.trim_end_matches('=')), Some(bytes));
        }

        #[test]
        fn any_text_is_a_key_or_none(text in ".{0,80}") {
            let _ = (decode_base64(&text), Crypto::parse(&text));
        }
    }
}
