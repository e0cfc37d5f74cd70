//! Several changes in one commit, each of which may be refused alone.

use rusqlite::Transaction;

use super::actor::{Actor, Editor};
use super::error::Stop;
use super::{Fault, Login, Store, StoreError, login};

/// A transaction that several changes share.
#[derive(Debug)]
pub struct Batch<'a> {
    store: &'a Store,
    transaction: &'a Transaction<'a>,
}

impl Store {
    /// Makes the changes of `work` in one commit.
    ///
    /// # Errors
    /// The store cannot be written, or `work` gives up; then nothing is changed.
    pub fn batch<T>(
        &self,
        work: impl FnOnce(&Batch) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.change(|transaction| {
            let batch = Batch {
                store: self,
                transaction,
            };
            Ok(work(&batch)?)
        })
    }
}

impl Batch<'_> {
    /// An editor whose changes are parts of this transaction; each is made as a whole or not at
    /// all.
    pub fn by<'a>(&'a self, actor: &'a Actor) -> Editor<'a> {
        Editor {
            within: Some(self),
            ..self.store.by(actor)
        }
    }

    /// The credential as it is stored at this point.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn login(&self, username: &str) -> Result<Option<Login>, StoreError> {
        login::find(self.transaction, &self.store.ends, username)
            .map_err(|stop| stop.at(&self.store.path))
    }

    /// One change. One that is refused leaves nothing behind and the others in place.
    pub(super) fn part<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        let at = |stop: Stop| stop.at(&self.store.path);
        let run = |sql: &str| {
            let done = self.transaction.execute_batch(sql);
            done.map_err(|error| at(error.into()))
        };
        run("SAVEPOINT part")?;
        match work(self.transaction).map_err(at) {
            Ok(value) => {
                run("RELEASE part")?;
                Ok(value)
            }
            Err(error) if error.fault() == Fault::Request => {
                run("ROLLBACK TO part; RELEASE part")?;
                Err(error)
            }
            // The whole batch is given up.
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;

    #[test]
    fn a_change_that_is_refused_leaves_the_others_in_place() {
        let store = Fixture::new();
        let actor = Actor::system("tests");
        let outcomes = store.batch(|batch| {
            let made = batch.by(&actor).create_credential(named("smtp_a"));
            let taken = batch.by(&actor).create_credential(named("smtp_a"));
            let missing = batch.by(&actor).delete_credential("smtp_b".into());
            let other = batch.by(&actor).create_credential(named("smtp_c"));
            Ok([made.is_ok(), taken.is_ok(), missing.is_ok(), other.is_ok()])
        });
        assert_eq!(outcomes.unwrap(), [true, false, false, true]);
        assert_eq!(store.count("SELECT count(*) FROM credentials"), 2);
        assert!(store.verify_audit(None).is_ok());
    }

    #[test]
    fn a_batch_that_gives_up_changes_nothing() {
        let store = Fixture::new();
        let actor = Actor::system("tests");
        let given_up = store.batch(|batch| {
            batch.by(&actor).create_credential(named("smtp_a"))?;
            batch.by(&actor).delete_credential("smtp_b".into())
        });
        assert!(given_up.is_err());
        assert_eq!(store.count("SELECT count(*) FROM credentials"), 0);
    }
}
