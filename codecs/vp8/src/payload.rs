//! The VP8 payload descriptor (RFC 7741 §4.2) and the first byte behind it (§4.3).

/// The descriptor in front of each packet's share of a frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Descriptor {
    /// N: no other frame depends on this one.
    pub non_reference: bool,
    /// S: a partition starts with this packet.
    pub partition_start: bool,
    pub partition: u8,
    /// 7 or 15 bits wide, as the sender chose.
    pub picture_id: Option<u16>,
    pub tl0_picture_index: Option<u8>,
    pub temporal_layer: Option<u8>,
    /// Y: the frame needs nothing but the base layer before it.
    pub layer_sync: bool,
    pub key_index: Option<u8>,
    /// Where picture id and index stand in the payload; zero for nowhere.
    pub picture_id_at: u8,
    pub tl0_picture_index_at: u8,
    /// Bytes of the descriptor; the rest is the frame's.
    pub len: usize,
}

impl Descriptor {
    /// `None` when the payload ends inside its descriptor.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (mut bytes, size) = (payload.iter().copied(), payload.len());
        let first = bytes.next()?;
        let mut read = Self {
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition: first & 0x07,
            ..Self::default()
        };
        if first & 0x80 != 0 {
            let present = bytes.next()?;
            if present & 0x80 != 0 {
                read.picture_id_at = (size - bytes.len()) as u8;
                let high = bytes.next()?;
                read.picture_id = Some(match high & 0x80 {
                    0 => u16::from(high),
                    _ => u16::from_be_bytes([high & 0x7f, bytes.next()?]),
                });
            }
            if present & 0x40 != 0 {
                read.tl0_picture_index_at = (size - bytes.len()) as u8;
                read.tl0_picture_index = Some(bytes.next()?);
            }
            if present & 0x30 != 0 {
                let layers = bytes.next()?;
                read.temporal_layer = (present & 0x20 != 0).then_some(layers >> 6);
                read.layer_sync = present & 0x20 != 0 && layers & 0x20 != 0;
                read.key_index = (present & 0x10 != 0).then_some(layers & 0x1f);
            }
        }
        read.len = size - bytes.len();
        Some(read)
    }

    /// Whether the picture id has 15 bits, not 7.
    pub fn has_wide_picture_id(&self, payload: &[u8]) -> bool {
        let at = usize::from(self.picture_id_at);
        at > 0 && payload.get(at).is_some_and(|high| high & 0x80 != 0)
    }
}

/// Whether this is the first packet of a keyframe.
pub fn starts_keyframe(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|read| {
        let first_of_frame = read.partition_start && read.partition == 0;
        // P, the lowest bit of the frame header, is 0 in keyframes.
        first_of_frame && payload.get(read.len).is_some_and(|header| header & 1 == 0)
    })
}

/// Width and height of the keyframe that starts with this packet (RFC 6386 §9.1).
pub fn keyframe_size(payload: &[u8]) -> Option<(u16, u16)> {
    if !starts_keyframe(payload) {
        return None;
    }
    let frame = payload.get(Descriptor::parse(payload)?.len..)?;
    match *frame {
        [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] => {
            Some((u16::from_le_bytes([w0, w1 & 0x3f]), u16::from_le_bytes([h0, h1 & 0x3f])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_starts_with_its_first_partition_only() {
        assert!(starts_keyframe(&[0x10, 0x50, 0, 0]));
        assert!(!starts_keyframe(&[0x10, 0x51, 0, 0]), "an interframe");
        assert!(!starts_keyframe(&[0x00, 0x50, 0, 0]), "a later packet of the partition");
        assert!(!starts_keyframe(&[0x11, 0x50, 0, 0]), "the second partition");
    }

    #[test]
    fn all_optional_fields_are_stepped_over() {
        let payload = [0x90, 0xf0, 0x81, 0x02, 7, 0x85, 0x50];
        let read = Descriptor::parse(&payload).unwrap();
        assert_eq!((read.picture_id, read.tl0_picture_index), (Some(0x102), Some(7)));
        assert_eq!((read.temporal_layer, read.key_index, read.len), (Some(2), Some(5), 6));
        assert_eq!((read.picture_id_at, read.tl0_picture_index_at), (2, 4));
        assert!(read.has_wide_picture_id(&payload) && !read.layer_sync);
        assert!(starts_keyframe(&payload));
        assert_eq!(Descriptor::parse(&[0x90, 0x80, 0x11]).unwrap().picture_id, Some(0x11));
    }

    #[test]
    fn a_keyframe_tells_its_size() {
        let payload = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0xe0, 0x01, 7];
        assert_eq!(keyframe_size(&payload), Some((640, 480)), "with two bits of scaling");
        assert_eq!(keyframe_size(&payload[..10]), None);
        assert_eq!(keyframe_size(&[0x10, 0x11, 0, 0, 0x9d, 0x01, 0x2a, 1, 0, 1, 0]), None);
    }

    #[test]
    fn payloads_that_end_early_start_nothing() {
        let payload = [0x90, 0xf0, 0x81, 0x02, 7, 0x85, 0x50];
        for length in 0..payload.len() {
            assert!(!starts_keyframe(&payload[..length]), "{length}");
        }
    }
}
