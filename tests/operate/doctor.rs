//! `rivero doctor`: what it sees, and what it says to do.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use serde_json::Value;

use crate::support::program::Program;

/// Whether all is well enough, and the findings by subject.
fn examine(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_rivero"))
        .args(["doctor", "--json", "--media-address", "127.0.0.1", "--workers", "1"])
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("it runs");
    let findings = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.success(), findings)
}

fn find<'a>(findings: &'a [Value], subject: &str) -> &'a Value {
    let found = findings.iter().find(|finding| finding["subject"] == subject);
    found.unwrap_or_else(|| panic!("nothing about {subject} in {findings:?}"))
}

#[test]
fn a_port_that_another_program_has_is_trouble_and_one_with_a_server_is_not() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("bound").port().to_string();
    let rude = std::thread::spawn(move || drop(other.accept()));
    let (well, findings) = examine(&["--port", &port], &[]);
    assert!(!well);
    let finding = find(&findings, "control port");
    assert_eq!(finding["severity"], "trouble");
    assert!(finding["advice"].as_str().is_some_and(|text| text.contains("--port")), "{finding}");
    rude.join().expect("it had a visitor");

    let server = Program::start();
    let (well, findings) = examine(&["--port", &server.address.port().to_string()], &[]);
    assert!(well, "{findings:?}");
    let seen = find(&findings, "control port")["seen"].as_str().unwrap_or_default();
    assert!(seen.starts_with("a server is running"), "{seen}");
}

#[test]
fn a_media_port_that_is_taken_is_trouble() {
    let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("bound").port().to_string();
    let (well, findings) = examine(&["--port", "0", "--media-port", &port], &[]);
    assert!(!well && find(&findings, "media ports")["severity"] == "trouble", "{findings:?}");
}

#[test]
fn a_range_of_ports_must_have_one_for_each_thread() {
    let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("bound").port();
    let (first, last) = (port.to_string(), port.saturating_add(20).to_string());
    let (well, findings) =
        examine(&["--port", "0"], &[("KMS_MIN_PORT", &first), ("KMS_MAX_PORT", &first)]);
    assert!(!well && find(&findings, "media ports")["severity"] == "trouble", "{findings:?}");
    let (_, findings) =
        examine(&["--port", "0"], &[("KMS_MIN_PORT", &first), ("KMS_MAX_PORT", &last)]);
    assert_eq!(find(&findings, "media ports")["severity"], "fine", "{findings:?}");
}

#[test]
fn a_stun_server_is_asked_and_one_that_is_silent_is_trouble() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("bound").port().to_string();
    let set = [("KMS_STUN_IP", "127.0.0.1"), ("KMS_STUN_PORT", port.as_str())];
    let (well, findings) = examine(&["--port", "0"], &set);
    assert!(!well && find(&findings, "STUN server")["severity"] == "trouble", "{findings:?}");

    let answering = server.try_clone().expect("a second handle");
    let answers = std::thread::spawn(move || {
        // The questions that nobody answered are still there; the last one is fresh.
        let mut bytes = [0; 100];
        for _ in 0..4 {
            let (_, from) = answering.recv_from(&mut bytes).expect("a question");
            let mut reply = vec![0x01, 0x01, 0, 12];
            reply.extend(&bytes[4..20]);
            reply.extend([0x00, 0x20, 0, 8, 0, 1]);
            reply.extend((from.port() ^ 0x2112).to_be_bytes());
            reply.extend([203 ^ 0x21, 0x12, 113 ^ 0xa4, 9 ^ 0x42]);
            // Those who asked before are gone.
            let _ = answering.send_to(&reply, from);
        }
    });
    let (well, findings) = examine(&["--port", "0"], &set);
    assert!(well, "{findings:?}");
    let seen = find(&findings, "STUN server")["seen"].as_str().unwrap_or_default();
    assert!(seen.contains("203.0.113.9:"), "{seen}");
    answers.join().expect("four questions came");
}
