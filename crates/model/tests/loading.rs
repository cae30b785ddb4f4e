//! How long loading takes beside reading the file; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr, reason = "a measurement is there to be read")]

use std::io::Read;
use std::path::Path;
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
    write_params(folder.path(), &config, &params, &[]).unwrap();
    drop(params);
    let file = folder.path().join("model.safetensors");
    eprintln!("{:.2} GB", fs::metadata(&file).unwrap().len() as f64 / 1e9);
    let seconds = |work: &dyn Fn() -> usize| {
        let start = Instant::now();
        assert!(work() > 0);
        start.elapsed().as_secs_f64()
    };
    let mut fastest = [f64::INFINITY; 3];
    for _ in 0..4 {
        // In turn, so that all see the same machine; the fastest of each.
        let whole = seconds(&|| fs::read(&file).unwrap().len());
        let through = seconds(&|| read_through(&file));
        let load = seconds(&|| read_params(folder.path(), &config).unwrap().values());
        fastest.iter_mut().zip([whole, through, load]).for_each(|(best, now)| *best = best.min(now));
    }
    let [whole, through, load] = fastest;
    eprintln!("into memory {whole:.3} s, through a small buffer {through:.3} s, loading {load:.3} s");
    eprintln!("loading takes {:.2} times the one and {:.2} times the other", load / whole, load / through);
}

/// Reads the file and keeps nothing: the least that reading can take.
fn read_through(file: &Path) -> usize {
    let mut stream = fs::File::open(file).unwrap();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return bytes,
            count => bytes += count,
        }
    }
}
