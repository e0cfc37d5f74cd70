//! The administration behind reverse proxies: below a path, with clients' addresses, and for
//! persons whom the proxy has signed in.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::page::Page;
use super::plain::Plain;
use super::{Dashboard, LIST};
use crate::support::browser::{Browser, Scripts};
use crate::support::client::Client;
use crate::support::site::Credential;
use crate::support::{eventually, ports};

const BASE: &str = "/gatepost";

/// A reverse proxy in a directory of its own, ended on drop.
struct Proxy {
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// `location` is nginx's own configuration of all paths.
    fn nginx(location: &str) -> Proxy {
        let folder = tempfile::tempdir().expect("a folder");
        let address = ports::free_address();
        let own = folder.path().display();
        let config = format!(
            "daemon off; master_process off; pid {own}/pid; error_log {own}/log;
            events {{}}
            http {{ access_log off; client_body_temp_path {own}/body; proxy_temp_path {own}/proxy;
                fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;
                server {{ listen {address}; {location} }} }}"
        );
        fs::write(folder.path().join("nginx.conf"), config).expect("write");
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(folder.path().join("nginx.conf"));
        command.arg("-p").arg(folder.path());
        Proxy::start(command, address, folder)
    }

    /// `site` is Caddy's own configuration of all paths.
    fn caddy(site: &str) -> Proxy {
        let folder = tempfile::tempdir().expect("a folder");
        let address = ports::free_address();
        let config = format!(
            "{{\n admin off\n auto_https off\n storage file_system {}\n}}\nhttp://{address} {{\n{site}\n}}\n",
            folder.path().display()
        );
        fs::write(folder.path().join("Caddyfile"), config).expect("write");
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]);
        command.arg(folder.path().join("Caddyfile"));
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env(variable, folder.path());
        }
        Proxy::start(command, address, folder)
    }

    fn start(mut command: Command, address: SocketAddr, folder: tempfile::TempDir) -> Proxy {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = quiet
            .spawn()
            .expect("start a proxy, which ./tests/run installs");
        let proxy = Proxy {
            address,
            process,
            _folder: folder,
        };
        eventually("the proxy listens", || {
            std::net::TcpStream::connect(address).ok()
        });
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn below_base() -> Dashboard {
    Dashboard::start_with(|config| config.text("admin", "base_path", BASE))
}

/// Signs in below the base path; the cookies of that.
fn sign_in_through<'a>(dashboard: &'a Dashboard) -> Plain<'a> {
    let mut plain = dashboard.plain();
    let path = format!("{BASE}/sign-in");
    let entered = plain.submit(&path, &path, &[("token", &dashboard.token)]);
    for cookie in entered.headers("set-cookie") {
        assert!(cookie.contains("; Path=/gatepost;"), "{cookie}");
    }
    assert_eq!(entered.location(), format!("{BASE}/"));
    plain
}

#[track_caller]
fn is_below_base(page: &Page) {
    for attribute in [" href=\"", " src=\"", " action=\""] {
        for rest in page.body.split(attribute).skip(1) {
            let below = ["/gatepost/", "?", "#"]
                .iter()
                .any(|start| rest.starts_with(start));
            assert!(below, "{attribute}{}", &rest[..rest.len().min(60)]);
        }
    }
}

#[test]
fn every_address_is_below_the_base_path() {
    let dashboard = below_base();
    let credential = dashboard.daemon.create();
    let mut plain = sign_in_through(&dashboard);
    for path in super::http::pages_of(&dashboard, &credential) {
        // A proxy may strip the base path or not.
        for path in [path.clone(), format!("{BASE}{path}")] {
            is_below_base(&plain.get(&path).expect(200));
        }
    }
    is_below_base(&plain.get(&format!("{BASE}/nothing")).expect(404));
    let out = plain.get(BASE).expect(200);
    assert!(out.body.contains("action=\"/gatepost/sign-out\""));
    let mut stranger = dashboard.plain();
    let to = stranger.get(&format!("{BASE}/audit?x=1")).location();
    assert_eq!(to, "/gatepost/sign-in?next=%2Faudit%3Fx%3D1");
    let headers = [
        format!("Host: {}", dashboard.address),
        format!("Authorization: Bearer {}", dashboard.token),
    ];
    let document = plain
        .get(&format!("{BASE}/api/v1/openapi.json"))
        .expect(200);
    assert!(document.body.contains("\"url\": \"/gatepost\""));
    let missing = plain
        .send("GET /gatepost/api/v1/nothing", &headers, &[])
        .expect(404);
    assert!(missing.body.contains("/gatepost/api/v1/openapi.json"));
    let made = plain.send(
        "POST /gatepost/api/v1/organizations/default/credentials",
        &headers[..1],
        &[],
    );
    assert_eq!(made.status, 401);
}

