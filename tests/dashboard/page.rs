//! A page as it came over HTTP.

/// An answer: its status, its head and its document.
#[derive(Debug)]
pub struct Page {
    /// Where it was asked for.
    pub path: String,
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Page {
    #[track_caller]
    pub fn expect(self, status: u16) -> Page {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// It must lead elsewhere; where to.
    #[track_caller]
    pub fn location(self) -> String {
        let page = self.expect(303);
        page.header("location").expect("a location").to_owned()
    }

    /// What a form has in fields that a person does not see. `to` is where it posts.
    #[track_caller]
    pub fn hidden(&self, to: &str) -> Vec<(String, String)> {
        let forms = tags(&self.body, "form");
        let mut forms = forms.filter(|(tag, _)| attribute(tag, "action").as_deref() == Some(to));
        let (_, rest) = forms
            .next()
            .unwrap_or_else(|| panic!("no form to {to} in {}", self.body));
        let inside = rest.split("</form>").next().unwrap_or_default();
        let hidden = tags(inside, "input")
            .filter(|(tag, _)| attribute(tag, "type").as_deref() == Some("hidden"));
        hidden
            .map(|(tag, _)| {
                (
                    attribute(tag, "name").expect("a name"),
                    attribute(tag, "value").unwrap_or_default(),
                )
            })
            .collect()
    }

    /// Where its forms post to.
    pub fn actions(&self) -> Vec<String> {
        let forms = tags(&self.body, "form");
        forms
            .filter_map(|(tag, _)| attribute(tag, "action"))
            .collect()
    }

    /// Where the link with this `rel` leads from here.
    pub fn link(&self, rel: &str) -> Option<String> {
        let mut links = tags(&self.body, "a");
        let (tag, _) = links.find(|(tag, _)| attribute(tag, "rel").as_deref() == Some(rel))?;
        let to = attribute(tag, "href")?;
        let here = self.path.split('?').next().unwrap_or_default();
        Some(if to.starts_with('?') {
            format!("{here}{to}")
        } else {
            to
        })
    }

    /// The usernames in the table, from top to bottom.
    pub fn usernames(&self) -> Vec<String> {
        tags(&self.body, "tr")
            .filter_map(|(tag, _)| attribute(tag, "data-username"))
            .collect()
    }
}

/// The tags of this name, each with all that comes after it.
fn tags<'a>(html: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    html.match_indices('<').filter_map(move |(at, _)| {
        let tag = html[at + 1..].strip_prefix(name)?;
        let (tag, rest) = tag.split_once('>')?;
        (tag.is_empty() || tag.starts_with(char::is_whitespace)).then_some((tag, rest))
    })
}

/// The value of an attribute in a tag, which must be in double quotes.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = format!("{name}=\"");
    let (at, _) = tag
        .match_indices(&start)
        .find(|(at, _)| tag[..*at].ends_with(char::is_whitespace))?;
    let value = tag[at + start.len()..].split('"').next()?;
    Some(unescaped(value))
}

/// As a browser reads it.
pub fn unescaped(text: &str) -> String {
    let entities = [
        ("&#38;", "&"),
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ];
    let mut text = text.to_owned();
    for (entity, letter) in entities {
        text = text.replace(entity, letter);
    }
    text
}
