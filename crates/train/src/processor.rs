//! Time that processors spent on this process.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Seconds that all threads of this process have computed so far, together; `None` where the system does not tell.
///
/// On a machine that others use too, this says more of a piece of work than the clock does.
pub fn seconds_used() -> Option<f64> {
    let process = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    let wanted = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, wanted);
    Some(system.process(process)?.accumulated_cpu_time() as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time() {
        let Some(before) = seconds_used() else { return };
        let mut sum = 0_u64;
        while seconds_used().unwrap() < before + 0.02 {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        assert!(seconds_used().unwrap() < before + 60.0, "{sum}");
    }
}