#[test]
fn nginx_and_caddy_serve_it_stripped_and_whole() {
    let dashboard = below_base();
    let credential = dashboard.daemon.create();
    let own = dashboard.address;
    let proxies = [
        Proxy::nginx(&format!(
            "location /gatepost/ {{ proxy_pass http://{own}; proxy_set_header Host $http_host; }}"
        )),
        Proxy::nginx(&format!(
            "location /gatepost/ {{ proxy_pass http://{own}/; proxy_set_header Host $http_host; add_header Referrer-Policy no-referrer; }}"
        )),
        Proxy::caddy(&format!(
            "handle_path /gatepost* {{\n reverse_proxy {own}\n}}"
        )),
        Proxy::caddy(&format!("handle /gatepost* {{\n reverse_proxy {own}\n}}")),
    ];
    for proxy in &proxies {
        let browser = Browser::start(Scripts::Run);
        let at = |path: &str| format!("http://{}{BASE}{path}", proxy.address);
        browser.go(&at("/audit"));
        browser.fill("#token", &dashboard.token);
        browser.follow("#sign-in");
        assert_eq!(browser.url(), at("/audit"));
        browser.go(&at(LIST));
        assert!(browser.source().contains(&credential.username));
        browser.follow("#new");
        browser.follow("main form button[type=submit]");
        let made = browser.text("#username");
        dashboard
            .daemon
            .remember(&crate::support::site::Credential {
                username: made.clone(),
                password: browser.text("#password"),
            });
        browser.go(&at(&format!("{LIST}/{made}")));
        browser.follow("#to-rotate");
        browser.follow("main form button[type=submit]");
        dashboard
            .daemon
            .remember(&crate::support::site::Credential {
                username: made,
                password: browser.text("#password"),
            });
        browser.go(&at("/"));
        browser.follow("#sign-out button");
        assert_eq!(browser.url(), at("/sign-in?left=1"));
        assert_eq!(browser.complaints(), [""; 0]);
    }
}

/// The address in the newest record of the audit log.
fn newest(dashboard: &Dashboard) -> (String, String) {
    let row = "SELECT actor, coalesce(address, '') FROM audit_log ORDER BY seq DESC LIMIT 1";
    let row = dashboard
        .store()
        .query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?)));
    row.expect("a record")
}

/// Ends the live sessions over the API.
fn disconnect(dashboard: &Dashboard, headers: &[&str]) -> u16 {
    let mut plain = dashboard.plain();
    let mut all = vec![format!("Host: {}", dashboard.address)];
    all.extend(headers.iter().map(ToString::to_string));
    let request = "DELETE /api/v1/sessions?organization=default";
    plain.send(request, &all, &[]).status
}

