//! What of a source's layers a sink takes, and one continuous count of pictures whatever it takes.
//!
//! A packet of a layer above the wanted one is left out, and the numbers behind it close up, as long as
//! it comes in order; a number that was already left open for it is filled with an empty packet. What
//! to do is decided once for a picture, with its first packet.
//!
//! VP8 numbers its pictures one by one, and receivers wait for numbers that are missing; so they close
//! up too. VP9 receivers know from the layers what may be missing (RFC 9628 §4.2), and its references
//! may be differences of picture ids: there the numbers are moved as a whole.
//!
//! Going down is possible with any picture. Going up takes a picture that says so; spatial layers are
//! entered where they need no earlier picture.

use crate::prefetch;
use crate::router::{
    history::Kept,
    skips::Skips,
    source::{Arrival, Place},
};
use crate::rtp::{Codec, extensions::Carried};

/// Places where layers were left out that late packets and repetitions can be related to: seconds.
const MAX_SKIPS: usize = 128;
/// Pictures that late packets may belong to.
const DECIDED: usize = 16;
/// A step further than this is a jump.
const MAX_STEP: i64 = 128;

/// Layers up to which a sink takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::router) struct Layers {
    pub spatial: u8,
    pub temporal: u8,
}

impl Layers {
    pub const ALL: Self = Self { spatial: u8::MAX, temporal: u8::MAX };

    const fn include(self, place: Place) -> bool {
        place.spatial() <= self.spatial && place.temporal() <= self.temporal
    }

    /// A picture begins: goes down at once, and up where the picture says that one can.
    fn move_to(&mut self, wanted: Self, place: Place) {
        self.spatial = self.spatial.min(wanted.spatial);
        self.enter_spatial(wanted, place);
        if wanted.temporal <= self.temporal {
            self.temporal = wanted.temporal;
        } else if place.is_sync() && place.temporal() == self.temporal + 1 {
            self.temporal = place.temporal();
        } else if place.is_switching_up() && place.temporal() <= self.temporal {
            self.temporal = wanted.temporal;
        }
    }

    /// Goes up by a spatial layer if this packet begins a picture of it that one can begin with.
    fn enter_spatial(&mut self, wanted: Self, place: Place) -> bool {
        let enters = place.enters_spatial()
            && self.spatial < wanted.spatial
            && place.spatial() == self.spatial + 1;
        self.spatial += u8::from(enters);
        enters
    }
}

/// How a packet differs from what the source sent; kept, for what is sent again must not differ from
/// what was sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Changes {
    picture: u16,
    tl0: u8,
    /// Zero for what is not changed.
    picture_at: u8,
    tl0_at: u8,
    flags: u8,
}

const WIDE: u8 = 1;
const MARKER: u8 = 2;
const EMPTY: u8 = 4;

impl Changes {
    fn set(&mut self, flag: u8, on: bool) {
        self.flags |= if on { flag } else { 0 };
    }

    /// Whether the packet only fills a gap.
    pub const fn is_empty(self) -> bool {
        self.flags & EMPTY != 0
    }

    /// Whether the marker is set that the source had on a packet which is left out.
    pub const fn sets_marker(self) -> bool {
        self.flags & MARKER != 0
    }

    pub const fn touches_payload(self) -> bool {
        self.picture_at > 0 || self.tl0_at > 0
    }

