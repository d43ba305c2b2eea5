//! Layers of settings: flags over environment over files over defaults, and where each came from.

use std::collections::HashMap;
use std::env::VarError;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Config;
use super::settings::{self, PORTS, SETTINGS, SYNONYMS, Setting};
use super::tree::{Node, SyntaxError, Value};
use super::value::{Given, NONE};

/// Keys of the original's file, below which anything unknown is told.
const MAIN_KEYS: [&str; 3] = ["mediaServer", "metadata", "rivero"];
const TOKEN: &str = "rivero.token";
const WEBSOCKET: &str = "mediaServer.net.websocket";
/// Warnings that are kept; a file can be long and wrong.
const MAX_WARNINGS: usize = 100;

/// Who said what a setting is.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    #[default]
    Default,
    File {
        file: PathBuf,
        line: u32,
    },
    Environment(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { file, line } => write!(out, "{}:{line}", file.display()),
            Self::Environment(name) => write!(out, "environment {name}"),
            Self::Flag(name) => write!(out, "flag --{name}"),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: {error}", file = file.display())]
    File { file: PathBuf, error: std::io::Error },
    #[error("{file}: {error}", file = file.display())]
    Syntax { file: PathBuf, error: SyntaxError },
    #[error("{file}: the name of a settings file ends with .conf.json or .conf.ini", file = file.display())]
    Name { file: PathBuf },
    #[error("{origin}: {key} must be {expected}")]
    Value { origin: Origin, key: String, expected: String },
    #[error("{file}:{line}: mediaServer.net must have exactly one member: websocket", file = file.display())]
    Net { file: PathBuf, line: u32 },
    #[error("modules.kurento.BaseRtpEndpoint.minPort is greater than maxPort ({origin})")]
    PortRange { origin: Origin },
    #[error("the variable {name} is not UTF-8")]
    Variable { name: &'static str },
    #[error("{file}: held settings before, and cannot be read now", file = file.display())]
    Missing { file: PathBuf },
    #[error("{TOKEN} is gone; who wants to do without one says \"none\"")]
    TokenGone,
}

/// What a variable says; an empty one counts as not set.
///
/// # Errors
/// [`ConfigError::Variable`] when it is no text.
pub fn variable(
    name: &'static str,
    get: &dyn Fn(&str) -> Result<String, VarError>,
) -> Result<Option<String>, ConfigError> {
    match get(name) {
        Ok(text) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(ConfigError::Variable { name }),
    }
}

/// Settings with their origins.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub config: Config,
    /// What does not stop the server and should be heard.
    pub warnings: Vec<String>,
    /// The files that said something.
    files: Vec<PathBuf>,
    origins: HashMap<&'static str, Origin>,
}

impl Loaded {
    pub fn origin(&self, setting: &Setting) -> Origin {
        self.origins.get(setting.key).cloned().unwrap_or_default()
    }

    /// Whether a running server may go on with these settings after those of `before`: whatever
    /// went missing by mistake must not open a door.
    ///
    /// # Errors
    /// A file that is there no more; a token that nobody took away by saying so.
    pub fn may_follow(&self, before: &Self) -> Result<(), ConfigError> {
        if let Some(file) = before.files.iter().find(|file| !self.files.contains(file)) {
            return Err(ConfigError::Missing { file: file.clone() });
        }
        let token = settings::find(TOKEN).expect("the table has it");
        let gone = before.config.control.token.is_some() && self.config.control.token.is_none();
        if gone && self.origin(token) == Origin::Default {
            return Err(ConfigError::TokenGone);
        }
        Ok(())
    }

    /// The keys whose values differ from those of `other`.
    pub fn changed<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'static Setting> + 'a {
        SETTINGS.iter().filter(|setting| match setting.key {
            // Masked where they are shown.
            TOKEN => self.config.control.token != other.config.control.token,
            "mediaServer.net.websocket.secure.password" => {
                self.config.control.secure.password != other.config.control.secure.password
            }
            "mediaServer.net.websocket.registrar.address" => {
                self.config.control.registrar.address != other.config.control.registrar.address
            }
            "modules.kurento.WebRtcEndpoint.turnURL" => {
                self.config.modules.webrtc.turn != other.config.modules.webrtc.turn
            }
            _ => setting.show(&self.config) != setting.show(&other.config),
        })
    }

