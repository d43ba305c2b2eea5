//! What all descriptors say together, and how it is called in Rust.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::descriptor::{Class, ComplexType, Event, File, Media, Method, Param};
use crate::names::{capitalised, constant, snake};

/// The version of the Kurento API that the descriptors describe. Clients compare it; it is not ours.
pub const API_VERSION: &str = "7.3.0";

/// All descriptors, in the order of their paths.
#[derive(Default)]
pub struct Model {
    pub classes: Vec<Class>,
    pub types: Vec<ComplexType>,
    pub events: Vec<Event>,
    /// Class → folder below `src` that holds its Rust file.
    pub folders: BTreeMap<String, PathBuf>,
    /// Names of types on the wire, where they are not the names they have here.
    wire: BTreeMap<String, String>,
}

impl Model {
    pub fn read(root: &Path) -> Self {
        let mut paths = Vec::new();
        find(&root.join("src"), &mut paths);
        paths.sort();
        let mut model = Self::default();
        for path in paths {
            let text = fs::read_to_string(&path).expect("a file just listed");
            let file: File = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let module = file.class.as_ref().map(|class| class.module.clone());
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
            model.events.extend(
                file.events.into_iter().map(|event| Event {
                    module: event.module.or_else(|| module.clone()),
                    ..event
                }),
            );
        }
        model.check_media();
        model.tell_types_apart();
        model
    }

    /// Who builds a class says how much of it works, and who does not says nothing.
    fn check_media(&self) {
        for class in &self.classes {
            let right = match (self.creatable(class), class.media) {
                (true, Some(Media::Whole)) | (false, None) => class.missing.is_none(),
                (true, Some(Media::Part)) => class.missing.is_some(),
                (true, None) | (false, Some(_)) => false,
            };
            assert!(right, "{}: `media` and `missing` do not fit", class.name);
        }
    }

    /// Types of two modules may have the same name: in here each is called by its module too, and
    /// so are the members and parameters that mean it.
    fn tell_types_apart(&mut self) {
        let mut seen = BTreeSet::new();
        let again: BTreeSet<String> = self
            .types
            .iter()
            .filter(|known| !seen.insert(known.name.clone()))
            .map(|known| known.name.clone())
            .collect();
        let own = |module: &str, kind: &mut String| {
            let bare = kind.trim_end_matches(['[', ']', '<', '>']);
            if again.contains(bare) {
                *kind = capitalised(module) + kind;
            }
        };
        for class in &mut self.classes {
            let module = &class.module;
            class.properties.iter_mut().for_each(|property| own(module, &mut property.kind));
            let params = class.methods.iter_mut().flat_map(|method| &mut method.params);
            params.chain(&mut class.constructor).for_each(|param| own(module, &mut param.kind));
            let returned = class.methods.iter_mut().filter_map(|method| method.returns.as_mut());
            returned.for_each(|kind| own(module, kind));
        }
        for event in &mut self.events {
            let module = event.module.as_deref().unwrap_or_default();
            event.properties.iter_mut().for_each(|member| own(module, &mut member.kind));
        }
        for known in &mut self.types {
            let module = &known.module;
            let members = known.properties.iter_mut().flatten();
            members.for_each(|member| own(module, &mut member.kind));
            if again.contains(&known.name) {
                self.wire.insert(capitalised(module) + &known.name, known.name.clone());
                known.name = capitalised(module) + &known.name;
            }
        }
    }

    /// A type's name as it stands on the wire.
    pub fn wire<'a>(&'a self, name: &'a str) -> &'a str {
        self.wire.get(name).map_or(name, String::as_str)
    }

    /// Whether something carries the class out, so that it can be created.
    pub fn creatable(&self, class: &Class) -> bool {
        self.folders.contains_key(&class.name)
    }

    /// The modules that are listed, with what can be created of each, sorted. Old clients refuse a
    /// server that lacks one of the first three; others are there when there is something in them.
    pub fn modules(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut modules: BTreeMap<&str, Vec<&str>> =
            ["core", "elements", "filters"].map(|name| (name, vec![])).into();
        for class in self.classes.iter().filter(|class| self.creatable(class)) {
            modules.entry(&class.module).or_default().push(&class.name);
        }
        modules.values_mut().for_each(|factories| factories.sort_unstable());
        modules
    }

    /// Whether the event derives from `Media`, so that its data repeats its name.
    pub fn is_media(&self, event: &Event) -> bool {
        match event.extends.as_deref() {
            None => false,
            Some("Media") => true,
            Some(parent) => {
                let parent = self.events.iter().find(|known| known.name == parent);
                self.is_media(parent.unwrap_or_else(|| panic!("no event for {}", event.name)))
            }
        }
    }

    pub fn class(&self, name: &str) -> &Class {
        let class = self.classes.iter().find(|class| class.name == name);
        class.unwrap_or_else(|| panic!("no descriptor of class {name}"))
    }

    pub fn complex(&self, name: &str) -> Option<&ComplexType> {
        self.types.iter().find(|known| known.name == name)
    }

    /// The class and its ancestors, nearest first.
    pub fn lineage<'a>(&'a self, class: &'a Class) -> Vec<&'a Class> {
        let parent = |class: &&'a Class| class.extends.as_ref().map(|name| self.class(name));
        std::iter::successors(Some(class), parent).collect()
    }

    /// Members of a register with its ancestors', ancestors' first; and the ancestors' names.
    pub fn members<'a>(&'a self, of: &'a ComplexType) -> (Vec<&'a Param>, Vec<&'a str>) {
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
    pub fn operations(&self, class: &Class) -> Vec<Operation> {
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
            if !property.read_only && !property.is_final {
                operations.push(Operation {
                    name: format!("set{capital}"),
                    function: format!("set_{}", snake(function)),
                    params: vec![Param {
                        name: property.name.clone(),
                        kind: property.kind.clone(),
                        optional: false,
                        default: None,
                        legacy: property.legacy,
                        own: false,
                        alias_of: None,
                        doc: property.doc.clone(),
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
    pub fn kind(&self, name: &str) -> String {
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
    pub fn rust_type(&self, name: &str) -> String {
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

    pub fn returned(&self, operation: &Operation) -> String {
        match operation.returns.as_deref() {
            None => "()".into(),
            // A pipeline has no parent and the manager no pipeline.
            Some("MediaObject" | "MediaPipeline") => "Option<crate::model::ObjectId>".into(),
            Some(kind) => self.rust_type(kind),
        }
    }
}

/// One name that `invoke` knows.
pub struct Operation {
    pub name: String,
    pub function: String,
    pub params: Vec<Param>,
    pub returns: Option<String>,
    pub is_setter: bool,
    pub doc: String,
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
                && folder.ancestors().any(|above| above.ends_with("model/classes")))
        {
            paths.push(path);
        }
    }
}
