//! The typed client of `client::kurento`: classes, builders, events, and the reading of values.

use std::fmt::Write as _;

use crate::descriptor::{Class, ComplexType, Event, Param};
use crate::model::{Model, Operation};
use crate::names::{capitalised, constant, snake};

/// What `client::kurento` includes.
pub fn client(model: &Model) -> String {
    let mut text = String::new();
    for known in &model.types {
        match &known.values {
            Some(_) => enumeration(model, &mut text, known),
            None => register(model, &mut text, known),
        }
    }
    for class in &model.classes {
        class_type(model, &mut text, class);
    }
    text += "/// Calls and creations with optional parameters: set those you want, then await.\n\
             pub mod calls {\n\
             use super::*;\n";
    for class in &model.classes {
        for operation in operations(model, class) {
            if operation.params.iter().any(|param| param.optional) {
                call(model, &mut text, class, &operation);
            }
        }
        if is_built(class) {
            creation(model, &mut text, class);
        }
    }
    text += "}\n\
             /// Events by their names on the wire; the names of 6.x are not among them.\n\
             pub mod events {\n\
             use super::*;\n\
             use crate::client::kurento::EventKind;\n";
    for event in model.events.iter().filter(|event| !event.is_abstract) {
        event_type(model, &mut text, event);
    }
    text + "}\n"
}

/// Own operations under their names of today.
fn operations(model: &Model, class: &Class) -> Vec<Operation> {
    let old = |operation: &Operation| {
        let of_property = class.properties.iter().any(|property| {
            let capital = capitalised(&property.name);
            (property.legacy || property.alias_of.is_some())
                && (operation.name == format!("get{capital}")
                    || operation.name == format!("set{capital}"))
        });
        let methods = &class.methods;
        of_property || methods.iter().any(|method| method.legacy && method.name == operation.name)
    };
    model.operations(class).into_iter().filter(|operation| !old(operation)).collect()
}

/// Whether its creation has parameters that may be left out.
fn is_built(class: &Class) -> bool {
    !class.is_abstract && class.constructor.iter().any(|param| param.optional)
}

fn doc(text: &str, otherwise: &str) -> String {
    let text = if text.is_empty() { otherwise } else { text };
    text.lines().map(|line| format!("/// {line}\n")).collect()
}

/// Registers that extend `known`, at whatever distance.
fn descendants<'a>(model: &'a Model, known: &ComplexType) -> Vec<&'a ComplexType> {
    let extends = |other: &&ComplexType| {
        other.values.is_none() && model.members(other).1.contains(&known.name.as_str())
    };
    model.types.iter().filter(extends).collect()
}

/// The Rust type of a value that a server sends.
fn received(model: &Model, kind: &str) -> String {
    if let Some(item) = kind.strip_suffix("[]") {
        return format!("Vec<{}>", received(model, item));
    }
    if let Some(item) = kind.strip_suffix("<>") {
        return format!("BTreeMap<String, {}>", received(model, item));
    }
    match model.complex(kind) {
        Some(known) if known.values.is_none() && !descendants(model, known).is_empty() => {
            format!("Any{kind}")
        }
        None if is_class(model, kind) => kind.to_owned(),
        _ => model.rust_type(kind),
    }
}

fn is_class(model: &Model, kind: &str) -> bool {
    model.classes.iter().any(|class| class.name == kind)
}

fn returned(model: &Model, operation: &Operation) -> String {
    match operation.returns.as_deref() {
        None => "()".into(),
        // A pipeline has no parent and the manager no pipeline.
        Some(kind @ ("MediaObject" | "MediaPipeline")) => format!("Option<{kind}>"),
        Some(kind) => received(model, kind),
    }
}

