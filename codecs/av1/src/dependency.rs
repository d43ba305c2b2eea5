//! The dependency descriptor, a header extension that says which frame of which layer a packet belongs to
//! (AV1 RTP payload format, appendix A). It serves other codecs too.
//!
//! Its templates come with a keyframe and hold until the next ones; a [`Structure`] keeps of them what
//! choosing layers needs. Left out: what a frame depends on, chains, and sizes of pictures.

/// Templates that six bits can name, and decode targets.
const MAX_TEMPLATES: usize = 64;
const MAX_SPATIAL: u8 = 3;
const MAX_TEMPORAL: u8 = 7;
/// Values of a decode target indication.
const NOT_PRESENT: u8 = 0;
const SWITCH: u8 = 2;

/// Why a descriptor cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DescriptorError {
    /// It ends before it says all that it promises.
    Short,
    /// More templates, or more layers, than there may be.
    TooMany,
    /// A template that no structure has.
    UnknownTemplate,
}

/// What a descriptor says of its packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    pub starts: bool,
    pub ends: bool,
    /// Counts frames of all layers; wraps.
    pub number: u16,
    pub spatial: u8,
    pub temporal: u8,
    /// Behind this frame, higher temporal layers of its size can be decoded.
    pub switches_up: bool,
    /// New templates came with it, as they do with keyframes.
    pub has_structure: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Template {
    spatial: u8,
    temporal: u8,
    /// Two bits for each decode target, the first in the lowest.
    indications: u64,
}

/// The templates that hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Structure {
    offset: u8,
    templates: Vec<Template>,
    /// The layers up to which each decode target goes.
    targets: Vec<(u8, u8)>,
}

impl Structure {
    /// Reads a descriptor. `known` is what came before; it is replaced if this one brings templates.
    ///
    /// # Errors
    /// Then `known` is as before.
    pub fn read(known: &mut Option<Self>, descriptor: &[u8]) -> Result<Frame, DescriptorError> {
        let mut bits = Bits { bytes: descriptor, at: 0 };
        let (starts, ends) = (bits.flag()?, bits.flag()?);
        let id = bits.take(6)? as u8;
        let number = bits.take(16)? as u16;
        let mut brought = None;
        let (mut has_structure, mut has_active, mut has_custom) = (false, false, false);
        if descriptor.len() > 3 {
            (has_structure, has_active, has_custom) = (bits.flag()?, bits.flag()?, bits.flag()?);
            bits.take(2)?; // Differences and chains of its own, which nobody reads here.
            if has_structure {
                brought = Some(Self::parse(&mut bits)?);
            }
        }
        let structure = brought.as_ref().or(known.as_ref());
        let structure = structure.ok_or(DescriptorError::UnknownTemplate)?;
        let place = (id + MAX_TEMPLATES as u8 - structure.offset) % MAX_TEMPLATES as u8;
        let mut template =
            *structure.templates.get(usize::from(place)).ok_or(DescriptorError::UnknownTemplate)?;
        if has_active {
            bits.take(structure.targets.len() as u32)?;
        }
        if has_custom {
            template.indications = bits.indications(structure.targets.len())?;
        }
        let frame = Frame {
            starts,
            ends,
            number,
            spatial: template.spatial,
            temporal: template.temporal,
            switches_up: structure.switches_up(&template),
            has_structure,
        };
        if brought.is_some() {
            *known = brought;
        }
        Ok(frame)
    }

    fn parse(bits: &mut Bits<'_>) -> Result<Self, DescriptorError> {
        let offset = bits.take(6)? as u8;
        let count = bits.take(5)? as usize + 1;
        let mut templates = Vec::new();
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            if templates.len() == MAX_TEMPLATES || spatial > MAX_SPATIAL || temporal > MAX_TEMPORAL
            {
                return Err(DescriptorError::TooMany);
            }
            templates.push(Template { spatial, temporal, indications: 0 });
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
        }
        for template in &mut templates {
            template.indications = bits.indications(count)?;
        }
        for _ in 0..templates.len() {
            while bits.flag()? {
                bits.take(4)?;
            }
        }
        let chains = bits.below(count as u32 + 1)?;
        if chains > 0 {
            for _ in 0..count {
                bits.below(chains)?;
            }
            for _ in 0..templates.len() * chains as usize {
                bits.take(4)?;
            }
        }
        if bits.flag()? {
            for _ in 0..=spatial {
                bits.take(32)?;
            }
        }
        let reach = |target: usize| {
            let of = |one: &&Template| indication(one.indications, target) != NOT_PRESENT;
            let spatial = templates.iter().filter(of).map(|one| one.spatial).max().unwrap_or(0);
            let temporal = templates.iter().filter(of).map(|one| one.temporal).max().unwrap_or(0);
            (spatial, temporal)
        };
        let targets = (0..count).map(reach).collect();
        Ok(Self { offset, templates, targets })
    }

    /// Whether all decode targets of the same size and of more pictures can be gone over to here.
    fn switches_up(&self, frame: &Template) -> bool {
        let higher = self.targets.iter().enumerate().filter(|(_, (spatial, temporal))| {
            *spatial == frame.spatial && *temporal > frame.temporal
        });
        let mut any = false;
        for (target, _) in higher {
            any = true;
            if indication(frame.indications, target) != SWITCH {
                return false;
            }
        }
        any
    }

    /// The highest spatial and temporal layer of all templates.
    pub fn highest(&self) -> (u8, u8) {
        let spatial = self.templates.iter().map(|one| one.spatial).max().unwrap_or(0);
        (spatial, self.templates.iter().map(|one| one.temporal).max().unwrap_or(0))
    }
}

