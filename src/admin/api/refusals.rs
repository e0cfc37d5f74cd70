//! Why logins and mail were refused.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::{Path, Query};
use crate::admin::problem::Problem;
use crate::auth::spelling;
use crate::policy::action;
use crate::store::{Access, Breached, Page, RefusedLogin, Rows, Store, StoreError, plain};

use super::credentials::OfCredential;
use super::field::{Cursor, Limit, Time, page};
use super::reply::List;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .routes(routes!(credential_refusals))
        .routes(routes!(unknown_refusals))
}

/// Refused logins with one username, for one reason, from one address; or mail that one limit or rule refused, or would have.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct Refusal {
    /// What the client called itself; its own words, with control characters escaped.
    pub username: String,
    /// Of a login for example `wrong_password`, the same as in the log and in `gatepost_auth_total`; of mail the name of the
    /// limit or rule, for example `messages_per_day` or `senders`.
    pub reason: String,
    /// The same for people.
    pub words: String,
    /// Which credential was probably meant, for people; null where the username is one, or near none.
    pub hint: Option<String>,
    /// `refused`; or `reported`, where it was let through and only logged and counted.
    pub action: String,
    /// Whose limit or rule it was, `credential` or `organization`; null where a login was refused.
    pub of: Option<String>,
    /// The client's IP address; null where it was mail.
    pub address: Option<String>,
    /// The first of them.
    pub first_at: Time,
    /// The last of them.
    pub at: Time,
    /// How many there were.
    pub count: u64,
    /// With the reason `previous_password`: when that password was replaced.
    pub rotated_at: Option<Time>,
}

impl From<&RefusedLogin> for Refusal {
    fn from(refusal: &RefusedLogin) -> Refusal {
        Refusal {
            username: plain(&refusal.username),
            reason: refusal.reason.clone(),
            words: refusal.words().to_owned(),
            hint: None,
            action: action(true).to_owned(),
            of: None,
            address: Some(refusal.address.clone()),
            first_at: Time(refusal.first_at),
            at: Time(refusal.at),
            count: refusal.count,
            rotated_at: refusal.retired_at.map(Time),
        }
    }
}

impl Refusal {
    /// Refusals of unknown usernames, with hints.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of_unknown(
        store: &Store,
        refusals: &[RefusedLogin],
    ) -> Result<Vec<Refusal>, StoreError> {
        let hints = spelling::hints(store, refusals)?;
        let hinted = refusals.iter().zip(hints);
        let hinted = hinted.map(|(refusal, hint)| Refusal {
            hint,
            ..Refusal::from(refusal)
        });
        Ok(hinted.collect())
    }

    /// All of one credential, the latest first.
    pub fn of_credential(
        username: &str,
        logins: &[RefusedLogin],
        mail: &[Breached],
    ) -> Vec<Refusal> {
        let mail = mail.iter().map(|breached| Refusal {
            username: plain(username),
            reason: breached.reason.clone(),
            words: breached.words(),
            hint: None,
            action: breached.action.clone(),
            of: Some(breached.party.clone()),
            address: None,
            first_at: Time(breached.tally.first_at),
            at: Time(breached.tally.at),
            count: breached.tally.count,
            rotated_at: None,
        });
        let mut all: Vec<_> = logins.iter().map(Refusal::from).chain(mail).collect();
        all.sort_by_key(|refusal| std::cmp::Reverse(refusal.at.0));
        all
    }
}

/// Lists why logins and mail with a credential were refused in the last 30 days, the latest first. Of logins there are at most 32
/// different ones; of mail one for each limit or rule that refused it, or would have, were that not only reported.
#[utoipa::path(get, path = "/organizations/{slug}/credentials/{username}/refusals", tag = "refusals", params(OfCredential),
    responses((status = 200, description = "All that is known.", body = List<Refusal>)))]
async fn credential_refusals(
    State(desk): State<Arc<Desk>>,
    Path(of): Path<OfCredential>,
) -> Result<Json<List<Refusal>>, Problem> {
    desk.run(move |desk| {
        let (logins, mail) = desk.refusals(of.wanted(None))?;
        Ok(Json(List {
            items: Refusal::of_credential(&of.username, &logins, &mail),
            next: None,
        }))
    })
    .await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RefusalsQuery {
    /// How many at most, 1 to 200; 50 if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// `next` of the page before.
    #[param(inline)]
    after: Option<Cursor>,
}

/// Lists refused logins with usernames that nobody has, the latest first, of the last 30 days; at most 1,000 are known. Needs
/// a token of the instance.
#[utoipa::path(get, path = "/refusals", tag = "refusals", params(RefusalsQuery),
    responses((status = 200, description = "A page of them.", body = List<Refusal>)))]
async fn unknown_refusals(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<RefusalsQuery>,
) -> Result<Json<List<Refusal>>, Problem> {
    caller.require_instance(Access::Read)?;
    desk.run(move |desk| {
        let found = desk.unknown_refusals()?;
        let Rows { rows, next } = part(found, page(query.limit, query.after));
        let rows = Refusal::of_unknown(&desk.system.store, &rows)?;
        Ok(Json(Rows { rows, next }.into()))
    })
    .await
}

/// Part of a list that moves while it is read: what happens again in between goes to its begin.
fn part(found: Vec<RefusedLogin>, page: Page) -> Rows<RefusedLogin> {
    let skipped = page.after.unwrap_or(0);
    let limit = page.limit as usize;
    let mut rest = found
        .into_iter()
        .skip(usize::try_from(skipped).unwrap_or(usize::MAX));
    let rows: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().map(|_| skipped + i64::from(page.limit));
    Rows { rows, next }
}
