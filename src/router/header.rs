//! The header of what a sink sends: made once as far as it stays the same, and filled in for each
//! packet (RFC 3550 §5.1, RFC 8285 §4.2).

use crate::rtp::{
    AbsSendTime, Extension, Extensions,
    extensions::{CaptureTime, Carried},
};

/// Room for the fixed header and all extensions that are written: 12 bytes, 4 of their own header,
/// 4 for the time of sending, 3 for the transport's number, 17 for a name, 2 for loudness, 17 for the
/// time of capture, 4 for the wait, and what rounds up to a word.
pub(super) const MAX_HEADER: usize = 64;
/// Content of an element in the one-byte form.
const MAX_CONTENT: usize = 16;
const EXTENSIONS_AT: usize = 16;

/// What changes with each packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub abs_send_time: AbsSendTime,
    pub transport_sequence: u16,
    /// Where it was agreed on and may be said.
    pub playout_delay: Option<[u8; 3]>,
}

#[derive(Clone, Debug)]
pub(super) struct Layout {
    template: [u8; MAX_HEADER],
    /// Where the elements end that every packet has, and the same rounded up to a word.
    elements_end: usize,
    length: usize,
    /// Where their contents stand; zero for nowhere.
    abs_send_time: usize,
    transport_sequence: usize,
    /// Numbers of elements that only some packets have; zero for none.
    audio_level: u8,
    capture_time: u8,
    playout_delay: u8,
}

impl Layout {
    /// `mid` is left out when it is longer than an element. With `carries`, what sources say of their
    /// media is passed on.
    pub fn new(ssrc: u32, agreed: &Extensions, mid: Option<&str>, carries: bool) -> Self {
        let mut layout = Self {
            template: [0; MAX_HEADER],
            elements_end: EXTENSIONS_AT,
            length: 12,
            abs_send_time: 0,
            transport_sequence: 0,
            audio_level: 0,
            capture_time: 0,
            playout_delay: 0,
        };
        layout.template[0] = 0x80;
        layout.template[8..12].copy_from_slice(&ssrc.to_be_bytes());
        layout.template[12..14].copy_from_slice(&[0xbe, 0xde]);
        if let Some(id) = agreed.get(Extension::AbsSendTime) {
            layout.abs_send_time = layout.element(id, &[0; 3]);
        }
        if let Some(id) = agreed.get(Extension::TransportSequence) {
            layout.transport_sequence = layout.element(id, &[0; 2]);
        }
        let mid = mid.map(str::as_bytes).filter(|mid| (1..=MAX_CONTENT).contains(&mid.len()));
        if let (Some(id), Some(mid)) = (agreed.get(Extension::Mid), mid) {
            layout.element(id, mid);
        }
        if layout.elements_end > EXTENSIONS_AT {
            layout.template[0] |= 0x10;
            layout.length = layout.elements_end.next_multiple_of(4);
            layout.template[15] = words(layout.length);
        }
        if carries {
            layout.audio_level = agreed.get(Extension::AudioLevel).unwrap_or(0);
            layout.capture_time = agreed.get(Extension::AbsCaptureTime).unwrap_or(0);
            layout.playout_delay = agreed.get(Extension::PlayoutDelay).unwrap_or(0);
        }
        layout
    }

    /// Bytes of a header that carries nothing.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether packets have a number of their transport.
    pub fn is_numbered(&self) -> bool {
        self.transport_sequence != 0
    }

