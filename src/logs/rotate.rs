//! Files of a log: a new one when the old is full and when a day begins, the oldest removed.
//!
//! A file is named after its beginning, a running number and the process:
//! `2025-03-20T101112.00000.pid42.log`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::local_now;
use crate::clock::Local;

/// When a new file is due. It stays due until it has begun.
#[derive(Debug)]
pub struct Rotation {
    /// Bytes of one file.
    limit: u64,
    written: u64,
    /// Year, month and day of the file; none before the first.
    day: Option<(i32, u32, u32)>,
    /// Of the next file.
    number: u32,
}

impl Rotation {
    pub const fn new(limit: u64) -> Self {
        Self { limit, written: 0, day: None, number: 0 }
    }

    /// Before `bytes` are written: the name of the file to begin, if one is due.
    pub fn due(&self, now: &Local, bytes: u64) -> Option<String> {
        let day = Some((now.year, now.month, now.day));
        let full = self.written > 0 && self.written + bytes > self.limit;
        if day == self.day && !full {
            return None;
        }
        let Local { year, month, day: date, hour, minute, second, .. } = now;
        let name = format!(
            "{year:04}-{month:02}-{date:02}T{hour:02}{minute:02}{second:02}.{:05}.pid{}.log",
            self.number,
            std::process::id()
        );
        Some(name)
    }

    /// The file that was due is there.
    pub fn begun(&mut self, now: &Local) {
        self.number = (self.number + 1) % 100_000;
        self.day = Some((now.year, now.month, now.day));
        self.written = 0;
    }

    pub fn written(&mut self, bytes: u64) {
        self.written += bytes;
    }
}

/// A folder of log files.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    rotation: Rotation,
    /// Bytes of all files together.
    total: u64,
    file: Option<File>,
}

impl Files {
    /// `limit` bytes for each of `count` files.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn open(folder: &Path, limit: u64, count: u32) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("logs in {}: {error}", folder.display()))
        };
        std::fs::create_dir_all(folder).map_err(named)?;
        let mut files = Self {
            folder: folder.to_owned(),
            rotation: Rotation::new(limit),
            total: limit.saturating_mul(count.into()),
            file: None,
        };
        files.prepare(0).map_err(named)?;
        Ok(files)
    }

    /// Begins a new file if one is due for `bytes` more.
    fn prepare(&mut self, bytes: u64) -> io::Result<()> {
        let now = local_now();
        if let Some(name) = self.rotation.due(&now, bytes) {
            self.make_room(self.rotation.limit)?;
            let mut options = File::options();
            self.file = Some(options.append(true).create(true).open(self.folder.join(name))?);
            self.rotation.begun(&now);
        }
        Ok(())
    }

    /// Removes the oldest files until the rest and `more` bytes are not too much.
    fn make_room(&self, more: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in self.folder.read_dir()? {
            let entry = entry?;
            if is_ours(&entry.file_name().to_string_lossy()) {
                files.push((entry.file_name(), entry.metadata()?.len()));
            }
        }
        // Names begin with dates.
        files.sort();
        let mut total = more + files.iter().map(|(_, bytes)| bytes).sum::<u64>();
        for (name, bytes) in files {
            if total <= self.total {
                break;
            }
            match std::fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // Or somebody else did.
                _ => {}
            }
            total -= bytes;
        }
        Ok(())
    }
}

/// Whether a file has the name of a log, so that nothing else is ever removed.
fn is_ours(name: &str) -> bool {
    let parts: Vec<_> = name.split('.').collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts[..], [date, number, process, "log"]
        if date.len() == 17 && date.contains('T') && digits(number)
            && process.strip_prefix("pid").is_some_and(digits))
}

impl Write for Files {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.prepare(line.len() as u64)?;
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let bytes = file.write(line)?;
        self.rotation.written(bytes as u64);
        Ok(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u32, second: u32) -> Local {
        Local { year: 2025, month: 3, day, hour: 10, minute: 11, second, micros: 0 }
    }

    #[test]
    fn a_new_file_begins_when_the_old_one_is_full_and_when_a_day_begins() {
        let mut rotation = Rotation::new(100);
        let names: Vec<_> = [(20, 60), (20, 40), (20, 1), (21, 1), (21, 500), (21, 1)]
            .into_iter()
            .map(|(day, bytes)| {
                let name = rotation.due(&at(day, 12), bytes);
                if name.is_some() {
                    rotation.begun(&at(day, 12));
                }
                rotation.written(bytes);
                name
            })
            .map(|name| name.map(|name| name.split(".pid").next().unwrap_or_default().to_owned()))
            .collect();
        let name = |day: u32, number: u32| Some(format!("2025-03-{day}T101112.{number:05}"));
        assert_eq!(names, [name(20, 0), None, name(20, 1), name(21, 2), name(21, 3), name(21, 4)]);
    }

    #[test]
    fn a_file_that_could_not_be_opened_is_tried_again() {
        let folder = std::env::temp_dir().join(format!("rivero-logs-{}", uuid::Uuid::new_v4()));
        let mut files = Files::open(&folder, 100, 3).expect("a log");
        files.write_all(&[b'x'; 80]).expect("room");
        std::fs::remove_dir_all(&folder).expect("it is there");
        for _ in 0..2 {
            assert!(files.write_all(&[b'y'; 80]).is_err());
        }
        std::fs::create_dir_all(&folder).expect("a folder");
        files.write_all(&[b'z'; 80]).expect("a new file");
        let names: Vec<_> = folder.read_dir().expect("a folder").collect();
        let file = names.first().expect("a file").as_ref().expect("an entry").path();
        assert_eq!((names.len(), std::fs::read(file).expect("a text")), (1, vec![b'z'; 80]));
        std::fs::remove_dir_all(&folder).expect("it is there");
    }

    #[test]
    fn only_files_with_such_names_are_ours() {
        assert!(is_ours("2025-03-20T101112.00000.pid42.log"));
        for name in ["a.log", "2025-03-20T101112.00000.pid.log", "2025-03-20T101112.x.pid4.log", ""]
        {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn the_oldest_files_go_and_others_stay() {
        let folder = std::env::temp_dir().join(format!("rivero-logs-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("2020-01-01T000000.00000.pid1.log"), [b'x'; 150])
            .expect("a file");
        std::fs::write(folder.join("notes.txt"), [b'x'; 1_000]).expect("a file");
        let mut files = Files::open(&folder, 100, 3).expect("a log");
        for _ in 0..6 {
            files.write_all(&[b'x'; 80]).expect("room");
        }
        let names = |folder: &Path| {
            let entries = folder.read_dir().expect("a folder");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name().into_string()).collect();
            names.sort();
            names
        };
        let left = names(&folder);
        assert_eq!(left.len(), 3 + 1, "{left:?}");
        assert!(left.iter().any(|name| name.as_deref() == Ok("notes.txt")));
        assert!(!left.iter().flatten().any(|name| name.starts_with("2020")));
        std::fs::remove_dir_all(&folder).expect("it is there");
    }
}