    /// Every setting with value and origin, for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for setting in SETTINGS {
            let (value, origin) = (setting.show(&self.config), self.origin(setting));
            let note = if setting.effective { "" } else { ", no effect yet" };
            text += &format!("{} = {value}  ({origin}{note})\n", setting.key);
        }
        text
    }

    /// Every setting with value and origin, for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let entry = |setting: &&Setting| {
            let shown = serde_json::json!({
                "value": setting.show(&self.config),
                "origin": self.origin(setting).to_string(),
                "effective": setting.effective,
            });
            (setting.key.to_owned(), shown)
        };
        SETTINGS
            .iter()
            .collect::<Vec<_>>()
            .iter()
            .map(entry)
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// Takes the layers, lowest first.
#[derive(Debug, Default)]
pub struct Loader {
    loaded: Loaded,
}

impl Loader {
    pub fn new() -> Self {
        Self::default()
    }

    /// The main file. `net` says whether it must describe the network, as the original wants it.
    ///
    /// # Errors
    /// A value that its setting does not understand; a network other than one WebSocket.
    pub fn main_file(&mut self, file: &Path, root: &Node, net: bool) -> Result<(), ConfigError> {
        self.loaded.files.push(file.to_owned());
        self.check_net(file, root, net)?;
        let mut entries = Vec::new();
        flatten(root, "", &mut entries);
        for (key, node) in entries {
            let first = key.split('.').next().unwrap_or_default();
            if settings::find(&key).is_none() {
                if MAIN_KEYS.contains(&first) {
                    self.warn(format!("{}:{}: unknown setting {key}", file.display(), node.line));
                }
                continue;
            }
            self.take_from(file, &key, &node)?;
        }
        Ok(())
    }

    /// Whoever describes the network says all of it: what is missing is not ours but the
    /// original's default, which is every address and no port.
    fn check_net(&mut self, file: &Path, root: &Node, needed: bool) -> Result<(), ConfigError> {
        let server = root.member("mediaServer");
        let Some(net) = server.and_then(|server| server.member("net")) else {
            let line = server.unwrap_or(root).line;
            return if needed {
                Err(ConfigError::Net { file: file.to_owned(), line })
            } else {
                Ok(())
            };
        };
        let Value::Members(members) = &net.value else {
            return Err(ConfigError::Net { file: file.to_owned(), line: net.line });
        };
        let mut members = members.iter().filter(|(name, _)| !name.starts_with("//"));
        let (Some((name, websocket)), None) = (members.next(), members.next()) else {
            return Err(ConfigError::Net { file: file.to_owned(), line: net.line });
        };
        if name != "websocket" {
            return Err(ConfigError::Net { file: file.to_owned(), line: websocket.line });
        }
        let origin = Origin::File { file: file.to_owned(), line: websocket.line };
        for (member, text) in [("address", NONE), ("port", NONE)] {
            if websocket.member(member).is_none() {
                let setting = settings::find(&format!("{WEBSOCKET}.{member}"));
                let setting = setting.expect("the table has both");
                self.apply(setting, Given { text, folder: None }, origin.clone())?;
            }
        }
        Ok(())
    }

    /// A file of the class `name`, such as `kurento.WebRtcEndpoint`. What is wrong in it is warned of.
    pub fn module_file(&mut self, file: &Path, name: &str, root: &Node) {
        self.loaded.files.push(file.to_owned());
        let prefix = format!("modules.{name}.");
        let mut entries = Vec::new();
        flatten(root, &prefix, &mut entries);
        for (key, node) in entries {
            let known = SYNONYMS.iter().find(|(old, _)| *old == key);
            let key = known.map_or(key.as_str(), |(_, new)| new);
            if settings::find(key).is_none() {
                self.warn(format!("{}:{}: unknown setting {key}", file.display(), node.line));
            } else if let Err(error) = self.take_from(file, key, &node) {
                self.warn(error.to_string());
            }
        }
    }

    fn take_from(&mut self, file: &Path, key: &str, node: &Node) -> Result<(), ConfigError> {
        let Some(setting) = settings::find(key) else { return Ok(()) };
        let origin = Origin::File { file: file.to_owned(), line: node.line };
        let mut text = node.to_string();
        let no_port = PORTS.contains(&key) && text.trim().parse() == Ok(0);
        if no_port || (key == TOKEN && node.value == Value::Null) {
            text = NONE.to_owned();
        }
        let folder = file.parent();
        self.apply(setting, Given { text: &text, folder }, origin)
    }

