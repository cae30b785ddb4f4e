//! The machine that a verb runs on.

/// More threads than this are a typing error.
pub const MOST_THREADS: usize = 1024;

/// Lets the training kernels use `threads` threads. To be called once, before anything runs on them.
pub fn use_threads(threads: usize) -> anyhow::Result<()> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}

/// Processor, threads and instruction set in one line, for reports.
pub fn line(threads: usize) -> String {
    let processor = fs_err::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{}, {cores} cores, {threads} used, {}",
        processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        kernels::cpu::isa().name()
    )
}
