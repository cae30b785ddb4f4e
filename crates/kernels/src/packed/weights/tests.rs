use super::*;
use crate::packed::fused;
use proptest::prelude::*;

/// Numbers without a pattern, in -1..1, every seventh of them small.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let value = state as i32 as f32 / 2.0_f32.powi(31);
        if state.is_multiple_of(7) { value * 0.01 } else { value }
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A block of a row as signed bytes with their scale, as the definition has it.
fn plain_bytes(block: &[f32]) -> (Vec<i32>, f32) {
    let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if largest < 1e-35 {
        return (vec![0; block.len()], 0.0);
    }
    let inverse = 127.0 / largest;
    (block.iter().map(|x| (x * inverse).round_ties_even() as i32).collect(), largest / 127.0)
}

/// One output of a product with integer weights: exact sums of blocks, one chain over them.
fn plain_integer(fused: bool, w: &[f32], scales: &[f32], block: usize, x: &[f32]) -> f32 {
    let mut sum = 0.0_f32;
    for (index, (w, x)) in w.chunks(block).zip(x.chunks(block)).enumerate() {
        let (bytes, x_scale) = plain_bytes(x);
        let scale = scales[index];
        let steps = |w: &f32| if scale == 0.0 { 0 } else { (w / scale).round() as i32 };
        let exact: i32 = w.iter().zip(bytes).map(|(w, x)| steps(w) * x).sum();
        let both = scale * x_scale;
        sum = if fused { (exact as f32).mul_add(both, sum) } else { exact as f32 * both + sum };
    }
    sum
}

/// One output of a product with bf16 weights: one chain over the inputs.
fn plain_bf16(fused: bool, w: &[f32], x: &[f32]) -> f32 {
    w.iter().zip(x).fold(0.0, |sum, (w, x)| {
        let x = half::bf16::from_f32(*x).to_f32();
        if fused { x.mul_add(*w, sum) } else { x * w + sum }
    })
}

/// The weights that a product really multiplies with, their scales as `[outputs][blocks]`, and the inputs of a block.
fn rounded_weights(packed: &Packed) -> (Vec<f32>, Vec<f32>, usize) {
    fn of<F: Format>(packed: &PackedNarrow<F>) -> (Vec<f32>, Vec<f32>, usize) {
        let scales = |output: usize| {
            let lines = packed.scales.iter().skip(output / LANES * packed.blocks());
            let value = move |line: &ScaleLine| f32::from_bits(u32::from(line.0[output % LANES]) << 16);
            lines.take(packed.blocks()).map(value)
        };
        (packed.unpacked(), (0..packed.outputs).flat_map(scales).collect(), F::BLOCK)
    }
    match &packed.0 {
        Maps::F32(_) => unreachable!("not narrow"),
        Maps::Bf16(packed) => of(packed),
        Maps::Int8(packed) => of(packed),
        Maps::Int4(packed) => of(packed),
    }
}

const NARROW: [WeightType; 3] = [WeightType::Bf16, WeightType::Int8, WeightType::Int4];

/// Compares with the plain product, on every instruction set and with every start.
fn check(kind: WeightType, inputs: usize, outputs: usize, rows: usize, teams: &[Team]) {
    let weights = numbers(inputs * outputs, 1);
    let x = numbers(rows * inputs, 2);
    let bias = numbers(outputs, 3);
    let before = numbers(rows * outputs, 4);
    let packed = Packed::pack(kind, &[(&weights, outputs)], inputs);
    let (rounded, scales, block) = rounded_weights(&packed);
    let blocks = inputs.div_ceil(block);
    let mut scratch = PreparedRows::default();
    for isa in Isa::all_available() {
        let exact = kind != WeightType::Bf16 || isa != Isa::Avx512;
        for start in [Start::Zero, Start::Bias(&bias), Start::Existing] {
            let mut expected = before.clone();
            let mut magnitude = vec![0.0; rows * outputs];
            for (index, y) in expected.iter_mut().enumerate() {
                let (row, output) = (index / outputs, index % outputs);
                let (w, x) = (&rounded[output * inputs..][..inputs], &x[row * inputs..][..inputs]);
                let sum = match kind {
                    WeightType::Bf16 => plain_bf16(fused(isa), w, x),
                    _ => {
                        let scales = scales.get(output * blocks..).unwrap_or_default();
                        plain_integer(fused(isa), w, scales, block, x)
                    }
                };
                magnitude[index] = w.iter().zip(x).map(|(w, x)| (w * x).abs()).sum::<f32>();
                *y = match start {
                    Start::Zero => sum,
                    Start::Bias(bias) => sum + bias[output],
                    Start::Existing => sum + *y,
                };
            }
            let mut first = None;
            for team in teams {
                let mut y = before.clone();
                packed.multiply_on(isa, team, &mut scratch, &x, rows, start, &mut y);
                let case = format!("{kind} {isa:?} k={inputs} n={outputs} rows={rows} {start:?}");
                if exact {
                    assert_eq!(bits(&y), bits(&expected), "{case}, {} threads", team.threads());
                } else {
                    // The machine's own pairs of products round in another order: a few units in the last place of the
                    // largest sum on the way.
                    for ((y, expected), magnitude) in y.iter().zip(&expected).zip(&magnitude) {
                        assert!((y - expected).abs() <= 2e-6 * (magnitude + 1.0), "{case}: {y} {expected}");
                    }
                }
                assert_eq!(bits(first.get_or_insert_with(|| y.clone())), bits(&y), "{case}: threads");
            }
        }
    }
}

