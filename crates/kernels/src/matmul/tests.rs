use super::*;
use crate::reference::{self, assert_close, random_values};

/// `(m, n, k)`: empty and single dimensions, odd sizes, and sizes beyond the blocks of the product.
const SHAPES: [(usize, usize, usize); 10] = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (1, 37, 19),
    (37, 1, 19),
    (5, 7, 2),
    (33, 65, 17),
    (70, 96, 130),
    (129, 50, 600),
];

#[test]
fn the_three_products_agree_with_plain_loops() {
    for (m, n, k) in SHAPES {
        let (x, w, dy) = (random_values(m * k, 1), random_values(n * k, 2), random_values(m * n, 3));
        let start = |len| random_values(len, 4);
        for write in [Write::Overwrite, Write::Add] {
            let expect = |plain: Vec<f64>| -> Vec<f64> {
                let before = start(plain.len());
                let kept = if write == Write::Add { 1.0 } else { 0.0 };
                plain.iter().zip(before).map(|(p, b)| p + kept * f64::from(b)).collect()
            };
            let what = format!("{m} x {n} x {k}, {write:?}");

            let mut y = start(m * n);
            product_nt(View::new(&x, m, k), View::new(&w, n, k), ViewMut::new(&mut y, m, n), write);
            assert_close(&y, &expect(reference::product_nt(&x, &w, m, n, k)), 1e-5, &format!("nt {what}"));

            let mut dx = start(m * k);
            product_nn(View::new(&dy, m, n), View::new(&w, n, k), ViewMut::new(&mut dx, m, k), write);
            assert_close(&dx, &expect(reference::product_nn(&dy, &w, m, n, k)), 1e-5, &format!("nn {what}"));

            let mut dw = start(n * k);
            product_tn(View::new(&dy, m, n), View::new(&x, m, k), ViewMut::new(&mut dw, n, k), write);
            assert_close(&dw, &expect(reference::product_tn(&dy, &x, m, n, k)), 1e-5, &format!("tn {what}"));
        }
    }
}

#[test]
fn strided_views_leave_other_columns_alone() {
    let (m, n, k, stride) = (19, 5, 33, 12);
    let (x, w) = (random_values(m * k, 1), random_values(n * k, 2));
    let mut wide = vec![7.0; m * stride];
    product_nt(
        View::new(&x, m, k),
        View::new(&w, n, k),
        ViewMut::strided(&mut wide[3..], m, n, stride),
        Write::Overwrite,
    );
    let plain = reference::product_nt(&x, &w, m, n, k);
    for (row, plain) in wide.chunks(stride).zip(plain.chunks(n)) {
        assert_close(&row[3..3 + n], plain, 1e-5, "strided");
        assert!(row[..3].iter().chain(&row[3 + n..]).all(|&v| v == 7.0), "columns outside the view changed");
    }

    let mut dw = vec![0.0; n * k];
    let dy = View::strided(&wide[3..], m, n, stride);
    product_tn(dy, View::new(&x, m, k), ViewMut::new(&mut dw, n, k), Write::Overwrite);
    let gathered: Vec<f32> = (0..m).flat_map(|row| dy.row(row).to_vec()).collect();
    assert_close(&dw, &reference::product_tn(&gathered, &x, m, n, k), 1e-4, "strided factor");
}

#[test]
fn the_number_of_threads_does_not_show_in_the_bits() {
    let (m, n, k) = (150, 130, 700);
    let (x, w) = (random_values(m * k, 1), random_values(n * k, 2));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
        pool.install(|| {
            let mut y = vec![0.0; m * n];
            product_nt(
                View::new(&x, m, k),
                View::new(&w, n, k),
                ViewMut::new(&mut y, m, n),
                Write::Overwrite,
            );
            y
        })
    };
    let one = with(1);
    assert!(with(2) == one && with(3) == one);
}

