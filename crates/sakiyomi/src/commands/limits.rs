//! Counts that are typed: more than anybody waits for is a typing error, and is told before the work begins.

use std::ops::RangeInclusive;

/// Times that something is measured.
pub const REPEATS: RangeInclusive<usize> = 1..=10_000;

/// Ids of a vocabulary whose tokens mean nothing: two can be told apart, and no published one is larger.
pub const VOCABULARIES: RangeInclusive<usize> = 2..=1 << 20;

/// Refuses a `count` that is not in `range`; `flag` named it.
///
/// # Errors
/// When it is not.
pub fn within(flag: &str, count: usize, range: RangeInclusive<usize>) -> anyhow::Result<()> {
    let (least, most) = range.into_inner();
    anyhow::ensure!((least..=most).contains(&count), "{flag} {count}: give {least} to {most}");
    Ok(())
}
