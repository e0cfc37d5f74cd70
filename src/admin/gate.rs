//! Who may ask at all: by the name they ask for, the page they come from, and the token they bring.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use moka::future::Cache;

use crate::auth::token::{self, TokenError, TokenHash};
use crate::config;
use crate::net::listener::Neighbour;
use crate::sasl::Secret;
use crate::store::{Access, Actor, ActorKind, Scope, TokenUse};

use super::caller::Caller;
use super::desk::Desk;
use super::forwarded;
use super::hosts::{Hosts, bracketed, is_loopback, normal, refuse};
use super::problem::{Code, Problem};
use super::proxies::Arrival;
use super::proxy_auth::{Person, ProxyAuth};
use super::workers;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Wrong tokens from one address within [`FORGOTTEN_AFTER`] that are answered with 401; further ones get 429.
const FAILURES: u32 = 10;

/// How long a wrong token is remembered.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// How many addresses are remembered for wrong tokens.
const ADDRESSES: u64 = 10_000;

/// What decides who may ask.
pub(super) struct Gate {
    desk: Arc<Desk>,
    hosts: Hosts,
    /// The names of `admin.hosts`, which may be origins of a reverse proxy.
    configured: Vec<String>,
    /// By address; those over a unix socket without one are one client.
    failures: Cache<Option<IpAddr>, Arc<AtomicU32>>,
    proxy_auth: Option<ProxyAuth>,
}

impl Gate {
    /// Allows loopback, the address that `admin` listens on, the system's `hostname` and
    /// `admin.hosts`.
    pub(super) fn new(desk: Arc<Desk>, admin: &config::Admin) -> Gate {
        let address = admin.listen.map(|address| address.ip());
        let names = admin.hosts.iter().map(|host| host.as_str().to_owned());
        let own = [desk.system.hostname.clone()];
        Gate {
            hosts: Hosts::new(address, own.into_iter().chain(names), "admin.hosts"),
            configured: admin
                .hosts
                .iter()
                .map(|host| normal(host.as_str()))
                .collect(),
            desk,
            proxy_auth: admin.proxy_auth.as_ref().map(ProxyAuth::new),
            failures: Cache::builder()
                .max_capacity(ADDRESSES)
                .time_to_live(FORGOTTEN_AFTER)
                .build(),
        }
    }

    /// The request must be for a name of ours.
    pub(super) fn check_host(&self, request: &Request) -> Result<(), Problem> {
        let arrival = arrival(request);
        if matches!(neighbour(request)?, Neighbour::Unix { .. }) && !arrival.by_proxy {
            return Ok(());
        }
        // Either may be what the browser said.
        self.hosts
            .check_name(request, "Host", &named_host(request)?)?;
        match arrival.host {
            Some(host) => {
                let header = match request.headers().contains_key(forwarded::HOST) {
                    true => "X-Forwarded-Host",
                    false => "Forwarded",
                };
                self.hosts.check_name(request, header, &host)
            }
            None => Ok(()),
        }
    }

    /// Browsers say which site a page is from that sends something; ours are only from here.
    pub(super) fn check_origin(&self, request: &Request) -> Result<(), Problem> {
        for origin in request.headers().get_all(ORIGIN) {
            if !self.is_own_origin(request, origin)? {
                return Err(self.refuse_origin(request, origin.as_bytes()));
            }
        }
        Ok(())
    }

    /// The same for a form of the dashboard, whose hidden text is checked later: a browser that was
    /// sent `Referrer-Policy: no-referrer` by a reverse proxy says `Origin: null` of our own pages
    /// as well, but never `Sec-Fetch-Site: same-origin` of a page from elsewhere.
    pub(super) fn check_form_origin(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let only = |name| {
            let mut all = headers.get_all(name).iter();
            all.next().filter(|_| all.next().is_none())
        };
        let is_null = only(ORIGIN).is_some_and(|origin| origin == "null");
        let is_own = only(SEC_FETCH_SITE).is_some_and(|site| site == "same-origin");
        if !(is_null && is_own) {
            self.check_origin(request)?;
        }
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
        match sites.find(|site| **site != "same-origin" && **site != "none") {
            None => Ok(()),
            Some(site) => Err(refuse(
                request,
                Code::ForeignOrigin,
                "Sec-Fetch-Site",
                site.as_bytes(),
                "a page of another site sent this, and it was not carried out; allowed are same-origin and none",
            )),
        }
    }

