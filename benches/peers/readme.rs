//! The places in `benches/README.md` that figures belong in.

use std::fs;
use std::path::Path;

/// Puts a text between the two comments with this name, in the place of what stands there.
pub fn put(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/README.md");
    let page = fs::read_to_string(&path).expect("benches/README.md");
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = page.split_once(&begin).expect(&begin);
    let (_, after) = rest.split_once(&end).expect(&end);
    let page = format!("{before}{begin}{text}{end}{after}");
    fs::write(&path, page).expect("benches/README.md");
}
