//! From the server to the client: answers pass untouched, each at its turn and once its record is
//! durable.

use super::super::frame::{INSPECTED_BYTES_MAX, Way, ready_for_query, take_text};
use super::super::sql::encoding_is_readable;
use super::super::track::Fate;
use super::super::upstream::Stream;
use super::{End, Relay};
use crate::registrar::Refusal;
use curfew_authority::Verb;

/// Messages up to this size go on only when they are whole, so that a cut nearly always finds the
/// client between two messages, where it can be told why.
const HELD_BYTES_MAX: usize = 16 * 1_024;

impl<C: Stream> Relay<C> {
    /// Lets through what may go to the client.
    pub(super) fn take_server(&mut self) -> Result<(), End> {
        while self.to_client.has_room() && self.from_server.flow(&mut self.to_client.bytes) {
            self.tell_refusals();
            let Some(head) = self.from_server.head().map_err(|error| {
                tracing::warn!(%error, "the server does not speak PostgreSQL's protocol");
                End::Server
            })?
            else {
                break;
            };
            if self.waits_for_record() {
                break;
            }
            if head.total <= HELD_BYTES_MAX && self.from_server.waiting() < head.total {
                break;
            }
            match head.tag {
                b'Z' | b'S' if head.total <= INSPECTED_BYTES_MAX => {
                    let Some(message) = self.from_server.whole(head) else {
                        break;
                    };
                    self.note(&message);
                    if !self.replacing {
                        self.to_client.bytes.extend_from_slice(&message);
                        self.last = head.tag;
                    }
                }
                tag => match self.track.answer(tag) {
                    _ if self.replacing => self.from_server.begin(head, Way::Drop),
                    Fate::Pass => {
                        self.from_server.begin(head, Way::Pass);
                        self.last = tag;
                    }
                    Fate::Replace(complaint) => {
                        complaint.write(&mut self.to_client.bytes);
                        self.from_server.begin(head, Way::Drop);
                    }
                },
            }
        }
        Ok(())
    }

    /// Tells the client of simple queries that were refused, when it is their turn.
    fn tell_refusals(&mut self) {
        while let Some(complaint) = self.track.settle() {
            complaint.write(&mut self.to_client.bytes);
            ready_for_query(&mut self.to_client.bytes, self.track.status);
        }
    }

    /// Reads a ReadyForQuery or a ParameterStatus.
    fn note(&mut self, message: &[u8]) {
        let body = message.get(super::frame::HEAD_BYTES..).unwrap_or_default();
        if message.first() == Some(&b'Z') {
            self.replacing = false;
            self.track.ready(body.first().copied().unwrap_or(b'I'));
            return;
        }
        let mut body = body;
        if let (Some(name), Some(value)) = (take_text(&mut body), take_text(&mut body)) {
            let (name, value) = (
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value),
            );
            self.note_parameter(&name, &value);
        }
    }

    /// Takes in a setting on which reading the client's text depends.
    pub(super) fn note_parameter(&mut self, name: &str, value: &str) {
        match name {
            "client_encoding" => self.encoding_readable = encoding_is_readable(value),
            "standard_conforming_strings" => self.plain_literals = value == "on",
            _ => {}
        }
    }

    /// The record of what is being answered has failed: the client is told instead of the answer.
    pub(super) fn replace_answer(&mut self, refusal: &Refusal) {
        self.words
            .refusal(refusal, Verb::SqlRead)
            .write(&mut self.to_client.bytes);
        self.replacing = true;
    }
}
