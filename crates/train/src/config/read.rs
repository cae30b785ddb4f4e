//! From text and overrides to a [`RunConfig`], with the line and the nearest key in every refusal.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::RunConfig;
use super::keys::{Key, Kind, flatten};
use super::sections::all_keys;
use crate::error::{Error, Result};

/// A run file is written by hand.
const MOST_BYTES: u64 = 1 << 20;

impl RunConfig {
    /// Reads a run file, applies `section.key=value` overrides, and checks that the settings can work.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or holds a key or a value that a run file does not have.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let mut bytes = Vec::new();
        fs_err::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        Self::parse_bytes(&bytes, &path.display().to_string(), overrides)
    }

    /// As [`Self::read`], from the bytes of a file that is called `file` in messages. Whatever they are, it never panics: this
    /// is where a fuzzer begins.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse_bytes(bytes: &[u8], file: &str, overrides: &[String]) -> Result<Self> {
        let refuse =
            |line: usize, reason: String| Err(Error::NoToml { place: format!("{file}:{line}"), reason });
        let line = |end: usize| bytes[..end].iter().filter(|&&byte| byte == b'\n').count() + 1;
        if bytes.len() as u64 > MOST_BYTES {
            return refuse(1, format!("is longer than {MOST_BYTES} bytes: this is no run file"));
        }
        if let Some(place) = bytes.iter().position(|&byte| byte == 0) {
            return refuse(line(place), "holds a NUL byte: this is no run file".to_owned());
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text, file, overrides),
            Err(error) => {
                refuse(line(error.valid_up_to()), "is not UTF-8: save the file as UTF-8".to_owned())
            }
        }
    }

    /// As [`Self::parse_bytes`], from text.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, file: &str, overrides: &[String]) -> Result<Self> {
        let config = Self::parse_unchecked(text, file, overrides)?;
        config.validate()?;
        Ok(config)
    }

    /// Lets the number of steps follow from `train.tokens`; 0, which is no number of steps, stands beside `train.seconds`.
    fn derive_steps(&mut self) {
        if self.train.seconds.is_some() {
            self.train.steps = 0;
        } else if let Some(tokens) = self.train.tokens {
            self.train.steps = steps_of_tokens(tokens, self.tokens_per_step());
        }
    }

    /// As [`Self::parse`], without [`Self::validate`].
    pub(super) fn parse_unchecked(text: &str, file: &str, overrides: &[String]) -> Result<Self> {
        let lines = Lines::of(text);
        let mut table: Table = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            let reason = error.message().lines().next().unwrap_or_default().to_owned();
            Error::NoToml { place: format!("{file}:{line}"), reason }
        })?;
        let place = |path: &str| match lines.0.get(path) {
            Some(line) => format!("{file}:{line}"),
            None => file.to_owned(),
        };
        check(&mut table, "", &place)?;
        for text in overrides {
            apply_override(&mut table, text)?;
        }
        let steps_given = table.get("train").is_some_and(|train| train.get("steps").is_some());
        let architecture_given = table.get("model").and_then(|model| model.get("architecture")).is_some();
        let mut config: Self = table.try_into().map_err(|error: toml::de::Error| Error::NoToml {
            place: file.to_owned(),
            reason: error.message().to_owned(),
        })?;
        if config.model.init.is_some() && !architecture_given {
            config.model.architecture = None;
        }
        if !steps_given {
            config.derive_steps();
        }
        Ok(config)
    }
}

/// Checks every key of `table` against the declared ones; a single text where a list is expected becomes a list.
fn check(table: &mut Table, section: &str, place: &dyn Fn(&str) -> String) -> Result<()> {
    for (name, value) in table.iter_mut() {
        let path = join(section, name);
        if let Some(key) = all_keys().find(|key| key.path() == path) {
            accept(key, value, &place(&path))?;
            continue;
        }
        match value {
            Value::Table(inner) if is_section(&path) => check(inner, &path, place)?,
            _ if is_section(&path) => {
                let problem = format!("{path} is a section: write [{path}] and its keys below");
                return Err(Error::NoToml { place: place(&path), reason: problem });
            }
            _ => return Err(unknown(&path, place(&path))),
        }
    }
    Ok(())
}