#[test]
fn only_a_trusted_proxy_says_who_the_client_is() {
    let trusting = Dashboard::start_with(|config| {
        config.raw(
            "admin",
            "trusted_proxies",
            "[\"127.0.0.1\", \"10.0.0.0/8\"]".to_owned(),
        )
    });
    let token = format!("Authorization: Bearer {}", trusting.token);
    let credential = trusting.daemon.create();
    let seen = |dashboard: &Dashboard, token: &str, header: &str| {
        let _live = Client::logged_in(&dashboard.daemon, &credential);
        assert_eq!(disconnect(dashboard, &[token, header]), 200, "{header}");
        newest(dashboard).1
    };
    for (header, address) in [
        ("X-Forwarded-For: 198.51.100.9, 192.0.2.1", "192.0.2.1"),
        (
            "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: [2001:db8::1]:47, 10.0.0.2",
            "2001:db8::1",
        ),
        (
            "Forwarded: for=\"[2001:db8::2]:4711\";proto=https",
            "2001:db8::2",
        ),
        ("X-Forwarded-For: nonsense", "127.0.0.1"),
        (
            "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.2",
            "127.0.0.1",
        ),
    ] {
        assert_eq!(seen(&trusting, &token, header), address, "{header}");
    }
    trusting
        .daemon
        .wait_for_log(&["x-forwarded-for", "ignored"]);
    // Secure cookies, by the scheme that the proxy tells.
    let https = [
        "X-Forwarded-Proto: https".to_owned(),
        format!("Host: {}", trusting.address),
    ];
    let page = trusting
        .plain()
        .send("GET /sign-in", &https, &[])
        .expect(200);
    assert!(page.header("set-cookie").unwrap().ends_with("; Secure"));
    // A name of the proxy's must be allowed as Host must.
    for (header, value) in [
        ("X-Forwarded-Host", "evil.test"),
        ("Forwarded", "for=192.0.2.1;host=evil.test"),
    ] {
        let foreign = [
            format!("{header}: {value}"),
            format!("Host: {}", trusting.address),
        ];
        let mut plain = trusting.plain();
        let refused = plain.send("GET /sign-in", &foreign, &[]).expect(403);
        let named = format!("{header}: &#34;evil.test&#34;");
        assert!(refused.body.contains(&named), "{}", refused.body);
    }

    let other = Dashboard::start();
    let page = other.plain().send(
        "GET /sign-in",
        &[https[0].clone(), format!("Host: {}", other.address)],
        &[],
    );
    assert!(
        !page
            .expect(200)
            .header("set-cookie")
            .unwrap()
            .contains("Secure")
    );
    let credential = other.daemon.create();
    let token = format!("Authorization: Bearer {}", other.token);
    let _live = Client::logged_in(&other.daemon, &credential);
    assert_eq!(
        disconnect(&other, &[&token, "X-Forwarded-For: 192.0.2.1"]),
        200
    );
    assert_eq!(newest(&other).1, "127.0.0.1");
}

fn with_persons(trusted: &str) -> Dashboard {
    Dashboard::start_with(|config| {
        config
            .raw("admin", "trusted_proxies", format!("[{trusted:?}]"))
            .text("admin.proxy_auth", "user_header", "Remote-User")
            .text("admin.proxy_auth", "groups_header", "Remote-Groups")
            .text("admin.proxy_auth.groups", "admins", "instance:admin")
            .text("admin.proxy_auth.groups", "readers", "instance:read")
    })
}

