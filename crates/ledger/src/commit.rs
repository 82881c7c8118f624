//! The committer thread: one batch, one write, one sync, one acknowledgement.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::disk::DiskFile;
use crate::error::{FileError, WriteError};
use crate::merkle::{CompactTree, leaf_hash};
use crate::prepare::name_segment;
use crate::queue::{Batch, Successor};
use crate::recover::End;
use crate::segment::{FRAME_HEADER_BYTES, FrameHeader, seal_frame, split_payload};
use crate::writer::{Shared, lock};

/// Writes batches to segments.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    tree: CompactTree,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// Where the next frame goes.
    offset: u64,
    epoch: u64,
    nonce: u64,
}

impl Committer {
    /// Goes on from `end` in a new epoch, whose frames are marked with `nonce`.
    pub(crate) fn new(shared: Arc<Shared>, end: End, nonce: u64) -> Committer {
        let epoch = end.epoch + 1;
        Committer {
            shared,
            tree: end.tree,
            file: end.segment.file,
            path: end.segment.path,
            offset: end.offset,
            epoch,
            nonce,
        }
    }

    /// Body of the thread. Ends when the writer is closed and nothing is queued, or on an error.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            while let Some(batch) = self.next_batch() {
                self.commit(batch)?;
            }
            Ok(())
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.fail(WriteError::File(error)),
            Err(_) => shared.fail(WriteError::ThreadEnded {
                thread: "committer",
            }),
        }
    }

    fn next_batch(&self) -> Option<Batch> {
        let mut queue = self.shared.queue();
        loop {
            if let Some(batch) = queue.take() {
                return Some(batch);
            }
            if queue.closing {
                return None;
            }
            queue = self
                .shared
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn commit(&mut self, batch: Batch) -> Result<(), FileError> {
        if batch.rotate {
            self.rotate(batch.first)?;
        }
        let mut buffer = batch.buffer;
        let payload = &buffer[FRAME_HEADER_BYTES..];
        for entry in split_payload(payload) {
            self.tree.push(leaf_hash(entry));
        }
        let header = FrameHeader {
            epoch: self.epoch,
            nonce: self.nonce,
            first: batch.first,
            // One batch is in flight at a time, so all before it is durable.
            durable: batch.first,
            count: batch.count,
            // A batch is at most 4 MiB and one entry.
            payload_bytes: payload.len() as u32,
            root: self.tree.root(),
        };
        seal_frame(&mut buffer, &header);
        let written = self.file.write_all_at(&buffer, self.offset);
        written.map_err(FileError::at("write", &self.path))?;
        self.file
            .sync_data()
            .map_err(FileError::at("sync", &self.path))?;
        self.offset += buffer.len() as u64;

        let size = header.end();
        self.shared.durable.store(size, Ordering::SeqCst);
        self.shared.observer.durable(size);
        self.shared.queue().done(size, buffer);
        self.shared.wake_publisher();
        Ok(())
    }

    /// Goes over to the prepared segment. All before is durable.
    fn rotate(&mut self, first: u64) -> Result<(), FileError> {
        let prepared = lock(&self.shared.prepared).take();
        let prepared = prepared.ok_or_else(|| FileError {
            doing: "find the prepared segment before",
            path: self.path.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        self.path = name_segment(&*self.shared.disk, &self.shared.dir, first)?;
        self.file = prepared.file;
        self.offset = 0;
        self.shared.queue().set_successor(Successor::Preparing);
        self.shared.prepare.notify_all();
        Ok(())
    }
}
