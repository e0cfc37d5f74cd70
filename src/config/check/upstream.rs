//! What the keys of `[upstream]` say to each other. The way to the MTA fails closed, so a key that
//! would have no effect is a mistake: whoever wrote it believes that it protects something.

use std::net::SocketAddr;

use super::super::error::{Key, Problem};
use super::super::{Endpoint, IdentityBy, Target, Upstream, UpstreamTls, is_slug};

/// Finds the first contradiction; `listeners` are our own.
pub(super) fn check(upstream: &Upstream, listeners: &[SocketAddr]) -> Result<(), Problem> {
    Section(upstream, vec!["upstream"]).check(listeners)?;
    for (slug, own) in &upstream.organizations {
        let section = Section(own, vec!["upstream", "organizations", slug]);
        // One that no organization has would leave its organization with the upstream of all.
        if !is_slug(slug) {
            return Err(Problem::new(
                Key::new(section.1),
                "no organization can be called that; use its slug: small letters, digits and hyphens",
            ));
        }
        if own.address.is_empty() {
            section.check_account_alone(upstream)?;
        } else {
            section.check(listeners)?;
        }
        if !own.organizations.is_empty() {
            return Err(section.problem("organizations", "an organization has none; leave it out"));
        }
    }
    Ok(())
}

/// An upstream, and where it is written.
struct Section<'a>(&'a Upstream, Vec<&'a str>);

