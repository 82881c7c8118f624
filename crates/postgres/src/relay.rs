//! One connection once it stands: bytes both ways, each statement an action, and the cut.
//!
//! One task polls everything together: both sockets, the answer of the registrar, the record that
//! an answer waits for, and the cut signals. What the bytes mean is [`Protocol`]'s to say. Nothing
//! is let through past a cut.

mod end;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use curfew_entry::{ActionDetail, ClosedBy, Context, SessionId};
use curfew_gate::Presenter;
use curfew_gate::permit::{Busy, Cut, CutSignal, Permit};
use curfew_gate::recorder::Unrecorded;
use curfew_gate::registrar::{Asked, Refusal};
use futures_util::future::select_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::Plane;
use super::cancel::Issued;
use super::frame::{Complaint, Severity};
use super::protocol::{Ask, Broken, Buffers, Protocol, Right, Want};
use super::sql::{Class, Statement, TextRules};
use super::upstream::{CancelHandle, Database, Stream, Upstream};
use super::words::Words;

/// What is read at once from either side. With what may wait on either side and in the unit a
/// connection holds at most about 700 KiB, and at rest 16.
const READ_BYTES: usize = 8 * 1_024;
/// How often a client that is not read is looked at: it may have left.
const LOOK: Duration = Duration::from_secs(1);

type Deciding = Pin<Box<dyn Future<Output = Decided> + Send>>;

/// What a relay is made of.
pub(crate) struct Parts<C> {
    pub(crate) plane: Arc<Plane>,
    pub(crate) database: Database,
    pub(crate) words: Words,
    pub(crate) context: Context,
    pub(crate) client: C,
    /// Says whether the client has closed its side, without reading.
    pub(crate) hangup: Hangup,
    pub(crate) read: BytesMut,
    pub(crate) upstream: Upstream,
    pub(crate) issued: Issued,
    /// A text that nobody can guess.
    pub(crate) no_portal: String,
}

/// Whether a client has closed its side.
pub(crate) type Hangup = Box<dyn Fn() -> bool + Send>;

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
    hangup: Hangup,
    /// The client sends nothing more.
    client_ended: bool,
    server: Halves<Box<dyn Stream>>,
    protocol: Protocol<Arc<Permit>>,
    /// What the registrar or the parser is asked.
    deciding: Option<Deciding>,
    /// Holds the session active while the server works on what the person started.
    busy: Option<Busy>,
    to_client: Written,
    to_server: Written,
}

/// How far one direction has been written.
#[derive(Debug, Default)]
struct Written {
    /// Perhaps not flushed.
    dirty: bool,
    bytes: u64,
}

/// What had to be waited for.
enum Decided {
    /// A long text has been read.
    Read(Arc<Statement>),
    /// The registrar has answered for a unit.
    Asked(Vec<Ask>, Box<Result<Asked, Refusal>>),
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

impl From<Broken> for End {
    fn from(Broken(what): Broken) -> Self {
        Self::Told(Complaint::fatal("08P01", what), ClosedBy::Protocol)
    }
}

/// What woke a relay.
enum Event {
    Cut(Cut),
    Decided(Decided),
    Recorded(Result<(), Unrecorded>),
    Client(std::io::Result<usize>),
    Looked,
    Server(std::io::Result<usize>),
    ToClient(std::io::Result<()>),
    ToServer(std::io::Result<()>),
}

impl Right for Arc<Permit> {
    fn lives(&self) -> bool {
        self.cut().now().is_none()
    }

    fn is_recorded(&self) -> bool {
        Permit::is_recorded(self)
    }

    fn skipped(&self, asks: &[usize]) {
        Permit::skipped(self, asks);
    }
}

impl Written {
    fn waits(&self, bytes: &BytesMut) -> bool {
        self.dirty || !bytes.is_empty()
    }

    /// Writes some, or flushes once all is written.
    async fn push<C: Stream>(
        &mut self,
        bytes: &mut BytesMut,
        to: &mut WriteHalf<C>,
    ) -> std::io::Result<()> {
        if bytes.is_empty() {
            to.flush().await?;
            self.dirty = false;
            return Ok(());
        }
        self.bytes += to.write_buf(bytes).await? as u64;
        self.dirty = true;
        Ok(())
    }

