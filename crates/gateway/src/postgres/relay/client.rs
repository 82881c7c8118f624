//! From the client to the server: what is asked for, and what the registrar says to it.

use std::sync::Arc;

use bytes::BytesMut;
use curfew_authority::ClosedBy;

use super::super::frame::{
    self, Complaint, HEAD_BYTES, Head, INSPECTED_BYTES_MAX, NAMES_BYTES_MAX, Severity, Way,
    take_text,
};
use super::super::sql::{Class, Statement};
use super::super::track::{Running, TooMany};
use super::super::upstream::Stream;
use super::{End, Relay};
use crate::permit::Permit;
use crate::registrar::Refusal;

/// The largest message of a type that holds a name or less.
const SMALL_BYTES_MAX: usize = 8 * 1_024;

/// What had to be waited for.
pub(super) enum Decided {
    /// A long text has been read.
    Read {
        message: BytesMut,
        statement: Arc<Statement>,
    },
    /// The registrar has answered for a simple query.
    Query {
        message: BytesMut,
        statement: Arc<Statement>,
        class: Class,
        answer: Result<Permit, Refusal>,
    },
    /// The registrar has answered for the run of a portal.
    Execute {
        message: BytesMut,
        portal: Box<[u8]>,
        statement: Arc<Statement>,
        class: Class,
        answer: Result<Permit, Refusal>,
    },
}

fn broken(what: &str) -> End {
    End::Told(Complaint::fatal("08P01", what), ClosedBy::Protocol)
}

fn too_many() -> Complaint {
    Complaint::error(
        "53400",
        "too many prepared statements or portals on one connection",
    )
    .hint("Close those that are no longer needed.")
}

fn too_long() -> Complaint {
    Complaint::error("54000", "the statement is too long")
        .detail(format!(
            "A statement may have {INSPECTED_BYTES_MAX} bytes here."
        ))
        .hint("Send values as parameters, or load data with COPY.")
}

