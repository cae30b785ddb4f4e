//! `sakiyomi doctor`: what this machine offers and what this build uses of it.

use kernels::bandwidth::measure_read_bandwidth;
use kernels::cpu::{Isa, isa};
use kernels::matmul::Precision;
use kernels::peak::{measure_bf16_peak, measure_f32_peak, measure_int8_peak, measure_product};
use serde::Serialize;

use super::machine;
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
    bf16_gflop_per_s_one_thread: Option<f64>,
    bf16_gflop_per_s_all_threads: Option<f64>,
    int8_gop_per_s_one_thread: Option<f64>,
    int8_gop_per_s_all_threads: Option<f64>,
    /// A product of 2048 x 512 and 512 x 2048 on all threads.
    f32_product_gflop_per_s: f64,
    bf16_product_gflop_per_s: f64,
    device: &'static str,
}

pub fn run(threads: usize, output: Output) -> anyhow::Result<Verdict> {
    machine::use_threads(threads)?;
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
        bf16_gflop_per_s_one_thread: measure_bf16_peak(1).map(|rate| rate / 1e9),
        bf16_gflop_per_s_all_threads: measure_bf16_peak(threads).map(|rate| rate / 1e9),
        int8_gop_per_s_one_thread: measure_int8_peak(1).map(|rate| rate / 1e9),
        int8_gop_per_s_all_threads: measure_int8_peak(threads).map(|rate| rate / 1e9),
        f32_product_gflop_per_s: measure_product(Precision::F32) / 1e9,
        bf16_product_gflop_per_s: measure_product(Precision::Bf16) / 1e9,
        device: "cpu",
    };
    output.result(&findings, || findings.text())?;
    Ok(Verdict::Done)
}

impl Findings {
    fn text(&self) -> String {
        let memory = self.memory_gib.map_or("unknown".to_owned(), |gib| format!("{gib:.1} GiB"));
        let peaks = |one: Option<f64>, all: Option<f64>, unit: &str| match (one, all) {
            (Some(one), Some(all)) => {
                format!("{one:.0} {unit} with 1 thread, {all:.0} {unit} with {}", self.threads)
            }
            _ => "no instruction for it that the kernels use".to_owned(),
        };
        format!(
            "sakiyomi {} on {}, {} cores, {memory} memory\n\
             instruction set   {} (available: {}; SAKIYOMI_ISA forces one)\n\
             memory read       {:.1} GB/s with 1 thread, {:.1} GB/s with {}\n\
             f32 arithmetic    {}\n\
             bf16 arithmetic   {}\n\
             int8 arithmetic   {}\n\
             product           {:.0} GFLOP/s in f32, {:.0} in bf16 (2048 x 512 x 2048, {} threads)\n\
             device            {} (this build has no other)",
            self.version,
            self.architecture,
            self.cores,
            self.instruction_set,
            self.instruction_sets_available.join(", "),
            self.read_gb_per_s_one_thread,
            self.read_gb_per_s_all_threads,
            self.threads,
            peaks(Some(self.f32_gflop_per_s_one_thread), Some(self.f32_gflop_per_s_all_threads), "GFLOP/s"),
            peaks(self.bf16_gflop_per_s_one_thread, self.bf16_gflop_per_s_all_threads, "GFLOP/s"),
            peaks(self.int8_gop_per_s_one_thread, self.int8_gop_per_s_all_threads, "GOP/s"),
            self.f32_product_gflop_per_s,
            self.bf16_product_gflop_per_s,
            self.threads,
            self.device,
        )
    }
}
