//! Whatever a server says, a client goes on: each line is a message of the server, in which `@` is
//! the id of the client's latest request.
#![no_main]

use std::time::{Duration, Instant};

use rivero::client::Options;
use rivero::client::machine::{Input, Machine, Output};
use rivero::client::message::{Incoming, Unreadable, no_such_method, read};
use serde_json::Value;

const LIMIT: usize = 1_000;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match read(text, LIMIT) {
        Ok(Incoming::Request { id, .. }) => {
            let answer: Value = serde_json::from_str(&no_such_method(&id)).expect("JSON");
            assert_eq!(answer["id"], id);
        }
        Err(Unreadable::TooLong) => assert!(text.len() > LIMIT),
        _ => {}
    }

    let mut now = Instant::now();
    let mut machine = Machine::<()>::new(now, Options::default(), 1);
    let mut latest = String::new();
    let (mut asked, mut answered) = (0, 0);
    machine.handle_input(now, Input::Open);
    for line in text.lines() {
        machine.handle_input(now, Input::Text(line.replace('@', &latest)));
        asked += 1;
        let (method, params) = ("m".to_owned(), Value::Null);
        machine.handle_input(
            now,
            Input::Request { to: Some(()), late: None, method, params, timeout: None },
        );
        now += Duration::from_millis(100);
        if machine.poll_timeout().is_some_and(|at| at <= now) {
            machine.handle_input(now, Input::Timeout);
        }
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Send(text) => {
                    let sent: Value = serde_json::from_str(&text).expect("JSON");
                    if sent["method"].is_string() {
                        latest = sent["id"].to_string();
                    }
                }
                Output::Dial => machine.handle_input(now, Input::Open),
                Output::Answer(..) => answered += 1,
                _ => {}
            }
        }
    }
    machine.handle_input(now, Input::Close { session: false });
    while let Some(output) = machine.poll_output() {
        answered += usize::from(matches!(output, Output::Answer(..)));
    }
    assert_eq!(asked, answered);
});
