//! The program in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// The program in a process of its own, so that nothing else counts.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
}

impl Program {
    pub fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rivero"))
            .args(["--bind", "127.0.0.1", "--port", "0", "--workers", "1"])
            .args(["--media-address", "127.0.0.1"])
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().split("http://").nth(1).expect("an address");
        let address = address.trim_end_matches('/').parse().expect("an address");
        Self { child, address }
    }

    pub fn entries(&self, of: &str) -> usize {
        let folder = format!("/proc/{}/{of}", self.child.id());
        std::fs::read_dir(folder).expect("the process runs").count()
    }

    pub fn resident_pages(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(path).expect("the process runs");
        text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself, which its test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
