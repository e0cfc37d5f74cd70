//! The configuration as its users meet it: a file, variables, and what is said about mistakes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::{fs, iter};

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Error, Figment};
use tempfile::TempDir;
use toml_edit::DocumentMut;

use super::*;

const EXAMPLE: &str = include_str!("../../config.toml.example");

/// The example without what has a default; tests put their lines before, inside or after it.
const REQUIRED: &str = r#"
[[listener]]
kind = "submission"
address = "0.0.0.0:587"
[[listener]]
kind = "submissions"
address = "0.0.0.0:465"
[tls]
certificate = "/etc/gatepost/fullchain.pem"
key = "/etc/gatepost/privkey.pem"
[upstream]
address = "127.0.0.1:10025"
"#;

/// Reads `text` from a file; errors name it as `config.toml`, without its folder.
fn load(text: impl AsRef<[u8]>, variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let result = environment(variables)
        .and_then(|environment| Config::from_layers(&path, environment))
        .map_err(|error| error.to_string());
    result.map_err(|error| error.replace(&format!("{}/", folder.path().display()), ""))
}

fn environment(variables: &[(&str, &str)]) -> Result<Environment, ConfigError> {
    Environment::from_variables(
        variables
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    )
}

fn load_with(variable: &str, value: &str) -> Result<Config, String> {
    load(REQUIRED, &[(variable, value)])
}

#[test]
fn the_example_shows_the_defaults() {
    assert_eq!(load(EXAMPLE, &[]).unwrap(), load(REQUIRED, &[]).unwrap());
}

#[test]
fn the_example_holds_every_key_and_loads_with_all_of_them() {
    let text = uncomment(EXAMPLE);
    // Keys for what is not on by default would be refused for having no effect.
    let everything_on = text
        .replace("identity = \"xclient\"", "identity = \"login\"")
        .replace("\ntls = \"none\"", "\ntls = \"starttls\"");
    load(&everything_on, &[]).unwrap();
    let document: DocumentMut = text.parse().unwrap();
    for key in known_keys(&[]) {
        let item = document
            .get(key)
            .unwrap_or_else(|| panic!("{key} is not in the example"));
        let table = match item.as_array_of_tables() {
            Some(tables) => tables.get(0),
            None => item.as_table(),
        };
        for inner in known_keys(&[key]) {
            let shown = table.is_some_and(|table| table.contains_key(inner));
            assert!(shown, "{key}.{inner} is not in the example");
        }
    }
}

/// The example's settings stand directly behind a `#`, its prose behind `# `.
fn uncomment(example: &str) -> String {
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(setting).collect()
}

/// The keys of the section at `path`, as serde lists them when it meets one it does not know; none
/// for a plain value.
fn known_keys(path: &[&str]) -> &'static [&'static str] {
    let unknown = Value::from(Dict::from([("?".to_owned(), Value::from(1))]));
    let nested = path.iter().rev().fold(unknown, |inner, key| {
        let inner = if *key == "listener" {
            Value::from(vec![inner])
        } else {
            inner
        };
        Value::from(Dict::from([((*key).to_owned(), inner)]))
    });
    let figment = Figment::from(Serialized::defaults(nested));
    match figment
        .extract::<Config>()
        .map_err(|Error { kind, .. }| kind)
    {
        Err(Kind::UnknownField(_, keys)) => keys,
        _ => &[],
    }
}

