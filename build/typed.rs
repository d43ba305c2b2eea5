//! Every operation and constructor with the types that its arguments turn into, for tests of the
//! parser: what it accepts must fit, also where nothing carries the operation out yet.

use std::fmt::Write as _;

use crate::descriptor::Param;
use crate::model::Model;

/// `operation` and `constructor` of `model::value::typed`.
pub fn typed(model: &Model) -> String {
    let mut text = String::from(
        "/// Turns arguments into what the operation takes; false for one that nobody declares.\n\
         pub fn operation(method: &Method, args: Args) -> bool {\n\
         let mut args = args.into_iter();\nmatch (method.class, method.name) {\n",
    );
    for class in &model.classes {
        for operation in model.operations(class) {
            let taken = taken(model, &operation.params);
            let _ = writeln!(text, "({:?}, {:?}) => {{ {taken} }}", class.name, operation.name);
        }
    }
    text += "_ => return false,\n}\nargs.next().is_none()\n}\n\n\
             /// Turns arguments into what the constructor takes; false for no class.\n\
             pub fn constructor(class: &Class, args: Args) -> bool {\n\
             let mut args = args.into_iter();\nmatch class.name {\n";
    for class in model.classes.iter().filter(|class| !class.is_abstract) {
        let taken = taken(model, &class.constructor);
        let _ = writeln!(text, "{:?} => {{ {taken} }}", class.name);
    }
    text + "_ => return false,\n}\nargs.next().is_none()\n}\n"
}

fn taken(model: &Model, params: &[Param]) -> String {
    let mut text = String::new();
    for param in params {
        let kind = model.rust_type(&param.kind);
        if param.optional && param.default.is_none() {
            let _ = write!(text, "next::<Option<{kind}>>(&mut args); ");
        } else {
            let _ = write!(text, "next::<{kind}>(&mut args); ");
        }
    }
    text
}
