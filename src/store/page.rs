//! Lists in pages: how long one is, and where the next begins.

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
    /// In the order of the list.
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

    /// One row more than wanted, which tells whether there are more.
    pub(super) fn fetch(self) -> i64 {
        i64::from(self.limit) + 1
    }
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