#[test]
fn a_mistake_in_the_file_is_told_with_line_key_cause_and_remedy() {
    let cases: &[(&str, &str)] = &[
        ("x = 'a", "config.toml:1: not TOML: invalid literal string"),
        (
            "hostname = 'a'\nhostname = 'b'",
            "config.toml:2: not TOML: duplicate key `hostname` in document root",
        ),
        (
            "drain_timeout = 30",
            r#"config.toml:1: drain_timeout: found 30, but a duration such as "30s", "5m" or "500ms" is needed"#,
        ),
        (
            "\n\nhostname = 'my_host'",
            r#"config.toml:3: hostname: "my_host" is not a host name; use letters, digits, hyphens and dots, as in "mail.example.org", or an address literal, as "[192.0.2.1]""#,
        ),
        (
            "hostname = 1",
            r#"config.toml:1: hostname: found 1, but a host name such as "mail.example.org" is needed"#,
        ),
        (
            "auth = []",
            "config.toml:1: auth: found a list, but a section, in single brackets and with keys of its own, is needed",
        ),
        (
            "log = 'info'",
            r#"config.toml:1: log: found "info", but a section, in single brackets and with keys of its own, is needed"#,
        ),
        (
            "[[metrics]]\nlisten = '127.0.0.1:9587'",
            "config.toml:1: metrics: found a list, but a section, in single brackets and with keys of its own, is needed",
        ),
        (
            "[auht]",
            "config.toml:1: auht: unknown key; did you mean \"auth\"? known keys here: hostname, drain_timeout, listener, tls, upstream, store, auth, last_used, relay, limits, guard, credential_limits, organization_limits, timeouts, dovecot_auth, admin, metrics, log",
        ),
        (
            "[auth]\nquality = 3",
            "config.toml:2: auth.quality: unknown key; known keys here: memory_kib, iterations, lanes, workers, queue, cache_entries, username_case, refusal_delay",
        ),
        (
            "[auth]\niterations = 0",
            "config.toml:2: auth.iterations: 0 is out of range; use 1 to 64",
        ),
        (
            "[auth]\nlanes = -1",
            "config.toml:2: auth.lanes: -1 is out of range; use 1 to 16",
        ),
        (
            "[auth]\nworkers = 257",
            "config.toml:2: auth.workers: 257 is out of range; use 0 to 256",
        ),
        (
            "[auth]\nqueue = 1.5",
            "config.toml:2: auth.queue: found 1.5, but a whole number from 1 to 100000 is needed",
        ),
        (
            "[auth]\nlanes = 2\nmemory_kib = 15",
            "config.toml:3: auth.memory_kib: 15 is too little for 2 lanes; use 16 or more, or fewer lanes",
        ),
        (
            "[auth]\nrefusal_delay = '2m'",
            "config.toml:2: auth.refusal_delay: 120s is not shorter than timeouts.login (60s); use less",
        ),
        (
            "[timeouts]\nlogin = '1s'",
            "config.toml:2: timeouts.login: 1s is not longer than auth.refusal_delay (1s); use more",
        ),
        (
            "[last_used]\nflush_interval = '0s'",
            r#"config.toml:2: last_used.flush_interval: "0s" is no time at all; use a duration such as "30s", "5m" or "500ms""#,
        ),
        (
            "[timeouts]\nidle = '48h'",
            r#"config.toml:2: timeouts.idle: "48h" is longer than a day; use "24h" or less"#,
        ),
        (
            "[limits]\nauth_failures = 2",
            "config.toml:2: limits.auth_failures: 2 is too few; use 3 or more, since RFC 4954 section 9 lets a client fail so often",
        ),
        (
            "[relay]\nbare_newline = 'allow'",
            r#"config.toml:2: relay.bare_newline: unknown value "allow"; use "reject" or "normalize""#,
        ),
        (
            "[relay]\nmessage_size = '50 megs'",
            r#"config.toml:2: relay.message_size: "50 megs" is not a size; use a whole number with B, KiB, MiB, GiB, KB, MB or GB, such as "50MiB""#,
        ),
        (
            "[relay]\nmessage_size = 0",
            r#"config.toml:2: relay.message_size: 0 bytes would refuse every message; use a size such as "50MiB""#,
        ),
        (
            "[log]\nformat = 0",
            r#"config.toml:2: log.format: found 0, but "text", "json" or "journald" is needed"#,
        ),
        (
            "[log]\nlevel = 'inof'",
            r#"config.toml:2: log.level: "inof" is not a level; use "error", "warn", "info", "debug", "trace" or "off", or target=level, with commas between"#,
        ),
        (
            "[store]\npath = ''",
            "config.toml:2: store.path: the path is empty; name a file",
        ),
        (
            "[admin]\nsocket = 'admin.sock'",
            r#"config.toml:2: admin.socket: "admin.sock" is not an absolute path; begin it with "/""#,
        ),
        (
            "[admin]\nlisten = '0.0.0.0:8587'",
            r#"config.toml:2: admin.listen: 0.0.0.0:8587 would carry tokens and new passwords over the network in clear text; use a loopback address, such as "127.0.0.1:8587", or set admin.tls = true"#,
        ),
        (
            "[admin]\ntls = true",
            "config.toml:2: admin.tls: there is no admin.listen that could speak TLS; name a TCP address, or leave this out",
        ),
        (
            "[admin]\nhosts = 'a_b'",
            r#"config.toml:2: admin.hosts: "a_b" is not a host name; use letters, digits, hyphens and dots, as in "mail.example.org", or an address literal, as "[192.0.2.1]""#,
        ),
        (
            "[admin]\nhosts = ['admin.example.org:8443']",
            r#"config.toml:2: admin.hosts[0]: "admin.example.org:8443" has a port; write "admin.example.org", which holds for every port"#,
        ),
        (
            "[admin]\nhosts = ['[2001:db8::1]:8443']",
            r#"config.toml:2: admin.hosts[0]: "[2001:db8::1]:8443" has a port; write "[2001:db8::1]", which holds for every port"#,
        ),
        (
            "[admin]\nbase_path = 'gatepost/'",
            r#"config.toml:2: admin.base_path: "gatepost/" is not a base path; begin it with "/", end it without one, and use letters, digits, "-", ".", "_" and "~" between slashes, as in "/gatepost""#,
        ),
        (
            "[admin]\nbase_path = '/api'",
            r#"config.toml:2: admin.base_path: "/api" begins as a path of the administration itself; use another, as "/gatepost""#,
        ),
        (
            "[admin]\nlisten = '127.0.0.1:8587'\ntrusted_proxies = ['unix']",
            "config.toml:3: admin.trusted_proxies[0]: every request over admin.socket may do everything; for a reverse proxy set admin.proxy_socket",
        ),
        (
            "[admin.proxy_auth]\nuser_header = 'Remote-User'",
            "config.toml:1: admin.proxy_auth: no proxy may set these headers; set admin.proxy_socket or admin.trusted_proxies",
        ),
        (
            "[admin.proxy_auth]\nuser_header = 'Cookie'",
            r#"config.toml:2: admin.proxy_auth.user_header: "Cookie" does not name a person; use the header that the reverse proxy sets, as "Remote-User""#,
        ),
        (
            "[admin.proxy_auth]\nuser_header = 'Remote-User'\n[admin.proxy_auth.users]\nann = 'admin'",
            r#"config.toml:4: admin.proxy_auth.users.ann: "admin" is not a scope; write "instance:admin", "instance:read", "org:SLUG:admin" or "org:SLUG:read""#,
        ),
        (
            "[metrics]\nlisten = '0.0.0.0:465'",
            "config.toml:2: metrics.listen: 0.0.0.0:465 is taken by listener[1].address; choose another address",
        ),
        (
            "[metrics]\nlisten = '127.0.0.1:9587'\nper_credential = 'yes'",
            r#"config.toml:3: metrics.per_credential: found "yes", but true or false is needed"#,
        ),
        (
            "[metrics]\nlisten = '127.0.0.1:9587'\nseries = 0",
            "config.toml:3: metrics.series: 0 is out of range; use 1 to 100000",
        ),
        (
            "[dovecot_auth]\nlisten = '127.0.0.1:10026'\ngroup = 'postfix'",
            "config.toml:3: dovecot_auth.group: 127.0.0.1:10026 has no group; use a unix socket, or leave this out",
        ),
        (
            "[dovecot_auth]\nlisten = '0.0.0.0:10026'",
            r#"config.toml:2: dovecot_auth.listen: 0.0.0.0:10026 would hand verdicts to the network; use a loopback address, such as "127.0.0.1:10026", or "unix:/path""#,
        ),
    ];
    for (mistake, error) in cases {
        let text = format!("{mistake}\n{REQUIRED}");
        assert_eq!(load(&text, &[]).unwrap_err(), *error, "{mistake}");
    }
}

