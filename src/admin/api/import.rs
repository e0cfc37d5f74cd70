//! Credentials from elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::{Body, Path};
use crate::admin::problem::Problem;
use crate::auth::import::{self, ImportError};
use crate::sasl::Secret;

use super::organizations::InOrganization;

/// The largest body, in octets.
const BODY_SIZE: usize = 2 * 1024 * 1024;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(import_credentials))
}

/// A file to import.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportFile {
    format: ImportFormat,
    /// The file's text; up to 10,000 credentials, of which 1,000 may have their passwords in the clear.
    #[schema(max_length = 2_097_152)]
    text: String,
    /// Change nothing, and report what would be taken and what would be left.
    #[serde(default)]
    dry_run: bool,
}

/// What the file is.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ImportFormat {
    /// Comma-separated; the first line names the columns: username, password, name, expires.
    Csv,
    /// A passwd-file of Dovecot's.
    Dovecot,
    /// The document of `gatepost export --format json`.
    Json,
}

impl From<ImportFormat> for import::Format {
    fn from(format: ImportFormat) -> Self {
        match format {
            ImportFormat::Csv => Self::Csv,
            ImportFormat::Dovecot => Self::Dovecot,
            ImportFormat::Json => Self::Json,
        }
    }
}

/// The fate of each line of a file.
#[derive(Serialize, ToSchema)]
struct ImportReport {
    /// The slug of the organization.
    organization: String,
    /// Whether nothing was changed.
    dry_run: bool,
    /// Lines that became credentials, or would.
    taken: Vec<TakenLine>,
    /// Lines that did not.
    left: Vec<LeftLine>,
    /// Usernames that stand in several lines; the first that can be taken counts.
    repeated: Vec<RepeatedUsername>,
}

/// A line that became a credential.
#[derive(Serialize, ToSchema)]
struct TakenLine {
    /// Its number, from 1; of JSON the position in its list.
    line: usize,
    /// As it is stored.
    username: String,
    /// How its password was hashed, for example `bcrypt`; `plain` where it was not.
    scheme: &'static str,
}

/// A line that did not become a credential.
#[derive(Serialize, ToSchema)]
struct LeftLine {
    /// Its number.
    line: usize,
    /// Control characters are escaped; null where the line may hold something else there.
    username: Option<String>,
    /// For people; it holds nothing of a password.
    reason: String,
}

/// A username that stands in several lines.
#[derive(Serialize, ToSchema)]
struct RepeatedUsername {
    /// As it is stored.
    username: String,
    /// All its lines.
    lines: Vec<usize>,
}

impl From<import::Report> for ImportReport {
    fn from(report: import::Report) -> ImportReport {
        let taken = report.taken.into_iter().map(|taken| TakenLine {
            line: taken.line,
            username: taken.username,
            scheme: taken.scheme,
        });
        let left = report.left.into_iter().map(|left| LeftLine {
            line: left.line,
            username: left.username,
            reason: left.reason,
        });
        let repeated = report.repeated.into_iter().map(|one| RepeatedUsername {
            username: one.username,
            lines: one.lines,
        });
        ImportReport {
            organization: report.organization,
            dry_run: report.dry_run,
            taken: taken.collect(),
            left: left.collect(),
            repeated: repeated.collect(),
        }
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Problem {
        match error {
            ImportError::File(detail) => Problem::field("#/text", detail),
            ImportError::Hash(error) => Problem::internal(&error),
            ImportError::Io(error) => Problem::internal(&error),
            ImportError::Store(error) => error.into(),
        }
    }
}

/// Takes credentials over from a Dovecot passwd-file, from CSV or from an export, all that can be taken
/// in one transaction. A repeated request takes nothing twice: usernames that credentials have are left.
#[utoipa::path(post, path = "/organizations/{slug}/import", tag = "credentials", params(InOrganization),
    request_body = ImportFile,
    responses((status = 200, description = "The fate of each line.", body = ImportReport)))]
async fn import_credentials(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(at): Path<InOrganization>,
    Body(file): Body<ImportFile, BODY_SIZE>,
) -> Result<Json<ImportReport>, Problem> {
    let text = Secret::new(file.text);
    desk.run(move |desk| {
        let format = file.format.into();
        let report = desk.import(&caller.actor, &at.slug, format, file.dry_run, &text)?;
        Ok(Json(report.into()))
    })
    .await
}
