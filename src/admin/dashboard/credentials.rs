//! Settings > SMTP Credentials: the table.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::try_unfold;
use serde::Deserialize;

use crate::admin::bulk;
use crate::admin::desk::Desk;
use crate::admin::problem::{Code, Problem};
use crate::auth::export::{csv_header, csv_line};
use crate::store::{
    Credential, CredentialColumn, CredentialOrder, CredentialState, CredentialStatus, Organization,
    OrganizationStatus, Page, UsageOf,
};

use super::Dashboard;
use super::address::{Path, Query, of_credential};
use super::chart::{Chart, Stretch};
use super::containment::is_over;
use super::error::ErrorPage;
use super::form;
use super::frame::{Frame, Section, page};
use super::guard::Visitor;
use super::stamp::Stamp;

/// How many rows a page has.
const ROWS: u32 = 50;

/// How many rows of CSV are read at a time.
const CSV_ROWS: u32 = 1_000;

/// The last page that can be asked for; what lies behind it is found by searching.
const LAST_PAGE: u32 = 100_000;

const DAY: i64 = 24 * 3_600_000;

/// How long before its end a credential is said to expire soon.
const SOON: i64 = 7 * DAY;

/// The table's columns that can be sorted by, as they are named in links and above the table.
const COLUMNS: [(CredentialColumn, &str, &str); 5] = [
    (CredentialColumn::Name, "name", "Name"),
    (CredentialColumn::Username, "username", "Username"),
    (CredentialColumn::Status, "status", "Status"),
    (CredentialColumn::LastUsed, "last-used", "Last used"),
    (CredentialColumn::Created, "created", "Created"),
];

/// What is asked for, as it stands in the address; nothing wrong is possible there, only something else than meant.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    status: String,
    expires: String,
    unused: String,
    sort: String,
    dir: String,
    page: String,
}

impl Asked {
    fn state(&self) -> Option<CredentialState> {
        self.status.parse().ok()
    }

    /// Days in which it was not used.
    fn unused(&self) -> Option<i64> {
        days(&self.unused)
    }

    /// Days within which it expires.
    fn expires(&self) -> Option<i64> {
        days(&self.expires)
    }

    fn order(&self) -> CredentialOrder {
        let named = COLUMNS.iter().find(|(_, name, _)| *name == self.sort);
        let by = named.map_or(CredentialColumn::Created, |(column, ..)| *column);
        // What is newest comes first unless it is said otherwise.
        let usually = matches!(by, CredentialColumn::Created | CredentialColumn::LastUsed);
        CredentialOrder {
            by,
            descending: match &*self.dir {
                "asc" => false,
                "desc" => true,
                _ => usually,
            },
        }
    }

    fn page(&self) -> u32 {
        let page = self.page.parse().unwrap_or(1);
        page.clamp(1, LAST_PAGE)
    }

    fn is_narrowed(&self) -> bool {
        let days = self.unused().or(self.expires());
        !self.q.is_empty() || self.state().is_some() || days.is_some()
    }

    /// From the query of a list's address.
    pub(super) fn of_query(query: &str) -> Result<Asked, Problem> {
        let uri: Option<Uri> = format!("/?{query}").parse().ok();
        let asked = uri.and_then(|uri| axum::extract::Query::try_from_uri(&uri).ok());
        let asked = asked.map(|axum::extract::Query(asked)| asked);
        asked.ok_or_else(|| Problem::new(Code::Invalid, "list: send the form as the page has it"))
    }

    /// The address of the list, from its first page on.
    pub(super) fn list(&self, slug: &str) -> String {
        let query = self.query();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/organizations/{slug}/credentials{mark}{query}")
    }

