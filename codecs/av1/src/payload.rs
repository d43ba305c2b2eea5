//! The aggregation header and the OBU elements behind it (AV1 RTP payload format §4.3–4.5).

const SEQUENCE_HEADER: u8 = 1;

/// The byte in front of each payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AggregationHeader {
    /// Z: the first element continues one of the packet before.
    pub continues: bool,
    /// Y: the last element goes on in the packet after.
    pub continued: bool,
    /// W: how many elements there are; 0 when each says its size.
    pub elements: u8,
    /// N: a coded video sequence starts here.
    pub starts_sequence: bool,
}

impl AggregationHeader {
    /// `None` for an empty payload.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &byte = payload.first()?;
        Some(Self {
            continues: byte & 0x80 != 0,
            continued: byte & 0x40 != 0,
            elements: byte >> 4 & 3,
            starts_sequence: byte & 0x08 != 0,
        })
    }
}

/// The elements of a payload; one whose size does not fit ends the walk.
pub fn elements(payload: &[u8]) -> Elements<'_> {
    let count = AggregationHeader::parse(payload).map_or(0, |header| header.elements);
    Elements { rest: payload.get(1..).unwrap_or(&[]), left: (count > 0).then_some(count) }
}

#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    /// Elements that still come, when their number is known.
    left: Option<u8>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() || self.left == Some(0) {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        if self.left == Some(0) {
            return Some(std::mem::take(&mut self.rest)); // The last one goes without a size.
        }
        let (size, used) = leb128(self.rest)?;
        let (element, rest) = self.rest[used..].split_at_checked(size)?;
        self.rest = rest;
        Some(element)
    }
}

/// A little-endian number in groups of seven bits, and the bytes it took.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, index + 1));
        }
    }
    None
}

/// Whether a coded video sequence, and so a keyframe, starts with this packet.
pub fn starts_keyframe(payload: &[u8]) -> bool {
    let Some(header) = AggregationHeader::parse(payload) else { return false };
    if header.continues || payload.len() < 2 {
        return false;
    }
    let is_sequence_header =
        |element: &[u8]| element.first().is_some_and(|obu| obu >> 3 & 0x0f == SEQUENCE_HEADER);
    header.starts_sequence || elements(payload).any(is_sequence_header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_sequence_is_flagged_or_shows_its_header() {
        assert!(starts_keyframe(&[0x18, 0x0a, 1, 2]));
        assert!(starts_keyframe(&[0x20, 2, 0x08, 1, 0x30, 5]), "an unflagged sequence header");
        assert!(!starts_keyframe(&[0x10, 0x30, 1, 2]), "a frame");
        assert!(!starts_keyframe(&[0x88, 0x0a, 1]), "the rest of something");
    }

    #[test]
    fn elements_are_counted_or_sized() {
        let all = |payload: &[u8]| elements(payload).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(all(&[0x20, 1, 9, 8, 7]), [vec![9], vec![8, 7]]);
        assert_eq!(all(&[0x00, 1, 9, 2, 8, 7]), [vec![9], vec![8, 7]]);
        assert_eq!(all(&[0x00, 1, 9, 3, 8, 7]), [vec![9]], "a size that does not fit");
        assert_eq!(all(&[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), [[0u8; 0]; 0]);
        assert_eq!(all(&[0x10]), [[0u8; 0]; 0]);
    }

    #[test]
    fn payloads_that_end_early_start_nothing() {
        assert!(!starts_keyframe(&[]));
        assert!(!starts_keyframe(&[0x18]));
    }
}