#[test]
fn a_mistake_in_what_is_required_is_told_as_well() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "submissions\"",
            "smtps\"",
            r#"config.toml:6: listener[1].kind: unknown value "smtps"; use "submission" (STARTTLS) or "submissions" (implicit TLS)"#,
        ),
        (
            "kind = \"submissions\"\n",
            "",
            "config.toml:5: listener[1].kind: missing; write kind = ... here, as config.toml.example shows",
        ),
        (
            "0.0.0.0:465",
            "0.0.0.0:587",
            "config.toml:7: listener[1].address: 0.0.0.0:587 is taken by listener[0].address; choose another address",
        ),
        (
            "0.0.0.0:465",
            "0.0.0.0",
            r#"config.toml:7: listener[1].address: "0.0.0.0" has no port; write "0.0.0.0:PORT""#,
        ),
        (
            "\"0.0.0.0:465\"",
            "\"0.0.0.0:465\"\nproxy_from = ['10.0.0.1/8']",
            r#"config.toml:8: listener[1].proxy_from[0]: "10.0.0.1/8" has bits behind its prefix; write "10.0.0.0/8""#,
        ),
        (
            "\"0.0.0.0:465\"",
            "\"0.0.0.0:465\"\nproxy_from = '10.0.0.0/8'",
            r#"config.toml:8: listener[1].proxy_from: found "10.0.0.0/8", but a list of networks such as ["10.0.0.0/8"] is needed"#,
        ),
        (
            "[tls]",
            "[tsl]",
            "config.toml:8: tsl: unknown key; did you mean \"tls\"? known keys here: hostname, drain_timeout, listener, tls, upstream, store, auth, last_used, relay, limits, guard, credential_limits, organization_limits, timeouts, dovecot_auth, admin, metrics, log",
        ),
        (
            "key = \"/etc/gatepost/privkey.pem\"\n",
            "",
            "config.toml:8: tls.key: missing; write key = ... here, as config.toml.example shows",
        ),
        (
            "address = \"127",
            "adress = \"127",
            "config.toml:12: upstream.adress: unknown key; did you mean \"address\"? known keys here: address, order, identity, trusted, proxy_version, username, password_file, tls, tls_name, tls_ca, tls_certificate, tls_key, connect_timeout, handoff_timeout, command_timeout, end_of_data_timeout, idle_release, organizations",
        ),
        (
            "127.0.0.1:10025",
            "mail.example.org",
            r#"config.toml:12: upstream.address: "mail.example.org" has no port; write "mail.example.org:PORT""#,
        ),
        (
            "127.0.0.1:10025",
            "localhost:465",
            "config.toml:12: upstream.address: localhost:465 is gatepost's own listener[1]; use the address of the MTA",
        ),
        (
            "127.0.0.1:10025",
            "127.0.0.1:0",
            "config.toml:12: upstream.address: 127.0.0.1:0 has port 0; use the port on which the MTA listens",
        ),
        (
            "127.0.0.1:10025",
            "127.0.0.1:465",
            "config.toml:12: upstream.address: 127.0.0.1:465 is gatepost's own listener[1]; use the address of the MTA",
        ),
        (
            "[upstream]\naddress = \"127.0.0.1:10025\"",
            "",
            "config.toml: upstream: missing; write [upstream] with the address of the MTA",
        ),
    ];
    for (right, wrong, error) in cases {
        let text = REQUIRED.replace(right, wrong);
        assert_eq!(load(&text, &[]).unwrap_err(), *error, "{right} -> {wrong}");
    }
}

