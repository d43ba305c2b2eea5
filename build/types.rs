//! The Rust types of `model::types`: enums, registers and events.

use std::fmt::Write as _;

use crate::descriptor::ComplexType;
use crate::model::Model;
use crate::names::{constant, namespace, snake, variant};

/// The Rust types of `model::types`.
pub fn types(model: &Model) -> String {
    let mut text = String::new();
    for known in &model.types {
        match &known.values {
            Some(values) => enumeration(&mut text, known, values),
            None => register(model, &mut text, known),
        }
    }
    text += "/// What events say beyond what all events say.\npub mod event {\nuse super::*;\n";
    for event in model.events.iter().filter(|event| !event.is_abstract) {
        let _ = writeln!(
            text,
            "/// {}\n#[derive(Clone, Debug)]\npub struct {} {{",
            event.doc, event.name
        );
        let mut members = String::new();
        for property in &event.properties {
            let field = snake(&property.name);
            let _ = writeln!(text, "pub {field}: {},", model.rust_type(&property.kind));
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

fn enumeration(text: &mut String, known: &ComplexType, values: &[String]) {
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

fn register(model: &Model, text: &mut String, known: &ComplexType) {
    let name = &known.name;
    let (members, _) = model.members(known);
    let (mut fields, mut read) = (String::new(), String::new());
    let (mut aliases, mut written) = (String::new(), String::new());
    for member in members {
        if let Some(other) = &member.alias_of {
            let _ = writeln!(
                aliases,
                "let value = members[{other:?}].clone();\nmembers.insert({:?}.to_owned(), value);",
                member.name
            );
            continue;
        }
        let field = snake(&member.name);
        let kind = model.rust_type(&member.kind);
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
         members.insert(\"__type__\".to_owned(), Value::from({:?}));\n{written}{aliases}members\n}}\n}}\n\
         impl IntoValue for {name} {{\nfn into_value(self) -> Value {{ Value::Object(self.into_members()) }}\n}}",
        if known.doc.is_empty() { name } else { &known.doc },
        namespace(&known.module),
        model.wire(name)
    );
}
