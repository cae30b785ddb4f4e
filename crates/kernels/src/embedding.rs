//! The embedding table: rows out of it, and gradients back into it.
//!
//! Both are copies of a few megabytes beside products that take a hundred times as long, and stay on the calling thread: the
//! gradient of a token that occurs often is then summed in the order of its occurrences.

use crate::vector::lanes;

/// Row `tokens[i]` of `table` `[vocabulary, width]` becomes row `i` of `out` `[tokens, width]`.
///
/// # Panics
/// When a token is beyond the table or the lengths disagree.
pub fn gather(table: &[f32], width: usize, tokens: &[u32], out: &mut [f32]) {
    check(table.len(), width, tokens, out.len());
    for (row, &token) in out.chunks_exact_mut(width).zip(tokens) {
        row.copy_from_slice(&table[token as usize * width..][..width]);
    }
}

/// Row `i` of `d_out` `[tokens, width]` is added to row `tokens[i]` of `d_table` `[vocabulary, width]`, in order.
///
/// # Panics
/// When a token is beyond the table or the lengths disagree.
pub fn scatter_add(d_out: &[f32], width: usize, tokens: &[u32], d_table: &mut [f32]) {
    check(d_table.len(), width, tokens, d_out.len());
    for (row, &token) in d_out.chunks_exact(width).zip(tokens) {
        lanes::add_assign(&mut d_table[token as usize * width..][..width], row);
    }
}

fn check(table: usize, width: usize, tokens: &[u32], rows: usize) {
    assert!(
        width > 0 && table.is_multiple_of(width),
        "embedding: rows of {width} in a table of {table} elements"
    );
    assert_eq!(rows, tokens.len() * width, "embedding: tokens and rows of {width} disagree");
    let vocabulary = table / width;
    let largest = tokens.iter().copied().max().unwrap_or(0) as usize;
    assert!(
        tokens.is_empty() || largest < vocabulary,
        "embedding: token {largest} in a vocabulary of {vocabulary}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, random_values};

    #[test]
    fn rows_come_out_and_gradients_go_back_in() {
        for (vocabulary, width, tokens) in
            [(3, 1, vec![]), (1, 5, vec![0]), (7, 17, vec![6, 0, 2, 2, 6, 2, 5])]
        {
            let table = random_values(vocabulary * width, 1);
            let mut out = vec![9.0; tokens.len() * width];
            gather(&table, width, &tokens, &mut out);
            assert_eq!(out, reference::gather(&table, width, &tokens));

            let d_out = random_values(out.len(), 2);
            let mut d_table = table.clone();
            scatter_add(&d_out, width, &tokens, &mut d_table);
            let mut plain: Vec<f64> = table.iter().map(|&x| f64::from(x)).collect();
            reference::scatter_add(&d_out, width, &tokens, &mut plain);
            assert_close(&d_table, &plain, 1e-6, "d_table");
        }
    }

    #[test]
    #[should_panic(expected = "token 3 in a vocabulary of 3")]
    fn a_token_beyond_the_table_is_refused() {
        gather(&[0.0; 6], 2, &[1, 3], &mut [0.0; 4]);
    }
}
