//! Lane-wise building blocks: plain Rust in chunks of sixteen lanes, which the compiler turns into vector instructions.
//!
//! Every function is `#[inline(always)]`, so that inside a body of `multiversion!` it is compiled with that body's
//! instruction set. Products and sums are never fused, and a reduction always adds in the same order: sixteen running lanes,
//! the remainder in the first of them, then a tree over the lanes. So all instruction sets give the same bits, and the
//! result for a slice depends on nothing but that slice.

/// Running sums per reduction: one 512-bit vector of f32.
pub(crate) const LANES: usize = 16;

/// Elements after which sums of exponentials move from f32 to f64, so that wide rows (large vocabularies) lose nothing.
const ELEMENTS_PER_F32_SUM: usize = 1024;

/// `e^x`, relative error below 2e-7.
///
/// Beyond the range of normal numbers it gives 0 (`x < -87.3`) or infinity (`x > 88.3`); not-a-number stays what it is.
///
/// Method: `x = n ln 2 + r` with integer `n` and `|r| <= ln 2 / 2` (Cody and Waite's split of ln 2 in two), then the minimax
/// polynomial of degree 6 from Moshier's Cephes library for `e^r`, then `2^n` through the exponent bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const SMALLEST: f32 = -87.3;
    const LARGEST: f32 = 88.3;
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.0e-1;
    p = p * (r * r) + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let value = p * power;
    let value = if x < SMALLEST { 0.0 } else { value };
    if x > LARGEST { f32::INFINITY } else { value }
}

/// Hyperbolic tangent, relative error below 4e-7 wherever it is a normal number.
///
/// Near zero, where the exponential would cancel, the odd polynomial of Moshier's Cephes library; elsewhere
/// `1 - 2 / (e^(2|x|) + 1)` with the sign of `x`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    const SMALL: f32 = 0.625;
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * z + 2.063_909e-2;
    p = p * z - 5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328e-1;
    let near = p * z * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < SMALL { near } else { far }
}

/// Sum of `a[i] * b[i]`.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot: lengths of the two slices disagree");
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    sum_of_lanes(sums)
}

/// Sum of `x[i]^2` in f64.
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            let value = f64::from(chunk[lane]);
            sums[lane] += value * value;
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(value) * f64::from(value);
    }
    sums.iter().sum()
}

/// The largest element; negative infinity for an empty slice. Elements that are not a number are passed over.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
        }
    }
    for (largest, &value) in largest.iter_mut().zip(rest) {
        *largest = if value > *largest { value } else { *largest };
    }
    largest.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
}

/// Replaces every `x[i]` by `e^(x[i] - shift)` and returns their sum.
#[inline(always)]
pub(crate) fn exp_in_place(x: &mut [f32], shift: f32) -> f64 {
    let mut total = 0.0;
    for part in x.chunks_mut(ELEMENTS_PER_F32_SUM) {
        let (chunks, rest) = part.as_chunks_mut::<LANES>();
        let mut sums = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                chunk[lane] = exp(chunk[lane] - shift);
                sums[lane] += chunk[lane];
            }
        }
        if !rest.is_empty() {
            let padded = exp_of_rest(rest, shift);
            rest.copy_from_slice(&padded[..rest.len()]);
            for lane in 0..LANES {
                sums[lane] += padded[lane];
            }
        }
        total += f64::from(sum_of_lanes(sums));
    }
    total
}

/// Sum of `e^(x[i] - shift)`, the same bits as [`exp_in_place`] returns.
#[inline(always)]
pub(crate) fn sum_of_exp(x: &[f32], shift: f32) -> f64 {
    let mut total = 0.0;
    for part in x.chunks(ELEMENTS_PER_F32_SUM) {
        let (chunks, rest) = part.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += exp(chunk[lane] - shift);
            }
        }
        if !rest.is_empty() {
            let padded = exp_of_rest(rest, shift);
            for lane in 0..LANES {
                sums[lane] += padded[lane];
            }
        }
        total += f64::from(sum_of_lanes(sums));
    }
    total
}

/// `y += x`.
#[inline(always)]
pub(crate) fn add_assign(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `y *= a`.
#[inline(always)]
pub(crate) fn scale(y: &mut [f32], a: f32) {
    for y in y {
        *y *= a;
    }
}

/// Whether an element is infinite or not a number.
#[inline(always)]
pub(crate) fn has_non_finite(x: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    x.chunks(4096).any(|part| {
        let mut found = 0;
        for value in part {
            found |= u32::from(value.to_bits() & EXPONENT == EXPONENT);
        }
        found != 0
    })
}

/// Adds the lanes as a tree, halves onto halves.
#[inline(always)]
pub(crate) fn sum_of_lanes(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Exponentials of fewer than [`LANES`] elements, at the price of one whole vector; zero in the lanes beyond them.
#[inline(always)]
fn exp_of_rest(rest: &[f32], shift: f32) -> [f32; LANES] {
    let mut padded = [f32::NEG_INFINITY; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    for value in &mut padded {
        // `-inf - shift` would not be a number for an infinite shift; the padding must stay zero.
        *value = exp(if *value == f32::NEG_INFINITY { *value } else { *value - shift });
    }
    padded
}