#[test]
fn a_person_of_the_proxy_acts_under_the_own_name() {
    let dashboard = with_persons("127.0.0.1");
    let mut plain = dashboard.plain();
    let person = |user: &str, groups: &str| {
        let mut headers = plain_headers(&dashboard);
        headers.push(format!("Remote-User: {user}"));
        headers.push(format!("Remote-Groups: {groups}"));
        headers
    };
    let alice = person("alice", "staff,admins");
    let page = plain
        .send("GET /organizations/default", &alice, &[])
        .expect(200);
    assert!(
        page.body
            .contains("Signed in as alice by the reverse proxy")
    );
    let csrf = page.hidden("/organizations/default/rename").remove(0).1;
    let rename = "POST /organizations/default/rename";
    // The same checks as for a session of a token.
    for (headers, csrf) in [
        (alice.clone(), ""),
        (alice.clone(), "wrong"),
        (
            [&alice[..], &["Origin: http://evil.test".to_owned()]].concat(),
            &csrf,
        ),
        (
            [&alice[..], &["Sec-Fetch-Site: cross-site".to_owned()]].concat(),
            &csrf,
        ),
        (person("bob", "admins"), &csrf),
        (person("alice", "readers"), &csrf),
    ] {
        plain
            .send(rename, &headers, &[("csrf", csrf), ("name", "Taken")])
            .expect(403);
    }
    // A program sends neither header, and no other site is to blame.
    let mut program = alice.clone();
    program.retain(|header| !header.starts_with("Origin:") && !header.starts_with("Sec-"));
    let refused = plain.send("POST /api/v1/organizations", &program, &[]);
    let problem = refused.expect(403).body;
    assert!(problem.contains("needs the header Origin"), "{problem}");
    plain
        .send(rename, &alice, &[("csrf", &csrf), ("name", "Mine")])
        .location();
    assert_eq!(
        newest(&dashboard),
        ("alice".to_owned(), "127.0.0.1".to_owned())
    );
    let by_person = "SELECT count(*) FROM audit_log WHERE actor_kind = 'person'";
    assert_eq!(dashboard.number(by_person), Some(1));
    let log = plain.send("GET /audit", &alice, &[]).expect(200);
    assert!(log.body.contains("person alice"), "{}", log.body);
    let list = dashboard.daemon.json(&["audit", "list"]);
    assert_eq!(list[0]["actor"]["kind"], "person", "{list}");
    // Blanks around a name show, on the page and among the changes.
    let rename = ["organization", "rename", "default", " Mine "];
    dashboard.daemon.succeed(&rename);
    for (path, shown) in [
        ("/organizations/default", "<h1>&#34; Mine &#34;</h1>"),
        ("/audit", "<ins>&#34; Mine &#34;</ins>"),
    ] {
        let page = plain.send(&format!("GET {path}"), &alice, &[]);
        let page = page.expect(200).body;
        assert!(page.contains(shown), "{page}");
    }
    dashboard.daemon.succeed(&["audit", "verify"]);
    // Over the API: looking is free, a change must be asked for by a page of ours.
    plain.send("GET /api/v1/status", &alice, &[]).expect(200);
    let delete = "DELETE /api/v1/sessions?organization=default";
    let bare: Vec<_> = alice
        .iter()
        .filter(|line| !line.starts_with("Origin"))
        .cloned()
        .collect();
    plain.send(delete, &bare, &[]).expect(403);
    plain.send(delete, &alice, &[]).expect(200);
    // Without a scope a person has the way of a token.
    let page = plain
        .send("GET /", &person("carol", "staff"), &[])
        .expect(403);
    assert!(page.body.contains("carol") && page.body.contains("href=\"/sign-in\""));
    plain.sign_in(&dashboard.token);
}

