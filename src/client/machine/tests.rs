//! A client's life on a simulated clock, against a server that is a few lines of a test.

use super::*;
use crate::client::options::Reconnect;

const SEED: u64 = 7;

/// A machine, and a server that answers what the test lets it answer.
struct World {
    start: Instant,
    now: Instant,
    machine: Machine<u32>,
    /// What was sent over the connection that is open, and not looked at yet.
    sent: VecDeque<Value>,
    answers: Vec<(u32, Result<Value, ClientError>)>,
    told: Vec<ConnectionEvent>,
    notified: Vec<Notification>,
    started: Option<Result<(), ClientError>>,
    /// Milliseconds at which it dialled.
    dialled: Vec<u128>,
    dropped: u32,
    ended: bool,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn quiet() -> Options {
    Options { heartbeat: None, ..Options::default() }
}

impl World {
    fn new(options: Options, seed: u64) -> Self {
        let start = crate::clock::Clock::start().now();
        let mut world = Self {
            start,
            now: start,
            machine: Machine::new(start, options, seed),
            sent: VecDeque::new(),
            answers: vec![],
            told: vec![],
            notified: vec![],
            started: None,
            dialled: vec![],
            dropped: 0,
            ended: false,
        };
        world.look();
        world
    }

    /// Connected, with `connect` answered.
    fn connected(options: Options) -> Self {
        let mut world = Self::new(options, SEED);
        world.open("session", "server");
        assert_eq!(world.started, Some(Ok(())));
        world
    }

    fn look(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            let answer = matches!(output, Output::Answer(..));
            assert!(!self.ended || answer, "{output:?} after the end");
            match output {
                Output::Dial => {
                    self.sent.clear();
                    self.dialled.push(self.now.duration_since(self.start).as_millis());
                }
                Output::Send(text) => {
                    self.sent.push_back(serde_json::from_str(&text).expect("JSON"));
                }
                Output::Drop => self.dropped += 1,
                Output::Answer(to, result) => self.answers.push((to, result)),
                Output::Started(result) => self.started = Some(result),
                Output::Tell(event) => self.told.push(event),
                Output::Notify(notification) => self.notified.push(notification),
                Output::End => self.ended = true,
            }
        }
    }

    fn input(&mut self, input: Input<u32>) {
        self.machine.handle_input(self.now, input);
        self.look();
    }

    /// The socket opens and the server welcomes the client.
    fn open(&mut self, session: &str, server: &str) {
        self.input(Input::Open);
        self.answer("connect", json!({"sessionId": session, "serverId": server}));
    }

    /// The next request that was sent must be `method`; its parameters and its id.
    fn next(&mut self, method: &str) -> (Value, Value) {
        let mut request = self.sent.pop_front().unwrap_or_else(|| panic!("no {method}"));
        assert_eq!((&request["method"], &request["jsonrpc"]), (&json!(method), &json!("2.0")));
        (request["params"].take(), request["id"].take())
    }

    /// Answers the next request, which must be `method`.
    fn answer(&mut self, method: &str, result: Value) -> Value {
        let (params, id) = self.next(method);
        self.reply(&id, &result);
        params
    }

    fn reply(&mut self, id: &Value, result: &Value) {
        let text = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
        self.input(Input::Text(text));
    }

    fn refuse(&mut self, method: &str, code: i64) {
        let (_, id) = self.next(method);
        let error = json!({"code": code, "message": "no"});
        let text = json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string();
        self.input(Input::Text(text));
    }

    fn ask(&mut self, to: u32) {
        let params = json!({"n": to});
        self.input(Input::Request {
            to: Some(to),
            late: None,
            method: "m".into(),
            params,
            timeout: None,
        });
    }

    fn ask_within(&mut self, to: u32, timeout: Duration) {
        let (params, timeout) = (json!({"n": to}), Some(timeout));
        self.input(Input::Request {
            to: Some(to),
            late: None,
            method: "m".into(),
            params,
            timeout,
        });
    }

    /// Lets time pass, timers included.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
            steps += 1;
            assert!(steps < 10_000, "the machine wants to be woken again and again");
        }
        self.now = end;
    }

    fn cut(&mut self) {
        self.input(Input::Down("cut".into()));
    }

    fn errors(&self) -> Vec<(u32, ClientError)> {
        let failed = self
            .answers
            .iter()
            .filter_map(|(to, result)| result.as_ref().err().map(|error| (*to, error.clone())));
        failed.collect()
    }
}