impl<C: Stream> Relay<C> {
    /// Takes what the client has sent, as far as it may go on.
    pub(super) fn take_client(&mut self) -> Result<(), End> {
        while self.deciding.is_none()
            && !self.leaving
            && self.to_server.has_room()
            && !self.track.is_full()
            && self.from_client.flow(&mut self.to_server.bytes)
        {
            let Some(head) = self.from_client.head()? else {
                break;
            };
            if self.skipping && !matches!(head.tag, b'S' | b'X') {
                self.from_client.begin(head, Way::Drop);
                continue;
            }
            if !self.take_message(head)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes one message. False where more of it is needed.
    fn take_message(&mut self, head: Head) -> Result<bool, End> {
        match head.tag {
            b'Q' if head.total > INSPECTED_BYTES_MAX => {
                self.from_client.begin(head, Way::Drop);
                self.refuse(too_long());
            }
            b'P' if head.total > INSPECTED_BYTES_MAX => {
                self.from_client.begin(head, Way::Drop);
                self.poison(too_long());
            }
            // It calls a function by number, past everything that reads statements.
            b'F' => {
                self.from_client.begin(head, Way::Drop);
                self.refuse(
                    Complaint::error(
                        "0A000",
                        "function calls by protocol message are not supported",
                    )
                    .hint("Call the function with SELECT."),
                );
            }
            b'B' => return self.take_bind(head),
            b'd' => {
                self.permit.activity().touch();
                self.from_client.begin(head, Way::Pass);
            }
            b'c' | b'f' => {
                self.track.copy_end();
                self.from_client.begin(head, Way::Pass);
            }
            b'Q' | b'P' => {
                let Some(message) = self.from_client.whole(head) else {
                    return Ok(false);
                };
                self.take_text(message)?;
            }
            b'E' | b'D' | b'C' | b'S' | b'H' | b'X' if head.total <= SMALL_BYTES_MAX => {
                let Some(message) = self.from_client.whole(head) else {
                    return Ok(false);
                };
                self.take_small(head.tag, message)?;
            }
            tag => {
                return Err(broken(&format!(
                    "invalid frontend message type or length: {tag}"
                )));
            }
        }
        Ok(true)
    }

    fn take_small(&mut self, tag: u8, message: BytesMut) -> Result<(), End> {
        let body = message.get(HEAD_BYTES..).unwrap_or_default();
        match tag {
            b'E' => return self.take_execute(message),
            b'D' | b'C' => {
                let named = body.split_first().and_then(|(kind, mut rest)| {
                    Some((*kind, take_text(&mut rest)?)).filter(|_| rest.is_empty())
                });
                match named {
                    Some((b'S' | b'P', _)) if tag == b'D' => self.track.describe(),
                    Some((kind @ (b'S' | b'P'), name)) => self.track.close(kind == b'P', name),
                    _ => return Err(broken("malformed Describe or Close")),
                }
            }
            b'S' => {
                self.skipping = false;
                self.track.sync();
            }
            b'X' => {
                self.leaving = true;
                return Ok(());
            }
            _ => {}
        }
        self.to_server.bytes.extend_from_slice(&message);
        Ok(())
    }

    /// A Bind's values may be long and pass untouched; its names stand at the front.
    fn take_bind(&mut self, head: Head) -> Result<bool, End> {
        let peeked = self.from_client.peek(head);
        let mut rest = peeked;
        let names = take_text(&mut rest).and_then(|portal| Some((portal, take_text(&mut rest)?)));
        let Some((portal, statement)) = names else {
            let all_here = peeked.len() >= NAMES_BYTES_MAX.min(head.total - HEAD_BYTES);
            return if all_here {
                Err(broken("malformed Bind"))
            } else {
                Ok(false)
            };
        };
        match self.track.bind(portal, statement) {
            Ok(()) => self.from_client.begin(head, Way::Pass),
            Err(TooMany) => {
                self.from_client.begin(head, Way::Drop);
                self.poison(too_many());
            }
        }
        Ok(true)
    }

    /// A Query or a Parse: its text is read, at once or on another thread.
    fn take_text(&mut self, message: BytesMut) -> Result<(), End> {
        let Some(text) = text_of(&message) else {
            return Err(broken("malformed Query or Parse"));
        };
        if !self.can_read(text) {
            let statement = Arc::new(Statement::unreadable(text.len()));
            return self.read(message, statement);
        }
        if let Some(statement) = self.plane.classifier.classify(text) {
            return self.read(message, statement);
        }
        let (plane, text) = (Arc::clone(&self.plane), text.to_vec());
        self.deciding = Some(Box::pin(async move {
            let statement = plane.classifier.classify_long(text).await;
            Decided::Read { message, statement }
        }));
        Ok(())
    }

    /// Whether the server reads this text as we do.
    fn can_read(&self, text: &[u8]) -> bool {
        (self.encoding_readable || text.is_ascii())
            && (self.plain_literals || !text.contains(&b'\\'))
    }

    /// The text of a Query or Parse has been read.
    fn read(&mut self, message: BytesMut, statement: Arc<Statement>) -> Result<(), End> {
        let mut body = message.get(HEAD_BYTES..).unwrap_or_default();
        if message.first() == Some(&b'P') {
            let name = take_text(&mut body).ok_or_else(|| broken("malformed Parse"))?;
            match self.track.parse(name, statement) {
                Ok(()) => self.to_server.bytes.extend_from_slice(&message),
                Err(TooMany) => self.poison(too_many()),
            }
            return Ok(());
        }
        let class = self.class_of(&statement);
        let asked = self.ask(&statement, class);
        self.deciding = Some(Box::pin(async move {
            let answer = asked.await;
            Decided::Query {
                message,
                statement,
                class,
                answer,
            }
        }));
        Ok(())
    }

    /// The class of a statement with what it runs by name.
    fn class_of(&self, statement: &Statement) -> Class {
        let executed = statement
            .executes
            .iter()
            .map(|name| self.track.prepared_class(name));
        let fetched = statement
            .fetches
            .iter()
            .map(|name| self.track.fetched_class(name));
        executed.chain(fetched).fold(statement.class, Class::max)
    }

    fn take_execute(&mut self, message: BytesMut) -> Result<(), End> {
        let mut body = message.get(HEAD_BYTES..).unwrap_or_default();
        let portal: Box<[u8]> = match take_text(&mut body) {
            Some(portal) if body.len() == 4 => portal.into(),
            _ => return Err(broken("malformed Execute")),
        };
        if let Some(permit) = self.track.resume(&portal) {
            self.run(permit, &portal, &message);
            return Ok(());
        }
        let statement = match self.track.portal(&portal) {
            Some(statement) => Arc::clone(statement),
            None => Arc::new(Statement::unknown()),
        };
        let class = self.class_of(&statement);
        let asked = self.ask(&statement, class);
        self.deciding = Some(Box::pin(async move {
            let answer = asked.await;
            Decided::Execute {
                message,
                portal,
                statement,
                class,
                answer,
            }
        }));
        Ok(())
    }

    fn run(&mut self, permit: Permit, portal: &[u8], message: &[u8]) {
        self.track.execute(Running::new(permit), portal);
        self.to_server.bytes.extend_from_slice(message);
    }

    /// What was waited for is here.
    pub(super) fn decided(&mut self, decided: Decided) -> Result<(), End> {
        match decided {
            Decided::Read { message, statement } => self.read(message, statement),
            Decided::Query {
                message,
                statement,
                class,
                answer,
            } => match answer {
                Ok(permit) => {
                    match self.words.beyond_account(class.verb()) {
                        Some(complaint) => self.refuse(complaint),
                        None => self.start_query(permit, &statement, &message),
                    }
                    Ok(())
                }
                Err(refusal) => {
                    let complaint = self.complain(&refusal, class)?;
                    self.refuse(complaint);
                    Ok(())
                }
            },
            Decided::Execute {
                message,
                portal,
                statement,
                class,
                answer,
            } => match answer {
                Ok(permit) => {
                    if let Some(complaint) = self.words.beyond_account(class.verb()) {
                        self.poison(complaint);
                        return Ok(());
                    }
                    match self.note_prepared(&statement) {
                        Ok(()) => self.run(permit, &portal, &message),
                        Err(TooMany) => self.poison(too_many()),
                    }
                    Ok(())
                }
                Err(refusal) => {
                    let complaint = self.complain(&refusal, class)?;
                    self.poison(complaint);
                    Ok(())
                }
            },
        }
    }

    fn start_query(&mut self, permit: Permit, statement: &Statement, message: &[u8]) {
        if self.note_prepared(statement) == Err(TooMany) {
            self.refuse(too_many());
            return;
        }
        self.track.query(Running::new(permit));
        self.to_server.bytes.extend_from_slice(message);
    }

    /// Takes in what a text prepares by name.
    fn note_prepared(&mut self, statement: &Statement) -> Result<(), TooMany> {
        for (name, class) in &statement.prepares {
            let prepared = Arc::new(Statement {
                class: *class,
                ..statement.clone()
            });
            self.track.prepare(name, prepared)?;
        }
        Ok(())
    }

    /// What the client is told. A refusal that ends the connection ends it here.
    fn complain(&self, refusal: &Refusal, class: Class) -> Result<Complaint, End> {
        let complaint = self.words.refusal(refusal, class.verb());
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

    /// Refuses a simple query: the client hears of it after the answers before it.
    fn refuse(&mut self, complaint: Complaint) {
        if !self.track.is_idle() {
            // Answers before it may still be held back by the server.
            frame::message(&mut self.to_server.bytes, b'H', |_| {});
        }
        self.track.refuse(complaint);
    }

    /// Refuses a message of the extended protocol: the server is made to fail in its place, so
    /// that what was pipelined with it falls with it, as for any other error.
    fn poison(&mut self, complaint: Complaint) {
        frame::execute(&mut self.to_server.bytes, &self.no_portal);
        self.track.poison(complaint);
        self.skipping = true;
    }
}

/// The statement's text in a Query or a Parse.
fn text_of(message: &[u8]) -> Option<&[u8]> {
    let mut body = message.get(HEAD_BYTES..)?;
    if message.first() == Some(&b'P') {
        take_text(&mut body)?;
        return take_text(&mut body);
    }
    take_text(&mut body).filter(|_| body.is_empty())
}
