//! Gives the ledger to others, in the formats of their systems.
//!
//! ```text
//! entry ─▶ Stream: record (facts, subject resolved) ─▶ Exporter: ocsf · cef · syslog · cloudevents · otlp · csv · parquet
//! ```
//!
//! Every record keeps the entry's index and leaf hash, so that a line in somebody else's system
//! leads back to the proof.

mod chunks;
mod columnar;
pub mod facts;
pub mod format;
mod kinds;
pub mod lines;
pub mod ocsf;
pub mod otlp;
pub mod range;
pub mod record;
mod text;

pub use chunks::{Chunks, ExportError};
pub use curfew_entry::visible;
pub use curfew_ledger::LogReader;
pub use format::{Exporter, Format, Packing, WriteError};
pub use record::{Opener, Recall, Record, Source, Stream};
