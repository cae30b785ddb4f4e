//! The sweep file: what is the same in all runs, what differs, and what is measured.
//!
//! ```toml
//! seeds = [1, 2]
//! base = "run.toml"                    # a run file; may be left out
//!
//! [settings]                           # of a run file, for every run
//! data.train = "text:tales"            # a text that is described below
//!
//! [variants.n.1]                       # an axis `n` with named choices, each of which sets several keys
//! objective.kind = "next-token"
//! [variants.n.4]
//! objective.n = 4
//!
//! [grid]                               # an axis for each key
//! train.learning_rate = [1e-3, 2e-3]
//!
//! [text.tales]
//! tales_bytes = 1000000
//!
//! [measure]
//! prompts = 16
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// What a sweep file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SweepFile {
    /// Heading of the tables; empty: the name of the file.
    pub title: String,
    /// A sentence or two for the page.
    pub about: String,
    /// A run file that all runs start from.
    pub base: Option<PathBuf>,
    /// A run for each, of each variant.
    pub seeds: Vec<u64>,
    /// Keys of a run file, for all runs; they replace those of `base`.
    pub settings: Table,
    /// Axis, choice, and the keys that it sets.
    pub variants: Table,
    /// Key, and the values that it takes.
    pub grid: Table,
    /// Texts that are made or gathered for the runs, which name them `text:NAME`.
    pub text: BTreeMap<String, TextSpec>,
    /// The choice against which the tokens per forward of the others on its axis are compared, prompt by prompt, such as `n=1`;
    /// empty: none.
    pub baseline: String,
    /// What is measured after training.
    pub measure: MeasureSpec,
}

impl Default for SweepFile {
    fn default() -> Self {
        Self {
            title: String::new(),
            about: String::new(),
            base: None,
            seeds: vec![1],
            settings: Table::new(),
            variants: Table::new(),
            grid: Table::new(),
            text: BTreeMap::new(),
            baseline: String::new(),
            measure: MeasureSpec::default(),
        }
    }
}

/// A text that is made or gathered before the runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextSpec {
    /// Bytes of tales of the built-in generator.
    pub tales_bytes: Option<usize>,
    /// Decides which tales are told, or which files are taken where `bytes` bounds them.
    pub seed: u64,
    /// Files, and folders of files; `$NAME` at the beginning stands for the environment variable.
    pub files: Vec<String>,
    /// Files of a folder that are taken.
    pub extension: String,
    /// Take files until they hold as many bytes; 0: all.
    pub bytes: u64,
}

/// What is measured after training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasureSpec {
    /// Batches of held-out text; 0: all.
    pub batches: usize,
    /// Held-out prompts that are continued; 0: none.
    pub prompts: usize,
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Tokens written after each.
    pub new_tokens: usize,
    /// Times that each prompt is continued in each way when speed is measured.
    pub repeats: usize,
}

impl Default for MeasureSpec {
    fn default() -> Self {
        Self { batches: 0, prompts: 16, prompt_tokens: 64, new_tokens: 128, repeats: 1 }
    }
}

const KEYS: &[&str] =
    &["title", "about", "base", "seeds", "settings", "variants", "grid", "text", "baseline", "measure"];
const TEXT_KEYS: &[&str] = &["tales_bytes", "seed", "files", "extension", "bytes"];
const MEASURE_KEYS: &[&str] = &["batches", "prompts", "prompt_tokens", "new_tokens", "repeats"];

/// More prompts, tokens or repeats than this are a typing error.
const MOST: usize = 1 << 20;

impl SweepFile {
    /// Reads `path` and replaces values by those of `overrides` (`key=value`).
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or holds a key or a value that a sweep file does not have. The keys of run
    /// files in it are checked when runs are made of them.
    pub fn read(path: &Path, overrides: &[String]) -> anyhow::Result<Self> {
        let text = crate::commands::text_file::read(path)?;
        Self::parse(&text, overrides).with_context(|| path.display().to_string())
    }

