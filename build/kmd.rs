//! What `getKmd` answers: a module's descriptors as one JSON text, in the shape of the original's
//! `kmd.json`, so that tools can make clients from it.
//!
//! Names for clients of 6.x are left out, as the original left them out with version 7; so is the
//! member `code`, which says where the original's own sources belong.

use serde_json::{Map, Value, json};

use crate::descriptor::{Class, ComplexType, Event, Param, Property};
use crate::model::{API_VERSION, Model};

/// `KMD` of `rpc::server_manager`.
pub fn kmd(model: &Model) -> String {
    let modules: Vec<_> = model
        .modules()
        .into_keys()
        .map(|name| format!("({name:?}, {:?})", module(model, name).to_string()))
        .collect();
    format!(
        "/// The listed modules, each with its description.\n\
         pub static KMD: &[(&str, &str)] = &[{}];\n",
        modules.join(", ")
    )
}

fn module(model: &Model, name: &str) -> Value {
    let classes = model.classes.iter().filter(|class| class.module == name);
    let types = model.types.iter().filter(|known| known.module == name);
    let events = model.events.iter().filter(|event| event.module.as_deref() == Some(name));
    json!({
        "name": name,
        "version": API_VERSION,
        "kurentoVersion": if name == "core" { API_VERSION.to_owned() } else { range() },
        "imports": imports(name),
        "remoteClasses": classes.map(|class| remote_class(model, class)).collect::<Vec<_>>(),
        "complexTypes": types.map(|known| complex_type(model, known)).collect::<Vec<_>>(),
        "events": events.map(|event| event_type(model, event)).collect::<Vec<_>>(),
    })
}

/// The modules whose names a module may use.
fn imports(module: &str) -> Vec<Value> {
    let below: &[&str] = match module {
        "core" => &[],
        "elements" => &["core"],
        "filters" => &["core", "elements"],
        _ => &["core", "elements", "filters"],
    };
    let major: u32 = API_VERSION
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a version begins with a number");
    let import = |name: &&str| {
        json!({
            "name": name,
            "version": range(),
            "mavenVersion": format!("[{API_VERSION},{}.0.0-SNAPSHOT)", major + 1),
            "npmVersion": format!(">={API_VERSION} <{}.0.0", major + 1),
        })
    };
    below.iter().map(import).collect()
}

/// This version and all later ones that fit it.
fn range() -> String {
    format!("^{API_VERSION}")
}

fn remote_class(model: &Model, class: &Class) -> Value {
    let mut shown = named(&class.name, &class.doc);
    if let Some(parent) = &class.extends {
        shown.insert("extends".to_owned(), Value::from(parent.as_str()));
    }
    if class.is_abstract {
        shown.insert("abstract".to_owned(), Value::from(true));
    } else {
        let doc = format!("Creates an object of class {}.", class.name);
        let constructor = json!({"doc": doc, "params": members(model, &class.constructor)});
        shown.insert("constructor".to_owned(), constructor);
    }
    let properties = class.properties.iter().filter(|property| !property.legacy);
    let properties: Vec<_> = properties.map(|of| property(model, of)).collect();
    shown.insert("properties".to_owned(), Value::from(properties));
    let methods = class.methods.iter().filter(|method| !method.legacy).map(|method| {
        let mut shown = named(&method.name, &method.doc);
        shown.insert("params".to_owned(), members(model, &method.params));
        if let Some(kind) = &method.returns {
            let returned = json!({"type": wire(model, kind), "doc": method.doc});
            shown.insert("return".to_owned(), returned);
        }
        Value::Object(shown)
    });
    shown.insert("methods".to_owned(), methods.collect());
    shown.insert("events".to_owned(), Value::from(class.events.clone()));
    Value::Object(shown)
}

fn property(model: &Model, property: &Property) -> Value {
    let mut shown = named(&property.name, &property.doc);
    shown.insert("type".to_owned(), Value::from(wire(model, &property.kind)));
    for (name, holds) in [("final", property.is_final), ("readOnly", property.read_only)] {
        if holds {
            shown.insert(name.to_owned(), Value::from(true));
        }
    }
    if let Some(value) = &property.default {
        shown.insert("defaultValue".to_owned(), value.clone());
    }
    Value::Object(shown)
}

fn complex_type(model: &Model, known: &ComplexType) -> Value {
    let mut shown = named(model.wire(&known.name), &known.doc);
    if let Some(parent) = &known.extends {
        shown.insert("extends".to_owned(), Value::from(parent.as_str()));
    }
    let (format, name, content) = match (&known.values, &known.properties) {
        (Some(values), _) => ("ENUM", "values", Value::from(values.clone())),
        (None, properties) => {
            let properties = properties.as_deref().unwrap_or_default();
            ("REGISTER", "properties", members(model, properties))
        }
    };
    shown.insert("typeFormat".to_owned(), Value::from(format));
    shown.insert(name.to_owned(), content);
    Value::Object(shown)
}

fn event_type(model: &Model, event: &Event) -> Value {
    let mut shown = named(&event.name, &event.doc);
    if let Some(parent) = &event.extends {
        shown.insert("extends".to_owned(), Value::from(parent.as_str()));
    }
    shown.insert("properties".to_owned(), members(model, &event.properties));
    Value::Object(shown)
}

fn members(model: &Model, params: &[Param]) -> Value {
    let shown = params.iter().filter(|param| !param.legacy && !param.own).map(|param| {
        let mut shown = named(&param.name, &param.doc);
        shown.insert("type".to_owned(), Value::from(wire(model, &param.kind)));
        if param.optional {
            shown.insert("optional".to_owned(), Value::from(true));
        }
        if let Some(value) = &param.default {
            shown.insert("defaultValue".to_owned(), value.clone());
        }
        Value::Object(shown)
    });
    shown.collect()
}

fn named(name: &str, doc: &str) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("name".to_owned(), Value::from(name));
    if !doc.is_empty() {
        shown.insert("doc".to_owned(), Value::from(doc));
    }
    shown
}

/// The word for a type, with what it is a list or a map of.
fn wire(model: &Model, kind: &str) -> String {
    let bare = kind.trim_end_matches(['[', ']', '<', '>']);
    model.wire(bare).to_owned() + &kind[bare.len()..]
}