    /// The credentials of the list as one change means them.
    pub(super) fn bulk_filter(&self) -> bulk::Filter {
        bulk::Filter {
            state: self.state(),
            expires_until: self.expires_until(),
            unused_since: self.unused_since(),
            text: Some(self.q.trim().to_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// The address of the same list as CSV.
    fn csv(&self, slug: &str) -> String {
        let query = self.query();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/organizations/{slug}/credentials.csv{mark}{query}")
    }

    /// What narrows the list, as a query.
    fn query(&self) -> String {
        let pairs = [
            ("q", self.q.as_str()),
            ("status", &self.status),
            ("expires", &self.expires),
            ("unused", &self.unused),
        ];
        let said = pairs.into_iter().filter(|(_, text)| !text.is_empty());
        form::query(said)
    }

    /// Since when a credential of this list was not used, in Unix milliseconds.
    fn unused_since(&self) -> Option<i64> {
        let days = self.unused()?;
        Some(crate::clock::now_ms() - days * DAY)
    }

    /// Until when a credential of this list expires, in Unix milliseconds.
    fn expires_until(&self) -> Option<i64> {
        let days = self.expires()?;
        Some(crate::clock::now_ms() + days * DAY)
    }

    /// The address of the same list in another order or at another page.
    fn link(&self, sort: &str, descending: bool, page: u32) -> String {
        let page = page.to_string();
        let pairs = [
            ("q", self.q.as_str()),
            ("status", &self.status),
            ("expires", &self.expires),
            ("unused", &self.unused),
            ("sort", sort),
            ("dir", if descending { "desc" } else { "asc" }),
            ("page", &page),
        ];
        let said = pairs
            .into_iter()
            .filter(|(name, text)| !text.is_empty() && (*name, *text) != ("page", "1"));
        format!("?{}", form::query(said))
    }
}

/// A number of days that the list takes.
fn days(text: &str) -> Option<i64> {
    let days = text.parse().ok();
    days.filter(|days| (1..=3_650).contains(days))
}

#[derive(Template)]
#[template(path = "credentials.html")]
struct Credentials {
    frame: Frame,
    organization: Organization,
    is_suspended: bool,
    csv: String,
    asked: Asked,
    columns: Vec<Column>,
    rows: Vec<Row>,
    previous: Option<String>,
    next: Option<String>,
}

struct Column {
    title: &'static str,
    link: String,
    /// As aria-sort has it.
    sorted: &'static str,
}

struct Row {
    name: Option<String>,
    username: String,
    /// The address of the credential's page.
    page: String,
    badges: Vec<Badge>,
    last_used: Option<(Stamp, String)>,
    created: Stamp,
    messages: Chart,
}

/// A word on the state of a credential.
pub(super) struct Badge {
    pub(super) text: &'static str,
    /// How it looks.
    pub(super) class: &'static str,
}

/// All that is to be said of the state of a credential. It is `denied` while a revocation counts that is not written yet,
/// and `over` while a limit of its own is reached.
pub(super) fn badges(credential: &Credential, denied: bool, over: bool) -> Vec<Badge> {
    let now = crate::clock::now_ms();
    let is_expired = credential.is_expired(now);
    let mut badges = vec![match credential.status {
        CredentialStatus::Active if denied => Badge {
            text: "Revoked, not saved yet",
            class: "bad",
        },
        CredentialStatus::Active if is_expired => Badge {
            text: "Expired",
            class: "bad",
        },
        CredentialStatus::Active => Badge {
            text: "Active",
            class: "good",
        },
        CredentialStatus::Revoked => Badge {
            text: "Revoked",
            class: "bad",
        },
    }];
    match credential.expires_at {
        // A revoked credential is refused whether it has expired or not; both are said.
        Some(_) if is_expired && badges[0].text != "Expired" => badges.push(Badge {
            text: "Expired",
            class: "bad",
        }),
        Some(end) if !is_expired && end - now < SOON => badges.push(Badge {
            text: "Expires soon",
            class: "warning",
        }),
        _ => {}
    }
    if over {
        badges.push(Badge {
            text: "Over limit",
            class: "bad",
        });
    }
    if credential.previous_until.is_some() {
        badges.push(Badge {
            text: "Overlap",
            class: "warning",
        });
    }
    badges
}

/// Shows the table, or the part of it that is asked for.
pub(super) async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, ErrorPage> {
    let frame = visitor.frame(Section::Credentials).of(&slug);
    let page_asked = asked.clone();
    let found = dashboard
        .desk
        .run(move |desk| find(desk, &slug, &page_asked));
    let (organization, rows, more) = found.await?;
    let (order, number) = (asked.order(), asked.page());
    let here = COLUMNS.iter().find(|(column, ..)| *column == order.by);
    let here = here.map_or("", |(_, name, _)| *name);
    let at = |number| asked.link(here, order.descending, number);
    page(&Credentials {
        previous: (number > 1).then(|| at(number - 1)),
        next: (more && number < LAST_PAGE).then(|| at(number + 1)),
        columns: columns(&asked, order),
        is_suspended: organization.status == OrganizationStatus::Suspended,
        csv: asked.csv(&organization.slug),
        frame,
        organization,
        asked,
        rows,
    })
}

fn columns(asked: &Asked, order: CredentialOrder) -> Vec<Column> {
    let column = |&(column, name, title): &(CredentialColumn, &'static str, &'static str)| {
        let is_order = column == order.by;
        // To sort by the same column again turns it round.
        let usually = Asked {
            sort: name.to_owned(),
            ..Asked::default()
        };
        let descending = match is_order {
            true => !order.descending,
            false => usually.order().descending,
        };
        Column {
            title,
            link: asked.link(name, descending, 1),
            sorted: match (is_order, order.descending) {
                (false, _) => "none",
                (true, false) => "ascending",
                (true, true) => "descending",
            },
        }
    };
    COLUMNS.iter().map(column).collect()
}

/// The organization, the rows of the page, and whether more follow.
fn find(desk: &Desk, slug: &str, asked: &Asked) -> Result<(Organization, Vec<Row>, bool), Problem> {
    let store = &desk.system.store;
    let organization = store.organization(slug)?;
    let filter = asked.bulk_filter();
    let filter = filter.within(slug);
    let offset = (asked.page() - 1) * ROWS;
    let mut found = store.credential_table(filter, asked.order(), offset, ROWS + 1)?;
    let more = found.len() > ROWS as usize;
    found.truncate(ROWS as usize);
    let found = found
        .into_iter()
        .map(|credential| desk.up_to_date(credential));
    let found = found.filter(|credential| filter.still_passes(credential));
    let days = Stretch::days();
    let row = |credential: Credential| {
        let of = UsageOf::Credential(credential.key);
        let usage = store.usage(of, days.span, days.since, days.until())?;
        let over = is_over(&desk.uses_of(&credential)?);
        Ok(Row {
            badges: badges(
                &credential,
                store.refuses_unwritten(&credential.username),
                over,
            ),
            last_used: (credential.latest_use().zip(credential.last_used))
                .map(|(at, used)| (Stamp(at), used.address)),
            created: Stamp(credential.created_at),
            messages: days.chart(&usage, "messages", |usage| usage.messages),
            page: of_credential(slug, &credential.username),
            name: credential.name,
            username: credential.username,
        })
    };
    let rows = found.map(row).collect::<Result<_, Problem>>()?;
    Ok((organization, rows, more))
}

/// Sends the whole list as CSV, in the order in which the credentials were made, some at a time.
pub(super) async fn csv(
    State(dashboard): State<Arc<Dashboard>>,
    Path(slug): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, ErrorPage> {
    let desk = dashboard.desk.clone();
    let known = slug.clone();
    desk.run(move |desk| Ok(desk.system.store.organization(&known)?))
        .await?;
    let file = format!("attachment; filename=\"credentials-{slug}.csv\"");
    let filter = asked.bulk_filter();
    let begin = Some((csv_header(false), None));
    // A state is what to send before the credentials behind a key; the last one has no more.
    let parts = try_unfold(begin, move |part| {
        let (desk, slug, filter) = (desk.clone(), slug.clone(), filter.clone());
        async move {
            let Some((mut text, after)) = part else {
                return Ok::<_, std::io::Error>(None);
            };
            let found = desk.run(move |desk| {
                let page = Page {
                    after,
                    limit: CSV_ROWS,
                };
                let filter = filter.within(&slug);
                let found = desk.system.store.credentials(filter, page)?;
                let mut found = found.map(|credential| desk.up_to_date(credential));
                found.rows.retain(|row| filter.still_passes(row));
                Ok(found)
            });
            let found = found
                .await
                .map_err(|problem| std::io::Error::other(problem.detail().to_owned()))?;
            text.extend(found.rows.iter().map(|row| csv_line(row, None)));
            let rest = found.next.map(|next| (String::new(), Some(next)));
            Ok(Some((text, rest)))
        }
    });
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (CONTENT_DISPOSITION, file),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_the_address_is_some_list() {
        let asked = Asked {
            q: "a&b".to_owned(),
            status: "nonsense".to_owned(),
            expires: "soon".to_owned(),
            unused: "-1".to_owned(),
            sort: "password".to_owned(),
            dir: "up".to_owned(),
            page: "0".to_owned(),
        };
        assert_eq!(
            (asked.state(), asked.unused(), asked.expires()),
            (None, None, None)
        );
        assert_eq!(asked.page(), 1);
        let order = asked.order();
        assert_eq!(
            (order.by, order.descending),
            (CredentialColumn::Created, true)
        );
        assert!(asked.link("name", false, 1).starts_with("?q=a%26b&"));
    }

    #[test]
    fn sorting_by_the_same_column_again_turns_it_round() {
        let asked = Asked {
            sort: "name".to_owned(),
            ..Asked::default()
        };
        let columns = columns(&asked, asked.order());
        assert_eq!(columns[0].sorted, "ascending");
        assert_eq!(columns[0].link, "?sort=name&dir=desc");
        assert_eq!(columns[4].sorted, "none");
        assert_eq!(columns[4].link, "?sort=created&dir=desc");
    }
}
