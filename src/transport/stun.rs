//! STUN messages (RFC 8489): where attributes lie, whether MESSAGE-INTEGRITY holds, and a builder.
//! Reading does not allocate.
//!
//! Left out: MESSAGE-INTEGRITY-SHA256, which neither ICE nor the TURN servers in use ask for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::{constant_time, hmac, rand};
use bytes::{BufMut, BytesMut};

pub(super) const COOKIE: u32 = 0x2112_a442;
pub(super) const HEADER: usize = 20;

pub(super) const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(super) const ERROR_CODE: u16 = 0x0009;
pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(super) const PRIORITY: u16 = 0x0024;
pub(super) const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_MASK: u32 = 0x5354_554e;
pub(super) const ICE_CONTROLLED: u16 = 0x8029;
pub(super) const ICE_CONTROLLING: u16 = 0x802a;

/// Kinds of Binding messages.
pub(super) const BINDING_REQUEST: u16 = 0x0001;
pub(super) const BINDING_SUCCESS: u16 = 0x0101;
pub(super) const BINDING_ERROR: u16 = 0x0111;

/// Bytes of a transaction that may tell whose it is; the others are random.
const MARK: usize = 4;

/// What pairs an answer with its request.
pub(super) type Transaction = [u8; 12];

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

/// What a message is signed with. The state of an HMAC that began with it takes more than a kilobyte, and
/// each session has several, for a message in seconds; so it is made for each.
pub(super) struct Key(Box<[u8]>);

impl Key {
    fn begin(&self) -> hmac::Context {
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0))
    }
}

/// The key of a password.
pub(super) fn key(password: &[u8]) -> Key {
    Key(password.into())
}

/// Verifies the MESSAGE-INTEGRITY made with `key` (RFC 8489 §14.5) and returns where it ends: what
/// follows is not covered and must not be believed.
pub(super) fn verify(bytes: &[u8], key: &Key) -> Option<usize> {
    let integrity = attributes(bytes).find(|attribute| attribute.kind == MESSAGE_INTEGRITY)?;
    let end = integrity.at + 4 + integrity.value.len();
    // The HMAC was taken as if the message ended after this attribute.
    let covered_len = (end - HEADER) as u16;
    let mut context = key.begin();
    context.update(&bytes[..2]);
    context.update(&covered_len.to_be_bytes());
    context.update(&bytes[4..integrity.at]);
    constant_time::verify_slices_are_equal(context.sign().as_ref(), integrity.value).ok()?;
    Some(end)
}

/// Whether the message ends with a FINGERPRINT that is not its own (RFC 8489 §14.7).
pub(super) fn is_garbled(bytes: &[u8]) -> bool {
    let last = attributes(bytes).last().filter(|last| last.kind == FINGERPRINT);
    let own = |at: usize| (crc32(&bytes[..at]) ^ FINGERPRINT_MASK).to_be_bytes();
    last.is_some_and(|last| last.value != own(last.at))
}

/// The message's kind: method and class in one number.
pub(super) fn kind(bytes: &[u8]) -> Option<u16> {
    body(bytes)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The transaction of a well-formed message.
pub(super) fn transaction(bytes: &[u8]) -> Option<Transaction> {
    body(bytes)?;
    bytes[8..HEADER].try_into().ok()
}

/// The transaction of an answer to a request of ours.
pub(super) fn answered(bytes: &[u8]) -> Option<Transaction> {
    transaction(bytes).filter(|_| bytes[0] & 1 == 1)
}

/// A transaction that nobody can guess.
pub(super) fn new_transaction() -> Transaction {
    let mut transaction = [0; 12];
    // Without randomness it would be zero, and no answer would be mistaken for another because of it:
    // those that matter carry a key as well.
    let _ = rand::fill(&mut transaction);
    transaction
}

/// The same, of which the answer tells whom it is for: it begins with our user fragment.
pub(super) fn own_transaction(ufrag: &str) -> Transaction {
    let mut transaction = new_transaction();
    let mark = ufrag.len().min(MARK);
    transaction[..mark].copy_from_slice(&ufrag.as_bytes()[..mark]);
    transaction
}

/// The user fragment that a transaction of [`own_transaction`] begins with.
pub(super) fn owner(transaction: &Transaction) -> Option<&str> {
    std::str::from_utf8(&transaction[..MARK]).ok()
}

/// The number in an attribute of four or of eight bytes.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 | 8 => Some(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))),
        _ => None,
    }
}

