//! The time after a rotation in which the old password is right, too.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, DEFAULT, Served, issued};
use crate::support::eventually;
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

fn rotate(served: &Served, credential: &Credential, overlap: u64) -> Answer {
    let rotate = format!("POST {DEFAULT}/{}/rotate", credential.username);
    served.admin(&rotate, Some(json!({ "overlap": overlap })))
}

#[test]
fn the_old_password_is_right_until_it_is_said_to_be_no_more() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let old = served.daemon.create();
    let rotated = rotate(&served, &old, 3600).expect(200);
    let new = issued(&rotated);
    served.log_in(&new).expect("235");
    let get = format!("GET {DEFAULT}/{}", old.username);
    let used = || served.admin(&get, None).expect(200).body["previous_used"].clone();
    assert_eq!(used(), Value::Null);
    for _ in 0..2 {
        served.log_in(&old).expect("235");
    }
    let told = used();
    assert_eq!(
        (&told["address"], &told["count"]),
        (&json!("127.0.0.1"), &json!(2))
    );
    let edit = format!("PATCH {DEFAULT}/{}", old.username);
    let ended = served.admin(&edit, Some(json!({ "end_overlap": true })));
    assert_eq!(ended.expect(200).body["previous_until"], Value::Null);
    served.log_in(&old).expect("535 5.7.8");
    served.log_in(&new).expect("235");
    assert_eq!(used(), told, "it is kept until the next rotation");
    rotate(&served, &new, 3600).expect(200);
    assert_eq!(used(), Value::Null);
}

#[test]
fn the_old_password_is_right_for_as_long_as_was_asked() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let old = served.daemon.create();
    let zero = rotate(&served, &old, 0).problem(422, "invalid");
    assert_eq!(zero.body["errors"][0]["pointer"], "#/overlap");
    served.log_in(&old).expect("235");
    let short = rotate(&served, &old, 1).expect(200);
    assert_eq!(short.header("cache-control"), "no-store");
    assert!(short.body["previous_until"].is_string());
    eventually("the overlap is over", || {
        served.log_in(&old).starts_with("535").then_some(())
    });
    served.log_in(&issued(&short)).expect("235");
}

#[test]
fn a_span_has_its_unit_for_the_api_as_for_the_command() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let until = |answer: &Value| -> i64 {
        let until = answer["previous_until"].as_str().expect("a time");
        until.parse::<Timestamp>().expect(until).as_second()
    };
    for (overlap, seconds) in [
        (json!("7d"), 604_800),
        (json!("12h"), 43_200),
        (json!("1h 30m"), 5_400),
        (json!(604_800), 604_800),
    ] {
        let [one, other] = [(); 2].map(|()| served.daemon.create());
        let rotate = format!("POST {DEFAULT}/{}/rotate", one.username);
        let body = json!({ "overlap": overlap });
        let by_api = until(&served.admin(&rotate, Some(body)).expect(200).body);
        let expected = Timestamp::now().as_second() + seconds;
        assert!((expected - 30..=expected).contains(&by_api), "{overlap}");
        if let Some(span) = overlap.as_str() {
            let rotate = ["credential", "rotate", &other.username, "--overlap", span];
            let by_command = until(&served.daemon.json(&rotate));
            assert!((by_api..by_api + 30).contains(&by_command), "{overlap}");
        }
    }
    let one = served.daemon.create();
    let rotate = format!("POST {DEFAULT}/{}/rotate", one.username);
    for wrong in [
        json!("7"),
        json!("32d"),
        json!("0s"),
        json!("1mo"),
        json!("-1h"),
        json!(true),
    ] {
        let refused = served.admin(&rotate, Some(json!({ "overlap": wrong })));
        let refused = refused.problem(422, "invalid");
        assert!(
            refused.body.to_string().contains("d\\\""),
            "{}",
            refused.body
        );
    }
    served.log_in(&one).expect("235");
}

#[test]
fn a_rotation_in_an_overlap_replaces_the_newest_password_and_keeps_the_end_of_the_old_one() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let old = served.daemon.create();
    let shown = || {
        let get = format!("GET {DEFAULT}/{}", old.username);
        served.admin(&get, None).expect(200).body
    };
    let began = rotate(&served, &old, 3600).expect(200);
    assert_eq!(began.body["overlap"], "began");
    served.log_in(&old).expect("235");
    assert_eq!(shown()["current_used"], Value::Null);

    let kept = rotate(&served, &old, 7200).expect(200);
    let (second, third) = (issued(&began), issued(&kept));
    assert_eq!(kept.body["overlap"], "kept");
    assert_eq!(kept.body["replaced_used"], Value::Null);
    assert_eq!(kept.body["previous_until"], began.body["previous_until"]);
    assert_eq!(
        kept.body["previous_used"]["count"], 1,
        "it is the same password"
    );
    served.log_in(&second).expect("535 5.7.8");
    for credential in [&old, &third, &third] {
        served.log_in(credential).expect("235");
    }
    let used = shown();
    assert_eq!(used["previous_used"]["count"], 2);
    assert_eq!(used["current_used"]["count"], 2);
    assert_eq!(used["current_used"]["address"], "127.0.0.1");

    // By command as well, which says what becomes of the one that was in use.
    let name = &old.username;
    let told = || served.daemon.succeed(&["credential", "show", name]);
    eventually("the uses are written", || {
        told().contains("used 2 times, last ").then_some(())
    });
    let document = served
        .daemon
        .json(&["credential", "rotate", name, "--overlap", "1d"]);
    assert_eq!(document["overlap"], "kept");
    assert_eq!(document["previous_until"], began.body["previous_until"]);
    assert_eq!(document["replaced_used"]["count"], 2);
    let fourth = Credential::from_json(document.to_string().as_bytes());
    // Without a socket to be told at, the daemon sees that soon.
    eventually("the newest password is refused", || {
        served.log_in(&third).starts_with("535 5.7.8").then_some(())
    });
    served.log_in(&old).expect("235");
    served.log_in(&fourth).expect("235");

    // The newest one is kept by ending the overlap first.
    let edit = format!("PATCH {DEFAULT}/{name}");
    let end = Some(json!({ "end_overlap": true }));
    served.admin(&edit, end).expect(200);
    let fifth = rotate(&served, &old, 3600).expect(200);
    assert_eq!(fifth.body["overlap"], "began");
    served.log_in(&old).expect("535 5.7.8");
    served.log_in(&fourth).expect("235");
    served.log_in(&issued(&fifth)).expect("235");
    let last = format!("POST {DEFAULT}/{name}/rotate");
    let last = served.admin(&last, None).expect(200);
    assert_eq!(last.body["overlap"], "none");
    for credential in [&fourth, &issued(&fifth)] {
        served.log_in(credential).expect("535 5.7.8");
    }
    served.log_in(&issued(&last)).expect("235");
    served.daemon.succeed(&["audit", "verify"]);
}