    /// The origin is the site that was asked for. Behind a reverse proxy that does not pass on
    /// Host, it is one of `admin.hosts`.
    fn is_own_origin(&self, request: &Request, origin: &HeaderValue) -> Result<bool, Problem> {
        let own = host(request)?;
        let Some((scheme, site)) = origin.to_str().ok().and_then(|text| text.split_once("://"))
        else {
            return Ok(false);
        };
        if site.eq_ignore_ascii_case(own.as_str()) {
            return Ok(true);
        }
        // Another port of that name may be another program, so this one must have none to be told
        // from it.
        let is_rewritten = own.port().is_none() || is_loopback(&normal(own.host()));
        let site = match scheme.to_ascii_lowercase().as_str() {
            "http" => site.strip_suffix(":80").unwrap_or(site),
            "https" => site.strip_suffix(":443").unwrap_or(site),
            _ => return Ok(false),
        };
        Ok(is_rewritten && self.configured.contains(&normal(site)))
    }

    fn refuse_origin(&self, request: &Request, origin: &[u8]) -> Problem {
        let own = host(request).map_or_else(|_| String::new(), |own| own.to_string());
        let names = self.configured.iter().filter(|name| **name != own);
        let names: String = names
            .map(|name| format!(", https://{}", bracketed(name)))
            .collect();
        refuse(
            request,
            Code::ForeignOrigin,
            "Origin",
            origin,
            &format!(
                "a page of another site sent this, and it was not carried out; allowed is the site that Host names, http(s)://{own}{names}; if a reverse proxy changes Host, have it pass Host on, or add the site's name to admin.hosts"
            ),
        )
    }

    /// The person that a reverse proxy has signed in, if there is one.
    pub(super) fn person(&self, request: &Request) -> Result<Option<Person>, Problem> {
        match &self.proxy_auth {
            Some(auth) => auth.person(request),
            None => Ok(None),
        }
    }

    /// A browser sends its person's requests whichever page asks for them, so a change must be
    /// asked for by a page of ours. Programs have tokens.
    fn check_own_page(&self, request: &Request) -> Result<(), Problem> {
        self.check_form_origin(request)?;
        let headers = request.headers();
        let is_own = |site: &HeaderValue| site == "same-origin";
        let looks = matches!(*request.method(), Method::GET | Method::HEAD);
        // Where there is an Origin, it is ours.
        if looks || headers.get(SEC_FETCH_SITE).is_some_and(is_own) || headers.contains_key(ORIGIN)
        {
            return Ok(());
        }
        Err(Problem::new(
            Code::ForeignOrigin,
            "a change by a person whom the reverse proxy signed in needs the header Origin or Sec-Fetch-Site of this site, which browsers send; programs need a token",
        ))
    }

    /// Who has this token. Wrong ones are counted.
    pub(super) async fn by_token(&self, text: &Secret, from: Neighbour) -> Result<Caller, Problem> {
        let text = str::from_utf8(text.expose()).unwrap_or_default();
        // Whatever cannot be a token does not cost a turn at the store.
        let found = match token::is_well_formed(text) {
            true => self.by_hash(token::hash(text), from).await?,
            false => Err(TokenError::Malformed),
        };
        match found {
            Ok(caller) => Ok(caller),
            Err(wrong) => Err(self.failed(address(from), &wrong).await),
        }
    }

