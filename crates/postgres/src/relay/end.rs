//! The end of a connection: the running statement first, then the client's last words, then what
//! is left upstream.

use std::sync::Arc;
use std::time::Duration;

use curfew_entry::ClosedBy;
use curfew_gate::permit::{Closing, Permit};
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::frame::Complaint;
use super::super::protocol::Protocol;
use super::super::upstream::{CancelHandle, Stream};
use super::{End, READ_BYTES, Relay, Written};

/// How long the client's last words wait for the running statement to be cancelled. On one network
/// that takes 1 to 3 ms with TLS; a client must not keep its connection for longer than this
/// because the server is slow.
const CANCEL: Duration = Duration::from_millis(20);
/// How long the last words may take to be taken by the client's kernel. They fit its buffer
/// unless the client has stopped reading.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long a client may take to close once it has been told. Nothing flows meanwhile.
const LINGER: Duration = Duration::from_millis(500);
/// How long a goodbye to the server may take.
const GOODBYE: Duration = Duration::from_millis(100);
/// How long a statement may go on after it was cancelled before it is cancelled again: a request
/// that comes between two messages of a unit is lost.
const CANCEL_AGAIN: Duration = Duration::from_millis(100);
/// How long a statement is cancelled at most: a thousand times what it takes to yield. What catches
/// its cancellation has the connection closed under it, and is ended by the server within a second.
const QUENCH: Duration = Duration::from_secs(2);

impl<C: Stream> Relay<C> {
    /// Ends the connection. The permit is given back as soon as nothing can flow to the client.
    pub(super) async fn finish(mut self, end: End) {
        // Nothing that is asked for now may be begun.
        self.deciding = None;
        self.busy = None;
        let running = match &end {
            End::Cut(_) | End::Gone | End::Told(..) => self.protocol.is_running(),
            End::Client | End::Server => false,
        };
        let cancelling = running.then(|| spawn_cancel(self.cancel.clone()));
        if let Some(mut cancelling) = cancelling
            && timeout(CANCEL, &mut cancelling).await.is_err()
        {
            tracing::warn!("a cancel request takes long; the client is not kept waiting for it");
        }
        let by = self.tell(end).await;
        self.permit.close(Closing {
            by,
            closed: self.plane.setup.registrar.now(),
            bytes_in: self.to_server.bytes,
            bytes_out: self.to_client.bytes,
        });
        let linger = timeout(LINGER, drain(self.client.0));
        let remains = Remains {
            from: self.server.0,
            to: self.server.1,
            written: self.to_server,
            protocol: self.protocol,
            cancel: self.cancel,
        };
        let _ = tokio::join!(linger, remains.settle(running));
    }

    /// Says the last words, closes the client's side and says what closed it.
    async fn tell(&mut self, end: End) -> ClosedBy {
        let (complaint, by) = self.last_words(end);
        if let Some(complaint) = complaint {
            self.protocol.tell_last(&complaint);
        }
        let out = self.protocol.buffers().to_client;
        let written = self.to_client.push_all(out, &mut self.client.1);
        let _ = timeout(LAST_WORDS, written).await;
        by
    }

    fn last_words(&self, end: End) -> (Option<Complaint>, ClosedBy) {
        match end {
            End::Client | End::Gone => (None, ClosedBy::Client),
            // A server that closes says why.
            End::Server if self.protocol.has_told_error() => (None, ClosedBy::Upstream),
            End::Server => {
                let complaint =
                    Complaint::fatal("08006", "the database server closed the connection");
                (Some(complaint), ClosedBy::Upstream)
            }
            End::Told(complaint, by) => (Some(complaint), by),
            End::Cut(cut) => (
                Some(self.words.cut(&cut, self.protocol.status())),
                cut.cause.closed_by(),
            ),
        }
    }
}

/// The server's side, once the client's is closed.
struct Remains {
    from: ReadHalf<Box<dyn Stream>>,
    to: WriteHalf<Box<dyn Stream>>,
    written: Written,
    protocol: Protocol<Arc<Permit>>,
    cancel: CancelHandle,
}

impl Remains {
    /// Says goodbye, waits until nothing runs any more, and closes.
    async fn settle(mut self, running: bool) {
        self.protocol.terminate();
        let goodbye = async {
            let out = self.protocol.buffers().to_server;
            self.written.push_all(out, &mut self.to).await
        };
        let _ = timeout(GOODBYE, goodbye).await;
        if running && timeout(QUENCH, self.quench()).await.is_err() {
            tracing::warn!("a statement does not yield to being cancelled");
        }
    }

    /// Throws the rest of the answers away, and cancels again as long as there are any to come. A
    /// server that cannot write does not hear a cancel request.
    async fn quench(&mut self) {
        let mut again = Instant::now() + CANCEL_AGAIN;
        while self.protocol.discard_answers() {
            let buffer = self.protocol.buffers().from_server;
            buffer.reserve(READ_BYTES);
            match timeout_at(again, self.from.read_buf(buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return,
                Err(_) => {
                    let _ = self.cancel.cancel().await;
                    again = Instant::now() + CANCEL_AGAIN;
                }
            }
        }
    }
}

/// Cancels on a task of its own, so that it goes on when nobody waits any more.
fn spawn_cancel(cancel: CancelHandle) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        match timeout(QUENCH, cancel.cancel()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a statement could not be cancelled"),
            Err(_) => tracing::warn!("a statement could not be cancelled in time"),
        }
    })
}

/// Reads and forgets. Closing a socket with something unread resets the connection, and a reset
/// can overtake the last words.
async fn drain<C: Stream>(mut from: ReadHalf<C>) {
    let mut nowhere = [0; 1_024];
    while matches!(from.read(&mut nowhere).await, Ok(1..)) {}
}
