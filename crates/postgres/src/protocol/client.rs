//! From the client to the server: what is asked for is gathered into units.

use std::sync::Arc;

use bytes::BytesMut;

use super::super::frame::{
    self, Complaint, HEAD_BYTES, Head, INSPECTED_BYTES_MAX, NAMES_BYTES_MAX, Way, take_text,
};
use super::super::sql::{Classifier, Statement, TextRules};
use super::names::{Portal, TooMany};
use super::unit::{Ask, HELD_BYTES_MAX, Outcome, Sent, Tail, Unit};
use super::{Broken, OUT_BYTES_MAX, Phase, Protocol, Right, Want, calls};

/// The largest message of a type that holds a name or less.
const SMALL_BYTES_MAX: usize = 8 * 1_024;

/// What came of the client's next message.
enum Taken {
    /// It is part of the unit; the next can be looked at.
    Gathered,
    /// More of it has to come.
    Waits,
    /// The unit is whole.
    Whole,
    /// Its text has to be read first.
    Reads(Vec<u8>),
}

fn too_many() -> Complaint {
    Complaint::error(
        "53400",
        "too many prepared statements or portals on one connection",
    )
    .hint("Close those that are no longer needed.")
}

fn malformed(what: &str) -> Broken {
    Broken(format!("malformed {what}"))
}

impl<P: Right> Protocol<P> {
    /// Takes what the client has sent, as far as it may go on.
    pub(super) fn take_client(&mut self, classifier: &Classifier) -> Result<Option<Want>, Broken> {
        loop {
            match self.phase {
                Phase::Reading(_) | Phase::Asking => return Ok(None),
                Phase::Upstream => {
                    self.stream();
                    return Ok(None);
                }
                Phase::CopyIn => {
                    if !self.take_copy()? {
                        return Ok(None);
                    }
                }
                Phase::Gathering => {
                    if self.leaving || !self.from_client.flow(&mut self.to_server) {
                        return Ok(None);
                    }
                    let Some(head) = self.from_client.head()? else {
                        return Ok(None);
                    };
                    match self.gather(head, classifier)? {
                        Taken::Gathered if !self.unit.is_full() => {}
                        Taken::Gathered | Taken::Whole => {
                            if let Some(want) = self.dispatch() {
                                return Ok(Some(want));
                            }
                        }
                        Taken::Waits => return Ok(None),
                        Taken::Reads(text) => {
                            return Ok(Some(Want::Read(text, self.text_rules())));
                        }
                    }
                }
            }
        }
    }

    /// Lets the unit's last message through as it comes.
    fn stream(&mut self) {
        if !self.streaming {
            return;
        }
        self.streaming = !self.from_client.flow(&mut self.to_server);
        if self.streaming {
            return;
        }
        if self.unit.end == Outcome::Flush {
            frame::flush(&mut self.to_server);
        }
        self.end_where_answered();
    }

    /// Takes a message while the server waits for copy data. False where more has to come.
    fn take_copy(&mut self) -> Result<bool, Broken> {
        if self.to_server.len() >= OUT_BYTES_MAX || !self.from_client.flow(&mut self.to_server) {
            return Ok(false);
        }
        let Some(head) = self.from_client.head()? else {
            return Ok(false);
        };
        match head.tag {
            b'd' => {
                self.copied |= head.total > HEAD_BYTES;
                self.from_client.begin(head, Way::Pass);
            }
            b'c' | b'f' => {
                self.from_client.begin(head, Way::Pass);
                self.streaming = true;
                self.phase = Phase::Upstream;
            }
            // The server ignores these until the copy's end, and the client knows that.
            b'S' | b'H' => self.drop_rest(head),
            tag => {
                let told = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
                frame::copy_fail(&mut self.to_server, &told);
                self.phase = Phase::Upstream;
            }
        }
        Ok(true)
    }

    /// Takes the client's next message into the unit.
    fn gather(&mut self, head: Head, classifier: &Classifier) -> Result<Taken, Broken> {
        if self.skipping && !matches!(head.tag, b'S' | b'X') {
            self.drop_rest(head);
            return Ok(Taken::Gathered);
        }
        match head.tag {
            // What came before has answers of its own.
            b'Q' | b'F' if !self.unit.is_empty() => Ok(Taken::Whole),
            b'F' => self.gather_call(head),
            b'Q' | b'P' => self.gather_text(head, classifier),
            b'B' => self.gather_bind(head),
            // The rest of a copy that has failed.
            b'd' | b'c' | b'f' => {
                self.drop_rest(head);
                Ok(Taken::Gathered)
            }
            b'E' | b'D' | b'C' | b'S' | b'H' | b'X' if head.total <= SMALL_BYTES_MAX => {
                match self.from_client.whole(head) {
                    Some(message) => self.gather_small(head.tag, &message),
                    None => Ok(Taken::Waits),
                }
            }
            tag => Err(Broken(format!(
                "invalid frontend message type or length: {tag}"
            ))),
        }
    }

