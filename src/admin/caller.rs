//! Who asks, and what they may.

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
    /// What they may do.
    pub(super) scope: Scope,
    /// When that ends, in Unix milliseconds, if ever.
    pub(super) expires_at: Option<i64>,
}

impl Caller {
    /// They may do this.
    pub(super) fn require(&self, needed: &Scope) -> Result<(), Problem> {
        if self.scope.covers(needed) {
            return Ok(());
        }
        Err(Problem::new(
            Code::Forbidden,
            format!(
                "this needs {needed}, and {:?} has {}",
                self.name, self.scope
            ),
        ))
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

    /// The only organization they may ask about: their own, if they have one, else the one they name.
    pub(super) fn narrow(&self, wanted: Option<String>) -> Result<Option<String>, Problem> {
        if let Some(slug) = &wanted {
            self.require_in(slug, Access::Read)?;
        }
        Ok(wanted.or_else(|| self.scope.organization.clone()))
    }

    /// Whether what belongs to this organization is within their reach.
    pub(super) fn reaches(&self, organization: Option<&str>) -> bool {
        let own = self.scope.organization.as_deref();
        own.is_none() || own == organization
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

    fn caller(scope: &str) -> Caller {
        Caller {
            name: "tests".to_owned(),
            actor: Actor::system("tests"),
            scope: scope.parse().unwrap(),
            expires_at: None,
        }
    }

    #[test]
    fn an_organizations_caller_is_kept_to_it() {
        let own = caller("org:acme:read");
        assert_eq!(own.narrow(None).unwrap().as_deref(), Some("acme"));
        let same = own.narrow(Some("acme".to_owned())).unwrap();
        assert_eq!(same.as_deref(), Some("acme"));
        assert!(own.narrow(Some("other".to_owned())).is_err());
        assert!(own.reaches(Some("acme")) && !own.reaches(Some("other")) && !own.reaches(None));
    }

    #[test]
    fn the_instances_caller_may_name_any_organization() {
        let all = caller("instance:read");
        assert_eq!(all.narrow(None).unwrap(), None);
        let named = all.narrow(Some("other".to_owned())).unwrap();
        assert_eq!(named.as_deref(), Some("other"));
        assert!(all.reaches(Some("acme")) && all.reaches(None));
        assert!(all.require_instance(Access::Admin).is_err());
    }
}
