//! A client of the dashboard that is no browser: it sends what it is told to, and keeps cookies.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use super::Dashboard;
use super::page::Page;
use crate::support::lock::Lock;
use crate::support::{PATIENCE, eventually};

pub struct Plain<'a> {
    dashboard: &'a Dashboard,
    /// From here: wrong tokens are counted by address.
    pub address: Ipv4Addr,
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Plain<'a> {
    pub fn new(dashboard: &'a Dashboard) -> Plain<'a> {
        Plain {
            dashboard,
            address: Ipv4Addr::LOCALHOST,
            cookies: BTreeMap::new(),
        }
    }

    #[track_caller]
    pub fn sign_in(&mut self, token: &str) {
        let entered = self.submit("/sign-in", "/sign-in", &[("token", token)]);
        assert_eq!(entered.location(), "/");
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Page {
        self.send(&format!("GET {path}"), &self.usual_headers(), &[])
    }

    /// Fills in the form on `from` that posts `to`, as a browser does.
    #[track_caller]
    pub fn submit(&mut self, from: &str, to: &str, fields: &[(&str, &str)]) -> Page {
        let hidden = self.get(from).expect(200).hidden(to);
        let own = |name: &str| fields.iter().any(|(own, _)| *own == name);
        let hidden = hidden.iter().filter(|(name, _)| !own(name));
        let hidden = hidden.map(|(name, value)| (name.as_str(), value.as_str()));
        let fields: Vec<_> = hidden.chain(fields.iter().copied()).collect();
        self.post(to, &fields)
    }

    /// Posts these fields and no others.
    #[track_caller]
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.send(&format!("POST {path}"), &self.usual_headers(), fields)
    }

    /// As a browser on this very site says it.
    pub fn usual_headers(&self) -> Vec<String> {
        let address = self.dashboard.address;
        vec![
            format!("Host: {address}"),
            format!("Origin: http://{address}"),
        ]
    }

    /// Sends these headers, the cookies and the fields.
    #[track_caller]
    pub fn send(&mut self, request: &str, headers: &[String], fields: &[(&str, &str)]) -> Page {
        let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            text.push_str(&format!("{header}\r\n"));
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<_> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            text.push_str(&format!("Cookie: {}\r\n", cookies.join("; ")));
        }
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(fields).finish();
        if request.starts_with("POST") {
            text.push_str(&format!(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                form.len()
            ));
        }
        let mut socket = self.connect();
        socket
            .write_all(format!("{text}\r\n{form}").as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        self.keep(request, &answer)
    }

    fn connect(&self) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let client = SocketAddr::new(IpAddr::V4(self.address), 0);
        socket.bind(&client.into()).expect("bind");
        socket
            .connect(&self.dashboard.address.into())
            .expect("connect");
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    #[track_caller]
    fn keep(&mut self, request: &str, answer: &[u8]) -> Page {
        let secrets = &self.dashboard.daemon.secrets;
        let shows = ["/new", "/rotate", "/tokens"]
            .iter()
            .any(|end| request.ends_with(end));
        if request.starts_with("POST") && shows {
            secrets.remember_shown(answer);
        } else {
            secrets.note(request, answer);
        }
        let text = String::from_utf8(answer.to_vec()).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let page = Page {
            path: request.split(' ').nth(1).unwrap_or_default().to_owned(),
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        };
        for cookie in page.headers("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        page
    }
}

#[test]
fn a_revocation_counts_although_another_process_has_the_store_locked() {
    let dashboard = Dashboard::start();
    let credential = dashboard.daemon.create();
    dashboard.accepts(&credential);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let lock = Lock::take(&dashboard.daemon.store());
    let page = dashboard.page_of(&credential);
    let revoke = format!("{page}/revoke");
    let answer = plain.submit(&revoke, &revoke, &[]).expect(507);
    assert!(answer.body.contains("Effective, but not saved"));
    dashboard.refuses(&credential);
    assert!(plain.get(&page).expect(200).body.contains("Revoked"));
    lock.commit();
    let revoked = "SELECT count(*) FROM credentials WHERE status = 'revoked'";
    eventually("the revocation is written", || {
        (dashboard.number(revoked) == Some(1)).then_some(())
    });
}
