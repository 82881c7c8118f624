//! What a statement does, read from its text with PostgreSQL's own grammar.
//!
//! The type of a statement alone is not a class: `WITH d AS (DELETE …) SELECT`, `EXPLAIN ANALYZE
//! DELETE`, `COPY (DELETE …) TO STDOUT` and `SELECT pg_terminate_backend(…)` all look harmless from
//! outside. So the whole tree is walked, and what is not known to be read-only is not.
//!
//! What a text cannot show: functions behind views, user-defined casts, operators on extension
//! types, domains and row security. Making these needs rights for definitions; the upstream
//! account's own rights are the second line.

mod encoding;
mod logged;
mod rules;
mod settings;
mod squash;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use moka::sync::Cache;
use pg_query::protobuf::{self, DiscardMode, TransactionStmtKind, VariableSetKind};
use pg_query::{Node, NodeEnum};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

pub(crate) use self::encoding::TextRules;
pub(crate) use self::rules::{Class, Reach};
pub(crate) use self::settings::setting;

/// Texts of up to this many tokens are read at once: 2,000 × 3 KiB are 6 MiB of tree, and 15 ms.
const INLINE_TOKENS_MAX: u32 = 2_000;
/// The most memory a tree takes for each token of its text, in KiB: measured 2.3, for
/// `select a;select a;…`.
const TOKEN_KIB: u32 = 3;
/// What all trees of long texts together may take: 512 MiB.
const TREES_KIB_MAX: u32 = 512 * 1_024;
/// The most tokens of a text that is read, its lists of values made short: a tree of 256 MiB, so
/// that two fit.
const TOKENS_MAX: u32 = TREES_KIB_MAX / 2 / TOKEN_KIB;
/// What the cache of classes may weigh: about 30,000 statements of 500 bytes.
const CACHE_BYTES_MAX: u64 = 16 * 1_024 * 1_024;
/// What one cached statement weighs besides its text: key, fingerprint, bookkeeping.
const CACHE_ENTRY_BYTES: usize = 256;

/// What is known of a statement's text. Several statements in one text are one of these.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Statement {
    /// How far anything in it reaches, save what it names in `executes` and `fetches`.
    pub(crate) reach: Reach,
    /// The text for the log: literals are `$n`, comments are gone. Where the text could not be
    /// read, only how long it was.
    pub(crate) text: Box<str>,
    /// The fingerprint, the same whatever the literals.
    pub(crate) fingerprint: Option<Box<str>>,
    /// What it does by name, in order.
    pub(crate) names: Vec<Named>,
    /// It takes in a copy from the client.
    pub(crate) copies_in: bool,
    /// It may change how texts after it are read.
    pub(crate) changes_rules: bool,
    /// What PostgreSQL's parser has against it.
    pub(crate) mistake: Option<Box<str>>,
}

/// Something that a statement does by name. A name that could not be read is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Named {
    /// It runs a prepared statement.
    Execute(Box<str>),
    /// It fetches from a portal.
    Fetch(Box<str>),
    /// It prepares a statement of this reach.
    Prepare(Box<str>, Reach),
    /// It opens a cursor, which outlives its transaction where it holds.
    Declare {
        name: Box<str>,
        reach: Reach,
        holds: bool,
    },
    /// It forgets a prepared statement.
    Deallocate(Box<str>),
    /// It forgets all of them.
    DeallocateAll,
}

impl Statement {
    /// A text that could not be read: nothing is known of it, and not a word of it goes into the
    /// log.
    pub(crate) fn unreadable(bytes: usize) -> Self {
        Self {
            // Statements of a kind of their own, such as NOTIFY, the database keeps from nobody: only
            // the text would show them. So no account bounds what this may be.
            reach: Reach::known(Class::Ddl),
            text: format!("(unreadable, {bytes} bytes)").into(),
            fingerprint: None,
            names: Vec::new(),
            copies_in: false,
            changes_rules: true,
            mistake: None,
        }
    }

