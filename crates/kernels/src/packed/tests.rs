use super::*;
use proptest::prelude::*;

/// Numbers without a pattern, in -1..1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as i32 as f32 / 2.0_f32.powi(31)
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// `y = x Wᵀ + ...` with one chain per output, as the definition has it.
fn plain(fused: bool, w: &[f32], inputs: usize, x: &[f32], rows: usize, start: Start<'_>, y: &mut [f32]) {
    let outputs = w.len() / inputs;
    for row in 0..rows {
        for output in 0..outputs {
            let mut sum = 0.0_f32;
            for k in 0..inputs {
                let (x, w) = (x[row * inputs + k], w[output * inputs + k]);
                sum = if fused { x.mul_add(w, sum) } else { x * w + sum };
            }
            let y = &mut y[row * outputs + output];
            *y = match start {
                Start::Zero => sum,
                Start::Bias(bias) => sum + bias[output],
                Start::Existing => sum + *y,
            };
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check(inputs: usize, outputs: usize, rows: usize, teams: &[Team]) {
    let weights = numbers(inputs * outputs, 1);
    let x = numbers(rows * inputs, 2);
    let bias = numbers(outputs, 3);
    let before = numbers(rows * outputs, 4);
    let packed = PackedF32::pack(&[(&weights, outputs)], inputs);
    for isa in Isa::all_available() {
        for start in [Start::Zero, Start::Bias(&bias), Start::Existing] {
            let mut expected = before.clone();
            plain(fused(isa), &weights, inputs, &x, rows, start, &mut expected);
            for team in teams {
                let mut y = before.clone();
                packed.multiply_on(isa, team, &x, rows, start, &mut y);
                let threads = team.threads();
                let case = format!("{isa:?} k={inputs} n={outputs} rows={rows} threads={threads} {start:?}");
                assert_eq!(bits(&y), bits(&expected), "{case}");
            }
        }
    }
}

fn teams() -> Vec<Team> {
    [1, 2, 3].map(Team::new).into()
}

#[test]
fn equal_bits_with_the_plain_chain_on_every_instruction_set() {
    let teams = teams();
    for inputs in [1, 3, 17, 64, 172, 384] {
        for outputs in [1, 5, 16, 17, 48, 100] {
            for rows in [1, 2, 3, 5, 8, 9, 33] {
                check(inputs, outputs, rows, &teams);
            }
        }
    }
}

#[test]
fn equal_bits_for_every_number_of_rows() {
    let teams = teams();
    for rows in 0..=20 {
        check(33, 150, rows, &teams);
    }
}

#[test]
fn equal_bits_when_threads_share_the_outputs() {
    let teams = [2, 3, 4].map(Team::new);
    for (inputs, outputs, rows) in [(200, 300, 1), (128, 1000, 2), (100, 777, 7), (64, 513, 40)] {
        check(inputs, outputs, rows, &teams);
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    let (inputs, outputs, rows) = (172, 200, 19);
    let weights = numbers(inputs * outputs, 5);
    let packed = PackedF32::pack(&[(&weights, outputs)], inputs);
    let team = Team::new(2);
    let mut x = numbers(rows * inputs, 6);
    // Company that would spoil any sum it got into.
    x[3 * inputs..4 * inputs].fill(f32::NAN);
    x[8 * inputs..9 * inputs].fill(f32::INFINITY);
    for isa in Isa::all_available() {
        let mut together = vec![0.0; rows * outputs];
        packed.multiply_on(isa, &team, &x, rows, Start::Zero, &mut together);
        for first in 0..rows {
            for count in 1..=(rows - first).min(9) {
                let mut y = vec![0.0; count * outputs];
                let x = &x[first * inputs..][..count * inputs];
                packed.multiply_on(isa, &team, x, count, Start::Zero, &mut y);
                let expected = &together[first * outputs..][..count * outputs];
                if !expected.iter().any(|value| value.is_nan()) {
                    assert_eq!(bits(&y), bits(expected), "{isa:?} rows {first}..{}", first + count);
                }
            }
        }
    }
}

#[test]
fn maps_side_by_side_are_one_map() {
    let inputs = 21;
    let parts = [(numbers(9 * inputs, 7), 9), (vec![], 0), (numbers(24 * inputs, 8), 24)];
    let borrowed: Vec<(&[f32], usize)> = parts.iter().map(|(weights, n)| (weights.as_slice(), *n)).collect();
    let packed = PackedF32::pack(&borrowed, inputs);
    assert_eq!((packed.outputs(), packed.inputs(), packed.bytes()), (33, inputs, 3 * 16 * inputs * 4));
    let whole = parts.iter().flat_map(|(weights, _)| weights).copied().collect::<Vec<f32>>();
    let x = numbers(2 * inputs, 9);
    let team = Team::new(1);
    let (mut y, mut expected) = (vec![0.0; 66], vec![0.0; 66]);
    packed.multiply(&team, &x, 2, Start::Zero, &mut y);
    plain(fused(isa()), &whole, inputs, &x, 2, Start::Zero, &mut expected);
    assert_eq!(bits(&y), bits(&expected));
}

#[test]
fn no_inputs_give_the_bias_alone() {
    let team = Team::new(2);
    let packed = PackedF32::pack(&[(&[], 20)], 0);
    let bias = numbers(20, 10);
    let mut y = vec![1.0; 40];
    packed.multiply(&team, &[], 2, Start::Bias(&bias), &mut y);
    assert_eq!(y, [bias.clone(), bias].concat());
}

#[test]
#[should_panic(expected = "y is not [rows, 4]")]
fn a_wrong_shape_is_refused() {
    let packed = PackedF32::pack(&[(&[1.0; 12], 4)], 3);
    packed.multiply(&Team::new(1), &[0.0; 6], 2, Start::Zero, &mut [0.0; 6]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn equal_bits_for_any_shape(inputs in 1_usize..80, outputs in 1_usize..200, rows in 0_usize..24) {
        check(inputs, outputs, rows, &[Team::new(2)]);
    }
}