    /// Writes all there is and closes this direction.
    async fn push_all<C: Stream>(
        &mut self,
        bytes: &mut BytesMut,
        to: &mut WriteHalf<C>,
    ) -> std::io::Result<()> {
        while self.waits(bytes) {
            self.push(bytes, to).await?;
        }
        to.shutdown().await
    }
}

/// Waits until one of these is taken back; for ever where there is none.
async fn any_cut(rights: &[Arc<Permit>]) -> Cut {
    match rights {
        [] => std::future::pending().await,
        [one] => one.cut().fired().await,
        more => {
            let fired = more.iter().map(|right| Box::pin(right.cut().fired()));
            select_all(fired).await.0
        }
    }
}

async fn decided(deciding: &mut Option<Deciding>) -> Decided {
    match deciding {
        Some(deciding) => deciding.await,
        None => std::future::pending().await,
    }
}

/// Waits until all of these are recorded as far as they must be.
async fn recorded(rights: &[Arc<Permit>]) -> Result<(), Unrecorded> {
    for right in rights {
        right.recorded().await?;
    }
    Ok(())
}

async fn read<C: Stream>(from: &mut ReadHalf<C>, buffer: &mut BytesMut) -> std::io::Result<usize> {
    buffer.reserve(READ_BYTES);
    from.read_buf(buffer).await
}

/// Relays until one side ends it or a cut does. Returns once both are closed and the end is with
/// the registrar.
pub(crate) async fn run<C: Stream>(parts: Parts<C>) {
    // Held to the end: a cancel request finds the connection as long as it is here.
    let _issued = parts.issued;
    let upstream = parts.upstream;
    let mut protocol = Protocol::new(
        parts.read,
        upstream.rest,
        upstream.account.map(Class::of_account),
        parts.no_portal,
    );
    for (name, value) in &upstream.parameters {
        protocol.note_parameter(name, value);
    }
    let mut relay = Relay {
        session: upstream.permit.session().clone(),
        permit: upstream.permit,
        cancel: upstream.cancel,
        client: tokio::io::split(parts.client),
        hangup: parts.hangup,
        client_ended: false,
        server: tokio::io::split(upstream.stream),
        protocol,
        deciding: None,
        busy: None,
        to_client: Written::default(),
        to_server: Written::default(),
        plane: parts.plane,
        database: parts.database,
        words: parts.words,
        context: parts.context,
    };
    let end = relay.relay().await;
    relay.finish(end).await;
}

impl<C: Stream> Relay<C> {
    async fn relay(&mut self) -> End {
        let cut = self.permit.cut().clone();
        loop {
            match self.protocol.advance(&self.plane.classifier) {
                Ok(Some(want)) => self.decide(want),
                Ok(None) => {}
                Err(broken) => return broken.into(),
            }
            if self.protocol.server_is_broken() {
                tracing::warn!("the server does not speak PostgreSQL's protocol");
                return End::Server;
            }
            self.note_activity();
            if self.protocol.has_left() {
                return End::Client;
            }
            let happened = match self.next(&cut).await {
                Event::Cut(cut) => Err(End::Cut(cut)),
                Event::Decided(decided) => {
                    self.deciding = None;
                    self.decided(decided)
                }
                Event::Recorded(Err(unrecorded)) => {
                    self.replace_answer(&unrecorded.into());
                    Ok(())
                }
                Event::Client(Ok(0)) if self.protocol.client_ends() => {
                    self.client_ended = true;
                    Ok(())
                }
                Event::Looked if (self.hangup)() && !self.protocol.client_ends() => Err(End::Gone),
                Event::Client(Ok(0) | Err(_)) | Event::ToClient(Err(_)) => Err(End::Gone),
                Event::Server(Ok(0) | Err(_)) | Event::ToServer(Err(_)) => Err(End::Server),
                Event::Recorded(Ok(()))
                | Event::Client(Ok(_))
                | Event::Looked
                | Event::Server(Ok(_))
                | Event::ToClient(Ok(()))
                | Event::ToServer(Ok(())) => Ok(()),
            };
            if let Err(end) = happened {
                return end;
            }
        }
    }

    /// Waits for whatever comes first; a cut comes before everything.
    async fn next(&mut self, cut: &CutSignal) -> Event {
        let rights = self.protocol.rights().to_vec();
        let waits_for_record = self.protocol.waits_for_record();
        let reads_client = !self.client_ended && self.protocol.reads_client();
        let reads_server = self.protocol.reads_server();
        let Buffers {
            from_client,
            from_server,
            to_client,
            to_server,
        } = self.protocol.buffers();
        let writes_client = self.to_client.waits(to_client);
        let writes_server = self.to_server.waits(to_server);
        tokio::select! {
            biased;
            cut = cut.fired() => Event::Cut(cut),
            cut = any_cut(&rights) => Event::Cut(cut),
            decided = decided(&mut self.deciding) => Event::Decided(decided),
            recorded = recorded(&rights), if waits_for_record => Event::Recorded(recorded),
            result = self.to_server.push(to_server, &mut self.server.1), if writes_server => {
                Event::ToServer(result)
            }
            result = self.to_client.push(to_client, &mut self.client.1), if writes_client => {
                Event::ToClient(result)
            }
            result = read(&mut self.server.0, from_server), if reads_server => Event::Server(result),
            result = read(&mut self.client.0, from_client), if reads_client => Event::Client(result),
            () = tokio::time::sleep(LOOK), if !reads_client && !self.client_ended => Event::Looked,
        }
    }