    /// What is no SQL, by what the parser says.
    fn mistaken(bytes: usize, error: pg_query::Error) -> Option<Self> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are not about the text"
        )]
        let told = match error {
            pg_query::Error::Parse(told) | pg_query::Error::Scan(told) => told,
            _ => return None,
        };
        let cut = told.floor_char_boundary(MISTAKE_BYTES_MAX);
        Some(Self {
            mistake: Some(told.get(..cut)?.into()),
            ..Self::unreadable(bytes)
        })
    }

    /// Something that a client runs by a name we have not seen it give.
    pub(crate) fn unknown() -> Self {
        Self {
            reach: Reach::UNKNOWN,
            text: "(prepared elsewhere)".into(),
            ..Self::unreadable(0)
        }
    }

    /// A function call by number. `reach` is what is known of that function.
    pub(crate) fn call(text: &str, reach: Reach) -> Self {
        Self {
            reach,
            text: text.into(),
            ..Self::unreadable(0)
        }
    }

    fn weight(&self) -> u32 {
        let bytes = CACHE_ENTRY_BYTES + self.text.len() + self.names.len() * 96;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// Classes statements and remembers what it has seen. One for the whole plane.
#[derive(Debug)]
pub(crate) struct Classifier {
    /// By the SHA-256 of the text and its rules, so that no literal is kept.
    seen: Cache<[u8; 32], Arc<Statement>>,
    /// KiB that trees of long texts may still take.
    trees: Semaphore,
}

impl Classifier {
    pub(crate) fn new() -> Self {
        let seen = Cache::builder()
            .max_capacity(CACHE_BYTES_MAX)
            .weigher(|_, statement: &Arc<Statement>| statement.weight())
            .build();
        Self {
            seen,
            trees: Semaphore::new(TREES_KIB_MAX as usize),
        }
    }

    /// What this text does, where that can be said without holding anybody up.
    pub(crate) fn classify(&self, text: &[u8], rules: TextRules) -> Option<Arc<Statement>> {
        let Some(read) = rules.read(text) else {
            return Some(Arc::new(Statement::unreadable(text.len())));
        };
        let key: [u8; 32] = Sha256::digest(read.as_bytes()).into();
        if let Some(seen) = self.seen.get(&key) {
            return Some(seen);
        }
        if tokens_of(&read) > INLINE_TOKENS_MAX {
            return None;
        }
        let statement = Arc::new(classify(&read));
        self.seen.insert(key, Arc::clone(&statement));
        Some(statement)
    }

    /// What a long text does. Never fails: of what cannot be read nothing is known.
    pub(crate) async fn classify_long(&self, text: Vec<u8>, rules: TextRules) -> Arc<Statement> {
        let unreadable = || Arc::new(Statement::unreadable(text.len()));
        let Some(read) = rules.read(&text).map(std::borrow::Cow::into_owned) else {
            return unreadable();
        };
        let tree = tokens_of(&read).min(TOKENS_MAX) * TOKEN_KIB;
        // The semaphore is never closed; if it were, nothing would be let through unread.
        let Ok(_turn) = self.trees.acquire_many(tree).await else {
            return unreadable();
        };
        let key = Sha256::digest(read.as_bytes()).into();
        let parsed = tokio::task::spawn_blocking(move || classify(&read)).await;
        let statement = parsed.map_or_else(|_| unreadable(), Arc::new);
        self.seen.insert(key, Arc::clone(&statement));
        statement
    }
}

/// No fewer tokens than the text has, without reading it: a word or a number counts once, each
/// other character that is no space counts for itself.
fn tokens_of(text: &str) -> u32 {
    let mut count = 0_u32;
    let mut in_word = false;
    for byte in text.bytes() {
        let word = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        if (word && !in_word) || (!word && !byte.is_ascii_whitespace()) {
            count = count.saturating_add(1);
        }
        in_word = word;
    }
    count
}

/// The most that is kept of what the parser says: it quotes a word of the text.
const MISTAKE_BYTES_MAX: usize = 256;

/// What this text does.
fn classify(text: &str) -> Statement {
    // The parser's Rust side holds a few `panic!`s for trees it does not expect. None is known to
    // be reachable; if one is, the text counts as not readable.
    catch_unwind(AssertUnwindSafe(|| read(text)))
        .ok()
        .flatten()
        .unwrap_or_else(|| Statement::unreadable(text.len()))
}

fn read(text: &str) -> Option<Statement> {
    // Not `scan_tokens`: in 18.1 it makes a slice of a null pointer where there is no token.
    let tokens = match pg_query::scan(text) {
        Ok(scanned) => scanned.tokens,
        Err(error) => return Statement::mistaken(text.len(), error),
    };
    let short = (tokens.len() > INLINE_TOKENS_MAX as usize)
        .then(|| squash::squash(text, &tokens))
        .flatten();
    let parsed = match &short {
        Some(short) if short.left > TOKENS_MAX as usize => return None,
        Some(short) => pg_query::parse(&short.text, 0).ok()?,
        None => match pg_query::parse(text, 0) {
            Ok(parsed) => parsed,
            Err(error) => return Statement::mistaken(text.len(), error),
        },
    };
    let mut reading = Reading::default();
    let mut reach = Reach::READ;
    for raw in &parsed.protobuf.stmts {
        reach = reach.max(reading.top(raw.stmt.as_deref()));
    }
    if ASKED_BY_TOOLS.contains(&text.trim().trim_end_matches(';')) {
        reach = Reach::READ;
    }
    // A function that is not known may change any setting.
    let changes_rules = reading.changes_rules || reach.possible > reach.shown;
    Some(Statement {
        reach,
        text: logged::text(text, &tokens, &parsed).into(),
        fingerprint: pg_query::fingerprint(short.as_ref().map_or(text, |short| &short.text), 0, 0)
            .ok()
            .map(|print| print.hex.into()),
        names: reading.names,
        copies_in: reading.copies_in,
        changes_rules,
        mistake: None,
    })
}

/// Statements that tools send as they stand here, and that only look as if a setting of any name
/// were set: pg_dump since 2024.
const ASKED_BY_TOOLS: &[&str] = &[
    "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
];

/// What is met on the way through the statements of one text.
#[derive(Default)]
struct Reading {
    names: Vec<Named>,
    copies_in: bool,
    changes_rules: bool,
}

/// `CURSOR_OPT_HOLD`: a cursor that outlives its transaction.
const CURSOR_HOLD: i32 = 0x20;
/// `ACCESS SHARE`, which a mere SELECT takes too.
const ACCESS_SHARE: i32 = 1;

impl Reading {
    fn top(&mut self, node: Option<&Node>) -> Reach {
        let Some(node) = node.and_then(|node| node.node.as_ref()) else {
            return Reach::known(Class::Ddl);
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is not named is of the highest class"
        )]
        match node {
            NodeEnum::SelectStmt(select) => tree::look(select),
            NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_) => tree::look(node).max(Reach::known(Class::Write)),
            NodeEnum::LockStmt(stmt) if stmt.mode == ACCESS_SHARE => Reach::READ,
            NodeEnum::TruncateStmt(_)
            | NodeEnum::LockStmt(_)
            | NodeEnum::NotifyStmt(_)
            | NodeEnum::ConstraintsSetStmt(_) => Reach::known(Class::Write),
            NodeEnum::VacuumStmt(stmt) if !stmt.is_vacuumcmd => Reach::known(Class::Write),
            // Listening tells this connection what others notify; it changes nothing.
            NodeEnum::ListenStmt(_)
            | NodeEnum::UnlistenStmt(_)
            | NodeEnum::VariableShowStmt(_)
            | NodeEnum::ClosePortalStmt(_) => Reach::READ,
            NodeEnum::VariableSetStmt(stmt) => {
                let named = matches!(
                    stmt.name.to_ascii_lowercase().as_str(),
                    "client_encoding" | "standard_conforming_strings"
                );
                self.changes_rules |= named || stmt.kind() == VariableSetKind::VarResetAll;
                set(stmt)
            }
            NodeEnum::TransactionStmt(stmt) => {
                // What was set in it may be undone by its end.
                self.changes_rules |= !matches!(
                    stmt.kind(),
                    TransactionStmtKind::TransStmtBegin
                        | TransactionStmtKind::TransStmtStart
                        | TransactionStmtKind::TransStmtSavepoint
                        | TransactionStmtKind::TransStmtRelease
                );
                transaction(stmt)
            }
            NodeEnum::CopyStmt(stmt) => self.copy(stmt),
            NodeEnum::ExplainStmt(stmt) => self.explain(stmt),
            _ => self.named(node),
        }
    }

    /// What a statement reaches that gives or uses a name.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not named is of the highest class"
    )]
    fn named(&mut self, node: &NodeEnum) -> Reach {
        let (named, reach) = match node {
            NodeEnum::DeallocateStmt(stmt) if stmt.name.is_empty() => {
                (Named::DeallocateAll, Reach::READ)
            }
            NodeEnum::DeallocateStmt(stmt) => {
                (Named::Deallocate(stmt.name.as_str().into()), Reach::READ)
            }
            NodeEnum::DeclareCursorStmt(stmt) => {
                let reach = tree::look(&stmt.query);
                let declare = Named::Declare {
                    name: stmt.portalname.as_str().into(),
                    reach,
                    holds: stmt.options & CURSOR_HOLD != 0,
                };
                (declare, reach)
            }
            NodeEnum::FetchStmt(stmt) => {
                self.changes_rules = true;
                (Named::Fetch(stmt.portalname.as_str().into()), Reach::READ)
            }
            NodeEnum::PrepareStmt(stmt) => {
                let reach = self.top(stmt.query.as_deref());
                (Named::Prepare(stmt.name.as_str().into(), reach), reach)
            }
            NodeEnum::ExecuteStmt(stmt) => {
                self.changes_rules = true;
                let reach = tree::look(&stmt.params);
                (Named::Execute(stmt.name.as_str().into()), reach)
            }
            NodeEnum::DiscardStmt(stmt) => {
                self.changes_rules = true;
                if stmt.target() != DiscardMode::DiscardAll {
                    return Reach::READ;
                }
                (Named::DeallocateAll, Reach::READ)
            }
            _ => {
                self.changes_rules = true;
                return Reach::known(Class::Ddl);
            }
        };
        self.names.push(named);
        reach
    }

    fn explain(&mut self, stmt: &protobuf::ExplainStmt) -> Reach {
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
            ) if inner.shown == Class::Write => tree::look_at_calls(&stmt.query),
            _ => inner,
        }
    }

    fn copy(&mut self, stmt: &protobuf::CopyStmt) -> Reach {
        // A program or a file of the server.
        if stmt.is_program || !stmt.filename.is_empty() {
            return Reach::known(Class::Ddl);
        }
        let reach = tree::look(&stmt.query)
            .max(tree::look(&stmt.where_clause))
            .max(tree::look(&stmt.options));
        if stmt.is_from {
            self.copies_in = true;
            reach.max(Reach::known(Class::Write))
        } else {
            reach
        }
    }
}

