//! What would become of a login.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::Query;
use crate::admin::problem::Problem;
use crate::auth::explain::{Check, Explanation as Told, Question};
use crate::store::{Access, plain};

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(explain))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    /// Whom the client claims to be.
    username: String,
    /// The client's IP address.
    #[param(value_type = String, example = "203.0.113.7")]
    from: IpAddr,
    /// Whom it wants to send as.
    sender: Option<String>,
}

/// What would become of a login with the right password, and of mail after it.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct Explanation {
    /// Whom the client claims to be; control characters are escaped.
    pub username: String,
    /// The client's IP address.
    pub from: String,
    /// Whether the login would be accepted.
    pub accepted: bool,
    /// The reply to it: 235, 421 or 535 with its enhanced code.
    pub reply: String,
    /// If it would not be accepted, why; as in the log.
    pub reason: Option<String>,
    /// Whether mail would be refused after the login, as far as can be told.
    pub mail_refused: bool,
    /// All that was looked at, in the order in which a client meets it.
    pub checks: Vec<ExplainedCheck>,
}

/// One thing that was looked at.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ExplainedCheck {
    /// `guard`, `guesses`, `username`, `status`, `organization`, `expiry`, `networks`, `password`, `sender`,
    /// `credential_limits` or `organization_limits`.
    pub check: String,
    /// `passes`; `bars` (421), `refuses` (535) or `refuses_mail`; or `reports`, where that is only logged and counted.
    pub finding: String,
    /// The same for people.
    pub words: String,
}

impl Explanation {
    /// As it is answered.
    pub(crate) fn of(asked: Question, told: &Told) -> Explanation {
        let check = |check: &Check| ExplainedCheck {
            check: check.check.to_owned(),
            finding: check.finding.as_str().to_owned(),
            words: check.words.clone(),
        };
        Explanation {
            username: plain(asked.username),
            from: asked.from.to_canonical().to_string(),
            accepted: told.obstacle().is_none(),
            reply: told.reply(),
            reason: told.reason().map(str::to_owned),
            mail_refused: told.mail_obstacle().is_some(),
            checks: told.checks.iter().map(check).collect(),
        }
    }
}

/// Says what would become of a login with the right password, and why. A token for an organization asks about its own
/// credentials.
#[utoipa::path(get, path = "/explain", tag = "refusals", params(ExplainQuery),
    responses((status = 200, description = "What would happen.", body = Explanation),
        (status = 404, description = "There is no such credential in the organization.")))]
async fn explain(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Explanation>, Problem> {
    desk.run(move |desk| {
        let own = desk.organization_of(&caller, &query.username, Access::Read)?;
        let asked = Question {
            username: &query.username,
            organization: own.as_deref(),
            from: query.from,
            sender: query.sender.as_deref(),
        };
        let told = desk.explain(asked)?;
        let mut explanation = Explanation::of(asked, &told);
        if asked.organization.is_some() {
            // Who else is at that address is not theirs to know.
            for check in explanation.checks.iter_mut() {
                if check.check == "guard" {
                    check.words =
                        "the words of the guard are for a token of the instance".to_owned();
                }
            }
        }
        Ok(Json(explanation))
    })
    .await
}
