//! Drafting without training: what followed the last tokens the last time they stood in the text (prompt lookup; Saxena 2023,
//! `apoorvumang/prompt-lookup-decoding`).

use model::Decoder;
use model::engine::{Engine, EngineWeights};
use objective::{Chooser, Drafter, Verified};
use tensor::Params;

/// Proposes what stands after the newest earlier place of the text that ends in the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The longest draft.
    pub longest: usize,
    /// At most this many tokens have to be the same; if nowhere so many are, one less is looked for, down to 1.
    pub most_matching: usize,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { longest: 8, most_matching: 3 }
    }
}

impl Drafter for Lookup {
    fn longest(&self) -> usize {
        self.longest
    }

    fn taps(&self) -> Vec<usize> {
        Vec::new()
    }

    fn pack(&self, _weights: &mut EngineWeights, _params: &Params) {}

    fn draft(
        &self,
        _engine: &mut Engine,
        _decoder: &Decoder,
        verified: &Verified,
        length: usize,
        chooser: &mut dyn Chooser,
    ) {
        let Some(from) = self.place(verified.tokens).filter(|_| length > 0) else { return };
        let mut draft: Vec<u32> = Vec::with_capacity(length);
        for place in from..from + length {
            // A repetition that reaches to the end of the text goes on into the draft.
            let token = verified.tokens.get(place).or_else(|| draft.get(place - verified.tokens.len()));
            let token = *token.expect("every place before this one is known");
            draft.push(token);
            chooser.propose(token);
        }
    }
}

impl Lookup {
    /// Index of the token after the match: the longest match, and of several the newest.
    fn place(&self, tokens: &[u32]) -> Option<usize> {
        let (last, before) = tokens.split_last()?;
        let mut best = (0, None);
        for (index, _) in before.iter().enumerate().rev().filter(|(_, token)| *token == last) {
            let earlier = before[..index].iter().rev().zip(before.iter().rev());
            let matching = 1 + earlier.take_while(|(a, b)| a == b).take(self.most_matching - 1).count();
            if matching > best.0 {
                best = (matching, Some(index + 1));
            }
            if matching == self.most_matching {
                break;
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_wins_and_then_the_newest() {
        let place = |tokens: &[u32]| Lookup::default().place(tokens);
        assert_eq!(place(&[]), None);
        assert_eq!(place(&[1]), None);
        assert_eq!(place(&[1, 2, 3]), None);
        assert_eq!(place(&[1, 1]), Some(1));
        assert_eq!(place(&[5, 1, 6, 1, 7, 1]), Some(4), "the newest of matches of one token");
        assert_eq!(place(&[4, 5, 1, 6, 1, 5, 1]), Some(3), "two tokens match before one");
        // Three are enough: the older match of four is no better than the newer of three.
        assert_eq!(place(&[9, 1, 2, 3, 7, 8, 1, 2, 3, 6, 9, 1, 2, 3]), Some(9));
    }
}
