//! How long texts and lists may be, so that no entry exceeds its limit, and the cutting.
//!
//! The longest action: path 1,024 + statement 2,048 + client 256 + method 32 + fingerprint 64 +
//! network 64 + search 1,024 bytes are 4,512; each byte can become six in JSON (`\u0000`), which
//! makes 27,072. Up to 400 rule ids of 64 + 3 bytes make 26,800. With 1,000 bytes for the fixed
//! fields this is 54,872 of the 65,535 that an entry may have.

use std::borrow::Cow;
use std::fmt::Write as _;

use curfew_entry::{ActionDetail, Actor, Context, Span, Verb};
use sha2::{Digest, Sha256};

/// The longest path in an entry, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;
/// The longest statement in an entry, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 2_048;
/// The longest name a client gives itself, in bytes.
pub const CLIENT_BYTES_MAX: usize = 256;
/// The longest HTTP method, in bytes.
pub(super) const METHOD_BYTES_MAX: usize = 32;
/// The longest fingerprint of a statement, in bytes.
pub(super) const FINGERPRINT_BYTES_MAX: usize = 64;
/// What a search asked for, in bytes: sixteen names of one field and a few others.
pub(super) const SEARCH_BYTES_MAX: usize = 1_024;
/// The longest name of a network class, in bytes.
pub(super) const NETWORK_BYTES_MAX: usize = 64;
/// The longest of other short texts: versions, boot ids, origins, user names, causes.
pub(super) const TEXT_BYTES_MAX: usize = 512;

/// The most roles of one account: 256 × (64 + 3) bytes are 17 KiB of an entry.
pub const ADDED_ROLES_MAX: usize = 256;

/// The most live credentials of one session. A person with a hundred hosts' cookies and as many
/// open database clients stays below.
pub const CREDENTIALS_LIVE_MAX: usize = 256;

/// The most credentials of one session that are remembered, live or not. Past it the oldest dead
/// one is forgotten; it is then refused as unknown.
pub(super) const CREDENTIALS_KEPT_MAX: usize = 2 * CREDENTIALS_LIVE_MAX;

/// How long an ended session is remembered, to tell its use from a credential never issued.
pub const TOMBSTONE_LIFE: Span = Span::from_secs(24 * 60 * 60);

/// Cuts a text to at most `max` bytes, never inside a character.
pub(crate) fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
}

/// A text as an entry may hold it: whole where it has at most `max` bytes; otherwise its beginning
/// and a mark, ` […cut: 5000 bytes, sha256:…]`, with its whole length and its SHA-256. Whoever
/// reads the entry sees that there was more, and can tell whether a text is the one that was cut.
///
/// Marking twice changes nothing. `max` is at least 128: a mark has up to 110 bytes.
pub fn marked(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let mut mark = format!(" […cut: {} bytes, sha256:", text.len());
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(mark, "{byte:02x}");
    }
    mark.push(']');
    let room = text.floor_char_boundary(max.saturating_sub(mark.len()));
    Cow::Owned(format!("{}{mark}", text.get(..room).unwrap_or_default()))
}

/// A short text, cut.
pub(super) fn short(text: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, TEXT_BYTES_MAX);
    text
}

pub(super) fn cut_actor(actor: &Actor) -> Actor {
    match actor {
        Actor::Host(name) => Actor::Host(short(name)),
        Actor::Session(session) => Actor::Session(session.clone()),
    }
}

pub(super) fn cut_context(context: &Context) -> Context {
    let mut context = context.clone();
    cut(&mut context.network, NETWORK_BYTES_MAX);
    context
}

pub(super) fn cut_action(action: &ActionDetail) -> ActionDetail {
    let mut action = action.clone();
    action.account = action.account.filter(|_| action.verb == Verb::SqlConnect);
    for (text, max) in [
        (&mut action.path, PATH_BYTES_MAX),
        (&mut action.statement, STATEMENT_BYTES_MAX),
        (&mut action.client, CLIENT_BYTES_MAX),
        (&mut action.search, SEARCH_BYTES_MAX),
    ] {
        if let Some(text) = text
            && text.len() > max
        {
            *text = marked(text, max).into_owned();
        }
    }
    for (text, max) in [
        (&mut action.method, METHOD_BYTES_MAX),
        (&mut action.fingerprint, FINGERPRINT_BYTES_MAX),
    ] {
        if let Some(text) = text {
            cut(text, max);
        }
    }
    action
}

/// Whether `decide` could have written this action.
pub(crate) fn fits(action: &ActionDetail) -> bool {
    [
        (&action.method, METHOD_BYTES_MAX),
        (&action.path, PATH_BYTES_MAX),
        (&action.statement, STATEMENT_BYTES_MAX),
        (&action.fingerprint, FINGERPRINT_BYTES_MAX),
        (&action.client, CLIENT_BYTES_MAX),
        (&action.search, SEARCH_BYTES_MAX),
    ]
    .into_iter()
    .all(|(text, max)| text.as_ref().is_none_or(|text| text.len() <= max))
}