#[test]
fn the_way_to_the_upstream_is_refused_where_it_would_not_fail_closed() {
    let cases: &[(&str, &str)] = &[
        (
            "identity = 'ident'",
            "identity: unknown value \"ident\"; use \"xclient\", \"proxy\", \"login\" or \"none\"",
        ),
        (
            "identity = 'none'",
            "identity: \"none\" tells the MTA nothing, so it has to take mail from whoever reaches it; \
             if only gatepost does, write trusted = true here, else use \"xclient\", \"proxy\" or \
             \"login\"",
        ),
        (
            "order = 'random'",
            "order: unknown value \"random\"; use \"failover\" or \"round-robin\"",
        ),
        (
            "address = ['127.0.0.1:1', '127.0.0.1:1']",
            "address: 127.0.0.1:1 is listed twice; once will do",
        ),
        (
            "address = []",
            "address: the list is empty; write the address of the MTA",
        ),
        (
            "address = ['127.0.0.1:1', '0.0.0.0:0']",
            "address[1]: 0.0.0.0:0 has port 0; use the port on which the MTA listens",
        ),
        (
            "address = 25",
            "address: found 25, but an address such as \"127.0.0.1:10025\", \"mail.example.org:25\" or \
             \"unix:/path\", or a list of them, is needed",
        ),
        (
            "proxy_version = 3",
            "proxy_version: 3 is out of range; use 1 to 2",
        ),
        (
            "identity = 'login'",
            "username: missing; identity = \"login\" needs username and password_file, or \
             [upstream.organizations.SLUG] with both",
        ),
        (
            "identity = 'login'\nusername = 'x'",
            "password_file: missing; name the file with the password of the username here",
        ),
        (
            "identity = 'login'\npassword_file = 'x'",
            "username: missing; name the account that password_file has the password of",
        ),
        (
            "username = 'x'",
            "username: has no effect with this identity; use identity = \"login\", or leave it out",
        ),
        (
            "identity = 'login'\nusername = ''",
            "username: the username is empty; name the account, or leave this out",
        ),
        (
            "identity = 'login'\nusername = 'x'\npassword_file = 'y'\naddress = '192.0.2.1:25'",
            "tls: the password of username would cross the network to 192.0.2.1:25 in clear text; \
             use \"starttls\" or \"implicit\", or write trusted = true here if nobody can listen",
        ),
        (
            "tls = 'may'",
            "tls: unknown value \"may\"; use \"none\", \"starttls\" or \"implicit\"",
        ),
        (
            "tls_ca = 'x'",
            "tls_ca: has no effect without TLS; write tls = \"starttls\" or \"implicit\" here, or leave \
             it out",
        ),
        (
            "tls = 'starttls'\ntls_certificate = 'x'",
            "tls_key: missing; name the private key of tls_certificate",
        ),
        (
            "tls = 'starttls'\ntls_key = 'x'",
            "tls_certificate: missing; name the certificate that tls_key belongs to",
        ),
        (
            "tls = 'implicit'\naddress = 'unix:/run/mta'",
            "tls_name: missing; a unix socket has no name of its own, so write the one in the MTA's \
             certificate",
        ),
        (
            "tls = 'implicit'\ntls_name = 'a_b'",
            "tls_name: \"a_b\" is neither a host name nor an IP address; use the name in the \
             certificate, such as \"smtp.example.org\"",
        ),
        (
            "organizations.acme = { username = 'x', password_file = 'y' }",
            "organizations.acme.username: has no effect with this upstream.identity; use \"login\" \
             there, or write an address here for an upstream of its own",
        ),
        (
            "identity = 'login'\norganizations.acme = { username = 'x' }",
            "organizations.acme.password_file: missing; name the file with the password of the username here",
        ),
        (
            "organizations.acme = {}\nidentity = 'login'",
            "organizations.acme.username: missing; write username and password_file, or leave the \
             section out",
        ),
        (
            "organizations.acme = { identity = 'proxy' }",
            "organizations.acme.address: missing; an upstream of its own needs one. Without it, only \
             username and password_file belong here, an account at the upstream of all",
        ),
        (
            "organizations.acme = { address = '127.0.0.1:1', identity = 'none' }",
            "organizations.acme.identity: \"none\" tells the MTA nothing, so it has to take mail from \
             whoever reaches it; if only gatepost does, write trusted = true here, else use \
             \"xclient\", \"proxy\" or \"login\"",
        ),
        (
            "organizations.Acme = { address = '127.0.0.1:1' }",
            "organizations.Acme: no organization can be called that; use its slug: small letters, \
             digits and hyphens",
        ),
        (
            "organizations.acme = ['127.0.0.1:1']",
            "organizations.acme: found a list, but a section, in single brackets and with keys of its \
             own, is needed",
        ),
        (
            "address = ['127.0.0.1:1', 'mx.test:25']",
            "tls: without TLS, whoever answers for mx.test:25 gets the mail; use \"starttls\" or \
             \"implicit\", or write trusted = true here if nobody else can",
        ),
        (
            "organizations.acme = { address = '127.0.0.1:1', organizations.b = { username = 'x' } }",
            "organizations.acme.organizations: an organization has none; leave it out",
        ),
    ];
    let (before, _) = REQUIRED
        .split_once("address = \"127.0.0.1:10025\"")
        .unwrap();
    for (keys, error) in cases {
        let address = match keys.lines().any(|line| line.starts_with("address")) {
            true => "",
            false => "address = '127.0.0.1:10025'\n",
        };
        let text = format!("{before}{address}{keys}\n");
        let told = load(&text, &[]).unwrap_err();
        let (_, told) = told.split_once(": upstream.").unwrap();
        assert_eq!(told, *error, "{keys}");
    }
    for keys in [
        "identity = 'none'\ntrusted = true",
        "identity = 'proxy'\nproxy_version = 1",
        "identity = 'login'\nusername = 'x'\npassword_file = 'y'",
        "identity = 'login'\norganizations.acme = { username = 'x', password_file = 'y' }",
        "tls = 'implicit'\ntls_name = '192.0.2.1'",
        "organizations.acme = { address = 'mx.test:25', identity = 'login', username = 'x', password_file = 'y', tls = 'starttls' }",
    ] {
        load(format!("{REQUIRED}{keys}\n"), &[]).unwrap();
    }
}