    /// As [`Self::read`], from text.
    pub fn parse(text: &str, overrides: &[String]) -> anyhow::Result<Self> {
        let mut table: Table = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("line {line}: {}", error.message().lines().next().unwrap_or_default())
        })?;
        for text in overrides {
            replace(&mut table, text)?;
        }
        known(&table, "", KEYS)?;
        if let Some(measure) = table.get("measure").and_then(Value::as_table) {
            known(measure, "measure.", MEASURE_KEYS)?;
        }
        for (name, spec) in table.get("text").and_then(Value::as_table).into_iter().flatten() {
            if let Some(spec) = spec.as_table() {
                known(spec, &format!("text.{name}."), TEXT_KEYS)?;
            }
        }
        let file: Self = table.try_into().map_err(|error: toml::de::Error| {
            // The error says on lines of their own what is wrong and where.
            anyhow::anyhow!("{}", error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
        })?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.seeds.is_empty(), "seeds is an empty list: give at least one");
        for (name, spec) in &self.text {
            let sources = usize::from(spec.tales_bytes.is_some()) + usize::from(!spec.files.is_empty());
            ensure!(sources == 1, "text.{name}: give either tales_bytes or files");
            ensure!(spec.tales_bytes != Some(0), "text.{name}.tales_bytes is 0: give at least 1");
        }
        ensure!(
            self.baseline.is_empty() || self.baseline.contains('='),
            "baseline is {:?}: give axis=choice, such as n=1",
            self.baseline
        );
        let MeasureSpec { prompts, prompt_tokens, new_tokens, repeats, .. } = self.measure;
        for (key, value, least) in [
            ("prompts", prompts, 0),
            ("prompt_tokens", prompt_tokens, 1),
            ("new_tokens", new_tokens, 2),
            ("repeats", repeats, 1),
        ] {
            ensure!((least..=MOST).contains(&value), "measure.{key} is {value}: give {least} to {MOST}");
        }
        Ok(())
    }
}

/// Replaces a value of the file. The value is TOML; words that are no TOML are text.
fn replace(table: &mut Table, text: &str) -> anyhow::Result<()> {
    let Some((path, raw)) = text.split_once('=') else {
        bail!("--set {text:?}: write key=value");
    };
    let parsed = toml::from_str::<Table>(&format!("value = {raw}")).ok();
    let value = parsed.and_then(|mut table| table.remove("value"));
    let value = value.unwrap_or_else(|| Value::String(raw.trim().to_owned()));
    let mut parts: Vec<&str> = path.trim().split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut section = table;
    for part in parts {
        let entry = section.entry(part).or_insert_with(|| Value::Table(Table::new()));
        section = entry.as_table_mut().with_context(|| format!("--set {text}: {part} is no section"))?;
    }
    section.insert(last.to_owned(), value);
    Ok(())
}

/// Refuses keys of `table` that are not among `names`.
fn known(table: &Table, section: &str, names: &[&str]) -> anyhow::Result<()> {
    if let Some(key) = table.keys().find(|key| !names.contains(&key.as_str())) {
        let nearest = names.iter().min_by_key(|name| strsim::damerau_levenshtein(key, name));
        let near = nearest.filter(|name| strsim::damerau_levenshtein(key, name) <= (key.len() / 3).max(2));
        let hint = match near {
            Some(name) => format!("did you mean {section}{name}?"),
            None => format!("known are {}", names.join(", ")),
        };
        bail!("unknown key {section}{key}; {hint}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        SweepFile::parse(text, &overrides).unwrap_err().to_string()
    }

    #[test]
    fn what_no_sweep_file_has_is_named() {
        assert_eq!(refusal("sedes = [1]", &[]), "unknown key sedes; did you mean seeds?");
        assert_eq!(
            refusal("[measure]\nprompt = 3", &[]),
            "unknown key measure.prompt; did you mean measure.prompts?"
        );
        assert_eq!(
            refusal("[text.a]\nfile = []", &[]),
            "unknown key text.a.file; did you mean text.a.files?"
        );
        assert!(refusal("whatever = 1", &[]).contains("known are title, about"));
        assert!(refusal("seeds = [1\n[grid]", &[]).starts_with("line "));
        assert_eq!(refusal("seeds = []", &[]), "seeds is an empty list: give at least one");
        assert_eq!(refusal("[text.a]\nseed = 1", &[]), "text.a: give either tales_bytes or files");
        assert!(refusal("[measure]\nnew_tokens = 1", &[]).starts_with("measure.new_tokens is 1: give 2"));
        assert!(refusal("baseline = 'n'", &[]).contains("give axis=choice"));
        assert!(refusal("seeds = 3", &[]).contains("seeds"), "{}", refusal("seeds = 3", &[]));
        assert!(!refusal("seeds = 3", &[]).contains('\n'), "{}", refusal("seeds = 3", &[]));
        assert!(refusal("", &["seeds"]).contains("write key=value"));
    }

    #[test]
    fn values_can_be_replaced() {
        let text = "seeds = [1, 2]\n[settings]\ntrain.steps = 3\n[text.code]\nfiles = [\"$CODE\"]\n";
        let overrides =
            ["seeds=[7]", "settings.train.steps=5", "text.code.files=[\"here\"]", "title=two words"];
        let file = SweepFile::parse(text, &overrides.map(str::to_owned)).unwrap();
        assert_eq!((file.seeds, file.title.as_str()), (vec![7], "two words"));
        assert_eq!(file.settings["train"]["steps"].as_integer(), Some(5));
        assert_eq!(file.text["code"].files, ["here"]);
    }
}