#[test]
fn a_first_connection_that_fails_is_not_repeated() {
    let mut world = World::new(quiet(), SEED);
    world.cut();
    assert_eq!(world.started, Some(Err(ClientError::Connect("cut".into()))));
    assert!(world.ended);
    world.ask(1);
    assert_eq!(world.errors(), [(1, ClientError::Closed)]);
    assert_eq!(world.machine.poll_timeout(), None);
}

#[test]
fn a_first_connection_has_to_be_made_in_time_the_greeting_included() {
    for open in [false, true] {
        let mut world = World::new(quiet(), SEED);
        if open {
            world.pass(ms(4_000));
            world.input(Input::Open);
        }
        world.pass(ms(4_999 - if open { 4_000 } else { 0 }));
        assert!(!world.ended);
        world.pass(ms(1));
        assert!(world.ended && world.dropped == 1);
        assert!(matches!(world.started, Some(Err(ClientError::Connect(_)))));
    }
}

#[test]
fn answers_go_to_whom_they_belong_in_whatever_order_they_come() {
    let mut world = World::connected(quiet());
    (1..=3).for_each(|to| world.ask(to));
    let ids: Vec<_> = (0..3).map(|_| world.next("m").1).collect();
    for at in [2, 0, 1] {
        world.reply(&ids[at], &json!(at));
    }
    let answers: Vec<_> = world.answers.iter().map(|(to, result)| (*to, result.clone())).collect();
    assert_eq!(answers, [(3, Ok(json!(2))), (1, Ok(json!(0))), (2, Ok(json!(1)))]);
    // Twice, and to nobody.
    world.reply(&ids[0], &Value::Null);
    world.reply(&json!("x"), &Value::Null);
    assert_eq!((world.answers.len(), world.machine.counters().unmatched), (3, 2));
}

#[test]
fn requests_go_with_the_session_unless_they_name_another() {
    let mut world = World::connected(quiet());
    for (params, expected) in [
        (Value::Null, json!({"sessionId": "session"})),
        (json!({"a": 1}), json!({"a": 1, "sessionId": "session"})),
        (json!({"sessionId": "x"}), json!({"sessionId": "x"})),
        (json!([1]), json!([1])),
    ] {
        let method = "m".to_owned();
        world.input(Input::Request { to: Some(1), late: None, method, params, timeout: None });
        assert_eq!(world.next("m").0, expected);
    }
}

#[test]
fn a_notification_has_no_id_and_waits_for_nothing() {
    let mut world = World::connected(quiet());
    let params = json!({"a": 1});
    world.input(Input::Request {
        to: None,
        late: None,
        method: "tell".into(),
        params,
        timeout: None,
    });
    assert_eq!(world.next("tell").1, Value::Null);
    world.pass(ms(60_000));
    assert_eq!(world.machine.counters().timed_out, 0);
}

#[test]
fn a_request_fails_when_its_time_is_over_and_a_late_answer_is_counted() {
    let mut world = World::connected(quiet());
    world.ask(1);
    let timeout = Some(ms(15_000));
    let params = Value::Null;
    world.input(Input::Request { to: Some(2), late: None, method: "m".into(), params, timeout });
    world.pass(ms(9_999));
    assert_eq!(world.errors(), []);
    world.pass(ms(1));
    assert_eq!(world.errors(), [(1, ClientError::Timeout)]);
    world.pass(ms(5_000));
    assert_eq!(world.errors()[1], (2, ClientError::Timeout));
    world.answer("m", json!(1));
    assert_eq!((world.answers.len(), world.machine.counters().unmatched), (2, 1));
    assert!(world.told == [ConnectionEvent::Connected] && !world.ended);
}