#[test]
fn listeners_have_double_brackets() {
    let (_, rest) = REQUIRED.split_once("[tls]").unwrap();
    let rest = format!("[tls]{rest}");
    let single = format!("[listener]\nkind = 'submission'\n{rest}");
    assert_eq!(
        load(&single, &[]).unwrap_err(),
        "config.toml:1: listener: found a table, but [[listener]] in double brackets, once for each \
         address, is needed"
    );
    let (_, no_tls) = rest.split_once("[upstream]").unwrap();
    let no_tls =
        format!("[[listener]]\nkind = 'submission'\naddress = '[::]:587'\n[upstream]{no_tls}");
    assert_eq!(
        load(&no_tls, &[]).unwrap_err(),
        "config.toml: tls: missing; clients log in over TLS only: write [tls] with certificate and key"
    );
}

#[test]
fn a_file_that_can_not_be_read_says_why() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing.toml");
    assert_eq!(
        Config::load(&missing).unwrap_err().to_string(),
        format!(
            "{}: no such file; gatepost reads /etc/gatepost/config.toml unless --config is given; \
             copy config.toml.example there",
            missing.display()
        )
    );
    assert_eq!(
        Config::load(folder.path()).unwrap_err().to_string(),
        format!(
            "{}: is a directory; name the file in it",
            folder.path().display()
        )
    );
    assert_eq!(
        load(b"drain_timeout = '1s'\nhostname = '\xff'\n", &[]).unwrap_err(),
        "config.toml:2: not UTF-8; save the file as UTF-8"
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let text = format!("{REQUIRED}\n[auth]\nqueue = 7\nlanes = 2\n");
    let variables = [
        ("GATEPOST_AUTH__QUEUE", "200"),
        ("GATEPOST_RELAY__MESSAGE_SIZE", "1048576"),
        ("GATEPOST_METRICS__LISTEN", "127.0.0.1:9587"),
        ("GATEPOST_METRICS__PER_CREDENTIAL", "true"),
        ("GATEPOST_STORE__PATH", "[/tmp/x]"),
        ("XGATEPOST_AUTH__QUEUE", "9"),
        ("gatepost_auth__queue", "9"),
    ];
    let config = load(text, &variables).unwrap();
    assert_eq!((config.auth.queue, config.auth.lanes), (200, 2));
    assert_eq!(config.relay.message_size, 1 << 20);
    let metrics = config.metrics.unwrap();
    assert_eq!(metrics.listen, Some("127.0.0.1:9587".parse().unwrap()));
    assert_eq!((metrics.per_credential, metrics.series), (true, 1000));
    assert_eq!(config.store.path, PathBuf::from("[/tmp/x]"));
}

