//! What the client's names stand for: prepared statements and portals, by protocol and by SQL alike.
//!
//! Names are compared as text, never as bytes: the same bytes are another name under another
//! `client_encoding`. A name that cannot be read, or that the server may cut short in another place
//! than we do, stands for nothing that is known.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::sql::{Named, Reach, Statement};

/// Prepared statements, and as many portals, that a connection may have: 8,192 × about 300 bytes
/// are 2.4 MB each.
const NAMES_MAX: usize = 8_192;
/// PostgreSQL cuts names to 63 bytes, silently (`NAMEDATALEN`).
const NAME_BYTES: usize = 63;
/// Names with other than ASCII letters that are as long may have been cut inside a character.
const TEXT_BYTES: usize = NAME_BYTES - 3;

/// There are more names than a connection may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TooMany;

/// What a portal runs, and the right to run it, where that has been given.
#[derive(Clone, Debug)]
pub(super) struct Portal<P> {
    pub(super) statement: Arc<Statement>,
    pub(super) right: Option<P>,
    /// A cursor that outlives its transaction.
    holds: bool,
}

impl<P> Portal<P> {
    pub(super) const fn new(statement: Arc<Statement>) -> Self {
        Self {
            statement,
            right: None,
            holds: false,
        }
    }
}

/// The names of one connection.
#[derive(Debug)]
pub(super) struct Names<P> {
    statements: HashMap<Box<str>, Arc<Statement>>,
    portals: HashMap<Box<str>, Portal<P>>,
}

/// A name as the server keeps it; none where that is not known.
fn key(name: &str) -> Option<&str> {
    if name.is_ascii() {
        return name.get(..NAME_BYTES).or(Some(name));
    }
    (name.len() <= TEXT_BYTES).then_some(name)
}

/// A change of one name that the server may yet refuse: what stood there before.
#[derive(Debug)]
pub(super) enum Before<P> {
    /// Nothing is known of the name itself.
    Unknown,
    Statement(Box<str>, Option<Arc<Statement>>),
    Portal(Box<str>, Option<Portal<P>>),
}

impl<P> Names<P> {
    pub(super) fn new() -> Self {
        Self {
            statements: HashMap::new(),
            portals: HashMap::new(),
        }
    }

    pub(super) fn statement(&self, name: Option<&str>) -> Option<&Arc<Statement>> {
        self.statements.get(key(name?)?)
    }

    pub(super) fn portal(&self, name: Option<&str>) -> Option<&Portal<P>> {
        self.portals.get(key(name?)?)
    }

    pub(super) fn portal_mut(&mut self, name: &str) -> Option<&mut Portal<P>> {
        self.portals.get_mut(key(name)?)
    }

    /// A name was used that may be any of those that cannot be told apart for certain.
    fn blur(&mut self) -> Before<P> {
        self.statements.retain(|name, _| name.is_ascii());
        self.portals.retain(|name, _| name.is_ascii());
        Before::Unknown
    }

    pub(super) fn prepare(
        &mut self,
        name: Option<&str>,
        statement: Arc<Statement>,
    ) -> Result<Before<P>, TooMany> {
        let Some(name) = name.and_then(key) else {
            return Ok(self.blur());
        };
        if self.statements.len() >= NAMES_MAX && !self.statements.contains_key(name) {
            return Err(TooMany);
        }
        let before = self.statements.insert(name.into(), statement);
        Ok(Before::Statement(name.into(), before))
    }

    pub(super) fn bind(
        &mut self,
        name: Option<&str>,
        portal: Portal<P>,
    ) -> Result<Before<P>, TooMany> {
        let Some(name) = name.and_then(key) else {
            return Ok(self.blur());
        };
        if self.portals.len() >= NAMES_MAX && !self.portals.contains_key(name) {
            return Err(TooMany);
        }
        let before = self.portals.insert(name.into(), portal);
        Ok(Before::Portal(name.into(), before))
    }

    pub(super) fn close(&mut self, portal: bool, name: Option<&str>) -> Before<P> {
        let Some(name) = name.and_then(key) else {
            return self.blur();
        };
        if portal {
            Before::Portal(name.into(), self.portals.remove(name))
        } else {
            Before::Statement(name.into(), self.statements.remove(name))
        }
    }

    /// The server did not take a change.
    pub(super) fn undo(&mut self, before: Before<P>) {
        match before {
            Before::Unknown => {}
            Before::Statement(name, Some(statement)) => {
                self.statements.insert(name, statement);
            }
            Before::Statement(name, None) => {
                self.statements.remove(&name);
            }
            Before::Portal(name, Some(portal)) => {
                self.portals.insert(name, portal);
            }
            Before::Portal(name, None) => {
                self.portals.remove(&name);
            }
        }
    }

    /// How far a statement reaches together with what it runs by name.
    pub(super) fn reach(&self, statement: &Statement) -> Reach {
        let named = statement.names.iter().map(|named| match named {
            Named::Execute(name) => self
                .statement(Some(name))
                .map_or(Reach::UNKNOWN, |statement| statement.reach),
            Named::Fetch(name) => self
                .portal(Some(name))
                .map_or(Reach::UNKNOWN, |portal| portal.statement.reach),
            Named::Prepare(..)
            | Named::Declare { .. }
            | Named::Deallocate(_)
            | Named::DeallocateAll => Reach::READ,
        });
        named.fold(statement.reach, Reach::max)
    }

    /// A text that gives names is on its way. Until it is known to have worked, a name stands for
    /// whatever reaches further, of before and of after.
    pub(super) fn expect(&mut self, statement: &Statement) -> Result<(), TooMany> {
        for named in &statement.names {
            match named {
                Named::Prepare(name, reach) => {
                    let before = self.statement(Some(name)).map(|before| before.reach);
                    let reach = before.map_or(*reach, |before| before.max(*reach));
                    self.prepare(Some(name), given(statement, reach))?;
                }
                Named::Declare { name, reach, holds } => {
                    let before = self.portal(Some(name)).map(|before| before.statement.reach);
                    let reach = before.map_or(*reach, |before| before.max(*reach));
                    let mut portal = Portal::new(given(statement, reach));
                    portal.holds = *holds;
                    self.bind(Some(name), portal)?;
                }
                Named::Execute(_)
                | Named::Fetch(_)
                | Named::Deallocate(_)
                | Named::DeallocateAll => {}
            }
        }
        Ok(())
    }

    /// It has worked.
    pub(super) fn done(&mut self, statement: &Statement) {
        for named in &statement.names {
            match named {
                Named::Prepare(name, reach) => {
                    // There is room: the name has its place since `expect`.
                    let _ = self.prepare(Some(name), given(statement, *reach));
                }
                Named::Declare { name, reach, .. } => {
                    if let Some(portal) = self.portal_mut(name) {
                        portal.statement = given(statement, *reach);
                    }
                }
                Named::Deallocate(name) => {
                    self.close(false, Some(name));
                }
                Named::DeallocateAll => self.statements.clear(),
                Named::Execute(_) | Named::Fetch(_) => {}
            }
        }
    }

    /// A transaction is over, and with it all portals but cursors that hold.
    pub(super) fn end_transaction(&mut self) {
        self.portals.retain(|_, portal| portal.holds);
    }
}

/// What a name that a text gives stands for: shown in the log by that text.
fn given(statement: &Statement, reach: Reach) -> Arc<Statement> {
    Arc::new(Statement {
        reach,
        names: Vec::new(),
        copies_in: false,
        ..statement.clone()
    })
}
