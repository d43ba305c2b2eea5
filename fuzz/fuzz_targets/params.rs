//! Any JSON for any operation or constructor is refused, or turns into the arguments it takes.
//!
//! The first line names a class, and an operation after a blank; a line that names neither stands for
//! one of them all the same. What follows is the JSON.
#![no_main]

use rivero::model::value::{constructor_args, operation_args, typed};
use rivero::model::{Class, Method, RemoteError, class};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (line, json) = text.split_once('\n').unwrap_or((text, ""));
    let given = serde_json::from_str(json).ok();
    // Every class has an object: its id is the name of the class.
    let objects = |id: &str| class::find(id);
    let (fits, error) = match named(line) {
        (_, Some(method)) => match operation_args(method, given.as_ref(), &objects) {
            Ok(args) => (typed::operation(method, args), None),
            Err(error) => (true, Some(error)),
        },
        (class, None) => match constructor_args(class, given.as_ref(), &objects) {
            Ok(args) => (class.is_abstract || typed::constructor(class, args), None),
            Err(error) => (true, Some(error)),
        },
    };
    assert!(fits, "the arguments are not those that are taken");
    assert!(error.is_none_or(|error| is_known(&error)));
});

fn named(line: &str) -> (&'static Class, Option<&'static Method>) {
    let (class, operation) = line.split_once(' ').unwrap_or((line, ""));
    if let Some(class) = class::find(class) {
        return (class, class.method(operation));
    }
    let mut number =
        line.bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let class = class::CLASSES[number % class::CLASSES.len()];
    number /= class::CLASSES.len();
    (class, class.methods.get(number % (class.methods.len() + 1)))
}

fn is_known(error: &RemoteError) -> bool {
    [40001, 40003, 40101, 40107, 40109].contains(&error.code())
}
