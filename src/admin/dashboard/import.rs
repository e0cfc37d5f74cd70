//! Credentials from elsewhere, pasted into a form.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::auth::import::{Format, ImportError, Left, Report};
use crate::sasl::Secret;
use crate::store::Access;

use super::Dashboard;
use super::address::Path;
use super::error::ErrorPage;
use super::form::{Field, Form};
use super::frame::{Frame, Section, page, refused};
use super::guard::Visitor;

/// Formats by their names in the form, with words for people.
const FORMATS: [(Format, &str, &str); 3] = [
    (Format::Dovecot, "dovecot", "Dovecot passwd-file"),
    (Format::Csv, "csv", "CSV with a line of column names"),
    (Format::Json, "json", "JSON of gatepost export"),
];

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    frame: Frame,
    /// The name of the chosen format.
    format: &'static str,
    text: Field,
    report: Option<Outcome>,
}

struct Outcome {
    dry_run: bool,
    taken: usize,
    left: Vec<Left>,
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Outcome {
        Outcome {
            dry_run: report.dry_run,
            taken: report.taken.len(),
            left: report.left,
        }
    }
}

/// Asks for the text of a file.
pub(super) async fn ask(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
) -> Result<Response, ErrorPage> {
    visitor.caller.require_in(&slug, Access::Admin)?;
    let frame = visitor.frame(Section::Credentials).of(&slug);
    let found = dashboard
        .desk
        .run(move |desk| Ok(desk.system.store.organization(&slug)?));
    found.await?;
    page(&ImportPage {
        frame,
        format: FORMATS[0].1,
        text: Field::default(),
        report: None,
    })
}

/// Checks the text, or imports it, and shows the fate of its lines. After a check the text stays in
/// the form, to be imported.
pub(super) async fn import(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let frame = visitor.frame(Section::Credentials).of(&slug);
    let chosen = FORMATS
        .iter()
        .find(|(_, name, _)| *name == form.text("format"));
    let (format, name, _) = *chosen.unwrap_or(&FORMATS[0]);
    let is_check = form.text("action") != "import";
    let mut text = form.field("text");
    let secret = Secret::new(text.value.as_bytes());
    let actor = visitor.caller.actor.clone();
    let done = dashboard.desk.run(move |desk| {
        match desk.import(&actor, &slug, format, is_check, &secret) {
            Ok(report) => Ok(Ok(report)),
            Err(ImportError::File(detail)) => Ok(Err(detail)),
            Err(error) => Err(error.into()),
        }
    });
    match done.await? {
        Ok(report) => {
            if !is_check {
                text = Field::default();
            }
            page(&ImportPage {
                frame,
                format: name,
                text,
                report: Some(report.into()),
            })
        }
        Err(detail) => {
            text.error = Some(detail);
            refused(&ImportPage {
                frame,
                format: name,
                text,
                report: None,
            })
        }
    }
}
