//! Last used by message: a connection that stays open for days is in use.

use serde_json::{Value, json};

use super::{DEFAULT, Served};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::upstream::Upstream;

/// A login of 40 days ago.
const OLD_LOGIN: &str = "UPDATE last_used SET at = (unixepoch() - 40 * 86400) * 1000
    WHERE credential = (SELECT key FROM credentials WHERE username = ?)";

const OLD_CREDENTIAL: &str =
    "UPDATE credentials SET created_at = (unixepoch() - 50 * 86400) * 1000 WHERE username = ?";

#[test]
fn an_accepted_message_counts_as_a_use_and_leaves_the_last_login_as_it_was() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let credential = served.daemon.create();
    let name = &credential.username;
    let shown = || {
        let get = format!("GET {DEFAULT}/{name}");
        served.admin(&get, None).expect(200).body
    };
    let unused = || {
        let month_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 30);
        let list = format!("GET {DEFAULT}?unused_since={month_ago}");
        let items = served.admin(&list, None).expect(200).body["items"].clone();
        items.as_array().unwrap().len()
    };
    let mut client = Client::logged_in(&served.daemon, &credential);
    assert_eq!(shown()["last_used"]["count"], 1);
    assert_eq!(shown()["last_message"], Value::Null);

    eventually("the login is written", || {
        let command = served.daemon.succeed(&["credential", "show", name]);
        command.contains("Logins         1").then_some(())
    });
    served.daemon.sql(OLD_LOGIN, name);
    served.daemon.sql(OLD_CREDENTIAL, name);
    let login = shown()["last_used"]["at"].clone();
    assert_eq!(unused(), 1);
    for count in 1..=3 {
        client
            .send_message(b"Subject: still here\r\n\r\n")
            .expect("250");
        let now = shown();
        assert_eq!(now["last_message"]["count"], count);
        assert_eq!(
            (&now["last_used"]["at"], &now["last_used"]["count"]),
            (&login, &1.into())
        );
        assert_eq!(unused(), 0, "also before it is written");
    }
    eventually("the messages are written", || {
        let command = served.daemon.succeed(&["credential", "show", name]);
        command.contains("Messages       3").then_some(command)
    });
    let list = served.daemon.succeed(&["credential", "list"]);
    assert!(!list.contains("40 days ago"), "{list}");
    let since = ["credential", "list", "--unused-since", "2099-01-01"];
    assert!(served.daemon.succeed(&since).contains(name));
    let month_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 30);
    let since = [
        "credential",
        "list",
        "--unused-since",
        &month_ago.to_string(),
    ];
    assert!(!served.daemon.succeed(&since).contains(name));
    assert_eq!(unused(), 0);

    // Neither a transaction without a message nor a refused message is a use.
    client.expect("MAIL FROM:<a@example.test>", "250");
    client.expect("RSET", "250");
    let reject = json!({ "rules": { "bare_newline": "reject" } });
    let patch = format!("PATCH {DEFAULT}/{name}");
    served.admin(&patch, Some(reject)).expect(200);
    client.begin_message();
    client.write(b"Subject: x\n\nhello\r\n.\r\n");
    client.reply().expect("550 5.6.0");
    client.expect("QUIT", "221");
    client.expect_close();
    assert_eq!(shown()["last_message"]["count"], 3);
}