    /// The header, and its length.
    #[inline]
    pub fn write(&self, fields: &Fields, carried: &Carried) -> ([u8; MAX_HEADER], usize) {
        let mut header = self.template;
        header[1] = u8::from(fields.marker) << 7 | fields.payload_type;
        header[2..4].copy_from_slice(&fields.sequence.to_be_bytes());
        header[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        if self.abs_send_time != 0 {
            let bits = fields.abs_send_time.bits().to_be_bytes();
            header[self.abs_send_time..][..3].copy_from_slice(&bits[1..]);
        }
        if self.transport_sequence != 0 {
            let number = fields.transport_sequence.to_be_bytes();
            header[self.transport_sequence..][..2].copy_from_slice(&number);
        }
        if carried.is_empty() && fields.playout_delay.is_none() {
            return (header, self.length);
        }
        let length = self.append(&mut header, carried, fields.playout_delay);
        (header, length)
    }

    fn append(
        &self,
        header: &mut [u8; MAX_HEADER],
        carried: &Carried,
        playout_delay: Option<[u8; 3]>,
    ) -> usize {
        let mut end = self.elements_end;
        if let (Some(level), 1..) = (carried.audio_level, self.audio_level) {
            end = put(header, end, self.audio_level, &[level]);
        }
        if let (Some(CaptureTime { captured, offset }), 1..) =
            (carried.capture_time, self.capture_time)
        {
            let mut content = [0; 16];
            content[..8].copy_from_slice(&captured.to_be_bytes());
            content[8..].copy_from_slice(&offset.unwrap_or(0).to_be_bytes());
            let length = if offset.is_some() { 16 } else { 8 };
            end = put(header, end, self.capture_time, &content[..length]);
        }
        if let (Some(delay), 1..) = (playout_delay, self.playout_delay) {
            end = put(header, end, self.playout_delay, &delay);
        }
        if end == self.elements_end {
            return self.length;
        }
        let length = end.next_multiple_of(4);
        header[0] |= 0x10;
        header[15] = words(length);
        length
    }

    /// Adds an element that every packet has; where its content stands.
    fn element(&mut self, id: u8, content: &[u8]) -> usize {
        let at = self.elements_end + 1;
        self.elements_end = put(&mut self.template, self.elements_end, id, content);
        at
    }
}

/// Puts an element in the one-byte form; where it ends.
fn put(header: &mut [u8; MAX_HEADER], at: usize, id: u8, content: &[u8]) -> usize {
    let end = at + 1 + content.len();
    header[at] = id << 4 | (content.len() - 1) as u8;
    header[at + 1..end].copy_from_slice(content);
    end
}

/// Words of extensions in a header of that length.
fn words(length: usize) -> u8 {
    ((length - EXTENSIONS_AT) / 4) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::RtpPacket;

    const FIELDS: Fields = Fields {
        marker: true,
        payload_type: 96,
        sequence: 0x1234,
        timestamp: 0x5678_9abc,
        abs_send_time: AbsSendTime::from_bits(0x00ab_cdef),
        transport_sequence: 0x4321,
        playout_delay: Some([1, 0x23, 0xe8]),
    };

    fn agreed(wanted: &[(Extension, u8)]) -> Extensions {
        let mut agreed = Extensions::default();
        for &(extension, id) in wanted {
            assert!(agreed.set(extension, id));
        }
        agreed
    }

    #[test]
    fn a_header_with_everything_reads_as_it_was_written() {
        let all = [
            (Extension::AbsSendTime, 1),
            (Extension::TransportSequence, 2),
            (Extension::Mid, 3),
            (Extension::AudioLevel, 4),
            (Extension::AbsCaptureTime, 14),
            (Extension::PlayoutDelay, 13),
        ];
        let layout = Layout::new(7, &agreed(&all), Some("0123456789abcdef"), true);
        let capture_time = Some(CaptureTime { captured: 1 << 40, offset: Some(u64::MAX) });
        let carried = Carried { audio_level: Some(0x91), capture_time };
        let (header, length) = layout.write(&FIELDS, &carried);
        let read = RtpPacket::parse(&header[..length]).unwrap();
        assert_eq!((read.ssrc, read.sequence, read.timestamp), (7, 0x1234, 0x5678_9abc));
        assert!(read.marker && read.payload_type == 96 && read.payload().is_empty());
        assert_eq!(read.extension(1), Some(&[0xab, 0xcd, 0xef][..]));
        assert_eq!(read.extension(2), Some(&[0x43, 0x21][..]));
        assert_eq!(read.extension(3), Some(&b"0123456789abcdef"[..]));
        assert_eq!(read.extension(4), Some(&[0x91][..]));
        assert_eq!(read.extension(14).map(<[u8]>::len), Some(16));
        assert_eq!(read.extension(13), Some(&[1, 0x23, 0xe8][..]));
        // Nothing to carry, or nobody to carry it for.
        let bare = Fields { playout_delay: None, ..FIELDS };
        let (header, length) = layout.write(&bare, &Carried::default());
        let read = RtpPacket::parse(&header[..length]).unwrap();
        assert_eq!((length, read.elements().count()), (layout.len(), 3));
        let (header, length) = Layout::new(7, &agreed(&all), None, false).write(&FIELDS, &carried);
        assert_eq!(RtpPacket::parse(&header[..length]).unwrap().elements().count(), 2);
    }

    #[test]
    fn extensions_that_only_some_packets_have_leave_the_others_bare() {
        let layout = Layout::new(7, &agreed(&[(Extension::AudioLevel, 4)]), Some("0"), true);
        let (header, length) = layout.write(&FIELDS, &Carried::default());
        assert_eq!((header[0], length), (0x80, 12));
        let carried = Carried { audio_level: Some(5), capture_time: None };
        let (header, length) = layout.write(&FIELDS, &carried);
        assert_eq!((header[0], length), (0x90, 20));
        assert_eq!(RtpPacket::parse(&header[..length]).unwrap().extension(4), Some(&[5][..]));
        let capture_time = Some(CaptureTime { captured: 1, offset: None });
        let carried = Carried { audio_level: None, capture_time };
        assert_eq!(layout.write(&FIELDS, &carried).1, 12);
    }

    #[test]
    fn a_name_that_no_element_holds_is_left_out() {
        let wanted = agreed(&[(Extension::Mid, 4)]);
        for mid in [None, Some(""), Some("a name of seventeen")] {
            assert_eq!(Layout::new(7, &wanted, mid, true).len(), 12);
        }
    }
}
