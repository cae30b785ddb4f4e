//! Settings by the names under which they were typed: libraries speak of `train.steps`, who typed `--steps` knows that.

/// `result`, its message speaking of flags where it speaks of the settings that these have set. `typed` holds pairs of
/// setting and flag.
pub fn told_as_typed<T>(result: train::Result<T>, typed: &[(&str, &str)]) -> anyhow::Result<T> {
    result.map_err(|error| {
        let told = error.to_string();
        let typed = typed.iter().filter(|(setting, _)| told.contains(setting));
        let renamed = typed.fold(told.clone(), |told, (setting, flag)| told.replace(setting, flag));
        if renamed == told { error.into() } else { anyhow::Error::msg(renamed) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_typed_as_a_flag_is_called_by_it() {
        let refused = |typed: &[(&str, &str)]| {
            let config =
                train::RunConfig::parse("[data]\ntrain = \"a\"\n[run]\nthreads = 5000\n", "run.toml", &[]);
            told_as_typed(config, typed).unwrap_err().to_string()
        };
        assert!(refused(&[("train.steps", "--steps")]).starts_with("run.threads is 5000"));
        assert!(refused(&[("run.threads", "--threads")]).starts_with("--threads is 5000"));
    }
}