const fn indication(all: u64, target: usize) -> u8 {
    (all >> (2 * target) & 3) as u8
}

/// Bits of a descriptor, the highest first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Result<bool, DescriptorError> {
        let byte = self.bytes.get(self.at / 8).ok_or(DescriptorError::Short)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// A number of up to 32 bits.
    fn take(&mut self, count: u32) -> Result<u32, DescriptorError> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    /// A number below `bound`, in as few bits as that takes (AV1 bitstream §4.10.7, `ns`).
    fn below(&mut self, bound: u32) -> Result<u32, DescriptorError> {
        let width = bound.ilog2() + 1;
        let short = (1 << width) - bound;
        let value = self.take(width - 1)?;
        if value < short {
            return Ok(value);
        }
        Ok((value << 1) - short + self.take(1)?)
    }

    fn indications(&mut self, count: usize) -> Result<u64, DescriptorError> {
        let mut all = 0;
        for target in 0..count {
            all |= u64::from(self.take(2)?) << (2 * target);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes numbers of so many bits one behind the other.
    fn bits(numbers: &[(u32, u32)]) -> Vec<u8> {
        let all: Vec<u8> = numbers
            .iter()
            .flat_map(|&(value, width)| (0..width).rev().map(move |bit| (value >> bit & 1) as u8))
            .collect();
        all.chunks(8)
            .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit) << (8 - byte.len()))
            .collect()
    }

    /// Two temporal layers as browsers send them: a keyframe, the base layer, and a layer that is never
    /// needed. The first decode target is all, the second the base layer.
    fn keyframe() -> Vec<u8> {
        bits(&[
            (0b11, 2),
            (7, 6),
            (0x1234, 16), // Template 7 is the first.
            (0b10000, 5), // A structure.
            (7, 6),
            (1, 5), // From number 7, two decode targets.
            (0, 2),
            (1, 2),
            (3, 2), // Layers 0, 0, 1.
            (0b1010, 4),
            (0b1010, 4),
            (0b0100, 4), // Switch, switch, discardable in the first only.
            (0, 1),
            (1, 1),
            (1, 4),
            (0, 1),
            (1, 1),
            (0, 4),
            (0, 1), // Differences.
            (1, 2), // One chain, of 0 to 2: two bits, as 1 is not below the short ones.
            (0, 4),
            (2, 4),
            (1, 4), // Chains of the templates.
            (1, 1),
            (639, 16),
            (479, 16), // A size.
        ])
    }

    #[test]
    fn templates_hold_until_others_come() {
        let mut known = None;
        let frame = Structure::read(&mut known, &keyframe()).unwrap();
        assert!(frame.starts && frame.ends && frame.has_structure && frame.switches_up);
        assert_eq!((frame.number, frame.spatial, frame.temporal), (0x1234, 0, 0));
        assert_eq!(known.as_ref().unwrap().highest(), (0, 1));
        let base = Structure::read(&mut known, &[0x80 | 8, 0, 1]).unwrap();
        assert!(base.starts && !base.ends && base.switches_up && base.temporal == 0);
        let upper = Structure::read(&mut known, &[0x40 | 9, 0, 2]).unwrap();
        assert!(upper.ends && upper.temporal == 1 && !upper.switches_up);
    }

    #[test]
    fn what_a_frame_says_of_itself_goes_before_its_template() {
        let mut known = None;
        Structure::read(&mut known, &keyframe()).unwrap();
        // The base layer, with indications of its own: required in both.
        let own = bits(&[(0b11, 2), (8, 6), (3, 16), (0b00100, 5), (0b1111, 4)]);
        let frame = Structure::read(&mut known, &own).unwrap();
        assert!(!frame.switches_up && frame.temporal == 0);
        let active = bits(&[(0b11, 2), (8, 6), (3, 16), (0b01000, 5), (0b01, 2)]);
        assert!(Structure::read(&mut known, &active).unwrap().switches_up);
    }

    #[test]
    fn descriptors_that_lie_change_nothing() {
        let mut known = None;
        assert_eq!(
            Structure::read(&mut known, &[0x80, 0, 1]),
            Err(DescriptorError::UnknownTemplate)
        );
        Structure::read(&mut known, &keyframe()).unwrap();
        let before = known.clone();
        assert_eq!(
            Structure::read(&mut known, &[0x80 | 10, 0, 1]),
            Err(DescriptorError::UnknownTemplate)
        );
        for length in 0..keyframe().len() - 1 {
            let read = Structure::read(&mut known, &keyframe()[..length]);
            assert!(length == 3 || read.is_err(), "{length}");
        }
        // Templates without end, and layers without end.
        for next in [0u32, 1, 2] {
            let mut numbers = vec![(0b11, 2), (0, 6), (1, 16), (0b10000, 5), (0, 6), (0, 5)];
            numbers.extend([(next, 2); 200]);
            let read = Structure::read(&mut known, &bits(&numbers));
            assert_eq!(read, Err(DescriptorError::TooMany));
        }
        assert_eq!(known, before);
    }
}