fn is_section(path: &str) -> bool {
    all_keys().any(|key| key.section == path || key.section.starts_with(&format!("{path}.")))
}

/// Checks one value, and brings it to the form that the key stores.
fn accept(key: &Key, value: &mut Value, place: &str) -> Result<()> {
    if key.kind == Kind::Texts && value.is_str() {
        *value = Value::Array(vec![value.clone()]);
    }
    if key.kind.accepts(value) {
        return Ok(());
    }
    let mut expected = key.kind.expected();
    if let (Kind::OneOf(names), Value::String(given)) = (key.kind, &*value)
        && let Some(nearest) = nearest(given, names.iter().copied())
    {
        expected += &format!("; did you mean {nearest}?");
    }
    Err(Error::WrongValue { place: place.to_owned(), key: key.path(), found: value.to_string(), expected })
}

/// Keys of which one says how long a run is.
const LENGTHS: [&str; 3] = ["train.steps", "train.tokens", "train.seconds"];

/// Applies `section.key=value`. The value is TOML; words that are no TOML are text.
fn apply_override(table: &mut Table, text: &str) -> Result<()> {
    const PLACE: &str = "override";
    let Some((path, raw)) = text.split_once('=') else {
        let reason = format!("{text:?} is no override: write section.key=value");
        return Err(Error::NoToml { place: PLACE.to_owned(), reason });
    };
    let (path, raw) = (path.trim(), raw.trim());
    let parsed =
        toml::from_str::<Table>(&format!("value = {raw}")).ok().and_then(|mut table| table.remove("value"));
    if is_section(path) {
        // A table is each of its keys.
        let Some(Value::Table(values)) =
            parsed.filter(|value| value.as_table().is_some_and(|table| !table.is_empty()))
        else {
            let reason = format!("{path} is a section: write {path}.key=value, or {path}={{ key = value }}");
            return Err(Error::NoToml { place: PLACE.to_owned(), reason });
        };
        let mut found = Vec::new();
        flatten(path, &values, &mut |path, value| found.push((path.to_owned(), value.clone())));
        return found.into_iter().try_for_each(|(path, value)| replace(table, &path, value, PLACE));
    }
    let key = all_keys().find(|key| key.path() == path).ok_or_else(|| unknown(path, PLACE.to_owned()))?;
    let text_wanted = matches!(key.kind, Kind::Text | Kind::OneOf(_)) && !raw.starts_with(['"', '\'']);
    let value = match parsed {
        Some(value) if !text_wanted => value,
        _ => Value::String(raw.to_owned()),
    };
    replace(table, path, value, PLACE)
}

/// Puts `value` in the place of what the key at `path` has.
fn replace(table: &mut Table, path: &str, mut value: Value, place: &str) -> Result<()> {
    let key = all_keys().find(|key| key.path() == path).ok_or_else(|| unknown(path, place.to_owned()))?;
    accept(key, &mut value, place)?;
    // Starting from a checkpoint and describing a new model exclude each other: the command line wins over the file.
    if path == "model.init"
        && let Some(model) = table.get_mut("model").and_then(Value::as_table_mut)
    {
        model.remove("architecture");
    }
    // So do the three ways to say how long a run is.
    if LENGTHS.contains(&path)
        && let Some(train) = table.get_mut("train").and_then(Value::as_table_mut)
    {
        LENGTHS.iter().for_each(|length| drop(train.remove(length.trim_start_matches("train."))));
    }
    let mut section = table;
    for part in key.section.split('.') {
        let entry = section.entry(part).or_insert_with(|| Value::Table(Table::new()));
        section = entry.as_table_mut().expect("checked: sections are tables");
    }
    section.insert(key.name.to_owned(), value);
    Ok(())
}

