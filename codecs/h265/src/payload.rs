//! NAL units in RTP payloads: single, aggregated, fragmented (RFC 7798 §4.4), without the decoding
//! order numbers that only senders of several streams use (`sprop-max-don-diff` above zero).

/// The first and the last type of a picture at which decoding can start (ITU-T H.265 §7.4.2.2).
const FIRST_IRAP: u8 = 16;
const LAST_IRAP: u8 = 23;
const SPS: u8 = 33;
const AGGREGATE: u8 = 48;
const FRAGMENT: u8 = 49;
/// Bytes of a unit's header.
const HEADER: usize = 2;

/// The type in the first byte of a unit's header.
const fn unit_type(header: u8) -> u8 {
    header >> 1 & 0x3f
}

/// The types of NAL units that begin in this payload, in order.
pub fn starting_units(payload: &[u8]) -> StartingUnits<'_> {
    let Some((header, rest)) = payload.split_at_checked(HEADER) else {
        return StartingUnits { single: None, rest: &[] };
    };
    match unit_type(header[0]) {
        AGGREGATE => StartingUnits { single: None, rest },
        FRAGMENT => {
            let starting = rest.first().filter(|fragment| *fragment & 0x80 != 0);
            StartingUnits { single: starting.map(|fragment| fragment & 0x3f), rest: &[] }
        }
        // A unit is at least its header and a byte.
        single => StartingUnits { single: (!rest.is_empty()).then_some(single), rest: &[] },
    }
}

#[derive(Clone, Debug)]
pub struct StartingUnits<'a> {
    single: Option<u8>,
    /// Units of an aggregate, each behind its size.
    rest: &'a [u8],
}

impl Iterator for StartingUnits<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let Some(single) = self.single.take() {
            return Some(single);
        }
        let (size, tail) = self.rest.split_first_chunk()?;
        let (unit, rest) = tail.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        self.rest = rest;
        unit.first().map(|header| unit_type(*header))
    }
}

/// Whether a decoder can start here: a sequence parameter set, or a picture of random access of a
/// sender that gave its parameter sets otherwise.
pub fn starts_keyframe(payload: &[u8]) -> bool {
    starting_units(payload).any(|unit| unit == SPS || (FIRST_IRAP..=LAST_IRAP).contains(&unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_and_pictures_of_random_access_start_keyframes() {
        for first in [0x42, 0x26, 0x28, 0x2a, 0x20] {
            assert!(starts_keyframe(&[first, 1, 7]), "{first:#x}");
        }
        assert!(!starts_keyframe(&[0x02, 1, 7]), "a slice that is predicted");
        assert!(!starts_keyframe(&[0x44, 1, 7]), "a picture parameter set");
    }

    #[test]
    fn aggregates_are_searched() {
        assert!(starts_keyframe(&[0x60, 1, 0, 2, 0x40, 1, 0, 3, 0x42, 1, 2]));
        assert!(!starts_keyframe(&[0x60, 1, 0, 2, 0x44, 1, 0, 2, 0x02, 1]));
        let types: Vec<_> = starting_units(&[0x60, 1, 0, 1, 0x46, 0, 0, 9, 0x42]).collect();
        assert_eq!(types, [35], "a size that does not fit ends the search");
    }

    #[test]
    fn a_fragmented_unit_starts_once() {
        assert!(starts_keyframe(&[0x62, 1, 0x93, 7]));
        assert!(!starts_keyframe(&[0x62, 1, 0x13, 7]), "its middle");
        assert!(!starts_keyframe(&[0x62, 1, 0x53, 7]), "its end");
        assert!(!starts_keyframe(&[0x62, 1, 0x81, 7]), "another unit's start");
    }

    #[test]
    fn payloads_that_end_early_start_nothing() {
        for payload in [&[][..], &[0x42], &[0x42, 1], &[0x60, 1], &[0x60, 1, 0, 0], &[0x62, 1]] {
            assert!(!starts_keyframe(payload), "{payload:?}");
        }
    }
}
