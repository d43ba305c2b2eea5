//! The API counted: what the descriptors say, against a table of our own; every operation and event
//! of what can be created, over the wire; and the table of classes in the README.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Map, Value, json};

use crate::support::client::Client;
use crate::support::peer::server;

#[allow(dead_code, reason = "the build reads more of a descriptor than this test does")]
#[path = "../../src/model/descriptor.rs"]
mod descriptor;

use descriptor::{Class, ComplexType, Event, File, Media, Method, Param};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All descriptors.
#[derive(Default)]
struct Api {
    classes: BTreeMap<String, Class>,
    types: Vec<ComplexType>,
    events: Vec<Event>,
    /// Names of the classes that have a folder of their own.
    built: BTreeSet<String>,
}

/// An operation with its parameters, as `invoke` knows it.
struct Operation {
    name: String,
    /// The module of the class that declares it; its types are meant first.
    module: String,
    params: Vec<Param>,
    sets: bool,
}

impl Api {
    fn read() -> Self {
        let mut api = Self::default();
        let mut folders = vec![root().join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a readable folder") {
                let path = entry.expect("a readable entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "json") {
                    api.take(&path);
                }
            }
        }
        api
    }

    fn take(&mut self, path: &Path) {
        let text = fs::read_to_string(path).expect("a text");
        let file: File = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let module = file.class.as_ref().map(|class| class.module.clone());
        if let Some(class) = file.class {
            if path.ends_with("descriptor.json") && !class.is_abstract {
                self.built.insert(class.name.clone());
            }
            let twice = self.classes.insert(class.name.clone(), class);
            assert!(twice.is_none(), "{} describes a class again", path.display());
        }
        self.types.extend(file.types);
        self.events.extend(
            file.events
                .into_iter()
                .map(|event| Event { module: event.module.or(module.clone()), ..event }),
        );
    }

    /// The class and its ancestors, nearest first.
    fn lineage(&self, class: &str) -> Vec<&Class> {
        let mut found = vec![&self.classes[class]];
        while let Some(parent) = &found[found.len() - 1].extends {
            found.push(&self.classes[parent]);
        }
        found
    }

    /// What `invoke` takes for an object of that class.
    fn operations(&self, class: &str) -> Vec<Operation> {
        let mut operations = Vec::new();
        for class in self.lineage(class) {
            let module = &class.module;
            let add = |name, params, sets| Operation { name, module: module.clone(), params, sets };
            for method in &class.methods {
                let Method { name, params, .. } = method;
                operations.push(add(name.clone(), params.clone(), false));
            }
            for property in &class.properties {
                let name = property.name[..1].to_uppercase() + &property.name[1..];
                operations.push(add(format!("get{name}"), vec![], false));
                if !property.read_only && !property.is_final {
                    let param = json!({"name": property.name, "type": property.kind});
                    let param = serde_json::from_value(param).expect("a parameter");
                    operations.push(add(format!("set{name}"), vec![param], true));
                }
            }
        }
        operations
    }

    /// The names that an object of that class raises events under, those of 6.x among them.
    fn events(&self, class: &str) -> BTreeSet<&str> {
        let names: BTreeSet<_> =
            self.lineage(class).iter().flat_map(|class| &class.events).collect();
        let events = self.events.iter().filter(|event| names.contains(&event.name));
        events
            .flat_map(|event| event.legacy.iter().chain([&event.name]))
            .map(String::as_str)
            .collect()
    }

    fn complex(&self, name: &str, module: &str) -> Option<&ComplexType> {
        let of = |module: &str| {
            self.types.iter().find(|known| known.name == name && known.module == module)
        };
        of(module).or_else(|| self.types.iter().find(|known| known.name == name))
    }

    /// The word for a type in the text of an error, and a value that never passes for it.
    fn wrong(&self, kind: &str, module: &str) -> (&'static str, Value) {
        match kind {
            _ if kind.ends_with("[]") => ("list", json!(5)),
            _ if kind.ends_with("<>") => ("map", json!(5)),
            "String" => ("string", json!({})),
            "int" => ("integer", json!("5")),
            "int64" => ("int64", json!("5")),
            "boolean" => ("boolean", json!("true")),
            "float" | "double" => ("double", json!("1.5")),
            _ => match self.complex(kind, module) {
                Some(known) if known.values.is_none() => ("object", json!(5)),
                _ => ("string", json!([])),
            },
        }
    }

    /// A value that passes; `objects` has one object for each class that one may be needed of.
    fn right(&self, kind: &str, module: &str, objects: &BTreeMap<&str, String>) -> Value {
        match kind {
            _ if kind.ends_with("[]") => json!([]),
            _ if kind.ends_with("<>") => json!({}),
            "String" => json!("file:///nothing"),
            "int" | "int64" => json!(1),
            "boolean" => json!(false),
            "float" | "double" => json!(0.5),
            _ => match self.complex(kind, module) {
                Some(ComplexType { values: Some(values), .. }) => json!(values[0]),
                Some(register) => {
                    let members = register.properties.iter().flatten();
                    let members = members.filter(|member| !member.optional);
                    members
                        .map(|member| {
                            (
                                member.name.clone(),
                                self.right(&member.kind, &register.module, objects),
                            )
                        })
                        .collect::<Map<_, _>>()
                        .into()
                }
                None => {
                    let object = objects
                        .iter()
                        .find(|(class, _)| self.lineage(class).iter().any(|of| of.name == kind));
                    json!(object.unwrap_or_else(|| panic!("no object for {kind}")).1)
                }
            },
        }
    }
}