#[test]
fn text_from_the_environment_is_never_taken_for_another_type() {
    for name in [
        "12345",
        "0123",
        "true",
        "1e5",
        "mail.example.org",
        "[192.0.2.1]",
    ] {
        let config = load_with("GATEPOST_HOSTNAME", name).unwrap();
        assert_eq!(config.hostname.as_str(), name);
    }
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "GATEPOST_AUTH__QUEUE",
            "many",
            r#"auth.queue: found "many", but a whole number from 1 to 100000 is needed"#,
        ),
        (
            "GATEPOST_AUTH__QUEUE",
            "0",
            "auth.queue: 0 is out of range; use 1 to 100000",
        ),
        (
            "GATEPOST_AUTH__MEMORY_KIB",
            "",
            r#"auth.memory_kib: found "", but a whole number from 8 to 1048576 is needed"#,
        ),
        (
            "GATEPOST_AUTH__REFUSAL_DELAY",
            "60s",
            "auth.refusal_delay: 60s is not shorter than timeouts.login (60s); use less",
        ),
        (
            "GATEPOST_AUTH__QEUE",
            "1",
            "auth.qeue: unknown key; did you mean \"queue\"? known keys here: memory_kib, iterations, lanes, workers, queue, cache_entries, username_case, refusal_delay",
        ),
        (
            "GATEPOST_STORE__PATH__X",
            "1",
            "store.path__x: unknown key; known keys here: path",
        ),
        (
            "GATEPOST_TLS",
            "x",
            r#"tls: found "x", but a section, in single brackets and with keys of its own, is needed"#,
        ),
        (
            "GATEPOST_UPSTREAM__ADDRESS",
            "postfix",
            r#"upstream.address: "postfix" has no port; write "postfix:PORT""#,
        ),
        (
            "GATEPOST_CONFIG",
            "x",
            "unknown variable; name the file with --config",
        ),
        (
            "GATEPOST_Hostname",
            "x",
            "unknown variable; write its name in capitals",
        ),
        (
            "GATEPOST_LISTENER__0__KIND",
            "x",
            "listeners can not be set from the environment; write [[listener]] in the file",
        ),
    ];
    for (variable, value, error) in cases {
        let expected = format!("environment {variable}: {error}");
        assert_eq!(load_with(variable, value).unwrap_err(), expected);
    }
}

