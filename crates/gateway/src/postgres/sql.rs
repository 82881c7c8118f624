//! What a statement does, read from its text with PostgreSQL's own grammar.
//!
//! The type of a statement alone is not a class: `WITH d AS (DELETE …) SELECT`, `EXPLAIN ANALYZE
//! DELETE`, `COPY (DELETE …) TO STDOUT` and `SELECT pg_terminate_backend(…)` all look harmless from
//! outside. So the whole tree is walked, and what is not known to be read-only is not.
//!
//! What a text cannot show: functions behind views, user-defined casts, operators on extension
//! types, domains and row security. Making these needs rights for definitions; the upstream
//! account's own rights are the second line.

mod rules;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use moka::sync::Cache;
use pg_query::protobuf::{self, Token, TransactionStmtKind, VariableSetKind};
use pg_query::{Node, NodeEnum};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

pub(crate) use self::rules::{
    Class, Setting, encoding_is_readable, setting_kind, value_is_harmless,
};

/// The longest statement text in a log entry, in bytes (the ledger's own limit).
const TEXT_BYTES_MAX: usize = 2_048;
/// Longer texts are parsed on the blocking pool: at roughly 1 µs per byte a longer one would hold
/// up everybody else on the worker for more than 16 ms.
const INLINE_BYTES_MAX: usize = 16 * 1_024;
/// Long texts being parsed at once. 4 × about 100 MiB of tree for 1 MiB of text is the most memory
/// this can take.
const LONG_PARSES_MAX: usize = 4;
/// What the cache of classes may weigh: about 30,000 statements of 500 bytes.
const CACHE_BYTES_MAX: u64 = 16 * 1_024 * 1_024;
/// What one cached statement weighs besides its text: key, fingerprint, bookkeeping.
const CACHE_ENTRY_BYTES: usize = 256;

/// What is known of a statement's text. Several statements in one text are one of these.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Statement {
    /// The highest class of anything in it, save what it names in `executes` and `fetches`.
    pub(crate) class: Class,
    /// The text for the log: literals are `$n`, comments are gone. Where the text could not be
    /// read, only how long it was.
    pub(crate) text: Box<str>,
    /// The fingerprint, the same whatever the literals.
    pub(crate) fingerprint: Option<Box<str>>,
    /// Prepared statements that it runs by name.
    pub(crate) executes: Vec<Box<str>>,
    /// Portals that it fetches from by name.
    pub(crate) fetches: Vec<Box<str>>,
    /// Prepared statements that it makes, each with its class.
    pub(crate) prepares: Vec<(Box<str>, Class)>,
}

impl Statement {
    /// A text that could not be read: the highest class, and not a word of it in the log.
    pub(crate) fn unreadable(bytes: usize) -> Self {
        Self {
            class: Class::Ddl,
            text: format!("(unreadable, {bytes} bytes)").into(),
            fingerprint: None,
            executes: Vec::new(),
            fetches: Vec::new(),
            prepares: Vec::new(),
        }
    }

    /// Something that a client runs by a name we have not seen it give.
    pub(crate) fn unknown() -> Self {
        Self {
            class: Class::Write,
            text: "(prepared elsewhere)".into(),
            ..Self::unreadable(0)
        }
    }