fn qualified(module: &str, name: &str) -> String {
    match module {
        "core" | "elements" | "filters" => format!("kurento.{name}"),
        other => format!("{other}.{name}"),
    }
}

fn member(param: &Param) -> String {
    let mut text =
        format!("{}{}: {}", param.name, if param.optional { "?" } else { "" }, param.kind);
    if let Some(value) = &param.default {
        let _ = write!(text, " = {value}");
    }
    if let Some(other) = &param.alias_of {
        let _ = write!(text, " (as {other})");
    } else if param.legacy {
        text += " (6.x)";
    } else if param.own {
        text += " (own)";
    }
    text
}

fn members(params: &[Param]) -> String {
    params.iter().map(member).collect::<Vec<_>>().join(", ")
}

/// One line for each thing that the API has.
fn lines(api: &Api) -> Vec<String> {
    let mut lines = Vec::new();
    for class in api.classes.values() {
        let name = qualified(&class.module, &class.name);
        let extends = class.extends.as_ref().map(|parent| format!(" extends {parent}"));
        let kind = if class.is_abstract { "abstract class" } else { "class" };
        lines.push(format!("class {name}: {kind}{}", extends.unwrap_or_default()));
        for (at, param) in class.constructor.iter().enumerate() {
            lines.push(format!("constructor {name} {at} {}", member(param)));
        }
        for property in &class.properties {
            let mut line = format!("property {name}.{}: {}", property.name, property.kind);
            for (holds, word) in [(property.read_only, " read-only"), (property.is_final, " final")]
            {
                if holds {
                    line += word;
                }
            }
            if let Some(value) = &property.default {
                let _ = write!(line, " = {value}");
            }
            if let Some(other) = &property.alias_of {
                let _ = write!(line, " (as {other})");
            } else if property.legacy {
                line += " (6.x)";
            }
            lines.push(line);
        }
        for method in &class.methods {
            let returns = method.returns.as_ref().map(|kind| format!(" -> {kind}"));
            let legacy = if method.legacy { " (6.x)" } else { "" };
            lines.push(format!(
                "method {name}.{}({}){}{legacy}",
                method.name,
                members(&method.params),
                returns.unwrap_or_default()
            ));
        }
        lines.extend(class.events.iter().map(|event| format!("raises {name} {event}")));
    }
    for known in &api.types {
        let name = qualified(&known.module, &known.name);
        lines.push(match &known.values {
            Some(values) => format!("enum {name}: {}", values.join(" ")),
            None => {
                let extends = known.extends.as_ref().map(|parent| format!(" extends {parent}"));
                let members = members(known.properties.as_deref().unwrap_or_default());
                format!("register {name}{}: {members}", extends.unwrap_or_default())
            }
        });
    }
    for event in &api.events {
        let module = event.module.as_deref().expect("said, or the class's");
        let extends = event.extends.as_ref().map(|parent| format!(" extends {parent}"));
        let mut line = format!(
            "event {}{}:{}{}",
            qualified(module, &event.name),
            extends.unwrap_or_default(),
            if event.properties.is_empty() { "" } else { " " },
            members(&event.properties)
        );
        if !event.legacy.is_empty() {
            let _ = write!(line, " (6.x: {})", event.legacy.join(" "));
        }
        lines.push(line);
    }
    lines.sort();
    lines
}