    /// Changes a copy of the payload.
    pub fn apply(self, payload: &mut [u8]) {
        let mut put = |at: u8, byte: u8| {
            if let Some(there) = payload.get_mut(usize::from(at)).filter(|_| at > 0) {
                *there = byte;
            }
        };
        let [high, low] = self.picture.to_be_bytes();
        if self.picture_at > 0 && self.flags & WIDE != 0 {
            put(self.picture_at, 0x80 | high);
            put(self.picture_at + 1, low);
        } else {
            put(self.picture_at, low & 0x7f);
        }
        put(self.tl0_at, self.tl0);
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// It goes out with this number of the source without what is left out.
    Send(u64, Changes),
    /// It is left out.
    Leave,
    /// Nobody can tell its number any more.
    TooOld,
}

/// Up to which layers the picture of a timestamp is taken.
#[derive(Clone, Copy, Debug)]
struct Decided {
    timestamp: u32,
    layers: Layers,
}

#[derive(Debug)]
pub(in crate::router) struct Selection {
    pub wanted: Layers,
    now: Layers,
    /// Of packets, since the last start.
    skips: Skips<MAX_SKIPS>,
    /// Of pictures; they go on behind each start.
    pictures: Skips<MAX_SKIPS>,
    /// The newest picture, as the source counts, in 64 bits; `None` when it does not count.
    picture: Option<u64>,
    tl0_shift: u8,
    /// One above the highest that went out, if any did.
    next_picture: Option<u64>,
    next_tl0: u8,
    decided: [Option<Decided>; DECIDED],
    newest: usize,
    /// The number of this picture was far from those before.
    pub jumped: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            wanted: Layers::ALL,
            now: Layers::ALL,
            skips: Skips::default(),
            pictures: Skips::default(),
            picture: None,
            tl0_shift: 0,
            next_picture: None,
            next_tl0: 0,
            decided: [None; DECIDED],
            newest: 0,
            jumped: false,
        }
    }
}

impl Selection {
    /// The sink starts with this packet.
    pub fn begin(&mut self, sequence: u64, place: Place) {
        self.skips.next = sequence;
        self.skips.begin(sequence);
        self.decided = [None; DECIDED];
        self.now = self.wanted;
        self.picture = None;
        self.tl0_shift = 0;
        if place.picture_at > 0 {
            // In the second cycle, so that earlier ones have a place below.
            let picture = u64::from(place.picture) + (1 << 16);
            self.picture = Some(picture);
            self.pictures.next = self.next_picture.unwrap_or(picture);
            self.pictures.begin(picture);
        }
        if place.tl0_at > 0 {
            self.next_tl0 = self.next_picture.map_or(place.tl0, |_| self.next_tl0);
            self.tl0_shift = self.next_tl0.wrapping_sub(place.tl0);
        }
    }

    /// Packets are next.
    #[inline]
    pub(super) fn expect(&self) {
        prefetch::value(&self.skips);
    }

    #[inline]
    pub(super) fn expect_number(&self) {
        self.skips.expect();
    }

    /// Chooses what to do with a packet that is not from before the start.
    #[inline]
    pub(super) fn choose(&mut self, arrival: &Arrival, codec: Option<Codec>) -> Choice {
        let place = arrival.place;
        if !place.is_known() || arrival.empty {
            return self.number(arrival.sequence, Changes::default());
        }
        self.choose_layered(arrival, codec)
    }

    fn choose_layered(&mut self, arrival: &Arrival, codec: Option<Codec>) -> Choice {
        let place = arrival.place;
        let picture = self.picture_of(arrival);
        let closes_up = codec == Some(Codec::Vp8) && picture.is_some();
        let layers = self.decide(arrival, picture, closes_up);
        let kept = layers.include(place);
        if let (Some(one), Some(newest)) = (picture, self.picture)
            && one > newest
        {
            self.picture = Some(one);
            if closes_up && !kept {
                self.pictures.skip(one);
            }
        }
        if !kept {
            if arrival.newest {
                self.skips.skip(arrival.sequence);
                return Choice::Leave;
            }
            return self.number(arrival.sequence, Changes { flags: EMPTY, ..Changes::default() });
        }
        let Some(mut changes) = self.changes(place, picture) else { return Choice::TooOld };
        let ends = place.ends_frame() && place.spatial() == layers.spatial;
        changes.set(MARKER, ends && !arrival.marker);
        self.number(arrival.sequence, changes)
    }

