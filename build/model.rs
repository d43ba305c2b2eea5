//! What all descriptors say together, and how it is called in Rust.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::descriptor::{Class, ComplexType, Event, File, Method, Param};
use crate::names::{capitalised, constant, snake};

/// All descriptors, in the order of their paths.
pub struct Model {
    pub classes: Vec<Class>,
    pub types: Vec<ComplexType>,
    pub events: Vec<Event>,
    /// Class → folder below `src` that holds its Rust file.
    pub folders: BTreeMap<String, PathBuf>,
}

impl Model {
    pub fn read(root: &Path) -> Self {
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
                && folder.ends_with("model/classes"))
        {
            paths.push(path);
        }
    }
}
