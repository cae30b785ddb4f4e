//! Memory of this process and of the machine, in bytes; what the system does not tell is `None`.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Reads the memory of this process again and again.
pub struct MemoryProbe {
    system: System,
    process: Option<Pid>,
}

impl MemoryProbe {
    /// For this process.
    pub fn new() -> Self {
        Self { system: System::new(), process: sysinfo::get_current_pid().ok() }
    }

    /// What the process holds now.
    pub fn held(&mut self) -> Option<u64> {
        let process = self.process?;
        let wanted = ProcessRefreshKind::nothing().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, wanted);
        Some(self.system.process(process)?.memory()).filter(|&bytes| bytes > 0)
    }
}

impl Default for MemoryProbe {
    fn default() -> Self {
        Self::new()
    }
}

/// Most that this process has held so far, where the system tells it as Linux does.
pub fn peak() -> Option<u64> {
    let text = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Memory of the machine, or of the container that the process runs in if that is less.
pub fn machine() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let limit = system.cgroup_limits().map(|limits| limits.total_memory).filter(|&bytes| bytes > 0);
    let total = Some(system.total_memory()).filter(|&bytes| bytes > 0);
    total.into_iter().chain(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_holds_less_than_its_peak_and_the_machine_more() {
        let Some(machine) = machine() else { return };
        let mut probe = MemoryProbe::new();
        let before = probe.held().unwrap();
        let block = vec![1_u8; 64 << 20];
        assert!(block.iter().all(|&byte| byte == 1));
        let after = probe.held().unwrap();
        assert!(after > before + (48 << 20) && after < machine, "{before} to {after} of {machine}");
        if let Some(peak) = peak() {
            assert!(peak >= after && peak < machine, "{after}, {peak}, {machine}");
        }
    }
}
