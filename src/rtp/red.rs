//! Redundant audio (RFC 2198): several encodings of one stream in a packet, the newest of them last.
//!
//! Only that one is read. What stands before it repeats earlier packets; a receiver that wants it takes
//! redundant audio itself.

/// Blocks in one packet beyond which it is nonsense: senders repeat a few packets.
const MAX_BLOCKS: usize = 32;

/// The newest encoding in a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Primary<'a> {
    pub payload_type: u8,
    pub payload: &'a [u8],
}

/// `None` when headers or the lengths in them do not fit the packet.
pub fn primary(payload: &[u8]) -> Option<Primary<'_>> {
    let (mut rest, mut repeated) = (payload, 0);
    for _ in 0..MAX_BLOCKS {
        let (&first, tail) = rest.split_first()?;
        if first & 0x80 == 0 {
            // The last header has no length: its block is what is left.
            return Some(Primary { payload_type: first, payload: tail.get(repeated..)? });
        }
        // Fourteen bits of time, ten of length.
        let (&[_, high, low], tail) = tail.split_first_chunk()?;
        repeated += usize::from(high & 3) << 8 | usize::from(low);
        rest = tail;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_is_the_newest() {
        let packet = [0x80 | 111, 0x0f, 0x00, 2, 111, 1, 2, 3, 4, 5];
        assert_eq!(primary(&packet), Some(Primary { payload_type: 111, payload: &[3, 4, 5] }));
        assert_eq!(primary(&[111, 9]), Some(Primary { payload_type: 111, payload: &[9] }));
        assert_eq!(primary(&[111]), Some(Primary { payload_type: 111, payload: &[] }));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for packet in [&[][..], &[0x80 | 111, 0, 0], &[0x80 | 111, 0, 0, 5, 111, 1, 2]] {
            assert_eq!(primary(packet), None);
        }
        let endless = [0x80, 0, 0, 0].repeat(MAX_BLOCKS + 1);
        assert_eq!(primary(&endless), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            if let Some(found) = primary(&bytes) {
                proptest::prop_assert!(found.payload.len() < bytes.len());
            }
        }
    }
}
