//! Conversations that were recorded with the original, held again with this server.
//!
//! The folder of records is named by `KURENTO_TRANSCRIPTS`; they are no part of this project, and
//! without them the test is skipped. What the client side sent is sent again; replies and events are
//! compared in shape, codes and texts. Where the two differ on purpose, `purpose` has the reason.

mod names;
mod player;
mod purpose;
mod record;
pub mod sdp;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;

use player::Report;

/// Records that are replayed at the same time.
const AT_ONCE: usize = 4;

fn folder() -> Result<PathBuf, String> {
    let name = env::var_os("KURENTO_TRANSCRIPTS").ok_or("KURENTO_TRANSCRIPTS is not set")?;
    // Relative ones count from the root of the project, wherever the test is started.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if folder.is_dir() { Ok(folder) } else { Err(format!("{} is no folder", folder.display())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_conversations_go_as_they_went_with_the_original() {
    let folder = match folder() {
        Ok(folder) => folder,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let only = env::var("KURENTO_TRANSCRIPT").unwrap_or_default();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .filter(|path| path.to_string_lossy().contains(&only))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no records in {}", folder.display());

    let mut waiting = files.into_iter();
    let mut running = JoinSet::new();
    for file in waiting.by_ref().take(AT_ONCE) {
        running.spawn(player::play(file));
    }
    let mut reports: Vec<Report> = Vec::new();
    while let Some(report) = running.join_next().await {
        reports.push(report.expect("no panic"));
        if let Some(file) = waiting.next() {
            running.spawn(player::play(file));
        }
    }
    reports.sort_by(|a, b| a.file.cmp(&b.file));
    reports.iter().for_each(|report| println!("{}", report.summary()));
    let unused = if only.is_empty() { purpose::unused(&reports) } else { Vec::new() };
    unused.iter().for_each(|reason| println!("never needed: {reason}"));
    let differences: Vec<_> = reports.iter().flat_map(|report| &report.differences).collect();
    differences.iter().for_each(|difference| println!("{difference}"));
    assert!(differences.is_empty(), "{} differences, see above", differences.len());
    assert!(unused.is_empty(), "{} reasons that no difference needs, see above", unused.len());
}
