//! NAL units in RTP payloads: single, aggregated (STAP-A), fragmented (FU-A), the three structures
//! of packetization modes 0 and 1 (RFC 6184 §5.6–5.8). The interleaved mode is not used by WebRTC.

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// The types of NAL units that begin in this payload, in order.
pub fn starting_units(payload: &[u8]) -> StartingUnits<'_> {
    match payload {
        [header, rest @ ..] if header & 0x1f == STAP_A => StartingUnits { single: None, rest },
        [indicator, header, ..] if indicator & 0x1f == FU_A => {
            let starts = header & 0x80 != 0;
            StartingUnits { single: starts.then_some(header & 0x1f), rest: &[] }
        }
        // A unit is at least its header and a byte.
        [header, _, ..] => StartingUnits { single: Some(header & 0x1f), rest: &[] },
        _ => StartingUnits { single: None, rest: &[] },
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
        unit.first().map(|header| header & 0x1f)
    }
}

/// Whether a decoder can start here: a sequence parameter set, or an IDR slice of a sender that
/// gave its parameter sets otherwise.
pub fn starts_keyframe(payload: &[u8]) -> bool {
    starting_units(payload).any(|unit| unit == SPS || unit == IDR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_and_idr_slices_start_keyframes() {
        assert!(starts_keyframe(&[0x67, 0x42, 0xe0]));
        assert!(starts_keyframe(&[0x65, 0x88]));
        assert!(!starts_keyframe(&[0x41, 0x9a]), "a slice that is predicted");
        assert!(!starts_keyframe(&[0x68, 0xce]), "a picture parameter set");
    }

    #[test]
    fn aggregates_are_searched() {
        assert!(starts_keyframe(&[0x78, 0, 2, 0x68, 1, 0, 3, 0x67, 1, 2]));
        assert!(!starts_keyframe(&[0x78, 0, 2, 0x68, 1, 0, 2, 0x41, 1]));
        let types: Vec<_> = starting_units(&[0x78, 0, 1, 9, 0, 2, 6, 0, 0, 9, 0x65]).collect();
        assert_eq!(types, [9, 6], "a size that does not fit ends the search");
    }

    #[test]
    fn a_fragmented_unit_starts_once() {
        assert!(starts_keyframe(&[0x7c, 0x85, 0x88]));
        assert!(!starts_keyframe(&[0x7c, 0x05, 0x88]), "its middle");
        assert!(!starts_keyframe(&[0x7c, 0x45, 0x88]), "its end");
        assert!(!starts_keyframe(&[0x7c, 0x81, 0x88]), "another unit's start");
    }

    #[test]
    fn payloads_that_end_early_start_nothing() {
        for payload in [&[][..], &[0x65], &[0x78], &[0x78, 0], &[0x78, 0, 0], &[0x7c]] {
            assert!(!starts_keyframe(payload), "{payload:?}");
        }
    }
}
