//! Witnesses: other parties that cosign the log's checkpoints, so that it cannot be rewritten or
//! forked unseen. [`server`] is such a party, for logs of others.

pub mod server;
