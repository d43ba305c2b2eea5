//! Settings files as trees whose every value knows its line: JSON (RFC 8259) and INI.
//!
//! Beyond the standard, JSON may hold `//` and `/* */` comments, and a name may stand twice in an
//! object: files in use name several members `//` to comment, and the last one counts. Numbers stay
//! the text they were written as. INI has sections, `key=value`, and comments after `;` or `#` at
//! the start of a line. Left out: whatever else people write into INI files.

use std::fmt;

/// Objects and lists inside each other; more is a mistake, or no settings file.
const MAX_DEPTH: usize = 32;

/// A value, and the line that it starts in.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: u32,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    /// As it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Members(Vec<(String, Node)>),
}

/// A text that is not in its format.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    pub line: u32,
    pub what: &'static str,
}

impl Node {
    /// Of members with the same name, the last.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Value::Members(members) = &self.value else { return None };
        members.iter().rev().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    /// The value as plain JSON. Numbers out of range become the text they were.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Boolean(value) => (*value).into(),
            Value::Number(text) => {
                serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())
            }
            Value::Text(text) => text.as_str().into(),
            Value::List(list) => list.iter().map(Self::to_json).collect(),
            Value::Members(members) => {
                members.iter().map(|(name, node)| (name.clone(), node.to_json())).collect()
            }
        }
    }
}

/// What a setting is told: the bare text of a scalar, JSON else.
impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => Ok(()),
            Value::Text(text) | Value::Number(text) => out.write_str(text),
            _ => write!(out, "{}", self.to_json()),
        }
    }
}

/// # Errors
/// The first place where the text is not JSON, comments and repeated names aside.
pub fn parse_json(text: &str) -> Result<Node, SyntaxError> {
    let mut reader = Reader { rest: text, line: 1 };
    reader.skip()?;
    let node = reader.node(0)?;
    reader.skip()?;
    if reader.rest.is_empty() { Ok(node) } else { Err(reader.error("more after the value")) }
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
}

