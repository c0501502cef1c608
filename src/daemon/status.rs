//! The counters, written for whoever asks: to the status file, or to the log.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::Fs;
use crate::private_file;
use crate::stats::Stats;

pub(super) struct Status {
    pub stats: Arc<Stats>,
    pub fs: Arc<Fs>,
    pub file: Option<PathBuf>,
    pub runtime: tokio::runtime::Handle,
}

impl Status {
    pub fn write(&self) {
        self.fs.sweep();
        let mut status = self.stats.to_json();
        status["inodes"] = self.fs.inode_count().into();
        status["open_handles"] = self.fs.handle_count().into();
        let (drafts, waiting, spool_bytes) = self.fs.unsent();
        status["drafts"] = drafts.into();
        status["waiting"] = waiting.into();
        status["spool_bytes"] = spool_bytes.into();
        status["tasks"] = self.runtime.metrics().num_alive_tasks().into();
        status["pid"] = std::process::id().into();
        let Some(file) = &self.file else {
            tracing::info!(%status, "counters");
            return;
        };
        if let Err(error) = replace(file, &format!("{status:#}\n")) {
            tracing::warn!(file = %file.display(), %error, "cannot write the status file");
        }
    }
}

/// Readers see the old text or the new one, never half of it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut next = file.as_os_str().to_owned();
    next.push(".new");
    let next = Path::new(&next);
    let mut out = private_file::open(next, OpenOptions::new().write(true).create(true).truncate(true))?;
    out.write_all(text.as_bytes())?;
    fs::rename(next, file)
}
