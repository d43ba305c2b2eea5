//! Writes Rust from the descriptors: the class table, complex types, events, the dispatch of
//! operations, and the lists of folders that hold a class each. Adding a class means adding a folder.
//!
//! `model` reads the descriptors and knows their names and types; each of the other files writes one
//! kind of text from it.

use std::path::PathBuf;
use std::{env, fs};

mod client;
#[path = "../src/model/descriptor.rs"]
mod descriptor;
mod dispatch;
mod kmd;
mod model;
mod names;
mod tables;
mod typed;
mod types;

use model::Model;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build");
    let model = Model::read(&root);
    let write = |name: &str, text: String| {
        fs::write(out.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    write("tables.rs", tables::tables(&model));
    write("types.rs", types::types(&model));
    write("typed.rs", typed::typed(&model));
    write("classes.rs", dispatch::dispatch(&model));
    write("client.rs", client::client(&model));
    write("manager.rs", dispatch::manager(&model));
    write("kmd.rs", kmd::kmd(&model));
    for folder in ["elements", "hubs"] {
        write(&format!("{folder}.rs"), dispatch::modules(&model, &root, folder));
    }
}
