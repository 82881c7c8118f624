//! Frames in segment files. (Bodies follow.)
use std::path::PathBuf;

/// A segment holds something that no crash leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {offset} (entry {index}): {kind}", path.display())]
pub struct Corruption {
    /// The segment file.
    pub path: PathBuf,
    /// Byte offset in the file.
    pub offset: u64,
    /// Index of the first entry that cannot be trusted.
    pub index: u64,
    /// What is wrong.
    pub kind: CorruptionKind,
}

/// What is wrong with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// A frame is damaged although later ones prove that it had been durable.
    #[error("the frame is damaged")]
    Frame,
}
