//! `gatepost generate`: man pages, completions for the shells, and the pages of the documents that
//! the program itself knows.

mod reference;

use std::fs::{self, File};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};

use super::{Arguments, CliError};

/// Writes all of them into a directory.
pub fn run(directory: &Path) -> Result<(), CliError> {
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    let mut command = Arguments::command();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command, "gatepost", directory)?;
    }
    command.build();
    page(&command, &pages)?;
    let pages = directory.join("reference");
    fs::create_dir_all(&pages)?;
    let api = reference::api().map_err(|error| CliError::Io(error.to_string()))?;
    fs::write(pages.join("api.md"), api)?;
    fs::write(pages.join("cli.md"), reference::commands(&command))?;
    fs::write(pages.join("config.md"), reference::configuration())?;
    fs::write(pages.join("reply-table.md"), reference::replies())?;
    Ok(())
}

/// The page of a command, and those of its subcommands.
fn page(command: &Command, pages: &Path) -> Result<(), CliError> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let file = pages.join(format!("{name}.1"));
    clap_mangen::Man::new(command.clone())
        .title(name)
        .render(&mut File::create(file)?)?;
    let subcommands = command.get_subcommands();
    let mut shown = subcommands.filter(|one| !one.is_hide_set() && one.get_name() != "help");
    shown.try_for_each(|one| page(one, pages))
}
