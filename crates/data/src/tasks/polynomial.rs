//! Arithmetic of polynomials over a small field (Gloeckle et al. 2404.19737, section 4.2): `F_p[X]/(X^n)`, with unary minus, sum,
//! product and composition.
//!
//! `(-[1,2]*[0,3])=0,4`: coefficients from the constant on.

use super::PROMPT_END;
use crate::error::{Error, Result};
use crate::examples::Example;
use crate::random::Random;

/// Sizes of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polynomial {
    /// The prime of the field.
    pub prime: usize,
    /// Coefficients of a polynomial.
    pub terms: usize,
    /// Fewest operations of an expression; how many there are is drawn.
    pub least_operations: usize,
    /// Most operations.
    pub most_operations: usize,
}

/// Larger fields are another task.
const LARGEST_PRIME: usize = 97;

/// Longer expressions are longer than contexts.
const MOST_OPERATIONS: usize = 64;

impl Polynomial {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If the field is none, or there is nothing to do.
    pub fn validate(&self) -> Result<()> {
        let prime = self.prime;
        // The limit first: divisors of a number of 64 bits would be tried for minutes.
        let is_prime = (2..=LARGEST_PRIME).contains(&prime)
            && (2..prime).take_while(|d| d * d <= prime).all(|d| !prime.is_multiple_of(d));
        if !is_prime {
            return Err(Error::Setting(format!("{prime} is no prime up to {LARGEST_PRIME}")));
        }
        if !(1..=16).contains(&self.terms) {
            return Err(Error::Setting(format!("{} coefficients: give 1 to 16", self.terms)));
        }
        if !(1..=self.most_operations).contains(&self.least_operations)
            || self.most_operations > MOST_OPERATIONS
        {
            return Err(Error::Setting(format!(
                "{} to {} operations: give 1 to {MOST_OPERATIONS}, the fewest first",
                self.least_operations, self.most_operations
            )));
        }
        Ok(())
    }

    /// One expression and its value.
    pub fn draw(&self, random: &mut Random) -> Example {
        let operations =
            self.least_operations + random.below(self.most_operations - self.least_operations + 1);
        let (text, value) = self.expression(operations, random);
        Example { prompt: format!("{text}{PROMPT_END}"), answer: joined(&value) }
    }

    fn expression(&self, operations: usize, random: &mut Random) -> (String, Vec<usize>) {
        if operations == 0 {
            let value: Vec<usize> = (0..self.terms).map(|_| random.below(self.prime)).collect();
            return (format!("[{}]", joined(&value)), value);
        }
        let operation = ["-", "+", "*", "o"][random.below(4)];
        if operation == "-" {
            let (text, value) = self.expression(operations - 1, random);
            let negative = value.iter().map(|&c| (self.prime - c) % self.prime).collect();
            return (format!("-{text}"), negative);
        }
        let left = random.below(operations);
        let (left_text, left) = self.expression(left, random);
        let rest = operations - 1 - count_operations(&left_text);
        let (right_text, right) = self.expression(rest, random);
        let value = match operation {
            "+" => self.sum(&left, &right),
            "*" => self.product(&left, &right),
            _ => self.composition(&left, &right),
        };
        (format!("({left_text}{operation}{right_text})"), value)
    }

    fn sum(&self, a: &[usize], b: &[usize]) -> Vec<usize> {
        a.iter().zip(b).map(|(a, b)| (a + b) % self.prime).collect()
    }

    fn product(&self, a: &[usize], b: &[usize]) -> Vec<usize> {
        let mut product = vec![0; self.terms];
        for (i, a) in a.iter().enumerate() {
            for (j, b) in b.iter().enumerate().take(self.terms - i) {
                product[i + j] = (product[i + j] + a * b) % self.prime;
            }
        }
        product
    }

    /// `a(b(X))`, by Horner's rule.
    fn composition(&self, a: &[usize], b: &[usize]) -> Vec<usize> {
        a.iter().rev().fold(vec![0; self.terms], |value, coefficient| {
            let mut value = self.product(&value, b);
            value[0] = (value[0] + coefficient) % self.prime;
            value
        })
    }
}

fn count_operations(text: &str) -> usize {
    text.chars().filter(|sign| "-+*o".contains(*sign)).count()
}

fn joined(coefficients: &[usize]) -> String {
    coefficients.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Polynomial = Polynomial { prime: 5, terms: 3, least_operations: 1, most_operations: 3 };

    #[test]
    fn products_and_compositions_are_those_of_the_ring() {
        assert_eq!(SMALL.product(&[1, 2, 3], &[4, 0, 1]), [4, 3, 3]);
        // 1 + 2 (1 + x) + 3 (1 + x)^2 = 6 + 8 x + 3 x^2
        assert_eq!(SMALL.composition(&[1, 2, 3], &[1, 1, 0]), [1, 3, 3]);
        assert_eq!(SMALL.composition(&[1, 2, 3], &[0, 1, 0]), [1, 2, 3]);
    }

    #[test]
    fn expressions_have_the_operations_that_were_asked_for() {
        let mut random = Random::new(3, 3);
        let mut seen = [0; 4];
        for _ in 0..200 {
            let example = SMALL.draw(&mut random);
            let operations = count_operations(&example.prompt);
            seen[operations] += 1;
            assert!(example.answer.split(',').all(|c| c.parse::<usize>().unwrap() < 5));
            assert_eq!(example.answer.split(',').count(), 3);
        }
        assert!(seen[0] == 0 && seen[1..].iter().all(|&count| count > 30), "{seen:?}");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        SMALL.validate().unwrap();
        let refusal = |task: Polynomial| task.validate().unwrap_err().to_string();
        for prime in [0, 1, 9, 101, 18_446_744_073_709_551_557] {
            assert!(refusal(Polynomial { prime, ..SMALL }).contains("no prime up to 97"));
        }
        assert!(refusal(Polynomial { terms: 0, ..SMALL }).contains("coefficients"));
        assert!(refusal(Polynomial { least_operations: 4, ..SMALL }).contains("operations"));
        assert!(
            refusal(Polynomial { least_operations: 0, ..SMALL }).contains("0 to 3 operations: give 1 to 64")
        );
    }
}
