//! The time after a rotation in which the old password is right, too.

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
