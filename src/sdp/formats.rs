//! The formats of a media section: payload types, what they mean (RFC 8866 §6.6 and §6.15), and which
//! of them repeat others: retransmissions (RFC 4588 §8.1) and redundant audio (RFC 2198 §5).

use crate::rtp::format::{Codec, Format, encoding};

use super::description::{Attribute, MediaSection};

/// Payload types have seven bits.
const NUMBERS: usize = 128;
const RTX: &str = "rtx";

/// What a section says of its payload types, looked up once so that a description with many formats
/// and many lines is no more work than their sum.
pub(super) struct PayloadTypes<'a> {
    /// As in the `m=` line, each once.
    numbers: Vec<u8>,
    maps: [Option<&'a Attribute>; NUMBERS],
    parameters: [Option<&'a Attribute>; NUMBERS],
}

impl<'a> PayloadTypes<'a> {
    pub fn of(section: &'a MediaSection) -> Self {
        let mut types =
            Self { numbers: Vec::new(), maps: [None; NUMBERS], parameters: [None; NUMBERS] };
        let mut seen = Set::default();
        let numbers = section.formats.iter().filter_map(|word| word.parse().ok());
        types.numbers.extend(numbers.filter(|number| seen.insert(*number)));
        for attribute in &section.attributes {
            let of = match attribute.name.as_str() {
                "rtpmap" => &mut types.maps,
                "fmtp" => &mut types.parameters,
                _ => continue,
            };
            if let Some((number, _)) = attribute.payload_type()
                && let Some(said) = of.get_mut(usize::from(number))
            {
                said.get_or_insert(attribute);
            }
        }
        types
    }

    /// All that the `m=` line lists.
    pub fn numbers(&self) -> impl Iterator<Item = u8> {
        self.numbers.iter().copied()
    }

    pub fn map(&self, number: u8) -> Option<&'a Attribute> {
        self.maps[usize::from(number)]
    }

    /// The parameters of the format, empty when there are none.
    pub fn parameters(&self, number: u8) -> &'a str {
        let said = self.parameters[usize::from(number)].and_then(Attribute::payload_type);
        said.map_or("", |(_, parameters)| parameters)
    }

    /// The formats that are among `codecs`, in the section's order. Without an `rtpmap` only the
    /// static payload types of RFC 3551 are known.
    pub fn formats(&self, codecs: &[Codec]) -> Vec<(u8, Format)> {
        let known = self.numbers().filter_map(|number| {
            let codec = self.codec(number).filter(|codec| codecs.contains(codec))?;
            Some((number, Format::new(codec, self.parameters(number))))
        });
        let mut known: Vec<_> = known.collect();
        let opus = known.iter().filter(|(_, format)| format.codec == Codec::Opus);
        let opus: Set = opus.map(|(number, _)| *number).collect();
        known.retain(|(number, format)| {
            format.codec != Codec::Red || repeats(self.parameters(*number), &opus)
        });
        known
    }

    /// Payload types that send again what was sent as one of `formats`, each with that one; one for
    /// each format, in the section's order.
    pub fn rtx(&self, formats: &[(u8, Format)]) -> Vec<(u8, u8)> {
        let mut repaired = Set::default();
        let pairs = self.numbers().filter_map(|number| {
            let (name, clock_rate, _) = encoding(self.map(number)?.payload_type()?.1)?;
            let primary = apt(self.parameters(number))?;
            let (_, format) = formats.iter().find(|(kept, _)| *kept == primary)?;
            let fits = name.eq_ignore_ascii_case(RTX) && clock_rate == format.codec.clock_rate();
            (fits && repaired.insert(primary)).then_some((number, primary))
        });
        pairs.collect()
    }

    fn codec(&self, number: u8) -> Option<Codec> {
        let Some(map) = self.map(number) else {
            return static_codec(number);
        };
        Codec::from_description(map.payload_type()?.1)
    }
}

/// The payload type that a retransmission repeats.
fn apt(parameters: &str) -> Option<u8> {
    let pairs = parameters.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case("apt"));
    values.next()?.1.trim().parse().ok()
}

/// Whether the parameters of redundant audio, `111/111`, name nothing but these payload types.
fn repeats(parameters: &str, known: &Set) -> bool {
    let mut numbers = parameters.trim().split('/');
    numbers.all(|number| number.trim().parse().is_ok_and(|number| known.contains(number)))
}

/// The payload types that RFC 3551 §6 fixes.
const fn static_codec(number: u8) -> Option<Codec> {
    match number {
        0 => Some(Codec::Pcmu),
        8 => Some(Codec::Pcma),
        _ => None,
    }
}

pub(super) fn static_payload_type(codec: Codec) -> Option<u8> {
    (0..=8).find(|number| static_codec(*number) == Some(codec))
}

/// What an offer says of the payload type that repeats another one.
pub(super) fn push_rtx(section: &mut MediaSection, number: u8, primary: u8, clock_rate: u32) {
    section.push("rtpmap", format!("{number} {RTX}/{clock_rate}"));
    section.push("fmtp", format!("{number} apt={primary}"));
}

/// Payload types.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Set(u128);

impl Set {
    /// Whether it is a payload type, and new.
    pub fn insert(&mut self, number: u8) -> bool {
        let is_new = usize::from(number) < NUMBERS && !self.contains(number);
        if is_new {
            self.0 |= 1 << number;
        }
        is_new
    }

    pub const fn contains(&self, number: u8) -> bool {
        (number as usize) < NUMBERS && self.0 >> number & 1 == 1
    }
}

impl FromIterator<u8> for Set {
    fn from_iter<T: IntoIterator<Item = u8>>(numbers: T) -> Self {
        let mut set = Self::default();
        for number in numbers {
            set.insert(number);
        }
        set
    }
}