#[test]
fn a_late_answer_goes_to_whom_it_matters_while_its_connection_lasts() {
    for cut in [false, true] {
        let mut world = World::connected(quiet());
        let params = Value::Null;
        let method = "m".to_owned();
        let (to, late) = (Some(1), Some(2));
        world.input(Input::Request { to, late, method, params, timeout: None });
        let (_, id) = world.next("m");
        world.pass(ms(10_000));
        assert_eq!(world.answers, [(1, Err(ClientError::Timeout))]);
        if cut {
            world.cut();
            world.pass(ms(100));
            world.open("session", "server");
        }
        world.reply(&id, &json!(7));
        world.reply(&id, &json!(8));
        assert_eq!(world.answers.get(1), (!cut).then_some(&(2, Ok(json!(7)))));
        assert_eq!(world.answers.len(), if cut { 1 } else { 2 });
    }
}

#[test]
fn late_answers_are_waited_for_up_to_a_bound() {
    let mut world = World::connected(Options { in_flight: usize::MAX, ..quiet() });
    for to in 0..LATE as u32 + 5 {
        let (params, method) = (Value::Null, "m".to_owned());
        let (to, late) = (Some(to), Some(to));
        world.input(Input::Request { to, late, method, params, timeout: None });
    }
    world.pass(ms(10_000));
    assert_eq!((world.machine.late.len(), world.machine.counters().forgotten), (LATE, 5));
    world.cut();
    assert!(world.machine.late.is_empty());
}

#[test]
fn what_waits_and_what_is_under_way_have_bounds() {
    let mut world = World::connected(Options { in_flight: 2, queue: 3, ..quiet() });
    (1..=7).for_each(|to| world.ask(to));
    assert_eq!(world.sent.len(), 2);
    assert_eq!(world.errors(), [(6, ClientError::Busy), (7, ClientError::Busy)]);
    assert_eq!(world.machine.counters().busy, 2);
    // Each answer makes room for the next in line.
    for to in 1..=5 {
        assert_eq!(world.answer("m", json!(0))["n"], to);
    }
    assert_eq!(world.machine.counters().answered, 5);
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let mut world = World::connected(Options { message_bytes: 200, ..quiet() });
    let params = json!({"text": "x".repeat(200)});
    world.input(Input::Request {
        to: Some(1),
        late: None,
        method: "m".into(),
        params,
        timeout: None,
    });
    assert!(matches!(world.errors()[..], [(1, ClientError::TooLong { limit: 200, .. })]));
    assert!(world.sent.is_empty());
    world.ask(2);
    world.answer("m", json!("x".repeat(200)));
    assert_eq!(world.machine.counters().unreadable, 1, "nor is one read");
}

#[test]
fn the_first_ping_names_the_interval_and_the_others_do_not() {
    let mut world = World::connected(Options::default());
    let session = json!("session");
    let params = world.answer("ping", json!({"value": "pong"}));
    assert_eq!(params, json!({"interval": 5_000, "sessionId": session}));
    for _ in 0..3 {
        world.pass(ms(4_999));
        assert!(world.sent.is_empty());
        world.pass(ms(1));
        assert_eq!(world.answer("ping", json!({"value": "pong"})), json!({"sessionId": session}));
    }
    assert_eq!(world.told, [ConnectionEvent::Connected]);
}

#[test]
fn a_ping_without_an_answer_ends_the_connection() {
    let mut world = World::connected(Options::default());
    world.pass(ms(9_999));
    assert_eq!(world.told, [ConnectionEvent::Connected]);
    world.pass(ms(200));
    assert_eq!(world.dropped, 1);
    assert_eq!(world.told[1..], [ConnectionEvent::Disconnected, ConnectionEvent::Reconnecting]);
    assert_eq!(world.machine.counters().silent, 1);
    world.open("session", "server");
    assert_eq!(world.next("ping").0["interval"], 5_000, "as the first of every connection");
}

#[test]
fn a_ping_waits_as_long_as_the_requests_before_it() {
    let mut world = World::connected(Options::default());
    world.answer("ping", json!({}));
    let timeout = Some(ms(60_000));
    let params = Value::Null;
    world.input(Input::Request { to: Some(1), late: None, method: "slow".into(), params, timeout });
    world.pass(ms(59_000));
    assert_eq!(world.told, [ConnectionEvent::Connected]);
    world.answer("slow", json!(1));
    world.answer("ping", json!({}));
    world.pass(ms(4_999));
    assert_eq!(world.told, [ConnectionEvent::Connected]);
}

