//! Settings by the names under which they were typed: libraries speak of `train.steps`, who typed `--steps` knows that.

use std::error::Error as _;
use std::fmt::Display;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};

/// `result`, its message speaking of flags where it speaks of the settings that these have set. `typed` holds pairs of
/// setting and flag.
pub fn told_as_typed<T, E>(result: Result<T, E>, typed: &[(&str, &str)]) -> anyhow::Result<T>
where
    E: Display + Into<anyhow::Error>,
{
    result.map_err(|error| {
        let told = error.to_string();
        let typed = typed.iter().filter(|(setting, _)| told.contains(setting));
        let renamed = typed.fold(told.clone(), |told, (setting, flag)| told.replace(setting, flag));
        if renamed == told { error.into() } else { anyhow::Error::msg(renamed) }
    })
}

/// What is wrong with a setting of a library whose settings are the flags of this program under almost the same names;
/// `None` for every other error.
pub fn of_a_library(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let (setting, problem) = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(decode::Error::Setting { setting, problem }), _) => (setting, problem),
        (_, Some(lens::Error::Setting { setting, problem })) => (setting, problem),
        _ => return None,
    };
    let flag = match *setting {
        "draft_length" => "--speculate".to_owned(),
        letter if letter.len() == 1 => format!("-{letter}"),
        word => format!("--{}", word.replace('_', "-")),
    };
    Some(format!("{flag}: {problem}"))
}

/// What a flag takes whose value was refused, in place of how a library for numbers says so.
pub fn value_refused(usage: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};
    let refused = usage.source()?;
    let wanted = match refused.downcast_ref::<ParseIntError>().map(ParseIntError::kind) {
        Some(IntErrorKind::PosOverflow) => "that is too large a number",
        Some(_) => "give a whole number, 0 or more",
        None if refused.is::<ParseFloatError>() => "give a number",
        None => return None,
    };
    let told = |kind| match usage.get(kind) {
        Some(ContextValue::String(text)) => text.split_whitespace().next(),
        _ => None,
    };
    let (flag, value) = (told(ContextKind::InvalidArg)?, told(ContextKind::InvalidValue).unwrap_or("\"\""));
    Some(format!("{flag} {value}: {wanted}"))
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