    /// The same for one that was received, but did not go out in time.
    pub(super) fn choose_late(
        &mut self,
        sequence: u64,
        kept: &Kept<'_>,
        codec: Option<Codec>,
    ) -> Choice {
        let arrival = Arrival {
            sequence,
            timestamp: kept.timestamp,
            marker: kept.marker,
            format: kept.format,
            clock_rate: 0,
            generation: 0,
            keyframe: false,
            newest: false,
            empty: kept.payload.is_empty(),
            place: kept.place,
            carried: Carried::default(),
        };
        self.choose(&arrival, codec)
    }

    fn number(&self, sequence: u64, changes: Changes) -> Choice {
        self.skips.apply(sequence).map_or(Choice::TooOld, |number| Choice::Send(number, changes))
    }

    /// The source's number behind one without what is left out.
    pub fn source_of(&self, number: u64) -> Option<u64> {
        self.skips.invert(number)
    }

    /// The number of a picture in 64 bits. Of a sender that jumps, pictures are counted on.
    fn picture_of(&mut self, arrival: &Arrival) -> Option<u64> {
        let place = arrival.place;
        let newest = self.picture.filter(|_| place.picture_at > 0)?;
        let step = place.picture.wrapping_sub(newest as u16);
        let step = match place.is_wide() {
            true => i64::from((step << 1) as i16 >> 1),
            false => i64::from((step << 9) as i16 >> 9),
        };
        if arrival.newest && !(0..=MAX_STEP).contains(&step) {
            self.jumped = true;
            let picture = u64::from(place.picture) + (1 << 16);
            self.picture = Some(picture);
            self.pictures.next = self.next_picture.unwrap_or(picture);
            self.pictures.begin(picture);
            return Some(picture);
        }
        Some(newest.saturating_add_signed(step))
    }

    /// Up to which layers the picture of a packet is taken.
    fn decide(&mut self, arrival: &Arrival, picture: Option<u64>, closes_up: bool) -> Layers {
        let place = arrival.place;
        let decided = |one: &Option<Decided>| {
            one.as_ref().is_some_and(|one| one.timestamp == arrival.timestamp)
        };
        if let Some(at) = self.decided.iter().position(decided)
            && let Some(one) = &mut self.decided[at]
        {
            if arrival.newest && self.now.enter_spatial(self.wanted, place) {
                one.layers.spatial = self.now.spatial;
            }
            return one.layers;
        }
        // A picture that others have overtaken has its number left open, which only it can fill.
        let overtaken = picture.zip(self.picture).is_some_and(|(one, newest)| one < newest);
        let layers = if closes_up && overtaken {
            Layers::ALL
        } else {
            if arrival.keyframe {
                self.now = self.wanted;
            } else if arrival.newest {
                self.now.move_to(self.wanted, place);
            }
            self.now
        };
        self.newest = (self.newest + 1) % DECIDED;
        self.decided[self.newest] = Some(Decided { timestamp: arrival.timestamp, layers });
        layers
    }

    fn changes(&mut self, place: Place, picture: Option<u64>) -> Option<Changes> {
        let mut changes = Changes::default();
        if let Some(picture) = picture {
            let out = self.pictures.apply(picture)?;
            self.next_picture = self.next_picture.max(Some(out + 1));
            let mask = if place.is_wide() { 0x7fff } else { 0x7f };
            if out as u16 & mask != place.picture & mask {
                changes.picture = out as u16;
                changes.picture_at = place.picture_at;
                changes.set(WIDE, place.is_wide());
            }
        }
        if place.tl0_at > 0 {
            let out = place.tl0.wrapping_add(self.tl0_shift);
            if self.next_tl0.wrapping_sub(out) as i8 <= 0 {
                self.next_tl0 = out.wrapping_add(1);
            }
            if self.tl0_shift != 0 {
                (changes.tl0, changes.tl0_at) = (out, place.tl0_at);
            }
        }
        Some(changes)
    }

    /// Whether it could go up, in what comes up to the `highest` layers.
    pub fn waits(&self, highest: (u8, u8)) -> bool {
        self.waits_for_size(highest) || self.now.temporal < self.wanted.temporal.min(highest.1)
    }

