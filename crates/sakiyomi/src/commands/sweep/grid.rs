//! From a sweep file to its runs: every choice on every axis, with every seed.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use data::digest::Digest;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use train::RunConfig;

use super::file::SweepFile;

/// Stands before the name of a text of the sweep.
pub const TEXT: &str = "text:";
/// Stands before the choice whose run a run starts from: `run:AXIS=CHOICE`.
pub const RUN: &str = "run:";

/// Keys of a run file that a sweep gives itself.
const OWN_KEYS: [&str; 4] = ["run.folder", "run.name", "run.seed", "data.cache"];

/// What a run is called, and where it stands in the grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The choice on each axis.
    pub choices: Vec<(String, String)>,
    /// Seed of the run.
    pub seed: u64,
}

impl Place {
    /// The choices without the seed: what is averaged over seeds.
    pub fn variant(&self) -> String {
        match self.choices.is_empty() {
            true => "all".to_owned(),
            false => self
                .choices
                .iter()
                .map(|(axis, choice)| format!("{axis}={choice}"))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// The name of the run.
    pub fn name(&self) -> String {
        format!("{} seed={}", self.variant(), self.seed)
    }
}

/// A run of the sweep.
#[derive(Clone, Debug)]
pub struct SweepRun {
    /// Where it stands in the grid.
    pub place: Place,
    /// Its settings, complete; texts and runs of the sweep in them are paths.
    pub config: RunConfig,
    /// Names of the texts of the sweep that it reads.
    pub texts: Vec<String>,
    /// Index of the run whose checkpoint it starts from; an earlier one.
    pub after: Option<usize>,
    /// Of everything that decides what training gives.
    pub fingerprint: String,
}

struct Axis {
    name: String,
    choices: Vec<Choice>,
}

struct Choice {
    name: String,
    settings: Vec<(String, Value)>,
}

/// All runs of `file`, the last axis varying fastest and the seeds slowest. Runs and what they share lie in `output`; a text of
/// the sweep is where `text_path` says.
///
/// # Errors
/// Names the axis, or the run and what is wrong with its settings.
pub fn runs(
    file: &SweepFile,
    output: &Path,
    text_path: &dyn Fn(&str) -> PathBuf,
) -> anyhow::Result<Vec<SweepRun>> {
    let axes = axes(file)?;
    let mut base = Vec::new();
    flatten("", &file.settings, &mut base);
    let (base_text, base_name) = match &file.base {
        Some(path) => (fs_err::read_to_string(path)?, path.display().to_string()),
        None => (String::new(), "settings".to_owned()),
    };
    let set =
        base.iter().chain(axes.iter().flat_map(|axis| &axis.choices).flat_map(|choice| &choice.settings));
    if let Some((key, _)) = set.into_iter().find(|(key, _)| OWN_KEYS.contains(&key.as_str())) {
        anyhow::bail!("{key} is given by the sweep: leave it out");
    }
    let mut runs: Vec<SweepRun> = Vec::new();
    // Seeds vary slowest: a sweep that is cut short has every variant once before it has any of them twice.
    for &seed in &file.seeds {
        for number in 0..axes.iter().map(|axis| axis.choices.len()).product() {
            let chosen = choices(&axes, number);
            let settings = base.iter().chain(chosen.iter().flat_map(|(_, choice)| &choice.settings));
            let overrides: Vec<String> = settings.map(|(key, value)| format!("{key}={value}")).collect();
            let choices =
                chosen.iter().map(|(axis, choice)| (axis.name.clone(), choice.name.clone())).collect();
            let place = Place { choices, seed };
            let run = RunConfig::parse(&base_text, &base_name, &overrides)
                .map_err(anyhow::Error::from)
                .and_then(|config| complete(config, place.clone(), file, output, text_path, &runs));
            runs.push(run.with_context(|| place.variant())?);
        }
    }
    let mut fingerprints: Vec<&str> = runs.iter().map(|run| run.fingerprint.as_str()).collect();
    fingerprints.sort_unstable();
    ensure!(
        fingerprints.windows(2).all(|pair| pair[0] != pair[1]),
        "two runs have the same settings and seed"
    );
    Ok(runs)
}

/// The choice on each axis of the variant `number`, the last axis varying fastest.
fn choices(axes: &[Axis], mut number: usize) -> Vec<(&Axis, &Choice)> {
    let mut chosen = Vec::new();
    for axis in axes.iter().rev() {
        chosen.push((axis, &axis.choices[number % axis.choices.len()]));
        number /= axis.choices.len();
    }
    chosen.reverse();
    chosen
}

/// The axes: named choices first, then those of the grid, each in the order of the file.
fn axes(file: &SweepFile) -> anyhow::Result<Vec<Axis>> {
    let mut axes = Vec::new();
    for (name, choices) in &file.variants {
        let table = |value: &Value, what: &str| {
            value
                .as_table()
                .cloned()
                .with_context(|| format!("{what} is no section: write [{what}.NAME] and its keys below"))
        };
        let mut axis = Axis { name: name.clone(), choices: Vec::new() };
        for (choice, settings) in &table(choices, &format!("variants.{name}"))? {
            let mut flat = Vec::new();
            flatten("", &table(settings, &format!("variants.{name}"))?, &mut flat);
            axis.choices.push(Choice { name: choice.clone(), settings: flat });
        }
        ensure!(!axis.choices.is_empty(), "variants.{name} has no choices: give [variants.{name}.CHOICE]");
        axes.push(axis);
    }
    let mut grid = Vec::new();
    flatten("", &file.grid, &mut grid);
    for (key, values) in grid {
        let values =
            values.as_array().with_context(|| format!("grid.{key} is no list: write [value, value]"))?;
        ensure!(!values.is_empty(), "grid.{key} is an empty list: give at least one value");
        let choice = |value: &Value| Choice {
            name: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            settings: vec![(key.clone(), value.clone())],
        };
        let name = key.rsplit('.').next().unwrap_or(&key).to_owned();
        axes.push(Axis { name, choices: values.iter().map(choice).collect() });
    }
    for (index, axis) in axes.iter().enumerate() {
        let twice = axes[..index].iter().any(|other| other.name == axis.name);
        ensure!(!twice, "two axes are called {}: rename one of them", axis.name);
        for (other, choice) in axis.choices.iter().enumerate() {
            let twice = axis.choices[..other].iter().any(|other| other.name == choice.name);
            ensure!(!twice, "{} is twice on the axis {}", choice.name, axis.name);
        }
        for key in axis.choices.iter().flat_map(|choice| &choice.settings).map(|(key, _)| key) {
            let both = axes[..index].iter().find(|other| {
                other.choices.iter().flat_map(|choice| &choice.settings).any(|(other, _)| other == key)
            });
            if let Some(other) = both {
                anyhow::bail!("{key} is set on the axes {} and {}: keep one of them", other.name, axis.name);
            }
        }
    }
    Ok(axes)
}

/// Settings of a run file that have a meaning of their own in a sweep.
fn complete(
    mut config: RunConfig,
    place: Place,
    file: &SweepFile,
    output: &Path,
    text_path: &dyn Fn(&str) -> PathBuf,
    earlier: &[SweepRun],
) -> anyhow::Result<SweepRun> {
    config.run.seed = place.seed;
    config.run.name = place.name();
    config.run.folder = PathBuf::new();
    config.data.cache = PathBuf::new();
    let mut digest = Digest::new();
    digest.text(
        &RunConfig {
            run: train::config::RunSection { threads: 0, name: String::new(), ..config.run.clone() },
            ..config.clone()
        }
        .to_toml(),
    );
    let mut texts = Vec::new();
    for path in config.data.train.iter_mut().chain(&mut config.data.held_out) {
        let Some(name) = path.to_str().and_then(|path| path.strip_prefix(TEXT)) else { continue };
        let spec = file.text.get(name).with_context(|| {
            format!("text:{name}: there is no [text.{name}]; known are {}", names(file.text.keys()))
        })?;
        digest.text(&serde_json::to_string(spec)?);
        texts.push(name.to_owned());
        *path = text_path(name);
    }
    let mut after = None;
    let start = config.model.init.as_ref().and_then(|init| init.to_str()?.strip_prefix(RUN));
    if let Some(start) = start {
        let found = start_run(start, &place, earlier)?;
        digest.text(&earlier[found].fingerprint);
        config.model.init = Some(train::RunFolder::new(&earlier[found].config.run.folder).last());
        after = Some(found);
    }
    let fingerprint = format!("{:032x}", digest.value());
    config.run.folder = output.join("runs").join(folder_name(&place, &fingerprint));
    config.data.cache = output.join("cache");
    Ok(SweepRun { place, config, texts, after, fingerprint })
}

/// The run that differs from `place` only in that it has `start` (`AXIS=CHOICE`).
fn start_run(start: &str, place: &Place, earlier: &[SweepRun]) -> anyhow::Result<usize> {
    let (axis, choice) =
        start.split_once('=').with_context(|| format!("run:{start}: write run:AXIS=CHOICE"))?;
    let mut wanted = place.clone();
    let entry = wanted.choices.iter_mut().find(|(name, _)| name == axis);
    let axes = names(place.choices.iter().map(|(name, _)| name));
    entry.with_context(|| format!("run:{start}: there is no axis {axis}; known are {axes}"))?.1 =
        choice.to_owned();
    earlier.iter().position(|run| run.place == wanted).with_context(|| {
        format!("run:{start}: there is no such run before this one; a choice stands above those that start from it")
    })
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A name for people, and enough of the fingerprint that other settings go elsewhere.
fn folder_name(place: &Place, fingerprint: &str) -> String {
    let letter = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => letter,
        ' ' => '_',
        _ => '-',
    };
    let name: String = place.name().chars().map(letter).take(120).collect();
    format!("{name}_{}", &fingerprint[..8])
}

/// Every value of `table` that is no table itself, under its dotted key.
fn flatten(prefix: &str, table: &Table, found: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(&path, inner, found),
            value => found.push((path, value.clone())),
        }
    }
}
