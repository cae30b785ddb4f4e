//! The kernels of a run of the decoder, at the sizes of llama-500m (width 1280, SwiGLU 3584, 20/4 heads of 64).
//!
//! `cargo bench -p sakiyomi-kernels --bench decoding`; throughput of products is in bytes of weights read, which a kernel that
//! waits for memory only would read equally fast for any number of rows. The maps are larger together than any cache.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernels::cached_attention::{CacheValue, CachedAttention};
use kernels::packed::{Packed, PreparedRows, Start, UpperHalf, WeightType};
use kernels::reference::random_values;
use kernels::team::Team;
use sakiyomi_kernels as kernels;

const WIDTH: usize = 1280;
const INNER: usize = 3584;
const MAPS: usize = 24;
const ROWS: [usize; 5] = [1, 2, 4, 8, 16];

fn team() -> Team {
    Team::new(std::thread::available_parallelism().map_or(1, |threads| threads.get()))
}

/// One map of each of 24 layers, one after the other.
fn products(c: &mut Criterion) {
    let team = team();
    let weights = random_values(WIDTH * INNER, 1);
    let x = random_values(ROWS[4] * WIDTH, 2);
    for weight_type in WeightType::ALL {
        let maps: Vec<Packed> =
            (0..MAPS).map(|_| Packed::pack(weight_type, &[(&weights, INNER)], WIDTH)).collect();
        let bytes = maps.iter().map(Packed::bytes).sum::<usize>();
        let mut group = c.benchmark_group(format!("{} maps from {WIDTH} to {INNER}", weight_type.name()));
        group.sample_size(20).throughput(Throughput::Bytes(bytes as u64));
        let mut scratch = PreparedRows::default();
        for rows in ROWS {
            let mut y = vec![0.0; rows * INNER];
            group.bench_function(format!("{rows} rows"), |bencher| {
                bencher.iter(|| {
                    for map in &maps {
                        map.multiply(&team, &mut scratch, &x[..rows * WIDTH], rows, Start::Zero, &mut y);
                    }
                });
            });
        }
    }
}

/// One layer that looks back at 8192 tokens.
fn attention(c: &mut Criterion) {
    attention_of::<f32>(c, "f32");
    attention_of::<UpperHalf>(c, "bf16");
}

fn attention_of<V: CacheValue>(c: &mut Criterion, name: &str) {
    const CONTEXT: usize = 8192;
    let team = team();
    let shape = CachedAttention {
        heads: 20,
        kv_heads: 4,
        head_dim: 64,
        capacity: CONTEXT + ROWS[4],
        scale: 0.125,
        cap: None,
    };
    let width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    let (mut keys, mut values) =
        (vec![V::default(); shape.cache_len()], vec![V::default(); shape.cache_len()]);
    for position in (0..shape.capacity).step_by(ROWS[4]) {
        let rows = ROWS[4].min(shape.capacity - position);
        shape.store(&random_values(rows * width, position as u64), position, &mut keys, &mut values);
    }
    let qkv = random_values(ROWS[4] * width, 3);
    let mut group = c.benchmark_group(format!("attention to {CONTEXT} tokens in {name}"));
    for rows in ROWS {
        let operations = 4 * rows * CONTEXT * shape.heads * shape.head_dim;
        group.sample_size(20).throughput(Throughput::Elements(operations as u64));
        let mut out = vec![0.0; rows * shape.heads * shape.head_dim];
        group.bench_function(format!("{rows} rows"), |bencher| {
            bencher.iter(|| {
                let qkv = &qkv[..rows * width];
                shape.forward(&team, qkv, CONTEXT, &vec![0; rows], &keys, &values, &mut out);
            });
        });
    }
}

criterion_group!(benches, products, attention);
criterion_main!(benches);