#[test]
fn no_variable_is_passed_over() {
    let error = load_with("GATEPOST_FOO", "1").unwrap_err();
    assert!(
        error.starts_with("environment GATEPOST_FOO: foo: unknown key; known keys"),
        "{error}"
    );
    let both = [("GATEPOST_TLS", "x"), ("GATEPOST_TLS__KEY", "/key.pem")];
    assert_eq!(
        load(REQUIRED, &both).unwrap_err(),
        "environment GATEPOST_TLS__KEY: GATEPOST_TLS is set as well; unset one of the two"
    );
    let binary = ("GATEPOST_HOSTNAME".into(), OsString::from_vec(vec![0xff]));
    assert_eq!(
        Environment::from_variables(iter::once(binary))
            .err()
            .unwrap()
            .to_string(),
        "environment GATEPOST_HOSTNAME: the value is not UTF-8; set it as plain text"
    );
}

#[test]
fn a_required_section_may_come_from_the_environment() {
    let (text, _) = REQUIRED.split_once("[upstream]").unwrap();
    let config = load(text, &[("GATEPOST_UPSTREAM__ADDRESS", "unix:/run/mta")]).unwrap();
    let upstream = config.upstream.unwrap();
    assert_eq!(upstream.address.to_string(), "unix:/run/mta");
    assert_eq!(
        load(text, &[("GATEPOST_UPSTREAM__IDENTITY", "xclient")]).unwrap_err(),
        "config.toml: upstream.address: missing; write address = ... here, as config.toml.example shows"
    );
}

