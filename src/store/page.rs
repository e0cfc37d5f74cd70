//! Lists in pages: how long one is, and where the next begins.

use super::error::Stop;

/// How many rows are looked at for one page, of which a filter may leave out any number. What a
/// filter asks for may be rare, and no request reads the whole of a long list for it.
pub(super) const LOOKED_AT: usize = 10_000;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Page {
    /// Begin behind the row with this key; `None` begins at the beginning.
    pub after: Option<i64>,
    /// At most so many rows.
    pub limit: u32,
}

/// Part of a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rows<T> {
    /// In the order of the list. There may be fewer than wanted, or none, although more follow.
    pub rows: Vec<T>,
    /// [`Page::after`] for what follows; `None` when this was the end.
    pub next: Option<i64>,
}

impl Page {
    /// All of it.
    pub const ALL: Page = Page {
        after: None,
        limit: u32::MAX,
    };

    /// Collects a page from `rows`, which begin behind [`Page::after`]; `look` says what a row is.
    pub(super) fn collect<T>(
        self,
        mut rows: rusqlite::Rows,
        mut look: impl FnMut(&rusqlite::Row) -> Result<Seen<T>, Stop>,
    ) -> Result<Rows<T>, Stop> {
        let most = if self == Page::ALL {
            usize::MAX
        } else {
            LOOKED_AT
        };
        let (mut found, mut last, mut looked_at) = (Vec::new(), None, 0);
        while let Some(row) = rows.next()? {
            if found.len() == self.limit as usize || looked_at == most {
                let next = last;
                return Ok(Rows { rows: found, next });
            }
            match look(row)? {
                Seen::Wanted(key, row) => {
                    found.push(row);
                    last = Some(key);
                }
                Seen::LeftOut(key) => last = Some(key),
                Seen::End => break,
            }
            looked_at += 1;
        }
        Ok(Rows {
            rows: found,
            next: None,
        })
    }

    /// One row more than wanted, which tells whether there are more.
    pub(super) fn fetch(self) -> i64 {
        i64::from(self.limit) + 1
    }
}

/// A row of a list, with its place there.
pub(super) enum Seen<T> {
    /// No row that follows is wanted.
    End,
    /// The filter leaves it out.
    LeftOut(i64),
    /// It is part of the list.
    Wanted(i64, T),
}

impl<T> Rows<T> {
    /// From what [`Page::fetch`] fetched; `key` is a row's place in the list.
    pub(super) fn cut(mut rows: Vec<T>, page: Page, key: impl Fn(&T) -> i64) -> Rows<T> {
        let limit = page.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(key);
        Rows { rows, next }
    }

    /// The same page of something else.
    pub fn map<U>(self, each: impl FnMut(T) -> U) -> Rows<U> {
        Rows {
            rows: self.rows.into_iter().map(each).collect(),
            next: self.next,
        }
    }
}
