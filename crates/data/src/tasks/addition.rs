//! Addition of numbers with several digits, with the steps written out.
//!
//! `358+467=8+7+0=15;5+6+1=12;3+4+1=8;825`: the digits from the last to the first with what is carried, then the sum.

use super::PROMPT_END;
use crate::examples::Example;
use crate::random::Random;

/// Sizes of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Most digits of a number; how many it has is drawn, all numbers of digits alike.
    pub digits: usize,
    /// Whether the steps stand before the sum.
    pub steps: bool,
}

/// More digits than this do not fit into the numbers that are added.
pub const MOST_DIGITS: usize = 18;

impl Addition {
    /// One sum.
    pub fn draw(&self, random: &mut Random) -> Example {
        let mut number = || {
            let digits = 1 + random.below(self.digits);
            random.below(10usize.pow(digits as u32))
        };
        let (a, b) = (number(), number());
        let mut answer = String::new();
        if self.steps {
            let (mut left, mut right, mut carried) = (a, b, 0);
            loop {
                let sum = left % 10 + right % 10 + carried;
                answer += &format!("{}+{}+{carried}={sum};", left % 10, right % 10);
                (left, right, carried) = (left / 10, right / 10, sum / 10);
                if left + right == 0 {
                    break;
                }
            }
        }
        answer += &(a + b).to_string();
        Example { prompt: format!("{a}+{b}{PROMPT_END}"), answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_their_steps_come_out_right() {
        let mut random = Random::new(1, 1);
        for _ in 0..100 {
            let example = Addition { digits: 4, steps: true }.draw(&mut random);
            let (a, b) = example.prompt.trim_end_matches('=').split_once('+').unwrap();
            let sum = a.parse::<u64>().unwrap() + b.parse::<u64>().unwrap();
            let (steps, last) = example.answer.rsplit_once(';').unwrap();
            assert_eq!(last, sum.to_string());
            assert_eq!(steps.split(';').count(), a.len().max(b.len()));
            for step in steps.split(';') {
                let (terms, result) = step.split_once('=').unwrap();
                let added: u64 = terms.split('+').map(|term| term.parse::<u64>().unwrap()).sum();
                assert_eq!(added.to_string(), result);
            }
        }
        assert!(!Addition { digits: 2, steps: false }.draw(&mut random).answer.contains(';'));
    }
}
