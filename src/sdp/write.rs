//! [`Description`] to text: CRLF, and the lines of each section in the order of RFC 8866 §5.

use std::fmt::{Display, Formatter, Result};

use super::{Attribute, Description, MediaSection, SessionSection};

impl Display for Description {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "v=0\r\n{}", self.session)?;
        self.media.iter().try_for_each(|section| section.fmt(f))
    }
}

impl Display for SessionSection {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        optional(f, 'o', self.origin.as_ref())?;
        optional(f, 's', self.name.as_ref())?;
        for (letter, value) in &self.details {
            write!(f, "{letter}={value}\r\n")?;
        }
        optional(f, 'c', self.connection.as_ref())?;
        for value in &self.bandwidths {
            write!(f, "b={value}\r\n")?;
        }
        for (letter, value) in &self.times {
            write!(f, "{letter}={value}\r\n")?;
        }
        self.attributes.iter().try_for_each(|attribute| attribute.fmt(f))
    }
}

impl Display for MediaSection {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "m={} {}", self.media, self.port)?;
        if self.port_count != 1 {
            write!(f, "/{}", self.port_count)?;
        }
        write!(f, " {}", self.proto)?;
        for format in &self.formats {
            write!(f, " {format}")?;
        }
        f.write_str("\r\n")?;
        optional(f, 'i', self.title.as_ref())?;
        optional(f, 'c', self.connection.as_ref())?;
        for value in &self.bandwidths {
            write!(f, "b={value}\r\n")?;
        }
        self.attributes.iter().try_for_each(|attribute| attribute.fmt(f))
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.value {
            Some(value) => write!(f, "a={}:{value}\r\n", self.name),
            None => write!(f, "a={}\r\n", self.name),
        }
    }
}

fn optional(f: &mut Formatter<'_>, letter: char, value: Option<&String>) -> Result {
    value.map_or(Ok(()), |value| write!(f, "{letter}={value}\r\n"))
}
