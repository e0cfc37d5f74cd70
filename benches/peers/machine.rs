//! On what it was measured.

use serde_json::{Value, json};

/// The processor, how many of it, the memory, the kernel, and the time.
pub fn describe() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": cores,
        "memory": field("/proc/meminfo", "MemTotal"),
        // The version, without what whoever built it calls it.
        "kernel": read("/proc/sys/kernel/osrelease").split('-').next().unwrap_or_default().trim(),
        "time": gatepost::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

/// The same in a line.
pub fn in_words() -> String {
    let machine = describe();
    let text = |key: &str| machine[key].to_string().replace('"', "");
    let [cores, processor, kernel, time] = ["cores", "processor", "kernel", "time"].map(text);
    format!("{cores} cores of {processor}, Linux {kernel}, {time}.")
}

/// How busy the machine was with other things, over the last minute.
pub fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split(' ').next();
    first
        .and_then(|first| first.parse().ok())
        .unwrap_or(f64::NAN)
}

fn field(file: &str, name: &str) -> String {
    let text = read(file);
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or(String::new(), |(_, value)| value.trim().to_owned())
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}
