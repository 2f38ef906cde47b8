//! A page of those rows that the caller may read, where there may be many that the caller may not.
//!
//! One request looks at a bounded number of rows and lets others work in between. Where it ends before the page is full,
//! the page is shorter and its `next` goes on from there, so that many pages together look at each row once.

use super::extract::Page;

/// Rows that one request looks at.
pub(super) const MAX_LOOKED_AT: usize = 2_000;
/// Rows between two moments at which others may work.
const MAX_AT_ONCE: usize = 512;

/// Where the search is. Whoever has the rows asks [`Self::wants`] how many, and gives them to [`Self::take`].
#[derive(Debug)]
pub(super) struct Scan<T, C> {
    limit: usize,
    /// Where to go on; of what was found, the last one once there is one more than fits.
    cursor: Option<C>,
    items: Vec<T>,
    left: usize,
    wanted: usize,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Looking,
    /// There may be more after the cursor.
    More,
    /// There is nothing after it.
    End,
}

impl<T, C: Clone> Scan<T, C> {
    /// For `limit` rows after `cursor`.
    pub(super) fn new(limit: usize, cursor: Option<C>) -> Self {
        let (items, wanted) = (Vec::new(), limit + 1);
        Self { limit, cursor, items, left: MAX_LOOKED_AT, wanted, state: State::Looking }
    }

    /// After which row how many are wanted next, if any.
    pub(super) async fn wants(&self) -> Option<(Option<C>, u32)> {
        if self.left < MAX_LOOKED_AT {
            tokio::task::yield_now().await;
        }
        let count = u32::try_from(self.wanted).unwrap_or(u32::MAX);
        (self.state == State::Looking).then(|| (self.cursor.clone(), count))
    }

    /// Looks at what was fetched: as many as were wanted, if there are, in an order in which `place` only moves on.
    pub(super) fn take(
        &mut self,
        rows: Vec<T>,
        place: impl Fn(&T) -> C,
        mut may_see: impl FnMut(&T) -> bool,
    ) {
        self.left -= self.wanted;
        if rows.len() < self.wanted {
            self.state = State::End;
        } else if self.left == 0 {
            self.state = State::More;
        }
        for row in rows {
            let seen = may_see(&row);
            if seen && self.items.len() == self.limit {
                self.cursor = self.items.last().map(&place);
                self.state = State::More;
                return;
            }
            self.cursor = Some(place(&row));
            if seen {
                self.items.push(row);
            }
        }
        // Where much is hidden, what is fetched at a time grows, since each fetch has a cost of its own.
        self.wanted = (2 * self.wanted).min(MAX_AT_ONCE.max(self.limit + 1)).min(self.left);
    }

    /// What was found.
    pub(super) fn page(self, cursor: impl Fn(C) -> String) -> Page<T> {
        let next = self.cursor.filter(|_| self.state == State::More).map(cursor);
        Page { items: self.items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 20_000;

    #[tokio::test]
    async fn what_is_hidden_is_looked_at_once_and_a_bounded_number_at_a_time() {
        for (limit, nth) in
            [(1, usize::MAX), (1, 7_000), (3, 1_999), (100, 2_000), (1000, 10), (1000, 1), (1, 1)]
        {
            let visible = |row: usize| row % nth == nth - 1;
            let (mut cursor, mut found, mut requests, mut looked) = (None, Vec::new(), 0, 0);
            while requests == 0 || cursor.is_some() {
                let (mut here, mut fetches) = (0, 0);
                let mut scan = Scan::new(limit, cursor);
                while let Some((after, count)) = scan.wants().await {
                    fetches += 1;
                    let from = after.map_or(0, |after: usize| after + 1);
                    let rows: Vec<usize> = (from..ROWS.min(from + count as usize)).collect();
                    scan.take(
                        rows,
                        |row| *row,
                        |row| {
                            here += 1;
                            visible(*row)
                        },
                    );
                }
                let page = scan.page(|place| place.to_string());
                assert!(page.items.len() <= limit && here <= MAX_LOOKED_AT && fetches <= 16);
                found.extend(page.items);
                cursor = page.next.map(|next| next.parse().unwrap());
                (requests, looked) = (requests + 1, looked + here);
            }
            let expected: Vec<usize> = (0..ROWS).filter(|row| visible(*row)).collect();
            assert_eq!(found, expected, "{limit} {nth}");
            // The rows after the last that fits are looked at again by the next page, up to the next one that fits.
            let again = expected.len() / limit * (nth.min(ROWS) + 1);
            assert!(looked <= ROWS + again && requests <= ROWS / MAX_LOOKED_AT + expected.len() / limit + 2);
        }
    }
}
