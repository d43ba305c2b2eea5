//! The VP9 payload descriptor (RFC 9628 §4.2) up to the scalability structure, which is stepped
//! over, and the frame type behind it.

/// The descriptor in front of each packet's share of a frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Descriptor {
    /// 7 or 15 bits wide, as the sender chose.
    pub picture_id: Option<u16>,
    /// P: the frame is predicted from earlier pictures.
    pub inter_predicted: bool,
    /// F: references are named in each packet.
    pub flexible: bool,
    pub frame_start: bool,
    pub frame_end: bool,
    pub temporal_layer: Option<u8>,
    pub spatial_layer: Option<u8>,
    /// U: one can go up to this temporal layer here.
    pub switching_up: bool,
    /// D: predicted from the spatial layer below.
    pub inter_layer: bool,
    pub tl0_picture_index: Option<u8>,
    /// Where picture id and index stand in the payload; zero for nowhere.
    pub picture_id_at: u8,
    pub tl0_picture_index_at: u8,
    /// Bytes of the descriptor; the rest is the frame's.
    pub len: usize,
}

impl Descriptor {
    /// `None` when the payload ends inside its descriptor.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut bytes = payload.iter().copied();
        let first = bytes.next()?;
        let mut read = Self {
            inter_predicted: first & 0x40 != 0,
            flexible: first & 0x10 != 0,
            frame_start: first & 0x08 != 0,
            frame_end: first & 0x04 != 0,
            ..Self::default()
        };
        if first & 0x80 != 0 {
            read.picture_id_at = 1;
            let high = bytes.next()?;
            read.picture_id = Some(match high & 0x80 {
                0 => u16::from(high),
                _ => u16::from_be_bytes([high & 0x7f, bytes.next()?]),
            });
        }
        if first & 0x20 != 0 {
            let layers = bytes.next()?;
            read.temporal_layer = Some(layers >> 5);
            read.switching_up = layers & 0x10 != 0;
            read.spatial_layer = Some(layers >> 1 & 7);
            read.inter_layer = layers & 1 != 0;
            if !read.flexible {
                read.tl0_picture_index_at = (payload.len() - bytes.len()) as u8;
                read.tl0_picture_index = Some(bytes.next()?);
            }
        }
        if read.flexible && read.inter_predicted {
            // At most three references, the lowest bit says whether another follows.
            for _ in 0..3 {
                if bytes.next()? & 1 == 0 {
                    break;
                }
            }
        }
        if first & 0x02 != 0 {
            skip_scalability_structure(&mut bytes)?;
        }
        read.len = payload.len() - bytes.len();
        Some(read)
    }

    /// Whether the picture id has 15 bits, not 7.
    pub fn has_wide_picture_id(&self, payload: &[u8]) -> bool {
        self.picture_id_at > 0 && payload.get(1).is_some_and(|high| high & 0x80 != 0)
    }
}

fn skip_scalability_structure(bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
    let head = bytes.next()?;
    let mut skip = |count: usize| (0..count).try_for_each(|_| bytes.next().map(drop));
    if head & 0x10 != 0 {
        skip(4 * (usize::from(head >> 5) + 1))?; // Width and height of each spatial layer.
    }
    if head & 0x08 != 0 {
        for _ in 0..bytes.next()? {
            let references = bytes.next()? >> 2 & 3;
            (0..references).try_for_each(|_| bytes.next().map(drop))?;
        }
    }
    Some(())
}

/// Whether this is the first packet of a keyframe, in its lowest spatial layer.
pub fn starts_keyframe(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|read| {
        let first_of_picture = read.frame_start && read.spatial_layer.unwrap_or(0) == 0;
        first_of_picture
            && !read.inter_predicted
            && payload.get(read.len).is_some_and(|&header| is_key(header))
    })
}

/// The uncompressed header begins: marker 10, two bits of profile, a reserved bit in profile 3,
/// show_existing_frame, and frame_type, which is 0 for keyframes.
const fn is_key(header: u8) -> bool {
    let rest = if header & 0x30 == 0x30 { header << 5 } else { header << 4 };
    header >> 6 == 2 && rest & 0xc0 == 0
}