    fn gather_small(&mut self, tag: u8, message: &[u8]) -> Result<Taken, Broken> {
        let body = message.get(HEAD_BYTES..).unwrap_or_default();
        match tag {
            b'E' => return self.gather_execute(message, body),
            b'D' | b'C' => return self.gather_named(tag, message, body),
            b'S' => {
                self.skipping = false;
                self.unit.bytes.extend_from_slice(message);
                self.unit.sent.push_back(Sent::Sync);
                self.unit.end = Outcome::Sync;
                return Ok(Taken::Whole);
            }
            // Where nothing waits for an answer there is nothing to flush.
            b'H' if self.unit.is_empty() => {}
            b'H' => return Ok(Taken::Whole),
            _ => {
                // What the server would not have committed is not begun.
                self.undo_all();
                self.unit = Unit::new();
                self.leaving = true;
            }
        }
        Ok(Taken::Gathered)
    }

    /// A Describe or Close.
    fn gather_named(&mut self, tag: u8, message: &[u8], body: &[u8]) -> Result<Taken, Broken> {
        let named = body.split_first().and_then(|(kind, mut rest)| {
            let name = take_text(&mut rest)?;
            (rest.is_empty() && matches!(kind, b'S' | b'P')).then_some((*kind == b'P', name))
        });
        let (portal, name) = named.ok_or_else(|| malformed("Describe or Close"))?;
        let rules = self.text_rules();
        let name = rules.name(name);
        let sent = if tag == b'C' {
            Sent::Close(self.names.close(portal, name.as_deref()))
        } else {
            if !portal {
                self.ask_prepare(name.as_deref());
            }
            Sent::Describe
        };
        self.push(message, sent);
        Ok(Taken::Gathered)
    }

    fn push(&mut self, message: &[u8], sent: Sent<P>) {
        self.unit.bytes.extend_from_slice(message);
        self.unit.sent.push_back(sent);
    }

    /// A statement of this name is read again: it is asked for unless that is done in this unit.
    fn ask_prepare(&mut self, name: Option<&str>) {
        let spoken = |(parsed, _): &(Box<str>, usize)| Some(&**parsed) == name;
        if self.unit.parsed.iter().any(spoken) {
            return;
        }
        let statement = self.statement(name);
        let ask = self.ask(statement, true);
        let at = self.unit.ask(ask);
        if let Some(name) = name {
            self.unit.parsed.push((name.into(), at));
        }
    }

    fn statement(&self, name: Option<&str>) -> Arc<Statement> {
        let known = self.names.statement(name).cloned();
        known.unwrap_or_else(|| Arc::new(Statement::unknown()))
    }

    fn ask(&self, statement: Arc<Statement>, prepares: bool) -> Ask {
        Ask {
            class: self.names.reach(&statement).class(self.account),
            statement,
            prepares,
        }
    }

    fn gather_call(&mut self, head: Head) -> Result<Taken, Broken> {
        let peeked = self.from_client.peek(head);
        if peeked.len() < NAMES_BYTES_MAX.min(head.total - HEAD_BYTES) {
            return Ok(Taken::Waits);
        }
        let call = calls::read(peeked).ok_or_else(|| malformed("FunctionCall"))?;
        let statement = Arc::new(call);
        let ask = self.ask(Arc::clone(&statement), false);
        self.unit.ask(ask);
        self.unit.sent.push_back(Sent::Query(statement));
        self.unit.end = Outcome::Query;
        self.unit.tail = Some(Tail(head));
        Ok(Taken::Whole)
    }

    /// A Query or a Parse: its text is read, at once or on another thread.
    fn gather_text(&mut self, head: Head, classifier: &Classifier) -> Result<Taken, Broken> {
        if head.total > INSPECTED_BYTES_MAX {
            return self.gather_unread(head);
        }
        let Some(message) = self.from_client.whole(head) else {
            return Ok(Taken::Waits);
        };
        let text = text_of(&message).ok_or_else(|| malformed("Query or Parse"))?;
        match classifier.classify(text, self.text_rules()) {
            Some(statement) => self.add_text(&message, statement),
            None => {
                let text = text.to_vec();
                self.phase = Phase::Reading(message);
                Ok(Taken::Reads(text))
            }
        }
    }

