//! The tables of `model::class`: what the server knows of its classes at run time.

use std::fmt::Write as _;

use serde_json::Value;

use crate::descriptor::Param;
use crate::model::{API_VERSION, Model};
use crate::names::{constant, namespace};

/// The tables of `model::class`.
pub fn tables(model: &Model) -> String {
    let mut text = format!(
        "/// The version of the Kurento API that is spoken here. Clients compare it; it is not our own.\n\
         pub const API_VERSION: &str = {API_VERSION:?};\n"
    );
    for known in &model.types {
        if let Some(values) = &known.values {
            let _ = writeln!(
                text,
                "pub static {}: Enum = Enum {{ name: {:?}, values: &{values:?} }};",
                constant("ENUM", &known.name),
                model.wire(&known.name)
            );
        } else {
            let (mut members, ancestors) = model.members(known);
            members.retain(|member| member.alias_of.is_none());
            let _ = writeln!(
                text,
                "pub static {}: Register = Register {{ name: {:?}, namespace: {:?}, \
                 ancestors: &{ancestors:?}, members: {} }};",
                constant("REGISTER", &known.name),
                model.wire(&known.name),
                namespace(&known.module),
                params(model, &members)
            );
        }
    }
    for event in model.events.iter().filter(|event| !event.is_abstract) {
        let _ = writeln!(
            text,
            "pub static {}: EventClass = EventClass {{ name: {:?}, legacy: &{:?}, media: {} }};",
            constant("EVENT", &event.name),
            event.name,
            event.legacy,
            model.is_media(event)
        );
    }
    for class in &model.classes {
        let mut methods = String::new();
        for operation in model.operations(class) {
            let _ = write!(
                methods,
                "Method {{ class: {:?}, name: {:?}, params: {}, is_setter: {}, doc: {:?} }}, ",
                class.name,
                operation.name,
                params(model, &operation.params.iter().collect::<Vec<_>>()),
                operation.is_setter,
                operation.doc
            );
        }
        let events: Vec<_> =
            class.events.iter().map(|name| format!("&{}", constant("EVENT", name))).collect();
        let extends = class.extends.as_ref().map(|name| format!("&{}", constant("CLASS", name)));
        let _ = writeln!(
            text,
            "pub static {}: Class = Class {{ name: {:?}, qualified: {:?}, module: {:?}, \
             extends: {}, is_abstract: {}, creatable: {}, constructor: {}, methods: &[{methods}], \
             events: &[{}], doc: {:?} }};",
            constant("CLASS", &class.name),
            class.name,
            format!("{}.{}", namespace(&class.module), class.name),
            class.module,
            extends.map_or("None".into(), |name| format!("Some({name})")),
            class.is_abstract,
            model.creatable(class),
            params(model, &class.constructor.iter().collect::<Vec<_>>()),
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
    let classes = list("CLASS", model.classes.iter().map(|class| class.name.as_str()).collect());
    let registers = model.types.iter().filter(|known| known.values.is_none());
    let registers = list("REGISTER", registers.map(|known| known.name.as_str()).collect());
    let _ = writeln!(text, "/// All classes.\npub static CLASSES: &[&Class] = &[{classes}];");
    let _ =
        writeln!(text, "/// All registers.\npub static REGISTERS: &[&Register] = &[{registers}];");
    text += "/// All modules that are listed, with what can be created of them.\npub static MODULES: &[Module] = &[";
    for (name, factories) in model.modules() {
        let _ = write!(text, "Module {{ name: {name:?}, factories: &{factories:?} }}, ");
    }
    text + "];\n"
}

fn params(model: &Model, params: &[&Param]) -> String {
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
            model.kind(&param.kind),
            param.optional
        );
    }
    text + "]"
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