/// Steps that see at least `tokens` inputs; 0 where a step sees none, which is refused elsewhere.
pub(super) fn steps_of_tokens(tokens: u64, per_step: usize) -> usize {
    match per_step {
        0 => 0,
        per_step => usize::try_from(tokens.div_ceil(per_step as u64)).unwrap_or(usize::MAX),
    }
}

fn unknown(path: &str, place: String) -> Error {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let in_section: Vec<&Key> = all_keys().filter(|key| key.section == section).collect();
    let hint = if let Some(name) = nearest(name, in_section.iter().map(|key| key.name)) {
        format!("did you mean {}?", join(section, name))
    } else if let Some(key) = all_keys().find(|key| key.name == name) {
        format!("did you mean {}?", key.path())
    } else if !in_section.is_empty() {
        let names: Vec<&str> = in_section.iter().map(|key| key.name).collect();
        format!("[{section}] has {}", names.join(", "))
    } else {
        let mut sections: Vec<&str> = all_keys().map(|key| key.section).collect();
        sections.dedup();
        // A whole unknown section, or a key of one: the name of the section is what was mistyped.
        let given = if section.is_empty() { name } else { section };
        match nearest(given, sections.iter().copied()) {
            Some(nearest) if section.is_empty() => format!("did you mean [{nearest}]?"),
            Some(nearest) => format!("did you mean {nearest}.{name}?"),
            None => format!("the sections are {}", sections.join(", ")),
        }
    };
    Error::UnknownKey { place, key: path.to_owned(), hint }
}

/// Nobody mistypes a key into something longer, and comparing takes time in proportion.
const LONGEST_KEY: usize = 64;

