//! What a verb shows: with `--json` one object on standard output, otherwise text for people. Progress and remarks go to
//! standard error.

use std::io::{Error, ErrorKind, Write};

use serde::Serialize;

/// Where and how results are shown.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON object instead of text.
    pub json: bool,
}

impl Output {
    /// Shows the result: `value` as JSON, or `text`. A reader that has gone away has seen enough: what was found decides the
    /// exit code all the same.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let shown = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        match write(&format!("{}\n", shown.trim_end())) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }

    /// A piece of text as it comes, for people only.
    pub fn stream(&self, piece: &str) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        Ok(write(piece)?)
    }

    /// A remark about the work, on standard error. One that cannot be written is no reason to stop.
    pub fn remark(&self, line: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn write(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Error::new(error.kind(), format!("standard output cannot be written: {error}")))
}
