//! The headers in which reverse proxies say who the client is: X-Forwarded-For, -Proto and -Host,
//! and Forwarded (RFC 7239).
//!
//! A client can send these headers as well, and a proxy appends to them, so they are read from
//! their end: the client is the last address that is no trusted proxy's own.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName};

pub(super) const FORWARDED: &str = "forwarded";
pub(super) const FOR: &str = "x-forwarded-for";
pub(super) const HOST: &str = "x-forwarded-host";
const PROTO: &str = "x-forwarded-proto";

/// What the headers of a trusted proxy say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Forwarded {
    /// The client's address, or that of the last proxy that is known.
    pub(super) client: Option<IpAddr>,
    /// Whether the browser speaks HTTPS.
    pub(super) https: Option<bool>,
    /// The name that the browser asked for.
    pub(super) host: Option<Authority>,
    /// The headers that are ignored, since they cannot be read or contradict each other.
    pub(super) ignored: Vec<&'static str>,
}

/// One proxy's word about where it got the request from.
#[derive(Clone, Debug, Default, PartialEq)]
struct Hop {
    from: From,
    https: Option<bool>,
    host: Option<Authority>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum From {
    Address(IpAddr),
    /// The proxy does not say (RFC 7239 sections 6.2 and 6.3).
    #[default]
    Hidden,
    Malformed,
}

impl Forwarded {
    pub(super) fn read(headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> Forwarded {
        let mut ignored = Vec::new();
        let all = list(headers, FOR);
        let simple = all.iter().map(|text| Hop {
            from: text.as_deref().map_or(From::Malformed, plain_address),
            ..Hop::default()
        });
        let (simple, is_sound) = client(simple.collect(), &is_proxy);
        if !is_sound {
            ignored.push(FOR);
        }
        let (mut full, is_sound) = client(hops(headers), &is_proxy);
        if !is_sound {
            ignored.push(FORWARDED);
        }
        let mut from = simple.or_else(|| full.clone());
        // One of the two is the client's own, and which one the proxy sets cannot be told.
        let both = !all.is_empty() && headers.contains_key(FORWARDED);
        let address = |hop: &Option<Hop>| hop.as_ref().map(|hop| hop.from);
        if both && address(&from) != address(&full) {
            (from, full) = (None, None);
            ignored = vec![FOR, FORWARDED];
        }
        let https = list(headers, PROTO);
        let https = agreed(&https, PROTO, &mut ignored);
        let host = host(headers, &mut ignored);
        let full = full.unwrap_or_default();
        Forwarded {
            client: match from.map(|hop| hop.from) {
                Some(From::Address(address)) => Some(address),
                _ => None,
            },
            https: https.or(full.https),
            host: host.or(full.host),
            ignored,
        }
    }
}

/// The hop that is the client, and whether all that were looked at can be read.
fn client(hops: Vec<Hop>, is_proxy: impl Fn(IpAddr) -> bool) -> (Option<Hop>, bool) {
    let mut client = None;
    for hop in hops.into_iter().rev() {
        match hop.from {
            From::Address(address) => {
                let is_last = !is_proxy(address);
                client = Some(hop);
                if is_last {
                    break;
                }
            }
            From::Hidden => break,
            From::Malformed => return (client, false),
        }
    }
    (client, true)
}

/// The parts of a list (RFC 9110 section 5.6.1) in all headers of this name; `None` is one that is
/// not text.
fn list(headers: &HeaderMap, name: &'static str) -> Vec<Option<String>> {
    let name = HeaderName::from_static(name);
    let mut parts = Vec::new();
    for value in headers.get_all(name) {
        match value.to_str() {
            Ok(text) => {
                let own = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                parts.extend(own.map(|part| Some(part.to_owned())));
            }
            Err(_) => parts.push(None),
        }
    }
    parts
}

/// Whether all parts say the same of HTTPS.
fn agreed(
    parts: &[Option<String>],
    name: &'static str,
    ignored: &mut Vec<&'static str>,
) -> Option<bool> {
    let mut all = parts.iter().map(|part| is_https(part.as_deref()?));
    let first = all.next()?;
    match first {
        Some(https) if all.all(|other| other == first) => Some(https),
        _ => {
            ignored.push(name);
            None
        }
    }
}

fn is_https(scheme: &str) -> Option<bool> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

/// The last name: further ones are of what came before the proxy.
fn host(headers: &HeaderMap, ignored: &mut Vec<&'static str>) -> Option<Authority> {
    let last = list(headers, HOST).pop()?;
    let host = last.as_deref().and_then(authority);
    if host.is_none() {
        ignored.push(HOST);
    }
    host
}

fn authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let is_name = !authority.host().is_empty() && !text.contains('@');
    is_name.then_some(authority)
}

fn plain_address(text: &str) -> From {
    address(text).map_or(From::Malformed, From::Address)
}

/// An address, also in brackets and with a port.
fn address(text: &str) -> Option<IpAddr> {
    let is_port = |port: &str| {
        let hidden = port.starts_with('_');
        hidden || port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    let address: IpAddr = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']')?;
            let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            inner
                .parse()
                .ok()
                .filter(|address: &IpAddr| is_whole && address.is_ipv6())?
        }
        None => match text.parse() {
            Ok(address) => address,
            Err(_) => {
                let (address, _) = text.rsplit_once(':').filter(|(_, port)| is_port(port))?;
                address.parse().ok().filter(IpAddr::is_ipv4)?
            }
        },
    };
    Some(address.to_canonical())
}

