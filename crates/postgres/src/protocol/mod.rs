//! One connection's protocol, as a state machine over bytes. No I/O, no clock, no task.
//!
//! Bytes of both sides come in, bytes for both sides go out, and questions come out between: what
//! the client asks for is gathered into a *unit*, up to its Sync or Flush, and nothing of a unit is
//! sent upstream before all of it is answered for. At most one unit is upstream at a time. So
//! nothing is queued there when a session ends, an error skips what it skips at the server, and no
//! text is read while something is under way that could change how it is read.

mod calls;
mod client;
mod names;
mod send;
mod server;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod unit;

use bytes::BytesMut;

use self::names::Names;
pub(crate) use self::unit::Ask;
use self::unit::{Outcome, Unit};
use super::frame::{self, Complaint, FrameError, FrameSplitter, Way};
use super::sql::{Class, Classifier, TextRules};

/// What may wait to be written to either side; beyond, the other side is not read.
const OUT_BYTES_MAX: usize = 64 * 1_024;
/// What may wait here of the client's messages while a unit is upstream: two of the largest reads.
const IN_BYTES_MAX: usize = 256 * 1_024;

/// The right to run what was asked for. It lives until it is taken back or let go.
pub(crate) trait Right: Clone {
    /// Whether it has not been taken back.
    fn lives(&self) -> bool;
    /// Whether its record has come as far as it must before an answer may be let out.
    fn is_recorded(&self) -> bool;
    /// Of what was asked for together with it, these places were never done.
    fn skipped(&self, asks: &[usize]);
}

/// What the machine needs from outside before it can go on.
#[derive(Debug)]
pub(crate) enum Want {
    /// This text is to be read, which takes a while: [`Protocol::text_read`].
    Read(Vec<u8>, TextRules),
    /// These are to be asked for, in this order: [`Protocol::answered`].
    Ask(Vec<Ask>),
}

/// The client broke the protocol, in these words.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self(error.to_string())
    }
}

/// Where bytes are read into and written from.
pub(crate) struct Buffers<'a> {
    pub(crate) from_client: &'a mut BytesMut,
    pub(crate) from_server: &'a mut BytesMut,
    pub(crate) to_client: &'a mut BytesMut,
    pub(crate) to_server: &'a mut BytesMut,
}

/// Where the unit stands.
#[derive(Debug)]
enum Phase {
    /// It is being gathered from what the client sends.
    Gathering,
    /// A long text of it is being read.
    Reading(BytesMut),
    /// It is being asked for.
    Asking,
    /// It has been sent and is not answered in full.
    Upstream,
    /// The server waits for the client's copy data.
    CopyIn,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Protocol<P> {
    from_client: FrameSplitter,
    from_server: FrameSplitter,
    to_client: BytesMut,
    to_server: BytesMut,
    phase: Phase,
    unit: Unit<P>,
    names: Names<P>,
    rules: TextRules,
    /// Something has run since the last ReadyForQuery that may have changed the rules. Servers from
    /// version 14 on tell of it with the next.
    in_doubt: bool,
    /// What the database holds this connection's account to.
    account: Option<Class>,
    /// The transaction status of the newest ReadyForQuery.
    status: u8,
    /// Something was sent upstream since then.
    open: bool,
    /// The client's messages are thrown away up to its next Sync, as the server does after an error.
    skipping: bool,
    /// The client has said goodbye.
    leaving: bool,
    /// The server's messages are thrown away up to its next ReadyForQuery: the record of what they
    /// answer has failed, and the client has been told.
    replacing: bool,
    /// A long message of the client's is passing through, the last one of the unit.
    streaming: bool,
    /// The client has sent copy data since this was last asked.
    copied: bool,
    /// The type of the newest message that went to the client.
    last: u8,
    /// A portal that does not exist: running it makes the server fail.
    no_portal: String,
}

impl<P: Right> Protocol<P> {
    /// Of a connection that stands. `read` is what the client has sent since, `rest` what the
    /// server has; `account` is the class that the database holds the connection's account to.
    pub(crate) fn new(
        read: BytesMut,
        rest: BytesMut,
        account: Option<Class>,
        no_portal: String,
    ) -> Self {
        Self {
            from_client: FrameSplitter::new(read),
            from_server: FrameSplitter::new(rest),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
            phase: Phase::Gathering,
            unit: Unit::new(),
            names: Names::new(),
            rules: TextRules::default(),
            in_doubt: false,
            account,
            status: b'I',
            open: false,
            skipping: false,
            leaving: false,
            replacing: false,
            streaming: false,
            copied: false,
            last: 0,
            no_portal,
        }
    }

    /// Takes in a setting that the server has told.
    pub(crate) fn note_parameter(&mut self, name: &str, value: &str) {
        self.rules.note(name, value);
    }