#[test]
fn a_person_with_several_scopes_sees_and_does_what_each_of_them_allows() {
    let dashboard = Dashboard::start_with(|config| {
        config
            .raw("admin", "trusted_proxies", "[\"127.0.0.1\"]".to_owned())
            .text("admin.proxy_auth", "user_header", "Remote-User")
            .text("admin.proxy_auth", "groups_header", "Remote-Groups")
            .text("admin.proxy_auth.groups", "acme", "org:acme:admin")
            .text("admin.proxy_auth.groups", "beta", "org:beta:read")
            .text("admin.proxy_auth.groups", "planned", "org:planned:admin")
    });
    let daemon = &dashboard.daemon;
    let [acme, beta, gamma] = ["acme", "beta", "gamma"].map(|slug| {
        daemon.succeed(&["organization", "create", slug]);
        let scope = format!("org:{slug}:read");
        daemon.succeed(&["token", "create", "--name", slug, "--scope", &scope]);
        let credential = daemon.json(&["credential", "create", "--org", slug]);
        let credential = Credential::from_json(credential.to_string().as_bytes());
        daemon.remember(&credential);
        credential
    });
    let mut live = [&acme, &beta, &gamma].map(|one| Client::logged_in(daemon, one));
    let mut plain = dashboard.plain();
    let mut person = plain_headers(&dashboard);
    person.push("Remote-User: ann".to_owned());
    person.push("Remote-Groups: acme,beta,planned".to_owned());

    let mut ask = |request: &str| plain.send(request, &person, &[]);
    let names = ["acme", "beta", "gamma", "default", "planned"];
    for (path, list, field) in [
        ("organizations", "items", "/slug"),
        ("tokens", "items", "/scope"),
        ("sessions", "items", "/organization"),
        ("audit", "items", "/organization"),
    ] {
        let page = ask(&format!("GET /api/v1/{path}")).expect(200);
        let page: Value = serde_json::from_str(&page.body).expect("JSON");
        let items = page[list].as_array().expect("a list").iter();
        let shown: BTreeSet<_> = items
            .map(|item| item.pointer(field).expect(field).as_str().expect(field))
            .filter_map(|text| names.into_iter().find(|name| text.contains(name)))
            .collect();
        assert_eq!(Vec::from_iter(shown), ["acme", "beta"], "{path}: {page}");
    }
    // Page by page it is the same list, newest first.
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let page = ask(&format!("GET /api/v1/audit?limit=1{next}")).expect(200);
        let page: Value = serde_json::from_str(&page.body).expect("JSON");
        let items = page["items"].as_array().expect("a list").iter();
        seen.extend(items.map(|item| item["seq"].as_i64().expect("a number")));
        match page["next"].as_str() {
            Some(after) => next = format!("&after={after}"),
            None => break,
        }
    }
    let of_both = "SELECT count(*) FROM audit_log WHERE organization IN ('acme', 'beta')";
    assert_eq!(dashboard.number(of_both), i64::try_from(seen.len()).ok());
    assert!(seen.is_sorted_by(|one, next| one > next), "{seen:?}");

    for path in ["/organizations", "/tokens", "/sessions", "/audit", "/"] {
        let body = ask(&format!("GET {path}")).expect(200).body;
        for slug in ["acme", "beta"] {
            assert!(body.contains(slug), "{path} without {slug}: {body}");
        }
        assert!(!body.contains("gamma"), "{path}: {body}");
    }
    let overview = ask("GET /").expect(200).body;
    assert!(overview.contains("id=\"sessions-now\" href=\"/sessions\">2</a>"));

    for (credential, found) in [(&acme, 200), (&beta, 200), (&gamma, 404)] {
        let name = &credential.username;
        ask(&format!("GET /api/v1/credentials/{name}")).expect(found);
        ask(&format!(
            "GET /api/v1/explain?from=192.0.2.1&username={name}"
        ))
        .expect(found);
    }
    // To look at one organization gives no right to change it.
    for (credential, ended) in [(&gamma, 404), (&beta, 404), (&acme, 200)] {
        let sessions = format!("/api/v1/sessions?credential={}", credential.username);
        ask(&format!("DELETE {sessions}")).expect(ended);
    }
    live[0].reply().expect("421 4.7.0");
    for client in &mut live[1..] {
        client.expect("NOOP", "250");
    }
    let token = |name: &str| {
        let id = "SELECT id FROM admin_tokens WHERE name = ?1";
        let id = dashboard.store().query_row(id, [name], |row| row.get(0));
        id.expect("a token")
    };
    for (name, revoked) in [("gamma", 404), ("beta", 404), ("acme", 200)] {
        let id: String = token(name);
        ask(&format!("POST /api/v1/tokens/{id}/revoke")).expect(revoked);
    }
    let session = "SELECT count(*) FROM admin_tokens WHERE revoked_at IS NOT NULL";
    assert_eq!(dashboard.number(session), Some(1));
}

#[test]
fn a_persons_name_is_the_same_however_its_letters_are_composed() {
    let dashboard = Dashboard::start_with(|config| {
        config
            .raw("admin", "trusted_proxies", "[\"127.0.0.1\"]".to_owned())
            .text("admin.proxy_auth", "user_header", "Remote-User")
            .text("admin.proxy_auth", "groups_header", "Remote-Groups")
            .text("admin.proxy_auth.users", "\"ren\u{e9}\"", "instance:admin")
            .text(
                "admin.proxy_auth.groups",
                "\"e\u{301}quipe\"",
                "instance:read",
            )
    });
    let mut plain = dashboard.plain();
    for (user, groups) in [
        ("ren\u{e9}", ""),
        ("rene\u{301}", ""),
        ("zoe", "\u{e9}quipe"),
        ("zoe", "e\u{301}quipe"),
    ] {
        let mut headers = plain_headers(&dashboard);
        headers.push(format!("Remote-User: {user}"));
        headers.push(format!("Remote-Groups: {groups}"));
        plain.send("GET /api/v1/status", &headers, &[]).expect(200);
    }
    let mut headers = plain_headers(&dashboard);
    headers.push("Remote-User: rene\u{301}".to_owned());
    let page = plain.send("GET /organizations/default", &headers, &[]);
    let csrf = page.expect(200).hidden("/organizations/default/rename");
    let fields = [("csrf", csrf[0].1.as_str()), ("name", "Mine")];
    let rename = "POST /organizations/default/rename";
    plain.send(rename, &headers, &fields).location();
    assert_eq!(newest(&dashboard).0, "ren\u{e9}");
}

