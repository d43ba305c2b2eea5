//! The format of a descriptor: what the remote API says of a class, as data.
//!
//! A file describes at most one class and any number of complex types and events. `build/` reads
//! every `descriptor.json` below `src` and all files below `src/model/classes`, and writes from them
//! the class table, the complex types, the events, the dispatch and the texts of `getKmd`. This file
//! is compiled into the build script and into the test that counts the API.
//!
//! A class that is not abstract can be created where its descriptor lies in a folder of its own,
//! beside the Rust file that carries it out. Below `src/model/classes` are the abstract ones, and
//! those that nothing carries out yet: they are described and that is all.

use serde::Deserialize;
use serde_json::Value;

/// One descriptor file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub class: Option<Class>,
    #[serde(default)]
    pub types: Vec<ComplexType>,
    #[serde(default)]
    pub events: Vec<Event>,
}

/// A remote class. Constructor parameters, properties, methods and events are its own; it has those
/// of its ancestors too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    pub name: String,
    /// The module that `getInfo` lists it in: `core`, `elements`, `filters` or an extra one.
    pub module: String,
    pub extends: Option<String>,
    #[serde(default, rename = "abstract")]
    pub is_abstract: bool,
    pub doc: String,
    /// Who carries its methods out: the `body` of the class's own folder, the `pipeline` that the
    /// object lives in, or the `manager` of the server.
    #[serde(default)]
    pub carried_out_by: Owner,
    /// How much of what it does with media is built; given for classes that can be created.
    pub media: Option<Media>,
    /// What is missing, where it is built in part: half a sentence for the table in the README.
    pub missing: Option<String>,
    #[serde(default)]
    pub constructor: Vec<Param>,
    #[serde(default)]
    pub properties: Vec<Property>,
    #[serde(default)]
    pub methods: Vec<Method>,
    /// Names of the events it raises.
    #[serde(default)]
    pub events: Vec<String>,
}

#[derive(Clone, Copy, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    #[default]
    Body,
    Pipeline,
    Manager,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    Whole,
    Part,
}

/// A parameter, or a member of a register or an event.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub optional: bool,
    /// What an optional parameter is when it is not given. Without it the Rust type is an `Option`.
    /// Of a parameter that must be given it is what clients put in for their callers.
    pub default: Option<Value>,
    /// Sent for clients of 6.x and told to nobody else.
    #[serde(default)]
    pub legacy: bool,
    /// The original does not have it: sent, and left out of what is told to code generators.
    #[serde(default)]
    pub own: bool,
    /// The member this one is another name of; it has its value.
    #[serde(rename = "aliasOf")]
    pub alias_of: Option<String>,
    #[serde(default)]
    pub doc: String,
}

/// A property is reached as `get<Name>` and, unless it is read-only, `set<Name>`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, rename = "readOnly")]
    pub read_only: bool,
    /// Settled when the object is made. There is no way to set it either.
    #[serde(default, rename = "final")]
    pub is_final: bool,
    /// What it is at first, where that is a promise of the API.
    pub default: Option<Value>,
    /// There for clients of 6.x and told to nobody else.
    #[serde(default)]
    pub legacy: bool,
    /// The property this one is another name of.
    #[serde(rename = "aliasOf")]
    pub alias_of: Option<String>,
    #[serde(default)]
    pub doc: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    pub name: String,
    #[serde(default)]
    pub params: Vec<Param>,
    pub returns: Option<String>,
    /// There for clients of 6.x and told to nobody else.
    #[serde(default)]
    pub legacy: bool,
    #[serde(default)]
    pub doc: String,
}

/// An enum (`values`) or a register (`properties`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplexType {
    /// Its name on the wire. Two modules may use the same one; each means its own.
    pub name: String,
    pub module: String,
    pub extends: Option<String>,
    pub values: Option<Vec<String>>,
    pub properties: Option<Vec<Param>>,
    #[serde(default)]
    pub doc: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub name: String,
    /// The module of the class in the same file, unless said otherwise.
    pub module: Option<String>,
    /// The event whose members it has too: `Media`, for most.
    #[serde(default = "media")]
    pub extends: Option<String>,
    /// Only others derive from it; it is never raised itself.
    #[serde(default, rename = "abstract")]
    pub is_abstract: bool,
    /// The names it had for clients of 6.x, oldest first.
    #[serde(default)]
    pub legacy: Vec<String>,
    #[serde(default)]
    pub properties: Vec<Param>,
    #[serde(default)]
    pub doc: String,
}

fn media() -> Option<String> {
    Some("Media".to_owned())
}
