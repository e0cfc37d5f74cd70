//! Hints at the intended username, for explanations and never for a verdict.

use crate::store::{OtherCase, RefusedLogin, Store, StoreError, plain};

use super::issue;

/// A credential whose username differs from the client's by case or blanks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Near {
    pub(crate) credential: OtherCase,
    has_blanks: bool,
    has_other_case: bool,
    /// Whether `auth.username_case` bridges the difference, which folds ASCII letters only.
    is_foldable: bool,
}

impl Near {
    /// The hint as a sentence.
    pub(crate) fn words(&self) -> String {
        let username = plain(&self.credential.username);
        let blanks = "blanks at its ends";
        match (self.has_blanks, self.has_other_case) {
            (true, false) => {
                format!("the credential \"{username}\" has no {blanks}: remove them in the client")
            }
            (blanks_too, _) if issue::is_generated(&self.credential.username) => {
                let also = if blanks_too { " and in its blanks" } else { "" };
                format!(
                    "the generated username {username} differs only in case{also}: the client must send it exactly so"
                )
            }
            (true, true) => format!(
                "the credential \"{username}\" differs only in case and in the {blanks}: change it in the client"
            ),
            (false, _) if self.is_foldable => format!(
                "the credential {username} differs only in case: write it so in the client, or set auth.username_case = \"fold\""
            ),
            (false, _) => {
                format!("the credential {username} differs only in case: write it so in the client")
            }
        }
    }
}

/// Finds the intended credential for each of these unknown usernames.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn near(store: &Store, usernames: &[&str]) -> Result<Vec<Option<Near>>, StoreError> {
    let trimmed: Vec<_> = usernames.iter().map(|username| username.trim()).collect();
    let found = store.in_any_case(&trimmed)?;
    let pairs = found.into_iter().zip(usernames.iter().zip(trimmed));
    let nears = pairs.map(|(credential, (sent, trimmed))| {
        let credential = credential?;
        let near = Near {
            has_blanks: trimmed.len() < sent.len(),
            has_other_case: credential.username != trimmed,
            is_foldable: credential.username.eq_ignore_ascii_case(trimmed),
            credential,
        };
        (near.has_blanks || near.has_other_case).then_some(near)
    });
    Ok(nears.collect())
}

/// A hint for each rejection of an unknown username.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn hints(
    store: &Store,
    refusals: &[RefusedLogin],
) -> Result<Vec<Option<String>>, StoreError> {
    let usernames: Vec<_> = refusals.iter().map(|one| one.username.as_str()).collect();
    let nears = near(store, &usernames)?.into_iter();
    Ok(nears.map(|near| Some(near?.words())).collect())
}
