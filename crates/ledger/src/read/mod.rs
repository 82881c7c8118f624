//! Reading a log.

pub(crate) mod bundles;
pub(crate) mod entries;
pub(crate) mod fetch;
pub(crate) mod horizon;
pub(crate) mod milestone;
pub mod published;
pub(crate) mod reader;
pub(crate) mod tail;
