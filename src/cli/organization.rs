//! `gatepost organization`: make, list, rename and delete organizations.

use axum::http::Method;
use clap::Subcommand;
use serde_json::json;

use super::CliError;
use super::containment::{OrganizationLimits, show_limits};
use super::output::{confirm, document, minute, name, plain, shown, table};
use super::running::{Aftermath, Answer, Asked, Narrowed, Running, Whose};
use crate::admin::api;
use crate::store::{Actor, Organization, OrganizationEdit, OrganizationStatus, Store};

/// What to do with organizations.
#[derive(Debug, Subcommand)]
pub enum OrganizationCommand {
    /// Make an organization
    Create {
        /// Its short name, for life: lower-case letters, digits and hyphens
        slug: String,
        /// What people call it
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List organizations, with how many credentials each has
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Change what people call an organization
    Rename {
        /// Its short name
        slug: String,
        /// The new name; an empty one takes the name away
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show or change how much all credentials of an organization may send together
    #[command(
        after_help = "Each is a number, \"unlimited\", or \"default\" for that of [organization_limits] in the configuration. A change counts at once, in live sessions with their next message."
    )]
    Limit {
        /// Its short name
        slug: String,
        #[command(flatten)]
        limits: OrganizationLimits,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Refuse all credentials of an organization from now on
    Suspend {
        /// Its short name
        slug: String,
        /// End its live sessions, too, instead of letting them go on
        #[arg(long)]
        disconnect: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Accept the credentials of a suspended organization again
    Activate {
        /// Its short name
        slug: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Delete an organization, after asking
    Delete {
        /// Its short name
        slug: String,
        /// Delete its credentials with it
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// End its live sessions, too, instead of letting them go on
        #[arg(long)]
        disconnect: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Carries out `command` and prints the answer.
///
/// # Errors
/// Refusals, failures of the store, and standard output being closed.
pub fn run(
    command: OrganizationCommand,
    store: &Store,
    actor: &Actor,
    running: &Running,
) -> Result<(), CliError> {
    let changes = command.changes();
    let answer = answer(command, store, actor, running)?;
    match changes {
        true => answer.print_and_tell(running),
        false => answer.print(),
    }
}

impl OrganizationCommand {
    /// Whether it changes anything.
    fn changes(&self) -> bool {
        match self {
            Self::List { .. } => false,
            Self::Limit { limits, .. } => !limits.change().0.is_empty(),
            _ => true,
        }
    }
}

fn answer(
    command: OrganizationCommand,
    store: &Store,
    actor: &Actor,
    running: &Running,
) -> Result<Answer, CliError> {
    let editor = store.by(actor);
    use OrganizationCommand::{Activate, Create, Delete, Limit, List, Rename, Suspend};
    let set_status = |slug: &str, status| {
        let edit = OrganizationEdit {
            status: Some(status),
            ..OrganizationEdit::default()
        };
        editor.edit_organization(slug, None, edit)
    };
    let text = match command {
        Create { slug, name, json } => {
            let organization = editor.create_organization(&slug, name.as_deref())?;
            told(&organization, json, || {
                format!(
                    "Created organization {slug}.\n\
                     Its first credential: gatepost credential create --org {slug}"
                )
            })
        }
        List { json } => list(&store.organizations(None, u32::MAX)?, json),
        Rename {
            slug,
            name: new,
            json,
        } => {
            let new = Some(new.as_str()).filter(|new| !new.is_empty());
            let edit = OrganizationEdit {
                name: Some(new),
                ..OrganizationEdit::default()
            };
            let organization = editor.edit_organization(&slug, None, edit)?;
            told(&organization, json, || match new {
                Some(new) => format!("Organization {slug} is now called {}.", shown(new)),
                None => format!("Organization {slug} has no name any more."),
            })
        }
        Limit { slug, limits, json } => {
            let limits = limits.change();
            let organization = if limits.0.is_empty() {
                store.organization(&slug)?
            } else {
                let edit = OrganizationEdit {
                    limits: Some(&limits),
                    ..OrganizationEdit::default()
                };
                editor.edit_organization(&slug, None, edit)?
            };
            told(&organization, json, || {
                show_limits(&organization.limits, false)
            })
        }
        Suspend {
            slug,
            disconnect,
            json,
        } => {
            running.needed(disconnect)?;
            let path = format!("/api/v1/organizations/{slug}");
            let asked = Asked::patch(path, json!({ "status": "suspended" }));
            let suspend = || Ok(set_status(&slug, OrganizationStatus::Suspended)?);
            let (organization, unwritten) = match running.narrow(store, &asked, suspend)? {
                Narrowed::Here(organization) => (organization, None),
                Narrowed::There(_, unwritten) => (store.organization(&slug)?, unwritten),
            };
            let after = Aftermath::of(disconnect, running, Whose::Organization(&slug));
            let text = if json {
                after.document(&api::Organization::from(&organization))?
            } else {
                format!(
                    "Suspended {slug}: none of its credentials is accepted. {}\n\
                     Undo it with: gatepost organization activate {slug}",
                    after.words()
                )
            };
            return Ok(after.answer(text).or(unwritten));
        }
        Activate { slug, json } => {
            let organization = set_status(&slug, OrganizationStatus::Active)?;
            running.activate(&slug)?;
            told(&organization, json, || format!("Activated {slug}."))
        }
        Delete {
            slug,
            force,
            yes,
            disconnect,
            json,
        } => {
            running.needed(disconnect)?;
            let organization = store.organization(&slug)?;
            if !yes {
                confirm_deletion(&organization, force)?;
            }
            let asked = Asked {
                method: Method::DELETE,
                path: format!("/api/v1/organizations/{slug}?force={force}"),
                body: None,
            };
            let delete = || Ok(editor.delete_organization(&slug, None, force)?);
            let unwritten = match running.narrow(store, &asked, delete)? {
                Narrowed::Here(()) => None,
                Narrowed::There(_, unwritten) => unwritten,
            };
            let after = Aftermath::of(disconnect, running, Whose::Organization(&slug));
            let text = if json {
                let id = organization.id.to_string();
                after.document(&json!({ "id": id, "slug": slug, "deleted": true }))?
            } else {
                format!("Deleted organization {slug}. {}", after.words())
            };
            return Ok(after.answer(text).or(unwritten));
        }
    };
    Ok(text?.into())
}

fn confirm_deletion(organization: &Organization, force: bool) -> Result<(), CliError> {
    let slug = &organization.slug;
    confirm(
        &match organization.credentials {
            count if force && count > 0 => {
                format!("This deletes organization {slug} and its {count} credential(s) for good.")
            }
            _ => format!("This deletes organization {slug} for good."),
        },
        "its slug",
        slug,
    )
}

fn list(organizations: &[Organization], json: bool) -> Result<String, CliError> {
    if json {
        return document(
            &organizations
                .iter()
                .map(api::Organization::from)
                .collect::<Vec<_>>(),
        );
    }
    let rows = organizations.iter().map(|organization| {
        vec![
            name(organization.name.as_deref()),
            plain(&organization.slug),
            organization.status.to_string(),
            organization.credentials.to_string(),
            minute(organization.created_at),
        ]
    });
    Ok(table(
        &["Name", "Slug", "Status", "Credentials", "Created"],
        rows,
    ))
}

/// The organization as JSON, or a sentence about it.
fn told(
    organization: &Organization,
    json: bool,
    sentence: impl FnOnce() -> String,
) -> Result<String, CliError> {
    if json {
        document(&api::Organization::from(organization))
    } else {
        Ok(sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        (directory, store)
    }

    fn create(slug: &str) -> OrganizationCommand {
        OrganizationCommand::Create {
            slug: slug.into(),
            name: Some("Acme Ltd.".into()),
            json: true,
        }
    }

    fn delete(slug: &str) -> OrganizationCommand {
        OrganizationCommand::Delete {
            slug: slug.into(),
            force: false,
            yes: true,
            disconnect: false,
            json: true,
        }
    }

    #[test]
    fn an_organization_is_made_listed_renamed_and_deleted() {
        let (_directory, store) = store();
        let said = |command| -> serde_json::Value {
            serde_json::from_str(
                &answer(command, &store, &Actor::cli("tester"), &Running::default())
                    .unwrap()
                    .text,
            )
            .unwrap()
        };
        let made = said(create("acme"));
        assert_eq!(
            (&made["slug"], &made["credentials"]),
            (&json!("acme"), &json!(0))
        );
        assert_eq!(said(OrganizationCommand::List { json: true })[0], made);
        let rename = OrganizationCommand::Rename {
            slug: "acme".into(),
            name: "".into(),
            json: true,
        };
        assert_eq!(said(rename)["name"], serde_json::Value::Null);
        assert_eq!(said(delete("acme"))["deleted"], true);
        let list = answer(
            OrganizationCommand::List { json: false },
            &store,
            &Actor::cli("tester"),
            &Running::default(),
        )
        .unwrap()
        .text;
        assert!(list.contains("default") && !list.contains("acme"), "{list}");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let (_directory, store) = store();
        for command in [
            create("default"),
            create("Not A Slug"),
            delete("default"),
            delete("acme"),
        ] {
            assert!(matches!(
                answer(command, &store, &Actor::cli("tester"), &Running::default()),
                Err(CliError::Refused(_))
            ));
        }
    }
}