/// Width and height of the keyframe of profile 0 that starts with this packet, in its lowest spatial
/// layer (VP9 bitstream §6.2): an octet of flags, three of a mark, four bits of colour, and two numbers of
/// 16 bits less one.
pub fn keyframe_size(payload: &[u8]) -> Option<(u32, u32)> {
    if !starts_keyframe(payload) {
        return None;
    }
    let frame = payload.get(Descriptor::parse(payload)?.len..)?;
    let &[flags, 0x49, 0x83, 0x42, b0, b1, b2, b3, b4, ..] = frame else { return None };
    // RGB has other bits in between.
    if flags & 0x30 != 0 || b0 >> 5 == 7 {
        return None;
    }
    let number = |high: u8, middle: u8, low: u8| {
        (u32::from(high & 0x0f) << 12 | u32::from(middle) << 4 | u32::from(low >> 4)) + 1
    };
    Some((number(b0, b1, b2), number(b2, b3, b4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_starts_where_nothing_is_predicted() {
        assert!(starts_keyframe(&[0x88, 0x11, 0x82]));
        assert!(!starts_keyframe(&[0xc8, 0x11, 0x82]), "predicted from before");
        assert!(!starts_keyframe(&[0x80, 0x11, 0x82]), "not the frame's first packet");
        assert!(!starts_keyframe(&[0x88, 0x11, 0x86]), "intra-only, no keyframe");
        assert!(!starts_keyframe(&[0x88, 0x11, 0x8a]), "shows an earlier frame");
        assert!(starts_keyframe(&[0x88, 0x11, 0xb0]), "profile 3");
    }

    #[test]
    fn a_keyframe_tells_its_size() {
        // 640x480: 0x027f and 0x01df, behind four bits.
        let payload = [0x88, 0x11, 0x82, 0x49, 0x83, 0x42, 0x20, 0x27, 0xf0, 0x1d, 0xf0, 0];
        assert_eq!(keyframe_size(&payload), Some((640, 480)));
        assert_eq!(keyframe_size(&payload[..10]), None);
        assert_eq!(keyframe_size(&[0x88, 0x11, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn fields_that_are_numbered_on_have_a_place() {
        let payload = [0xa8, 0x80, 0x01, 0x00, 7, 0x82];
        let read = Descriptor::parse(&payload).unwrap();
        assert_eq!((read.picture_id_at, read.tl0_picture_index_at), (1, 4));
        assert!(read.has_wide_picture_id(&payload));
        assert!(
            !Descriptor::parse(&[0x88, 0x11, 0x82]).unwrap().has_wide_picture_id(&[0x88, 0x11])
        );
    }

    #[test]
    fn only_the_lowest_spatial_layer_starts_a_picture() {
        assert!(starts_keyframe(&[0xa8, 0x80, 0x01, 0x00, 7, 0x82]));
        assert!(!starts_keyframe(&[0xa8, 0x80, 0x01, 0x03, 7, 0x82]));
    }

    #[test]
    fn references_and_the_scalability_structure_are_stepped_over() {
        // Two spatial layers with sizes; a group of two pictures, the second with one reference.
        let payload =
            [0x8a, 0x05, 0x38, 0, 160, 0, 90, 1, 64, 0, 180, 2, 0x00, 0x24, 1, 0x82, 0x49];
        let read = Descriptor::parse(&payload).unwrap();
        assert_eq!(read.len, 15);
        assert!(starts_keyframe(&payload));
        let flexible = Descriptor::parse(&[0xf8, 0x05, 0x20, 0x03, 0x02, 0x86]).unwrap();
        assert_eq!((flexible.len, flexible.temporal_layer), (5, Some(1)));
        for length in 0..16 {
            assert!(!starts_keyframe(&payload[..length.min(15)]), "{length}");
        }
    }
}
