//! How long loading takes beside reading the file; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr, reason = "a measurement is there to be read")]

use std::time::Instant;

use fs_err as fs;
use sakiyomi_model::checkpoint::{read_params, write_params};
use sakiyomi_model::presets::preset;
use tensor::Params;

#[test]
#[ignore = "writes and reads 1 GB"]
fn loading_takes_at_most_twice_as_long_as_reading() {
    let mut config = preset("llama-125m", 64_000).unwrap();
    config.layers = 22;
    let mut params = Params::default();
    for spec in config.tensors() {
        let values = (0..spec.shape.iter().product()).map(|i: usize| (i % 1000) as f32 * 1e-3).collect();
        params.add(spec.name, &spec.shape, values);
    }
    let folder = tempfile::tempdir().unwrap();
    write_params(folder.path(), &config, &params).unwrap();
    drop(params);
    let file = folder.path().join("model.safetensors");
    eprintln!("{:.2} GB", fs::metadata(&file).unwrap().len() as f64 / 1e9);
    let seconds = |work: &dyn Fn() -> usize| {
        let start = Instant::now();
        assert!(work() > 0);
        start.elapsed().as_secs_f64()
    };
    let (mut reading, mut loading) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..4 {
        // In turn, so that both see the same machine; the fastest of each.
        let read = seconds(&|| fs::read(&file).unwrap().len());
        let load = seconds(&|| read_params(folder.path(), &config).unwrap().values());
        eprintln!("read {read:.3} s, load {load:.3} s, ratio {:.2}", load / read);
        (reading, loading) = (reading.min(read), loading.min(load));
    }
    eprintln!("fastest: read {reading:.3} s, load {loading:.3} s, ratio {:.2}", loading / reading);
}