    /// Variables; an empty one counts as not set.
    ///
    /// # Errors
    /// A value that its setting does not understand, or that is no text.
    pub fn environment(
        &mut self,
        get: &dyn Fn(&str) -> Result<String, VarError>,
    ) -> Result<(), ConfigError> {
        let stun = ["KMS_STUN_IP", "KMS_STUN_PORT"];
        let half = variable(stun[0], get)?.is_some() != variable(stun[1], get)?.is_some();
        if half {
            self.warn("KMS_STUN_IP and KMS_STUN_PORT count only together".to_owned());
        }
        for setting in SETTINGS {
            for name in setting.env.iter().copied() {
                let Some(text) = variable(name, get)? else { continue };
                if !(half && stun.contains(&name)) {
                    let given = Given { text: &text, folder: None };
                    self.apply(setting, given, Origin::Environment(name))?;
                }
                break;
            }
        }
        Ok(())
    }

    /// Settings that have flags.
    ///
    /// # Errors
    /// A value that its setting does not understand.
    pub fn flag(&mut self, setting: &'static Setting, text: &str) -> Result<(), ConfigError> {
        let origin = Origin::Flag(setting.flag.unwrap_or(setting.key));
        self.apply(setting, Given { text, folder: None }, origin)
    }

    fn apply(
        &mut self,
        setting: &'static Setting,
        given: Given<'_>,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        match setting.set(&mut self.loaded.config, given) {
            Ok(()) => {
                self.loaded.origins.insert(setting.key, origin);
                Ok(())
            }
            Err(expected) => {
                Err(ConfigError::Value { origin, key: setting.key.to_owned(), expected })
            }
        }
    }

    /// What does not stop the server and should be heard.
    pub fn warn(&mut self, warning: String) {
        if self.loaded.warnings.len() < MAX_WARNINGS {
            self.loaded.warnings.push(warning);
        }
    }

    /// # Errors
    /// Settings that contradict each other.
    pub fn finish(self) -> Result<Loaded, ConfigError> {
        let rtp = &self.loaded.config.modules.rtp;
        if rtp.min_port > rtp.max_port {
            let setting = settings::find("modules.kurento.BaseRtpEndpoint.minPort");
            let origin = setting.map(|setting| self.loaded.origin(setting)).unwrap_or_default();
            return Err(ConfigError::PortRange { origin });
        }
        Ok(self.loaded)
    }
}

