//! The cookies: what they are called, and who may send them.

use axum::extract::Request;
use axum::http::header::{COOKIE, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

use crate::admin::base_path::BasePath;
use crate::admin::gate;
use crate::admin::http::Encrypted;
use crate::admin::problem::Problem;

/// The name under which a browser is signed in.
pub(super) const SESSION: &str = "gatepost";

/// What the form of somebody who is not signed in yet brings back.
pub(super) const FORM: &str = "gatepost-form";

/// The cookies of the dashboard that a request is for. Browsers send a cookie to every port of a host, so the port is in its
/// name: two tunnels to two machines do not sign each other out.
pub(super) struct Cookies {
    port: String,
    /// `admin.base_path`: other programs on this host get no cookie of ours.
    base: BasePath,
    /// Whether we speak TLS ourselves: then only cookies count that nobody but this host can have set.
    encrypted: bool,
    /// Whether the browser came by HTTPS, to us or to a proxy in front.
    by_https: bool,
}

impl Cookies {
    pub(super) fn of(request: &Request) -> Cookies {
        let host = gate::host(request).ok();
        let port = host.and_then(|host| host.port_u16());
        let encrypted = request.extensions().get::<Encrypted>();
        let encrypted = encrypted.is_some_and(|encrypted| encrypted.0);
        let origin = request.headers().get(ORIGIN);
        let base = request.extensions().get::<BasePath>();
        Cookies {
            base: base.cloned().unwrap_or_default(),
            port: port.map(|port| format!("-{port}")).unwrap_or_default(),
            encrypted,
            by_https: encrypted
                || origin.is_some_and(|origin| origin.as_bytes().starts_with(b"https://")),
        }
    }

    /// With `__Host-`, a browser takes it by HTTPS only, and from this very host for all of its
    /// paths. One for a single path must have `__Secure-` instead, which needs HTTPS as well.
    fn bound(&self, what: &str) -> String {
        let prefix = match self.base.as_str() {
            "" => "__Host-",
            _ => "__Secure-",
        };
        format!("{prefix}{what}{}", self.port)
    }

    fn loose(&self, what: &str) -> String {
        format!("{what}{}", self.port)
    }

    /// What the browser sent of this; the one that is bound to the host before the other.
    pub(super) fn all<'a>(&self, headers: &'a HeaderMap, what: &str) -> Vec<&'a str> {
        let loose = (!self.encrypted).then(|| self.loose(what));
        let names = [Some(self.bound(what)), loose];
        let found = names
            .into_iter()
            .flatten()
            .filter_map(|name| value(headers, &name));
        found.filter(|value| !value.is_empty()).collect()
    }

    /// The first of [`Cookies::all`].
    pub(super) fn get<'a>(&self, headers: &'a HeaderMap, what: &str) -> Option<&'a str> {
        self.all(headers, what).first().copied()
    }

    /// Has the browser keep it for so many seconds; without, until it is closed.
    pub(super) fn set(
        &self,
        what: &str,
        text: &str,
        seconds: Option<u64>,
    ) -> Result<HeaderValue, Problem> {
        let (name, secure) = match self.by_https {
            true => (self.bound(what), "; Secure"),
            false => (self.loose(what), ""),
        };
        self.written(&name, text, seconds, secure)
    }

    /// Has the browser forget it, by whichever name it has it.
    pub(super) fn forget(&self, what: &str) -> Result<[HeaderValue; 2], Problem> {
        Ok([
            self.written(&self.bound(what), "", Some(0), "; Secure")?,
            self.written(&self.loose(what), "", Some(0), "")?,
        ])
    }

    fn written(
        &self,
        name: &str,
        text: &str,
        seconds: Option<u64>,
        secure: &str,
    ) -> Result<HeaderValue, Problem> {
        let path = match self.base.as_str() {
            "" => "/",
            base => base,
        };
        let age = seconds.map(|seconds| format!("; Max-Age={seconds}"));
        let age = age.unwrap_or_default();
        let line = format!("{name}={text}; Path={path}{age}; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::from_str(&line).map_err(|error| Problem::internal(&error))
    }
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter(|(own, _)| *own == name)
        .map(|(_, value)| value)
        .next()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(host: &str, cookies: &[&str], encrypted: bool) -> Request {
        let mut request = Request::builder().header("host", host);
        for line in cookies {
            request = request.header(COOKIE, *line);
        }
        let request = request.extension(Encrypted(encrypted));
        request.body(Body::empty()).unwrap()
    }

    fn session(host: &str, cookies: &[&str], encrypted: bool) -> Option<String> {
        let request = request(host, cookies, encrypted);
        let cookies = Cookies::of(&request);
        cookies.get(request.headers(), SESSION).map(str::to_owned)
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let found = |cookies: &[&str]| session("a.test", cookies, false);
        assert_eq!(found(&["a=1; gatepost=x; b=2"]).as_deref(), Some("x"));
        assert_eq!(found(&["a=1", "gatepost=x"]).as_deref(), Some("x"));
        assert_eq!(
            found(&["gatepost=x; __Host-gatepost=y"]).as_deref(),
            Some("y")
        );
        assert_eq!(
            found(&["xgatepost=1", "gatepostx=1", "gatepost", "gatepost="]),
            None
        );
    }

    #[test]
    fn another_ports_cookie_is_none_of_ours() {
        let cookies = ["gatepost=x; gatepost-8588=y"];
        assert_eq!(
            session("127.0.0.1:8588", &cookies, false).as_deref(),
            Some("y")
        );
        assert_eq!(session("127.0.0.1:8587", &cookies, false), None);
    }

    #[test]
    fn by_tls_only_what_this_host_set_counts() {
        assert_eq!(session("a.test", &["gatepost=x"], true), None);
        assert_eq!(
            session("a.test", &["__Host-gatepost=y"], true).as_deref(),
            Some("y")
        );
        let cookies = Cookies::of(&request("a.test", &[], true));
        let line = cookies.set(SESSION, "x", None).unwrap();
        assert_eq!(
            line,
            "__Host-gatepost=x; Path=/; HttpOnly; SameSite=Strict; Secure"
        );
    }

    #[test]
    fn below_a_base_path_a_cookie_is_for_that_alone() {
        let mut request = request("a.test", &["__Host-gatepost=x"], true);
        request.extensions_mut().insert(BasePath::new("/g"));
        let cookies = Cookies::of(&request);
        assert_eq!(cookies.get(request.headers(), SESSION), None);
        let line = cookies.set(SESSION, "x", None).unwrap();
        assert_eq!(
            line,
            "__Secure-gatepost=x; Path=/g; HttpOnly; SameSite=Strict; Secure"
        );
    }
}
