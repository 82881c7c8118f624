//! Reading a log, whether or not a writer runs. Nothing here writes to a log's entries.
//!
//! | module | part |
//! |---|---|
//! | `reader` | the log reader; the cursor over frames; the tree of one size, out of tiles |
//! | `entries`, `fetch` | entries in order; single entries in any order |
//! | `bundles` | entries of the sealed part, each held to its hash |
//! | `tail` | what is behind the last whole frame: an interrupted write, or damage |
//! | `prune_point` | where a pruned log begins |
//! | `verified_state` | where a verification has come to, and what the next one goes on from |
//! | `published` | what others are given: checkpoints, tiles, cosigned and timestamped checkpoints |
//!
//! The older part of a log is sealed: its entries are left in bundles alone. The newer part is in
//! segments. [`crate::LogReader`] knows where one ends and the other begins, and [`crate::Entries`]
//! passes from one to the other. A segment may be sealed while it is read; whoever finds it gone looks
//! again, and reads the bundles instead.
//!
//! Builds on [`crate::segment`], [`crate::tile`] and the public keys of `keys/`. Opening a log for
//! writing and verifying it both read through this folder.

pub(crate) mod bundles;
pub(crate) mod entries;
pub(crate) mod fetch;
pub(crate) mod prune_point;
pub(crate) mod published;
pub(crate) mod reader;
pub(crate) mod tail;
pub(crate) mod verified_state;
