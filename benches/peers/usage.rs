//! What a program and all that it started have used so far, as the kernel counts it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// What /proc counts processor time in (USER_HZ), the same on every architecture that matters.
const TICKS_PER_SECOND: u32 = 100;

/// What the processes of one program take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all of them, those included that have ended.
    pub cpu: Duration,
    /// Resident memory, what several share counted once (the sum of their proportional shares).
    pub memory_kib: u64,
    /// How many they are.
    pub processes: usize,
}

/// Of the process and its descendants. Memory is asked for only where wanted: it takes the kernel a while.
pub fn of(root: u32, with_memory: bool) -> Usage {
    let processes = processes();
    let mut usage = Usage::default();
    let mut family = vec![root];
    while let Some(pid) = family.pop() {
        let Some(process) = processes.get(&pid) else {
            continue;
        };
        usage.processes += 1;
        usage.cpu += Duration::from_secs(process.ticks) / TICKS_PER_SECOND;
        if with_memory {
            usage.memory_kib += memory_kib(pid);
        }
        let children = processes.iter().filter(|(_, other)| other.parent == pid);
        family.extend(children.map(|(&child, _)| child));
    }
    usage
}

/// Processor time of the calling thread.
pub fn of_this_thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_ascii_whitespace().next();
    Duration::from_nanos(first.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// How long the threads of one process were ready and had to wait for a core, those not included that have ended.
pub fn waited(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let paths = threads.into_iter().flatten().flatten();
    let waits = paths.map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let second = text.split_ascii_whitespace().nth(1);
        second.map_or(0, |text| text.parse::<u64>().unwrap_or(0))
    });
    Duration::from_nanos(waits.sum())
}

struct Process {
    parent: u32,
    /// Its own and those of children it has waited for.
    ticks: u64,
}

fn processes() -> HashMap<u32, Process> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

/// Reads proc_pid_stat(5), unless the process has ended.
fn process(pid: u32) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<_> = fields.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        ticks: (11..=14).filter_map(number).sum(),
    })
}

fn memory_kib(pid: u32) -> u64 {
    let path = Path::new("/proc").join(pid.to_string());
    let text = std::fs::read_to_string(path.join("smaps_rollup")).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Pss:"));
    let size = lines
        .next()
        .and_then(|line| line.split_ascii_whitespace().next());
    size.and_then(|size| size.parse().ok()).unwrap_or_default()
}
