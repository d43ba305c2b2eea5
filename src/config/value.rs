//! Between the text of a setting and its value.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::modules::{External, GapsFix, PortRange, TurnServer, TurnTransport};
use super::{LogFormat, Origins};

/// Stands for "not set" where something else could be meant by an empty text.
pub const NONE: &str = "none";

/// A setting as it was given.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    pub text: &'a str,
    /// Of the file that says it; relative paths start there.
    pub folder: Option<&'a Path>,
}

/// A text that is not shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Stands in the place of a secret.
    pub const MASK: &'static str = "***";

    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Self::MASK)
    }
}

/// A URL whose user, password and query are not shown.
#[derive(Clone, Eq, PartialEq)]
pub struct PrivateUrl(String);

impl PrivateUrl {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrivateUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = Secret::MASK;
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        let (path, query) = behind.split_at(behind.find(['?', '#']).unwrap_or(behind.len()));
        if !scheme.is_empty() {
            write!(out, "{scheme}://")?;
        }
        if behind.contains('@') {
            // Perhaps of a password with a sign in it that ends the place of passwords.
            return out.write_str(mask);
        }
        match authority.rsplit_once('@') {
            Some((_, host)) => write!(out, "{mask}@{host}{path}")?,
            None => write!(out, "{authority}{path}")?,
        }
        if query.is_empty() { Ok(()) } else { write!(out, "?{mask}") }
    }
}

impl fmt::Debug for PrivateUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// A type of settings. What `show` writes, `read` understands; secrets aside.
pub trait Setting: Sized {
    /// # Errors
    /// What should have been there.
    fn read(given: Given<'_>) -> Result<Self, &'static str>;
    fn show(&self) -> String;
}

macro_rules! numbers {
    ($($kind:ty: $expected:literal;)*) => {$(
        impl Setting for $kind {
            fn read(given: Given<'_>) -> Result<Self, &'static str> {
                given.text.trim().parse().map_err(|_| $expected)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

numbers! {
    u16: "a number from 0 to 65535";
    u32: "a whole number that is not negative";
    usize: "a whole number that is not negative";
    IpAddr: "an IP address";
}

impl Setting for f64 {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        let number = given.text.trim().parse().ok().filter(|number: &Self| number.is_finite());
        number.ok_or("a number")
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        match given.text.trim() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("true or false"),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        Ok(given.text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for Secret {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        Ok(Self::new(given.text))
    }

    fn show(&self) -> String {
        Self::MASK.to_owned()
    }
}

impl Setting for PrivateUrl {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        Ok(Self::new(given.text.trim()))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// In seconds.
impl Setting for Duration {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        const DECADES: f64 = 1e9;
        let seconds = given.text.trim().parse().ok();
        let seconds = seconds.filter(|seconds: &f64| (0.0..DECADES).contains(seconds));
        seconds.map(Self::from_secs_f64).ok_or("a number of seconds")
    }

    fn show(&self) -> String {
        self.as_secs_f64().to_string()
    }
}

impl Setting for PathBuf {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        let path = Path::new(given.text);
        Ok(given.folder.map_or_else(|| path.to_owned(), |folder| folder.join(path)))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// An empty text, and `none`, are none.
impl<T: Setting> Setting for Option<T> {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        let text = given.text.trim();
        if text.is_empty() || text == NONE { Ok(None) } else { T::read(given).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| NONE.to_owned(), T::show)
    }
}

/// With commas between; or a list in JSON, of texts or of objects with a `name`.
impl<T: Setting> Setting for Vec<T> {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        let text = given.text.trim();
        if text == NONE {
            return Ok(Self::new());
        }
        if !text.starts_with('[') {
            let items: Vec<_> =
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            if items.iter().any(|item| item.starts_with('[')) {
                return Err("a list");
            }
            return items.into_iter().map(|text| T::read(Given { text, ..given })).collect();
        }
        let list: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|_| "a list")?;
        let plain =
            |name: &&str| !name.contains(',') && !name.starts_with('[') && name.trim() == *name;
        let name = |item: &'_ serde_json::Value| {
            let name = item.get("name").unwrap_or(item).as_str();
            name.filter(plain).map(str::to_owned)
        };
        let names = list.iter().map(name);
        names
            .map(|name| T::read(Given { text: &name.ok_or("a list of names")?, ..given }))
            .collect()
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return NONE.to_owned();
        }
        self.iter().map(T::show).collect::<Vec<_>>().join(",")
    }
}

/// An object in JSON.
impl Setting for serde_json::Map<String, serde_json::Value> {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        if given.text.trim().is_empty() {
            return Ok(Self::new());
        }
        serde_json::from_str(given.text).map_err(|_| "an object")
    }

    fn show(&self) -> String {
        serde_json::to_string(self).expect("JSON is written as JSON")
    }
}

impl Setting for External {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        if given.text.trim() == "auto" {
            return Ok(Self::Auto);
        }
        IpAddr::read(given).map(Self::Address).map_err(|_| "an IP address or auto")
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Address(address) => address.to_string(),
        }
    }
}

impl Setting for PortRange {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        let range = given.text.split_once('-').and_then(|(min, max)| {
            Some(Self { min: min.trim().parse().ok()?, max: max.trim().parse().ok()? })
        });
        range.filter(|range| range.min <= range.max).ok_or("two ports with '-' between them")
    }

    fn show(&self) -> String {
        format!("{}-{}", self.min, self.max)
    }
}

impl Setting for GapsFix {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        match given.text.trim() {
            "NONE" => Ok(Self::None),
            "GENPTS" => Ok(Self::GenPts),
            "FILL_IF_TRANSCODING" => Ok(Self::FillIfTranscoding),
            _ => Err("NONE, GENPTS or FILL_IF_TRANSCODING"),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::None => "NONE",
            Self::GenPts => "GENPTS",
            Self::FillIfTranscoding => "FILL_IF_TRANSCODING",
        }
        .to_owned()
    }
}

