//! A person at the dashboard. Every page they come to is searched for secrets, complaints of the browser and what any
//! page must have.

use std::ops::Deref;

use serde_json::json;

use super::Dashboard;
use super::plain::Plain;
use crate::support::browser::{Browser, Scripts};
use crate::support::site::Credential;

/// What any page is looked at for, and how many there are of what it must have; asked at once, as it is asked often.
const SHAPE: &str = "const root = document.documentElement;
    const wanted = ['h1', 'main#main', '#sign-out', 'header nav[aria-label=Main]', \"a.skip[href='#main']\"];
    const counts = wanted.map(css => [css, document.querySelectorAll(css).length]);
    return { title: document.title, lang: root.lang, beyond: root.scrollWidth - root.clientWidth,
        ...Object.fromEntries(counts) }";

pub struct Visit<'a> {
    dashboard: &'a Dashboard,
    browser: Browser,
    base: String,
}

impl<'a> Visit<'a> {
    pub fn new(dashboard: &'a Dashboard, scripts: Scripts) -> Visit<'a> {
        Visit::over("http", dashboard, scripts)
    }

    pub fn over(scheme: &str, dashboard: &'a Dashboard, scripts: Scripts) -> Visit<'a> {
        Visit {
            dashboard,
            browser: Browser::start(scripts),
            base: format!("{scheme}://{}", dashboard.address),
        }
    }

    /// Takes over a session that was opened elsewhere.
    pub fn enter_as(&self, plain: &Plain) {
        for (name, value) in &plain.cookies {
            self.set_cookie(&self.base, name, value);
        }
    }

    #[track_caller]
    pub fn sign_in(&self, token: &str) {
        self.open("/sign-in");
        self.fill("#token", token);
        self.submit("#sign-in");
        assert!(self.has("#sign-out"), "{}", self.source());
    }

    /// Where the person is, without scheme and host.
    #[track_caller]
    pub fn path(&self) -> String {
        let url = self.url();
        let path = url.strip_prefix(&self.base);
        path.unwrap_or_else(|| panic!("{url} is elsewhere"))
            .to_owned()
    }

    /// Goes to a page by its address.
    #[track_caller]
    pub fn open(&self, path: &str) {
        self.go(&format!("{}{path}", self.base));
        self.examine();
    }

    /// Uses a link or a button that leads to a page.
    #[track_caller]
    pub fn submit(&self, css: &str) {
        self.follow(css);
        self.examine();
    }

    /// The same where the page shows a username and its password, once.
    #[track_caller]
    pub fn submit_for_credential(&self, css: &str) -> Credential {
        self.follow(css);
        let credential = Credential {
            username: self.text("#username"),
            password: self.text("#password"),
        };
        self.dashboard.daemon.remember(&credential);
        self.examine_shape();
        credential
    }

    /// The same where the page shows the secret of a token.
    #[track_caller]
    pub fn submit_for_token(&self, css: &str) -> String {
        self.follow(css);
        let secret = self.text("#secret");
        self.dashboard
            .daemon
            .secrets
            .remember_shown(secret.as_bytes());
        self.examine_shape();
        secret
    }

    /// What an action did, which the next look at the page does not say again.
    #[track_caller]
    pub fn told(&self) -> String {
        let notice = self.text("#notice");
        assert!(!notice.is_empty(), "an empty notice on {}", self.path());
        assert_eq!(self.attribute("#notice", "role"), "status");
        self.reload();
        self.examine();
        assert!(!self.has("#notice"), "told twice on {}", self.path());
        notice
    }

    /// What is wrong with a field, as it is told beside it and to who cannot see.
    #[track_caller]
    pub fn wrong(&self, field: &str) -> String {
        let css = format!("main [name={field}]");
        assert_eq!(self.attribute(&css, "aria-invalid"), "true");
        let described = self.attribute(&css, "aria-describedby");
        let error = format!("{field}-error");
        assert!(described.split(' ').any(|id| id == error), "{described}");
        let text = self.text(&format!("#{error}"));
        assert!(!text.is_empty(), "no word on what is wrong with {field}");
        text
    }

    /// The badges in the row of a credential in the list.
    #[track_caller]
    pub fn badges(&self, credential: &Credential) -> Vec<String> {
        let row = format!("tr[data-username={}]", credential.username);
        assert!(self.has(&row), "no {row} on {}", self.path());
        self.texts(&format!("{row} span.badge"))
    }

    /// What holds of any page, and that it betrays nothing.
    #[track_caller]
    pub fn examine(&self) {
        let page = self.source();
        self.dashboard
            .daemon
            .secrets
            .note(self.path(), page.as_bytes());
        self.examine_shape();
    }

    #[track_caller]
    fn examine_shape(&self) {
        let path = self.path();
        assert_eq!(self.complaints(), [""; 0], "on {path}");
        let shape = self.run(SHAPE, json!([]));
        let title = shape["title"].as_str().unwrap_or_default();
        assert!(title.ends_with(" · Gatepost"), "{path}: {title}");
        assert_eq!(shape["lang"], "en", "{path}");
        for one in ["h1", "main#main"] {
            assert_eq!(shape[one], 1, "{one} on {path}: {}", self.source());
        }
        let signed_in = shape["#sign-out"] != 0;
        for one in ["header nav[aria-label=Main]", "a.skip[href='#main']"] {
            assert_eq!(shape[one], usize::from(signed_in), "{one} on {path}");
        }
        let beyond = shape["beyond"].as_i64().expect("a number");
        assert!(beyond <= 0, "{path} is {beyond} pixels too wide");
    }
}

impl Deref for Visit<'_> {
    type Target = Browser;
    fn deref(&self) -> &Browser {
        &self.browser
    }
}
