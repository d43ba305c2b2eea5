//! The messages that open a channel (RFC 8832 §5).

use bytes::{BufMut, Bytes, BytesMut};

use crate::transport::sctp::Reliability;

/// Bytes of a label and of the name of a protocol. They may have 65 535; nobody reads such names, and
/// they are kept as long as the channel.
pub const MAX_NAME: usize = 1_024;

const ACK: u8 = 2;
const OPEN: u8 = 3;
const HEADER: usize = 12;
/// Bit of a channel's type.
const UNORDERED: u8 = 0x80;

/// A message of the protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Control {
    Open(Opening),
    Ack,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opening {
    pub label: String,
    pub protocol: String,
    pub ordered: bool,
    pub reliability: Reliability,
}

impl Control {
    /// Reads a message; none if it is no such message, or names what is not UTF-8 or too long. The
    /// priority is not looked at.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [ACK] => Some(Self::Ack),
            [OPEN, kind, rest @ ..] if bytes.len() >= HEADER => {
                let value = u32::from_be_bytes([rest[2], rest[3], rest[4], rest[5]]);
                let reliability = match kind & !UNORDERED {
                    0 => Reliability::Reliable,
                    1 => Reliability::Retransmits(value),
                    2 => Reliability::Lifetime(value),
                    _ => return None,
                };
                let label_len = usize::from(u16::from_be_bytes([rest[6], rest[7]]));
                let protocol_len = usize::from(u16::from_be_bytes([rest[8], rest[9]]));
                let names = &bytes[HEADER..];
                let fits = label_len <= MAX_NAME
                    && protocol_len <= MAX_NAME
                    && names.len() == label_len + protocol_len;
                let (label, protocol) = names.split_at_checked(label_len).filter(|_| fits)?;
                Some(Self::Open(Opening {
                    label: String::from_utf8(label.to_vec()).ok()?,
                    protocol: String::from_utf8(protocol.to_vec()).ok()?,
                    ordered: kind & UNORDERED == 0,
                    reliability,
                }))
            }
            _ => None,
        }
    }

    /// The message as it is sent. Names are no longer than [`MAX_NAME`].
    pub fn to_bytes(&self) -> Bytes {
        let Self::Open(opening) = self else { return Bytes::from_static(&[ACK]) };
        let (kind, value) = match opening.reliability {
            Reliability::Reliable => (0, 0),
            Reliability::Retransmits(times) => (1, times),
            Reliability::Lifetime(millis) => (2, millis),
        };
        let names = opening.label.len() + opening.protocol.len();
        let mut bytes = BytesMut::with_capacity(HEADER + names);
        bytes.put_u8(OPEN);
        bytes.put_u8(if opening.ordered { kind } else { kind | UNORDERED });
        bytes.put_u16(0);
        bytes.put_u32(value);
        bytes.put_u16(opening.label.len() as u16);
        bytes.put_u16(opening.protocol.len() as u16);
        bytes.put_slice(opening.label.as_bytes());
        bytes.put_slice(opening.protocol.as_bytes());
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opening(label: &str, ordered: bool, reliability: Reliability) -> Control {
        let (label, protocol) = (label.to_owned(), "p".to_owned());
        Control::Open(Opening { label, protocol, ordered, reliability })
    }

    #[test]
    fn a_message_reads_as_it_was_written() {
        for message in [
            Control::Ack,
            opening("", true, Reliability::Reliable),
            opening("käse", false, Reliability::Retransmits(0)),
            opening(&"x".repeat(MAX_NAME), false, Reliability::Lifetime(u32::MAX)),
        ] {
            assert_eq!(Control::parse(&message.to_bytes()), Some(message));
        }
        // As RFC 8832 §5.1 draws it.
        let bytes = opening("ab", false, Reliability::Retransmits(3)).to_bytes();
        assert_eq!(bytes[..], [3, 0x81, 0, 0, 0, 0, 0, 3, 0, 2, 0, 1, b'a', b'b', b'p']);
    }

    #[test]
    fn lengths_that_lie_and_kinds_that_are_none_are_refused() {
        let good = opening("ab", true, Reliability::Reliable).to_bytes();
        assert!(Control::parse(&good[..good.len() - 1]).is_none());
        assert!(Control::parse(&[&good[..], &[0]].concat()).is_none());
        for (at, value) in [(0, 1), (0, 4), (1, 3), (1, 0x83), (8, 255), (9, 0), (10, 1), (12, 255)]
        {
            let mut bad = good.to_vec();
            bad[at] = value;
            assert!(Control::parse(&bad).is_none(), "{at} {value}");
        }
        assert!(Control::parse(&[]).is_none());
        assert!(Control::parse(&[ACK, 0]).is_none());
        assert!(
            Control::parse(
                &opening(&"x".repeat(MAX_NAME + 1), true, Reliability::Reliable).to_bytes()
            )
            .is_none()
        );
    }

    proptest! {
        #[test]
        fn what_can_be_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(message) = Control::parse(&bytes) {
                prop_assert_eq!(Control::parse(&message.to_bytes()), Some(message));
            }
        }
    }
}
