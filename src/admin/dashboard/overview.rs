//! The first page: how everything is.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::net::upstream_pool::{HostState, UpstreamPool};
use crate::store::{Access, AuditFilter, Page, StoreError, StoreSize, Usage, UsageOf};

use super::Dashboard;
use super::audit::Entry;
use super::chart::{Chart, Stretch};
use super::error::ErrorPage;
use super::frame::{Frame, Section, page};
use super::guard::Visitor;
use super::stamp::Stamp;

/// How many of the newest changes are shown.
const NEWEST: u32 = 8;

/// How many organizations are named whose credentials expire soon.
const EXPIRING: u32 = 10;

/// How long a certificate may still last before that is worth a warning.
const SOON: i64 = 14 * 24 * 3_600_000;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    health: Option<Health>,
    sessions: usize,
    messages: Chart,
    refused: Chart,
    /// Organizations with credentials that expire within 30 days, and how many do.
    expiring: Vec<(String, u64)>,
    newest: Vec<Entry>,
}

/// How the instance is, for those who may know.
struct Health {
    version: &'static str,
    started: Stamp,
    upstream_is_up: bool,
    hosts: Vec<Host>,
    certificate: Option<CertificateHealth>,
    store: StoreSize,
    not_durable: usize,
}

/// The end of the certificate that ends first.
struct CertificateHealth {
    ends: Stamp,
    ends_soon: bool,
    has_ended: bool,
}

/// One place where an upstream is reached.
struct Host {
    /// Whose it is, if not everybody's.
    organization: Option<String>,
    state: HostState,
}

fn hosts(
    (organization, hosts): &(Option<String>, Arc<UpstreamPool>),
) -> impl Iterator<Item = Host> {
    let host = |state| Host {
        organization: organization.clone(),
        state,
    };
    hosts.states().into_iter().map(host)
}

/// Shows it, as far as the visitor's scopes reach.
pub(super) async fn show(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
) -> Result<Response, ErrorPage> {
    let own = visitor.caller.organizations(Access::Read);
    let hours = Stretch::hours();
    let gathered = dashboard
        .desk
        .run(move |desk| gather(desk, own.as_deref(), hours));
    let (health, sessions, usage, expiring, newest) = gathered.await?;
    page(&Overview {
        frame: visitor.frame(Section::Overview),
        health,
        sessions,
        messages: hours.chart(&usage, "messages", |usage| usage.messages),
        refused: hours.chart(&usage, "refused logins", |usage| usage.refused),
        expiring,
        newest,
    })
}

type Gathered = (
    Option<Health>,
    usize,
    Vec<(i64, Usage)>,
    Vec<(String, u64)>,
    Vec<Entry>,
);

fn gather(desk: &Desk, own: Option<&[String]>, hours: Stretch) -> Result<Gathered, Problem> {
    let system = &desk.system;
    let usage_of = |of| {
        system
            .store
            .usage(of, hours.span, hours.since, hours.until())
    };
    let usage = match own {
        None => usage_of(UsageOf::Instance)?,
        Some(slugs) => {
            let mut sums: BTreeMap<i64, Usage> = BTreeMap::new();
            for slug in slugs {
                let found = match usage_of(UsageOf::Organization(slug)) {
                    // A group of the proxy may have the scope of an organization that is not made yet.
                    Err(StoreError::NotFound { .. }) => Vec::new(),
                    found => found?,
                };
                for (hour, usage) in found {
                    sums.entry(hour).or_default().add(&usage);
                }
            }
            sums.into_iter().collect()
        }
    };
    let newest = Page {
        after: None,
        limit: NEWEST,
    };
    let newest = desk.audit(own, AuditFilter::default(), newest)?;
    let sessions = match own {
        Some(slugs) => slugs
            .iter()
            .map(|slug| system.sessions.count_in(slug))
            .sum(),
        None => system.sessions.count(),
    };
    let health = match own {
        Some(_) => None,
        None => Some(health(desk)?),
    };
    let newest = newest.rows.iter().map(Entry::from).collect();
    let expiring = system.store.expiring_in(own, EXPIRING)?;
    Ok((health, sessions, usage, expiring, newest))
}

fn health(desk: &Desk) -> Result<Health, Problem> {
    let system = &desk.system;
    let now = crate::clock::now_ms();
    let ends = system.tls.as_ref();
    let ends = ends.map(|tls| tls.not_after().saturating_mul(1_000));
    Ok(Health {
        version: env!("PROGRAM_VERSION"),
        started: Stamp(crate::clock::wall_of(system.started_at)),
        upstream_is_up: system.metrics.upstream_up.get() == 1,
        hosts: system.upstreams.iter().flat_map(hosts).collect(),
        certificate: ends.map(|ends| CertificateHealth {
            ends: Stamp(ends),
            ends_soon: ends - now < SOON,
            has_ended: ends <= now,
        }),
        store: system.store.size()?,
        not_durable: system.store.unwritten(),
    })
}