/// The Rust type of a value that a client sends, and how `name` of that type becomes JSON.
fn sent(model: &Model, kind: &str, name: &str) -> (String, String) {
    if let Some(item) = kind.strip_suffix("[]") {
        let (item, json) = sent(model, item, "item");
        let function = match json.strip_suffix("(item)") {
            Some(function) => function.to_owned(),
            None => format!("|item| {json}"),
        };
        return (
            format!("Vec<{item}>"),
            format!("{name}.into_iter().map({function}).collect::<Value>()"),
        );
    }
    if let Some(item) = kind.strip_suffix("<>") {
        let (item, json) = sent(model, item, "item");
        let json =
            format!("{name}.into_iter().map(|(key, item)| (key, {json})).collect::<Value>()");
        return (format!("BTreeMap<String, {item}>"), json);
    }
    match kind {
        "String" => ("&str".into(), format!("Value::from({name})")),
        _ if model.complex(kind).is_none() && is_class(model, kind) => {
            (format!("&{kind}"), format!("Value::from({name}.id().as_str())"))
        }
        _ => (model.rust_type(kind), format!("IntoValue::into_value({name})")),
    }
}

fn enumeration(model: &Model, text: &mut String, known: &ComplexType) {
    let path = model.rust_type(&known.name);
    let _ = writeln!(
        text,
        "impl Decode for {path} {{\n\
         fn decode(value: Value, _: &Arc<Link>) -> Result<Self, ClientError> {{\n\
         let known = Self::ALL.iter().find(|known| value == known.as_str());\n\
         known.copied().ok_or_else(|| unknown({:?}, &value))\n}}\n}}",
        known.name
    );
}

fn register(model: &Model, text: &mut String, known: &ComplexType) {
    let name = &known.name;
    let path = model.rust_type(name);
    let (members, _) = model.members(known);
    let mut read = String::new();
    for member in members.iter().filter(|member| member.alias_of.is_none()) {
        // What is there for old clients, or only with this server, is not insisted on.
        let take = match (member.optional, member.legacy || member.own) {
            (true, _) => "take_optional({}, link)?",
            (false, true) => "take_optional({}, link)?.unwrap_or_default()",
            (false, false) => "take({}, link)?",
        };
        let take = take.replace("{}", &format!("{:?}", member.name));
        let _ = writeln!(read, "{}: members.{take},", snake(&member.name));
    }
    let (mutable, link) = if read.is_empty() { ("", "_") } else { ("mut ", "link") };
    let _ = writeln!(
        text,
        "impl Decode for {path} {{\n\
         fn decode(value: Value, {link}: &Arc<Link>) -> Result<Self, ClientError> {{\n\
         let {mutable}members = Members::of({:?}, value)?;\n\
         Ok(Self {{ {read} }})\n}}\n}}",
        model.wire(name)
    );
    let below = descendants(model, known);
    if below.is_empty() {
        return;
    }
    let (mut variants, mut arms) = (String::new(), String::new());
    for other in &below {
        let (name, path) = (&other.name, model.rust_type(&other.name));
        let _ = writeln!(variants, "{name}(Box<{path}>),");
        let _ = writeln!(
            arms,
            "Some({:?}) => Self::{name}(Box::new(Decode::decode(value, link)?)),",
            model.wire(name)
        );
    }
    let _ = writeln!(
        text,
        "/// A [`types::{name}`], or what extends it.\n\
         #[derive(Clone, Debug, PartialEq)]\n\
         pub enum Any{name} {{\n{name}(Box<{path}>),\n{variants}\
         /// One that is not described here.\nOther(Map<String, Value>),\n}}\n\
         impl Decode for Any{name} {{\n\
         fn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {{\n\
         Ok(match value[\"__type__\"].as_str() {{\n\
         None | Some({:?}) => Self::{name}(Box::new(Decode::decode(value, link)?)),\n\
         {arms}Some(_) => Self::Other(Decode::decode(value, link)?),\n}})\n}}\n}}",
        model.wire(name)
    );
}

