//! Writes Rust from the descriptors: the class table, complex types, events, the dispatch of
//! operations, and the lists of folders that hold a class each. Adding a class means adding a folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "src/model/descriptor.rs"]
mod descriptor;

use descriptor::{Class, ComplexType, Event, File, Method, Owner, Param};
use serde_json::Value;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    let model = Model::read(&root);
    let write = |name: &str, text: String| {
        fs::write(out.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    write("tables.rs", model.tables());
    write("types.rs", model.types());
    write("classes.rs", model.dispatch());
    write("manager.rs", model.manager());
    for folder in ["elements", "hubs"] {
        write(&format!("{folder}.rs"), model.modules(&root, folder));
    }
}

/// All descriptors, in the order of their paths.
struct Model {
    classes: Vec<Class>,
    types: Vec<ComplexType>,
    events: Vec<Event>,
    /// Class → folder below `src` that holds its Rust file.
    folders: BTreeMap<String, PathBuf>,
}

impl Model {
    fn read(root: &Path) -> Self {
        let mut paths = Vec::new();
        find(&root.join("src"), &mut paths);
        paths.sort();
        let mut model =
            Self { classes: vec![], types: vec![], events: vec![], folders: BTreeMap::new() };
        for path in paths {
            let text = fs::read_to_string(&path).expect("a file just listed");
            let file: File = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if let Some(class) = file.class {
                if !class.is_abstract && path.ends_with("descriptor.json") {
                    let folder = path.parent().and_then(|folder| {
                        folder.strip_prefix(root.join("src")).ok().map(Path::to_owned)
                    });
                    model.folders.insert(class.name.clone(), folder.expect("below src"));
                }
                model.classes.push(class);
            }
            model.types.extend(file.types);
            model.events.extend(file.events);
        }
        model
    }

    fn class(&self, name: &str) -> &Class {
        let class = self.classes.iter().find(|class| class.name == name);
        class.unwrap_or_else(|| panic!("no descriptor of class {name}"))
    }

    fn complex(&self, name: &str) -> Option<&ComplexType> {
        self.types.iter().find(|known| known.name == name)
    }

    /// The class and its ancestors, nearest first.
    fn lineage<'a>(&'a self, class: &'a Class) -> Vec<&'a Class> {
        let parent = |class: &&'a Class| class.extends.as_ref().map(|name| self.class(name));
        std::iter::successors(Some(class), parent).collect()
    }

    /// Members of a register with its ancestors', ancestors' first; and the ancestors' names.
    fn members<'a>(&'a self, of: &'a ComplexType) -> (Vec<&'a Param>, Vec<&'a str>) {
        let (mut members, mut ancestors) = (Vec::new(), Vec::new());
        if let Some(parent) = &of.extends {
            let parent = self.complex(parent).unwrap_or_else(|| panic!("no type {parent}"));
            let (inherited, further) = self.members(parent);
            members.extend(inherited);
            ancestors.push(parent.name.as_str());
            ancestors.extend(further);
        }
        members.extend(of.properties.iter().flatten());
        (members, ancestors)
    }

    /// The operations a class declares: its methods and the accessors of its properties.
    fn operations(&self, class: &Class) -> Vec<Operation> {
        let mut operations = Vec::new();
        for property in &class.properties {
            let function = property.alias_of.as_ref().unwrap_or(&property.name);
            let capital = capitalised(&property.name);
            operations.push(Operation {
                name: format!("get{capital}"),
                function: format!("get_{}", snake(function)),
                params: vec![],
                returns: Some(property.kind.clone()),
                is_setter: false,
                doc: property.doc.clone(),
            });
            if !property.read_only {
                operations.push(Operation {
                    name: format!("set{capital}"),
                    function: format!("set_{}", snake(function)),
                    params: vec![Param {
                        name: property.name.clone(),
                        kind: property.kind.clone(),
                        optional: false,
                        default: None,
                    }],
                    returns: None,
                    is_setter: true,
                    doc: property.doc.clone(),
                });
            }
        }
        operations.extend(class.methods.iter().map(Operation::of));
        operations
    }

    /// `Kind::…` of a type's name on the wire.
    fn kind(&self, name: &str) -> String {
        if let Some(item) = name.strip_suffix("[]") {
            return format!("Kind::List(&{})", self.kind(item));
        }
        if let Some(item) = name.strip_suffix("<>") {
            return format!("Kind::Map(&{})", self.kind(item));
        }
        match name {
            "String" => "Kind::Text".into(),
            "int" => "Kind::Int".into(),
            "int64" => "Kind::Int64".into(),
            "boolean" => "Kind::Boolean".into(),
            "float" => "Kind::Float".into(),
            "double" => "Kind::Double".into(),
            _ => match self.complex(name) {
                Some(known) if known.values.is_some() => {
                    format!("Kind::Enum(&{})", constant("ENUM", name))
                }
                Some(_) => format!("Kind::Register(&{})", constant("REGISTER", name)),
                None => format!("Kind::Object({:?})", self.class(name).name),
            },
        }
    }

    /// The Rust type of a type's name on the wire.
    fn rust_type(&self, name: &str) -> String {
        if let Some(item) = name.strip_suffix("[]") {
            return format!("Vec<{}>", self.rust_type(item));
        }
        if name.ends_with("<>") {
            return "serde_json::Map<String, Value>".into();
        }
        match name {
            "String" => "String".into(),
            "int" => "i32".into(),
            "int64" => "i64".into(),
            "boolean" => "bool".into(),
            "float" => "f32".into(),
            "double" => "f64".into(),
            _ if self.complex(name).is_some() => format!("crate::model::types::{name}"),
            _ => "crate::model::ObjectId".into(),
        }
    }

    fn params(&self, params: &[&Param]) -> String {
        let mut text = String::from("&[");
        for param in params {
            let default = match &param.default {
                Some(value) => format!("Some({})", literal(value)),
                None => "None".into(),
            };
            let _ = write!(
                text,
                "Param {{ name: {:?}, kind: {}, optional: {}, default: {default} }}, ",
                param.name,
                self.kind(&param.kind),
                param.optional
            );
        }
        text + "]"
    }

    /// The tables of `model::class`.
    fn tables(&self) -> String {
        let mut text = String::new();
        for known in &self.types {
            if let Some(values) = &known.values {
                let _ = writeln!(
                    text,
                    "pub static {}: Enum = Enum {{ name: {:?}, values: &{values:?} }};",
                    constant("ENUM", &known.name),
                    known.name
                );
            } else {
                let (members, ancestors) = self.members(known);
                let _ = writeln!(
                    text,
                    "pub static {}: Register = Register {{ name: {:?}, namespace: {:?}, \
                     ancestors: &{ancestors:?}, members: {} }};",
                    constant("REGISTER", &known.name),
                    known.name,
                    namespace(&known.module),
                    self.params(&members)
                );
            }
        }
        for event in &self.events {
            let _ = writeln!(
                text,
                "pub static {}: EventClass = EventClass {{ name: {:?}, legacy: &{:?}, media: {} }};",
                constant("EVENT", &event.name),
                event.name,
                event.legacy,
                event.media
            );
        }
        for class in &self.classes {
            let mut methods = String::new();
            for operation in self.operations(class) {
                let _ = write!(
                    methods,
                    "Method {{ class: {:?}, name: {:?}, params: {}, is_setter: {}, doc: {:?} }}, ",
                    class.name,
                    operation.name,
                    self.params(&operation.params.iter().collect::<Vec<_>>()),
                    operation.is_setter,
                    operation.doc
                );
            }
            let events: Vec<_> =
                class.events.iter().map(|name| format!("&{}", constant("EVENT", name))).collect();
            let extends =
                class.extends.as_ref().map(|name| format!("&{}", constant("CLASS", name)));
            let _ = writeln!(
                text,
                "pub static {}: Class = Class {{ name: {:?}, qualified: {:?}, module: {:?}, \
                 extends: {}, is_abstract: {}, constructor: {}, methods: &[{methods}], \
                 events: &[{}], doc: {:?} }};",
                constant("CLASS", &class.name),
                class.name,
                format!("{}.{}", namespace(&class.module), class.name),
                class.module,
                extends.map_or("None".into(), |name| format!("Some({name})")),
                class.is_abstract,
                self.params(&class.constructor.iter().collect::<Vec<_>>()),
                events.join(", "),
                class.doc
            );
        }
        let list = |prefix: &str, names: Vec<&str>| {
            names
                .iter()
                .map(|name| format!("&{}", constant(prefix, name)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let classes = list("CLASS", self.classes.iter().map(|class| class.name.as_str()).collect());
        let registers = self.types.iter().filter(|known| known.values.is_none());
        let registers = list("REGISTER", registers.map(|known| known.name.as_str()).collect());
        let _ = writeln!(text, "/// All classes.\npub static CLASSES: &[&Class] = &[{classes}];");
        let _ = writeln!(
            text,
            "/// All registers.\npub static REGISTERS: &[&Register] = &[{registers}];"
        );
        // Old clients refuse a server that lacks one of these three.
        let mut modules: BTreeMap<&str, Vec<&str>> =
            ["core", "elements", "filters"].map(|name| (name, vec![])).into();
        for class in self.classes.iter().filter(|class| !class.is_abstract) {
            modules.entry(&class.module).or_default().push(&class.name);
        }
        text +=
            "/// All modules with what can be created of them.\npub static MODULES: &[Module] = &[";
        for (name, mut factories) in modules {
            factories.sort_unstable();
            let _ = write!(text, "Module {{ name: {name:?}, factories: &{factories:?} }}, ");
        }
        text + "];\n"
    }

    /// The Rust types of `model::types`.
    fn types(&self) -> String {
        let mut text = String::new();
        for known in &self.types {
            match &known.values {
                Some(values) => self.enumeration(&mut text, known, values),
                None => self.register(&mut text, known),
            }
        }
        text += "/// What events say beyond what all events say.\npub mod event {\nuse super::*;\n";
        for event in &self.events {
            let _ = writeln!(
                text,
                "/// {}\n#[derive(Clone, Debug)]\npub struct {} {{",
                event.doc, event.name
            );
            let mut members = String::new();
            for property in &event.properties {
                let field = snake(&property.name);
                let _ = writeln!(text, "pub {field}: {},", self.rust_type(&property.kind));
                let _ = writeln!(
                    members,
                    "members.insert({:?}.to_owned(), self.{field}.into_value());",
                    property.name
                );
            }
            let members = if members.is_empty() {
                "Map::new()".to_owned()
            } else {
                format!("let mut members = Map::new();\n{members}members")
            };
            let _ = writeln!(
                text,
                "}}\nimpl EventData for {} {{\nconst CLASS: &'static EventClass = &class::{};\n\
                 fn into_members(self) -> Map<String, Value> {{\n{members}\n}}\n}}",
                event.name,
                constant("EVENT", &event.name)
            );
        }
        text += "}\n";
        text.replace("crate::model::types::", "")
            .replace("crate::model::", "")
            .replace("serde_json::", "")
    }

    fn enumeration(&self, text: &mut String, known: &ComplexType, values: &[String]) {
        let name = &known.name;
        let variants: Vec<_> = values.iter().map(|value| variant(value)).collect();
        let table = constant("ENUM", name);
        let _ = writeln!(
            text,
            "/// {}\n#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]\npub enum {name} {{ {} }}",
            if known.doc.is_empty() { name } else { &known.doc },
            variants.join(", ")
        );
        let all: Vec<_> = variants.iter().map(|variant| format!("Self::{variant}")).collect();
        let _ = writeln!(
            text,
            "impl {name} {{\npub const ALL: &'static [Self] = &[{}];\n\
             /// Its name on the wire.\npub fn as_str(self) -> &'static str {{ class::{table}.values[self as usize] }}\n}}\n\
             impl FromArg for {name} {{\nfn from_arg(arg: Option<Arg>) -> Self {{\nmatch arg {{\n\
             Some(Arg::Enum(position)) => Self::ALL[position],\n\
             other => unreachable!(\"the descriptor promised a {name}, not {{other:?}}\"),\n}}\n}}\n}}\n\
             impl IntoValue for {name} {{\nfn into_value(self) -> Value {{ Value::from(self.as_str()) }}\n}}",
            all.join(", ")
        );
    }

    fn register(&self, text: &mut String, known: &ComplexType) {
        let name = &known.name;
        let (members, _) = self.members(known);
        let (mut fields, mut read, mut written) = (String::new(), String::new(), String::new());
        for member in members {
            let field = snake(&member.name);
            let kind = self.rust_type(&member.kind);
            if member.optional {
                let _ = writeln!(fields, "pub {field}: Option<{kind}>,");
                let _ = writeln!(
                    written,
                    "if let Some(value) = self.{field} {{ members.insert({:?}.to_owned(), value.into_value()); }}",
                    member.name
                );
            } else {
                let _ = writeln!(fields, "pub {field}: {kind},");
                let _ = writeln!(
                    written,
                    "members.insert({:?}.to_owned(), self.{field}.into_value());",
                    member.name
                );
            }
            let _ = writeln!(read, "{field}: FromArg::from_arg(members.next().flatten()),");
        }
        // Whether a client may send one is seen from its members: maps only ever go out.
        let received = if fields.contains("serde_json::Map") {
            String::new()
        } else {
            format!(
                "impl FromArg for {name} {{\nfn from_arg(arg: Option<Arg>) -> Self {{\n\
                 let Some(Arg::Register(members)) = arg else {{\n\
                 unreachable!(\"the descriptor promised a {name}, not {{arg:?}}\")\n}};\n\
                 let mut members = members.into_iter();\nSelf {{ {read} }}\n}}\n}}\n"
            )
        };
        let _ = writeln!(
            text,
            "/// {}\n#[derive(Clone, Debug, PartialEq)]\npub struct {name} {{\n{fields}}}\n{received}\
             impl {name} {{\n/// Its members and its own name, as they stand on the wire.\n\
             pub fn into_members(self) -> Map<String, Value> {{\nlet mut members = Map::new();\n\
             members.insert(\"__module__\".to_owned(), Value::from({:?}));\n\
             members.insert(\"__type__\".to_owned(), Value::from({name:?}));\n{written}members\n}}\n}}\n\
             impl IntoValue for {name} {{\nfn into_value(self) -> Value {{ Value::Object(self.into_members()) }}\n}}",
            if known.doc.is_empty() { name } else { &known.doc },
            namespace(&known.module)
        );
    }

    /// `Body`, `create` and `invoke` of `pipeline::classes`.
    fn dispatch(&self) -> String {
        let bodies: Vec<_> = self
            .classes
            .iter()
            .filter(|class| !class.is_abstract && class.carried_out_by == Owner::Body)
            .collect();
        let path = |class: &Class| {
            let folder = self.folders[&class.name].to_string_lossy().replace('/', "::");
            format!("crate::{folder}::{}", class.name)
        };
        let mut text = String::from(
            "/// What an object is beyond what all objects are; `None` for a pipeline.\n\
             #[derive(Default)]\npub(crate) enum Body {\n#[default]\nNone,\n",
        );
        for class in &bodies {
            let _ = writeln!(text, "{}(Box<{}>),", class.name, path(class));
        }
        text += "}\n\n/// Makes the body of a new object; the parent is known to `cx` already.\n\
                 pub(super) fn create(class: &'static Class, cx: &mut Context<'_>, args: Args) -> Result<Body, RemoteError> {\n\
                 let mut args = args.into_iter();\nargs.next();\nmatch class.name {\n";
        for class in &bodies {
            let arguments = "next(&mut args), ".repeat(class.constructor.len().saturating_sub(1));
            let _ = writeln!(
                text,
                "{:?} => {}::new(cx, {arguments}).map(|body| Body::{}(Box::new(body))),",
                class.name,
                path(class),
                class.name
            );
        }
        text += "_ => Ok(Body::None),\n}\n}\n\n\
                 /// Carries out an operation of the object that `call` is about.\n\
                 pub(super) fn invoke(call: &mut Call<'_>, method: &'static Method, args: Args) -> Result<Value, RemoteError> {\n\
                 let mut args = args.into_iter();\nmatch (method.class, method.name) {\n";
        for class in self.classes.iter().filter(|class| class.carried_out_by == Owner::Pipeline) {
            for operation in self.operations(class) {
                let _ = writeln!(
                    text,
                    "({:?}, {:?}) => reply::<{}>(call.{}({})),",
                    class.name,
                    operation.name,
                    self.returned(&operation),
                    operation.function,
                    "next(&mut args), ".repeat(operation.params.len())
                );
            }
        }
        text += "_ => call.with_body(|body, cx| body.invoke(cx, method, &mut args)),\n}\n}\n\n\
                 impl Body {\nfn invoke(&mut self, cx: &mut Context<'_>, method: &'static Method, \
                 args: &mut std::vec::IntoIter<Option<Arg>>) -> Result<Value, RemoteError> {\nmatch self {\n";
        for class in &bodies {
            let mut arms = String::new();
            for ancestor in self.lineage(class) {
                if ancestor.carried_out_by != Owner::Body {
                    continue;
                }
                for operation in self.operations(ancestor) {
                    let _ = writeln!(
                        arms,
                        "{:?} => reply::<{}>(body.{}(cx, {})),",
                        operation.name,
                        self.returned(&operation),
                        operation.function,
                        "next(args), ".repeat(operation.params.len())
                    );
                }
            }
            if !arms.is_empty() {
                let _ = writeln!(
                    text,
                    "Self::{}(body) => match method.name {{\n{arms}_ => undeclared(method),\n}},",
                    class.name
                );
            }
        }
        text += "_ => undeclared(method),\n}\n}\n\n";
        for (name, mutable) in [("node", ""), ("node_mut", "mut ")] {
            let _ = writeln!(
                text,
                "pub(super) fn {name}(&{mutable}self) -> &{mutable}dyn Node {{\nmatch self {{\n\
                 Self::None => {},",
                if mutable.is_empty() {
                    "&NoMedia"
                } else {
                    "Box::leak(Box::new(NoMedia)) /* of no size, so nothing leaks */"
                }
            );
            for class in &bodies {
                let _ = writeln!(text, "Self::{}(body) => &{mutable}**body,", class.name);
            }
            text += "}\n}\n";
        }
        text + "}\n"
    }

    /// `invoke` of `rpc::server_manager`: the manager has no pipeline and may take its time.
    fn manager(&self) -> String {
        let mut text = String::from(
            "/// Carries out an operation of the server manager.\n\
             pub async fn invoke(manager: &ServerManager, method: &'static Method, args: Args) -> Result<Value, RemoteError> {\n\
             let mut args = args.into_iter();\nmatch method.name {\n",
        );
        for class in self.lineage(self.class("ServerManager")) {
            for operation in self.operations(class) {
                let _ = writeln!(
                    text,
                    "{:?} => reply::<{}>(manager.{}({}).await),",
                    operation.name,
                    self.returned(&operation),
                    operation.function,
                    "FromArg::from_arg(args.next().flatten()), ".repeat(operation.params.len())
                );
            }
        }
        text + "_ => unreachable!(\"the table and this match are written from the same descriptors\"),\n}\n}\n"
    }

    fn returned(&self, operation: &Operation) -> String {
        match operation.returns.as_deref() {
            None => "()".into(),
            // A pipeline has no parent and the manager no pipeline.
            Some("MediaObject" | "MediaPipeline") => "Option<crate::model::ObjectId>".into(),
            Some(kind) => self.rust_type(kind),
        }
    }

    /// `pub mod` lines for the folders of `src/<folder>` that hold a descriptor.
    fn modules(&self, root: &Path, folder: &str) -> String {
        let mut text = String::new();
        for (class, path) in &self.folders {
            if path.parent() == Some(Path::new(folder)) {
                let file = root.join("src").join(path).join("mod.rs");
                let name = path.file_name().expect("a folder").to_string_lossy();
                let _ =
                    writeln!(text, "/// {class}\n#[path = {:?}]\npub mod {name};", file.display());
            }
        }
        text
    }
}

/// One name that `invoke` knows.
struct Operation {
    name: String,
    function: String,
    params: Vec<Param>,
    returns: Option<String>,
    is_setter: bool,
    doc: String,
}

impl Operation {
    fn of(method: &Method) -> Self {
        Self {
            name: method.name.clone(),
            function: snake(&method.name),
            params: method.params.clone(),
            returns: method.returns.clone(),
            is_setter: false,
            doc: method.doc.clone(),
        }
    }
}

/// Descriptor files below `folder`.
fn find(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            find(&path, paths);
        } else if path.ends_with("descriptor.json")
            || (path.extension().is_some_and(|end| end == "json")
                && folder.ends_with("model/classes"))
        {
            paths.push(path);
        }
    }
}

fn namespace(module: &str) -> &str {
    match module {
        "core" | "elements" | "filters" => "kurento",
        other => other,
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("Literal::Text({text:?})"),
        Value::Bool(flag) => format!("Literal::Boolean({flag})"),
        Value::Number(number) if number.is_i64() => format!("Literal::Int({number})"),
        Value::Number(number) => format!("Literal::Double({number})"),
        Value::Array(items) if items.is_empty() => "Literal::EmptyList".into(),
        Value::Object(members) if members.is_empty() => "Literal::EmptyRegister".into(),
        other => panic!("no default can be {other}"),
    }
}

fn capitalised(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

/// `externalIPv4` → `external_ipv4`, `ICECandidatePairs` → `ice_candidate_pairs`.
fn snake(name: &str) -> String {
    let chars: Vec<char> = name.replace("IPv", "Ipv").chars().collect();
    let mut text = String::new();
    for (at, &char) in chars.iter().enumerate() {
        let after_small = at > 0 && !chars[at - 1].is_uppercase();
        let before_small = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
        if char.is_uppercase() && at > 0 && (after_small || before_small) {
            text.push('_');
        }
        text.extend(char.to_lowercase());
    }
    if text == "type" { "r#type".into() } else { text }
}

/// `WebRtcEndpoint` with prefix `CLASS` → `CLASS_WEB_RTC_ENDPOINT`.
fn constant(prefix: &str, name: &str) -> String {
    format!("{prefix}_{}", snake(name).to_uppercase())
}

/// `SHOW_ALL` → `ShowAll`, `inboundrtp` → `Inboundrtp`.
fn variant(value: &str) -> String {
    value.split('_').map(|word| word[..1].to_uppercase() + &word[1..].to_lowercase()).collect()
}
