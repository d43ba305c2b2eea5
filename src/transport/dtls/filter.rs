//! Which records of a datagram may reach the DTLS library.
//!
//! Everything before the end of the handshake is unauthenticated, and the library keeps fragments of
//! any message in any number. So: handshake messages that were already whole are dropped (the library
//! takes them for progress and stops its retransmission timer), fragments have a least size, and the
//! bytes of a handshake are counted, those of broken datagrams too. After the handshake plaintext
//! records have no business any more: neither alerts nor another ClientHello.

use bytes::BytesMut;

use crate::transport::DropReason;

const RECORD_HEADER: usize = 13;
const HANDSHAKE_HEADER: usize = 12;
const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;

/// What a handshake with long chains and several retransmissions needs at most.
const HANDSHAKE_BYTES: usize = 64 * 1024;
const LONGEST_MESSAGE: usize = 16 * 1024;
/// A fragment that does not end its message is as long as a datagram; this is far below.
const SHORTEST_FRAGMENT: usize = 64;
/// How many messages beyond the one awaited are tracked.
const AHEAD: u16 = 8;
/// Repetitions of the peer's last flight that are answered.
const REPETITIONS: u32 = 64;

#[derive(Default)]
pub(super) struct Filter {
    complete: bool,
    bytes: usize,
    repetitions: u32,
    /// The message awaited next, and the fragments seen of it and its followers.
    next: u16,
    fragments: Vec<Fragment>,
}

#[derive(Clone, Copy)]
struct Fragment {
    message: u16,
    offset: usize,
    len: usize,
    total: usize,
}

impl Filter {
    /// The records that may pass, in one datagram.
    ///
    /// # Errors
    /// Why none of it may.
    pub(super) fn pass(&mut self, datagram: &[u8]) -> Result<BytesMut, DropReason> {
        if self.bytes > HANDSHAKE_BYTES && !self.complete {
            return Err(DropReason::DtlsFlood);
        }
        let picked = self.pick(datagram);
        if !self.complete {
            // What breaks off may have left fragments here before it did.
            self.bytes += match &picked {
                Ok(passed) => passed.len(),
                Err(DropReason::DtlsMalformed) => datagram.len(),
                Err(_) => 0,
            };
        }
        picked
    }

    fn pick(&mut self, datagram: &[u8]) -> Result<BytesMut, DropReason> {
        let mut passed = BytesMut::with_capacity(datagram.len());
        let mut left_out = DropReason::DtlsMalformed;
        let mut rest = datagram;
        while !rest.is_empty() {
            let len = record_len(rest).ok_or(DropReason::DtlsMalformed)?;
            let (record, after) = rest.split_at(len);
            match self.admit(record)? {
                None => passed.extend_from_slice(record),
                Some(reason) => left_out = reason,
            }
            rest = after;
        }
        if passed.is_empty() { Err(left_out) } else { Ok(passed) }
    }

    /// The handshake is over.
    pub(super) fn complete(&mut self) {
        self.complete = true;
        self.fragments = Vec::new();
    }

    /// Why a record is left out, if it is.
    fn admit(&mut self, record: &[u8]) -> Result<Option<DropReason>, DropReason> {
        let (kind, epoch) = (record[0], u16::from_be_bytes([record[3], record[4]]));
        let reason_if = |refused: bool, reason| Ok(refused.then_some(reason));
        if self.complete {
            if kind == HANDSHAKE && epoch == 1 {
                self.repetitions = self.repetitions.saturating_add(1);
                return reason_if(self.repetitions > REPETITIONS, DropReason::DtlsRepeated);
            }
            // The library takes a change of ciphers as it is, sealed or not.
            let unsealed = epoch != 1 || kind == CHANGE_CIPHER_SPEC;
            return reason_if(unsealed, DropReason::DtlsUnexpected);
        }
        match epoch {
            0 if kind == HANDSHAKE => self.admit_fragments(&record[RECORD_HEADER..]),
            _ => reason_if(epoch > 1, DropReason::DtlsUnexpected),
        }
    }

    /// Why a record's fragments are left out, if they tell nothing new.
    fn admit_fragments(&mut self, mut body: &[u8]) -> Result<Option<DropReason>, DropReason> {
        let mut left_out = Some(DropReason::DtlsMalformed);
        while !body.is_empty() {
            let (fragment, len) = Fragment::read(body).ok_or(DropReason::DtlsMalformed)?;
            body = &body[len..];
            if (self.next..self.next.saturating_add(AHEAD)).contains(&fragment.message) {
                self.fragments.push(fragment);
                left_out = None;
            } else if fragment.message == 0 && self.next == 1 {
                // A first ClientHello comes again if the cookie for the second was lost, and the
                // cookie is the one message that a server repeats only when asked (RFC 6347 §4.2.1).
                left_out = None;
            } else if left_out.is_some() {
                let again = fragment.message < self.next;
                let reason =
                    if again { DropReason::DtlsRepeated } else { DropReason::DtlsUnexpected };
                left_out = Some(reason);
            }
        }
        while self.is_whole(self.next) {
            let whole = self.next;
            self.next = self.next.saturating_add(1);
            self.fragments.retain(|fragment| fragment.message != whole);
        }
        Ok(left_out)
    }

    /// Whether the fragments of a message join into the whole of it, end to end as the library joins
    /// them.
    fn is_whole(&self, message: u16) -> bool {
        let mut end = 0;
        loop {
            let joins =
                |fragment: &&Fragment| fragment.message == message && fragment.offset == end;
            match self.fragments.iter().find(joins) {
                Some(fragment) if fragment.len == 0 => return true,
                Some(fragment) => end += fragment.len,
                None => return false,
            }
            if self
                .fragments
                .iter()
                .any(|fragment| fragment.message == message && fragment.total == end)
            {
                return true;
            }
        }
    }
}

