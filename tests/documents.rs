//! The documents against the program: pages that the program writes, names, links and the contents.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REGENERATE: &str = "cargo run -- generate target/generated && \
    cp target/generated/reference/*.md docs/src/reference/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page of the book, and the README.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

/// The lines of a page outside its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("\n```").step_by(2);
    parts.flat_map(str::lines)
}

/// Text between backquotes.
fn spans(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// The targets of a page's links and pictures.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

/// The anchor that a book gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|letter| match letter {
        letter if letter.is_alphanumeric() || letter == '-' || letter == '_' => {
            Some(letter.to_lowercase().next().unwrap_or(letter))
        }
        letter if letter.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.collect()
}

#[test]
fn pages_that_the_program_writes_are_current() {
    let directory = tempfile::tempdir().expect("tempdir");
    let output = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .arg("generate")
        .arg(directory.path())
        .output();
    let output = output.expect("run generate");
    assert!(output.status.success(), "{output:?}");
    let written = fs::read_dir(directory.path().join("reference")).expect("the pages");
    let mut count = 0;
    for entry in written {
        let entry = entry.expect("a page");
        let kept = root().join("docs/src/reference").join(entry.file_name());
        assert!(
            read(&entry.path()) == fs::read_to_string(&kept).unwrap_or_default(),
            "{} is not what the program writes; run: {REGENERATE}",
            kept.display()
        );
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = read(&page);
        for target in links(&text) {
            if target.starts_with("https://") || target.starts_with("http://") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let place = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            let is_there = place.exists()
                && (part.is_empty()
                    || prose(&read(&place)).any(|line| {
                        let heading = line.trim_start_matches('#');
                        heading.len() < line.len() && anchor(heading.trim()) == part
                    }));
            if !is_there {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_contents_list_every_page_once() {
    let source = root().join("docs/src");
    let summary = read(&source.join("SUMMARY.md"));
    let mut listed: Vec<_> = links(&summary)
        .into_iter()
        .map(|one| source.join(one))
        .collect();
    let mut pages = pages();
    pages.retain(|page| page.starts_with(&source) && !page.ends_with("SUMMARY.md"));
    listed.sort();
    pages.sort();
    assert_eq!(listed, pages);
}

/// The keys of the example: those that are set, and those that may be left out.
fn keys() -> BTreeSet<String> {
    let example = read(&root().join("config.toml.example"));
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in example.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            keys.insert(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ")
            && !key.contains(' ')
        {
            let dot = if section.is_empty() { "" } else { "." };
            keys.insert(format!("{section}{dot}{key}"));
        }
    }
    keys
}

#[test]
fn every_key_that_a_page_names_exists() {
    let keys = keys();
    assert!(keys.contains("guard.per_address") && keys.contains("admin.proxy_auth.user_header"));
    let sections: BTreeSet<_> = keys
        .iter()
        .filter_map(|key| key.split('.').next())
        .collect();
    let mut unknown = Vec::new();
    for page in pages() {
        let text = read(&page);
        for span in spans(&text) {
            // `[section]` and `section.key`, also with a value behind it.
            let name = span.split(" = ").next().unwrap_or(span);
            let name = name.trim_matches(['[', ']']);
            let is_name = |letter: char| letter.is_ascii_lowercase() || "._".contains(letter);
            let Some((section, _)) = name.split_once('.') else {
                if span.starts_with('[') && name.chars().all(is_name) && !keys.contains(name) {
                    unknown.push(format!("{}: {span}", page.display()));
                }
                continue;
            };
            let is_file = name.ends_with(".rs") || name.ends_with(".socket");
            let is_key = sections.contains(section) && name.chars().all(is_name) && !is_file;
            if is_key && !keys.contains(name) {
                unknown.push(format!("{}: {span}", page.display()));
            }
        }
    }
    // The action of an audit record, and units' names, look like keys.
    unknown.retain(|line| !line.ends_with(": store.export") && !line.contains(": units."));
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn every_command_that_a_page_names_exists() {
    let reference = read(&root().join("docs/src/reference/cli.md"));
    let commands: BTreeSet<_> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## gatepost "))
        .collect();
    assert!(commands.contains("credential rotate"), "{commands:?}");
    let groups: BTreeSet<_> = commands
        .iter()
        .filter_map(|one| one.split(' ').next())
        .collect();
    let mut unknown = Vec::new();
    for page in pages() {
        let text = read(&page);
        let blocks = text.split("\n```").skip(1).step_by(2).flat_map(str::lines);
        for line in spans(&text).into_iter().chain(blocks) {
            let Some((before, rest)) = line.split_once("gatepost ") else {
                continue;
            };
            let is_command = ["", "sudo ", "$ sudo ", "sudo -u gatepost "].contains(&before);
            let mut words = rest.split([' ', ',']);
            let (Some(first), second) = (words.next(), words.next().unwrap_or_default()) else {
                continue;
            };
            let is_word = first.len() > 1 && first.chars().all(|one| one.is_ascii_lowercase());
            if !is_command || !is_word {
                continue;
            }
            let has_group = commands
                .iter()
                .any(|one| one.starts_with(&format!("{first} ")));
            let second_is_word = !second.is_empty()
                && second
                    .chars()
                    .all(|one| one.is_ascii_lowercase() || one == '-');
            let known = groups.contains(first)
                && (!has_group
                    || !second_is_word
                    || second.starts_with('-')
                    || commands.contains(&*format!("{first} {second}")));
            if !known {
                unknown.push(format!("{}: {line}", page.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// The words of `text` that look like metrics.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("gatepost_") && !word.ends_with('_'))
        .collect()
}

#[test]
fn every_metric_that_a_page_names_is_in_the_reference() {
    let reference = read(&root().join("docs/src/reference/metrics.md"));
    let known = metrics(&reference);
    for page in pages() {
        let text = read(&page);
        let named: Vec<_> = spans(&text).into_iter().flat_map(metrics).collect();
        for name in named {
            assert!(known.contains(name), "{}: {name}", page.display());
        }
    }
}

#[test]
fn every_reply_of_the_reference_exists() {
    let table = read(&root().join("docs/src/reference/reply-table.md"));
    let sent: BTreeSet<String> = table
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split(" | ").collect();
            let code = cells.first()?.strip_prefix("| ")?;
            code.parse::<u16>().ok()?;
            Some(format!("{code} {}", cells.get(1)?))
        })
        .collect();
    assert!(sent.len() > 25, "{sent:?}");
    let page = read(&root().join("docs/src/reference/replies.md"));
    let mut told = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default();
        let mut code = String::new();
        for span in cell.split('`').skip(1).step_by(2) {
            let reply = match span.split_once(' ') {
                Some((own, _)) => {
                    own.clone_into(&mut code);
                    span.to_owned()
                }
                // A row may name its code once for several enhanced codes.
                None => format!("{code} {span}"),
            };
            assert!(sent.contains(&reply), "{reply} is never sent");
            told.insert(reply);
        }
    }
    let refusals = sent.iter().filter(|reply| reply.starts_with(['4', '5']));
    let missing: Vec<_> = refusals.filter(|reply| !told.contains(*reply)).collect();
    assert!(missing.is_empty(), "no row says when: {missing:?}");
}

#[test]
fn pages_are_plain_and_narrow() {
    const BANNED: [&str; 6] = [
        "whoever",
        "nobody",
        "somebody",
        "everybody",
        "anybody",
        "those who",
    ];
    let mut faults = Vec::new();
    for page in pages() {
        let text = read(&page);
        let is_written = ["cli.md", "api.md", "config.md"]
            .iter()
            .any(|own| page.ends_with(own));
        for line in prose(&text) {
            let lower = line.to_lowercase();
            if !is_written && BANNED.iter().any(|word| lower.contains(word)) {
                faults.push(format!("{}: {line}", page.display()));
            }
            let may_be_wide = line.starts_with(['|', '#', '!']);
            if line.chars().count() > 100 && !may_be_wide {
                faults.push(format!("{}: more than 100 columns: {line}", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let readme = read(&root().join("README.md"));
    assert!(
        readme.lines().count() <= 150,
        "the README is for two minutes"
    );
}
