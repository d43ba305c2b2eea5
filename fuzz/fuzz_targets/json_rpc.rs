//! Any text is a request or an error, and what is answered is one line of ASCII.
#![no_main]

use rivero::jsonrpc::message::{Limits, Params, parse, reply};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let answer = match parse(text, &Limits::default()) {
        Ok(request) => match request.params {
            Params::Members(members) => reply(request.id, Ok(members.into())),
            _ => reply(request.id, Ok(request.method.into())),
        },
        Err((id, error)) => reply(id, Err(error)),
    };
    assert!(answer.is_none_or(|line| line.is_ascii() && !line.contains('\n')));
});
