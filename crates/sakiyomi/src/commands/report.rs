//! `sakiyomi report`: one HTML page from run folders.

use report::{MainJobFigures, comparison_page};
use serde::Serialize;

use super::figures;
use crate::arguments::Report;
use crate::failure::Verdict;
use crate::output::Output;

#[derive(Serialize)]
struct Reported {
    report: String,
    runs: usize,
    written: bool,
}

pub fn run(arguments: &Report, output: Output) -> anyhow::Result<Verdict> {
    let runs: Vec<MainJobFigures> =
        arguments.runs.iter().map(|folder| figures::of_run(folder)).collect::<anyhow::Result<_>>()?;
    let page = match runs.as_slice() {
        [run] => run.page(),
        _ => comparison_page("Comparison of runs", &runs),
    };
    if !arguments.dry_run {
        fs_err::write(&arguments.out, page.html())?;
    }
    let reported = Reported {
        report: arguments.out.display().to_string(),
        runs: runs.len(),
        written: !arguments.dry_run,
    };
    output.result(&reported, || match reported.written {
        true => format!("wrote {}", reported.report),
        false => format!("would write {} with {} runs (dry run)", reported.report, reported.runs),
    })?;
    Ok(Verdict::Done)
}