impl Reader<'_> {
    fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError { line: self.line, what }
    }

    /// Goes `bytes` further, which must end between two characters.
    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        let lines = passed.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest.starts_with(token);
        if found {
            self.advance(token.len());
        }
        found
    }

    /// Passes blanks and comments.
    fn skip(&mut self) -> Result<(), SyntaxError> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if self.rest.starts_with("//") {
                self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let end =
                    self.rest.find("*/").ok_or_else(|| self.error("a comment without end"))?;
                self.advance(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(self.error("too deeply nested"));
        }
        let line = self.line;
        let value = match self.rest.bytes().next() {
            Some(b'{') => self.members(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.text()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ if self.take("true") => Value::Boolean(true),
            _ if self.take("false") => Value::Boolean(false),
            _ if self.take("null") => Value::Null,
            None => return Err(self.error("the text ends where a value should be")),
            _ => return Err(self.error("a value was expected")),
        };
        Ok(Node { line, value })
    }

    fn members(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut members = Vec::new();
        self.advance(1);
        self.skip()?;
        if self.take("}") {
            return Ok(Value::Members(members));
        }
        loop {
            if !self.rest.starts_with('"') {
                return Err(self.error("a name in quotes was expected"));
            }
            let name = self.text()?;
            self.skip()?;
            if !self.take(":") {
                return Err(self.error("':' was expected"));
            }
            self.skip()?;
            members.push((name, self.node(depth + 1)?));
            self.skip()?;
            if self.take("}") {
                return Ok(Value::Members(members));
            }
            if !self.take(",") {
                return Err(self.error("',' or '}' was expected"));
            }
            self.skip()?;
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut list = Vec::new();
        self.advance(1);
        self.skip()?;
        if self.take("]") {
            return Ok(Value::List(list));
        }
        loop {
            list.push(self.node(depth + 1)?);
            self.skip()?;
            if self.take("]") {
                return Ok(Value::List(list));
            }
            if !self.take(",") {
                return Err(self.error("',' or ']' was expected"));
            }
            self.skip()?;
        }
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let end = self.rest.find(|letter: char| {
            !letter.is_ascii_digit() && !matches!(letter, '-' | '+' | '.' | 'e' | 'E')
        });
        let text = &self.rest[..end.unwrap_or(self.rest.len())];
        if text.parse::<f64>().is_err() {
            return Err(self.error("not a number"));
        }
        let number = Value::Number(text.to_owned());
        self.advance(text.len());
        Ok(number)
    }

    fn text(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        self.advance(1);
        loop {
            let Some(next) = self.rest.chars().next() else {
                return Err(self.error("a text without end"));
            };
            match next {
                '\n' => return Err(self.error("a text without end")),
                '"' => {
                    self.advance(1);
                    return Ok(text);
                }
                '\\' => {
                    self.advance(1);
                    text.push(self.escaped()?);
                }
                _ => {
                    text.push(next);
                    self.advance(next.len_utf8());
                }
            }
        }
    }

    /// What follows a backslash.
    fn escaped(&mut self) -> Result<char, SyntaxError> {
        let letter = self.rest.bytes().next().unwrap_or_default();
        let plain = match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.advance(1);
                let high = self.hex()?;
                let mut code = high;
                if (0xd800..0xdc00).contains(&high) && self.take("\\u") {
                    let low = self.hex()?;
                    let pair = (0xdc00..0xe000).contains(&low);
                    // Two halves that do not belong together become one sign of that.
                    code = if pair {
                        0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    } else {
                        high
                    };
                }
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.advance(1);
        Ok(plain)
    }

    fn hex(&mut self) -> Result<u32, SyntaxError> {
        let digits = self.rest.get(..4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("four hexadecimal digits were expected"))?;
        self.advance(4);
        Ok(code)
    }
}

/// An INI file as members; a key inside a section is named `section.key`.
///
/// # Errors
/// The first line that is neither a section, nor a key with a value, nor a comment.
pub fn parse_ini(text: &str) -> Result<Node, SyntaxError> {
    let mut members = Vec::new();
    let mut section = String::new();
    for (number, written) in text.lines().enumerate() {
        let line = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let written = written.trim();
        if written.is_empty() || written.starts_with([';', '#']) {
            continue;
        }
        if let Some(name) = written.strip_prefix('[') {
            let name = name.strip_suffix(']').map(str::trim).filter(|name| !name.is_empty());
            let name = name.ok_or(SyntaxError { line, what: "a section without ']'" })?;
            section = format!("{name}.");
            continue;
        }
        let (key, value) = written
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, _)| !key.is_empty())
            .ok_or(SyntaxError { line, what: "'key=value' was expected" })?;
        let node = Node { line, value: Value::Text(value.to_owned()) };
        members.push((format!("{section}{key}"), node));
    }
    Ok(Node { line: 1, value: Value::Members(members) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_know_their_lines_and_the_last_of_two_counts() {
        let text = "// first\n{ \"//\": \"a\", \"//\": \"b\", /* two\nlines */ \"port\": 1,\n\
                    \"port\" : \"8888\", \"deep\": { \"list\": [ true, null, -1.5e3 ] } } // end";
        let root = parse_json(text).expect("JSON with comments");
        let port = root.member("port").expect("it is there");
        assert_eq!((port.line, port.to_string().as_str()), (4, "8888"));
        let list = root.member("deep").and_then(|deep| deep.member("list")).expect("it is there");
        assert_eq!(list.to_string(), "[true,null,-1500.0]");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, what) in [
            ("", 1, "the text ends where a value should be"),
            ("{\n\"a\": 1\n\"b\": 2}", 3, "',' or '}' was expected"),
            ("{\n\"a\" 1}", 2, "':' was expected"),
            ("{\"a\":\n\"b", 2, "a text without end"),
            ("{a: 1}", 1, "a name in quotes was expected"),
            ("[1 2]", 1, "',' or ']' was expected"),
            ("{} {}", 1, "more after the value"),
            ("\n\n/* ", 3, "a comment without end"),
            ("[1.2.3]", 1, "not a number"),
            ("\"\\x\"", 1, "an unknown escape"),
            ("\"\\u12\"", 1, "four hexadecimal digits were expected"),
            ("[yes]", 1, "a value was expected"),
        ] {
            assert_eq!(parse_json(text), Err(SyntaxError { line, what }), "{text}");
        }
        assert_eq!(
            parse_json(&"[".repeat(100_000)).map_err(|error| error.what),
            Err("too deeply nested")
        );
    }

    #[test]
    fn escapes_are_those_of_json() {
        let node = parse_json(r#""\"\\\/\n\t\u00e4\ud83d\ude00\ud800""#).expect("a text");
        assert_eq!(node.value, Value::Text("\"\\/\n\tä😀\u{fffd}".to_owned()));
    }

    #[test]
    fn ini_files_have_comments_sections_and_values_with_signs_of_equality() {
        let text =
            "; comment\n# too\n\nminPort = 5000\n[a]\nturnURL=u:p=w@1.2.3.4:3478?transport=udp\n";
        let root = parse_ini(text).expect("an INI file");
        assert_eq!(root.member("minPort").map(|node| node.line), Some(4));
        let turn = root.member("a.turnURL").map(ToString::to_string);
        assert_eq!(turn.as_deref(), Some("u:p=w@1.2.3.4:3478?transport=udp"));
        for (text, line) in [("a=1\nb\n", 2), ("=1", 1), ("[x\n", 1)] {
            assert_eq!(parse_ini(text).map_err(|error| error.line), Err(line), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_read_as_it_was_meant(texts in prop::collection::vec(".*", 0..8), number: i64) {
            let written = serde_json::json!({"texts": texts, "number": number, "none": null});
            let pretty = serde_json::to_string_pretty(&written).expect("JSON");
            prop_assert_eq!(parse_json(&pretty).expect("JSON").to_json(), written);
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "[\\[\\]{}\",:/*\\\\ua0-9;=.\n -]{0,64}") {
            let _ = parse_json(&text);
            let _ = parse_ini(&text);
        }
    }
}
