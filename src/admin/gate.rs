//! Who may ask at all: by the name they ask for, the page they come from, and the token they bring.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use moka::future::Cache;

use crate::auth::token::{self, TokenError, TokenHash};
use crate::net::listener::Neighbour;
use crate::sasl::Secret;
use crate::store::{Access, Actor, ActorKind, Scope, TokenUse};

use super::caller::Caller;
use super::desk::Desk;
use super::hosts::Hosts;
use super::problem::{Code, Problem};
use super::workers;

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
    failures: Cache<IpAddr, Arc<AtomicU32>>,
}

impl Gate {
    /// Lets those through who ask for one of these `hosts` and may do what they ask.
    pub(super) fn new(desk: Arc<Desk>, hosts: Hosts) -> Gate {
        Gate {
            desk,
            hosts,
            failures: Cache::builder()
                .max_capacity(ADDRESSES)
                .time_to_live(FORGOTTEN_AFTER)
                .build(),
        }
    }

    /// The request must be for a name of ours.
    pub(super) fn check_host(&self, request: &Request) -> Result<(), Problem> {
        self.hosts.check(request)
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
            scope: token.scope,
            expires_at: token.expires_at,
        }))
    }

    /// A right token is never kept waiting by wrong ones, so this only has to spare the log.
    async fn failed(&self, address: Option<IpAddr>, error: &TokenError) -> Problem {
        let Some(address) = address else {
            return Problem::new(Code::Unauthorized, error.to_string());
        };
        let failures = self
            .failures
            .get_with(one_client(address), async { Arc::default() })
            .await;
        let before = failures.fetch_add(1, Ordering::Relaxed);
        if before >= FAILURES {
            return Problem::new(
                Code::TooManyFailures,
                "too many wrong tokens came from this address; a right one is taken at any time",
            )
            .retry_after(FORGOTTEN_AFTER.as_secs());
        }
        tracing::info!(
            target: "gatepost::admin",
            %address,
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
    check_origin(&request)?;
    let caller = match (bearer(request.headers())?, from) {
        (Some(token), _) => gate.by_token(&token, from).await?,
        (None, Neighbour::Unix { uid }) => local(uid),
        (None, Neighbour::Tcp(_)) => {
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
    caller.require(&Scope {
        organization: slug.or_else(|| caller.scope.organization.clone()),
        access,
    })
}

/// Where a request comes from.
pub(super) fn neighbour(request: &Request) -> Result<Neighbour, Problem> {
    let from = request.extensions().get::<Neighbour>().copied();
    from.ok_or_else(|| Problem::internal(&"a request came from nowhere"))
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
        expires_at: None,
    }
}

/// The name that is asked for: in the request line if it stands there, else in the Host header (RFC 9112 section 3.2.2).
pub(super) fn host(request: &Request) -> Result<Authority, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.clone());
    }
    let mut all = request.headers().get_all(HOST).iter();
    let only = all.next().filter(|_| all.next().is_none());
    let text = only.and_then(|host| host.to_str().ok());
    text.and_then(|host| host.parse().ok())
        .ok_or_else(|| Problem::new(Code::InvalidHeader, "the request needs one Host header"))
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

/// Browsers say which site a page is from that sends something; ours are only from here.
pub(super) fn check_origin(request: &Request) -> Result<(), Problem> {
    let mut origins = request.headers().get_all(ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        return Ok(());
    }
    let own = host(request)?;
    let is_own = |origin: &str| {
        let site = origin.split_once("://").map(|(_, site)| site);
        site.is_some_and(|site| site.eq_ignore_ascii_case(own.as_str()))
    };
    if origins.all(|origin| origin.to_str().is_ok_and(is_own)) {
        return Ok(());
    }
    Err(Problem::foreign_origin())
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
