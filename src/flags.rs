//! The command line: a flag for each setting that has one, and those of the original.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use rivero::config::{CONF_FILE, ConfigError, SETTINGS, Sources, variable};

pub const VERSION: &str = "version";
pub const LIST: &str = "list";
pub const JSON: &str = "json";
pub const BENCH: &str = "bench";
const CONF_FILE_FLAG: &str = "conf-file";
const MODULES_CONFIG: &str = "modules-config-path";
const MODULES: &str = "modules-path";
/// The name under which the program behaves as the original does.
const ORIGINAL: &str = "kurento-media-server";

/// Whether the program was called by the original's name.
pub fn as_kurento(program: Option<&OsString>) -> bool {
    let name = program.map(Path::new).and_then(Path::file_name);
    name == Some(OsStr::new(ORIGINAL))
}

/// # Errors
/// What clap wants to print: help, or what is wrong.
pub fn parse(words: Vec<OsString>, as_kurento: bool) -> Result<ArgMatches, clap::Error> {
    let command = command(as_kurento);
    let words = tolerate(&command, words, as_kurento);
    command.try_get_matches_from(words)
}

/// Where settings come from, by flags and variables.
///
/// # Errors
/// A variable that is no text.
pub fn sources(given: &ArgMatches, as_kurento: bool) -> Result<Sources, ConfigError> {
    let said = |flag: &str, name| match given.get_one::<String>(flag) {
        Some(text) => Ok(Some(text.clone())),
        None => variable(name, &|name| std::env::var(name)),
    };
    let flags = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting, given.get_one::<String>(setting.flag?)?.clone())));
    Ok(Sources {
        file: said(CONF_FILE_FLAG, "KURENTO_CONF_FILE")?.map(Into::into),
        required: as_kurento,
        modules: said(MODULES_CONFIG, "KURENTO_MODULES_CONFIG_PATH")?,
        flags: flags.collect(),
    })
}

fn command(as_kurento: bool) -> Command {
    let name = if as_kurento { ORIGINAL } else { "rivero" };
    let mut command = Command::new(name)
        .about("A WebRTC media server that speaks the Kurento Protocol")
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(switch(VERSION, 'v', "Prints versions").visible_short_alias('V'))
        .arg(switch(LIST, 'l', "Prints the classes of objects that can be created"))
        .arg(
            valued(CONF_FILE_FLAG, "Main file of settings [env: KURENTO_CONF_FILE]")
                .short('f')
                .value_name("FILE"),
        )
        .arg(
            valued(
                MODULES_CONFIG,
                "Folders of module files, with colons between [env: KURENTO_MODULES_CONFIG_PATH]",
            )
            .short('c')
            .value_name("FOLDERS"),
        )
        .arg(valued(MODULES, "Accepted for the sake of old start scripts").short('p').hide(true));
    if as_kurento {
        command = command.before_help(format!("{ORIGINAL} usage"));
    } else {
        command = command.after_help(format!(
            "Every setting can also stand in a file, normally {CONF_FILE}; `rivero config` shows all."
        ));
        command = command
            .subcommand(crate::load::command())
            .subcommand(
                Command::new("health")
                    .about("Asks a running server whether it is well; exits with 0 if so"),
            )
            .subcommand(
                Command::new("doctor")
                    .about("Looks at ports, addresses, STUN and TURN, and says what to change; exits with 0 if a server can run")
                    .arg(Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).help("As JSON")),
            )
            .subcommand(
                Command::new("config")
                    .about("Prints every setting in force and where it came from")
                    .arg(Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).help("As JSON")),
            );
    }
    for setting in SETTINGS {
        let Some(flag) = setting.flag else { continue };
        let variables = match setting.env {
            [] => String::new(),
            [one, ..] => format!(" [env: {one}]"),
        };
        let mut arg = valued(flag, "").help(format!("{}{variables}", setting.doc));
        if let Some(letter) = setting.short {
            arg = arg.short(letter);
        }
        command = command.arg(arg);
    }
    command
}

