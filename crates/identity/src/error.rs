//! What can go wrong. Each error has two texts: `Display` is for the log, `client_text` is what
//! a client may read.

use std::path::PathBuf;

use curfew_entry::{RefusalCause, Span, SubjectName};

/// What a client reads whatever the reason for which a sign-in was refused.
const REFUSED: &str = "The name, password or code is not right";

/// An operation on the accounts did not happen. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// An account of that name is there already.
    #[error("there is already an account named {0}")]
    Exists(SubjectName),
    /// No account has that name.
    #[error("there is no account named {0}")]
    Unknown(SubjectName),
    /// The password must not be used.
    #[error("the password is refused: {0}")]
    WeakPassword(WeakPassword),
    /// The store was made with another vault key.
    #[error("the vault key is not the one that {} was made with", .0.display())]
    WrongVaultKey(PathBuf),
    /// Another process has the store open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Other users of the host could read or replace the store.
    #[error("{} is open to other users of this host (mode {mode:03o}); make it private with chmod", .path.display())]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file or folder cannot be made or opened.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store failed, and cannot be opened again yet.
    #[error("{} failed and cannot be opened again yet", .0.display())]
    Closed(PathBuf),
    /// The store failed.
    #[error("the account store failed: {0}")]
    Store(Box<redb::Error>),
    /// What is stored cannot be understood.
    #[error("the account store is damaged: {0}")]
    Damaged(&'static str),
    /// The password could not be hashed.
    #[error("hashing a password failed: {0}")]
    Hash(&'static str),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why a password must not be used. Safe to show to whoever chose it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WeakPassword {
    /// Too short.
    #[error("it must have at least {} characters", crate::PASSWORD_CHARS_MIN)]
    TooShort,
    /// Too long.
    #[error("it must have at most {} characters", crate::PASSWORD_CHARS_MAX)]
    TooLong,
    /// It is the name of the account, or little more.
    #[error("it must not be built on the account's name")]
    LikeName,
    /// It is one of the first that anybody tries.
    #[error("it is one of the most used passwords")]
    Common,
}

impl IdentityError {
    /// What a client may read.
    pub fn client_text(&self) -> String {
        match self {
            Self::Exists(_) | Self::Unknown(_) | Self::WeakPassword(_) => self.to_string(),
            Self::WrongVaultKey(_)
            | Self::InUse(_)
            | Self::Exposed { .. }
            | Self::File { .. }
            | Self::Closed(_)
            | Self::Store(_)
            | Self::Damaged(_)
            | Self::Hash(_)
            | Self::Random(_) => "Accounts are not available at the moment".to_owned(),
        }
    }
}

/// A sign-in was looked at and refused. `Display` is for the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("sign-in refused: {cause:?}")]
pub struct Refused {
    /// Why, for the log. A client never learns it.
    pub cause: RefusalCause,
    /// Whose account it was, where there is one. A name that is no account's is not given: it may
    /// be a password typed into the wrong box.
    pub subject: Option<SubjectName>,
    /// How long to wait before the next attempt is looked at.
    pub retry_after: Option<Span>,
}

impl Refused {
    /// What a client may read: the same for every cause.
    pub fn client_text(&self) -> &'static str {
        REFUSED
    }
}

/// A sign-in did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be looked at. Nobody is signed in, and nobody was refused.
    #[error(transparent)]
    Failed(#[from] IdentityError),
}

macro_rules! from_store {
    ($($error:ty),*) => {$(
        impl From<$error> for IdentityError {
            fn from(error: $error) -> Self {
                Self::Store(Box::new(error.into()))
            }
        }
    )*};
}

from_store!(
    redb::CommitError,
    redb::DatabaseError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);
