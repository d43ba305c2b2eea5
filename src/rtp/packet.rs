//! One RTP packet over borrowed bytes: its header is read once (RFC 3550 §5.1) and its header
//! extensions are found by number (RFC 8285, one-byte and two-byte forms).
//!
//! Contributing sources are stepped over; nobody here mixes.

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PacketError {
    #[error("an RTP packet of {0} bytes is too short for its header")]
    Short(usize),
    #[error("RTP version {0} instead of 2")]
    Version(u8),
    #[error("RTP padding of {0} bytes does not fit the packet")]
    Padding(u8),
}

/// A packet whose header was read and whose lengths were checked.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// The "defined by profile" word in front of the extensions; zero when there are none.
    profile: u16,
    extensions: &'a [u8],
    payload: &'a [u8],
    header_len: usize,
}

impl<'a> RtpPacket<'a> {
    /// # Errors
    /// When the version is not 2 or a length inside the packet points outside of it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let short = PacketError::Short(bytes.len());
        let Some((fixed, _)) = bytes.split_first_chunk::<12>() else { return Err(short) };
        let version = fixed[0] >> 6;
        if version != 2 {
            return Err(PacketError::Version(version));
        }
        let mut header_len = 12 + 4 * usize::from(fixed[0] & 0x0f);
        let (mut profile, mut extensions): (u16, &[u8]) = (0, &[]);
        if fixed[0] & 0x10 != 0 {
            let &[p0, p1, l0, l1] =
                bytes.get(header_len..).and_then(<[u8]>::first_chunk).ok_or(short)?;
            let length = 4 * usize::from(u16::from_be_bytes([l0, l1]));
            profile = u16::from_be_bytes([p0, p1]);
            extensions = bytes.get(header_len + 4..header_len + 4 + length).ok_or(short)?;
            header_len += 4 + length;
        }
        let mut payload = bytes.get(header_len..).ok_or(short)?;
        if fixed[0] & 0x20 != 0 {
            let padding = payload.last().copied().unwrap_or(0);
            let kept = payload.len().checked_sub(usize::from(padding)).filter(|_| padding > 0);
            payload = &payload[..kept.ok_or(PacketError::Padding(padding))?];
        }
        Ok(Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            profile,
            extensions,
            payload,
            header_len,
        })
    }

    /// What the packet carries, without padding.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Bytes in front of the payload: fixed header, contributing sources, extensions.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The content of the header extension element `id`, which offer and answer gave its meaning.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.elements().find(|(found, _)| *found == id).map(|(_, content)| content)
    }

    /// The header extension elements in their order, each with its number.
    #[inline]
    pub fn elements(&self) -> Elements<'a> {
        match self.profile {
            0xbede => Elements { two_byte: false, rest: self.extensions },
            profile if profile & 0xfff0 == 0x1000 => {
                Elements { two_byte: true, rest: self.extensions }
            }
            _ => Elements { two_byte: false, rest: &[] },
        }
    }

    /// The packet that this one sends again, which has its number in front of its payload (RFC 4588
    /// §4) and this one's header otherwise. `None` when there is no room for the number.
    pub fn repeated(&self, payload_type: u8, ssrc: u32) -> Option<Self> {
        let (&number, payload) = self.payload.split_first_chunk()?;
        let sequence = u16::from_be_bytes(number);
        Some(Self {
            payload_type,
            sequence,
            ssrc,
            payload,
            header_len: self.header_len + number.len(),
            ..*self
        })
    }
}