/// The elements of Forwarded (RFC 7239 section 4) in all headers of this name.
fn hops(headers: &HeaderMap) -> Vec<Hop> {
    let malformed = || Hop {
        from: From::Malformed,
        ..Hop::default()
    };
    let mut hops = Vec::new();
    for value in headers.get_all(FORWARDED) {
        let elements = value.to_str().ok().and_then(|text| split(text, ','));
        let Some(elements) = elements else {
            hops.push(malformed());
            continue;
        };
        let elements = elements.iter().filter(|element| !element.is_empty());
        hops.extend(elements.map(|element| hop(element).unwrap_or_else(malformed)));
    }
    hops
}

/// Splits at `separator` outside of quotes; `None` if a quote is not closed.
fn split(text: &str, separator: char) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for letter in text.chars() {
        if letter == separator && !is_quoted {
            parts.push(String::new());
            continue;
        }
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        parts.last_mut()?.push(letter);
    }
    let trimmed = parts.iter().map(|part| part.trim().to_owned());
    (!is_quoted).then(|| trimmed.collect())
}

fn hop(element: &str) -> Option<Hop> {
    let mut hop = Hop::default();
    let mut seen: Vec<String> = Vec::new();
    for pair in split(element, ';')?.iter().filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let name = name.to_ascii_lowercase();
        let value = unquoted(value)?;
        match name.as_str() {
            "for" if value.eq_ignore_ascii_case("unknown") || value.starts_with('_') => {}
            "for" => hop.from = From::Address(address(&value)?),
            "proto" => hop.https = is_https(&value),
            "host" => hop.host = authority(&value),
            _ => {}
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(hop)
}

fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let inner = rest.strip_suffix('"')?;
    let mut text = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(letters.next()?),
            '"' => return None,
            _ => text.push(letter),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(&'static str, &str)]) -> Forwarded {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        // The proxies of this site.
        Forwarded::read(&headers, |address| address.to_string().starts_with("10."))
    }

    fn client(lines: &[(&'static str, &str)]) -> (String, usize) {
        let read = read(lines);
        let client = read.client.map(|client| client.to_string());
        (client.unwrap_or_default(), read.ignored.len())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy() {
        for (values, address) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.9", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:DB8:0::1"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["nonsense, 192.0.2.1,"], "192.0.2.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["192.0.2.1, , 10.0.0.2"], "192.0.2.1"),
        ] {
            let lines: Vec<_> = values.iter().map(|value| (FOR, *value)).collect();
            assert_eq!(client(&lines), (address.to_owned(), 0), "{values:?}");
        }
    }

    #[test]
    fn the_same_holds_for_forwarded() {
        for (values, address) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For=\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (
                &["for=198.51.100.9;by=x, FOR=192.0.2.1; proto=https"],
                "192.0.2.1",
            ),
            (&["for=192.0.2.1", "for=10.0.0.2"], "192.0.2.1"),
            (&["for=\"192.0.2.1:47\";by=\"a,b;c\""], "192.0.2.1"),
            (&["for=192.0.2.1, for=unknown"], ""),
            (&["for=192.0.2.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["proto=https"], ""),
        ] {
            let lines: Vec<_> = values.iter().map(|value| (FORWARDED, *value)).collect();
            assert_eq!(client(&lines), (address.to_owned(), 0), "{values:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored_and_counted() {
        for text in [
            "x",
            "192.0.2.1, evil.test",
            "192.0.2.256",
            "[192.0.2.1]",
            "[2001:db8::1",
            "192.0.2.1:99999",
            "192.0.2.1:",
            "fe80::1%eth0",
            "for=192.0.2.1",
        ] {
            assert_eq!(client(&[(FOR, text)]), (String::new(), 1), "{text}");
        }
        for text in [
            "192.0.2.1",
            "for=\"192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1\"",
            "for=2001:db8::1:1:1:1:1:1:1",
            "for=192.0.2.1, for=\"x",
        ] {
            assert_eq!(client(&[(FORWARDED, text)]), (String::new(), 1), "{text}");
        }
        // The proxy in front is known, what is before it is not.
        let (address, ignored) = client(&[(FOR, "192.0.2.1, x, 10.0.0.2")]);
        assert_eq!((address.as_str(), ignored), ("10.0.0.2", 1));
    }

    #[test]
    fn two_headers_that_disagree_say_nothing() {
        let agree = [(FOR, "192.0.2.1"), (FORWARDED, "for=192.0.2.1")];
        assert_eq!(client(&agree).0, "192.0.2.1");
        let forged = [(FOR, "192.0.2.1"), (FORWARDED, "for=198.51.100.9")];
        assert_eq!(client(&forged), (String::new(), 2));
    }

    #[test]
    fn scheme_and_host_are_read() {
        for (lines, https, host) in [
            (
                &[(PROTO, "https"), (HOST, "a.test:8443")][..],
                Some(true),
                "a.test:8443",
            ),
            (&[(PROTO, "HTTP")], Some(false), ""),
            (
                &[(PROTO, "https, https"), (HOST, "evil.test, a.test")],
                Some(true),
                "a.test",
            ),
            (
                &[(FORWARDED, "for=192.0.2.1;proto=https;host=a.test")],
                Some(true),
                "a.test",
            ),
            (
                &[(
                    FORWARDED,
                    "proto=https;host=evil.test, for=192.0.2.1;host=a.test",
                )],
                None,
                "a.test",
            ),
        ] {
            let read = read(lines);
            let own = read.host.map(|host| host.to_string()).unwrap_or_default();
            assert_eq!(
                (read.https, own.as_str(), read.ignored.len()),
                (https, host, 0),
                "{lines:?}"
            );
        }
        for line in [
            (PROTO, "https, http"),
            (PROTO, "gopher"),
            (HOST, "a@b.test"),
            (HOST, "a b"),
        ] {
            let read = read(&[line]);
            assert_eq!(
                (read.https, read.host, read.ignored.len()),
                (None, None, 1),
                "{line:?}"
            );
        }
    }
}