    /// Who has the token with this hash, if it is valid at this moment.
    pub(super) async fn by_hash(
        &self,
        hash: TokenHash,
        from: Neighbour,
    ) -> Result<Result<Caller, TokenError>, Problem> {
        let now = crate::clock::now_ms();
        let found =
            self.desk.look_up(
                move |desk| match token::find(&desk.system.store, hash, now) {
                    Ok(token) => Ok(Ok(token)),
                    Err(TokenError::Store(error)) => Err(error.into()),
                    Err(wrong) => Ok(Err(wrong)),
                },
            );
        let token = match found.await? {
            Ok(token) => token,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let address = address(from).map(|address| address.to_string());
        let used = TokenUse {
            at: now,
            address: address.clone(),
        };
        self.desk.system.noted.token_used(token.key, used);
        Ok(Ok(Caller {
            name: token.name.clone(),
            actor: Actor {
                kind: ActorKind::Token,
                name: format!("{} ({})", token.name, token.id),
                address,
                token: Some(token.key),
            },
            scopes: vec![token.scope.clone()],
            scope: token.scope,
            expires_at: token.expires_at,
        }))
    }

    /// A right token is never kept waiting by wrong ones, so this only has to spare the log.
    async fn failed(&self, address: Option<IpAddr>, error: &TokenError) -> Problem {
        let failures = self
            .failures
            .get_with(address.map(one_client), async { Arc::default() })
            .await;
        let place = known_place(address);
        let before = failures.fetch_add(1, Ordering::Relaxed);
        if before >= FAILURES {
            return Problem::new(
                Code::TooManyFailures,
                match address {
                    Some(_) => "too many wrong tokens came from this address; a right one is taken at any time",
                    None => "too many wrong tokens came over the unix socket without a client's address; a right one is taken at any time, and a reverse proxy that sends X-Forwarded-For has each client counted alone",
                },
            )
            .retry_after(FORGOTTEN_AFTER.as_secs());
        }
        tracing::info!(
            target: "gatepost::admin",
            address = %place,
            reason = match error {
                TokenError::Malformed => "malformed",
                _ => "invalid",
            },
            "token refused"
        );
        Problem::new(Code::Unauthorized, error.to_string())
    }
}

/// Lets a request through to its route, together with its [`Caller`], or answers it.
pub(super) async fn guard(
    State(gate): State<Arc<Gate>>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let from = neighbour(&request)?;
    gate.check_host(&request)?;
    gate.check_origin(&request)?;
    let person = gate.person(&request)?;
    let token = match bearer(request.headers()) {
        // What a proxy's own authentication has left in Authorization is none of ours.
        Err(_) if person.is_some() => None,
        token => token?,
    };
    let caller = match (token, person, from) {
        (Some(token), _, _) => gate.by_token(&token, from).await?,
        (None, Some(person), _) => {
            gate.check_own_page(&request)?;
            person.caller(&request)?
        }
        (None, None, Neighbour::Unix { uid }) if !arrival(&request).by_proxy => local(uid),
        (None, None, _) => {
            return Err(Problem::new(
                Code::Unauthorized,
                "a token is needed: Authorization: Bearer gp_...; make one with gatepost token create",
            ));
        }
    };
    authorize(&caller, parameters, request.method())?;
    request.extensions_mut().insert(caller.clone());
    Ok(workers::on_behalf_of(&caller, next.run(request)).await)
}

/// The caller may do such things to what the path names.
pub(super) fn authorize(
    caller: &Caller,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    method: &Method,
) -> Result<(), Problem> {
    let slug = match &parameters {
        Ok(parameters) => {
            let slug = parameters.iter().find(|(name, _)| *name == "slug");
            slug.map(|(_, slug)| slug.to_owned())
        }
        Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => {
            return Err(Problem::new(Code::InvalidPath, "the path is not UTF-8"));
        }
        // No route matched, or one that names nothing.
        Err(_) => None,
    };
    let access = match *method {
        Method::GET | Method::HEAD => Access::Read,
        _ => Access::Admin,
    };
    // What lies below an organization needs that organization's scope, and everything else at least the right to do
    // such things to one's own.
    let own = || {
        let mut scopes = caller.scopes.iter();
        let able = scopes.find(|scope| scope.access >= access);
        able.unwrap_or(&caller.scope).organization.clone()
    };
    caller.require(&Scope {
        organization: slug.or_else(own),
        access,
    })
}

/// Where a request comes from.
pub(super) fn neighbour(request: &Request) -> Result<Neighbour, Problem> {
    let from = request.extensions().get::<Neighbour>().copied();
    from.ok_or_else(|| Problem::internal(&"a request came from nowhere"))
}

/// Where a request comes from, for the log.
pub(super) fn place(request: &Request) -> String {
    known_place(client_address(request))
}

fn known_place(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "a unix socket".to_owned(), |address| address.to_string())
}

