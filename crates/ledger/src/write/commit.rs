//! The committer thread: one batch, one frame, one write, one sync, one acknowledgement.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::format::error::FileError;
use crate::format::merkle::CompactTree;
use crate::format::segment::{FRAME_HEADER_BYTES, FrameHeader, seal_frame};
use crate::format::tile::HashedBatch;
use crate::write::error::WriteError;
use crate::write::in_flight::{Frame, FrameWriters};
use crate::write::prepare::name_segment;
use crate::write::queue::{Batch, Ready, Successor};
use crate::write::recover::End;
use crate::write::writer::Shared;

/// Makes frames of batches and submits them.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    writers: FrameWriters,
    tree: CompactTree,
    path: PathBuf,
    /// Where the next frame goes.
    offset: u64,
    epoch: u64,
    nonce: u64,
}

impl Committer {
    /// Goes on from `end` in a new epoch, whose frames are marked with `nonce`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        writers: FrameWriters,
        end: End,
        nonce: u64,
    ) -> Committer {
        let epoch = end.epoch + 1;
        Committer {
            shared,
            writers,
            tree: end.tree,
            path: end.segment.path,
            offset: end.offset,
            epoch,
            nonce,
        }
    }

    /// Body of the thread. Ends when the writer is closed and everything queued is durable, or when
    /// it has failed.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            while let Some((batch, alone)) = self.next_batch() {
                self.commit(batch, alone)?;
            }
            self.writers.wait_until_durable();
            Ok(())
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.fail(error),
            Err(_) => shared.fail(WriteError::ThreadEnded {
                thread: "committer",
            }),
        }
    }

    fn next_batch(&self) -> Option<(Batch, bool)> {
        let mut queue = self.shared.queue();
        loop {
            if queue.failure.is_some() {
                return None;
            }
            match queue.ready() {
                Ready::Now => return queue.take(),
                Ready::Empty if queue.closing => return None,
                Ready::Empty | Ready::Full => {
                    let waited = self.shared.work.wait(queue);
                    queue = waited.unwrap_or_else(PoisonError::into_inner);
                }
                Ready::Within(pause) => {
                    let waited = self.shared.work.wait_timeout(queue, pause);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn commit(&mut self, batch: Batch, alone: bool) -> Result<(), WriteError> {
        let kept = self
            .shared
            .observer
            .writing(batch.first + u64::from(batch.count));
        kept.map_err(|problem| WriteError::Companion { problem })?;
        if batch.rotate && !self.rotate(batch.first)? {
            return Ok(());
        }
        let mut buffers = batch.buffers;
        let leaves = std::mem::take(&mut buffers.leaves);
        let hashed = HashedBatch::new(leaves, &mut self.tree);
        let payload_bytes = buffers.frame.len() - FRAME_HEADER_BYTES;
        let header = FrameHeader {
            epoch: self.epoch,
            nonce: self.nonce,
            first: batch.first,
            // Frames before it may still be in flight.
            durable: self.shared.durable.load(Ordering::SeqCst),
            count: batch.count,
            // A batch is at most 4 MiB and one entry.
            payload_bytes: payload_bytes as u32,
            root: self.tree.root(),
        };
        let checksum = seal_frame(&mut buffers.frame, &header);
        self.shared.hashed.keep(checksum, hashed);
        let offset = self.offset;
        self.offset += buffers.frame.len() as u64;
        let frame = Frame {
            path: self.path.clone(),
            offset,
            buffers,
            size: header.end(),
        };
        Ok(self.writers.submit(frame, alone)?)
    }

    /// Goes over to the prepared segment once all before is durable. False when the writer has
    /// failed.
    fn rotate(&mut self, first: u64) -> Result<bool, FileError> {
        if !self.writers.wait_until_durable() {
            return Ok(false);
        }
        self.path = name_segment(&*self.shared.disk, &self.shared.dir, first)?;
        self.offset = 0;
        self.shared.queue().set_successor(Successor::Preparing);
        self.shared.prepare.notify_all();
        Ok(true)
    }
}
