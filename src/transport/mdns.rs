//! As much of multicast DNS as finds the address behind a name that a browser gave itself (RFC 6762,
//! RFC 1035): a question from any port, which is answered to that port (§6.7), and the answers to it.
//!
//! Left out: answering others, caches, everything but the records A and AAAA.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where questions go.
pub const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5_353);

const A: u16 = 1;
const AAAA: u16 = 28;
/// Beyond it nothing is read: a message has one answer, or two.
const MAX_RECORDS: usize = 32;
/// How often a name may go on elsewhere; each jump goes backwards, too.
const MAX_JUMPS: usize = 16;

/// The question for both kinds of address of a name; none if it cannot be one.
pub fn question(name: &str) -> Option<Vec<u8>> {
    let mut encoded = Vec::new();
    for label in name.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        encoded.push(len);
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    if encoded.len() > 255 {
        return None;
    }
    let mut message = vec![0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
    for kind in [A, AAAA] {
        message.extend(&encoded);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
    }
    Some(message)
}

/// The names, in small letters, and addresses that a message tells of; nothing of a broken rest.
pub fn answers(bytes: &[u8]) -> Vec<(String, IpAddr)> {
    let mut found = Vec::new();
    // What does not fit ends the walk; what was read before stays.
    let _ = read(bytes, &mut found);
    found
}

fn read(bytes: &[u8], found: &mut Vec<(String, IpAddr)>) -> Option<()> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let is_answer = bytes.get(2)? & 0x80 != 0;
    if !is_answer {
        return None;
    }
    let questions = usize::from(word(4)?);
    let records = usize::from(word(6)?) + usize::from(word(8)?) + usize::from(word(10)?);
    let mut at = 12;
    for _ in 0..questions.min(MAX_RECORDS) {
        at = name(bytes, at)?.1 + 4;
    }
    for _ in 0..records.min(MAX_RECORDS) {
        let (owner, end) = name(bytes, at)?;
        let (kind, len) = (word(end)?, usize::from(word(end + 8)?));
        at = end + 10 + len;
        let data = bytes.get(end + 10..at)?;
        let ip: Option<IpAddr> = match kind {
            A => <[u8; 4]>::try_from(data).ok().map(|ip| Ipv4Addr::from(ip).into()),
            AAAA => <[u8; 16]>::try_from(data).ok().map(|ip| Ipv6Addr::from(ip).into()),
            _ => None,
        };
        found.extend(ip.map(|ip| (owner, ip)));
    }
    Some(())
}

/// The name at a place, and where it ends there.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut text, mut end, mut jumps) = (String::new(), None, 0);
    loop {
        let len = usize::from(*bytes.get(at)?);
        match len {
            0 => return Some((text, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + len)?;
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
                if text.len() > 1_024 {
                    return None;
                }
                at += 1 + len;
            }
            192.. => {
                end.get_or_insert(at + 2);
                jumps += 1;
                let to = (len & 63) << 8 | usize::from(*bytes.get(at + 1)?);
                if to >= at || jumps > MAX_JUMPS {
                    return None;
                }
                at = to;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer to `question` with one record, whose name points at the question's.
    fn answer(question: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2] = 0x84;
        bytes[7] = 1;
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 120]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn the_address_behind_a_name_is_found() {
        let question = question("0AE5b5b6-a6ee.local").expect("a name");
        let told = |ip: &str| {
            [("0ae5b5b6-a6ee.local".to_owned(), ip.parse::<IpAddr>().expect("an address"))]
        };
        assert_eq!(answers(&answer(&question, A, &[192, 0, 2, 7])), told("192.0.2.7"));
        let ipv6: Ipv6Addr = "2001:db8::7".parse().expect("an address");
        assert_eq!(answers(&answer(&question, AAAA, &ipv6.octets())), told("2001:db8::7"));
        assert_eq!(answers(&answer(&question, 16, b"text")), []);
        assert_eq!(answers(&question), [], "a question is no answer");
    }

    #[test]
    fn names_that_are_none_are_not_asked_for() {
        let long = "a".repeat(64);
        for name in ["", ".", "a..local", &format!("{long}.local"), &"a.".repeat(200)] {
            assert_eq!(question(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_that_points_at_itself_ends() {
        let mut bytes = answer(&question("a.local").expect("a name"), A, &[192, 0, 2, 7]);
        let at = bytes.len() - 16;
        bytes[at + 1] = at as u8;
        assert_eq!(answers(&bytes), []);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_trap(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            answers(&bytes);
        }

        #[test]
        fn no_change_of_an_answer_is_a_trap(at in 0_usize..60, value: u8) {
            let mut bytes = answer(&question("a.local").expect("a name"), A, &[192, 0, 2, 7]);
            let len = bytes.len();
            bytes[at % len] = value;
            answers(&bytes);
        }
    }
}
