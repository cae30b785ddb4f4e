//! `sakiyomi report`: one HTML page from run folders.

use std::io::Read;
use std::path::{Path, PathBuf};

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

/// Name of the page where the user gives none.
const PAGE: &str = "report.html";
/// What every page begins with.
const DOCTYPE: &[u8] = b"<!doctype html";

pub fn run(arguments: &Report, output: Output) -> anyhow::Result<Verdict> {
    let out = place(arguments)?;
    let runs: Vec<MainJobFigures> =
        arguments.runs.iter().map(|folder| figures::of_run(folder)).collect::<anyhow::Result<_>>()?;
    let page = match runs.as_slice() {
        [run] => run.page(),
        _ => comparison_page("Comparison of runs", &runs),
    };
    if !arguments.dry_run {
        write_page(&out, &page.html())?;
    }
    let reported =
        Reported { report: out.display().to_string(), runs: runs.len(), written: !arguments.dry_run };
    output.result(&reported, || match reported.written {
        true => format!("wrote {}", reported.report),
        false => format!("would write {} with {} runs (dry run)", reported.report, reported.runs),
    })?;
    Ok(Verdict::Done)
}

/// Writes `page` whole or not at all. A page that stands there is replaced; a file of another kind is not.
fn write_page(out: &Path, page: &str) -> anyhow::Result<()> {
    let mut begin = Vec::new();
    if out.exists() {
        fs_err::File::open(out)?.take(DOCTYPE.len() as u64).read_to_end(&mut begin)?;
        anyhow::ensure!(
            begin.eq_ignore_ascii_case(DOCTYPE),
            "--output {}: holds something else than a page; give another name, or remove it first",
            out.display()
        );
    }
    Ok(data::write_whole(out, page.as_bytes())?)
}

/// Where the page goes: what was asked for; else the folder of the one run, or, for several, here if nothing is there.
fn place(arguments: &Report) -> anyhow::Result<PathBuf> {
    match (&arguments.output, arguments.runs.as_slice()) {
        (Some(out), _) => Ok(out.clone()),
        (None, [run]) => Ok(run.join(PAGE)),
        (None, _) => {
            anyhow::ensure!(!Path::new(PAGE).exists(), "{PAGE} exists; give another name with --output");
            Ok(PathBuf::from(PAGE))
        }
    }
}
