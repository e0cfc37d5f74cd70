//! Other MTAs than Postfix behind Gatepost, each by a way it has to learn whose session it gets.

use tempfile::TempDir;

use super::{arrived, assert_behind_headers};
use crate::postfix::hard_message;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::peers::Peer;
use crate::support::site::{Config, Credential};
use crate::support::upstream::Upstream;

#[test]
fn opensmtpd_is_told_the_client_by_a_proxy_header() {
    let next = Upstream::start();
    let opensmtpd = Peer::opensmtpd(next.address);
    let config = Config::for_upstream(opensmtpd.address).text("upstream", "identity", "proxy");
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    let mut friend = Client::logged_in_from(Peer::FRIEND, &gatepost, &credential);
    let message = hard_message("by-opensmtpd");
    friend.send_message(&message).expect("250 2.0.0");
    friend.expect("QUIT", "221");
    let body = arrived(&next, "by-opensmtpd");
    assert_behind_headers(&body, &message);
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains(&format!("[{}]", Peer::FRIEND)), "{text}");
    // Only that address may send there, so the header is what it goes by.
    let mut stranger = Client::logged_in_from("127.0.0.8", &gatepost, &credential);
    stranger.expect("MAIL FROM:<sender@example.test>", "250");
    stranger.expect("RCPT TO:<box@example.test>", "550");
}

#[test]
fn exim_is_logged_in_at_with_an_account_of_our_own() {
    let next = Upstream::start();
    let exim = Peer::exim(next.address);
    let directory = TempDir::new().expect("tempdir");
    let file = directory.path().join("password");
    let [username, password] = Peer::ACCOUNT;
    std::fs::write(&file, password).expect("write the password");
    let config = Config::for_upstream(exim.address)
        .text("upstream", "identity", "login")
        .text("upstream", "username", username)
        .text("upstream", "password_file", file.to_str().unwrap());
    let gatepost = Gatepost::start(config);
    gatepost.remember(&Credential {
        username: username.to_owned(),
        password: password.to_owned(),
    });
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    let message = hard_message("by-exim");
    client.send_message(&message).expect("250");
    client.expect("QUIT", "221");
    assert_behind_headers(&arrived(&next, "by-exim"), &message);
    // Without that account Exim takes nothing.
    let mut past = Client::dial(exim.address).expect("connect");
    past.reply().expect("220");
    past.expect("EHLO client.example", "250");
    past.expect("MAIL FROM:<sender@example.test>", "250");
    past.expect("RCPT TO:<box@example.test>", "550");
}