fn transaction(stmt: &protobuf::TransactionStmt) -> Reach {
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
        | TransactionStmtKind::Undefined => Reach::known(Class::Write),
    }
}

/// Transaction modes: READ WRITE lifts a protection that an operator may have set.
fn modes(options: &[Node]) -> Reach {
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
    if lifts {
        Reach::perhaps(Class::Write)
    } else {
        Reach::READ
    }
}

fn set(stmt: &protobuf::VariableSetStmt) -> Reach {
    match stmt.kind() {
        // What the connection began with: that was judged then.
        VariableSetKind::VarResetAll
        | VariableSetKind::VarReset
        | VariableSetKind::VarSetDefault => Reach::READ,
        VariableSetKind::VarSetMulti => match stmt.name.as_str() {
            "TRANSACTION" | "SESSION CHARACTERISTICS" => modes(&stmt.args),
            "TRANSACTION SNAPSHOT" => Reach::READ,
            _ => Reach::known(Class::Ddl),
        },
        VariableSetKind::VarSetValue => {
            let values: Option<Vec<String>> =
                stmt.args.iter().map(|arg| constant(Some(arg))).collect();
            let values: Option<Vec<&str>> = values
                .as_ref()
                .map(|values| values.iter().map(String::as_str).collect());
            setting(&stmt.name, values.as_deref())
        }
        // The value it has is one that was judged.
        VariableSetKind::VarSetCurrent => Reach::READ,
        VariableSetKind::Undefined => Reach::known(Class::Ddl),
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

#[cfg(test)]
mod tests;