/// Compares with a text that is kept, or writes it when `UPDATE_GOLDEN` is set.
fn check_kept(path: PathBuf, kept: &str, expected: &str, write: impl FnOnce(&Path)) {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        write(&path);
    } else {
        assert_eq!(kept, expected, "{}: UPDATE_GOLDEN=1 writes it anew", path.display());
    }
}

#[test]
fn the_descriptors_say_what_the_table_of_the_api_says() {
    let api = Api::read();
    let text = lines(&api).join("\n") + "\n";
    let path = root().join("tests/golden/api.txt");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    check_kept(path, &kept, &text, |path| fs::write(path, &text).expect("a writable file"));
}

#[test]
fn the_api_has_as_many_classes_types_and_events_as_the_original() {
    let api = Api::read();
    assert_eq!((api.classes.len(), api.types.len(), api.events.len()), (41, 63, 36));
}

#[test]
fn everything_is_documented() {
    let api = Api::read();
    let mut silent = Vec::new();
    for class in api.classes.values() {
        let properties = class.properties.iter().map(|of| (&of.name, &of.doc));
        let methods = class.methods.iter().map(|of| (&of.name, &of.doc));
        let all = properties.chain(methods).chain([(&class.name, &class.doc)]);
        silent.extend(all.filter(|(_, doc)| doc.is_empty()).map(|(name, _)| (&class.name, name)));
    }
    let types = api.types.iter().map(|of| (&of.name, &of.doc));
    let events = api.events.iter().map(|of| (&of.name, &of.doc));
    let both = types.chain(events);
    silent.extend(both.filter(|(_, doc)| doc.is_empty()).map(|(name, _)| (name, name)));
    assert!(silent.is_empty(), "{silent:?}");
}

/// Where the table of classes stands in the README.
const BEGIN: &str = "<!-- table of classes: begin -->\n";
const END: &str = "<!-- table of classes: end -->\n";

/// The classes that can be created, in one server or another.
fn table_of_classes(api: &Api) -> String {
    let mut classes: Vec<_> = api.classes.values().filter(|class| !class.is_abstract).collect();
    let floor = |class: &Class| {
        let first = ["core", "elements", "filters"];
        first.iter().position(|module| class.module == *module).unwrap_or(first.len())
    };
    classes.sort_by_key(|class| (floor(class), class.module.clone(), class.name.clone()));
    let mut text = String::from(
        "| class | module | can be created | media works |\n| --- | --- | --- | --- |\n",
    );
    for class in classes {
        let (created, works) = match (class.media, &class.missing) {
            (Some(Media::Whole), _) => ("yes", "yes".to_owned()),
            (Some(Media::Part), Some(missing)) => ("yes", format!("in part; not yet: {missing}")),
            _ => ("no, only described", "no".to_owned()),
        };
        let _ = writeln!(text, "| `{}` | {} | {created} | {works} |", class.name, class.module);
    }
    text
}

#[test]
fn the_readme_says_which_classes_work() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("a mark where the table begins");
    let (kept, after) = rest.split_once(END).expect("a mark where the table ends");
    let table = table_of_classes(&Api::read());
    check_kept(path, kept, &table, |path| {
        let readme = format!("{before}{BEGIN}{table}{END}{after}");
        fs::write(path, readme).expect("a writable README");
    });
}

