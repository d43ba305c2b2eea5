//! Shell: settings files on the disk.

use std::env::VarError;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::load::{ConfigError, Loaded, Loader};
use super::settings::Setting;
use super::tree::{Node, parse_ini, parse_json};

/// Where the main file is looked for.
pub const CONF_FILE: &str = "/etc/kurento/kurento.conf.json";
/// Bytes of a settings file.
const MAX_FILE: u64 = 1 << 20;
/// Module files that are read, and folders inside each other.
const MAX_FILES: usize = 1_000;
const MAX_DEPTH: usize = 8;

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The main file.
    pub file: Option<PathBuf>,
    /// Whether it must be there and describe the network.
    pub required: bool,
    /// Folders of module files, with colons between; `modules` beside the main file when none.
    pub modules: Option<String>,
    /// Settings given as flags, with their texts.
    pub flags: Vec<(&'static Setting, String)>,
}

/// Reads all of them, and the environment by means of `variable`.
///
/// # Errors
/// A main file, variable or flag that is wrong. Wrong module files are warnings.
pub fn read(
    sources: &Sources,
    variable: &dyn Fn(&str) -> Result<String, VarError>,
) -> Result<Loaded, ConfigError> {
    let mut loader = Loader::new();
    let file = match &sources.file {
        Some(file) => Some(file.clone()),
        None => {
            let usual = PathBuf::from(CONF_FILE);
            (sources.required || usual.exists()).then_some(usual)
        }
    };
    if let Some(file) = &file {
        let root = parse(file)?;
        loader.main_file(file, &root, sources.required)?;
    }
    let folders: Vec<PathBuf> = match (&sources.modules, &file) {
        (Some(list), _) => {
            list.split(':').filter(|text| !text.is_empty()).map(Into::into).collect()
        }
        (None, Some(file)) => {
            vec![file.parent().unwrap_or(Path::new("")).join("modules")]
        }
        (None, None) => Vec::new(),
    };
    for folder in folders {
        if !folder.is_dir() {
            if sources.modules.is_some() {
                loader.warn(format!("{}: no folder of module files", folder.display()));
            }
            continue;
        }
        let mut files = Vec::new();
        if let Err(error) = list(&folder, 0, &mut files) {
            loader.warn(format!("{}: {error}", folder.display()));
        }
        for file in files {
            match (module_name(&folder, &file), parse(&file)) {
                (Some(name), Ok(root)) => loader.module_file(&file, &name, &root),
                (_, Err(error)) => loader.warn(error.to_string()),
                (None, _) => loader.warn(ConfigError::Name { file }.to_string()),
            }
        }
    }
    loader.environment(variable)?;
    for (setting, text) in &sources.flags {
        loader.flag(setting, text)?;
    }
    loader.finish()
}

/// Regular files below a folder, sorted.
fn list(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths = Vec::new();
    for entry in folder.read_dir()?.take(MAX_FILES) {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() && depth < MAX_DEPTH {
            list(&path, depth + 1, found)?;
        } else if path.is_file() && found.len() < MAX_FILES {
            found.push(path);
        }
    }
    Ok(())
}

/// `kurento.WebRtcEndpoint` for `kurento/WebRtcEndpoint.conf.ini`.
fn module_name(folder: &Path, file: &Path) -> Option<String> {
    let inside = file.strip_prefix(folder).ok()?.to_str()?;
    let (name, format) = inside.rsplit_once(".conf.")?;
    ["ini", "json"].contains(&format).then(|| name.replace('/', "."))
}

fn parse(file: &Path) -> Result<Node, ConfigError> {
    let wrong_name = || ConfigError::Name { file: file.to_owned() };
    let name = file.file_name().and_then(OsStr::to_str).ok_or_else(wrong_name)?;
    let parse = match name.rsplit_once(".conf.") {
        Some((name, "json")) if !name.is_empty() => parse_json,
        Some((name, "ini")) if !name.is_empty() => parse_ini,
        _ => return Err(wrong_name()),
    };
    let failed = |error| ConfigError::File { file: file.to_owned(), error };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB")));
    }
    parse(text.trim_start_matches('\u{feff}'))
        .map_err(|error| ConfigError::Syntax { file: file.to_owned(), error })
}