#[test]
fn rows_behind_many_rows_leave_their_bits_alone() {
    for (n, k) in
        [(1, 64), (2, 700), (3, 2), (16, 768), (64, 513), (65, 1100), (96, 33), (200, 2049), (1100, 8)]
    {
        let w = random_values(n * k, 2);
        for rows in [MANY_ROWS, 300, 512] {
            let all = rows + 700;
            let x = random_values(all * k, 1);
            for (precision, write) in [
                (Precision::F32, Write::Overwrite),
                (Precision::F32, Write::Add),
                (Precision::Bf16, Write::Overwrite),
                (Precision::Bf16, Write::Add),
            ] {
                let of_first = |count: usize| {
                    let stride = n + 3;
                    let mut y = random_values(all * stride, 3);
                    let x = View::new(&x[..count * k], count, k);
                    let result = ViewMut::strided(&mut y[..count * stride], count, n, stride);
                    through_factors(precision, (x, false), (View::new(&w, n, k), true), result, write);
                    y.truncate(rows * stride);
                    y
                };
                let alone = of_first(rows);
                for more in [1, 2, 77, 256, 700] {
                    assert!(of_first(rows + more) == alone, "{rows} + {more} rows, {n} x {k}, {precision:?}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "a product of 2 x 3 and 4 x 5 into 2 x 5")]
fn shapes_that_disagree_are_refused() {
    let mut y = [0.0; 10];
    product_nt(
        View::new(&[0.0; 6], 2, 3),
        View::new(&[0.0; 20], 5, 4),
        ViewMut::new(&mut y, 2, 5),
        Write::Add,
    );
}

/// Sizes around the tiles of bf16 products (8 x 48, panels of 16, tasks of up to 128 x 480, blocks of 256 terms), `(m, n, k)`.
const BF16_SHAPES: [(usize, usize, usize); 6] =
    [(7, 47, 31), (8, 48, 32), (9, 49, 33), (17, 97, 255), (130, 481, 64), (33, 100, 515)];

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| factor::of_bf16_bits(factor::bf16_bits(value))).collect()
}

/// `left right` with both made ready in `precision`.
fn through_factors(
    precision: Precision,
    (a, a_transposed): (View, bool),
    (b, b_transposed): (View, bool),
    c: ViewMut,
    write: Write,
) {
    let buffer = |side| {
        let (rows, columns) = (c.rows(), c.columns());
        let terms = if a_transposed { a.rows() } else { a.columns() };
        let (rows, columns) = if side == Side::Left { (rows, terms) } else { (terms, columns) };
        vec![f32::NAN; Factor::buffer_len(precision, side, rows, columns)]
    };
    let (mut left, mut right) = (buffer(Side::Left), buffer(Side::Right));
    let ready = |side, view, transposed, buffer| match transposed {
        true => Factor::transposed(precision, side, view, buffer),
        false => Factor::plain(precision, side, view, buffer),
    };
    let left = ready(Side::Left, a, a_transposed, &mut left);
    let right = ready(Side::Right, b, b_transposed, &mut right);
    multiply(&left, &right, c, write);
}

#[test]
fn products_of_factors_agree_with_plain_loops_in_both_precisions() {
    for (m, n, k) in SHAPES.into_iter().chain(BF16_SHAPES) {
        let (x, w, dy) = (random_values(m * k, 1), random_values(n * k, 2), random_values(m * n, 3));
        let (x_view, w_view, dy_view) = (View::new(&x, m, k), View::new(&w, n, k), View::new(&dy, m, n));
        for (precision, write) in [Precision::F32, Precision::Bf16]
            .into_iter()
            .flat_map(|precision| [Write::Overwrite, Write::Add].map(|write| (precision, write)))
        {
            let cut = |values: &[f32]| match precision {
                Precision::F32 => values.to_vec(),
                Precision::Bf16 => rounded(values),
            };
            let (x, w, dy) = (cut(&x), cut(&w), cut(&dy));
            let compare = |what: &str, actual: Vec<f32>, plain: Vec<f64>| {
                let kept = if write == Write::Add { 1.0 } else { 0.0 };
                let before = random_values(plain.len(), 4);
                let plain: Vec<f64> =
                    plain.iter().zip(before).map(|(p, b)| p + kept * f64::from(b)).collect();
                assert_close(
                    &actual,
                    &plain,
                    1e-5,
                    &format!("{what} {m} x {n} x {k}, {precision:?}, {write:?}"),
                );
            };
            let product = |a, b, rows, columns| {
                let mut c = random_values(rows * columns, 4);
                through_factors(precision, a, b, ViewMut::new(&mut c, rows, columns), write);
                c
            };
            let nt = product((x_view, false), (w_view, true), m, n);
            compare("nt", nt, reference::product_nt(&x, &w, m, n, k));
            let nn = product((dy_view, false), (w_view, false), m, k);
            compare("nn", nn, reference::product_nn(&dy, &w, m, n, k));
            let tn = product((dy_view, true), (x_view, false), n, k);
            compare("tn", tn, reference::product_tn(&dy, &x, m, n, k));
        }
    }
}

#[test]
fn a_machine_without_bf16_instructions_rounds_and_multiplies_in_f32() {
    let (m, n, k) = (19, 21, 40);
    let (x, w) = (random_values(m * k, 1), random_values(n * k, 2));
    let (mut left, mut right, mut y) = (vec![0.0; m * k], vec![0.0; n * k], vec![0.0; m * n]);
    let left = Operand::plain(View::new(&x, m, k)).rounded(&mut left);
    let right = Operand::transposed(View::new(&w, n, k)).rounded(&mut right);
    gemm(left, right, ViewMut::new(&mut y, m, n), Write::Overwrite, 1.0, Parallelism::None);
    assert_close(&y, &reference::product_nt(&rounded(&x), &rounded(&w), m, n, k), 1e-5, "rounded");
}

#[test]
fn factors_may_be_strided_and_leave_other_columns_alone() {
    let (m, n, k, stride) = (19, 53, 66, 70);
    for precision in [Precision::F32, Precision::Bf16] {
        let (x, w) = (random_values(m * stride, 1), random_values(n * stride, 2));
        let mut wide = vec![7.0; m * stride];
        through_factors(
            precision,
            (View::strided(&x[4..], m, k, stride), false),
            (View::strided(&w[2..], n, k, stride), true),
            ViewMut::strided(&mut wide[3..], m, n, stride),
            Write::Overwrite,
        );
        let gather = |values: &[f32], from: usize| -> Vec<f32> {
            let rows =
                values.chunks(stride).flat_map(|row| &row[from..from + k]).copied().collect::<Vec<_>>();
            if precision == Precision::Bf16 { rounded(&rows) } else { rows }
        };
        let plain = reference::product_nt(&gather(&x, 4), &gather(&w, 2), m, n, k);
        for (row, plain) in wide.chunks(stride).zip(plain.chunks(n)) {
            assert_close(&row[3..3 + n], plain, 1e-5, "strided");
            assert!(row[..3].iter().chain(&row[3 + n..]).all(|&v| v == 7.0), "{precision:?}: other columns");
        }
    }
}

#[test]
fn bf16_products_have_the_same_bits_on_any_number_of_threads() {
    let (m, n, k) = (150, 500, 700);
    let (x, w) = (random_values(m * k, 1), random_values(n * k, 2));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
        pool.install(|| {
            let mut y = vec![0.0; m * n];
            let (x, w) = (View::new(&x, m, k), View::new(&w, n, k));
            through_factors(
                Precision::Bf16,
                (x, false),
                (w, true),
                ViewMut::new(&mut y, m, n),
                Write::Overwrite,
            );
            y
        })
    };
    let one = with(1);
    assert!(with(2) == one && with(3) == one);
}

#[test]
fn rounding_to_bf16_is_to_nearest_even_and_keeps_what_is_no_number() {
    let cases = [
        (1.0, 1.0),
        (1.0 + 1.0 / 256.0, 1.0),
        (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
        (1.0 + 1.001 / 256.0, 1.0 + 2.0 / 256.0),
        (-3.3e38, -3.3e38f32),
        (f32::INFINITY, f32::INFINITY),
        (f32::MAX, f32::INFINITY),
        (-0.0, -0.0),
    ];
    for (value, expected) in cases {
        let found = factor::of_bf16_bits(factor::bf16_bits(value));
        let close = (found - expected).abs() <= expected.abs() / 256.0;
        assert!(found == expected || close && expected.abs() > 1e38, "{value} became {found}");
    }
    assert!(factor::of_bf16_bits(factor::bf16_bits(f32::from_bits(0x7f80_0001))).is_nan());
}

#[test]
#[should_panic(expected = "a product of 2 x 3 and 4 x 5 into 2 x 5")]
fn factors_whose_shapes_disagree_are_refused() {
    let mut y = [0.0; 10];
    let (x, w) = (View::new(&[0.0; 6], 2, 3), View::new(&[0.0; 20], 5, 4));
    through_factors(Precision::F32, (x, false), (w, true), ViewMut::new(&mut y, 2, 5), Write::Add);
}
