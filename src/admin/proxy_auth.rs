//! `[admin.proxy_auth]`: the person that a trusted reverse proxy has signed in.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::config;
use crate::log::Throttle;
use crate::store::{Actor, ActorKind, Scope, check_name, composed};

use super::caller::Caller;
use super::gate::{client_address, place};
use super::problem::{Code, Problem};
use super::proxies::Arrival;

/// How persons are told, and what they may do.
pub(super) struct ProxyAuth {
    user: HeaderName,
    groups: Option<HeaderName>,
    separator: char,
    of_group: BTreeMap<String, Scope>,
    of_user: BTreeMap<String, Scope>,
    refused: Throttle,
}

/// Whom a trusted proxy has signed in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Person {
    pub(super) name: String,
    groups: Vec<String>,
    /// None if neither the person nor a group has one.
    scopes: Vec<Scope>,
}

impl ProxyAuth {
    pub(super) fn new(config: &config::ProxyAuth) -> ProxyAuth {
        let header = |name: &String| {
            HeaderName::from_bytes(name.as_bytes())
                .expect("the configuration takes letters, digits and hyphens only")
        };
        let scopes = |texts: &BTreeMap<String, _>| {
            // The configuration takes no other text than a scope.
            let scope = |(name, text): (&String, &config::ScopeText)| {
                Some((composed(name).into_owned(), text.as_str().parse().ok()?))
            };
            texts.iter().filter_map(scope).collect()
        };
        ProxyAuth {
            user: header(&config.user_header),
            groups: config.groups_header.as_ref().map(header),
            separator: config.groups_separator,
            of_group: scopes(&config.groups),
            of_user: scopes(&config.users),
            refused: Throttle::new(),
        }
    }

    /// The person of a request, if its proxy names one.
    pub(super) fn person(&self, request: &Request) -> Result<Option<Person>, Problem> {
        let headers = request.headers();
        let names = [Some(&self.user), self.groups.as_ref()];
        let mut names = names.into_iter().flatten();
        let arrival = request.extensions().get::<Arrival>();
        if !arrival.is_some_and(|arrival| arrival.by_proxy) {
            return match names.find(|name| headers.contains_key(*name)) {
                None => Ok(None),
                Some(name) => Err(self.refuse(request, name, "did not come from a trusted reverse proxy; name the proxy in admin.trusted_proxies or let it connect to admin.proxy_socket")),
            };
        }
        let Some(name) = self.only(request, &self.user)? else {
            return Ok(None);
        };
        // A proxy that adds its own header to the client's may join the two with a comma.
        if name.contains(',') || check_name(Some(&name)).is_err() {
            return Err(self.refuse(request, &self.user, "does not hold one name; have the reverse proxy replace this header and not add to it"));
        }
        let groups = match &self.groups {
            Some(header) => self.only(request, header)?.unwrap_or_default(),
            None => String::new(),
        };
        let groups = groups.split(self.separator).map(str::trim);
        let groups: Vec<_> = groups
            .filter(|group| !group.is_empty())
            .map(str::to_owned)
            .collect();
        let scopes = groups.iter().filter_map(|group| self.of_group.get(group));
        let scopes = scopes.chain(self.of_user.get(&name)).cloned().collect();
        Ok(Some(Person {
            name,
            groups,
            scopes,
        }))
    }

    /// The text of a header, which must not come twice; an empty one counts as none.
    fn only(&self, request: &Request, name: &HeaderName) -> Result<Option<String>, Problem> {
        let mut all = request.headers().get_all(name).iter();
        let Some(value) = all.next() else {
            return Ok(None);
        };
        if all.next().is_some() {
            return Err(self.refuse(
                request,
                name,
                "came twice; have the reverse proxy replace this header and not add to it",
            ));
        }
        match str::from_utf8(value.as_bytes()).map(str::trim) {
            Ok("") => Ok(None),
            Ok(text) => Ok(Some(composed(text).into_owned())),
            Err(_) => Err(self.refuse(request, name, "is not UTF-8")),
        }
    }

    fn refuse(&self, request: &Request, header: &HeaderName, reason: &str) -> Problem {
        if let Some(count) = self.refused.due() {
            tracing::warn!(
                target: "gatepost::admin",
                from = place(request),
                %header,
                value = first(request.headers(), header),
                count,
                "request refused: the header {reason}"
            );
        }
        let detail = format!("the header {header} {reason}");
        Problem::new(Code::UntrustedProxy, detail)
    }
}

/// What came, for the log.
fn first(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    value[..value.len().min(255)].escape_ascii().to_string()
}

impl Person {
    /// The person as the caller of this request.
    pub(super) fn caller(&self, request: &Request) -> Result<Caller, Problem> {
        let slug = organization(request.uri().path());
        let Some(scope) = self.scope(slug) else {
            return Err(Problem::new(
                Code::UnknownPerson,
                format!(
                    "the reverse proxy has signed in {:?}, who has no scope here; groups: {}; give one of them a scope in [admin.proxy_auth.groups], or the person in [admin.proxy_auth.users], or sign in with a token",
                    self.name,
                    match self.groups.is_empty() {
                        true => "none".to_owned(),
                        false => self.groups.join(", "),
                    }
                ),
            ));
        };
        Ok(Caller {
            name: self.name.clone(),
            actor: Actor {
                kind: ActorKind::Person,
                name: self.name.clone(),
                address: client_address(request).map(|address| address.to_string()),
                token: None,
            },
            scope: scope.clone(),
            scopes: self.scopes.clone(),
            expires_at: None,
        })
    }

    /// The widest scope that reaches the organization of the path; else the widest.
    fn scope(&self, slug: Option<&str>) -> Option<&Scope> {
        let reaches =
            |scope: &Scope| scope.organization.is_none() || scope.organization.as_deref() == slug;
        self.scopes.iter().max_by_key(|scope| {
            let is_instance = scope.organization.is_none();
            match slug {
                Some(_) => (reaches(scope), scope.access, is_instance),
                None => (is_instance, scope.access, true),
            }
        })
    }
}

/// The slug of the organization that a path of the API or of the dashboard is below.
fn organization(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    path.strip_prefix("/organizations/")?.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_scope_counts_and_below_an_organization_its_own() {
        let person = |scopes: &[&str]| Person {
            name: "ann".to_owned(),
            groups: Vec::new(),
            scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
        };
        for (scopes, path, scope) in [
            (
                &["org:acme:read", "org:acme:admin"][..],
                "/",
                "org:acme:admin",
            ),
            (&["instance:read", "org:acme:admin"], "/", "instance:read"),
            (
                &["instance:read", "org:acme:admin"],
                "/organizations/acme/credentials",
                "org:acme:admin",
            ),
            (
                &["org:acme:admin", "instance:read"],
                "/api/v1/organizations/acme",
                "org:acme:admin",
            ),
            (
                &["org:acme:admin", "org:beta:read"],
                "/organizations/beta",
                "org:beta:read",
            ),
            (
                &["instance:admin", "org:acme:read"],
                "/organizations/acme",
                "instance:admin",
            ),
        ] {
            let person = person(scopes);
            let own = person.scope(organization(path)).map(ToString::to_string);
            assert_eq!(own.as_deref(), Some(scope), "{scopes:?} on {path}");
        }
        assert_eq!(person(&[]).scope(None), None);
    }
}