#[test]
fn a_request_that_waits_for_an_hour_does_not_keep_a_dead_server_alive() {
    let mut world = World::connected(Options::default());
    world.answer("ping", json!({}));
    world.ask_within(1, ms(3_600_000));
    world.pass(ms(5_000));
    world.pass(ms(59_999));
    assert_eq!(world.told, [ConnectionEvent::Connected], "an answer may take so long");
    world.pass(ms(1));
    assert_eq!(world.told[1], ConnectionEvent::Disconnected);
    assert_eq!(world.errors(), [(1, ClientError::Interrupted)]);
}

#[test]
fn a_ping_waits_only_for_what_went_over_its_connection_before_it() {
    // One more is in the queue, and one is sent after the ping.
    let mut world = World::connected(Options { in_flight: 1, ..Options::default() });
    world.answer("ping", json!({}));
    world.ask_within(1, ms(7_000));
    world.ask_within(2, ms(50_000));
    world.pass(ms(5_000));
    world.ask_within(3, ms(50_000));
    world.pass(ms(9_999));
    assert_eq!(world.told, [ConnectionEvent::Connected]);
    world.pass(ms(1));
    assert_eq!(world.told[1], ConnectionEvent::Disconnected);
    // What is sent again goes after the first ping of a connection.
    let mut world = World::connected(Options { retry: true, ..Options::default() });
    world.ask_within(1, ms(50_000));
    world.cut();
    world.pass(ms(100));
    world.open("session", "server");
    world.pass(ms(9_999));
    assert_eq!(world.told.len(), 4);
    world.pass(ms(1));
    assert_eq!(world.told[4], ConnectionEvent::Disconnected);
}

#[test]
fn each_answer_before_a_ping_gives_it_new_patience_and_the_last_the_least() {
    let mut world = World::connected(Options::default());
    world.answer("ping", json!({}));
    (1..=3).for_each(|to| world.ask_within(to, ms(3_600_000)));
    world.pass(ms(5_000));
    for _ in 0..3 {
        world.pass(ms(50_000));
        world.answer("m", json!(0));
    }
    assert_eq!(world.told, [ConnectionEvent::Connected]);
    world.pass(ms(9_999));
    assert_eq!(world.told, [ConnectionEvent::Connected]);
    world.pass(ms(1));
    assert_eq!(world.told[1], ConnectionEvent::Disconnected, "nothing is before it any more");
}

