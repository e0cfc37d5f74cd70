//! Configurations and stores that are wrong: what is said, and how it exits.

use std::process::Output;

use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Site};
use crate::support::upstream::Upstream;

fn site() -> Site {
    Site::new(Config::for_upstream("127.0.0.1:1"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Appends `text` to the configuration; `serve` must exit 78 and say where, and each of `parts`.
#[track_caller]
fn assert_refused_at_last_line(text: &str, parts: &[&str]) {
    let site = site();
    let config = format!(
        "{}\n{text}",
        std::fs::read_to_string(site.config()).unwrap()
    );
    std::fs::write(site.config(), &config).expect("write the configuration");
    let output = site.run(&["serve"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{text:?}: {said}");
    let place = format!("config.toml:{}", config.lines().count());
    for part in parts.iter().chain([&place.as_str()]) {
        assert!(said.contains(part), "{text:?}: no {part:?} in\n{said}");
    }
}

#[test]
fn an_unknown_key_is_refused_where_it_stands() {
    assert_refused_at_last_line("[limits]\nconections = 5\n", &["conections"]);
    assert_refused_at_last_line("[upstraem]\n", &["upstraem"]);
}

#[test]
fn a_bad_value_is_refused_where_it_stands() {
    assert_refused_at_last_line("[limits]\nconnections = \"many\"\n", &["connections"]);
    assert_refused_at_last_line("[timeouts]\nidle = \"soon\"\n", &["idle"]);
    assert_refused_at_last_line("[relay]\nbare_newline = \"maybe\"\n", &["bare_newline"]);
    assert_refused_at_last_line("[metrics]\nlisten = \"nowhere\"\n", &["listen"]);
}

#[test]
fn broken_toml_is_refused_where_it_breaks() {
    assert_refused_at_last_line("[relay\n", &[]);
}

#[test]
fn an_absent_configuration_is_named() {
    let site = site();
    std::fs::remove_file(site.config()).expect("remove the configuration");
    let output = site.run(&["serve"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("config.toml"), "{output:?}");
}

#[test]
fn an_absent_certificate_is_named() {
    let site = site();
    std::fs::remove_file(site.path("certificate.pem")).expect("remove the certificate");
    let output = site.run(&["serve"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("certificate.pem"), "{output:?}");
}

#[test]
fn a_bad_value_in_the_environment_names_the_variable() {
    let site = site();
    let mut command = site.command(&["serve"]);
    let output = command
        .env("GATEPOST_LIMITS__CONNECTIONS", "many")
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("GATEPOST_LIMITS__CONNECTIONS"), "{said}");
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let site = site();
    let _taken = std::net::TcpListener::bind(site.submission).expect("bind");
    let output = site.run(&["serve"]);
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(
        stderr(&output).contains(&site.submission.to_string()),
        "{output:?}"
    );
}

#[test]
fn a_store_that_is_no_database_is_named_and_left_alone() {
    let site = site();
    let text = "This is not a database, it is a diary. ".repeat(100);
    std::fs::write(site.store(), &text).expect("write");
    for arguments in [&["serve"][..], &["credential", "list"]] {
        let output = site.run(arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains("gatepost.db"), "{output:?}");
    }
    assert_eq!(std::fs::read_to_string(site.store()).unwrap(), text);
}

#[test]
fn a_store_of_a_newer_gatepost_is_named_and_left_alone() {
    let site = site();
    let credential = site.create();
    let connection = rusqlite::Connection::open(site.store()).expect("open the store");
    connection
        .pragma_update(None, "user_version", 9_999)
        .expect("claim a newer schema");
    drop(connection);
    for arguments in [
        &["serve"][..],
        &["credential", "show", &credential.username],
    ] {
        let output = site.run(arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {output:?}");
        let said = stderr(&output);
        assert!(
            said.contains("gatepost.db") && said.contains("9999"),
            "{said}"
        );
    }
}

#[test]
fn a_directory_in_place_of_the_store_is_a_configuration_error() {
    let site = site();
    // A directory in its place: refuses root too, which a mode would not.
    std::fs::create_dir(site.store()).expect("create a directory");
    for arguments in [&["serve"][..], &["credential", "create"]] {
        let output = site.run(arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains("gatepost.db"), "{output:?}");
    }
}

#[test]
fn garbage_from_clients_harms_nobody() {
    use crate::support::client::Client;
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let credential = gatepost.create();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..100 {
        let mut client = match round % 2 {
            0 => Client::dial(gatepost.submission).expect("connect"),
            _ => Client::dial(gatepost.submissions).expect("connect"),
        };
        let bytes = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()[0]
        });
        // The daemon may well have hung up on it.
        let _ = client.try_write(&bytes.take(512).collect::<Vec<_>>());
    }
    Client::logged_in(&gatepost, &credential).expect("QUIT", "221");
}
