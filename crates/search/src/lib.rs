//! Search over the ledger.
//!
//! ```text
//!   ledger ──▶ Indexer ──▶ index (tantivy): where words and names occur, nothing else
//!     │                       │ candidates, newest first
//!     └──── each one read ────▼
//!           and judged again ──▶ Answer
//! ```
//!
//! The index is a shortcut and never a witness:
//!
//! 1. What is shown was read from the ledger and fits the query as it stands there. An index that
//!    points at anything else is damaged: the search says so and the index is made anew.
//! 2. Entries that are not yet in the index are searched in the ledger itself, so that an entry is
//!    found as soon as it is there.
//! 3. An index can hide an entry, and nothing in it proves that it did not. Whoever needs to know
//!    that there is *no* such entry reads the whole log: [`scan()`].
//! 4. The index can be deleted at any time. It is made again from the ledger.

mod follow;
mod index;
mod parse;
mod query;
mod resolve;
mod scan;
mod schema;
mod search;
mod walk;
mod when;
mod words;

pub use follow::{Follower, Progress};
pub use index::{IndexError, Indexer, folder_name};
pub use parse::{Asked, QueryError};
pub use query::{KindPattern, LIMIT_DEFAULT, LIMIT_MAX, Order, Query};
pub use scan::scan;
pub use search::{Answer, Bounds, Hit, SearchError, Searcher};
