//! Where a packet stands among the layers and pictures of its stream, as its payload descriptor says
//! (VP8: RFC 7741 §4.2, VP9: RFC 9628 §4.2), or its dependency descriptor where that was agreed on (AV1
//! RTP payload format, appendix A).
//!
//! A few bytes that are read once for all sinks. Other codecs say nothing of it.

use crate::rtp::Codec;

/// Layers of either kind that a descriptor can name.
pub(in crate::router) const LAYERS: usize = 8;

/// Packed, for it is kept with every packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::router) struct Place {
    /// The number of the picture, 7 or 15 bits wide, and of the last one in the base layer.
    pub picture: u16,
    pub tl0: u8,
    /// Where they stand in the payload; zero for nowhere.
    pub picture_at: u8,
    pub tl0_at: u8,
    /// Spatial layer, then temporal layer.
    layer: u8,
    flags: u8,
}

const LAYERED: u8 = 1;
const WIDE: u8 = 2;
const SYNC: u8 = 4;
const UP: u8 = 8;
const FRAME_START: u8 = 16;
const FRAME_END: u8 = 32;
const INTRA: u8 = 64;

impl Place {
    pub const UNKNOWN: Self =
        Self { picture: 0, tl0: 0, picture_at: 0, tl0_at: 0, layer: 0, flags: 0 };

    pub fn of(codec: Codec, payload: &[u8]) -> Self {
        match codec {
            Codec::Vp8 => Self::of_vp8(payload),
            Codec::Vp9 => Self::of_vp9(payload),
            _ => Self::default(),
        }
    }

    /// By a dependency descriptor.
    pub fn of_frame(frame: &rivero_av1::dependency::Frame) -> Self {
        let mut place = Self::default();
        place.set_layer(frame.spatial, frame.temporal);
        place.set(LAYERED, true);
        place.set(UP, frame.switches_up);
        place.set(FRAME_START, frame.starts);
        place.set(FRAME_END, frame.ends);
        place
    }

    fn of_vp8(payload: &[u8]) -> Self {
        let Some(read) = rivero_vp8::Descriptor::parse(payload) else { return Self::default() };
        let mut place = Self {
            picture: read.picture_id.unwrap_or(0),
            tl0: read.tl0_picture_index.unwrap_or(0),
            picture_at: read.picture_id_at,
            tl0_at: read.tl0_picture_index_at,
            ..Self::default()
        };
        place.set_layer(0, read.temporal_layer.unwrap_or(0));
        place.set(LAYERED, read.temporal_layer.is_some());
        place.set(WIDE, read.has_wide_picture_id(payload));
        place.set(SYNC, read.layer_sync);
        place
    }

    fn of_vp9(payload: &[u8]) -> Self {
        let Some(read) = rivero_vp9::Descriptor::parse(payload) else { return Self::default() };
        let mut place = Self {
            picture: read.picture_id.unwrap_or(0),
            tl0: read.tl0_picture_index.unwrap_or(0),
            picture_at: read.picture_id_at,
            tl0_at: read.tl0_picture_index_at,
            ..Self::default()
        };
        place.set_layer(read.spatial_layer.unwrap_or(0), read.temporal_layer.unwrap_or(0));
        place.set(LAYERED, read.spatial_layer.is_some());
        place.set(WIDE, read.has_wide_picture_id(payload));
        place.set(UP, read.switching_up);
        place.set(FRAME_START, read.frame_start);
        place.set(FRAME_END, read.frame_end);
        place.set(INTRA, !read.inter_predicted);
        place
    }

    fn set_layer(&mut self, spatial: u8, temporal: u8) {
        self.layer = (spatial & 7) << 3 | temporal & 7;
    }

    fn set(&mut self, flag: u8, on: bool) {
        self.flags |= if on { flag } else { 0 };
    }

    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether there is anything to drop by or to number on.
    pub const fn is_known(self) -> bool {
        self.has(LAYERED) || self.picture_at > 0 || self.tl0_at > 0
    }

    pub const fn spatial(self) -> u8 {
        self.layer >> 3
    }

    pub const fn temporal(self) -> u8 {
        self.layer & 7
    }

    /// An index below `LAYERS * LAYERS`, spatial layers first.
    pub const fn index(self) -> usize {
        (self.layer & 63) as usize
    }

    pub const fn is_wide(self) -> bool {
        self.has(WIDE)
    }

    /// The picture needs nothing but the base layer, so its temporal layer can be entered with it.
    pub const fn is_sync(self) -> bool {
        self.has(SYNC)
    }

    /// Behind this picture, higher temporal layers need nothing from before it.
    pub const fn is_switching_up(self) -> bool {
        self.has(UP)
    }

    /// The first packet of a picture of a spatial layer that needs no earlier picture.
    pub const fn enters_spatial(self) -> bool {
        self.has(FRAME_START) && self.has(INTRA)
    }

    pub const fn ends_frame(self) -> bool {
        self.has(FRAME_END)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp8_says_picture_layer_and_sync() {
        let place = Place::of(Codec::Vp8, &[0x90, 0xe0, 0x81, 0x02, 7, 0xa0, 0x50]);
        assert_eq!((place.picture, place.tl0, place.temporal()), (0x102, 7, 2));
        assert!(place.is_known() && place.is_wide() && place.is_sync());
        let bare = Place::of(Codec::Vp8, &[0x10, 0x50]);
        assert!(!bare.is_known() && bare == Place::default());
    }

    #[test]
    fn vp9_says_both_layers() {
        let place = Place::of(Codec::Vp9, &[0xac, 0x05, 0x53, 9, 0x82]);
        assert_eq!((place.spatial(), place.temporal(), place.index()), (1, 2, 10));
        assert!(place.enters_spatial() && place.ends_frame() && place.is_switching_up());
        assert!(!place.is_wide() && place.tl0 == 9);
    }

    #[test]
    fn other_codecs_and_short_payloads_say_nothing() {
        assert!(!Place::of(Codec::H264, &[0x65, 1, 2]).is_known());
        assert!(!Place::of(Codec::Vp8, &[0x90]).is_known());
        assert!(!Place::of(Codec::Vp9, &[0xa0, 0x05]).is_known());
    }
}
