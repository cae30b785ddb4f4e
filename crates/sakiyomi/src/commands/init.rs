//! `sakiyomi init`: a commented run file.

use serde::Serialize;

use super::new_folder::absent;
use super::train::quoted;
use crate::arguments::Init;
use crate::failure::Verdict;
use crate::output::Output;

#[derive(Serialize)]
struct Written {
    file: Option<String>,
    text: String,
}

pub fn run(init: &Init, output: Output) -> anyhow::Result<Verdict> {
    let text = train::template(&[]);
    if init.dry_run {
        let shown = Written { file: None, text };
        output.result(&shown, || shown.text.clone())?;
        return Ok(Verdict::Done);
    }
    let file = init.file.display().to_string();
    absent(&init.file)?;
    data::write_whole(&init.file, text.as_bytes())?;
    let typed = quoted(&file);
    let written = Written { file: Some(file.clone()), text };
    output.result(&written, || {
        format!(
            "wrote {file}; next:\n  edit data.train in it, or give it below\n  \
             sakiyomi data show {typed} 'data.train=[\"my.txt\"]'\n  \
             sakiyomi train {typed} 'data.train=[\"my.txt\"]'"
        )
    })?;
    Ok(Verdict::Done)
}