fn teams() -> Vec<Team> {
    [1, 2, 3].map(Team::new).into()
}

#[test]
fn equal_bits_with_the_plain_product_on_every_instruction_set() {
    let teams = teams();
    for kind in NARROW {
        for inputs in [1, 3, 31, 32, 65, 130, 384] {
            for outputs in [1, 16, 17, 100] {
                for rows in [1, 2, 3, 5, 8, 9, 17] {
                    check(kind, inputs, outputs, rows, &teams[..2]);
                }
            }
        }
    }
}

#[test]
fn equal_bits_for_every_number_of_rows_and_threads() {
    let teams = teams();
    for kind in NARROW {
        for rows in 0..=20 {
            check(kind, 70, 150, rows, &teams);
        }
        check(kind, 200, 1030, 7, &teams);
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    let (inputs, outputs, rows) = (172, 200, 19);
    let weights = numbers(inputs * outputs, 5);
    let mut x = numbers(rows * inputs, 6);
    // Company that would spoil any sum or scale it got into.
    x[3 * inputs..4 * inputs].fill(f32::NAN);
    x[8 * inputs..9 * inputs].fill(f32::INFINITY);
    x[9 * inputs..10 * inputs].fill(1e38);
    let team = Team::new(2);
    let mut scratch = PreparedRows::default();
    for kind in NARROW {
        let packed = Packed::pack(kind, &[(&weights, outputs)], inputs);
        for isa in Isa::all_available() {
            let mut together = vec![0.0; rows * outputs];
            packed.multiply_on(isa, &team, &mut scratch, &x, rows, Start::Zero, &mut together);
            for first in 0..rows {
                for count in 1..=(rows - first).min(9) {
                    let mut y = vec![0.0; count * outputs];
                    let x = &x[first * inputs..][..count * inputs];
                    packed.multiply_on(isa, &team, &mut scratch, x, count, Start::Zero, &mut y);
                    for (row, y) in y.chunks_exact(outputs).enumerate() {
                        let expected = &together[(first + row) * outputs..][..outputs];
                        if !expected.iter().any(|value| value.is_nan()) {
                            assert_eq!(bits(y), bits(expected), "{kind} {isa:?} {first}+{row} of {count}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_stays_so_in_every_output() {
    let (inputs, outputs) = (100, 20);
    let weights = numbers(inputs * outputs, 9);
    let team = Team::new(1);
    for kind in NARROW {
        let packed = Packed::pack(kind, &[(&weights, outputs)], inputs);
        for isa in Isa::all_available() {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = numbers(inputs, 10);
                x[70] = bad;
                let mut y = vec![0.0; outputs];
                packed.multiply_on(isa, &team, &mut PreparedRows::default(), &x, 1, Start::Zero, &mut y);
                assert!(y.iter().all(|value| !value.is_finite()), "{kind} {isa:?} {bad}: {y:?}");
            }
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_is_not_hidden() {
    let (inputs, team) = (100, Team::new(1));
    for kind in NARROW {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = numbers(inputs * 2, 12);
            weights[inputs + 40] = bad;
            let packed = Packed::pack(kind, &[(&weights, 2)], inputs);
            let mut y = [0.0; 2];
            let x = numbers(inputs, 13);
            packed.multiply(&team, &mut PreparedRows::default(), &x, 1, Start::Zero, &mut y);
            assert!(y[0].is_finite() && !y[1].is_finite(), "{kind} {bad}: {y:?}");
        }
    }
}

#[test]
fn weights_are_rounded_to_the_nearest_steps() {
    let (inputs, outputs) = (200, 33);
    let weights = numbers(inputs * outputs, 11);
    // Largest relative errors of a block: half a step of 127, or of about 7.5 with the largest weight a little off.
    for (kind, bound) in [(WeightType::Bf16, 0.0), (WeightType::Int8, 0.51 / 127.0), (WeightType::Int4, 0.13)]
    {
        let packed = Packed::pack(kind, &[(&weights, outputs)], inputs);
        let (rounded, _, block) = rounded_weights(&packed);
        for (weights, rounded) in weights.chunks(inputs).zip(rounded.chunks(inputs)) {
            for (weights, rounded) in weights.chunks(block).zip(rounded.chunks(block)) {
                let largest = weights.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
                for (weight, rounded) in weights.iter().zip(rounded) {
                    if kind == WeightType::Bf16 {
                        assert_eq!(half::bf16::from_f32(*weight).to_f32(), *rounded);
                    }
                    let error = (weight - rounded).abs();
                    assert!(
                        kind == WeightType::Bf16 || error <= bound * largest,
                        "{kind} {weight} {rounded}"
                    );
                }
            }
        }
    }
}

#[test]
fn blocks_of_nothing_and_of_next_to_nothing_are_zero() {
    let inputs = 64;
    let team = Team::new(1);
    for kind in NARROW {
        for tiny in [0.0, -0.0, 1e-42] {
            let packed = Packed::pack(kind, &[(&vec![tiny; inputs], 1)], inputs);
            let mut y = [1.0];
            let x = vec![1.0; inputs];
            packed.multiply(&team, &mut PreparedRows::default(), &x, 1, Start::Zero, &mut y);
            assert!(y[0].abs() < 1e-30, "{kind} {tiny}: {}", y[0]);
            let packed = Packed::pack(kind, &[(&x, 1)], inputs);
            packed.multiply(&team, &mut PreparedRows::default(), &vec![tiny; inputs], 1, Start::Zero, &mut y);
            assert!(y[0].abs() < 1e-30, "{kind} {tiny}: {}", y[0]);
        }
    }
}

#[test]
fn maps_side_by_side_are_one_map() {
    let inputs = 70;
    let parts = [(numbers(9 * inputs, 7), 9), (vec![], 0), (numbers(24 * inputs, 8), 24)];
    let borrowed: Vec<(&[f32], usize)> = parts.iter().map(|(weights, n)| (weights.as_slice(), *n)).collect();
    let whole = parts.iter().flat_map(|(weights, _)| weights).copied().collect::<Vec<f32>>();
    for kind in WeightType::ALL {
        let packed = Packed::pack(kind, &borrowed, inputs);
        let one = Packed::pack(kind, &[(&whole, 33)], inputs);
        assert_eq!((packed.outputs(), packed.inputs(), packed.bytes()), (33, inputs, one.bytes()));
        assert_eq!(packed.weight_type(), kind);
        let x = numbers(2 * inputs, 9);
        let team = Team::new(1);
        let (mut y, mut expected) = (vec![0.0; 66], vec![0.0; 66]);
        packed.multiply(&team, &mut PreparedRows::default(), &x, 2, Start::Zero, &mut y);
        one.multiply(&team, &mut PreparedRows::default(), &x, 2, Start::Zero, &mut expected);
        assert_eq!(bits(&y), bits(&expected), "{kind}");
    }
}

#[test]
fn sizes_in_memory() {
    let weights = vec![0.5; 128 * 16];
    let bytes = |kind| Packed::pack(kind, &[(&weights, 16)], 128).bytes();
    assert_eq!(WeightType::ALL.map(bytes), [8192, 4096, 2048 + 2 * 32, 1024 + 4 * 32]);
}

#[test]
fn no_inputs_give_the_bias_alone() {
    let team = Team::new(2);
    let bias = numbers(20, 10);
    for kind in WeightType::ALL {
        let packed = Packed::pack(kind, &[(&[], 20)], 0);
        let mut y = vec![1.0; 40];
        packed.multiply(&team, &mut PreparedRows::default(), &[], 2, Start::Bias(&bias), &mut y);
        assert_eq!(y, [bias.clone(), bias.clone()].concat(), "{kind}");
    }
}

#[test]
fn names_are_read_and_others_refused() {
    for kind in WeightType::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    assert!("int5".parse::<WeightType>().unwrap_err().contains("int5"));
}

#[test]
#[should_panic(expected = "y is not [rows, 4]")]
fn a_wrong_shape_is_refused() {
    let packed = Packed::pack(WeightType::Int8, &[(&[1.0; 12], 4)], 3);
    packed.multiply(&Team::new(1), &mut PreparedRows::default(), &[0.0; 6], 2, Start::Zero, &mut [0.0; 6]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn equal_bits_for_any_shape(inputs in 1_usize..150, outputs in 1_usize..120, rows in 0_usize..24) {
        for kind in NARROW {
            check(kind, inputs, outputs, rows, &[Team::new(2)]);
        }
    }
}
