//! The house has floors: a module uses only what lies below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Modules of one floor never use each other.
const LAYERS: &[&[&str]] = &[
    &["clock"],
    &["policy", "log"],
    &["sasl", "metrics", "lifecycle"],
    &["smtp", "config", "sessions"],
    &["store", "net"],
    &["auth"],
    &["edge", "admin", "dovecot"],
    &["daemon"],
    &["cli"],
    &["main"],
];

/// A name and the only modules that may say it.
const FENCES: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    ("r2d2", &["store"]),
    ("hyper", &["admin"]),
    ("SystemTime", &["clock"]),
    ("Timestamp::now", &["clock"]),
];

/// What the pure modules never say: they decide without I/O, clock or log.
const PURE: &[&str] = &["policy", "smtp", "sasl"];
const IMPURE: &[&str] = &[
    "tokio",
    "Instant::now",
    "crate::clock",
    "std::net::Tcp",
    "std::fs",
    "std::io",
    "tracing",
];

#[test]
fn every_module_uses_only_the_layers_below_it() {
    let mut offences = Vec::new();
    for source in sources() {
        let Some(own) = layer_of(&source.module) else {
            offences.push(format!("{}: stands on no layer", source.path.display()));
            continue;
        };
        for (number, used) in source.modules_used() {
            let below = layer_of(&used).is_some_and(|layer| layer < own);
            if used != source.module && !below {
                let (path, module) = (source.path.display(), &source.module);
                offences.push(format!("{path}:{number}: {module} must not use {used}"));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn every_fence_stands() {
    let mut offences = Vec::new();
    for source in sources() {
        for (name, allowed) in FENCES {
            if !allowed.contains(&source.module.as_str()) {
                offences.extend(source.says(name));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let pure = sources()
        .into_iter()
        .filter(|source| PURE.contains(&source.module.as_str()));
    let offences: Vec<_> = pure
        .flat_map(|source| IMPURE.iter().flat_map(move |name| source.says(name)))
        .collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// One file of the source, without its comments.
#[derive(Clone)]
struct Source {
    path: PathBuf,
    module: String,
    lines: Vec<String>,
}

impl Source {
    /// The top-level modules it names, with the line: `crate::` inside the library, `gatepost::`
    /// in the binary.
    fn modules_used(&self) -> Vec<(usize, String)> {
        let prefix = if self.module == "main" {
            "gatepost::"
        } else {
            "crate::"
        };
        let mut used = Vec::new();
        for (number, line) in self.lines.iter().enumerate() {
            for rest in line.split(prefix).skip(1) {
                // A group of `use crate::{a, b::c}` is several names.
                let group = rest
                    .strip_prefix('{')
                    .map(|rest| rest.split('}').next().unwrap_or(""));
                let names = group.map_or(vec![rest], |group| group.split(',').collect());
                used.extend(
                    names
                        .iter()
                        .map(|name| (number + 1, identifier(name.trim()))),
                );
            }
        }
        used
    }

    /// Where it says `name` as a whole word.
    fn says(&self, name: &str) -> Vec<String> {
        let is_word = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        let lines = self.lines.iter().enumerate().filter(|(_, line)| {
            line.match_indices(name).any(|(at, _)| {
                let before = at.checked_sub(1).and_then(|at| line.as_bytes().get(at));
                // A prefix such as `std::net::Tcp` stands for all that begins so.
                let ends = name.ends_with("Tcp") || !is_word(line.as_bytes().get(at + name.len()));
                !is_word(before) && ends
            })
        });
        lines
            .map(|(at, _)| format!("{}:{}: says {name}", self.path.display(), at + 1))
            .collect()
    }
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

/// Every file below `src` except the map of the house.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("read the source") {
            let path = entry.expect("read the source").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path
                    .strip_prefix(&root)
                    .expect("below src")
                    .with_extension("");
                let module = inside.iter().next().unwrap().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).expect("read the source");
                let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
                found.push(Source {
                    path,
                    module,
                    lines: text.lines().map(code).collect(),
                });
            }
        }
    }
    found.retain(|source| source.module != "lib");
    found
}