fn class_type(model: &Model, text: &mut String, class: &Class) {
    let name = &class.name;
    let base = class.extends.as_deref().unwrap_or("Handle");
    let below = match class.extends {
        Some(_) => format!("Self({base}::from_handle(handle))"),
        None => "Self(handle)".to_owned(),
    };
    let table = constant("CLASS", name);
    let _ = writeln!(
        text,
        "{}#[derive(Clone, Debug, Eq, PartialEq)]\n\
         pub struct {name}({base});\n\
         impl Deref for {name} {{\ntype Target = {base};\nfn deref(&self) -> &{base} {{ &self.0 }}\n}}\n\
         impl RemoteClass for {name} {{\nconst CLASS: &'static Class = &class::{table};\n\
         fn from_handle(handle: Handle) -> Self {{ {below} }}\n\
         fn handle(&self) -> &Handle {{ self }}\n}}\n\
         impl Decode for {name} {{\nfn decode(value: Value, link: &Arc<Link>) -> Result<Self, ClientError> {{\n\
         Handle::decode(value, link).map(Self::from_handle)\n}}\n}}\n\
         impl {name} {{",
        doc(&class.doc, name)
    );
    for operation in operations(model, class) {
        method(model, text, class, &operation);
    }
    for created in &model.classes {
        let parent = created.constructor.first();
        if !created.is_abstract && parent.is_some_and(|parent| parent.kind == *name) {
            constructor(model, text, created);
        }
    }
    *text += "}\n";
}

/// `name: type, ` for each, and the lines that put them into `params`.
fn arguments(model: &Model, params: &[&Param]) -> (String, String) {
    let (mut signature, mut lines) = (String::new(), String::new());
    for param in params {
        let name = snake(&param.name);
        let (kind, json) = sent(model, &param.kind, &name);
        let _ = write!(signature, ", {name}: {kind}");
        let _ = writeln!(lines, "params.insert({:?}.to_owned(), {json});", param.name);
    }
    let mutable = if lines.is_empty() { "" } else { "mut " };
    (signature, format!("let {mutable}params = Map::new();\n{lines}"))
}

fn method(model: &Model, text: &mut String, class: &Class, operation: &Operation) {
    let (optional, required): (Vec<_>, Vec<_>) =
        operation.params.iter().partition(|param| param.optional);
    let (signature, lines) = arguments(model, &required);
    let (name, function) = (&operation.name, &operation.function);
    *text += &doc(&operation.doc, &format!("`{name}` of the remote API."));
    if optional.is_empty() {
        let _ = writeln!(
            text,
            "///\n/// # Errors\n/// Any [`ClientError`].\n\
             pub async fn {function}(&self{signature}) -> Result<{}, ClientError> {{\n\
             {lines}self.invoke({name:?}, params).await\n}}",
            returned(model, operation)
        );
        return;
    }
    let table: String = optional
        .iter()
        .map(|param| {
            let default = param.default.as_ref().map(ToString::to_string);
            format!("({:?}, {default:?}), ", param.name)
        })
        .collect();
    let builder = format!("calls::{}{}", class.name, capitalised(name));
    let _ = writeln!(
        text,
        "pub fn {function}(&self{signature}) -> {builder} {{\n\
         {lines}{builder}(Call::new(self, {name:?}, params, &[{table}]))\n}}"
    );
}

fn constructor(model: &Model, text: &mut String, class: &Class) {
    let name = &class.name;
    let function = format!("create_{}", snake(name));
    let required: Vec<_> =
        class.constructor.iter().skip(1).filter(|param| !param.optional).collect();
    let (signature, lines) = arguments(model, &required);
    let lines = lines.replace("let params", "let mut params");
    let parent = &class.constructor[0].name;
    let lines =
        format!("{lines}params.insert({parent:?}.to_owned(), Value::from(self.id().as_str()));\n");
    let _ = writeln!(text, "/// Creates a [`{name}`] here.");
    if is_built(class) {
        let _ = writeln!(
            text,
            "pub fn {function}(&self{signature}) -> calls::Create{name} {{\n\
             {lines}calls::Create{name}(Create::below(self, params))\n}}"
        );
    } else {
        let _ = writeln!(
            text,
            "///\n/// # Errors\n/// Any [`ClientError`].\n\
             pub async fn {function}(&self{signature}) -> Result<{name}, ClientError> {{\n\
             {lines}Create::below(self, params).run().await\n}}"
        );
    }
}