    /// Goes on as far as it can. Answers first: they make room for questions.
    pub(crate) fn advance(&mut self, classifier: &Classifier) -> Result<Option<Want>, Broken> {
        loop {
            self.take_server();
            let (phase, out) = (std::mem::discriminant(&self.phase), self.to_client.len());
            let want = self.take_client(classifier)?;
            let moved = phase != std::mem::discriminant(&self.phase) || out != self.to_client.len();
            // What the client sent may have made room for an answer that is here already.
            if want.is_some() || !moved {
                return Ok(want);
            }
        }
    }

    /// Whether more of the client's bytes are taken.
    pub(crate) fn reads_client(&self) -> bool {
        let takes = matches!(self.phase, Phase::Gathering | Phase::CopyIn) || self.streaming;
        self.to_server.len() < OUT_BYTES_MAX
            && (takes || self.from_client.waiting() < IN_BYTES_MAX)
            && !self.leaving
    }

    /// Whether more of the server's bytes are taken: not while the client does not take what is
    /// here, or the record of what they answer is not durable.
    pub(crate) fn reads_server(&self) -> bool {
        self.to_client.len() < OUT_BYTES_MAX && !self.waits_for_record()
    }

    /// Where bytes are read into and written from.
    pub(crate) fn buffers(&mut self) -> Buffers<'_> {
        Buffers {
            from_client: self.from_client.buffer(),
            from_server: self.from_server.buffer(),
            to_client: &mut self.to_client,
            to_server: &mut self.to_server,
        }
    }

    /// The rights of what is upstream, each to be watched.
    pub(crate) fn rights(&self) -> &[P] {
        &self.unit.rights
    }

    /// Whether an answer may not be let out because its record has not come far enough.
    pub(crate) fn waits_for_record(&self) -> bool {
        !self.replacing && self.is_running() && !self.unit.rights.iter().all(Right::is_recorded)
    }

    /// Whether a unit is upstream and not answered in full.
    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Upstream | Phase::CopyIn)
    }

    /// Whether the server works on something. Waiting for the client is not that: for its copy data,
    /// the rest of a message, or to take what has been answered.
    pub(crate) fn server_works(&self) -> bool {
        // A mere Sync, or a Close, is the client's program and not the person.
        matches!(self.phase, Phase::Upstream)
            && !self.unit.rights.is_empty()
            && !self.streaming
            && self.to_client.len() < OUT_BYTES_MAX
    }

    /// Whether the client has sent copy data since this was last asked.
    pub(crate) fn take_copied(&mut self) -> bool {
        std::mem::take(&mut self.copied)
    }

    /// Whether the client has said goodbye and all that it asked for before is answered.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving && !self.is_running() && self.to_client.is_empty()
    }

    /// The client sends nothing more. Whether it had said goodbye, so that what it asked for before
    /// is still to be done.
    pub(crate) fn client_ends(&mut self) -> bool {
        self.leaving
            || (!self.streaming
                && !matches!(self.phase, Phase::CopyIn)
                && self.from_client.ends_with(b'X'))
    }

    /// The transaction status of the newest ReadyForQuery.
    pub(crate) const fn status(&self) -> u8 {
        self.status
    }

    /// Whether the newest message to the client was an error.
    pub(crate) const fn has_told_error(&self) -> bool {
        self.last == b'E'
    }

    /// The record of what is being answered has failed: the client is told instead of the answer.
    pub(crate) fn replace_answer(&mut self, complaint: &Complaint) {
        complaint.write(&mut self.to_client);
        self.last = b'E';
        self.replacing = true;
        // The client skips to its Sync now; what it sends before has not been asked for.
        self.skipping |= self.unit.end == Outcome::Flush;
    }

    /// Puts the connection's last words after what is here already, unless they would go into the
    /// middle of a message.
    pub(crate) fn tell_last(&mut self, complaint: &Complaint) {
        let through = self.from_server.flow(&mut self.to_client);
        if through || !self.from_server.is_inside() {
            complaint.write(&mut self.to_client);
        }
    }

    /// Says goodbye to the server, and takes back what has not been sent yet. Where that leaves half
    /// a message there is nothing to be said: the server would take it for the rest.
    pub(crate) fn terminate(&mut self) {
        let between = self.to_server.is_empty() && !self.from_client.is_inside();
        self.to_server.clear();
        if !between {
            return;
        }
        if matches!(self.phase, Phase::CopyIn) {
            frame::copy_fail(&mut self.to_server, "the client has left");
        }
        frame::terminate(&mut self.to_server);
    }

    /// Throws away what the server answers. Whether anything is still running.
    pub(crate) fn discard_answers(&mut self) -> bool {
        self.replacing = true;
        self.take_server();
        self.to_client.clear();
        self.is_running()
    }

    /// The unit is over.
    fn end_unit(&mut self) {
        if let (false, Some(right)) = (self.unit.skipped.is_empty(), &self.unit.right) {
            right.skipped(&self.unit.skipped);
        }
        self.unit = Unit::new();
        self.phase = Phase::Gathering;
    }

    /// Throws the message of the client's away that waits or passes.
    fn drop_rest(&mut self, head: frame::Head) {
        self.from_client.begin(head, Way::Drop);
    }
}
