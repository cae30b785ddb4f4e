//! The commented run file that a user starts from.

use toml::Value;

use super::RunConfig;
use super::keys::Key;
use super::sections::all_keys;

/// A run file with every key, its meaning and its default, that trains on the texts `train`.
///
/// As it stands it trains a small byte-level model with four linear heads, on a CPU in minutes.
pub fn template(train: &[std::path::PathBuf]) -> String {
    let mut config = RunConfig::default();
    config.data.train = train.to_vec();
    let values = config.flattened();
    let mut text = HEADER.to_owned();
    let mut section = "";
    for key in all_keys() {
        if key.section != section {
            section = key.section;
            text += &format!("\n[{section}]\n");
        }
        text += &entry(key, values.get(&key.path()));
    }
    text
}

const HEADER: &str = "\
# A run of `sakiyomi train`. Values are the defaults, and any key may be left out; keys behind a # have no default.
# Any key can also be set on the command line: sakiyomi train RUN.toml train.steps=100
";

fn entry(key: &Key, value: Option<&Value>) -> String {
    let mut text = String::new();
    for line in key.meaning {
        text += &format!("#{line}\n");
    }
    match value {
        Some(value) => text + &format!("{} = {value}\n", key.name),
        None => text + &format!("# {} = {}\n", key.name, key.kind.placeholder()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_the_defaults() {
        let mut expected = RunConfig::default();
        expected.data.train = vec!["text.txt".into()];
        let text = template(&expected.data.train);
        assert_eq!(RunConfig::parse(&text, "run.toml", &[]).unwrap(), expected, "{text}");
    }

    #[test]
    fn the_template_has_every_key_with_its_meaning() {
        let text = template(&[]);
        for key in all_keys() {
            let line = text
                .lines()
                .position(|line| line.trim_start_matches("# ").starts_with(&format!("{} = ", key.name)));
            let line = line.unwrap_or_else(|| panic!("{} is missing", key.path()));
            assert!(text.lines().nth(line - 1).unwrap().starts_with("# "), "{} has no comment", key.path());
        }
        assert!(text.lines().all(|line| line.len() <= 130), "lines that fit a terminal");
    }
}