fn call(model: &Model, text: &mut String, class: &Class, operation: &Operation) {
    let name = format!("{}{}", class.name, capitalised(&operation.name));
    let what = format!("`{}` of [`{}`].", operation.name, class.name);
    let result = returned(model, operation);
    builder(model, text, &name, &what, "Call", &result, &operation.params);
}

fn creation(model: &Model, text: &mut String, class: &Class) {
    let name = format!("Create{}", class.name);
    let what = format!("The creation of a [`{}`].", class.name);
    builder(model, text, &name, &what, "Create", &class.name, &class.constructor);
}

fn builder(
    model: &Model,
    text: &mut String,
    name: &str,
    what: &str,
    inside: &str,
    result: &str,
    params: &[Param],
) {
    let _ = writeln!(
        text,
        "/// {what}\n#[derive(Clone, Debug)]\n#[must_use = \"nothing is sent before it is awaited\"]\n\
         pub struct {name}(pub(super) {inside}<{result}>);\nimpl {name} {{"
    );
    for param in params.iter().filter(|param| param.optional) {
        let function = snake(&param.name);
        let (kind, json) = sent(model, &param.kind, &function);
        let default = match &param.default {
            Some(default) => format!("; the server takes {default} without it"),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "/// Sets `{}`{default}.\npub fn {function}(mut self, {function}: {kind}) -> Self {{\n\
             self.0.set({:?}, {json});\nself\n}}",
            param.name, param.name
        );
    }
    let _ = writeln!(
        text,
        "}}\nimpl IntoFuture for {name} {{\ntype Output = Result<{result}, ClientError>;\n\
         type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;\n\
         fn into_future(self) -> Self::IntoFuture {{ Box::pin(self.0.run()) }}\n}}"
    );
}

/// What it says, with what the events it derives from say; not what all events do.
fn event_members<'a>(model: &'a Model, event: &'a Event) -> Vec<&'a Param> {
    let parent = |event: &&'a Event| {
        let name = event.extends.as_ref()?;
        model.events.iter().find(|known| known.name == *name && !known.is_abstract)
    };
    let lineage: Vec<_> = std::iter::successors(Some(event), parent).collect();
    lineage.into_iter().rev().flat_map(|event| &event.properties).collect()
}

fn event_type(model: &Model, text: &mut String, event: &Event) {
    let name = &event.name;
    let (mut fields, mut read) = (String::new(), String::new());
    for property in event_members(model, event) {
        let field = snake(&property.name);
        let kind = received(model, &property.kind);
        let (kind, take) = if property.optional {
            (format!("Option<{kind}>"), "take_optional")
        } else {
            (kind, "take")
        };
        let _ = writeln!(fields, "pub {field}: {kind},");
        let _ = writeln!(read, "{field}: members.{take}({:?}, link)?,", property.name);
    }
    let (members, link) = if read.is_empty() { ("_", "_") } else { ("members", "link") };
    let _ = writeln!(
        text,
        "{}#[derive(Clone, Debug, PartialEq)]\npub struct {name} {{\n{fields}}}\n\
         impl EventKind for {name} {{\nconst NAME: &'static str = {name:?};\n\
         fn decode({members}: &mut Members, {link}: &Arc<Link>) -> Result<Self, ClientError> {{\n\
         Ok(Self {{ {read} }})\n}}\n}}",
        doc(&event.doc, name)
    );
}
