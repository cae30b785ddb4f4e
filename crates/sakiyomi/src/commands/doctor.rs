//! `sakiyomi doctor`: what this machine offers and what this build uses of it.

use kernels::bandwidth::measure_read_bandwidth;
use kernels::cpu::{Isa, isa};
use kernels::peak::measure_f32_peak;
use serde::Serialize;

use crate::failure::Verdict;
use crate::output::Output;

/// Bytes read by the bandwidth measurement: well beyond any cache.
const BANDWIDTH_BYTES: usize = 256 << 20;
const REPEATS: usize = 5;

#[derive(Serialize)]
struct Findings {
    version: &'static str,
    architecture: &'static str,
    cores: usize,
    threads: usize,
    instruction_set: &'static str,
    instruction_sets_available: Vec<&'static str>,
    memory_gib: Option<f64>,
    read_gb_per_s_one_thread: f64,
    read_gb_per_s_all_threads: f64,
    f32_gflop_per_s_one_thread: f64,
    f32_gflop_per_s_all_threads: f64,
    device: &'static str,
}

pub fn run(threads: usize, output: Output) -> anyhow::Result<Verdict> {
    output.remark("measuring memory and arithmetic (a few seconds) ...");
    let findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        threads,
        instruction_set: isa().name(),
        instruction_sets_available: Isa::all_available().into_iter().map(Isa::name).collect(),
        memory_gib: train::memory::machine().map(|bytes| bytes as f64 / f64::from(1 << 30)),
        read_gb_per_s_one_thread: measure_read_bandwidth(1, BANDWIDTH_BYTES, REPEATS) / 1e9,
        read_gb_per_s_all_threads: measure_read_bandwidth(threads, BANDWIDTH_BYTES, REPEATS) / 1e9,
        f32_gflop_per_s_one_thread: measure_f32_peak(1) / 1e9,
        f32_gflop_per_s_all_threads: measure_f32_peak(threads) / 1e9,
        device: "cpu",
    };
    output.result(&findings, || findings.text())?;
    Ok(Verdict::Done)
}

impl Findings {
    fn text(&self) -> String {
        let memory = self.memory_gib.map_or("unknown".to_owned(), |gib| format!("{gib:.1} GiB"));
        format!(
            "sakiyomi {} on {}, {} cores, {memory} memory\n\
             instruction set   {} (available: {}; SAKIYOMI_ISA forces one)\n\
             memory read       {:.1} GB/s with 1 thread, {:.1} GB/s with {}\n\
             f32 arithmetic    {:.0} GFLOP/s with 1 thread, {:.0} GFLOP/s with {}\n\
             device            {} (this build has no other)",
            self.version,
            self.architecture,
            self.cores,
            self.instruction_set,
            self.instruction_sets_available.join(", "),
            self.read_gb_per_s_one_thread,
            self.read_gb_per_s_all_threads,
            self.threads,
            self.f32_gflop_per_s_one_thread,
            self.f32_gflop_per_s_all_threads,
            self.threads,
            self.device,
        )
    }
}