    /// A text that is too long to be read: nothing is known of it.
    fn gather_unread(&mut self, head: Head) -> Result<Taken, Broken> {
        let statement = Arc::new(Statement::unreadable(head.total - HEAD_BYTES));
        if head.tag == b'Q' {
            let ask = self.ask(Arc::clone(&statement), false);
            self.unit.ask(ask);
            self.unit.sent.push_back(Sent::Query(statement));
            self.unit.end = Outcome::Query;
        } else {
            let mut peeked = self.from_client.peek(head);
            let Some(name) = take_text(&mut peeked).map(<[u8]>::to_vec) else {
                return self.name_waits(head, "Parse");
            };
            if !self.add_parse(&name, statement) {
                self.drop_rest(head);
                return Ok(Taken::Whole);
            }
        }
        self.unit.tail = Some(Tail(head));
        Ok(Taken::Whole)
    }

    fn name_waits(&self, head: Head, what: &str) -> Result<Taken, Broken> {
        let here = self.from_client.peek(head).len();
        if here >= NAMES_BYTES_MAX.min(head.total - HEAD_BYTES) {
            Err(malformed(what))
        } else {
            Ok(Taken::Waits)
        }
    }

    /// The rules by which the server will read the next text, as far as that is known.
    fn text_rules(&self) -> TextRules {
        if self.in_doubt || self.unit.sent.iter().any(Sent::may_change_rules) {
            self.rules.in_doubt()
        } else {
            self.rules
        }
    }

    /// A long text has been read.
    pub(crate) fn text_read(&mut self, statement: Arc<Statement>) -> Result<Option<Want>, Broken> {
        let phase = std::mem::replace(&mut self.phase, Phase::Gathering);
        let Phase::Reading(message) = phase else {
            self.phase = phase;
            return Ok(None);
        };
        match self.add_text(&message, statement)? {
            Taken::Gathered if !self.unit.is_full() => Ok(None),
            Taken::Gathered | Taken::Whole => Ok(self.dispatch()),
            Taken::Waits | Taken::Reads(_) => Ok(None),
        }
    }

    /// The text of a Query or Parse has been read.
    fn add_text(&mut self, message: &BytesMut, statement: Arc<Statement>) -> Result<Taken, Broken> {
        if message.first() == Some(&b'P') {
            let mut body = message.get(HEAD_BYTES..).unwrap_or_default();
            let name = take_text(&mut body).ok_or_else(|| malformed("Parse"))?;
            if !self.add_parse(name, statement) {
                return Ok(Taken::Whole);
            }
            self.unit.bytes.extend_from_slice(message);
            return Ok(Taken::Gathered);
        }
        if self.names.expect(&statement) == Err(TooMany) {
            self.refuse_here(too_many(), true);
            return Ok(Taken::Whole);
        }
        let ask = self.ask(Arc::clone(&statement), false);
        self.unit.ask(ask);
        self.push(message, Sent::Query(statement));
        self.unit.end = Outcome::Query;
        Ok(Taken::Whole)
    }

    /// A Parse, but for its bytes. False where it is refused.
    fn add_parse(&mut self, name: &[u8], statement: Arc<Statement>) -> bool {
        let rules = self.text_rules();
        let name = rules.name(name);
        let ask = self.ask(Arc::clone(&statement), true);
        match self.names.prepare(name.as_deref(), statement) {
            Ok(before) => {
                let at = self.unit.ask(ask);
                if let Some(name) = name.as_deref() {
                    self.unit.parsed.retain(|(parsed, _)| **parsed != *name);
                    self.unit.parsed.push((name.into(), at));
                }
                self.unit.sent.push_back(Sent::Parse(before, at));
                true
            }
            Err(TooMany) => {
                self.refuse_here(too_many(), false);
                false
            }
        }
    }