#[test]
fn the_auth_socket_alone_is_a_complete_configuration() {
    let alone = "hostname = 'mail.example.org'\n[dovecot_auth]\nlisten = 'unix:/run/auth'\n";
    let config = load(alone, &[]).unwrap();
    assert!(config.listeners.is_empty() && config.tls.is_none() && config.upstream.is_none());
    load(format!("{alone}[metrics]\nlisten = '127.0.0.1:1'\n"), &[]).unwrap();
    for (more, error) in [
        (
            "[admin]\nlisten = '127.0.0.1:1'\ntls = true\n",
            "config.toml:6: admin.tls: there is no certificate to show; write [tls] with certificate and key, or leave this out",
        ),
        (
            "[[listener]]\nkind = 'submission'\naddress = '[::]:587'\n",
            "config.toml: tls: missing; clients log in over TLS only: write [tls] with certificate and key",
        ),
        (
            "[upstream]\nidentity = 'xclient'\n",
            "config.toml:4: upstream.address: missing; write address = ... here, as config.toml.example shows",
        ),
    ] {
        assert_eq!(load(format!("{alone}{more}"), &[]).unwrap_err(), error);
    }
}

#[test]
fn limits_are_numbers_or_unlimited_and_come_from_variables_too() {
    use crate::policy::{Limit, Setting};
    let text = format!(
        "{REQUIRED}[credential_limits]\nmessages_per_day = 500\nsessions = 'unlimited'\n\
         [organization_limits]\nmessages_per_month = 7\nmessage_size = '1KiB'\n"
    );
    let variables = [("GATEPOST_CREDENTIAL_LIMITS__MESSAGES_PER_HOUR", "60")];
    let config = load(&text, &variables).unwrap();
    let own = config.credential_limits.0;
    assert_eq!(own.get(Limit::MessagesPerDay), Some(Setting::Number(500)));
    assert_eq!(own.get(Limit::MessagesPerHour), Some(Setting::Number(60)));
    assert_eq!(own.get(Limit::Sessions), Some(Setting::Unlimited));
    let organization = config.organization_limits.0;
    assert_eq!(
        organization.get(Limit::MessageSize),
        Some(Setting::Number(1024))
    );
    for (wrong, why) in [
        ("[credential_limits]\nmessages_per_month = 5", "unknown key"),
        ("[credential_limits]\nsessions = 0", "0 is out of range"),
        ("[credential_limits]\nsessions = 'many'", "is no limit"),
        (
            "[organization_limits]\nsessions = true",
            "a whole number, or",
        ),
    ] {
        let error = load(format!("{REQUIRED}{wrong}"), &[]).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
