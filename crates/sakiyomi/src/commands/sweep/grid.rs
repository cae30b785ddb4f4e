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

/// Keys of which one says how long a run is.
const LENGTHS: [&str; 3] = ["train.steps", "train.tokens", "train.seconds"];

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
        Some(path) => (crate::commands::text_file::read(path)?, path.display().to_string()),
        None => (String::new(), "settings".to_owned()),
    };
    let set =
        base.iter().chain(axes.iter().flat_map(|axis| &axis.choices).flat_map(|choice| &choice.settings));
    if let Some((key, _)) = set.into_iter().find(|(key, _)| OWN_KEYS.contains(&key.as_str())) {
        anyhow::bail!("{key} is given by the sweep: leave it out");
    }
    let groups = axes.iter().flat_map(|axis| &axis.choices).map(|choice| &choice.settings);
    for group in groups.chain([&base]) {
        let lengths: Vec<&str> =
            group.iter().map(|(key, _)| key.as_str()).filter(|key| LENGTHS.contains(key)).collect();
        // Of overrides the last would win without a word.
        if let [first, second, ..] = lengths[..] {
            anyhow::bail!("{first} and {second} exclude each other: keep one of them");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "[settings]\ndata.train = \"text:a\"\n[text.a]\ntales_bytes = 10\n";

    fn expand(text: &str, set: &[&str]) -> anyhow::Result<Vec<SweepRun>> {
        let set: Vec<String> = set.iter().map(|&text| text.to_owned()).collect();
        let file = SweepFile::parse(&format!("{text}\n{SETTINGS}"), &set)?;
        runs(&file, Path::new("out"), &|name| PathBuf::from(format!("{name}.jsonl")))
    }

    fn names(runs: &[SweepRun]) -> Vec<String> {
        runs.iter().map(|run| run.place.name()).collect()
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", expand(text, &[]).unwrap_err())
    }

    #[test]
    fn every_choice_meets_every_other_with_every_seed() {
        let text = "seeds = [3, 1]\n[grid]\nobjective.head = [\"layer\", \"linear\"]\n\
                    [variants.n.9]\nobjective.n = 9\n[variants.n.10]\nobjective.n = 10\n";
        let runs = expand(text, &[]).unwrap();
        assert_eq!(
            names(&runs),
            [
                "n=9 head=layer seed=3",
                "n=9 head=linear seed=3",
                "n=10 head=layer seed=3",
                "n=10 head=linear seed=3",
                "n=9 head=layer seed=1",
                "n=9 head=linear seed=1",
                "n=10 head=layer seed=1",
                "n=10 head=linear seed=1",
            ]
        );
        let config = &runs[2].config;
        assert_eq!((config.objective.n, config.objective.head), (10, objective::HeadKind::Layer));
        assert_eq!((config.run.seed, config.run.name.as_str()), (3, "n=10 head=layer seed=3"));
        assert_eq!(config.data.train, [PathBuf::from("a.jsonl")]);
        assert!(config.run.folder.starts_with("out/runs") && runs[2].texts == ["a"]);
        assert_eq!(names(&expand("", &[]).unwrap()), ["all seed=1"]);
    }

    #[test]
    fn other_settings_are_another_run_and_threads_are_not() {
        let of = |set: &[&str]| {
            let run = expand("[grid]\ntrain.steps = [3]", set).unwrap().remove(0);
            (run.fingerprint, run.config.run.folder)
        };
        assert_eq!(of(&[]), of(&["settings.run.threads=1", "measure.prompts=3"]));
        for set in ["settings.train.batch=3", "text.a.seed=5", "seeds=[2]"] {
            let (fingerprint, folder) = of(&[set]);
            assert!(fingerprint != of(&[]).0 && folder != of(&[]).1, "{set}");
        }
    }

    #[test]
    fn a_run_starts_from_the_one_beside_it() {
        let text = "seeds = [1, 2]\n[grid]\ntrain.batch = [2, 3]\n[variants.method.base]\n\
                    [variants.method.full]\nmodel.init = \"run:method=base\"\ntrain.mode = \"full\"\n";
        let runs = expand(text, &[]).unwrap();
        let start = &runs[7];
        assert_eq!(start.place.name(), "method=full batch=3 seed=2");
        let base = &runs[start.after.unwrap()];
        assert_eq!(base.place.name(), "method=base batch=3 seed=2");
        assert_eq!(start.config.model.init, Some(base.config.run.folder.join("checkpoints/last")));
        let changed = expand(text, &["variants.method.base.train.steps=5"]).unwrap();
        assert_ne!(changed[7].fingerprint, start.fingerprint, "what it starts from is a part of it");

        let wrong = |init: &str| refusal(&text.replace("run:method=base", init));
        assert!(
            wrong("run:method=full").contains("no such run before this one"),
            "{}",
            wrong("run:method=full")
        );
        assert!(wrong("run:metod=base").contains("no axis metod; known are method, batch"));
        assert!(wrong("run:base").contains("write run:AXIS=CHOICE"));
    }

    #[test]
    fn what_cannot_be_a_grid_is_named() {
        assert_eq!(
            refusal("[grid]\ntrain.steps = []"),
            "grid.train.steps is an empty list: give at least one value"
        );
        assert_eq!(refusal("[grid]\ntrain.steps = 3"), "grid.train.steps is no list: write [value, value]");
        assert!(
            refusal("[grid]\ntrain.stesp = [3]")
                .ends_with("unknown key train.stesp; did you mean train.steps?")
        );
        assert!(refusal("[grid]\ntrain.steps = [0]").ends_with("train.steps is 0: give at least 1"));
        assert!(refusal("[grid]\ntrain.steps = [3, 3]").contains("3 is twice on the axis steps"));
        assert!(refusal("[variants.n]").contains("variants.n has no choices"));
        assert!(refusal("[variants]\nn = 3").contains("variants.n is no section"));
        assert!(refusal("[grid]\nrun.seed = [3]").contains("run.seed is given by the sweep"));
        let both = "[grid]\ntrain.steps = [3]\n[variants.a.b]\ntrain.steps = 3";
        assert!(refusal(both).contains("train.steps is set on the axes a and steps"), "{}", refusal(both));
        let same = "[variants.a.b]\ntrain.steps = 3\n[variants.a.c]\ntrain.steps = 3";
        assert!(refusal(same).contains("the same settings"), "{}", refusal(same));
        let text = "[variants.a.b]\ndata.train = \"text:b\"";
        assert!(refusal(text).contains("there is no [text.b]; known are a"), "{}", refusal(text));
    }
}
