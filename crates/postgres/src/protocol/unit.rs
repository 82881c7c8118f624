//! A unit: what goes upstream at once, what its answers will be, and what has to be asked for it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;

use super::super::frame::{Complaint, Head};
use super::super::sql::{Class, Statement};
use super::names::Before;

/// What a unit may ask for: each becomes an entry of some 300 bytes, and one sync makes them durable.
pub(super) const ASKS_MAX: usize = 1_024;
/// Messages of a unit. A server holds back up to 8 KiB of answers of at least 5 bytes until a Flush;
/// a unit ends with one, so any number would do.
pub(super) const MESSAGES_MAX: usize = 4_096;
/// Bytes of a unit, but for one last message that passes as it comes.
pub(super) const BYTES_MAX: usize = 256 * 1_024;
/// A message of values that is longer passes as it comes.
pub(super) const HELD_BYTES_MAX: usize = 64 * 1_024;

/// Something that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The text.
    pub(crate) statement: Arc<Statement>,
    /// How far it reaches on this connection.
    pub(crate) class: Class,
    /// It is only read and planned, not run.
    pub(crate) prepares: bool,
}

/// Where the message begins that an [`Ask`] belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) bytes: usize,
    pub(super) sent: usize,
}

/// What was sent, or put in the place of something sent, and waits for its answer.
#[derive(Debug)]
pub(super) enum Sent<P> {
    /// A simple query, or a function call.
    Query(Arc<Statement>),
    /// With the place of the ask that speaks for it.
    Parse(Before<P>, usize),
    Bind(Before<P>, usize),
    Close(Before<P>),
    Describe,
    Execute {
        portal: Option<Box<str>>,
        statement: Arc<Statement>,
        /// The place of its ask; none where it goes on by a right that it has.
        ask: Option<usize>,
    },
    Sync,
    /// In the place of a refused message: something the server answers with an error, so that it
    /// fails the transaction and skips to the next Sync as it does for errors of its own. Ours
    /// replaces its error.
    Poison(Complaint),
}

impl<P> Sent<P> {
    /// The place of the ask that speaks for it.
    pub(super) fn ask(&self) -> Option<usize> {
        match self {
            Self::Parse(_, ask) | Self::Bind(_, ask) => Some(*ask),
            Self::Execute { ask, .. } => *ask,
            Self::Query(_) | Self::Close(_) | Self::Describe | Self::Sync | Self::Poison(_) => None,
        }
    }
}

/// How a unit ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// More of the segment follows: a Flush makes the server answer what is here.
    Flush,
    /// With the client's Sync.
    Sync,
    /// With a simple query or function call, which is a Sync too.
    Query,
}

/// A message that is not gathered but passes as it comes, the last one of its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail(pub(super) Head);

/// What goes upstream at once.
#[derive(Debug)]
pub(super) struct Unit<P> {
    pub(super) bytes: BytesMut,
    pub(super) sent: VecDeque<Sent<P>>,
    pub(super) asks: Vec<Ask>,
    pub(super) marks: Vec<Mark>,
    /// Statements parsed or described in it: which ask speaks for each.
    pub(super) parsed: Vec<(Box<str>, usize)>,
    /// Portals bound in it, and which ask gives each its right.
    pub(super) bound: Vec<(Box<str>, usize)>,
    /// The right to what was asked for.
    pub(super) right: Option<P>,
    /// All rights that what is upstream rests on, with those of portals that go on.
    pub(super) rights: Vec<P>,
    pub(super) end: Outcome,
    pub(super) tail: Option<Tail>,
    /// An error has been answered to something in it.
    pub(super) failed: bool,
    /// The places of asks that were allowed and that the server has skipped.
    pub(super) skipped: Vec<usize>,
}

impl<P> Unit<P> {
    pub(super) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            sent: VecDeque::new(),
            asks: Vec::new(),
            marks: Vec::new(),
            parsed: Vec::new(),
            bound: Vec::new(),
            right: None,
            rights: Vec::new(),
            end: Outcome::Flush,
            tail: None,
            failed: false,
            skipped: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.tail.is_none()
    }

    pub(super) fn is_full(&self) -> bool {
        self.asks.len() >= ASKS_MAX
            || self.sent.len() >= MESSAGES_MAX
            || self.bytes.len() >= BYTES_MAX
    }

    /// Where the next message begins.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes.len(),
            sent: self.sent.len(),
        }
    }

    /// Asks for what the next message does. Gives the ask's place.
    pub(super) fn ask(&mut self, ask: Ask) -> usize {
        self.marks.push(self.mark());
        self.asks.push(ask);
        self.asks.len() - 1
    }
}
