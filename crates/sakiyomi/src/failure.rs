//! From errors to one line and an exit code: 0 done, 1 the thing checked does not hold, 2 bad input or settings, 3 a fault of
//! this program, 130 stopped by Ctrl-C before there was anything to keep.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::flags;
use crate::interrupt::ENDED_BY_SIGNAL;

/// How a verb ended, if no error stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did what was asked.
    Done,
    /// What it checked does not hold.
    DoesNotHold,
}

/// Runs a verb and turns its end into an exit code, with one line on standard error when it failed. The code stands even if
/// the line cannot be written.
pub fn report(verb: impl FnOnce() -> anyhow::Result<Verdict>) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        if data::inside_library() {
            return;
        }
        let _ = writeln!(
            std::io::stderr(),
            "sakiyomi: internal error: {panic}; please report it with the command that you ran"
        );
    }));
    match catch_unwind(AssertUnwindSafe(verb)) {
        Ok(Ok(Verdict::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Verdict::DoesNotHold)) => ExitCode::from(1),
        Ok(Err(error)) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let _ = writeln!(std::io::stderr(), "sakiyomi: {}", one_line(&error));
            ExitCode::from(if was_stopped(&error) { ENDED_BY_SIGNAL } else { 2 })
        }
        Err(_) => ExitCode::from(3),
    }
}

/// What the arguments lack, on one line; help and version as they were asked for.
pub fn report_usage(usage: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let asked = matches!(usage.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || usage.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = usage.print();
        return ExitCode::from(if asked { 0 } else { 2 });
    }
    if let Some(refused) = flags::value_refused(usage) {
        let _ = writeln!(std::io::stderr(), "sakiyomi: {refused}");
        return ExitCode::from(2);
    }
    let text = usage.to_string();
    let ends = ["\n\nUsage:", "\n\nFor more information"].into_iter().filter_map(|end| text.find(end)).min();
    let told = text[..ends.unwrap_or(text.len())].trim_start_matches("error: ");
    let words: Vec<&str> = told.split_whitespace().collect();
    let _ = writeln!(std::io::stderr(), "sakiyomi: {}; --help tells what there is", words.join(" "));
    ExitCode::from(2)
}

/// The chain of causes on one line, leaving out causes that the line before already tells, and without the control
/// characters that a file's name or content may hold.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = flags::of_a_library(cause).unwrap_or_else(|| cause.to_string());
        let text = text.replace(char::is_control, " ");
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(text.trim());
    }
    line
}

/// Whether the user ended the reading of text.
pub fn was_stopped(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let by_training = |error: &train::Error| matches!(error, train::Error::Data(data::Error::Stopped));
        matches!(cause.downcast_ref(), Some(data::Error::Stopped))
            || cause.downcast_ref().is_some_and(by_training)
    })
}

/// Whoever read our output has seen enough: not a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_on_one_line() {
        let error = anyhow::anyhow!("a.json: no such\nfile")
            .context("loading a.json: no such file")
            .context("reading");
        assert_eq!(one_line(&error), "reading: loading a.json: no such file");
    }

    #[test]
    fn settings_of_libraries_are_told_as_flags() {
        let setting = |setting| decode::Error::Setting { setting, problem: "0: give more".to_owned() };
        assert_eq!(one_line(&setting("max_new_tokens").into()), "--max-new-tokens: 0: give more");
        assert_eq!(one_line(&setting("draft_length").into()), "--speculate: 0: give more");
        let lens = lens::Error::Setting { setting: "k", problem: "1: give more".to_owned() };
        assert_eq!(one_line(&lens.into()), "-k: 1: give more");
    }

    #[test]
    fn what_a_file_holds_cannot_steer_the_terminal() {
        assert_eq!(one_line(&anyhow::anyhow!("unknown key a\r\u{1b}[2Jb")), "unknown key a  [2Jb");
    }
}