    /// What the person does keeps the session active: statements that run, and copy data.
    fn note_activity(&mut self) {
        if self.protocol.take_copied() {
            self.permit.activity().touch();
        }
        if !self.protocol.server_works() {
            self.busy = None;
        } else if self.busy.is_none() {
            self.busy = Some(self.permit.activity().busy());
        }
    }

    /// Has something read or asked for.
    fn decide(&mut self, want: Want) {
        self.deciding = Some(match want {
            Want::Read(text, rules) => self.read_long(text, rules),
            Want::Ask(asks) => self.ask(asks),
        });
    }

    fn read_long(&self, text: Vec<u8>, rules: TextRules) -> Deciding {
        let plane = Arc::clone(&self.plane);
        Box::pin(async move { Decided::Read(plane.classifier.classify_long(text, rules).await) })
    }

    /// Asks whether these may be done, one after the other.
    fn ask(&self, asks: Vec<Ask>) -> Deciding {
        let questions = asks.iter().map(|ask| self.question(ask)).collect();
        let (plane, record) = (Arc::clone(&self.plane), self.database.record);
        Box::pin(async move {
            let answer = plane.setup.registrar.ask_all(questions, record).await;
            Decided::Asked(asks, Box::new(answer))
        })
    }

    fn question(&self, ask: &Ask) -> curfew_gate::Ask {
        let statement = &ask.statement;
        let action = ActionDetail {
            connection: Some(self.permit.entry()),
            statement: Some(statement.text.to_string()),
            fingerprint: statement.fingerprint.as_deref().map(str::to_owned),
            prepares: ask.prepares,
            ..ActionDetail::new(ask.class.verb(), self.database.name.clone())
        };
        curfew_gate::Ask {
            presenter: Presenter::Session(self.session.clone()),
            action,
            context: self.context.clone(),
        }
    }

    /// What was waited for is here.
    fn decided(&mut self, decided: Decided) -> Result<(), End> {
        match decided {
            Decided::Read(statement) => {
                if let Some(want) = self.protocol.text_read(statement)? {
                    self.decide(want);
                }
            }
            Decided::Asked(asks, answer) => {
                let asked = (*answer).unwrap_or_else(|refusal| Asked {
                    permit: None,
                    allowed: 0,
                    refusal: Some(refusal),
                });
                let refusal = match (asked.refusal, asks.get(asked.allowed)) {
                    (Some(refusal), Some(ask)) => Some(self.complain(&refusal, ask)?),
                    _ => None,
                };
                let permit = asked.permit.map(Arc::new);
                let (within, refusal) = match self.beyond_account(&asks, asked.allowed) {
                    Some((at, complaint)) => (at, Some(complaint)),
                    None => (asked.allowed, refusal),
                };
                if let (Some(permit), true) = (&permit, within < asked.allowed) {
                    permit.skipped(&(within..asked.allowed).collect::<Vec<_>>());
                }
                self.protocol.answered(permit, within, refusal);
            }
        }
        Ok(())
    }

    /// The first of what policy permits that the connection's account cannot do.
    fn beyond_account(&self, asks: &[Ask], allowed: usize) -> Option<(usize, Complaint)> {
        let mut allowed = asks.iter().take(allowed).enumerate();
        allowed.find_map(|(at, ask)| Some((at, self.words.beyond_account(ask.class.verb())?)))
    }

    /// What the client is told. A refusal that ends the connection ends it here.
    fn complain(&self, refusal: &Refusal, ask: &Ask) -> Result<Complaint, End> {
        let complaint = self.words.refusal(refusal, ask.class.verb());
        if let (Refusal::StepUp(_) | Refusal::Denied(_), Some(mistake)) =
            (refusal, &ask.statement.mistake)
        {
            return Ok(self.words.mistaken(mistake, ask.class.verb()));
        }
        if complaint.severity == Severity::Fatal {
            let by = match refusal {
                Refusal::Unavailable(_) => ClosedBy::Shutdown,
                Refusal::Unauthenticated
                | Refusal::Ended { .. }
                | Refusal::StepUp(_)
                | Refusal::Denied(_) => ClosedBy::SessionEnd,
            };
            return Err(End::Told(complaint, by));
        }
        Ok(complaint)
    }

    /// The record of what is being answered has failed: the client is told instead of the answer.
    fn replace_answer(&mut self, refusal: &Refusal) {
        let complaint = self.words.refusal(refusal, Class::Read.verb());
        self.protocol.replace_answer(&complaint);
    }
}
