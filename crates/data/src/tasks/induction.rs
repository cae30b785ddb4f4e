//! Induction: a name of two tokens that came before comes again, and its second token is to be told (2404.19737, section 4.1, in
//! numbers instead of stories).
//!
//! Noise in which one pair of numbers stands twice or more: `3,17,4,9,...,3=17`.

use super::PROMPT_END;
use crate::error::{Error, Result};
use crate::examples::Example;
use crate::random::Random;

/// Places of a prompt and numbers for them, at most: far more than a model reads.
const MOST_TOKENS: usize = 1_000_000;

/// Sizes of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Induction {
    /// Numbers that tokens are drawn from.
    pub symbols: usize,
    /// Tokens of a prompt.
    pub length: usize,
    /// Names, each of which stands in the prompt at least once.
    pub names: usize,
}

impl Induction {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If the names do not fit.
    pub fn validate(&self) -> Result<()> {
        let tokens_of_names = self.names.saturating_mul(2);
        if self.names == 0 || tokens_of_names >= self.length || tokens_of_names > self.symbols {
            let Self { symbols, length, names } = self;
            return Err(Error::Setting(format!(
                "{names} names of two of {symbols} numbers in {length} places: give 1 or more names, more numbers, or more places"
            )));
        }
        if self.length > MOST_TOKENS || self.symbols > MOST_TOKENS {
            let Self { symbols, length, .. } = self;
            return Err(Error::Setting(format!(
                "{length} places and {symbols} numbers: give at most {MOST_TOKENS} of each"
            )));
        }
        Ok(())
    }

    /// One prompt, which ends with the first token of a name, and the second.
    pub fn draw(&self, random: &mut Random) -> Example {
        let mut symbols: Vec<usize> = (0..self.symbols).collect();
        random.shuffle(&mut symbols);
        let (named, noise) = symbols.split_at(2 * self.names);
        let names: Vec<[usize; 2]> = named.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        // Each name once; every other place is noise or, one time in three, a name again.
        let mut pieces: Vec<Vec<usize>> = names.iter().map(|name| name.to_vec()).collect();
        let mut used = 2 * self.names;
        while used + 1 < self.length {
            let again = used + 3 <= self.length && (noise.is_empty() || random.chance(1, 3));
            let piece = match again {
                true => names[random.below(self.names)].to_vec(),
                false if noise.is_empty() => break,
                false => vec![noise[random.below(noise.len())]],
            };
            used += piece.len();
            pieces.push(piece);
        }
        random.shuffle(&mut pieces);
        let [first, second] = names[random.below(self.names)];
        let tokens = pieces.concat().into_iter().chain([first]).map(|token| token.to_string());
        let prompt = tokens.collect::<Vec<_>>().join(",") + PROMPT_END;
        Example { prompt, answer: second.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_follows_the_last_token_wherever_it_stood_before() {
        let task = Induction { symbols: 30, length: 24, names: 3 };
        task.validate().unwrap();
        let mut random = Random::new(4, 4);
        for _ in 0..100 {
            let example = task.draw(&mut random);
            let tokens: Vec<&str> = example.prompt.trim_end_matches('=').split(',').collect();
            assert_eq!(tokens.len(), 24);
            let last = tokens[23];
            let followers: Vec<&str> =
                tokens[..23].windows(2).filter(|pair| pair[0] == last).map(|pair| pair[1]).collect();
            assert!(!followers.is_empty() && followers.iter().all(|next| *next == example.answer));
        }
        assert!(Induction { names: 20, ..task }.validate().is_err());
        assert!(Induction { names: usize::MAX / 2 + 1, ..task }.validate().is_err());
        assert!(Induction { length: usize::MAX, ..task }.validate().is_err());
    }
}