impl Fragment {
    /// Reads the fragment at the start of `body` and how many bytes it takes.
    fn read(body: &[u8]) -> Option<(Self, usize)> {
        let header = body.get(..HANDSHAKE_HEADER)?;
        let number = |at: usize| {
            usize::from(header[at]) << 16
                | usize::from(header[at + 1]) << 8
                | usize::from(header[at + 2])
        };
        let (total, offset, len) = (number(1), number(6), number(9));
        let message = u16::from_be_bytes([header[4], header[5]]);
        let fits = total <= LONGEST_MESSAGE
            && offset + len <= total
            && (len >= SHORTEST_FRAGMENT || offset + len == total)
            && HANDSHAKE_HEADER + len <= body.len();
        fits.then_some((Self { message, offset, len, total }, HANDSHAKE_HEADER + len))
    }
}

/// Whether a datagram that passed has records of the handshake, which is over, and whether others.
pub(super) fn repeats(mut datagram: &[u8]) -> (bool, bool) {
    let (mut repeats, mut others) = (false, false);
    while let Some(len) = record_len(datagram) {
        *(if datagram[0] == HANDSHAKE { &mut repeats } else { &mut others }) = true;
        datagram = &datagram[len..];
    }
    (repeats, others)
}

/// The length of the record at the start of `bytes`, header included.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..RECORD_HEADER)?;
    let len = RECORD_HEADER + usize::from(u16::from_be_bytes([header[11], header[12]]));
    ((20..=23).contains(&header[0]) && header[1] == 0xfe && len <= bytes.len()).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, epoch: u16, body: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 0xfe, 0xfd];
        record.extend(epoch.to_be_bytes());
        record.extend([0; 6]);
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    }

    fn fragment(message: u16, total: u32, offset: u32, len: usize) -> Vec<u8> {
        let mut body = vec![1];
        body.extend(&total.to_be_bytes()[1..]);
        body.extend(message.to_be_bytes());
        body.extend(&offset.to_be_bytes()[1..]);
        body.extend(&(len as u32).to_be_bytes()[1..]);
        body.resize(12 + len, 0);
        record(HANDSHAKE, 0, &body)
    }

    fn passes(filter: &mut Filter, datagram: &[u8]) -> bool {
        filter.pass(datagram).is_ok()
    }

    #[test]
    fn a_message_in_two_datagrams_passes_and_its_repetition_does_not() {
        let mut filter = Filter::default();
        assert!(passes(&mut filter, &fragment(0, 100, 0, 100)));
        let (first, second) = (fragment(1, 1_500, 0, 1_100), fragment(1, 1_500, 1_100, 400));
        assert!(passes(&mut filter, &second));
        assert!(passes(&mut filter, &first));
        assert!(!passes(&mut filter, &first));
        assert!(!passes(&mut filter, &second));
        assert!(passes(&mut filter, &fragment(2, 100, 0, 100)));
    }

    #[test]
    fn a_repeated_half_passes_until_the_message_is_whole() {
        let mut filter = Filter::default();
        assert!(passes(&mut filter, &fragment(0, 100, 0, 100)));
        assert!(passes(&mut filter, &fragment(1, 1_500, 0, 1_100)));
        assert!(passes(&mut filter, &fragment(1, 1_500, 0, 1_100)));
        assert!(passes(&mut filter, &fragment(1, 1_500, 1_100, 400)));
        assert!(!passes(&mut filter, &fragment(1, 1_500, 0, 1_100)));
    }

    #[test]
    fn the_first_message_passes_again_until_the_second_is_whole() {
        let mut filter = Filter::default();
        assert!(passes(&mut filter, &fragment(0, 100, 0, 100)));
        assert!(passes(&mut filter, &fragment(0, 100, 0, 100)));
        assert!(passes(&mut filter, &fragment(1, 100, 0, 100)));
        assert!(!passes(&mut filter, &fragment(0, 100, 0, 100)));
    }

    #[test]
    fn hoards_are_refused() {
        let mut filter = Filter::default();
        assert!(!passes(&mut filter, &fragment(0, 1_500, 0, 1)));
        assert!(!passes(&mut filter, &fragment(0, 1 << 23, 0, 1_000)));
        assert!(!passes(&mut filter, &fragment(100, 1_500, 0, 1_100)));
        let passed =
            (0..1_000).filter(|_| passes(&mut filter, &fragment(0, 1_500, 0, 1_100))).count();
        assert!(passed <= HANDSHAKE_BYTES / 1_100);
    }

    #[test]
    fn plaintext_has_no_business_after_the_handshake() {
        let mut filter = Filter::default();
        filter.complete();
        for kind in 20..=23 {
            assert!(!passes(&mut filter, &record(kind, 0, &[2, 40])));
        }
        assert!(passes(&mut filter, &record(23, 1, &[0; 40])));
        let repeated = (0..1_000).filter(|_| passes(&mut filter, &record(22, 1, &[0; 40]))).count();
        assert_eq!(repeated, REPETITIONS as usize);
        assert!(passes(&mut filter, &record(21, 1, &[0; 40])));
        assert!(!passes(&mut filter, &record(20, 1, &[1])));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_trap(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Filter::default().pass(&bytes);
            let mut body = record(22, 0, &bytes);
            let _ = Filter::default().pass(&body);
            body.truncate(bytes.len());
            let _ = Filter::default().pass(&body);
        }
    }
}