/// The candidate that was probably meant: at most a third of the letters (and at least two of them) may differ.
fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > LONGEST_KEY {
        return None;
    }
    let distance = |candidate: &str| strsim::damerau_levenshtein(given, candidate);
    let allowed = (given.len() / 3).max(2);
    candidates
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(d, _)| *d <= allowed)
        .min()
        .map(|(_, c)| c)
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// The line in which each key stands, counted from 1.
struct Lines(BTreeMap<String, usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let mut lines = Self(BTreeMap::new());
        if let Ok(table) = DeTable::parse(text) {
            lines.collect(text, "", table.get_ref());
        }
        lines
    }

    fn collect(&mut self, text: &str, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = join(section, name.get_ref());
            self.0.insert(path.clone(), line_at(text, name.span().start));
            if let DeValue::Table(inner) = value.get_ref() {
                self.collect(text, &path, inner);
            }
        }
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Schedule, TrainMode};

    fn refusal(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let text = format!("[data]\ntrain = \"a.txt\"\n{text}");
        RunConfig::parse(&text, "run.toml", &overrides).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_name_the_line_and_the_nearest_key() {
        assert_eq!(
            refusal("[train]\nstesp = 3", &[]),
            "run.toml:4: unknown key train.stesp; did you mean train.steps?"
        );
        assert_eq!(
            refusal("[train]\nseed = 3", &[]),
            "run.toml:4: unknown key train.seed; did you mean run.seed?"
        );
        assert_eq!(
            refusal("[trian]\nsteps = 3", &[]),
            "run.toml:3: unknown key trian; did you mean [train]?"
        );
        assert_eq!(
            refusal("[checkpoint]\nwhatever = 3", &[]),
            "run.toml:4: unknown key checkpoint.whatever; [checkpoint] has every, keep_last"
        );
        assert!(
            refusal("[model.architecture]\nlayer = 3", &[])
                .ends_with("did you mean model.architecture.layers?")
        );
        assert!(refusal("[zzzzzz]\n", &[]).contains("the sections are run, model, model.architecture, data"));
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_line() {
        let refusal = |bytes: &[u8]| RunConfig::parse_bytes(bytes, "run.toml", &[]).unwrap_err().to_string();
        assert_eq!(
            refusal(b"[data]\ntrain = \"caf\xe9\""),
            "run.toml:2: is not UTF-8: save the file as UTF-8"
        );
        assert_eq!(refusal(b"[data]\n\n\0"), "run.toml:3: holds a NUL byte: this is no run file");
        assert_eq!(
            refusal(&vec![b'#'; MOST_BYTES as usize + 1]),
            "run.toml:1: is longer than 1048576 bytes: this is no run file"
        );
    }

    /// Every single byte of a run file replaced, dropped or doubled, and ends cut off: an answer, never a panic.
    #[test]
    fn no_damage_makes_a_run_file_panic() {
        let text = crate::template(&["a.txt".into()]);
        let whole = text.as_bytes();
        let mut refused = 0;
        for place in (0..whole.len()).step_by(7) {
            let (before, after) = whole.split_at(place);
            for damaged in [
                [before, b"\"", &after[1..]].concat(),
                [before, b"[", after].concat(),
                [before, b"=.9e999", &after[1..]].concat(),
                [before, &after[1..]].concat(),
                [before, "\u{301}\r".as_bytes(), after].concat(),
                before.to_vec(),
            ] {
                if let Err(error) = RunConfig::parse_bytes(&damaged, "run.toml", &[]) {
                    assert!(!error.to_string().contains('\n'), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 1000, "{refused}");
    }

    #[test]
    fn overrides_get_the_same_check() {
        assert_eq!(
            refusal("", &["train.stesp=3"]),
            "override: unknown key train.stesp; did you mean train.steps?"
        );
        assert_eq!(
            refusal("", &["trian.steps=3"]),
            "override: unknown key trian.steps; did you mean train.steps?"
        );
        assert_eq!(
            refusal("", &["train.steps=many"]),
            "override: train.steps = \"many\": expected a whole number, 0 or more"
        );
        assert!(refusal("", &["train.steps"]).contains("write section.key=value"));
        for override_ in ["model.architecture=big", "model.architecture={}", "train=3"] {
            let reason = refusal("", &[override_]);
            assert!(reason.contains(" is a section: write "), "{reason}");
        }
        assert_eq!(
            refusal("", &["model.architecture={ widht = 64 }"]),
            "override: unknown key model.architecture.widht; did you mean model.architecture.width?"
        );
        assert_eq!(
            refusal("", &["train={ steps = \"many\" }"]),
            "override: train.steps = \"many\": expected a whole number, 0 or more"
        );
    }

    /// Each key that it names is replaced, as though each had been typed by itself.
    #[test]
    fn an_override_can_be_a_table() {
        let text = "[data]\ntrain = [\"a.txt\"]\n[model.architecture]\nlayers = 3\nwidth = 96\n[train]\ntokens = 5000\n";
        let parse = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
            RunConfig::parse(text, "run.toml", &overrides).unwrap()
        };
        let whole = parse(&["model.architecture={ preset = \"3M\", width = 64 }", "train={steps=7}"]);
        let single = parse(&["model.architecture.preset=3M", "model.architecture.width=64", "train.steps=7"]);
        assert_eq!(whole, single);
        assert_eq!(whole.train.steps, 7);
    }

    #[test]
    fn wrong_values_name_what_was_found_and_expected() {
        assert_eq!(
            refusal("[train]\n\nsteps = -1", &[]),
            "run.toml:5: train.steps = -1: expected a whole number, 0 or more"
        );
        assert_eq!(
            refusal("[objective]\nhead = \"liner\"", &[]),
            "run.toml:4: objective.head = \"liner\": expected one of layer, linear, causal, anticausal; did you mean linear?"
        );
        assert_eq!(refusal("[train]\nclip = true", &[]), "run.toml:4: train.clip = true: expected a number");
        assert!(refusal("train = 3", &[]).starts_with("run.toml:3: "), "a key twice");
        assert!(refusal("[train", &[]).starts_with("run.toml:3: "), "a broken line");
        assert_eq!(
            RunConfig::parse("train = 3", "run.toml", &[]).unwrap_err().to_string(),
            "run.toml:1: train is a section: write [train] and its keys below"
        );
    }

    #[test]
    fn overrides_win_over_the_file_and_take_bare_words() {
        let text = "[data]\ntrain = [\"a.txt\"]\n[train]\nsteps = 3\n";
        let overrides = [
            "train.steps=7",
            "train.schedule=wsd",
            "run.name=2024",
            "data.train=b c.txt",
            "objective.weights=[1, 0.5, 0.25, 0.125]",
            "model.architecture.preset=1M",
            "train.learning_rate=1",
        ];
        let config = RunConfig::parse(text, "run.toml", &overrides.map(str::to_owned)).unwrap();
        assert_eq!((config.train.steps, config.train.schedule), (7, Schedule::Wsd));
        assert_eq!(config.run.name, "2024");
        assert_eq!(config.data.train, [std::path::PathBuf::from("b c.txt")]);
        assert_eq!(config.objective.weights, [1.0, 0.5, 0.25, 0.125]);
        assert_eq!(config.model.architecture.unwrap().preset, "1M");
        assert_eq!(config.train.learning_rate, 1.0);
    }

    #[test]
    fn one_of_steps_tokens_and_seconds_says_how_long_a_run_is() {
        let parse = |train: &str, overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
            let text = format!(
                "[data]\ntrain = \"a.txt\"\n[train]\nbatch = 2\nlength = 10\naccumulate = 2\n{train}"
            );
            RunConfig::parse(&text, "run.toml", &overrides)
        };
        let length = |train: &str, overrides: &[&str]| {
            let train = parse(train, overrides).unwrap().train;
            (train.steps, train.tokens, train.seconds)
        };
        assert_eq!(length("", &[]), (600, None, None));
        assert_eq!(length("tokens = 81", &[]), (3, Some(81), None));
        assert_eq!(length("tokens = 80", &["train.batch=4"]), (1, Some(80), None));
        assert_eq!(length("seconds = 2.5", &[]), (0, None, Some(2.5)));
        assert_eq!(length("steps = 7", &["train.tokens=80"]), (2, Some(80), None), "the command line wins");
        assert_eq!(length("steps = 7", &["train.seconds=3"]), (0, None, Some(3.0)));
        assert_eq!(length("seconds = 7", &["train.steps=3"]), (3, None, None));
        for train in ["tokens = 81", "seconds = 2.5"] {
            let stored = parse(train, &[]).unwrap();
            assert_eq!(RunConfig::parse(&stored.to_toml(), "run.toml", &[]).unwrap(), stored);
        }
        let refusal = |train: &str| parse(train, &[]).unwrap_err().to_string();
        assert_eq!(
            refusal("steps = 7\ntokens = 80"),
            "train.tokens and train.steps exclude each other (80 tokens are 2 steps of 40): keep one of them"
        );
        assert_eq!(
            refusal("steps = 7\nseconds = 80"),
            "train.seconds and train.steps exclude each other: keep one of them"
        );
        assert_eq!(
            refusal("tokens = 7\nseconds = 80"),
            "train.seconds and train.tokens exclude each other: keep one of them"
        );
        assert_eq!(refusal("tokens = 0"), "train.tokens is 0: give at least 1");
        assert!(refusal("seconds = 0").starts_with("train.seconds is 0.0: give"));
        assert!(refusal("seconds = inf").starts_with("train.seconds is inf: give"));
        assert_eq!(refusal("steps = 0"), "train.steps is 0: give at least 1");
    }

    #[test]
    fn a_checkpoint_replaces_the_default_architecture_and_on_the_command_line_that_of_the_file() {
        let text = "[data]\ntrain = \"a.txt\"\n[model]\ninit = \"folder\"\n[train]\nmode = \"full\"\n";
        let config = RunConfig::parse(text, "run.toml", &[]).unwrap();
        assert_eq!(config.model.architecture, None);
        let text = "[data]\ntrain = \"a.txt\"\n[model.architecture]\npreset = \"3M\"\n";
        let overrides = ["model.init=folder".to_owned(), "train.mode=heads".to_owned()];
        let config = RunConfig::parse(text, "run.toml", &overrides).unwrap();
        assert_eq!((config.model.architecture, config.train.mode), (None, TrainMode::Heads));
    }
}
