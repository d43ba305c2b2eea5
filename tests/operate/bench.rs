//! `rivero bench` as a program: its exit status, what it says, and the files it leaves.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::program::Program;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rivero"));
    command.arg("bench").args(arguments).output().expect("it runs")
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/kurento", listener.local_addr().expect("bound"));
    drop(listener);
    let output = bench(&["--url", &url, "--patience", "2"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.starts_with(&format!("rivero bench: no server at {url}: ")), "{errors}");
    assert!(output.stdout.is_empty());
}

#[test]
fn an_earlier_report_that_is_none_is_told_of_before_anything_is_done() {
    let output = bench(&["--url", "ws://127.0.0.1:1/", "--compare", "Cargo.toml"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.starts_with("rivero bench: Cargo.toml: "), "{errors}");
}

#[test]
fn a_running_server_is_measured_by_its_process_and_the_report_is_left_in_files() {
    let server = Program::start();
    let url = format!("ws://{}/kurento", server.address);
    let folder = std::env::temp_dir().join(format!("rivero-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = |name: &str| folder.join(name).to_str().expect("a text").to_owned();
    let (json, html) = (path("report.json"), path("report.html"));
    let words = ["loopback", "--clients", "2", "--over", "0.2", "--seconds", "1"];
    let files = ["--url", &url, "--json", &json, "--html", &html];
    let output = bench(&[&words[..], &files[..]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(summary.contains("joined        2 of 2"), "{summary}");
    let report = std::fs::read_to_string(&json).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["joins"]["joined"], 2);
    assert!(report["server"]["pid"].is_u64(), "{report}");
    assert!(report["cost"]["cpuUsPerPacket"].is_f64(), "{report}");
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.contains("<polyline"));
    std::fs::remove_dir_all(&folder).expect("is there");
}