/// An object of every class that can be created, and of those that others need, by class.
async fn one_of_each(api: &Api, client: &mut Client) -> BTreeMap<&'static str, String> {
    let mut objects = BTreeMap::from([("ServerManager", "manager_ServerManager".to_owned())]);
    let pipeline = client.create("MediaPipeline", json!({})).await;
    objects.insert("MediaPipeline", pipeline);
    // Parents before children: hubs before their ports.
    let mut names: Vec<_> = api.built.iter().collect();
    names.sort_by_key(|name| *name == "HubPort");
    for name in names {
        if objects.contains_key(name.as_str()) {
            continue;
        }
        let class = &api.classes[name];
        let mut params = Map::new();
        for param in class.constructor.iter().filter(|param| !param.optional) {
            let value = api.right(&param.kind, &class.module, &objects);
            params.insert(param.name.clone(), value);
        }
        let object = client.create(name, params.into()).await;
        objects.insert(name.clone().leak(), object);
    }
    objects
}

#[tokio::test]
async fn every_operation_of_what_can_be_created_is_reached_as_its_descriptor_says() {
    let api = Api::read();
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let objects = one_of_each(&api, &mut client).await;
    let mut reached = 0;
    for (class, object) in &objects {
        for operation in api.operations(class) {
            let Operation { name, module, params, sets } = &operation;
            let call = |given: Option<Value>| {
                let mut call = json!({"object": object, "operation": name});
                if let Some(given) = given {
                    call["operationParams"] = given;
                }
                call
            };
            // Without any parameters.
            let required = params.iter().find(|param| !param.optional);
            match required {
                Some(param) => {
                    let expected = if *sets {
                        let (word, _) = api.wrong(&param.kind, module);
                        format!("'{}' parameter should be a {word}", param.name)
                    } else {
                        "'operationParams' is required".to_owned()
                    };
                    assert_eq!(
                        client.fail("invoke", call(None)).await,
                        (40001, expected),
                        "{class}.{name}"
                    );
                }
                None => {
                    let reply = client.request("invoke", call(None)).await;
                    let text = reply["error"]["message"].as_str().unwrap_or_default();
                    assert!(!text.starts_with("Method "), "{class}.{name}: {text}");
                }
            }
            // With each parameter of a wrong type, after right ones.
            let mut given = Map::new();
            for param in params {
                let (word, wrong) = api.wrong(&param.kind, module);
                let mut with = given.clone();
                with.insert(param.name.clone(), wrong);
                // Parameters that must be given are looked at in order, so those after it may lack.
                assert_eq!(
                    client.fail("invoke", call(Some(with.into()))).await,
                    (40001, format!("'{}' parameter should be a {word}", param.name)),
                    "{class}.{name}"
                );
                given.insert(param.name.clone(), api.right(&param.kind, module, &objects));
            }
            reached += 1;
        }
        for unknown in ["getNothing", "setId", "setParent", "getname", "connect2", ""] {
            let call = json!({"object": object, "operation": unknown});
            let expected = format!("Method '{unknown}' with 0 parameters not found");
            assert_eq!(client.fail("invoke", call).await, (40008, expected), "{class}");
        }
    }
    assert!(reached > 100, "{reached} operations");
    server.stop().await;
}