fn switch(name: &'static str, letter: char, help: &'static str) -> Arg {
    Arg::new(name).long(name).short(letter).action(ArgAction::SetTrue).help(help)
}

fn valued(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).global(true).value_name("VALUE").help(help)
}

/// The words without those that are not understood: all such under the original's name, and those
/// meant for its media library under any.
fn tolerate(command: &Command, words: Vec<OsString>, as_kurento: bool) -> Vec<OsString> {
    // Which options there are, and whether a value follows them.
    let mut long = HashMap::from([("help".to_owned(), false)]);
    let mut short = HashMap::from([('h', false)]);
    for arg in command.get_arguments() {
        let valued = arg.get_action().takes_values();
        long.extend(arg.get_long().map(|name| (name.to_owned(), valued)));
        let letters = arg.get_short_and_visible_aliases().unwrap_or_default();
        short.extend(letters.into_iter().map(|letter| (letter, valued)));
    }
    let mut words = words.into_iter();
    let mut kept: Vec<_> = words.next().into_iter().collect();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let known = if let Some(rest) = text.strip_prefix("--") {
            let (name, value) =
                rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
            let known = long.get(name).map(|valued| *valued && value.is_none());
            if known.is_none() && name.starts_with("gst-") {
                continue;
            }
            known
        } else {
            let mut letters = text.chars().skip(1);
            let first = letters.next().filter(|_| text.starts_with('-'));
            let more = letters.next().is_some();
            first.and_then(|letter| short.get(&letter)).map(|valued| *valued && !more)
        };
        if known.is_none() && as_kurento {
            continue;
        }
        kept.push(word);
        if known == Some(true) {
            kept.extend(words.next());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, as_kurento: bool) -> Result<ArgMatches, clap::Error> {
        parse(line.split(' ').map(OsString::from).collect(), as_kurento)
    }

    #[test]
    fn the_name_decides_and_its_folder_does_not() {
        for (name, expected) in [
            ("/usr/bin/kurento-media-server", true),
            ("kurento-media-server", true),
            ("/opt/kurento-media-server/rivero", false),
        ] {
            assert_eq!(as_kurento(Some(&name.into())), expected, "{name}");
        }
    }

    #[test]
    fn the_originals_name_passes_over_what_it_does_not_know() {
        let line = "kurento-media-server word --unknown=1 -f a.conf.json --strange -d /logs \
                    --gst-debug-no-color --gst-debug=Kurento*:5 -x --gst-debug-level 3 -s50 health";
        let given = parsed(line, true).expect("everything is tolerated");
        let text = |flag: &str| given.get_one::<String>(flag).map(String::as_str);
        assert_eq!(text("conf-file"), Some("a.conf.json"));
        assert_eq!(text("logs-path"), Some("/logs"));
        assert_eq!(text("gst-debug"), Some("Kurento*:5"));
        assert_eq!(text("gst-debug-level"), Some("3"));
        assert_eq!(text("log-file-size"), Some("50"));
    }

    #[test]
    fn our_own_name_is_strict_but_for_the_media_librarys_options() {
        assert!(parsed("rivero --gst-debug-no-color --gst-debug=3", false).is_ok());
        assert!(parsed("rivero --prot 1", false).is_err());
        assert!(parsed("rivero word", false).is_err());
    }

    #[test]
    fn flags_hold_before_and_after_a_command() {
        for line in ["rivero health --port 9", "rivero --port 9 health", "rivero --port 8 --port=9"]
        {
            let given = parsed(line, false).expect(line);
            assert_eq!(given.get_one::<String>("port").map(String::as_str), Some("9"), "{line}");
        }
    }

    #[test]
    fn the_command_is_sound() {
        command(false).debug_assert();
        command(true).debug_assert();
    }
}
