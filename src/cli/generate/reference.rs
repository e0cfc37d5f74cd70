//! The pages of docs/src/reference that the program itself knows: keys, commands, API, replies.

use std::fmt::Write as _;

use clap::Command;
use serde_json::Value;

use crate::admin::api;
use crate::smtp::reply::{FIXED, Reply};

/// The example is the source of the page, so a key has its words in one place.
const EXAMPLE: &str = include_str!("../../../config.toml.example");

/// A line of a page has at most this many columns.
const COLUMNS: usize = 98;

/// The page about every key of the configuration, in the order of the example.
pub fn configuration() -> String {
    let mut page = "# Configuration\n\n\
        Gatepost reads `/etc/gatepost/config.toml`, or the file that `--config` names.\n\
        Unknown keys, bad values and contradictions end the start with file, line, key and fix\n\
        (exit 78).\n\
        A change takes effect with `systemctl restart gatepost`; a running Gatepost reloads the\n\
        certificate alone.\n\
        This page is made from `config.toml.example`.\n"
        .to_owned();
    let mut block = Block::default();
    for line in EXAMPLE.lines() {
        let comment = line.strip_prefix('#').filter(|rest| {
            // A comment has a blank behind its sign; a key that may be left out has none.
            rest.is_empty() || rest.starts_with(' ')
        });
        match comment {
            Some(text) => {
                if !block.code.is_empty() {
                    block.close(&mut page);
                }
                block.words.push(text.strip_prefix(' ').unwrap_or(text));
            }
            None if line.is_empty() => block.close(&mut page),
            None => {
                let bare = line.strip_prefix('#').unwrap_or(line);
                if bare.starts_with('[') {
                    let _ = write!(page, "\n## {bare}\n");
                    block.close(&mut page);
                    bare.trim_matches(['[', ']']).clone_into(&mut block.section);
                }
                block.code.push(line);
            }
        }
    }
    block.close(&mut page);
    page
}

/// A comment of the example and the lines that it is about.
#[derive(Default)]
struct Block<'a> {
    section: String,
    words: Vec<&'a str>,
    code: Vec<&'a str>,
}

impl Block<'_> {
    /// Writes the block under the names of its keys, and begins the next one.
    fn close(&mut self, page: &mut String) {
        let names = self.code.iter().filter_map(|line| {
            let (key, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
            Some(match &*self.section {
                "" => key.to_owned(),
                section => format!("{section}.{key}"),
            })
        });
        let names: Vec<_> = names.collect();
        if !names.is_empty() {
            let _ = write!(page, "\n### {}\n", names.join(", "));
        }
        tell(page, &mut self.words);
        if !self.code.is_empty() {
            let _ = write!(page, "\n```toml\n{}\n```\n", self.code.join("\n"));
            self.code.clear();
        }
    }
}

/// Ends a comment: one sentence a line. Indented lines are a list.
fn tell(page: &mut String, words: &mut Vec<&str>) {
    let mut text = String::new();
    for line in words.drain(..) {
        if line.starts_with("  ") {
            if !text.ends_with('\n') {
                paragraph(page, &text);
                text.clear();
            }
            let _ = writeln!(text, "- {}", line.trim());
        } else if text.ends_with('\n') {
            page.push('\n');
            page.push_str(&std::mem::take(&mut text));
            text.push_str(line);
        } else if line.is_empty() {
            paragraph(page, &text);
            text.clear();
        } else {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(line);
        }
    }
    paragraph(page, &text);
}

fn paragraph(page: &mut String, text: &str) {
    if text.is_empty() {
        return;
    }
    page.push('\n');
    let mut line = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        if !line.is_empty() && line.len() + 1 + word.len() > COLUMNS {
            page.push_str(&std::mem::take(&mut line));
            page.push('\n');
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        let begins = |next: &&str| next.starts_with(|letter: char| letter.is_ascii_uppercase());
        if word.ends_with('.') && words.peek().is_some_and(begins) {
            page.push_str(&std::mem::take(&mut line));
            page.push('\n');
        }
    }
    page.push_str(&line);
    page.push('\n');
}

/// The page about every command, as `--help` shows it.
pub fn commands(command: &Command) -> String {
    let mut page = "# Commands\n\n\
        Every command with its options, as `--help` prints them.\n\
        [The command line](../use/commands.md) explains exit codes and the running daemon.\n"
        .to_owned();
    describe(&mut page, command);
    page
}

fn describe(page: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let help = command.clone().term_width(COLUMNS).render_help();
    let _ = write!(page, "\n## {name}\n\n```text\n");
    for line in help.to_string().lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str("```\n");
    let shown = command.get_subcommands();
    let shown = shown.filter(|one| !one.is_hide_set() && one.get_name() != "help");
    for subcommand in shown {
        describe(page, subcommand);
    }
}

/// The page about every route of the API, from its own description.
///
/// # Errors
/// The description is no JSON.
pub fn api() -> Result<String, serde_json::Error> {
    let document: Value = serde_json::from_str(&api::description())?;
    let mut page = "# API\n\n\
        This page is made from `/api/v1/openapi.json`, which has the form of every body as well.\n\
        [Administration over HTTP](../use/api.md) explains access, errors and bounds.\n"
        .to_owned();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        let _ = write!(
            page,
            "\n## {path}\n\n| method | does | takes | answers |\n|---|---|---|---|\n"
        );
        let methods = methods.as_object().into_iter().flatten();
        for (method, operation) in methods.filter(|(_, operation)| operation.is_object()) {
            let words = ["summary", "description"].map(|key| text(&operation[key]));
            let words = words.join(" ");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let takes: Vec<_> = parameters
                .map(|parameter| format!("`{}`", text(&parameter["name"])))
                .collect();
            let answers = operation["responses"].as_object().into_iter().flatten();
            let answers: Vec<_> = answers.map(|(status, _)| status.as_str()).collect();
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} |",
                method.to_uppercase(),
                cell(words.trim()),
                takes.join(" "),
                answers.join(" ")
            );
        }
    }
    Ok(page)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The page with the text of every reply that is Gatepost's own.
pub fn replies() -> String {
    let mut page = "# Table of replies\n\n\
        Every reply of Gatepost's own, by code.\n\
        [Replies](replies.md) says when a client gets them.\n\n\
        | code | enhanced code | text |\n|---|---|---|\n"
        .to_owned();
    let mut all = FIXED.to_vec();
    all.extend([Reply::bare_newline(1), Reply::nul(1)]);
    all.sort_by_key(|reply| (reply.code, reply.enhanced));
    for reply in all {
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            reply.code,
            reply.enhanced,
            cell(&reply.text)
        );
    }
    page
}
