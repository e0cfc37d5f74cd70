//! Names that people give, whatever keyboard they come from.

use std::fs;

use serde_json::json;

use super::{DEFAULT, Served};
use crate::support::upstream::Upstream;

#[test]
fn every_kind_of_name_is_stored_composed() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let daemon = &served.daemon;
    let name = "E\u{301}TAGE";

    let [made, renamed] = [(); 2].map(|()| daemon.create().username);
    daemon.succeed(&["credential", "rename", &made, name]);
    let rename = format!("PATCH {DEFAULT}/{renamed}");
    served
        .admin(&rename, Some(json!({ "name": name })))
        .expect(200);
    daemon.succeed(&["credential", "create", "--name", name]);
    let file = daemon.path("store").join("import");
    let hash = "{SSHA}lhdKKw2V93yeauI6QYSjBrzk2jaq4uO0";
    fs::write(
        &file,
        format!("username,password,name\none,{hash},{name}\n"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    daemon.succeed(&["import", "--format", "csv", file]);

    let organizations = "POST /api/v1/organizations";
    let new = json!({ "slug": "one", "name": name });
    served.admin(organizations, Some(new)).expect(201);
    daemon.succeed(&["organization", "create", "two", "--name", name]);
    daemon.succeed(&["organization", "create", "three"]);
    let rename = "PATCH /api/v1/organizations/three";
    served
        .admin(rename, Some(json!({ "name": name })))
        .expect(200);

    let new = json!({ "name": name, "scope": "org:one:read" });
    served.admin("POST /api/v1/tokens", Some(new)).expect(201);
    daemon.succeed(&["token", "create", "--name", name, "--scope", "org:two:read"]);

    let store = rusqlite::Connection::open(daemon.store()).unwrap();
    for (table, count) in [
        ("credentials", 4),
        ("organizations", 3),
        ("admin_tokens", 2),
    ] {
        let composed = format!("SELECT count(*) FROM {table} WHERE name = ?1");
        let composed = store.query_row(&composed, ["\u{c9}TAGE"], |row| row.get(0));
        assert_eq!(composed, Ok(count), "{table}");
    }
}