fn plain_headers(dashboard: &Dashboard) -> Vec<String> {
    dashboard.plain().usual_headers()
}

#[test]
fn a_person_from_elsewhere_or_twice_is_refused() {
    let elsewhere = with_persons("127.9.9.9");
    let trusted = with_persons("127.0.0.1");
    for (dashboard, lines) in [
        (&elsewhere, "Remote-User: alice\r\nRemote-Groups: admins"),
        (&elsewhere, "Remote-Groups: admins"),
        (&elsewhere, "remote-user:"),
        (
            &trusted,
            "Remote-User: alice\r\nRemote-User: mallory\r\nRemote-Groups: admins",
        ),
        (
            &trusted,
            "Remote-User: alice\r\nRemote-Groups: admins\r\nRemote-Groups: x",
        ),
        (
            &trusted,
            "Remote-User: mallory, alice\r\nRemote-Groups: admins",
        ),
    ] {
        let mut headers = plain_headers(dashboard);
        headers.push(lines.to_owned());
        for path in ["/", "/sign-in", "/api/v1/status"] {
            let page = dashboard
                .plain()
                .send(&format!("GET {path}"), &headers, &[]);
            assert_eq!(page.status, 403, "{path} with {lines}: {}", page.body);
        }
    }
    elsewhere
        .daemon
        .wait_for_log(&["remote-user", "admin.trusted_proxies"]);
    // Without proxy_auth it is a header like any other.
    let plain = Dashboard::start();
    let mut headers = plain_headers(&plain);
    headers.push("Remote-User: alice".to_owned());
    assert!(
        plain
            .plain()
            .send("GET /", &headers, &[])
            .location()
            .starts_with("/sign-in")
    );
}

/// The status of an answer over a unix socket.
fn over(socket: &std::path::Path, lines: &[&str]) -> u16 {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connect");
    let head = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let request = format!(
        "{head}{}\r\n",
        lines
            .iter()
            .map(|line| format!("{line}\r\n"))
            .collect::<String>()
    );
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer[9..12].parse().expect("a status")
}

#[test]
fn the_proxys_socket_gives_no_rights_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, proxy) = (
        folder.path().join("own.sock"),
        folder.path().join("proxy.sock"),
    );
    let dashboard = Dashboard::start_with(|config| {
        config
            .text("admin", "socket", own.to_str().unwrap())
            .text("admin", "proxy_socket", proxy.to_str().unwrap())
            .text("admin.proxy_auth", "user_header", "Remote-User")
            .text("admin.proxy_auth.users", "alice", "instance:read")
    });
    let token = format!("Authorization: Bearer {}", dashboard.token);
    let client = "X-Forwarded-For: 192.0.2.1";
    assert_eq!(over(&own, &[]), 200);
    assert_eq!(over(&own, &["Remote-User: alice"]), 403);
    assert_eq!(over(&own, &[client]), 200);
    dashboard.daemon.wait_for_log(&["before admin.socket"]);
    for unknown in [
        &[][..],
        &[client],
        &["Remote-User: mallory"],
        &["Remote-User:"],
    ] {
        assert!([401, 403].contains(&over(&proxy, unknown)), "{unknown:?}");
    }
    // Without a client's address all are one client.
    let wrong = "Authorization: Bearer gp_wrong";
    let answers: Vec<_> = (0..12).map(|_| over(&proxy, &[wrong])).collect();
    assert_eq!(answers, [[401; 10].as_slice(), &[429; 2]].concat());
    let refused = ["token refused", "address=a unix socket", "malformed"];
    dashboard.daemon.wait_for_log(&refused);
    eventually("a line for each that is not limited", || {
        let lines = dashboard.daemon.log().matches("token refused").count();
        (lines == 10).then_some(())
    });
    assert_eq!(over(&proxy, &[wrong, client]), 401, "this client is known");
    assert_eq!(over(&proxy, &[&token]), 200);
    assert_eq!(over(&proxy, &["Remote-User: alice", client]), 200);
    assert_eq!(
        over(&proxy, &["Remote-User: alice", "Authorization: Basic YTpi"]),
        200
    );
}
