//! What a verb shows: with `--json` one object on standard output, otherwise text for people. Progress and remarks go to
//! standard error.

use std::io::Write;

use serde::Serialize;

/// Where and how results are shown.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON object instead of text.
    pub json: bool,
}

impl Output {
    /// Shows the result: `value` as JSON, or `text`.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, value)?;
            writeln!(stdout)?;
        } else {
            writeln!(stdout, "{}", text().trim_end())?;
        }
        Ok(stdout.flush()?)
    }

    /// A piece of text as it comes, for people only.
    pub fn stream(&self, piece: &str) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(piece.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// A remark about the work, on standard error. One that cannot be written is no reason to stop.
    pub fn remark(&self, line: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
