//! A session description as its lines say it (RFC 8866 §5): typed where the server reads it,
//! verbatim everywhere else.

use std::fmt::Write;
use std::net::IpAddr;

/// An `a=` line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attribute {
    pub name: String,
    /// What follows the colon; `None` for a flag.
    pub value: Option<String>,
}

impl Attribute {
    pub fn flag(name: &str) -> Self {
        Self { name: name.to_owned(), value: None }
    }

    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: Some(value.into()) }
    }

    /// The value, empty for a flag.
    pub fn value(&self) -> &str {
        self.value.as_deref().unwrap_or_default()
    }

    /// The payload type and the rest of a value like that of `rtpmap`, `fmtp` and `rtcp-fb`.
    pub fn payload_type(&self) -> Option<(u8, &str)> {
        let (number, rest) = self.value().split_once(' ')?;
        Some((number.parse().ok()?, rest.trim_start()))
    }
}

/// Who sends, seen from the author of the description (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub const fn new(send: bool, receive: bool) -> Self {
        match (send, receive) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.name() == name)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same agreement in the words of the other side (RFC 3264 §6.1).
    pub const fn mirrored(self) -> Self {
        Self::new(self.receives(), self.sends())
    }
}

/// What stands before the first `m=` line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SessionSection {
    /// The value of `o=`.
    pub origin: Option<String>,
    /// The value of `s=`.
    pub name: Option<String>,
    /// `i=`, `u=`, `e=` and `p=` lines: letter and value.
    pub details: Vec<(char, String)>,
    /// The value of `c=`.
    pub connection: Option<String>,
    /// Values of `b=` lines.
    pub bandwidths: Vec<String>,
    /// `t=`, `r=`, `z=` and `k=` lines: letter and value.
    pub times: Vec<(char, String)>,
    pub attributes: Vec<Attribute>,
}

/// An `m=` line and what belongs to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MediaSection {
    /// The first word: `audio`, `video`, `application` …
    pub media: String,
    pub port: u16,
    /// How many ports in a row; one is not written.
    pub port_count: u16,
    pub proto: String,
    /// The words at the end of the line: payload types, or the name of a protocol above SCTP.
    pub formats: Vec<String>,
    /// The value of `i=`.
    pub title: Option<String>,
    /// The value of `c=`.
    pub connection: Option<String>,
    /// Values of `b=` lines.
    pub bandwidths: Vec<String>,
    pub attributes: Vec<Attribute>,
}

/// A whole session description.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Description {
    pub session: SessionSection,
    pub media: Vec<MediaSection>,
}

/// Reading of attributes, the same for the session and for a section.
pub(super) fn find<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a Attribute> {
    attributes.iter().find(|attribute| attribute.name == name)
}

pub(super) fn direction(attributes: &[Attribute]) -> Option<Direction> {
    attributes
        .iter()
        .filter(|attribute| attribute.value.is_none())
        .find_map(|attribute| Direction::from_name(&attribute.name))
}

impl MediaSection {
    pub fn mid(&self) -> Option<&str> {
        find(&self.attributes, "mid").map(Attribute::value)
    }

    pub fn has(&self, name: &str) -> bool {
        find(&self.attributes, name).is_some()
    }

    /// Whether the section is refused: port zero, unless that only says that the section has no
    /// transport of its own (RFC 9143 §6).
    pub fn is_rejected(&self) -> bool {
        self.port == 0 && !self.has("bundle-only")
    }

    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter(move |attribute| attribute.name == name).map(Attribute::value)
    }

    pub(super) fn push(&mut self, name: &str, value: impl Into<String>) {
        self.attributes.push(Attribute::new(name, value));
    }

    pub(super) fn push_flag(&mut self, name: &str) {
        self.attributes.push(Attribute::flag(name));
    }
}

impl Description {
    /// The direction of a section, its own or that of the session.
    pub fn direction(&self, index: usize) -> Direction {
        self.media
            .get(index)
            .and_then(|section| direction(&section.attributes))
            .or_else(|| direction(&self.session.attributes))
            .unwrap_or_default()
    }

    /// Lines and bytes of the text.
    pub(super) fn size(&self) -> (usize, usize) {
        let mut counter = Counter::default();
        self.write(&mut counter).expect("counting never fails");
        (counter.lines, counter.bytes)
    }

    /// The description as it reads once candidates are gathered: each live section names its
    /// default candidate, which is the first over UDP (RFC 8839 §4.2.1), and lists all of them.
    ///
    /// `candidates` has a list per section, each line as in an ICE candidate of the remote API,
    /// with or without `candidate:` in front. A section with an empty list stays as it is. Inactive
    /// sections get their address as well; Kurento leaves them without any, which Firefox refuses.
    #[must_use]
    pub fn with_candidates(&self, candidates: &[Vec<String>]) -> Self {
        let mut gathered = self.clone();
        gathered.session.connection = None;
        for (section, lines) in gathered.media.iter_mut().zip(candidates) {
            if section.port == 0 {
                continue;
            }
            if let Some((address, port)) = lines.iter().find_map(|line| default_address(line)) {
                let family = if address.is_ipv6() { "IP6" } else { "IP4" };
                section.port = port;
                section.connection = Some(format!("IN {family} {address}"));
                for attribute in &mut section.attributes {
                    if attribute.name == "rtcp" {
                        attribute.value = Some(format!("{port} IN {family} {address}"));
                    }
                }
            }
            for line in lines {
                section.push("candidate", candidate_value(line));
            }
        }
        gathered
    }

    /// Notes a candidate the other side trickled; false when there is no such section.
    pub fn add_candidate(&mut self, index: usize, line: &str) -> bool {
        let one_line = !line.contains(['\r', '\n']);
        match self.media.get_mut(index) {
            Some(section) if one_line => {
                section.push("candidate", candidate_value(line));
                true
            }
            _ => false,
        }
    }
}

/// Where a text goes of which only the bytes are to be counted.
#[derive(Default)]
pub(super) struct Length(pub usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// Where a text goes that is only to be measured.
#[derive(Default)]
struct Counter {
    lines: usize,
    bytes: usize,
}

impl Write for Counter {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.lines += text.bytes().filter(|byte| *byte == b'\n').count();
        self.bytes += text.len();
        Ok(())
    }
}

fn candidate_value(line: &str) -> &str {
    line.strip_prefix("candidate:").unwrap_or(line)
}

/// Address and port of a UDP candidate line.
fn default_address(line: &str) -> Option<(IpAddr, u16)> {
    let mut words = candidate_value(line).split_ascii_whitespace().skip(2);
    if !words.next()?.eq_ignore_ascii_case("udp") {
        return None;
    }
    let address = words.nth(1)?.parse().ok()?;
    Some((address, words.next()?.parse().ok()?))
}
