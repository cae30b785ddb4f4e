//! Transposing a matrix that is stored the other way round.

/// Rows and columns per tile: a tile of both matrices stays in the nearest cache.
const TILE: usize = 32;

/// `[rows, columns]` as `[columns, rows]`.
pub(super) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for first_row in (0..rows).step_by(TILE) {
        for first_column in (0..columns).step_by(TILE) {
            for row in first_row..(first_row + TILE).min(rows) {
                for column in first_column..(first_column + TILE).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_changes_its_place() {
        for (rows, columns) in [(0, 3), (1, 1), (1, 5), (5, 1), (33, 70), (64, 32)] {
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let turned = transpose(&values, rows, columns);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(turned[column * rows + row], values[row * columns + column]);
                }
            }
            assert_eq!(transpose(&turned, columns, rows), values);
        }
    }
}
