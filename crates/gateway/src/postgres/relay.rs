//! One connection once it stands: bytes both ways, each statement an action, and the cut.
//!
//! One task polls everything together: both sockets, the answer of the registrar, the record that
//! an answer waits for, and the cut signals. Nothing is let through past a cut.

mod client;
mod end;
mod server;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use curfew_authority::{ActionDetail, Ask, ClosedBy, Context, Presenter, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use self::client::Decided;
use super::Plane;
use super::cancel::Issued;
use super::frame::{self, Complaint, FrameError, FrameSplitter};
use super::sql::{Class, Statement};
use super::track::Track;
use super::upstream::{CancelHandle, Database, Stream, Upstream};
use super::words::Words;
use crate::permit::{Cut, CutSignal, Permit};
use crate::recorder::Unrecorded;
use crate::registrar::Refusal;

/// What is read at once from either side.
const READ_BYTES: usize = 8 * 1_024;
/// What may wait to be written to either side; beyond, the other side is not read. With the read
/// buffers and no large statement under way a connection holds at most about 160 KiB.
const OUT_BYTES_MAX: usize = 64 * 1_024;
type Deciding = Pin<Box<dyn Future<Output = Decided> + Send>>;

/// What a relay is made of.
pub(crate) struct Parts<C> {
    pub(crate) plane: Arc<Plane>,
    pub(crate) database: Database,
    pub(crate) words: Words,
    pub(crate) context: Context,
    pub(crate) client: C,
    pub(crate) read: BytesMut,
    pub(crate) upstream: Upstream,
    pub(crate) issued: Issued,
}

/// Both directions of one side.
type Halves<C> = (ReadHalf<C>, WriteHalf<C>);

/// One connection.
struct Relay<C> {
    plane: Arc<Plane>,
    database: Database,
    words: Words,
    context: Context,
    session: SessionId,
    permit: Permit,
    cancel: CancelHandle,
    client: Halves<C>,
    server: Halves<Box<dyn Stream>>,
    from_client: FrameSplitter,
    from_server: FrameSplitter,
    to_client: Outgoing,
    to_server: Outgoing,
    track: Track,
    /// What the registrar or the parser is asked; nothing more of the client is taken meanwhile.
    deciding: Option<Deciding>,
    /// The client's messages are thrown away up to its next Sync: one of them was refused.
    skipping: bool,
    /// The server's messages are thrown away up to its next ReadyForQuery: the record of what they
    /// answer has failed, and the client has been told.
    replacing: bool,
    /// The client has said goodbye and waits for what it asked for.
    leaving: bool,
    /// Whether text can be read byte by byte in the client's encoding.
    encoding_readable: bool,
    /// Whether a backslash in a plain literal is just a backslash.
    plain_literals: bool,
    /// The type of the newest message that went to the client.
    last: u8,
    /// A portal that does not exist: running it makes the server fail.
    no_portal: String,
}

/// Bytes on their way out, and how many have gone.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: BytesMut,
    /// Written but perhaps not flushed.
    dirty: bool,
    sent: u64,
}

/// Why a relay ends.
#[derive(Debug)]
enum End {
    /// The client said goodbye.
    Client,
    /// The client is gone.
    Gone,
    /// The server closed the connection.
    Server,
    /// The client is told this and is done.
    Told(Complaint, ClosedBy),
    /// A permit was taken back.
    Cut(Cut),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Told(
            Complaint::fatal("08P01", error.to_string()),
            ClosedBy::Protocol,
        )
    }
}

/// What woke a relay.
enum Event {
    Cut(Cut),
    Decided(Box<Decided>),
    Recorded(Result<(), Unrecorded>),
    Client(std::io::Result<usize>),
    Server(std::io::Result<usize>),
    ToClient(std::io::Result<usize>),
    ToServer(std::io::Result<usize>),
}

impl Outgoing {
    fn has_room(&self) -> bool {
        self.bytes.len() < OUT_BYTES_MAX
    }

    fn waits(&self) -> bool {
        self.dirty || !self.bytes.is_empty()
    }

    /// Writes some, or flushes once all is written.
    async fn push<C: Stream>(&mut self, to: &mut WriteHalf<C>) -> std::io::Result<usize> {
        if self.bytes.is_empty() {
            to.flush().await?;
            self.dirty = false;
            return Ok(0);
        }
        let written = to.write_buf(&mut self.bytes).await?;
        self.dirty = true;
        self.sent += written as u64;
        Ok(written)
    }
}

async fn fired(signal: Option<&CutSignal>) -> Cut {
    match signal {
        Some(signal) => signal.fired().await,
        None => std::future::pending().await,
    }
}

async fn decided(deciding: &mut Option<Deciding>) -> Decided {
    match deciding {
        Some(deciding) => deciding.await,
        None => std::future::pending().await,
    }
}

async fn recorded(permit: Option<&Permit>) -> Result<(), Unrecorded> {
    match permit {
        Some(permit) => permit.recorded().await,
        None => std::future::pending().await,
    }
}

