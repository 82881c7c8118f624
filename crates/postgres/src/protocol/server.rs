//! From the server to the client: answers pass untouched, each at its turn and once the record of
//! what they answer is durable.

use super::super::frame::{HEAD_BYTES, INSPECTED_BYTES_MAX, Way, take_text};
use super::unit::Sent;
use super::{OUT_BYTES_MAX, Phase, Protocol, Right};

/// Messages up to this size go on only when they are whole, so that a cut nearly always finds the
/// client between two messages, where it can be told why.
const HELD_BYTES_MAX: usize = 16 * 1_024;

impl<P: Right> Protocol<P> {
    /// Lets through what may go to the client.
    pub(super) fn take_server(&mut self) {
        while self.to_client.len() < OUT_BYTES_MAX && self.from_server.flow(&mut self.to_client) {
            // A length that is none ends the connection when the shell reads on: nothing passes here.
            let Ok(Some(head)) = self.from_server.head() else {
                break;
            };
            let waits = self.waits_for_record()
                || (head.total <= HELD_BYTES_MAX && self.from_server.waiting() < head.total);
            if waits {
                break;
            }
            if matches!(head.tag, b'Z' | b'S') && head.total <= INSPECTED_BYTES_MAX {
                let Some(message) = self.from_server.whole(head) else {
                    break;
                };
                // Its end is the end of what is replaced, and is not let out for it.
                let passes = !self.replacing || head.tag == b'Z';
                if passes {
                    self.to_client.extend_from_slice(&message);
                    self.last = head.tag;
                }
                self.note(&message);
                continue;
            }
            let replaced = self.answer(head.tag);
            if replaced || self.replacing {
                self.from_server.begin(head, Way::Drop);
            } else {
                self.from_server.begin(head, Way::Pass);
                self.last = head.tag;
            }
        }
    }

    /// Whether what the server sends is not its protocol.
    pub(crate) fn server_is_broken(&self) -> bool {
        self.from_server.head().is_err()
    }

    /// Reads a ReadyForQuery or a ParameterStatus.
    fn note(&mut self, message: &[u8]) {
        let mut body = message.get(HEAD_BYTES..).unwrap_or_default();
        if message.first() == Some(&b'Z') {
            self.ready(body.first().copied().unwrap_or(b'I'));
        } else if let (Some(name), Some(value)) = (take_text(&mut body), take_text(&mut body)) {
            let (name, value) = (
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value),
            );
            self.rules.note(&name, &value);
        }
    }

    /// Takes in that a message of this type begins. Whether ours has gone to the client in its
    /// place.
    fn answer(&mut self, tag: u8) -> bool {
        match tag {
            b'1' | b'2' | b'3' | b'n' | b'T' => self.answer_simple(tag),
            b'C' | b'I' | b's' => self.answer_execute(tag),
            b'E' => return self.answer_error(),
            b'G' => self.copy_begins(),
            _ => {}
        }
        false
    }

    fn answer_simple(&mut self, tag: u8) {
        let fits = match self.unit.sent.front() {
            Some(Sent::Parse(..)) => tag == b'1',
            Some(Sent::Bind(..)) => tag == b'2',
            Some(Sent::Close(_)) => tag == b'3',
            Some(Sent::Describe) => matches!(tag, b'n' | b'T'),
            _ => false,
        };
        if fits {
            self.unit.sent.pop_front();
            self.end_where_answered();
        }
    }

    fn answer_execute(&mut self, tag: u8) {
        // The server ends a copy by itself where it fails, and never with these.
        if matches!(self.phase, Phase::CopyIn) {
            self.phase = Phase::Upstream;
        }
        if !matches!(self.unit.sent.front(), Some(Sent::Execute { .. })) {
            return;
        }
        if let Some(Sent::Execute {
            portal, statement, ..
        }) = self.unit.sent.pop_front()
            && tag != b's'
        {
            self.names.done(&statement);
            if let Some(portal) = portal.and_then(|name| self.names.portal_mut(&name)) {
                portal.right = None;
            }
        }
        self.end_where_answered();
    }

    /// Whether our error has gone out in place of the server's.
    fn answer_error(&mut self) -> bool {
        if !self.is_running() {
            return false;
        }
        self.unit.failed = true;
        if matches!(self.phase, Phase::CopyIn) {
            self.phase = Phase::Upstream;
        }
        let replaced = match self.unit.sent.front() {
            // The end of a query, and of a Sync, is its ReadyForQuery.
            Some(Sent::Query(_) | Sent::Sync) | None => return false,
            Some(Sent::Poison(complaint)) if !self.replacing => {
                complaint.write(&mut self.to_client);
                self.last = b'E';
                true
            }
            Some(_) => false,
        };
        let mut skipped = Vec::new();
        while let Some(sent) = self
            .unit
            .sent
            .pop_front_if(|sent| !matches!(sent, Sent::Sync))
        {
            skipped.push(sent);
        }
        self.failed(skipped);
        if self.unit.sent.is_empty() {
            self.skipping = true;
            self.end_where_answered();
        }
        replaced
    }

    /// The server wants a copy. A Sync that it reads before the copy's end it ignores; any other
    /// message makes the copy fail, and that Sync counts again.
    fn copy_begins(&mut self) {
        if !self.is_running() {
            return;
        }
        self.phase = Phase::CopyIn;
        if let (Some(Sent::Execute { .. }), Some(Sent::Sync)) =
            (self.unit.sent.front(), self.unit.sent.get(1))
        {
            self.unit.sent.remove(1);
        }
    }

    /// Takes in a ReadyForQuery with this status.
    fn ready(&mut self, status: u8) {
        self.status = status;
        self.replacing = false;
        self.in_doubt = false;
        self.open = false;
        if status == b'I' {
            // Portals live no longer than their transaction.
            self.names.end_transaction();
        }
        if !self.is_running() {
            return;
        }
        self.phase = Phase::Upstream;
        let mut skipped = Vec::new();
        while let Some(sent) = self
            .unit
            .sent
            .pop_front_if(|sent| !matches!(sent, Sent::Query(_) | Sent::Sync))
        {
            skipped.push(sent);
        }
        if let Some(Sent::Query(statement)) = self.unit.sent.pop_front()
            && !self.unit.failed
        {
            self.names.done(&statement);
        }
        self.failed(skipped);
        self.end_where_answered();
    }

    /// The unit is over once all of it has been sent and answered.
    pub(super) fn end_where_answered(&mut self) {
        if self.is_running() && self.unit.sent.is_empty() && !self.streaming {
            self.end_unit();
        }
    }
}
