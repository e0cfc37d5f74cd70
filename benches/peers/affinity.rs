//! Which cores a thread and what it starts may run on, and how it stands back there.

use std::fs;

use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How many cores there are to run on.
pub fn cores() -> usize {
    allowed().len()
}

/// Does something on the first few of the cores; what it starts stays there. On all of them where no number is given.
pub fn on_first<T>(count: Option<usize>, work: impl FnOnce() -> T) -> T {
    let Some(count) = count else {
        return work();
    };
    let all = allowed();
    put(None, &all[..count.min(all.len())]);
    let result = work();
    put(None, &all);
    result
}

/// Keeps all threads of this process off the first few cores, as long as others are left. What undoes it when dropped.
pub fn off_first(count: usize) -> Confined {
    let all = allowed();
    let others = all.get(count..).filter(|others| !others.is_empty());
    if let Some(others) = others {
        put_all(others);
    }
    Confined { all }
}

/// The threads of this process stay where they were put until this is dropped.
pub struct Confined {
    all: Vec<usize>,
}

impl Drop for Confined {
    fn drop(&mut self) {
        put_all(&self.all);
    }
}

/// Gives the calling thread only the time that nobody else wants.
pub fn stand_back() {
    setpriority_process(None, 19).expect("less is always allowed");
}

/// The cores the calling thread may run on.
fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("the cores of this thread");
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|&core| set.is_set(core)).collect()
}

fn put(thread: Option<Pid>, cores: &[usize]) {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    // A thread may have ended meanwhile.
    let _ = sched_setaffinity(thread, &set);
}

fn put_all(cores: &[usize]) {
    let threads = fs::read_dir("/proc/self/task").expect("the threads of this process");
    let ids = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for id in ids {
        put(Pid::from_raw(id), cores);
    }
}