/// Relays until one side ends it or a cut does. Returns once both are closed and the end is with
/// the registrar.
pub(crate) async fn run<C: Stream>(parts: Parts<C>) {
    // Held to the end: a cancel request finds the connection as long as it is here.
    let _issued = parts.issued;
    let upstream = parts.upstream;
    let mut relay = Relay {
        session: upstream.permit.session().clone(),
        permit: upstream.permit,
        cancel: upstream.cancel,
        client: tokio::io::split(parts.client),
        server: tokio::io::split(upstream.stream),
        from_client: FrameSplitter::new(parts.read),
        from_server: FrameSplitter::new(upstream.rest),
        to_client: Outgoing::default(),
        to_server: Outgoing::default(),
        track: Track::new(),
        deciding: None,
        skipping: false,
        replacing: false,
        leaving: false,
        encoding_readable: true,
        plain_literals: true,
        last: 0,
        no_portal: parts.plane.unguessable(),
        plane: parts.plane,
        database: parts.database,
        words: parts.words,
        context: parts.context,
    };
    for (name, value) in &upstream.parameters {
        relay.note_parameter(name, value);
    }
    let end = relay.relay().await;
    relay.finish(end).await;
}

impl<C: Stream> Relay<C> {
    async fn relay(&mut self) -> End {
        let cut = self.permit.cut().clone();
        loop {
            if let Err(end) = self.take_all() {
                return end;
            }
            if self.leaving && !self.track.awaits_ready() && !self.to_client.waits() {
                return End::Client;
            }
            match self.next(&cut).await {
                Event::Cut(cut) => return End::Cut(cut),
                Event::Decided(decided) => {
                    self.deciding = None;
                    if let Err(end) = self.decided(*decided) {
                        return end;
                    }
                }
                Event::Recorded(Ok(())) => {}
                Event::Recorded(Err(unrecorded)) => self.replace_answer(&unrecorded.into()),
                Event::Client(Ok(0) | Err(_)) | Event::ToClient(Err(_)) => return End::Gone,
                Event::Server(Ok(0) | Err(_)) | Event::ToServer(Err(_)) => return End::Server,
                Event::Client(Ok(_))
                | Event::Server(Ok(_))
                | Event::ToClient(Ok(_))
                | Event::ToServer(Ok(_)) => {}
            }
        }
    }

    /// Takes whatever is here. Answers first: they make room for questions; and once more, for
    /// refusals whose turn it is at once.
    fn take_all(&mut self) -> Result<(), End> {
        self.take_server()?;
        self.take_client()?;
        self.take_server()
    }

    /// Waits for whatever comes first; a cut comes before everything.
    async fn next(&mut self, cut: &CutSignal) -> Event {
        let waits_for_record = self.waits_for_record();
        let front = self.track.front().map(|running| &running.permit);
        let reads_client = self.deciding.is_none()
            && !self.leaving
            && self.to_server.has_room()
            && !self.track.is_full();
        let reads_server = !waits_for_record && self.to_client.has_room();
        if reads_client {
            self.from_client.buffer().reserve(READ_BYTES);
        }
        if reads_server {
            self.from_server.buffer().reserve(READ_BYTES);
        }
        tokio::select! {
            biased;
            cut = cut.fired() => Event::Cut(cut),
            cut = fired(front.map(Permit::cut)) => Event::Cut(cut),
            decided = decided(&mut self.deciding) => Event::Decided(Box::new(decided)),
            recorded = recorded(front.filter(|_| waits_for_record)) => Event::Recorded(recorded),
            result = self.to_server.push(&mut self.server.1), if self.to_server.waits() => {
                Event::ToServer(result)
            }
            result = self.to_client.push(&mut self.client.1), if self.to_client.waits() => {
                Event::ToClient(result)
            }
            result = self.server.0.read_buf(self.from_server.buffer()), if reads_server => {
                Event::Server(result)
            }
            result = self.client.0.read_buf(self.from_client.buffer()), if reads_client => {
                Event::Client(result)
            }
        }
    }

    /// Whether the next answer may not go out because its record is not durable yet.
    fn waits_for_record(&self) -> bool {
        !self.replacing
            && self
                .track
                .front()
                .is_some_and(|running| !running.permit.is_recorded())
    }

    /// Asks whether a statement of this class may run.
    fn ask(
        &self,
        statement: &Statement,
        class: Class,
    ) -> impl Future<Output = Result<Permit, Refusal>> + Send + use<C> {
        let action = ActionDetail {
            verb: class.verb(),
            resource: self.database.name.clone(),
            context: None,
            connection: Some(self.permit.entry()),
            account: None,
            method: None,
            path: None,
            statement: Some(statement.text.to_string()),
            fingerprint: statement.fingerprint.as_deref().map(str::to_owned),
            client: None,
            search: None,
            target: None,
            passive: false,
            concealed: Default::default(),
        };
        let ask = Ask {
            presenter: Presenter::Session(self.session.clone()),
            action,
            context: self.context.clone(),
        };
        let (plane, record) = (Arc::clone(&self.plane), self.database.record);
        async move { plane.gateway.registrar.ask(ask, record).await }
    }
}