    /// A Bind's values may be long and pass untouched; its names stand at the front.
    fn gather_bind(&mut self, head: Head) -> Result<Taken, Broken> {
        let peeked = self.from_client.peek(head);
        let mut rest = peeked;
        let names = take_text(&mut rest)
            .and_then(|portal| Some((portal.to_vec(), take_text(&mut rest)?.to_vec())));
        let Some((portal, name)) = names else {
            return self.name_waits(head, "Bind");
        };
        let whole = if head.total > HELD_BYTES_MAX {
            None
        } else {
            match self.from_client.whole(head) {
                Some(message) => Some(message),
                None => return Ok(Taken::Waits),
            }
        };
        let bound = self.add_bind(&portal, &name);
        match whole {
            Some(message) if bound => {
                self.unit.bytes.extend_from_slice(&message);
                Ok(Taken::Gathered)
            }
            None if bound => {
                self.unit.tail = Some(Tail(head));
                Ok(Taken::Whole)
            }
            None => {
                self.drop_rest(head);
                Ok(Taken::Whole)
            }
            Some(_) => Ok(Taken::Whole),
        }
    }

    /// A Bind, but for its bytes. It is here that a statement is asked for: planning runs functions,
    /// and what follows runs the portal. False where it is refused.
    fn add_bind(&mut self, portal: &[u8], name: &[u8]) -> bool {
        let rules = self.text_rules();
        let (portal, name) = (rules.name(portal), rules.name(name));
        let statement = self.statement(name.as_deref());
        let expected = self.names.expect(&statement);
        let bound = self
            .names
            .bind(portal.as_deref(), Portal::new(Arc::clone(&statement)));
        let (Ok(()), Ok(before)) = (expected, bound) else {
            self.refuse_here(too_many(), false);
            return false;
        };
        let parsed = self
            .unit
            .parsed
            .iter()
            .position(|(parsed, _)| Some(&**parsed) == name.as_deref())
            .map(|at| self.unit.parsed.swap_remove(at).1);
        // What was parsed in this unit is asked for once, with its run, before it is parsed.
        let at = match parsed {
            Some(at) => {
                if let Some(ask) = self.unit.asks.get_mut(at) {
                    ask.prepares = false;
                }
                at
            }
            None => {
                let ask = self.ask(Arc::clone(&statement), false);
                self.unit.ask(ask)
            }
        };
        if let Some(portal) = portal.as_deref() {
            self.unit.bound.retain(|(bound, _)| **bound != *portal);
            self.unit.bound.push((portal.into(), at));
        }
        self.unit.sent.push_back(Sent::Bind(before, at));
        true
    }

    fn gather_execute(&mut self, message: &[u8], mut body: &[u8]) -> Result<Taken, Broken> {
        let portal = take_text(&mut body).filter(|_| body.len() == 4);
        let portal = portal.ok_or_else(|| malformed("Execute"))?;
        let rules = self.text_rules();
        let name = rules.name(portal);
        let known = self.names.portal(name.as_deref());
        let statement = known.map_or_else(
            || Arc::new(Statement::unknown()),
            |portal| Arc::clone(&portal.statement),
        );
        let bound_here = self
            .unit
            .bound
            .iter()
            .find(|(bound, _)| Some(&**bound) == name.as_deref())
            .map(|(_, at)| *at);
        let right = known
            .and_then(|portal| portal.right.clone())
            .filter(Right::lives);
        let ask = match (bound_here, right) {
            (Some(at), _) => Some(at),
            (None, Some(right)) => {
                self.unit.rights.push(right);
                None
            }
            (None, None) => {
                let known = known.is_some();
                let ask = self.ask(Arc::clone(&statement), false);
                let at = self.unit.ask(ask);
                if let (Some(name), true) = (name.as_deref(), known) {
                    self.unit.bound.push((name.into(), at));
                }
                Some(at)
            }
        };
        let copies_in = statement.copies_in;
        let portal = name.map(|name| Box::from(&*name));
        let sent = Sent::Execute {
            portal,
            statement,
            ask,
        };
        self.push(message, sent);
        // What follows goes on only once it is known whether the server takes in a copy.
        Ok(if copies_in {
            Taken::Whole
        } else {
            Taken::Gathered
        })
    }

    /// Refuses the message that would come next in the unit, without asking.
    fn refuse_here(&mut self, complaint: Complaint, simple: bool) {
        frame::execute(&mut self.unit.bytes, &self.no_portal);
        self.unit.sent.push_back(Sent::Poison(complaint));
        if simple {
            frame::sync(&mut self.unit.bytes);
            self.unit.sent.push_back(Sent::Sync);
            self.unit.end = Outcome::Sync;
        } else {
            self.skipping = true;
        }
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