/// The client's address, as far as it is known.
pub(super) fn client_address(request: &Request) -> Option<IpAddr> {
    neighbour(request).ok().and_then(address)
}

/// How a request came.
fn arrival(request: &Request) -> Arrival {
    let arrival = request.extensions().get::<Arrival>().cloned();
    arrival.unwrap_or_default()
}

/// What is known of where somebody is; on the unix socket, nothing.
fn address(from: Neighbour) -> Option<IpAddr> {
    match from {
        Neighbour::Tcp(peer) => Some(peer.ip().to_canonical()),
        Neighbour::Unix { .. } => None,
    }
}

/// Who may open the socket may do everything.
fn local(uid: Option<u32>) -> Caller {
    Caller {
        name: "the unix socket".to_owned(),
        actor: Actor {
            kind: ActorKind::Socket,
            name: uid.map_or_else(|| "unknown".to_owned(), |uid| format!("uid {uid}")),
            address: None,
            token: None,
        },
        scope: Scope::INSTANCE_ADMIN,
        scopes: vec![Scope::INSTANCE_ADMIN],
        expires_at: None,
    }
}

/// The name that the browser asked for: of the proxy that is in front, if that says so, else of us.
pub(super) fn host(request: &Request) -> Result<Authority, Problem> {
    match arrival(request).host {
        Some(host) => Ok(host),
        None => named_host(request),
    }
}

/// The name that is asked for: in the request line if it stands there, else in the Host header (RFC
/// 9112 section 3.2.2).
pub(super) fn named_host(request: &Request) -> Result<Authority, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.clone());
    }
    let mut all = request.headers().get_all(HOST).iter();
    let only = all.next().filter(|_| all.next().is_none());
    let text = only.and_then(|host| host.to_str().ok());
    text.and_then(|host| host.parse().ok()).ok_or_else(|| {
        Problem::new(
            Code::InvalidHeader,
            "Host: the request has none, or several, or one that is no name; send one",
        )
    })
}

/// What one client has of addresses: in IPv6 a /64, else an address.
fn one_client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// The token of a request, if it brings one.
fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = all.next() else {
        return Ok(None);
    };
    let mut words = first.as_bytes().splitn(2, |byte| *byte == b' ');
    let scheme = words.next().unwrap_or_default();
    match words.next().map(<[u8]>::trim_ascii) {
        Some(token) if all.next().is_none() && scheme.eq_ignore_ascii_case(b"bearer") => {
            Ok(Some(Secret::new(token)))
        }
        _ => Err(Problem::new(
            Code::Unauthorized,
            "the Authorization header must be one: Bearer and a token",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |text: &str| one_client(text.parse().unwrap()).to_string();
        assert_eq!(client("192.0.2.7"), "192.0.2.7");
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn a_token_comes_as_one_bearer() {
        let token = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(|token| token.map(|token| token.expose().to_vec()))
        };
        assert_eq!(token(&[]).unwrap(), None);
        assert_eq!(token(&["bearer  gp_x "]).unwrap().unwrap(), b"gp_x");
        for wrong in [&["gp_x"][..], &["Basic gp_x"], &["Bearer a", "Bearer b"]] {
            assert_eq!(token(wrong).unwrap_err().code, Code::Unauthorized);
        }
    }
}
