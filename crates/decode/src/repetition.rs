//! How much a text repeats itself. Small models decoded greedily fall into loops, and a loop is easy to draft: a figure about
//! drafts says little without this one beside it.

use std::collections::HashSet;

/// Length of the spans that are looked for, in tokens: short enough to see a loop of one sentence, too long for chance.
const SPAN: usize = 16;

/// Of the spans of 16 tokens in each of `texts`, the share that stand earlier in the same text. None where all texts are
/// shorter.
pub fn repeated_share<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Option<f64> {
    let (mut spans, mut repeated) = (0usize, 0usize);
    for text in texts {
        let mut seen = HashSet::new();
        spans += text.windows(SPAN).len();
        repeated += text.windows(SPAN).filter(|span| !seen.insert(*span)).count();
    }
    (spans > 0).then(|| repeated as f64 / spans as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_seen_and_a_text_without_one_is_not() {
        let without: Vec<u32> = (0..100).collect();
        assert_eq!(repeated_share([without.as_slice()]), Some(0.0));
        // A loop of ten tokens: its first ten spans are new, all others stood there before.
        let looping: Vec<u32> = (0..100).map(|at| at % 10).collect();
        assert_eq!(repeated_share([looping.as_slice()]), Some(75.0 / 85.0));
        // Texts do not repeat each other.
        assert_eq!(repeated_share([without.as_slice(), without.as_slice()]), Some(0.0));
    }

    #[test]
    fn too_short_is_not_none_repeated() {
        assert_eq!(repeated_share([[7; 15].as_slice()]), None);
        assert_eq!(repeated_share([]), None);
    }
}
