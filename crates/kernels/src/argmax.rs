//! The most likely token: the place of the largest value.
//!
//! Ties go to the lowest place, so that plain and drafted decoding never choose differently. NaN never wins.

use crate::cpu::multiversion;

/// Place of the largest value; of the first among equals. 0 if there is none (no values, or all NaN).
pub fn argmax(values: &[f32]) -> usize {
    let largest = largest(values);
    // The scan goes by blocks, because only a search without an early end becomes vector code.
    let block = values.chunks(BLOCK).position(|block| holds(block, largest)).unwrap_or(0) * BLOCK;
    values[block..].iter().position(|value| *value == largest).map_or(0, |place| block + place)
}

/// [`argmax`] of each row of `values`, `[rows, width]`, into `places`, `[rows]`.
///
/// # Panics
///
/// If `values` is not of that size.
pub fn argmax_rows(values: &[f32], width: usize, places: &mut [usize]) {
    assert_eq!(values.len(), places.len() * width, "values is not [{}, {width}]", places.len());
    for (row, place) in places.iter_mut().enumerate() {
        *place = argmax(&values[row * width..][..width]);
    }
}

const BLOCK: usize = 256;

multiversion! {
    fn largest(values: &[f32]) -> f32 = largest_of;
    fn holds(block: &[f32], wanted: f32) -> bool = holds_one;
}

#[inline(always)]
fn largest_of(values: &[f32]) -> f32 {
    const LANES: usize = 64;
    // A comparison with NaN is false, so NaN is never taken over.
    let larger = |best: f32, value: f32| if value > best { value } else { best };
    let mut best = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (best, value) in best.iter_mut().zip(block) {
            *best = larger(*best, *value);
        }
    }
    best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

#[inline(always)]
fn holds_one(block: &[f32], wanted: f32) -> bool {
    block.iter().fold(false, |found, value| found | (*value == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_place() {
        for width in [1, 2, 7, 63, 64, 65, 255, 256, 257, 1000] {
            for place in [0, width / 3, width / 2, width - 1] {
                let mut values = vec![-3.0; width];
                values[place..].fill(2.0);
                assert_eq!(argmax(&values), place, "width {width}");
            }
            assert_eq!(argmax(&vec![f32::NEG_INFINITY; width]), 0);
        }
        assert_eq!(argmax(&[-1.0, -0.0, 0.0]), 1, "the zeros are equal");
    }

    #[test]
    fn nan_never_wins() {
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(argmax(&[1.0, f32::NAN, 2.0, f32::NAN]), 2);
        assert_eq!(argmax(&[f32::NAN; 3]), 0);
        assert_eq!(argmax(&[]), 0);
        let mut values = vec![f32::NAN; 700];
        values[600] = -5.0;
        assert_eq!(argmax(&values), 600);
    }

    #[test]
    fn infinity_wins() {
        assert_eq!(argmax(&[f32::MAX, f32::INFINITY, f32::INFINITY]), 1);
    }

    #[test]
    fn rows_are_independent() {
        let mut places = [9; 3];
        argmax_rows(&[0.0, 1.0, 5.0, 4.0, 2.0, 2.0], 2, &mut places);
        assert_eq!(places, [1, 0, 0]);
        argmax_rows(&[], 4, &mut []);
    }
}
