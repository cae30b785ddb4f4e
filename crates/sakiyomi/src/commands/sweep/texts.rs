//! Texts that a sweep makes or gathers: each becomes one file of JSON lines, once.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use data::digest::Digest;

use super::file::TextSpec;

/// Where the text `name` of a sweep in `output` lies.
pub fn path(output: &Path, name: &str, spec: &TextSpec) -> PathBuf {
    let mut digest = Digest::new();
    // Strings and numbers: nothing that JSON could refuse.
    digest.text(&serde_json::to_string(spec).unwrap_or_default());
    output.join("texts").join(format!("{name}-{:08x}.jsonl", digest.value() as u32))
}

/// Writes the text to `file`, unless it is there. Gives how many documents were passed over because they are no UTF-8.
///
/// # Errors
/// When a file or folder is missing, there is nothing to take, or nothing can be written.
pub fn prepare(name: &str, spec: &TextSpec, file: &Path) -> anyhow::Result<usize> {
    if file.exists() {
        return Ok(0);
    }
    let (texts, passed_over) = match spec.tales_bytes {
        Some(bytes) => (data::tales::tales(spec.seed, bytes), 0),
        None => gather(spec).with_context(|| format!("text.{name}"))?,
    };
    ensure!(!texts.is_empty(), "text.{name}: no file with text in it");
    let folder = file.parent().context("texts lie in a folder")?;
    fs_err::create_dir_all(folder)?;
    let mut writer = std::io::BufWriter::new(data::Unfinished::begin(file)?);
    for text in texts {
        serde_json::to_writer(&mut writer, &serde_json::json!({ "text": text }))?;
        writeln!(writer)?;
    }
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?;
    Ok(passed_over)
}

/// The files of `spec` as documents, in an order that the seed draws, so that a part is like the whole.
fn gather(spec: &TextSpec) -> anyhow::Result<(Vec<String>, usize)> {
    let mut files = Vec::new();
    for given in &spec.files {
        let root = expand(given)?;
        let mut found = Vec::new();
        collect(&root, &spec.extension, &mut found)?;
        for file in found {
            // The place below the root decides the order, so that it is the same wherever the root is.
            let below = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
            files.push((Digest::new().number(spec.seed).text(&below).value(), file));
        }
    }
    files.sort();
    let (mut texts, mut bytes, mut passed_over) = (Vec::new(), 0, 0);
    for (_, file) in files {
        if spec.bytes > 0 && bytes >= spec.bytes {
            break;
        }
        match String::from_utf8(fs_err::read(&file)?) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => {
                bytes += text.len() as u64;
                texts.push(text);
            }
            Err(_) => passed_over += 1,
        }
    }
    Ok((texts, passed_over))
}

/// The files with `extension` below `path`, or `path` itself where it is a file. Links to folders are not followed.
fn collect(path: &Path, extension: &str, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        ensure!(path.exists(), "{} is missing", path.display());
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in fs_err::read_dir(path)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            collect(&path, extension, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|given| given == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// A path in which `$NAME` at the beginning stands for an environment variable.
fn expand(path: &str) -> anyhow::Result<PathBuf> {
    let Some(rest) = path.strip_prefix('$') else { return Ok(path.into()) };
    let (name, below) = rest.split_once('/').map_or((rest, None), |(name, below)| (name, Some(below)));
    let value = std::env::var_os(name).with_context(|| {
        format!("the environment variable {name} is not set: set it to the folder of the files")
    })?;
    Ok(below.map_or_else(|| PathBuf::from(&value), |below| Path::new(&value).join(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_kind_are_gathered_up_to_a_size() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(folder.path().join("a/b")).unwrap();
        for (name, content) in
            [("1.py", &b"one"[..]), ("a/2.py", b"two"), ("a/b/3.py", b"six"), ("a/4.py", b"\xff")]
        {
            fs_err::write(folder.path().join(name), content).unwrap();
        }
        fs_err::write(folder.path().join("no.txt"), "no").unwrap();
        let spec = TextSpec {
            files: vec![folder.path().display().to_string()],
            extension: "py".into(),
            ..TextSpec::default()
        };
        let (mut texts, passed_over) = gather(&spec).unwrap();
        texts.sort();
        assert_eq!((texts, passed_over), (["one", "six", "two"].map(str::to_owned).to_vec(), 1));
        let (some, _) = gather(&TextSpec { bytes: 4, ..spec.clone() }).unwrap();
        assert_eq!(some.len(), 2);
        let orders: Vec<Vec<String>> =
            (0..8).map(|seed| gather(&TextSpec { seed, ..spec.clone() }).unwrap().0).collect();
        assert!(orders.iter().any(|order| *order != orders[0]), "the seed draws the order");

        let missing = TextSpec { files: vec!["$SAKIYOMI_NOT_SET/x".into()], ..spec };
        let message = format!("{:#}", prepare("code", &missing, &folder.path().join("out")).unwrap_err());
        assert!(
            message.contains("text.code") && message.contains("SAKIYOMI_NOT_SET is not set"),
            "{message}"
        );
    }
}
