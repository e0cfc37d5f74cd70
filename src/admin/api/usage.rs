//! What organizations and credentials were used for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::desk::Desk;
use crate::admin::extract::{Path, Query};
use crate::admin::problem::{Code, Problem};
use crate::store::{self, Span, UsageOf, Wanted};

use super::credentials::OfCredential;
use super::field::Time;
use super::organizations::InOrganization;

/// The most spans in one answer: a year and a month by the day, two weeks by the hour.
const MOST_SPANS: i64 = 400;

/// How many spans there are unless it is said since when.
const USUAL_SPANS: i64 = 30;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .routes(routes!(organization_usage))
        .routes(routes!(credential_usage))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UsageQuery {
    /// By what it is summed up; by the day if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    by: By,
    /// From when on; the last 30 spans if left out.
    #[param(inline)]
    since: Option<Time>,
    /// Up to when; up to now if left out.
    #[param(inline)]
    until: Option<Time>,
}

/// By what usage is summed up.
#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    /// By the UTC day.
    #[default]
    Day,
    Hour,
}

impl From<By> for Span {
    fn from(by: By) -> Span {
        match by {
            By::Day => Span::Day,
            By::Hour => Span::Hour,
        }
    }
}

/// What was done, oldest first. What happened in the last few seconds is not in it yet.
#[derive(Serialize, ToSchema)]
struct UsageReport {
    by: By,
    /// One for each span in which anything was done.
    items: Vec<UsageItem>,
    /// All of them together.
    total: Usage,
}

/// What was done in one span.
#[derive(Serialize, ToSchema)]
struct UsageItem {
    /// When the span began.
    since: Time,
    #[serde(flatten)]
    usage: Usage,
}

/// What was done.
#[derive(Serialize, ToSchema)]
struct Usage {
    /// Messages the upstream took.
    messages: u64,
    /// Recipients the upstream took.
    recipients: u64,
    /// Octets of message bodies.
    bytes: u64,
    /// Logins that were accepted.
    auth_accepted: u64,
    /// Logins that were refused.
    auth_refused: u64,
}

impl From<store::Usage> for Usage {
    fn from(usage: store::Usage) -> Usage {
        Usage {
            messages: usage.messages,
            recipients: usage.recipients,
            bytes: usage.bytes,
            auth_accepted: usage.accepted,
            auth_refused: usage.refused,
        }
    }
}

fn report(desk: &Desk, of: UsageOf, query: &UsageQuery) -> Result<Json<UsageReport>, Problem> {
    let span = Span::from(query.by);
    let now = crate::clock::now_ms();
    let until = query.until.map_or(now, |time| time.0);
    let since = match query.since {
        Some(time) => time.0,
        None => until - USUAL_SPANS * span.length(),
    };
    if (until - since) / span.length() > MOST_SPANS {
        return Err(Problem::new(
            Code::InvalidQuery,
            format!(
                "since: at most {MOST_SPANS} spans are told at a time; ask for a shorter time, or by day"
            ),
        ));
    }
    // Nothing was done later than now, whatever a clock that was ahead wrote.
    let spans = desk.system.store.usage(of, span, since, until.min(now))?;
    let mut total = store::Usage::default();
    for (_, usage) in &spans {
        total.add(usage);
    }
    let item = |(since, usage): (i64, store::Usage)| UsageItem {
        since: Time(since),
        usage: usage.into(),
    };
    Ok(Json(UsageReport {
        by: query.by,
        items: spans.into_iter().map(item).collect(),
        total: total.into(),
    }))
}

/// Tells what an organization's credentials were used for, also those it no longer has.
#[utoipa::path(get, path = "/organizations/{slug}/usage", tag = "usage", params(InOrganization, UsageQuery),
    responses((status = 200, description = "By the hour or by the day.", body = UsageReport)))]
async fn organization_usage(
    State(desk): State<Arc<Desk>>,
    Path(at): Path<InOrganization>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageReport>, Problem> {
    desk.run(move |desk| report(desk, UsageOf::Organization(&at.slug), &query))
        .await
}

/// Tells what a credential was used for.
#[utoipa::path(get, path = "/organizations/{slug}/credentials/{username}/usage", tag = "usage", params(OfCredential, UsageQuery),
    responses((status = 200, description = "By the hour or by the day.", body = UsageReport)))]
async fn credential_usage(
    State(desk): State<Arc<Desk>>,
    Path(of): Path<OfCredential>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageReport>, Problem> {
    desk.run(move |desk| {
        let wanted = Wanted {
            organization: Some(&of.slug),
            ..of.username.as_str().into()
        };
        let credential = desk.credential(wanted)?;
        report(desk, UsageOf::Credential(credential.key), &query)
    })
    .await
}