/// The settings below a node: those that the table has are taken whole, and objects opened else.
fn flatten(node: &Node, prefix: &str, into: &mut Vec<(String, Node)>) {
    let Value::Members(members) = &node.value else { return };
    let last: HashMap<_, _> =
        members.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
    for (at, (name, child)) in members.iter().enumerate() {
        // Comments; and of repeated names the last counts.
        if name.starts_with("//") || last.get(name.as_str()) != Some(&at) {
            continue;
        }
        let key = format!("{prefix}{name}");
        if matches!(child.value, Value::Members(_)) && settings::find(&key).is_none() {
            flatten(child, &format!("{key}."), into);
        } else {
            into.push((key, child.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{parse_ini, parse_json};
    use super::super::value::PrivateUrl;
    use super::*;

    const SHIPPED: &str = r#"{
      "mediaServer" : {
        "resources": {
          "//exceptionLimit": "0.8", // not in force
          "killLimit": "0.7",
          "garbageCollectorPeriod": 8
        },
        "net" : {
          "websocket": {
            "//address": "127.0.0.1",
            "port": "8888",
            "secure": { "port": 8433, "certificate": "cert+key.pem" },
            /* where others
               find us */
            "registrar": { "address": "ws://registrar", "localAddress": "media1" },
            "path": "kurento",
            "threads": 10
          }
        }
      },
      "metadata": { "zone": "a", "n": 1 },
      "other": 1
    }"#;

    fn main(text: &str, net: bool) -> Result<Loaded, ConfigError> {
        let mut loader = Loader::new();
        let root = parse_json(text).expect("JSON");
        loader.main_file(Path::new("/etc/k/kurento.conf.json"), &root, net)?;
        loader.finish()
    }

    fn origin(loaded: &Loaded, key: &str) -> String {
        loaded.origin(settings::find(key).expect("a key")).to_string()
    }

    #[test]
    fn the_originals_file_is_understood_with_its_comments() {
        let loaded = main(SHIPPED, true).expect("a good file");
        let control = &loaded.config.control;
        assert_eq!((control.bind, control.plain, control.port), (None, true, 8888));
        assert_eq!(control.secure.port, Some(8433));
        assert_eq!(control.secure.certificate.as_deref(), Some(Path::new("/etc/k/cert+key.pem")));
        assert_eq!(control.registrar.address, Some(PrivateUrl::new("ws://registrar")));
        assert_eq!(loaded.config.resources.kill_limit, Some(0.7));
        assert_eq!(loaded.config.sessions.collector_period.as_secs(), 8);
        assert_eq!(loaded.config.metadata["n"], 1);
        assert_eq!(
            origin(&loaded, "mediaServer.resources.killLimit"),
            "/etc/k/kurento.conf.json:5"
        );
        assert_eq!(origin(&loaded, "mediaServer.resources.exceptionLimit"), "default");
        assert_eq!(loaded.warnings, [""; 0]);
    }

    #[test]
    fn without_a_network_in_the_file_our_own_defaults_stay() {
        let loaded =
            main(r#"{"rivero": {"limits": {"objects": "7"}}}"#, false).expect("a good file");
        assert_eq!(loaded.config.limits.objects, 7);
        assert!(loaded.config.control.is_local() && loaded.config.control.plain);
    }

    #[test]
    fn a_network_without_a_port_is_none() {
        let loaded = main(r#"{"mediaServer": {"net": {"websocket": {"port": 0}}}}"#, true);
        assert!(!loaded.expect("a good file").config.control.plain);
        let loaded = main(r#"{"mediaServer": {"net": {"websocket": {}}}}"#, true);
        assert!(!loaded.expect("a good file").config.control.plain);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, message) in [
            (
                "{\n}",
                "/etc/k/kurento.conf.json:1: mediaServer.net must have exactly one member: websocket",
            ),
            (
                "{\"mediaServer\": {\n\"net\": {}}}",
                "/etc/k/kurento.conf.json:2: mediaServer.net must have exactly one member: websocket",
            ),
            (
                "{\"mediaServer\": {\"net\": {\"websocket\": {},\n\"x\": {}}}}",
                "/etc/k/kurento.conf.json:1: mediaServer.net must have exactly one member: websocket",
            ),
            (
                "{\"mediaServer\": {\"net\": {\"websocket\": {\n\"port\": \"x\"}}}}",
                "/etc/k/kurento.conf.json:2: mediaServer.net.websocket.port must be a number from 0 to 65535",
            ),
            (
                "{\"mediaServer\": {\"net\": {\"websocket\": {\n\n\"threads\": 0}}}}",
                "/etc/k/kurento.conf.json:3: mediaServer.net.websocket.threads must be a number from 1 to 1000000000",
            ),
        ] {
            let error = main(text, true).expect_err(text);
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn unknown_keys_are_warned_of_by_line() {
        let loaded = main("{\"rivero\": {\"limits\": {\n\"object\": 1}}, \"elsewhere\": 1}", false);
        assert_eq!(
            loaded.expect("a good file").warnings,
            ["/etc/k/kurento.conf.json:2: unknown setting rivero.limits.object"]
        );
    }

    #[test]
    fn module_files_set_what_they_can_and_warn_of_the_rest() {
        let mut loader = Loader::new();
        let file = Path::new("/etc/k/modules/kurento/WebRtcEndpoint.conf.ini");
        let root =
            parse_ini("stunServerPort=1\nturnURL=u:p@h:1\niceTcp=2\nodd=1\nexternalAddress=auto");
        loader.module_file(file, "kurento.WebRtcEndpoint", &root.expect("an INI file"));
        let file = Path::new("/etc/k/modules/kurento/SdpEndpoint.conf.json");
        let root =
            parse_json(r#"{"numAudioMedias": 2, "audioCodecs": [{"name": "opus/48000/2"}]}"#);
        loader.module_file(file, "kurento.SdpEndpoint", &root.expect("JSON"));
        let loaded = loader.finish().expect("no contradiction");
        let modules = &loaded.config.modules;
        assert_eq!((modules.webrtc.stun_port, modules.webrtc.ice_tcp), (1, true));
        assert_eq!(modules.webrtc.external_ipv4, Some(super::super::modules::External::Auto));
        assert_eq!((modules.sdp.audio_lines, modules.sdp.audio_codecs.len()), (2, 1));
        assert_eq!(
            loaded.warnings,
            [
                "/etc/k/modules/kurento/WebRtcEndpoint.conf.ini:3: \
                 modules.kurento.WebRtcEndpoint.iceTcp must be true or false",
                "/etc/k/modules/kurento/WebRtcEndpoint.conf.ini:4: unknown setting \
                 modules.kurento.WebRtcEndpoint.odd",
            ]
        );
    }

    #[test]
    fn flags_go_before_variables_and_those_before_files() {
        let variable = |name: &str| {
            let known = [
                ("RIVERO_PORT", "2"),
                ("RIVERO_PATH", "two"),
                ("KMS_MTU", "1300"),
                ("RIVERO_BIND", ""),
            ];
            let known = known.iter().find(|(known, _)| *known == name);
            known.map(|(_, text)| (*text).to_owned()).ok_or(VarError::NotPresent)
        };
        let text = r#"{"mediaServer": {"net": {"websocket": {"port": 1, "path": "one", "connqueue": 1}}}}"#;
        let mut loader = Loader::new();
        loader
            .main_file(Path::new("a.conf.json"), &parse_json(text).expect("JSON"), true)
            .expect("good");
        loader.environment(&variable).expect("good");
        loader.flag(settings::find(PORTS[0]).expect("a key"), "3").expect("good");
        let loaded = loader.finish().expect("no contradiction");
        let control = &loaded.config.control;
        assert_eq!((control.port, control.path.as_str(), control.backlog), (3, "two", Some(1)));
        assert_eq!(loaded.config.modules.rtp.mtu, 1_300);
        assert_eq!(origin(&loaded, PORTS[0]), "flag --port");
        assert_eq!(origin(&loaded, "mediaServer.net.websocket.path"), "environment RIVERO_PATH");
        assert_eq!(origin(&loaded, "mediaServer.net.websocket.connqueue"), "a.conf.json:1");
    }

    #[test]
    fn half_a_stun_server_is_none() {
        let mut loader = Loader::new();
        loader
            .environment(&|name| match name {
                "KMS_STUN_IP" => Ok("1.2.3.4".to_owned()),
                _ => Err(VarError::NotPresent),
            })
            .expect("good");
        let loaded = loader.finish().expect("no contradiction");
        assert_eq!((loaded.config.modules.webrtc.stun_address, loaded.warnings.len()), (None, 1));
    }

    #[test]
    fn ports_that_end_before_they_begin_are_refused() {
        let mut loader = Loader::new();
        let variable = |name: &str| match name {
            "KMS_MAX_PORT" => Ok("1000".to_owned()),
            _ => Err(VarError::NotPresent),
        };
        loader.environment(&variable).expect("each is a port");
        assert!(matches!(loader.finish(), Err(ConfigError::PortRange { .. })));
    }

    #[test]
    fn a_variable_that_is_no_text_is_an_error_with_its_name() {
        let variable = |name: &str| match name {
            "RIVERO_TOKEN" => Err(VarError::NotUnicode("x".into())),
            _ => Err(VarError::NotPresent),
        };
        let error = Loader::new().environment(&variable).expect_err("no text");
        assert_eq!(error.to_string(), "the variable RIVERO_TOKEN is not UTF-8");
    }

    #[test]
    fn settings_that_lost_a_file_or_the_token_may_not_follow() {
        let with = |text| main(text, false).expect("a good file");
        let before = with(r#"{"rivero": {"token": "key"}}"#);
        for text in [r#"{"rivero": {"token": "other"}}"#, r#"{"rivero": {"token": "none"}}"#] {
            assert!(with(text).may_follow(&before).is_ok(), "{text}");
        }
        assert!(with(r#"{"rivero": {"token": null}}"#).may_follow(&before).is_ok());
        assert!(with("{}").may_follow(&with("{}")).is_ok());
        assert!(matches!(with("{}").may_follow(&before), Err(ConfigError::TokenGone)));
        let nothing = Loader::new().finish().expect("no contradiction");
        let error = nothing.may_follow(&with("{}")).expect_err("a file is missing");
        assert!(error.to_string().starts_with("/etc/k/kurento.conf.json: "), "{error}");
    }

    #[test]
    fn of_repeated_members_the_last_counts() {
        let loaded = main(r#"{"rivero": {"workers": 1, "token": "a", "workers": 2}}"#, false);
        assert_eq!(loaded.expect("a good file").config.media.workers, Some(2));
    }

    #[test]
    fn an_empty_token_is_an_error_and_not_none() {
        assert!(main(r#"{"rivero": {"token": ""}}"#, false).is_err());
    }

    #[test]
    fn a_change_of_a_secret_is_a_change() {
        let token = settings::find("rivero.token").expect("a key");
        let with = |text| {
            let mut loader = Loader::new();
            loader.flag(token, text).expect("a text");
            loader.finish().expect("no contradiction")
        };
        let keys: Vec<_> = with("a").changed(&with("b")).map(|setting| setting.key).collect();
        assert_eq!(keys, ["rivero.token"]);
        assert!(!with("hidden").to_text().contains("hidden"));
        assert!(!with("hidden").to_json().to_string().contains("hidden"));
    }
}
