//! The rules of the house that a compiler does not know: who imports whom, and that the tracked files
//! say nothing of the machine they were written on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders and files of `src/`, floor by floor. Each imports from the floors before its own, never
/// from beside and never from behind.
const FLOORS: &[&[&str]] = &[
    &["clock", "config", "metrics", "prefetch", "rtp"],
    &["bandwidth", "jsonrpc", "logs", "model", "sdp"],
    &["router", "transport"],
    &["elements"],
    &["hubs"],
    &["pipeline"],
    &["client", "registrar", "rpc", "web"],
    &["doctor", "server"],
    &["flags", "main"],
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module of `src/` that a file belongs to: its top folder, or its own name.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).expect("a file of src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a text names in paths from the crate's root: `crate::a::b`, `crate::{a::b, c}`,
/// and the same from `rivero`, as `main` sees it. Comments do not count.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for start in ["crate::", "rivero::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                continue;
            }
            let path = &code[at + start.len()..];
            match path.strip_prefix('{') {
                Some(list) => found.extend(heads(list)),
                None => found.extend(name(path)),
            }
        }
    }
    found
}

/// The first name of each path in a list that ends with its closing brace.
fn heads(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if letter.is_whitespace() => {}
            _ if fresh && depth == 0 => {
                fresh = false;
                names.extend(name(&list[at..]));
            }
            _ => {}
        }
    }
    names
}

fn name(path: &str) -> Option<String> {
    let end = path.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let name = &path[..end.unwrap_or(path.len())];
    (!name.is_empty()).then(|| name.to_owned())
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::rtp::Codec;\nuse crate::{model::{Event, error},\n    sdp, self as own};\n\
                // crate::web is only mentioned\nfn f() { crate::clock::now(); mycrate::rpc() }";
    let expected = ["clock", "model", "rtp", "sdp", "self"].map(str::to_owned);
    assert_eq!(imports(text), BTreeSet::from(expected));
}

#[test]
fn a_folder_imports_only_from_the_floors_below() {
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("src")) {
        let module = module_of(&file);
        if module == "lib" {
            continue;
        }
        let Some(own) = floor(&module) else {
            wrong.push(format!("{} stands on no floor", file.display()));
            continue;
        };
        for import in imports(&fs::read_to_string(&file).expect("a text")) {
            // Names that are no module of ours: macros, items of the root, the binary's own crate.
            let Some(theirs) = floor(&import) else { continue };
            if import != module && theirs >= own {
                wrong.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What fills servers is a client of theirs, and must not know more of them than clients do. Its tests
/// start a server.
#[test]
fn the_load_harness_knows_nothing_of_the_server() {
    let known = ["client", "clock", "rtp", "sdp", "transport"];
    for file in rust_files(&root().join("benches/load")) {
        let text = fs::read_to_string(&file).expect("a text");
        let found = imports(&text).into_iter().filter(|import| floor(import).is_some());
        let wrong: Vec<_> = found.filter(|import| !known.contains(&import.as_str())).collect();
        assert!(
            wrong.is_empty() || file.ends_with("tests.rs"),
            "{} imports {wrong:?}",
            file.display()
        );
    }
    for file in rust_files(&root().join("src")) {
        let own = ["main.rs", "flags.rs"].iter().any(|name| file.ends_with(name));
        let text = fs::read_to_string(&file).expect("a text");
        assert!(own || !text.contains("crate::load"), "{}", file.display());
    }
}

/// Every tracked text with its name; none where there is no repository.
fn tracked() -> Vec<(String, String)> {
    let Ok(output) = Command::new("git").arg("ls-files").current_dir(root()).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?)))
        .collect()
}

#[test]
fn no_tracked_file_names_a_folder_of_the_machine_it_was_written_on() {
    let home = concat!("/ro", "ot/");
    let folders = [home, concat!("/wo", "rk/"), concat!("/tmp/", "w/"), concat!("/tmp/", "target")];
    let found: Vec<_> = tracked()
        .into_iter()
        .filter(|(_, text)| folders.iter().any(|folder| text.contains(folder)))
        .map(|(name, _)| name)
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn lock_files_leave_the_registry_open() {
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    for (name, text) in tracked() {
        if name.ends_with("package-lock.json") {
            // A folder of this repository may be named, an address may not.
            let address = text.lines().find(|line| {
                line.contains("\"resolved\"") && line.contains(':') && line.contains("//")
            });
            assert_eq!(address, None, "{name} says where packages came from");
        }
        if name.ends_with("Cargo.lock") {
            let other = text.lines().find(|line| line.starts_with("source") && *line != public);
            assert_eq!(other, None, "{name}");
        }
    }
}

#[test]
fn every_metric_stands_in_the_readme() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect("a readable file");
    let (code, readme) = (read("src/metrics.rs"), read("README.md"));
    let quoted = code.split('"').filter(|text| text.starts_with("rivero_"));
    let is_name = |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let names: BTreeSet<&str> = quoted.filter(is_name).collect();
    assert!(names.len() > 20, "only {names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !readme.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
