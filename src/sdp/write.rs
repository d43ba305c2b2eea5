//! [`Description`] to text: CRLF, and the lines of each section in the order of RFC 8866 §5.
//!
//! Descriptions are written several times while one connection is set up, each of some hundred pieces: so
//! they are handed on as they are, without a format string for each line.

use std::fmt::{Display, Formatter, Result, Write};

use super::description::Length;
use super::{Attribute, Description, MediaSection, SessionSection};

impl Display for Description {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.write(f)
    }
}

impl Description {
    /// The text, as [`Display`] writes it.
    pub fn to_text(&self) -> String {
        let mut length = Length::default();
        self.write(&mut length).expect("counting never fails");
        let mut text = String::with_capacity(length.0);
        self.write(&mut text).expect("writing into a string does not fail");
        text
    }

    pub(super) fn write(&self, to: &mut impl Write) -> Result {
        to.write_str("v=0\r\n")?;
        self.session.write(to)?;
        self.media.iter().try_for_each(|section| section.write(to))
    }
}

impl SessionSection {
    fn write(&self, to: &mut impl Write) -> Result {
        optional(to, "o", self.origin.as_ref())?;
        optional(to, "s", self.name.as_ref())?;
        for (letter, value) in &self.details {
            to.write_char(*letter)?;
            pieces(to, ["=", value, "\r\n"])?;
        }
        optional(to, "c", self.connection.as_ref())?;
        for value in &self.bandwidths {
            line(to, "b", value)?;
        }
        for (letter, value) in &self.times {
            to.write_char(*letter)?;
            pieces(to, ["=", value, "\r\n"])?;
        }
        self.attributes.iter().try_for_each(|attribute| attribute.write(to))
    }
}

impl MediaSection {
    fn write(&self, to: &mut impl Write) -> Result {
        write!(to, "m={} {}", self.media, self.port)?;
        if self.port_count != 1 {
            write!(to, "/{}", self.port_count)?;
        }
        pieces(to, [" ", &self.proto])?;
        for format in &self.formats {
            pieces(to, [" ", format])?;
        }
        to.write_str("\r\n")?;
        optional(to, "i", self.title.as_ref())?;
        optional(to, "c", self.connection.as_ref())?;
        for value in &self.bandwidths {
            line(to, "b", value)?;
        }
        self.attributes.iter().try_for_each(|attribute| attribute.write(to))
    }
}

impl Attribute {
    fn write(&self, to: &mut impl Write) -> Result {
        match &self.value {
            Some(value) => pieces(to, ["a=", &self.name, ":", value, "\r\n"]),
            None => pieces(to, ["a=", &self.name, "\r\n"]),
        }
    }
}

fn optional(to: &mut impl Write, letter: &str, value: Option<&String>) -> Result {
    value.map_or(Ok(()), |value| line(to, letter, value))
}

fn line(to: &mut impl Write, letter: &str, value: &str) -> Result {
    pieces(to, [letter, "=", value, "\r\n"])
}

fn pieces<const N: usize>(to: &mut impl Write, pieces: [&str; N]) -> Result {
    pieces.into_iter().try_for_each(|piece| to.write_str(piece))
}
