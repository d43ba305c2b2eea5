//! The format of a descriptor: what the remote API says of a class, as data.
//!
//! A file describes at most one class and any number of complex types and events. `build/` reads
//! every `descriptor.json` below `src` and the abstract classes in `src/model/classes`, and writes
//! from them the class table, the complex types, the events and the dispatch. This file is compiled
//! into the build script and nowhere else.

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

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub optional: bool,
    /// What an optional parameter is when it is not given. Without it the Rust type is an `Option`.
    pub default: Option<Value>,
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
    /// The property this one is another name of, in old clients.
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
    #[serde(default)]
    pub doc: String,
}

/// An enum (`values`) or a register (`properties`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplexType {
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
    /// Whether its data repeats the event's name as `type`; true for all that derive from `Media`.
    #[serde(default = "yes")]
    pub media: bool,
    /// The names it had for clients of 6.x, oldest first.
    #[serde(default)]
    pub legacy: Vec<String>,
    #[serde(default)]
    pub properties: Vec<Param>,
    #[serde(default)]
    pub doc: String,
}

fn yes() -> bool {
    true
}