#[tokio::test]
async fn every_event_of_what_can_be_created_can_be_subscribed_to_and_no_other() {
    let api = Api::read();
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let objects = one_of_each(&api, &mut client).await;
    let all = api.events.iter().flat_map(|event| event.legacy.iter().chain([&event.name]));
    let all: BTreeSet<_> = all.map(String::as_str).chain(["Nothing", ""]).collect();
    for (class, object) in &objects {
        let own = api.events(class);
        assert!(own.is_subset(&all) && own.contains("Error"), "{class}: {own:?}");
        for event in &all {
            if own.contains(event) {
                assert!(!client.subscribe(object, event).await.is_empty());
            } else {
                let params = json!({"object": object, "type": event});
                let expected = (40106, format!("Event '{event}' not supported"));
                assert_eq!(client.fail("subscribe", params).await, expected, "{class}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_nothing_carries_out_is_no_factory() {
    let api = Api::read();
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let info = client.invoke("manager_ServerManager", "getInfo", json!({})).await;
    let mut listed = BTreeSet::new();
    for module in info["modules"].as_array().expect("a list") {
        let factories = module["factories"].as_array().expect("a list");
        for factory in factories.iter().map(|name| name.as_str().expect("a name")) {
            assert_eq!(api.classes[factory].module, module["name"].as_str().expect("a name"));
            listed.insert(factory.to_owned());
        }
    }
    assert_eq!(listed, api.built);
    for class in api.classes.values().filter(|class| !api.built.contains(&class.name)) {
        for name in [class.name.clone(), qualified(&class.module, &class.name)] {
            let expected = (40108, format!("Factory '{name}' not found"));
            assert_eq!(client.fail("create", json!({"type": name})).await, expected);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn get_kmd_tells_of_a_listed_module_all_that_is_not_for_old_clients_alone() {
    let api = Api::read();
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let manager = "manager_ServerManager";
    let info = client.invoke(manager, "getInfo", json!({})).await;
    let listed = info["modules"].as_array().expect("a list").iter();
    let listed: BTreeSet<_> =
        listed.map(|module| module["name"].as_str().expect("a name")).collect();
    for module in api.classes.values().map(|class| class.module.as_str()).collect::<BTreeSet<_>>() {
        let params = json!({"moduleName": module});
        if !listed.contains(module) {
            let call = json!({"object": manager, "operation": "getKmd", "operationParams": params});
            let expected = (40500, "Requested kmd module doesn't exist".to_owned());
            assert_eq!(client.fail("invoke", call).await, expected, "{module}");
            continue;
        }
        let kmd = client.invoke(manager, "getKmd", params).await;
        let kmd: Value = serde_json::from_str(kmd.as_str().expect("a text")).expect("JSON");
        assert_eq!((&kmd["name"], &kmd["version"]), (&json!(module), &json!("7.3.0")));
        let names = |of: &Value| -> BTreeSet<String> {
            let of = of.as_array().expect("a list").iter();
            of.map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
        };
        let classes = api.classes.values().filter(|class| class.module == module);
        assert_eq!(names(&kmd["remoteClasses"]), classes.map(|of| of.name.clone()).collect());
        let types = api.types.iter().filter(|known| known.module == module);
        assert_eq!(names(&kmd["complexTypes"]), types.map(|of| of.name.clone()).collect());
        let events = api.events.iter().filter(|event| event.module.as_deref() == Some(module));
        assert_eq!(names(&kmd["events"]), events.map(|of| of.name.clone()).collect());
        for shown in kmd["remoteClasses"].as_array().expect("a list") {
            let class = &api.classes[shown["name"].as_str().expect("a name")];
            let properties = class.properties.iter().filter(|property| !property.legacy);
            let properties = properties.map(|property| property.name.clone()).collect();
            assert_eq!(names(&shown["properties"]), properties, "{}", class.name);
            let methods = class.methods.iter().filter(|method| !method.legacy);
            let methods: Vec<_> = methods.collect();
            for (method, shown) in methods.iter().zip(shown["methods"].as_array().expect("a list"))
            {
                assert_eq!(shown["name"], json!(method.name));
                assert_eq!(shown["return"]["type"], json!(method.returns), "{}", method.name);
                let params = shown["params"].as_array().expect("a list");
                assert_eq!(params.len(), method.params.len(), "{}", method.name);
                for (param, shown) in method.params.iter().zip(params) {
                    assert_eq!(shown["name"], json!(param.name));
                    assert_eq!(shown["type"], json!(param.kind));
                    assert_eq!(shown["optional"].as_bool().unwrap_or(false), param.optional);
                    assert_eq!(shown.get("defaultValue"), param.default.as_ref());
                }
            }
            assert_eq!(shown["methods"].as_array().map(Vec::len), Some(methods.len()));
            assert_eq!(shown["events"], json!(class.events));
            assert_eq!(shown.get("constructor").is_none(), class.is_abstract);
            assert_eq!(shown["extends"], json!(class.extends));
        }
    }
    server.stop().await;
}
