//! The program in a process of its own, and a folder for what it reads and writes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const BINARY: &str = env!("CARGO_BIN_EXE_rivero");

/// A folder that is gone when the test is over.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rivero-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the folders it lies in; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a name in UTF-8").to_owned()
    }

    /// The program under another name.
    pub fn called(&self, name: &str) -> Command {
        let link = self.0.join(name);
        symlink(BINARY, &link).expect("a link");
        command(&link)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It lies where the system clears up anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program without anything that the environment says of it, on loopback addresses.
pub fn rivero() -> Command {
    command(Path::new(BINARY))
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.env("RIVERO_WORKERS", "1").env("RIVERO_MEDIA_ADDRESS", "127.0.0.1");
    command
}

/// Output and status of a program that ends by itself.
pub fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
}

/// A server that is running.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    log: Receiver<String>,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut child = spawn(command);
        let (sender, log) = channel();
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                // The test may be over.
                let _ = sender.send(line);
            }
        });
        Self::ready(child, log)
    }

    /// A server whose log nobody reads.
    pub fn unheard(command: &mut Command) -> Self {
        Self::ready(spawn(command), channel().1)
    }

    fn ready(mut child: Child, log: Receiver<String>) -> Self {
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let ready = line.trim().strip_prefix("Rivero is ready: ").unwrap_or_default();
        let place = ready.split("://").nth(1).map(|rest| rest.trim_end_matches('/'));
        let address = place.and_then(|place| place.parse().ok());
        let address = address.unwrap_or_else(|| {
            panic!("not ready: {line:?}, {:?}", log.iter().collect::<Vec<_>>());
        });
        Self { child, address, log }
    }

    pub fn signal(&self, signal: i32) {
        let process = i32::try_from(self.child.id()).expect("a process");
        // SAFETY: the call touches no memory of ours, and the process is our own child.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// The next line of the log that has `part` in it.
    pub fn line(&self, part: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line with {part:?} in time"));
            if line.contains(part) {
                return line;
            }
        }
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("our own child")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number at the end of a line.
pub fn last_number(line: &str) -> u16 {
    let digits = line.rsplit(|letter: char| !letter.is_ascii_digit()).find(|text| !text.is_empty());
    digits.and_then(|digits| digits.parse().ok()).expect("a number")
}
