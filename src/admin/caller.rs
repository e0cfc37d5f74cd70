//! Who asks, and what they may.

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::store::{Access, Actor, Scope};

use super::problem::{Code, Problem};

/// Who makes a request. Put into the request by [`super::gate`], behind which every route lies.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// What people call their token.
    pub(super) name: String,
    /// What the audit log says of them.
    pub(super) actor: Actor,
    /// The widest of the scopes that reach what the path names.
    pub(super) scope: Scope,
    /// Every scope; only a person may have several.
    pub(super) scopes: Vec<Scope>,
    /// When that ends, in Unix milliseconds, if ever.
    pub(super) expires_at: Option<i64>,
}

impl Caller {
    /// They may do this.
    pub(super) fn require(&self, needed: &Scope) -> Result<(), Problem> {
        if self.covers(needed) {
            return Ok(());
        }
        Err(Problem::new(
            Code::Forbidden,
            format!(
                "this needs {needed}, and {:?} has {}",
                self.name,
                self.scope_words()
            ),
        ))
    }

    /// Whether one of the scopes allows what `needed` does.
    pub(super) fn covers(&self, needed: &Scope) -> bool {
        self.scopes.iter().any(|scope| scope.covers(needed))
    }

    /// Every scope, for people.
    pub(super) fn scope_words(&self) -> String {
        let scopes: Vec<_> = self.scopes.iter().map(Scope::to_string).collect();
        scopes.join(", ")
    }

    /// They may do this to Gatepost as a whole.
    pub(super) fn require_instance(&self, access: Access) -> Result<(), Problem> {
        self.require(&Scope {
            organization: None,
            access,
        })
    }

    /// They may do this to the organization with this slug.
    pub(super) fn require_in(&self, slug: &str, access: Access) -> Result<(), Problem> {
        self.require(&Scope {
            organization: Some(slug.to_owned()),
            access,
        })
    }

    /// When what they make ends: as they want it, but never after what they make it with.
    pub(super) fn bounded(&self, wanted: Option<i64>) -> Result<Option<i64>, Problem> {
        match (wanted, self.expires_at) {
            (Some(wanted), Some(own)) if wanted > own => Err(Problem::new(
                Code::Forbidden,
                "a token that expires cannot make one that lasts longer",
            )),
            (wanted, own) => Ok(wanted.or(own)),
        }
    }

    /// The organizations that a list shows: the one that is wanted, else all that the caller may see;
    /// `None` for every organization and the instance.
    pub(super) fn narrow(&self, wanted: Option<String>) -> Result<Option<Vec<String>>, Problem> {
        match wanted {
            Some(slug) => {
                self.require_in(&slug, Access::Read)?;
                Ok(Some(vec![slug]))
            }
            None => Ok(self.organizations(Access::Read)),
        }
    }

    /// The slugs of the organizations to which the caller may do this, in order; `None` for every
    /// organization and the instance.
    pub(super) fn organizations(&self, access: Access) -> Option<Vec<String>> {
        let scopes = self.scopes.iter().filter(|scope| scope.access >= access);
        let slugs: Option<BTreeSet<_>> = scopes.map(|scope| scope.organization.clone()).collect();
        // Without an instance's scope each has a slug.
        slugs.map(|slugs| slugs.into_iter().collect())
    }

    /// Whether the caller may do this to what belongs to this organization, or to none.
    pub(super) fn reaches(&self, organization: Option<&str>, access: Access) -> bool {
        self.covers(&Scope {
            organization: organization.map(str::to_owned),
            access,
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Problem::internal(&"a route lies outside the gate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[&str]) -> Caller {
        let scopes: Vec<Scope> = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        Caller {
            name: "tests".to_owned(),
            actor: Actor::system("tests"),
            scope: scopes[0].clone(),
            scopes,
            expires_at: None,
        }
    }

    fn slugs(slugs: &[&str]) -> Option<Vec<String>> {
        Some(slugs.iter().map(|slug| (*slug).to_owned()).collect())
    }

    #[test]
    fn an_organizations_caller_is_kept_to_it() {
        let own = caller(&["org:acme:read"]);
        assert_eq!(own.narrow(None).unwrap(), slugs(&["acme"]));
        let same = own.narrow(Some("acme".to_owned())).unwrap();
        assert_eq!(same, slugs(&["acme"]));
        assert!(own.narrow(Some("other".to_owned())).is_err());
        let reaches = |organization| own.reaches(organization, Access::Read);
        assert!(reaches(Some("acme")) && !reaches(Some("other")) && !reaches(None));
        assert!(!own.reaches(Some("acme"), Access::Admin));
    }

    #[test]
    fn each_of_several_scopes_counts_for_its_organization_alone() {
        let several = caller(&["org:beta:read", "org:acme:admin", "org:acme:read"]);
        assert_eq!(several.narrow(None).unwrap(), slugs(&["acme", "beta"]));
        assert_eq!(several.organizations(Access::Admin), slugs(&["acme"]));
        assert!(several.reaches(Some("acme"), Access::Admin));
        assert!(several.reaches(Some("beta"), Access::Read));
        assert!(!several.reaches(Some("beta"), Access::Admin));
        assert!(several.require_instance(Access::Read).is_err());

        let reader = caller(&["instance:read", "org:acme:admin"]);
        assert_eq!(reader.organizations(Access::Read), None);
        assert_eq!(reader.organizations(Access::Admin), slugs(&["acme"]));
        assert!(!reader.reaches(Some("beta"), Access::Admin) && reader.reaches(None, Access::Read));
    }

    #[test]
    fn the_instances_caller_may_name_any_organization() {
        let all = caller(&["instance:read"]);
        assert_eq!(all.narrow(None).unwrap(), None);
        let named = all.narrow(Some("other".to_owned())).unwrap();
        assert_eq!(named, slugs(&["other"]));
        assert!(all.reaches(Some("acme"), Access::Read) && all.reaches(None, Access::Read));
        assert!(all.require_instance(Access::Admin).is_err());
    }
}