#[test]
fn a_connection_over_which_nothing_comes_is_given_up_where_that_is_asked_for() {
    let mut world = World::connected(Options { idle_timeout: Some(ms(1_000)), ..quiet() });
    world.pass(ms(900));
    world.input(Input::Text(r#"{"method":"onEvent"}"#.into()));
    world.pass(ms(999));
    assert_eq!(world.told, [ConnectionEvent::Connected]);
    world.pass(ms(1));
    assert_eq!(world.told[1], ConnectionEvent::Disconnected);
    assert_eq!(world.notified.len(), 1);
}

#[test]
fn a_server_that_reads_nothing_is_given_up_and_one_that_reads_slowly_is_not() {
    let mut world = World::connected(quiet());
    for _ in 0..3 {
        world.input(Input::Writing { unwritten: 5, moved: true });
        world.pass(ms(9_999));
    }
    world.input(Input::Writing { unwritten: 0, moved: true });
    world.pass(ms(60_000));
    assert_eq!(world.told, [ConnectionEvent::Connected], "there was nothing to be read");
    world.input(Input::Writing { unwritten: 1, moved: false });
    world.pass(ms(9_000));
    world.input(Input::Writing { unwritten: 2, moved: false });
    world.pass(ms(999));
    assert_eq!(world.told, [ConnectionEvent::Connected]);
    world.pass(ms(1));
    assert_eq!((world.told[1], world.dropped), (ConnectionEvent::Disconnected, 1));
    assert_eq!(world.machine.counters().silent, 1);
}

#[test]
fn requests_wait_while_too_much_is_unwritten_and_a_close_does_not() {
    let mut world = World::connected(Options { queue: 2, ..quiet() });
    world.input(Input::Writing { unwritten: FULL - 1, moved: true });
    (1..=4).for_each(|to| world.ask(to));
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.errors(), [(4, ClientError::Busy)]);
    world.input(Input::Writing { unwritten: FULL - 1, moved: true });
    assert_eq!(world.sent.len(), 2, "there is room for one again");
    world.input(Input::Close { session: false });
    assert!(world.ended && world.answers.len() == 4);
}

#[test]
fn the_session_survives_a_cut() {
    let mut world = World::connected(quiet());
    world.cut();
    world.pass(ms(100));
    world.input(Input::Open);
    let params = world.answer("connect", json!({"sessionId": "session", "serverId": "server"}));
    assert_eq!(params, json!({"sessionId": "session"}));
    assert_eq!(
        world.told,
        [
            ConnectionEvent::Connected,
            ConnectionEvent::Disconnected,
            ConnectionEvent::Reconnecting,
            ConnectionEvent::Reconnected { same_server: true }
        ]
    );
}

#[test]
fn a_server_that_forgot_the_session_or_is_another_is_told_of() {
    for (forgot, server) in [(true, "server"), (true, "other"), (false, "other")] {
        let mut world = World::connected(Options { retry: true, ..quiet() });
        world.ask(1);
        world.answer("m", json!({"value": 1}));
        world.ask(2);
        world.cut();
        world.ask(3);
        world.pass(ms(100));
        world.input(Input::Open);
        if forgot {
            world.refuse("connect", INVALID_SESSION);
        }
        let params = world.answer("connect", json!({"sessionId": "new", "serverId": server}));
        assert_eq!(params, if forgot { Value::Null } else { json!({"sessionId": "session"}) });
        let last = ConnectionEvent::Reconnected { same_server: false };
        assert_eq!(world.told.last(), Some(&last));
        // What was sent in the old session is not sent in the new one; what was not, is.
        assert_eq!(world.errors(), [(2, ClientError::Interrupted)]);
        assert_eq!(world.next("m").0, json!({"n": 3, "sessionId": "new"}));
    }
}

#[test]
fn nothing_is_lost_with_a_session_that_did_nothing() {
    let mut world = World::connected(quiet());
    world.cut();
    world.pass(ms(100));
    world.input(Input::Open);
    world.refuse("connect", INVALID_SESSION);
    world.answer("connect", json!({"sessionId": "new", "serverId": "server"}));
    let last = ConnectionEvent::Reconnected { same_server: true };
    assert_eq!(world.told.last(), Some(&last));
    assert_eq!(world.machine.session(), Some("new"));
}

#[test]
fn a_server_without_sessions_is_served_too() {
    let mut world = World::new(quiet(), SEED);
    world.input(Input::Open);
    world.refuse("connect", NO_SUCH_METHOD);
    assert_eq!(world.started, Some(Ok(())));
    world.ask(1);
    assert_eq!(world.next("m").0, json!({"n": 1}));
}

#[test]
fn a_server_that_refuses_the_client_is_not_connected_to() {
    let mut world = World::new(quiet(), SEED);
    world.input(Input::Open);
    world.refuse("connect", 40009);
    let Some(Err(error)) = world.started else { panic!("it started") };
    assert_eq!(error.code(), Some(40009));
    assert!(world.ended && world.dropped == 1);
}

#[test]
fn requests_under_way_are_interrupted_by_a_cut_and_those_in_the_queue_wait() {
    let mut world = World::connected(quiet());
    world.ask(1);
    world.cut();
    world.ask(2);
    assert_eq!(world.errors(), [(1, ClientError::Interrupted)]);
    world.pass(ms(100));
    world.open("session", "server");
    assert_eq!(world.answer("m", json!(0))["n"], 2);
    assert_eq!(world.machine.counters().interrupted, 1);
}

#[test]
fn with_retry_they_are_sent_again_under_the_same_id_before_newer_ones() {
    let mut world = World::connected(Options { retry: true, ..quiet() });
    (1..=3).for_each(|to| world.ask(to));
    let first: Vec<_> = (0..3).map(|_| world.next("m")).collect();
    world.reply(&first[1].1, &json!(0));
    world.cut();
    world.ask(4);
    assert_eq!(world.errors(), []);
    world.pass(ms(100));
    world.open("session", "server");
    let again: Vec<_> = (0..3).map(|_| world.next("m")).collect();
    assert_eq!((&again[0], &again[1]), (&first[0], &first[2]));
    assert_eq!(again[2].0["n"], 4);
    assert_eq!(world.machine.counters().sent_again, 2);
    // The time-out still runs from when they were asked.
    world.pass(ms(9_900));
    assert_eq!(world.errors().len(), 3);
}

#[test]
fn requests_fail_in_time_while_there_is_no_connection() {
    let mut world = World::connected(Options { queue: 4, ..quiet() });
    world.cut();
    for round in 0..50 {
        (0..4).for_each(|to| world.ask(to));
        world.pass(ms(10_000));
        assert_eq!(world.answers.len(), 4 * (round + 1));
    }
    assert_eq!(world.machine.counters().timed_out, 200);
    assert!(world.machine.waiting.is_empty() && world.machine.deadlines.is_empty());
}

#[test]
fn pauses_double_up_to_a_bound_and_are_shortened_by_no_more_than_half() {
    for seed in 0..100 {
        let mut world = World::new(quiet(), seed);
        world.open("session", "server");
        let mut pause = 100;
        for attempt in 1..15 {
            world.cut();
            let before = world.now.duration_since(world.start).as_millis();
            let until = world.machine.poll_timeout().expect("another attempt");
            world.pass(until - world.now);
            let waited = world.dialled[attempt] - before;
            assert!(waited >= pause / 2 && waited <= pause, "{waited} of {pause}");
            pause = (2 * pause).min(10_000);
        }
    }
}

#[test]
fn a_connection_that_held_makes_pauses_short_again_and_one_that_did_not_does_not() {
    for (held, most) in [(10_000, 100), (0, 800)] {
        let mut world = World::connected(quiet());
        for _ in 0..3 {
            world.cut();
            world.pass(ms(1_000));
        }
        world.open("session", "server");
        world.pass(ms(held));
        world.cut();
        let pause = world.machine.poll_timeout().expect("an attempt") - world.now;
        assert!(pause <= ms(most) && pause >= ms(most / 2), "{pause:?} of {most}");
    }
}

#[test]
fn attempts_in_a_row_may_have_an_end() {
    let reconnect = Some(Reconnect { attempts: Some(3), ..Reconnect::default() });
    let mut world = World::connected(Options { reconnect, retry: true, ..quiet() });
    world.ask(1);
    for _ in 0..4 {
        assert!(!world.ended);
        world.cut();
        world.pass(ms(1_000));
    }
    assert!(world.ended && world.dialled.len() == 4);
    assert_eq!(world.errors(), [(1, ClientError::Closed)]);
    let mut world = World::connected(Options { reconnect: None, ..quiet() });
    world.cut();
    assert!(world.ended);
}

#[test]
fn closing_fails_what_waits_and_closes_the_session_on_request() {
    for session in [false, true] {
        let mut world = World::connected(Options::default());
        world.answer("ping", json!({}));
        world.ask(1);
        world.next("m");
        world.input(Input::Close { session });
        assert_eq!(world.errors(), [(1, ClientError::Closed)]);
        if session {
            world.ask(2);
            assert_eq!(world.errors()[1], (2, ClientError::Closed));
            assert!(!world.ended);
            assert_eq!(world.answer("closeSession", Value::Null), json!({"sessionId": "session"}));
        }
        assert!(world.ended && world.machine.poll_timeout().is_none());
        assert_eq!(world.machine.session_closed(), session);
    }
}

#[test]
fn a_session_counts_as_closed_only_when_the_server_says_that_it_is_no_more() {
    for (code, closed) in [(INVALID_SESSION, true), (NO_SUCH_METHOD, false)] {
        let mut world = World::connected(quiet());
        world.input(Input::Close { session: true });
        world.refuse("closeSession", code);
        assert_eq!((world.ended, world.machine.session_closed()), (true, closed));
    }
    let mut world = World::connected(quiet());
    world.cut();
    world.input(Input::Close { session: true });
    assert_eq!((world.ended, world.machine.session_closed()), (true, false));
}

#[test]
fn a_server_that_does_not_say_goodbye_is_not_waited_for_long() {
    for cut in [false, true] {
        let mut world = World::connected(quiet());
        world.input(Input::Close { session: true });
        if cut {
            world.cut()
        } else {
            world.pass(ms(5_000))
        }
        assert!(world.ended && !world.machine.session_closed());
    }
}

#[test]
fn a_request_of_the_server_is_answered_that_there_is_no_such_method() {
    let mut world = World::connected(quiet());
    world.input(Input::Text(r#"{"jsonrpc":"2.0","id":"a","method":"x"}"#.into()));
    let answer = world.sent.pop_front().expect("an answer");
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("a"), &json!(-32601)));
}

#[test]
fn ids_are_not_used_twice_however_often_the_connection_is_cut() {
    let mut world = World::connected(Options { retry: false, ..Options::default() });
    let mut seen = std::collections::HashSet::new();
    for round in 0..50 {
        (0..10).for_each(|to| world.ask(to));
        for request in std::mem::take(&mut world.sent) {
            assert!(seen.insert(request["id"].as_u64().expect("a number")), "{round}: {request}");
        }
        world.cut();
        world.pass(ms(10_000));
        world.open("session", "server");
    }
    let other = World::new(quiet(), SEED + 1).machine.last_id;
    assert_ne!(other, World::new(quiet(), SEED).machine.last_id);
}

#[test]
fn times_and_bounds_may_be_as_large_or_small_as_they_get() {
    for (time, bound) in [(Duration::MAX, usize::MAX), (Duration::ZERO, 0)] {
        let reconnect = Some(Reconnect { first: time, longest: time, attempts: Some(u32::MAX) });
        let options = Options {
            request_timeout: time,
            heartbeat_timeout: time,
            longest_answer: time,
            idle_timeout: Some(Duration::MAX),
            heartbeat: Some(time),
            reconnect,
            queue: bound,
            in_flight: bound,
            ..Options::default()
        };
        let mut world = World::connected(options);
        world.ask(1);
        assert_eq!(world.sent.len(), 2, "the ping and the request");
        world.pass(ms(1));
        world.cut();
        assert!(world.machine.poll_timeout().is_some());
    }
}

#[test]
fn ids_run_round_past_the_ones_in_use() {
    let mut world = World::connected(quiet());
    world.machine.last_id = 4;
    world.ask(1);
    world.machine.last_id = LAST_ID - 1;
    for expected in [LAST_ID, 1, 2, 3, 4, 6] {
        world.ask(2);
        assert_eq!(world.machine.last_id, expected);
    }
}

/// Any mixture of what can happen: every request is answered once, and the machine always knows
/// when to be woken until it ends.
#[test]
fn every_request_is_answered_exactly_once_whatever_happens() {
    for seed in 0..300 {
        let mut dice = Machine::<u32>::new(crate::clock::Clock::start().now(), quiet(), seed);
        let mut roll = move |of: u64| dice.random() % of;
        let retry = roll(2) == 0;
        let options = Options { retry, in_flight: 3, queue: 5, ..Options::default() };
        let mut world = World::new(options, seed);
        let (mut open, mut made) = (false, 0);
        for _ in 0..400 {
            match roll(12) {
                0..=3 => {
                    made += 1;
                    world.ask(made);
                }
                4..=6 if open => {
                    if let Some(request) = world.sent.pop_front() {
                        let server = if roll(9) == 0 { "other" } else { "server" };
                        let result = json!({"sessionId": "session", "serverId": server});
                        world.reply(&request["id"], &result);
                    }
                }
                7 if open && roll(4) == 0 => {
                    open = false;
                    world.cut();
                }
                8 | 9 if !open && matches!(world.machine.state, State::Dialling { .. }) => {
                    open = true;
                    world.input(Input::Open);
                }
                10 => {
                    let dropped = world.dropped;
                    world.pass(ms(roll(3_000)));
                    open &= dropped == world.dropped;
                }
                _ => world.input(Input::Text("?".into())),
            }
            if world.ended {
                break;
            }
            assert!(world.machine.requests.len() <= 8 + 3);
            assert_eq!(world.machine.requests.len(), world.machine.deadlines.len());
        }
        if !world.ended {
            world.input(Input::Close { session: false });
        }
        let mut answered: Vec<_> = world.answers.iter().map(|(to, _)| *to).collect();
        answered.sort_unstable();
        assert_eq!(answered, (1..=made).collect::<Vec<_>>(), "seed {seed}");
    }
}