impl Section<'_> {
    fn check(&self, listeners: &[SocketAddr]) -> Result<(), Problem> {
        self.check_address(listeners)?;
        self.check_identity()?;
        self.check_account()?;
        self.check_names()?;
        self.check_tls()
    }

    fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let steps = self.1.iter().copied().chain([key]);
        Problem::new(Key::new(steps), message)
    }

    /// A gate that is its own upstream would hand every session to itself until nothing is left.
    fn check_address(&self, listeners: &[SocketAddr]) -> Result<(), Problem> {
        let Self(upstream, _) = self;
        if upstream.address.is_empty() {
            let message = "missing; write address = ... here, as config.toml.example shows";
            return Err(self.problem("address", message));
        }
        for target in upstream.address.iter() {
            let own = listeners.iter().position(|own| reaches(target, *own));
            if let Some(index) = own {
                let message = format!(
                    "{target} is gatepost's own listener[{index}]; use the address of the MTA"
                );
                return Err(self.problem("address", message));
            }
        }
        Ok(())
    }

    /// Whoever may send there without a name must be kept away from there by something else.
    fn check_identity(&self) -> Result<(), Problem> {
        let Self(upstream, _) = self;
        if upstream.identity == IdentityBy::None && !upstream.trusted {
            return Err(self.problem(
                "identity",
                "\"none\" tells the MTA nothing, so it has to take mail from whoever reaches it; if only \
                 gatepost does, write trusted = true here, else use \"xclient\", \"proxy\" or \"login\"",
            ));
        }
        Ok(())
    }

    fn check_account(&self) -> Result<(), Problem> {
        let Self(upstream, _) = self;
        if upstream.identity != IdentityBy::Login {
            let unused = [
                ("username", upstream.username.is_some()),
                ("password_file", upstream.password_file.is_some()),
            ];
            return match unused.into_iter().find(|(_, written)| *written) {
                Some((key, _)) => Err(self.problem(
                    key,
                    "has no effect with this identity; use identity = \"login\", or leave it out",
                )),
                None => Ok(()),
            };
        }
        self.check_account_is_whole()?;
        let mut organizations = upstream.organizations.values();
        let is_of_one = organizations.any(|own| own.address.is_empty());
        if upstream.username.is_none() && !is_of_one {
            return Err(self.problem(
                "username",
                "missing; identity = \"login\" needs username and password_file, or \
                 [upstream.organizations.SLUG] with both",
            ));
        }
        self.check_password_is_safe()
    }

    fn check_account_is_whole(&self) -> Result<(), Problem> {
        match (&self.0.username, &self.0.password_file) {
            (Some(_), None) => Err(self.problem(
                "password_file",
                "missing; name the file with the password of the username here",
            )),
            (None, Some(_)) => Err(self.problem(
                "username",
                "missing; name the account that password_file has the password of",
            )),
            _ => Ok(()),
        }
    }

    /// What an organization has at the upstream of all.
    fn check_account_alone(&self, shared: &Upstream) -> Result<(), Problem> {
        let Self(own, _) = self;
        let account = Upstream::of_account(own.username.clone(), own.password_file.clone());
        if **own != account {
            return Err(self.problem(
                "address",
                "missing; an upstream of its own needs one. Without it, only username and password_file \
                 belong here, an account at the upstream of all",
            ));
        }
        if shared.identity != IdentityBy::Login {
            return Err(self.problem(
                "username",
                "has no effect with this upstream.identity; use \"login\" there, or write an address \
                 here for an upstream of its own",
            ));
        }
        self.check_account_is_whole()?;
        match own.username {
            Some(_) => Ok(()),
            None => Err(self.problem(
                "username",
                "missing; write username and password_file, or leave the section out",
            )),
        }
    }

    /// PLAIN and LOGIN are readable for whoever sees the bytes pass.
    fn check_password_is_safe(&self) -> Result<(), Problem> {
        let Self(upstream, _) = self;
        if upstream.trusted || upstream.tls != UpstreamTls::None {
            return Ok(());
        }
        let far = upstream.address.iter().find(|target| target.is_far());
        let Some(target) = far else { return Ok(()) };
        Err(self.problem(
            "tls",
            format!(
                "the password of username would cross the network to {target} in clear text; \
                 use \"starttls\" or \"implicit\", or write trusted = true here if nobody can listen"
            ),
        ))
    }

    /// Who answers for a name may change without anybody here knowing.
    fn check_names(&self) -> Result<(), Problem> {
        let Self(upstream, _) = self;
        let is_far_name =
            |target: &&Target| matches!(target, Target::Name { .. }) && target.is_far();
        let Some(name) = upstream.address.iter().find(is_far_name) else {
            return Ok(());
        };
        if upstream.trusted || upstream.tls != UpstreamTls::None {
            return Ok(());
        }
        let message = format!(
            "without TLS, whoever answers for {name} gets the mail; use \"starttls\" or \"implicit\", \
             or write trusted = true here if nobody else can"
        );
        Err(self.problem("tls", message))
    }

    fn check_tls(&self) -> Result<(), Problem> {
        let Self(upstream, _) = self;
        let written = [
            ("tls_name", upstream.tls_name.is_some()),
            ("tls_ca", upstream.tls_ca.is_some()),
            ("tls_certificate", upstream.tls_certificate.is_some()),
            ("tls_key", upstream.tls_key.is_some()),
        ];
        let unused = written.into_iter().find(|(_, written)| *written);
        if let (UpstreamTls::None, Some((key, _))) = (upstream.tls, unused) {
            return Err(self.problem(
                key,
                "has no effect without TLS; write tls = \"starttls\" or \"implicit\" here, or leave it out",
            ));
        }
        match (&upstream.tls_certificate, &upstream.tls_key) {
            (Some(_), None) => {
                let message = "missing; name the private key of tls_certificate";
                return Err(self.problem("tls_key", message));
            }
            (None, Some(_)) => {
                let message = "missing; name the certificate that tls_key belongs to";
                return Err(self.problem("tls_certificate", message));
            }
            _ => {}
        }
        let is_unix = |target: &Target| matches!(target, Target::Endpoint(Endpoint::Unix(_)));
        let nameless = upstream.address.iter().any(is_unix) && upstream.tls_name.is_none();
        if upstream.tls != UpstreamTls::None && nameless {
            return Err(self.problem(
                "tls_name",
                "missing; a unix socket has no name of its own, so write the one in the MTA's certificate",
            ));
        }
        Ok(())
    }
}

/// Whether who connects to `target` ends up at `listener`, as far as the texts tell.
fn reaches(target: &Target, listener: SocketAddr) -> bool {
    let local = listener.ip().is_unspecified() || listener.ip().is_loopback();
    match target {
        Target::Endpoint(Endpoint::Tcp(there)) => {
            listener.port() == there.port()
                && (listener.ip() == there.ip()
                    || listener.ip().is_unspecified() && there.ip().is_loopback())
        }
        Target::Endpoint(Endpoint::Unix(_)) => false,
        Target::Name { port, .. } => listener.port() == *port && local && !target.is_far(),
    }
}