/// Walks header extension elements; ends where they cannot be read on.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    two_byte: bool,
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((&first, tail)) = self.rest.split_first() {
            self.rest = tail;
            if first == 0 {
                continue; // A padding byte between elements.
            }
            let (id, length) = if self.two_byte {
                let (&length, tail) = tail.split_first()?;
                self.rest = tail;
                (first, usize::from(length))
            } else if first >> 4 == 15 {
                self.rest = &[]; // Reserved: processing stops here (RFC 8285 §4.2).
                return None;
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1)
            };
            let Some((content, tail)) = self.rest.split_at_checked(length) else {
                self.rest = &[];
                return None;
            };
            self.rest = tail;
            return Some((id, content));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | 96, 0x12, 0x34, 0, 0, 0, 7, 0xca, 0xfe, 0xba, 0xbe];
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn every_field_of_the_header_is_read() {
        let bytes = packet(0x80, b"media");
        let read = RtpPacket::parse(&bytes).unwrap();
        assert!(read.marker);
        assert_eq!((read.payload_type, read.sequence, read.timestamp), (96, 0x1234, 7));
        assert_eq!((read.ssrc, read.header_len()), (0xcafe_babe, 12));
        assert_eq!(read.payload(), b"media");
    }

    #[test]
    fn sources_extensions_and_padding_are_not_payload() {
        let mut rest = vec![9; 8]; // two contributing sources
        rest.extend([0xbe, 0xde, 0, 2, 0x10, 0xaa, 0, 0x32, 1, 2, 3, 0]);
        rest.extend([1, 2, 3, 0, 0, 3]);
        let bytes = packet(0xb2, &rest);
        let read = RtpPacket::parse(&bytes).unwrap();
        assert_eq!(read.payload(), [1, 2, 3]);
        assert_eq!(read.header_len(), 32);
        assert_eq!(read.extension(1), Some(&[0xaa][..]));
        assert_eq!(read.extension(3), Some(&[1, 2, 3][..]));
        assert_eq!(read.extension(2), None);
    }

    #[test]
    fn two_byte_extensions_may_be_empty() {
        let bytes = packet(0x90, &[0x10, 0, 0, 2, 7, 0, 9, 2, 5, 6, 0, 0]);
        let read = RtpPacket::parse(&bytes).unwrap();
        assert_eq!(read.extension(7), Some(&[][..]));
        assert_eq!(read.extension(9), Some(&[5, 6][..]));
    }

    #[test]
    fn elements_come_in_order_and_end_where_they_cannot_be_read() {
        let bytes =
            packet(0x90, &[0xbe, 0xde, 0, 3, 0x10, 1, 0, 0x21, 2, 3, 0xf0, 9, 0x30, 4, 0, 0]);
        let read = RtpPacket::parse(&bytes).unwrap();
        let found: Vec<_> = read.elements().collect();
        assert_eq!(found, [(1, &[1][..]), (2, &[2, 3][..])]);
        let cut = packet(0x90, &[0xbe, 0xde, 0, 1, 0x10, 1, 0x3f, 2]);
        assert_eq!(RtpPacket::parse(&cut).unwrap().elements().count(), 1);
    }

    #[test]
    fn a_repetition_is_the_packet_whose_number_it_carries() {
        let bytes = packet(0x80, &[0xab, 0xcd, 5, 6]);
        let again = RtpPacket::parse(&bytes).unwrap().repeated(100, 7).unwrap();
        assert_eq!((again.payload_type, again.sequence, again.ssrc), (100, 0xabcd, 7));
        assert_eq!((again.payload(), again.header_len()), (&[5, 6][..], 14));
        assert!(again.marker && again.timestamp == 7);
        let short = packet(0x80, &[1]);
        assert!(RtpPacket::parse(&short).unwrap().repeated(100, 7).is_none());
    }

    #[test]
    fn lengths_that_point_outside_are_refused() {
        assert_eq!(RtpPacket::parse(&[0x80; 11]).unwrap_err(), PacketError::Short(11));
        assert_eq!(RtpPacket::parse(&packet(0x40, &[])).unwrap_err(), PacketError::Version(1));
        assert_eq!(RtpPacket::parse(&packet(0x81, &[])).unwrap_err(), PacketError::Short(12));
        let long = packet(0x90, &[0xbe, 0xde, 0, 9, 0]);
        assert_eq!(RtpPacket::parse(&long).unwrap_err(), PacketError::Short(17));
        for padding in [0, 3] {
            let bytes = packet(0xa0, &[0, padding]);
            assert_eq!(RtpPacket::parse(&bytes).unwrap_err(), PacketError::Padding(padding));
        }
        assert!(RtpPacket::parse(&packet(0xa0, &[0, 2])).unwrap().payload().is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes: Vec<u8>, id: u8) {
            if let Some(first) = bytes.first_mut() {
                *first = 0x80 | (*first & 0x3f);
            }
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                packet.extension(id);
                prop_assert!(packet.header_len() + packet.payload().len() <= bytes.len());
            }
        }
    }
}
