//! The kernels of a training step at the sizes of the reference model: 2048 rows, width 384, SwiGLU 1024, vocabulary 8192.
//!
//! `cargo bench -p sakiyomi-kernels --bench training`; throughput is in operations (products) or bytes read and written.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernels::adamw::AdamW;
use kernels::attention::{self, AttentionShape, Mask, SideRow};
use kernels::cross_entropy::softmax_cross_entropy_in_place;
use kernels::matmul::{Factor, Precision, Side, View, ViewMut, Write, multiply};
use kernels::reference::random_values;
use kernels::{rms_norm, swiglu};
use sakiyomi_kernels as kernels;

const ROWS: usize = 2048;
const WIDTH: usize = 384;
const INNER: usize = 1024;

/// The three products of a linear map, with the factors made ready each time.
fn products(c: &mut Criterion) {
    for (name, inputs, outputs) in
        [("512 to 2048", 512, 2048), ("384 to 384", WIDTH, WIDTH), ("384 to 8192", WIDTH, 8192)]
    {
        let (x, w, dy) = (
            random_values(ROWS * inputs, 1),
            random_values(outputs * inputs, 2),
            random_values(ROWS * outputs, 3),
        );
        let (x, w, dy) =
            (View::new(&x, ROWS, inputs), View::new(&w, outputs, inputs), View::new(&dy, ROWS, outputs));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut group = c.benchmark_group(format!("{precision:?} product, {name}"));
            group.sample_size(20).throughput(Throughput::Elements((2 * ROWS * inputs * outputs) as u64));
            let mut product = |name: &str, (a, a_turned): (View, bool), (b, b_turned): (View, bool)| {
                let shape = |view: View, turned: bool| match turned {
                    true => (view.columns(), view.rows()),
                    false => (view.rows(), view.columns()),
                };
                let ((rows, terms), (_, columns)) = (shape(a, a_turned), shape(b, b_turned));
                let mut left = vec![0.0; Factor::buffer_len(precision, Side::Left, rows, terms)];
                let mut right = vec![0.0; Factor::buffer_len(precision, Side::Right, terms, columns)];
                let mut to = vec![0.0; rows * columns];
                group.bench_function(name, |bencher| {
                    bencher.iter(|| {
                        let left = ready(precision, Side::Left, a, a_turned, left.as_mut_slice());
                        let right = ready(precision, Side::Right, b, b_turned, right.as_mut_slice());
                        multiply(&left, &right, ViewMut::new(&mut to, rows, columns), Write::Overwrite);
                    });
                });
            };
            product("forward", (x, false), (w, true));
            product("input gradient", (dy, false), (w, false));
            product("weight gradient", (dy, true), (x, false));
            group.finish();
        }
    }
}

fn ready<'a>(
    precision: Precision,
    side: Side,
    view: View<'a>,
    turned: bool,
    buffer: &'a mut [f32],
) -> Factor<'a> {
    match turned {
        true => Factor::transposed(precision, side, view, buffer),
        false => Factor::plain(precision, side, view, buffer),
    }
}

fn attention(c: &mut Criterion) {
    let shape = AttentionShape {
        batch: 8,
        length: 256,
        heads: 6,
        kv_heads: 6,
        head_dim: 64,
        scale: 0.125,
        cap: None,
    };
    let first_visible = vec![0; ROWS];
    let mut group = c.benchmark_group("attention, 8 x 256, 6 heads of 64");
    group.sample_size(20).throughput(Throughput::Elements((2 * 2 * ROWS * 256 / 2 * WIDTH) as u64));
    for (name, of_ten) in [("", 0), (", side rows behind 3 of 10", 3), (", side rows behind all", 10)] {
        let behind = (0..ROWS as u32).filter(|t| t * 7 % 10 < of_ten);
        let side: Vec<_> = behind.map(|t| SideRow { row: t / 256, first: 0, end: t % 256 + 1 }).collect();
        let (mask, rows) = (Mask { first_visible: &first_visible, side: &side }, ROWS + side.len());
        let qkv = random_values(rows * 3 * WIDTH, 1);
        let mut out = vec![0.0; rows * WIDTH];
        let mut log_sum_exp = vec![0.0; rows * shape.heads];
        let mut d_qkv = vec![0.0; qkv.len()];
        let d_out = random_values(out.len(), 2);
        group.bench_function(format!("forward{name}"), |bencher| {
            bencher.iter(|| attention::forward(&shape, &qkv, mask, &mut out, &mut log_sum_exp));
        });
        group.bench_function(format!("backward{name}"), |bencher| {
            bencher.iter(|| attention::backward(&shape, &qkv, mask, &out, &log_sum_exp, &d_out, &mut d_qkv));
        });
    }
}

/// What goes over memory once or twice and computes little.
fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("passes");
    let bytes = |values: usize| Throughput::Bytes(4 * values as u64);

    let (gate_up, mut inner) = (random_values(ROWS * 2 * INNER, 1), vec![0.0; ROWS * INNER]);
    let (d_inner, mut d_gate_up) = (random_values(ROWS * INNER, 2), vec![0.0; ROWS * 2 * INNER]);
    group.throughput(bytes(3 * ROWS * INNER));
    group.bench_function("SwiGLU forward", |bencher| {
        bencher.iter(|| swiglu::forward(&gate_up, INNER, &mut inner));
    });
    group.throughput(bytes(5 * ROWS * INNER));
    group.bench_function("SwiGLU backward", |bencher| {
        bencher.iter(|| swiglu::backward(&gate_up, INNER, &d_inner, &mut d_gate_up));
    });

    let (x, gain) = (random_values(ROWS * WIDTH, 3), vec![1.0; WIDTH]);
    let (mut normed, mut inverse_rms) = (vec![0.0; x.len()], vec![0.0; ROWS]);
    group.throughput(bytes(2 * x.len()));
    group.bench_function("RMSNorm forward", |bencher| {
        bencher.iter(|| rms_norm::forward(&x, &gain, 1e-5, &mut normed, &mut inverse_rms));
    });
    let (mut dx, mut d_gain) = (vec![0.0; x.len()], vec![0.0; WIDTH]);
    group.throughput(bytes(3 * x.len()));
    group.bench_function("RMSNorm backward", |bencher| {
        bencher.iter(|| {
            let write = Write::Overwrite;
            rms_norm::backward(&x, &gain, &inverse_rms, &normed, &mut dx, write, Some(&mut d_gain));
        });
    });

    let vocabulary = 8192;
    let logits = random_values(256 * vocabulary, 4);
    let targets: Vec<u32> = (0..256).collect();
    let mut work = logits.clone();
    group.throughput(bytes(2 * logits.len()));
    group.bench_function("softmax and cross-entropy, 256 x 8192", |bencher| {
        bencher.iter(|| {
            work.copy_from_slice(&logits);
            black_box(softmax_cross_entropy_in_place(&mut work, vocabulary, &targets, 1.0, None));
        });
    });

    let count = 4 << 20;
    let (mut weights, gradient) = (random_values(count, 5), random_values(count, 6));
    let (mut first, mut second) = (vec![0.0; count], vec![0.0; count]);
    group.throughput(bytes(7 * count));
    group.bench_function("AdamW, 4 million values", |bencher| {
        let rule = AdamW::default();
        bencher.iter(|| rule.step(1, &mut weights, &gradient, &mut first, &mut second, 1.0));
    });
}

criterion_group!(training, products, attention, passes);
criterion_main!(training);
