//! From the name of an operation to the Rust method that carries it out.

use std::fmt::Write as _;
use std::path::Path;

use crate::descriptor::{Class, Owner};
use crate::model::Model;

/// `Body`, `create` and `invoke` of `pipeline::classes`.
pub fn dispatch(model: &Model) -> String {
    let bodies: Vec<_> = model
        .classes
        .iter()
        .filter(|class| model.creatable(class) && class.carried_out_by == Owner::Body)
        .collect();
    let path = |class: &Class| {
        let folder = model.folders[&class.name].to_string_lossy().replace('/', "::");
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
    for class in model.classes.iter().filter(|class| class.carried_out_by == Owner::Pipeline) {
        for operation in model.operations(class) {
            let _ = writeln!(
                text,
                "({:?}, {:?}) => reply::<{}>(call.{}({})),",
                class.name,
                operation.name,
                model.returned(&operation),
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
        for ancestor in model.lineage(class) {
            if ancestor.carried_out_by != Owner::Body {
                continue;
            }
            for operation in model.operations(ancestor) {
                let _ = writeln!(
                    arms,
                    "{:?} => reply::<{}>(body.{}(cx, {})),",
                    operation.name,
                    model.returned(&operation),
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
pub fn manager(model: &Model) -> String {
    let mut text = String::from(
        "/// Carries out an operation of the server manager.\n\
         pub async fn invoke(manager: &ServerManager, method: &'static Method, args: Args) -> Result<Value, RemoteError> {\n\
         let mut args = args.into_iter();\nmatch method.name {\n",
    );
    for class in model.lineage(model.class("ServerManager")) {
        for operation in model.operations(class) {
            let _ = writeln!(
                text,
                "{:?} => reply::<{}>(manager.{}({}).await),",
                operation.name,
                model.returned(&operation),
                operation.function,
                "FromArg::from_arg(args.next().flatten()), ".repeat(operation.params.len())
            );
        }
    }
    text + "_ => unreachable!(\"the table and this match are written from the same descriptors\"),\n}\n}\n"
}

/// `pub mod` lines for the folders of `src/<folder>` that hold a descriptor.
pub fn modules(model: &Model, root: &Path, folder: &str) -> String {
    let mut text = String::new();
    for (class, path) in &model.folders {
        if path.parent() == Some(Path::new(folder)) {
            let file = root.join("src").join(path).join("mod.rs");
            let name = path.file_name().expect("a folder").to_string_lossy();
            let _ = writeln!(text, "/// {class}\n#[path = {:?}]\npub mod {name};", file.display());
        }
    }
    text
}
