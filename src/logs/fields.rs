//! Messages and fields of a log of lines, written so that nobody's text looks like a line of ours.
//!
//! Control characters and separators of lines become escapes such as `\n`. What is longer than a line
//! may be ends in `…`, which leaves the rest of the line as it is.

use std::fmt::{self, Write};

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// Bytes of a message with its fields, and of the fields of a span.
const MAX_FIELDS: usize = 6 * 1_024;

pub(super) struct Plain;

impl<'a> FormatFields<'a> for Plain {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'a>, fields: R) -> fmt::Result {
        let mut escaped = Escaped { text: String::new(), full: false };
        DefaultFields::new().format_fields(Writer::new(&mut escaped), fields)?;
        out.write_str(&escaped.text)
    }
}

struct Escaped {
    text: String,
    full: bool,
}

impl Write for Escaped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.full {
                break;
            }
            if self.text.len() >= MAX_FIELDS {
                self.full = true;
                self.text.push('…');
            } else if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') {
                self.text.extend(letter.escape_default());
            } else {
                self.text.push(letter);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[&str]) -> String {
        let mut out = Escaped { text: String::new(), full: false };
        for part in parts {
            out.write_str(part).expect("a string takes everything");
        }
        out.text
    }

    #[test]
    fn what_could_look_like_a_line_is_escaped() {
        assert_eq!(written(&["a\nb\r", "\tä\u{1b}[1m"]), "a\\nb\\r\\tä\\u{1b}[1m");
        assert_eq!(written(&["\u{85}\u{2028}\0"]), "\\u{85}\\u{2028}\\u{0}");
    }

    #[test]
    fn what_is_too_long_ends_between_two_characters() {
        let text = written(&["a", &"ä".repeat(MAX_FIELDS), "b"]);
        assert!(text.len() < MAX_FIELDS + 8 && text.ends_with("ä…"), "{}", text.len());
    }
}