    fn weight(&self) -> u32 {
        let names = self.executes.len() + self.fetches.len() + self.prepares.len();
        let bytes = CACHE_ENTRY_BYTES + self.text.len() + names * 96;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// Classes statements and remembers what it has seen. One for the whole plane.
#[derive(Debug)]
pub(crate) struct Classifier {
    /// By the SHA-256 of the text, so that no literal is kept.
    seen: Cache<[u8; 32], Arc<Statement>>,
    long: Semaphore,
}

impl Classifier {
    pub(crate) fn new() -> Self {
        let seen = Cache::builder()
            .max_capacity(CACHE_BYTES_MAX)
            .weigher(|_, statement: &Arc<Statement>| statement.weight())
            .build();
        Self {
            seen,
            long: Semaphore::new(LONG_PARSES_MAX),
        }
    }

    /// What this text does, where that can be said without holding anybody up.
    pub(crate) fn classify(&self, text: &[u8]) -> Option<Arc<Statement>> {
        let key: [u8; 32] = Sha256::digest(text).into();
        let seen = self.seen.get(&key);
        if seen.is_some() || text.len() > INLINE_BYTES_MAX {
            return seen;
        }
        let statement = Arc::new(classify(text));
        self.seen.insert(key, Arc::clone(&statement));
        Some(statement)
    }

    /// What a long text does. Never fails: what cannot be read is of the highest class.
    pub(crate) async fn classify_long(&self, text: Vec<u8>) -> Arc<Statement> {
        let (bytes, key) = (text.len(), Sha256::digest(&text).into());
        // The semaphore is never closed; if it were, nothing would be let through unread.
        let Ok(_turn) = self.long.acquire().await else {
            return Arc::new(Statement::unreadable(bytes));
        };
        let parsed = tokio::task::spawn_blocking(move || classify(&text)).await;
        let statement = Arc::new(parsed.unwrap_or_else(|_| Statement::unreadable(bytes)));
        self.seen.insert(key, Arc::clone(&statement));
        statement
    }
}

/// What this text does.
fn classify(text: &[u8]) -> Statement {
    // Bytes that are not UTF-8 stand for letters in every encoding that is let through, so putting
    // one letter for another changes no structure.
    let text = String::from_utf8_lossy(text);
    // The parser's Rust side holds a few `panic!`s for trees it does not expect. None is known to
    // be reachable; if one is, the text counts as not readable.
    catch_unwind(AssertUnwindSafe(|| read(&text)))
        .ok()
        .flatten()
        .unwrap_or_else(|| Statement::unreadable(text.len()))
}

fn read(text: &str) -> Option<Statement> {
    let parsed = pg_query::parse(text, 0).ok()?;
    let mut reading = Reading::default();
    let mut class = Class::Read;
    for raw in &parsed.protobuf.stmts {
        class = class.max(reading.top(raw.stmt.as_deref()));
    }
    Some(Statement {
        class,
        text: without_literals(text)
            .unwrap_or_else(|| format!("({} bytes)", text.len()))
            .into(),
        fingerprint: pg_query::fingerprint(text, 0, 0)
            .ok()
            .map(|print| print.hex.into()),
        executes: reading.executes,
        fetches: reading.fetches,
        prepares: reading.prepares,
    })
}

/// Names met on the way through the statements of one text.
#[derive(Default)]
struct Reading {
    executes: Vec<Box<str>>,
    fetches: Vec<Box<str>>,
    prepares: Vec<(Box<str>, Class)>,
}

impl Reading {
    fn top(&mut self, node: Option<&Node>) -> Class {
        let Some(node) = node.and_then(|node| node.node.as_ref()) else {
            return Class::Ddl;
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is not named is of the highest class"
        )]
        match node {
            NodeEnum::SelectStmt(select) => tree::look(select).class,
            NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_) => tree::look(node).class.max(Class::Write),
            NodeEnum::TruncateStmt(_) | NodeEnum::LockStmt(_) | NodeEnum::NotifyStmt(_) => {
                Class::Write
            }
            NodeEnum::ConstraintsSetStmt(_) => Class::Write,
            NodeEnum::VacuumStmt(stmt) if !stmt.is_vacuumcmd => Class::Write,
            // Listening tells this connection what others notify; it changes nothing.
            NodeEnum::ListenStmt(_) | NodeEnum::UnlistenStmt(_) => Class::Read,
            NodeEnum::VariableShowStmt(_)
            | NodeEnum::DeallocateStmt(_)
            | NodeEnum::DiscardStmt(_)
            | NodeEnum::ClosePortalStmt(_) => Class::Read,
            NodeEnum::VariableSetStmt(stmt) => set(stmt),
            NodeEnum::TransactionStmt(stmt) => transaction(stmt),
            NodeEnum::CopyStmt(stmt) => copy(stmt),
            NodeEnum::DeclareCursorStmt(stmt) => tree::look(&stmt.query).class,
            NodeEnum::FetchStmt(stmt) => {
                self.fetches.push(stmt.portalname.as_str().into());
                Class::Read
            }
            NodeEnum::PrepareStmt(stmt) => {
                let class = self.top(stmt.query.as_deref());
                self.prepares.push((stmt.name.as_str().into(), class));
                class
            }
            NodeEnum::ExecuteStmt(stmt) => {
                self.executes.push(stmt.name.as_str().into());
                tree::look(&stmt.params).class
            }
            NodeEnum::ExplainStmt(stmt) => self.explain(stmt),
            _ => Class::Ddl,
        }
    }

    fn explain(&mut self, stmt: &protobuf::ExplainStmt) -> Class {
        let analyze = stmt.options.iter().any(|option| match &option.node {
            Some(NodeEnum::DefElem(option)) => option.defname.eq_ignore_ascii_case("analyze"),
            _ => true,
        });
        let inner = self.top(stmt.query.as_deref());
        if analyze {
            return inner;
        }
        // Only planned. Planning may call functions that claim to be immutable, so what is in the
        // statement counts, but that it would write does not.
        match stmt.query.as_ref().and_then(|query| query.node.as_ref()) {
            Some(
                NodeEnum::InsertStmt(_)
                | NodeEnum::UpdateStmt(_)
                | NodeEnum::DeleteStmt(_)
                | NodeEnum::MergeStmt(_),
            ) if inner == Class::Write => tree::look_at_calls(&stmt.query).class,
            _ => inner,
        }
    }
}

fn transaction(stmt: &protobuf::TransactionStmt) -> Class {
    match stmt.kind() {
        TransactionStmtKind::TransStmtBegin
        | TransactionStmtKind::TransStmtStart
        | TransactionStmtKind::TransStmtCommit
        | TransactionStmtKind::TransStmtRollback
        | TransactionStmtKind::TransStmtSavepoint
        | TransactionStmtKind::TransStmtRelease
        | TransactionStmtKind::TransStmtRollbackTo => modes(&stmt.options),
        TransactionStmtKind::TransStmtPrepare
        | TransactionStmtKind::TransStmtCommitPrepared
        | TransactionStmtKind::TransStmtRollbackPrepared
        | TransactionStmtKind::Undefined => Class::Write,
    }
}