impl Setting for TurnServer {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        turn_server(given.text.trim()).ok_or("user:password@address:port[?transport=udp|tcp|tls]")
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

pub(super) fn turn_server(text: &str) -> Option<TurnServer> {
    let (rest, transport) = match text.split_once("?transport=") {
        None => (text, None),
        Some((rest, "udp")) => (rest, Some(TurnTransport::Udp)),
        Some((rest, "tcp")) => (rest, Some(TurnTransport::Tcp)),
        Some((rest, "tls")) => (rest, Some(TurnTransport::Tls)),
        Some(_) => return None,
    };
    // A password may hold any of the signs that divide.
    let (credentials, place) = rest.rsplit_once('@')?;
    let (user, password) = credentials.split_once(':')?;
    let (host, port) = place.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if user.is_empty() || host.is_empty() {
        return None;
    }
    Some(TurnServer {
        user: user.to_owned(),
        password: Secret::new(password),
        host: host.to_owned(),
        port: port.parse().ok()?,
        transport,
    })
}

impl Setting for LogFormat {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        match given.text.trim() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "kurento" => Ok(Self::Kurento),
            _ => Err("text, json or kurento"),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Kurento => "kurento",
        }
        .to_owned()
    }
}

impl Setting for Origins {
    fn read(given: Given<'_>) -> Result<Self, &'static str> {
        let list = Vec::<String>::read(given)?;
        if list == ["*"] {
            return Ok(Self::Any);
        }
        let fits = |origin: &String| {
            origin == "null"
                || origin.split_once("://").is_some_and(|(_, host)| !host.contains('/'))
        };
        if !list.iter().all(fits) {
            return Err("*, none, or origins such as https://example.org with commas between them");
        }
        Ok(Self::Only(list.iter().map(|origin| origin.to_ascii_lowercase()).collect()))
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Only(list) => list.show(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Result<T, &'static str> {
        T::read(Given { text, folder: None })
    }

    #[test]
    fn a_turn_server_is_read_and_its_password_not_shown() {
        for (text, shown) in [
            ("u:p@1.2.3.4:3478", "u:***@1.2.3.4:3478"),
            ("u:p@1.2.3.4:3478?transport=udp", "u:***@1.2.3.4:3478?transport=udp"),
            ("u:p:@w@turn.example:5349?transport=tls", "u:***@turn.example:5349?transport=tls"),
            ("u:p@[2001:db8::1]:3478?transport=tcp", "u:***@[2001:db8::1]:3478?transport=tcp"),
        ] {
            let server: TurnServer = read(text).expect(text);
            assert_eq!(server.show(), shown);
            assert_eq!(read::<TurnServer>(&server.url()), Ok(server));
        }
        for text in ["", "1.2.3.4:3478", "u@h:1", "u:p@h", "u:p@h:x", "u:p@h:1?transport=sctp"] {
            assert!(read::<TurnServer>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_come_with_commas_or_as_json() {
        let expected = ["opus/48000/2".to_owned(), "PCMU/8000".to_owned()];
        for text in [
            "opus/48000/2, PCMU/8000",
            r#"["opus/48000/2","PCMU/8000"]"#,
            r#"[{"name":"opus/48000/2"},{"name":"PCMU/8000"}]"#,
        ] {
            assert_eq!(read::<Vec<String>>(text).as_deref(), Ok(&expected[..]), "{text}");
        }
        for wrong in ["[1]", "[", r#"["a,b"]"#, r#"["[a"]"#] {
            assert!(read::<Vec<String>>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_are_whole_and_a_star_is_all_of_them() {
        assert_eq!(read("*"), Ok(Origins::Any));
        assert_eq!(
            read("https://A.example, http://b:8080"),
            Ok(Origins::Only(vec!["https://a.example".to_owned(), "http://b:8080".to_owned()]))
        );
        for nobody in ["none", "", "[]"] {
            assert_eq!(read(nobody), Ok(Origins::Only(Vec::new())), "{nobody}");
        }
        assert_eq!(Origins::Only(Vec::new()).show(), "none");
        for wrong in ["a.example", "https://a.example/page", "*,https://a.example"] {
            assert!(read::<Origins>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_and_numbers_have_bounds() {
        assert_eq!(read("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["-1", "NaN", "inf", "1e300", "x"] {
            assert!(read::<Duration>(wrong).is_err(), "{wrong}");
        }
        assert!(read::<u16>("65536").is_err() && read::<f64>("NaN").is_err());
        assert_eq!(read::<Option<u16>>("none"), Ok(None));
    }

    #[test]
    fn of_a_url_nothing_is_shown_that_may_be_secret() {
        for (text, shown) in [
            ("ws://host:1/path", "ws://host:1/path"),
            ("wss://user:word@host/path", "wss://***@host/path"),
            ("wss://us@er:word@host", "wss://***@host"),
            ("ws://host?token=word", "ws://host?***"),
            ("ws://user@host/path?a#b", "ws://***@host/path?***"),
            ("ws://host/#word", "ws://host/?***"),
            ("ws://user:wo/rd@host", "ws://***"),
            ("ws://user:wo?rd@host/", "ws://***"),
            ("user:word@host", "***@host"),
        ] {
            let url: PrivateUrl = read(text).expect(text);
            assert_eq!((url.show(), url.expose()), (shown.to_owned(), text));
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn secrets_are_not_in_debug_texts() {
        assert_eq!(format!("{:?}", Secret::new("key")), "***");
    }
}