/// The code of an error answer, as 401.
pub(super) fn error_code(bytes: &[u8]) -> Option<u16> {
    match attribute(bytes, ERROR_CODE)? {
        [_, _, class, number, ..] => Some(u16::from(class & 7) * 100 + u16::from(*number)),
        _ => None,
    }
}

/// The address in an XOR-MAPPED-ADDRESS or one of its relatives (RFC 8489 §14.2).
pub(super) fn xor_address(bytes: &[u8], kind: u16) -> Option<SocketAddr> {
    xor_of(bytes, attribute(bytes, kind)?)
}

/// All of them that can be somebody's address: a server may say first what it has none of.
pub(super) fn xor_addresses(bytes: &[u8], kind: u16) -> impl Iterator<Item = SocketAddr> {
    attributes(bytes)
        .take_while(|attribute| attribute.kind != MESSAGE_INTEGRITY)
        .filter(move |attribute| attribute.kind == kind)
        .filter_map(|attribute| xor_of(bytes, attribute.value))
        .filter(|addr| addr.port() > 0 && !addr.ip().is_unspecified())
}

fn xor_of(bytes: &[u8], value: &[u8]) -> Option<SocketAddr> {
    let mask = mask(bytes.get(8..HEADER)?.try_into().ok()?);
    let [_, family, high, low, ip @ ..] = value else { return None };
    let port = u16::from_be_bytes([*high, *low]) ^ (COOKIE >> 16) as u16;
    let ip: IpAddr = match (family, ip.len()) {
        (1, 4) => {
            let octets: [u8; 4] = std::array::from_fn(|at| ip[at] ^ mask[at]);
            Ipv4Addr::from(octets).into()
        }
        (2, 16) => {
            let octets: [u8; 16] = std::array::from_fn(|at| ip[at] ^ mask[at]);
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn mask(transaction: &Transaction) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(transaction);
    mask
}

/// A message in the making; attributes appear in the order in which they are added.
pub(super) struct Builder {
    bytes: BytesMut,
}

impl Builder {
    pub(super) fn new(kind: u16, transaction: &Transaction) -> Self {
        let mut bytes = BytesMut::with_capacity(128);
        bytes.put_u16(kind);
        bytes.put_u16(0);
        bytes.put_u32(COOKIE);
        bytes.put_slice(transaction);
        Self { bytes }
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.put_u16(kind);
        self.bytes.put_u16(value.len() as u16);
        self.bytes.put_slice(value);
        self.bytes.put_bytes(0, value.len().next_multiple_of(4) - value.len());
        self.set_len(0);
        self
    }

    pub(super) fn xor_address(self, kind: u16, addr: SocketAddr) -> Self {
        let transaction = self.bytes[8..HEADER].try_into().expect("a header has a transaction");
        let mask = mask(&transaction);
        let mut value = [0; 20];
        value[2..4].copy_from_slice(&(addr.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
        let (family, len) = match addr.ip() {
            IpAddr::V4(ip) => {
                value[4..8].copy_from_slice(&ip.octets());
                (1, 8)
            }
            IpAddr::V6(ip) => {
                value[4..].copy_from_slice(&ip.octets());
                (2, 20)
            }
        };
        value[1] = family;
        value[4..].iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        self.attribute(kind, &value[..len])
    }

    pub(super) fn error(self, code: u16, reason: &str) -> Self {
        let head = [0, 0, (code / 100) as u8, (code % 100) as u8];
        self.attribute(ERROR_CODE, &[&head, reason.as_bytes()].concat())
    }

    /// Signs all there is so far.
    pub(super) fn integrity(mut self, key: &Key) -> Self {
        self.set_len(24);
        let mut context = key.begin();
        context.update(&self.bytes);
        self.attribute(MESSAGE_INTEGRITY, context.sign().as_ref())
    }

    /// Ends the message with a checksum, as ICE demands (RFC 8445 §7.1).
    pub(super) fn fingerprint(mut self) -> BytesMut {
        self.set_len(8);
        let sum = crc32(&self.bytes) ^ FINGERPRINT_MASK;
        self.attribute(FINGERPRINT, &sum.to_be_bytes()).bytes
    }

    pub(super) fn finish(self) -> BytesMut {
        self.bytes
    }

    /// Writes the length of the message as if `more` bytes followed.
    fn set_len(&mut self, more: usize) {
        let len = (self.bytes.len() - HEADER + more) as u16;
        self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

/// The checksum of Ethernet (ITU V.42), half a byte at a time: the table for that fits a cache line.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut at = 0;
        while at < 16 {
            let (mut sum, mut bit) = (at as u32, 0);
            while bit < 4 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
                bit += 1;
            }
            table[at] = sum;
            at += 1;
        }
        table
    };
    let step = |sum: u32| sum >> 4 ^ TABLE[(sum & 15) as usize];
    !bytes.iter().fold(u32::MAX, |sum, byte| step(step(sum ^ u32::from(*byte))))
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
    fn what_is_built_is_what_the_sample_says() {
        let bytes = sample();
        let transaction = transaction(&bytes).expect("a message");
        let built = Builder::new(BINDING_REQUEST, &transaction)
            .attribute(0x8022, b"STUN test client")
            .attribute(PRIORITY, &[0x6e, 0, 1, 0xff])
            .attribute(ICE_CONTROLLED, &[0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36])
            .attribute(USERNAME, b"evtj:h6vY")
            .integrity(&key(b"VOkJxbRl1RmTxUk/WvJxBt"));
        // The sample pads with blanks, which changes what comes after it.
        assert_eq!(built.bytes[4..72], bytes[4..72]);
        let end = built.bytes.len();
        assert_eq!(verify(&built.bytes, &key(b"VOkJxbRl1RmTxUk/WvJxBt")), Some(end));
        let mut blanks = bytes[..bytes.len() - 8].to_vec();
        blanks[2..4].copy_from_slice(&((bytes.len() - HEADER) as u16).to_be_bytes());
        let sum = crc32(&blanks) ^ FINGERPRINT_MASK;
        assert_eq!(sum.to_be_bytes(), bytes[bytes.len() - 4..], "the sample's checksum");
    }

    #[test]
    fn addresses_and_errors_are_read_as_written() {
        for text in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let addr = text.parse().expect("an address");
            let bytes = Builder::new(BINDING_SUCCESS, &new_transaction())
                .xor_address(XOR_MAPPED_ADDRESS, addr)
                .error(487, "Role Conflict")
                .fingerprint();
            assert_eq!(xor_address(&bytes, XOR_MAPPED_ADDRESS), Some(addr));
            assert_eq!(error_code(&bytes), Some(487));
            assert_eq!(binding_class(&bytes), Some(Class::Success));
        }
        let odd = Builder::new(BINDING_SUCCESS, &[0; 12]).attribute(XOR_MAPPED_ADDRESS, &[0, 1, 2]);
        assert_eq!(xor_address(&odd.finish(), XOR_MAPPED_ADDRESS), None);
    }

    #[test]
    fn a_fingerprint_is_that_of_its_message() {
        let bytes = sample();
        assert!(!is_garbled(&bytes));
        assert!(!is_garbled(&bytes[..10]), "what is no message has none");
        for at in 4..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            // Another kind or length of an attribute: then this is no fingerprint any more.
            let whole = attributes(&altered).last().is_some_and(|last| last.kind == FINGERPRINT);
            assert_eq!(is_garbled(&altered), whole && binding_class(&altered).is_some(), "{at}");
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