    /// Whether it could go up to a larger size, which takes a keyframe.
    pub fn waits_for_size(&self, highest: (u8, u8)) -> bool {
        self.now.spatial < self.wanted.spatial.min(highest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn arrival(codec: Codec, sequence: u64, timestamp: u32, payload: &[u8]) -> Arrival {
        Arrival {
            sequence,
            timestamp,
            marker: false,
            format: 0,
            clock_rate: 90_000,
            generation: 0,
            keyframe: false,
            newest: true,
            empty: false,
            place: Place::of(codec, payload),
            carried: Carried::default(),
        }
    }

    /// A packet that is all of a picture in one spatial layer, not in flexible mode.
    fn vp9(picture: u8, spatial: u8, temporal: u8, key: bool) -> Vec<u8> {
        let first = 0xac | u8::from(!key) << 6;
        vec![first, picture & 0x7f, temporal << 5 | spatial << 1, picture, 0x82]
    }

    fn vp8(picture: u16, temporal: u8, sync: bool) -> Vec<u8> {
        let [high, low] = picture.to_be_bytes();
        vec![0x90, 0xe0, 0x80 | high, low, 9, temporal << 6 | u8::from(sync) << 5, 0x11]
    }

    /// Plays pictures of three sizes; which sizes of each go out, and whether with a marker.
    fn sizes(selection: &mut Selection, from: u8, to: u8, key: Option<u8>) -> Vec<Vec<(u8, bool)>> {
        let mut all = Vec::new();
        for picture in from..to {
            let mut sent = Vec::new();
            for spatial in 0..3 {
                let sequence = 1_000 + 3 * u64::from(picture) + u64::from(spatial);
                let payload = vp9(picture, spatial, 0, key == Some(picture));
                let mut packet = arrival(Codec::Vp9, sequence, picture.into(), &payload);
                packet.keyframe = key == Some(picture) && spatial == 0;
                if sequence == 1_000 {
                    selection.begin(sequence, packet.place);
                }
                if let Choice::Send(_, changes) = selection.choose(&packet, Some(Codec::Vp9)) {
                    sent.push((spatial, changes.sets_marker()));
                }
            }
            all.push(sent);
        }
        all
    }

    #[test]
    fn sizes_are_left_at_once_and_entered_with_a_keyframe() {
        let wanted = Layers { spatial: 1, temporal: u8::MAX };
        let mut selection = Selection { wanted, ..Selection::default() };
        let two = vec![(0, false), (1, true)];
        assert_eq!(sizes(&mut selection, 0, 3, Some(0)), vec![two.clone(); 3]);
        selection.wanted = Layers { spatial: 2, temporal: u8::MAX };
        assert!(selection.waits_for_size((2, 0)) && !selection.waits_for_size((1, 0)));
        let three = vec![(0, false), (1, false), (2, true)];
        let entered = [two.clone(), two.clone(), three.clone(), three];
        assert_eq!(sizes(&mut selection, 3, 7, Some(5)), entered);
        selection.wanted = Layers { spatial: 0, temporal: u8::MAX };
        assert_eq!(sizes(&mut selection, 7, 8, None), [vec![(0, true)]]);
    }

    #[test]
    fn a_speed_is_entered_layer_by_layer_where_a_picture_says_so() {
        let wanted = Layers { spatial: 0, temporal: 0 };
        let mut selection = Selection { wanted, ..Selection::default() };
        let mut sent = Vec::new();
        let pattern = [(0, false), (2, true), (1, true), (2, false)];
        selection.begin(100, Place::of(Codec::Vp8, &vp8(100, 0, false)));
        for step in 0..16u16 {
            if step == 4 {
                selection.wanted = Layers::ALL;
            }
            let (temporal, sync) = pattern[usize::from(step) % 4];
            let payload = vp8(100 + step, temporal, sync);
            let packet = arrival(Codec::Vp8, 100 + u64::from(step), step.into(), &payload);
            match selection.choose(&packet, Some(Codec::Vp8)) {
                Choice::Send(number, changes) => {
                    let mut out = payload.clone();
                    changes.apply(&mut out);
                    let read = rivero_vp8::Descriptor::parse(&out).unwrap();
                    sent.push((temporal, number, read.picture_id.unwrap()));
                }
                choice => assert_eq!(choice, Choice::Leave),
            }
        }
        let layers: Vec<u8> = sent.iter().map(|one| one.0).collect();
        // Behind the layer in the middle, whose picture needs the base alone, the highest waits for one
        // that does too.
        assert_eq!(layers, [0, 0, 1, 0, 2, 1, 2, 0, 2, 1, 2]);
        for (place, (_, number, picture)) in sent.iter().enumerate() {
            assert_eq!((*number, *picture), (100 + place as u64, 100 + place as u16));
        }
    }

    #[test]
    fn a_late_packet_of_a_layer_that_is_left_out_fills_its_gap() {
        let wanted = Layers { spatial: 0, temporal: 0 };
        let mut selection = Selection { wanted, ..Selection::default() };
        let packet = |sequence: u64, temporal| {
            let payload = vp9(sequence as u8, 0, temporal, false);
            arrival(Codec::Vp9, sequence, sequence as u32, &payload)
        };
        selection.begin(10, packet(10, 0).place);
        assert!(matches!(selection.choose(&packet(10, 0), None), Choice::Send(10, _)));
        assert_eq!(selection.choose(&packet(12, 1), None), Choice::Leave);
        assert!(matches!(selection.choose(&packet(13, 0), None), Choice::Send(12, _)));
        let late = Arrival { newest: false, ..packet(11, 1) };
        let Choice::Send(11, changes) = selection.choose(&late, None) else { panic!("a gap") };
        assert!(changes.is_empty());
        assert_eq!(selection.source_of(12), Some(13));
    }

    #[test]
    fn pictures_that_jump_are_counted_on() {
        let mut selection = Selection::default();
        selection.begin(0, Place::of(Codec::Vp8, &vp8(5, 0, false)));
        let mut ids = Vec::new();
        for (step, picture) in [5u16, 6, 20_000, 20_001, 3, 4, 0x7fff, 0].into_iter().enumerate() {
            let payload = vp8(picture, 0, false);
            let packet = arrival(Codec::Vp8, step as u64, step as u32, &payload);
            let Choice::Send(_, changes) = selection.choose(&packet, Some(Codec::Vp8)) else {
                panic!("nothing is left out")
            };
            let mut out = payload;
            changes.apply(&mut out);
            ids.push(rivero_vp8::Descriptor::parse(&out).unwrap().picture_id.unwrap());
        }
        assert_eq!(ids, [5, 6, 7, 8, 9, 10, 11, 12]);
        assert!(selection.jumped);
    }

    proptest! {
        /// Whatever descriptors say, numbers go on one by one when packets come in order.
        #[test]
        fn lies_leave_no_gap(
            packets in vec((any::<[u8; 7]>(), 0u32..3, any::<bool>(), 0u8..4, 0u8..4), 1..200),
            of_vp8: bool,
        ) {
            let codec = if of_vp8 { Codec::Vp8 } else { Codec::Vp9 };
            let (mut selection, mut timestamp, mut expected) = (Selection::default(), 0u32, 7u64);
            for (step, (payload, time, key, spatial, temporal)) in packets.into_iter().enumerate() {
                timestamp = timestamp.wrapping_add(time);
                selection.wanted = Layers { spatial, temporal };
                let mut packet = arrival(codec, 7 + step as u64, timestamp, &payload);
                packet.keyframe = key;
                if step == 0 {
                    selection.begin(packet.sequence, packet.place);
                }
                match selection.choose(&packet, Some(codec)) {
                    Choice::Send(number, changes) => {
                        prop_assert_eq!(number, expected);
                        expected += 1;
                        changes.apply(&mut payload.clone());
                    }
                    choice => prop_assert_eq!(choice, Choice::Leave),
                }
            }
        }
    }
}