/// Transaction modes: READ WRITE lifts a protection that an operator may have set.
fn modes(options: &[Node]) -> Class {
    let lifts = options.iter().any(|option| match &option.node {
        Some(NodeEnum::DefElem(option)) if option.defname == "transaction_read_only" => {
            constant(option.arg.as_deref()).as_deref() != Some("1")
        }
        Some(NodeEnum::DefElem(option)) => !matches!(
            option.defname.as_str(),
            "transaction_isolation" | "transaction_deferrable"
        ),
        _ => true,
    });
    if lifts { Class::Write } else { Class::Read }
}

fn set(stmt: &protobuf::VariableSetStmt) -> Class {
    let kind = stmt.kind();
    match kind {
        // Puts back what the connection began with; leaves role and rights alone.
        VariableSetKind::VarResetAll => return Class::Read,
        VariableSetKind::VarSetMulti => {
            return match stmt.name.as_str() {
                "TRANSACTION" | "SESSION CHARACTERISTICS" => modes(&stmt.args),
                "TRANSACTION SNAPSHOT" => Class::Read,
                _ => Class::Ddl,
            };
        }
        VariableSetKind::VarSetValue
        | VariableSetKind::VarSetDefault
        | VariableSetKind::VarSetCurrent
        | VariableSetKind::VarReset => {}
        VariableSetKind::Undefined => return Class::Ddl,
    }
    match setting_kind(&stmt.name) {
        Setting::Harmless => Class::Read,
        Setting::Custom => Class::Write,
        Setting::Beyond => Class::Ddl,
        Setting::ByValue if kind == VariableSetKind::VarSetValue => {
            let values: Option<Vec<String>> =
                stmt.args.iter().map(|arg| constant(Some(arg))).collect();
            let harmless = values.is_some_and(|values| {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                value_is_harmless(&stmt.name, &values)
            });
            if harmless { Class::Read } else { Class::Ddl }
        }
        // The value it had when the connection began was checked then.
        Setting::ByValue => Class::Read,
    }
}

/// A constant as text, where the node is one.
fn constant(node: Option<&Node>) -> Option<String> {
    use protobuf::a_const::Val;
    let Some(NodeEnum::AConst(constant)) = &node?.node else {
        return None;
    };
    match constant.val.as_ref()? {
        Val::Ival(value) => Some(value.ival.to_string()),
        Val::Fval(value) => Some(value.fval.clone()),
        Val::Boolval(value) => Some(value.boolval.to_string()),
        Val::Sval(value) => Some(value.sval.clone()),
        Val::Bsval(value) => Some(value.bsval.clone()),
    }
}

fn copy(stmt: &protobuf::CopyStmt) -> Class {
    // A program or a file of the server.
    if stmt.is_program || !stmt.filename.is_empty() {
        return Class::Ddl;
    }
    let class = tree::look(&stmt.query)
        .class
        .max(tree::look(&stmt.where_clause).class)
        .max(tree::look(&stmt.options).class);
    if stmt.is_from {
        class.max(Class::Write)
    } else {
        class
    }
}

/// Tokens that are values.
const LITERALS: [Token; 6] = [
    Token::Sconst,
    Token::Usconst,
    Token::Bconst,
    Token::Xconst,
    Token::Iconst,
    Token::Fconst,
];

/// The text with `$n` for each literal and nothing for each comment, cut to what an entry takes.
/// None where it cannot be cut into tokens.
fn without_literals(text: &str) -> Option<String> {
    // Not `scan_tokens`: in 18.1 it makes a slice of a null pointer where there is no token.
    let tokens = pg_query::scan(text).ok()?.tokens;
    let offset = |at: i32| usize::try_from(at).ok();
    let param = |token: &protobuf::ScanToken| -> Option<u32> {
        let digits = text.get(offset(token.start)? + 1..offset(token.end)?)?;
        digits.parse().ok()
    };
    let highest = tokens
        .iter()
        .filter(|token| token.token() == Token::Param)
        .filter_map(param)
        .max();
    let mut next = highest.unwrap_or(0);
    let mut out = String::with_capacity(text.len().min(TEXT_BYTES_MAX + 16));
    let mut at = 0;
    for token in &tokens {
        let (start, end) = (offset(token.start)?, offset(token.end)?);
        out.push_str(text.get(at..start)?);
        let token = token.token();
        if LITERALS.contains(&token) {
            next = next.saturating_add(1);
            out.push_str(&format!("${next}"));
        } else if matches!(token, Token::SqlComment | Token::CComment) {
            out.push(' ');
        } else {
            out.push_str(text.get(start..end)?);
        }
        at = end;
        if out.len() > TEXT_BYTES_MAX {
            break;
        }
    }
    if out.len() <= TEXT_BYTES_MAX {
        out.push_str(text.get(at..)?);
    }
    let cut = out.floor_char_boundary(TEXT_BYTES_MAX);
    out.truncate(cut);
    Some(out.trim().to_owned())
}

#[cfg(test)]
mod tests;
