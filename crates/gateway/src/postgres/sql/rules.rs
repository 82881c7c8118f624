//! The lists by which a statement is classed. What is on no list is not read-only.

use std::collections::HashSet;
use std::sync::LazyLock;

use curfew_entry::{AccountClass, Verb};

use super::settings::setting;

/// How far a statement reaches. Ordered: of several the highest counts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Class {
    /// Known to be read-only.
    Read,
    /// Changes data, or is not known to be read-only.
    Write,
    /// Changes definitions, rights or the server, or could not be read at all.
    Ddl,
}

impl Class {
    /// What a database holds an account of this class to.
    pub(crate) const fn of_account(account: AccountClass) -> Self {
        match account {
            AccountClass::Connect | AccountClass::Read => Self::Read,
            AccountClass::Write => Self::Write,
            AccountClass::Ddl => Self::Ddl,
        }
    }

    /// The verb policy and log know it by.
    pub(crate) const fn verb(self) -> Verb {
        match self {
            Self::Read => Verb::SqlRead,
            Self::Write => Verb::SqlWrite,
            Self::Ddl => Verb::SqlDdl,
        }
    }
}

/// How far a statement reaches, as far as its text tells.
///
/// What a name stands for is decided by the server: by its search path, overloads, casts and views.
/// So there are two classes: what the text shows, and what it may come to where nothing else holds
/// the server back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reach {
    /// The highest class of anything that is known by its name.
    pub(crate) shown: Class,
    /// The highest class of anything in it, with what is not known counted as what it might be.
    pub(crate) possible: Class,
}

impl Reach {
    /// What is nothing but read-only.
    pub(crate) const READ: Self = Self::known(Class::Read);
    /// What nothing is known of.
    pub(crate) const UNKNOWN: Self = Self {
        shown: Class::Read,
        possible: Class::Ddl,
    };

    /// What is known to be of this class.
    pub(crate) const fn known(class: Class) -> Self {
        Self {
            shown: class,
            possible: class,
        }
    }

    /// What may be of this class, and may only read.
    pub(crate) const fn perhaps(class: Class) -> Self {
        Self {
            shown: Class::Read,
            possible: class,
        }
    }

    /// Both together.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            shown: self.shown.max(other.shown),
            possible: self.possible.max(other.possible),
        }
    }

    /// The class that counts. Where the database holds the connection's account to `account`, what
    /// is not known can come to no more than that. Where nothing does, it counts as what it might be.
    pub(crate) fn class(self, account: Option<Class>) -> Class {
        let possible = account.map_or(self.possible, |account| self.possible.min(account));
        self.shown.max(possible)
    }
}

/// Messages of the parse tree that read, or are only parts of something. Sorted.
const READING: &[&str] = &[
    "AArrayExpr",
    "AConst",
    "AExpr",
    "AIndices",
    "AIndirection",
    "AStar",
    "Alias",
    "BitString",
    "BoolExpr",
    "Boolean",
    "BooleanTest",
    "CaseExpr",
    "CaseWhen",
    "CoalesceExpr",
    "CollateClause",
    "ColumnRef",
    "CommonTableExpr",
    "CteCycleClause",
    "CteSearchClause",
    "DefElem",
    "Float",
    "FuncCall",
    "GroupingFunc",
    "GroupingSet",
    "Integer",
    "JoinExpr",
    "JsonAggConstructor",
    "JsonArgument",
    "JsonArrayAgg",
    "JsonArrayConstructor",
    "JsonArrayQueryConstructor",
    "JsonBehavior",
    "JsonFormat",
    "JsonFuncExpr",
    "JsonIsPredicate",
    "JsonKeyValue",
    "JsonObjectAgg",
    "JsonObjectConstructor",
    "JsonOutput",
    "JsonParseExpr",
    "JsonReturning",
    "JsonScalarExpr",
    "JsonSerializeExpr",
    "JsonTable",
    "JsonTableColumn",
    "JsonTablePathSpec",
    "JsonValueExpr",
    "List",
    "MinMaxExpr",
    "NamedArgExpr",
    "Node",
    "NullTest",
    "ParamRef",
    "RangeFunction",
    "RangeSubselect",
    "RangeTableFunc",
    "RangeTableFuncCol",
    "RangeTableSample",
    "RangeVar",
    "ResTarget",
    "RowExpr",
    "SelectStmt",
    "SetToDefault",
    "SortBy",
    "SqlValueFunction",
    "String",
    "SubLink",
    "TypeCast",
    "TypeName",
    "WindowDef",
    "WithClause",
    "XmlExpr",
    "XmlSerialize",
];

/// Messages of the parse tree that change data or lock rows. Sorted.
const WRITING: &[&str] = &[
    "CurrentOfExpr",
    "DeleteStmt",
    "IndexElem",
    "InferClause",
    "InsertStmt",
    "LockingClause",
    "MergeStmt",
    "MergeSupportFunc",
    "MergeWhenClause",
    "MultiAssignRef",
    "OnConflictClause",
    "ReturningClause",
    "ReturningOption",
    "UpdateStmt",
];

/// The class of one message by its kind alone. `SELECT INTO` makes a table, so its `IntoClause`
/// is on neither list.
pub(super) fn message(name: &str) -> Class {
    if READING.binary_search(&name).is_ok() {
        Class::Read
    } else if WRITING.binary_search(&name).is_ok() {
        Class::Write
    } else {
        Class::Ddl
    }
}

static FUNCTIONS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let listed = include_str!("functions.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    listed
        .chain(HARMLESS_VOLATILE.iter().copied())
        .chain(NEWER.iter().copied())
        .collect()
});

/// Volatile functions that change nothing but what the session itself sees.
const HARMLESS_VOLATILE: &[&str] = &[
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "lo_close",
    "lo_get",
    "lo_lseek",
    "lo_lseek64",
    "lo_tell",
    "lo_tell64",
    "loread",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_blocking_pids",
    "pg_collation_actual_version",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_database_collation_actual_version",
    "pg_database_size",
    "pg_export_snapshot",
    "pg_get_wal_replay_pause_state",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_isolation_test_session_is_blocked",
    "pg_jit_available",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_lock_status",
    "pg_notification_queue_usage",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_prepared_xact",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_stat_clear_snapshot",
    "pg_stat_have_stats",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "pg_xact_commit_timestamp",
    "pg_xact_status",
    "random",
    "setseed",
    "timeofday",
    "txid_status",
];

/// Functions of pg_catalog that change data, sequences, large objects or what other sessions wait
/// for, and nothing beyond. Sorted.
const WRITING_FUNCTIONS: &[&str] = &[
    "lo_creat",
    "lo_create",
    "lo_from_bytea",
    "lo_open",
    "lo_put",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "lowrite",
    "nextval",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_logical_emit_message",
    "pg_notify",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "setval",
];

/// Functions of PostgreSQL 16 to 18 that only read.
const NEWER: &[&str] = &[
    "any_value",
    "array_reverse",
    "array_sample",
    "array_shuffle",
    "array_sort",
    "casefold",
    "crc32",
    "crc32c",
    "date_add",
    "date_subtract",
    "erf",
    "erfc",
    "gamma",
    "has_largeobject_privilege",
    "lgamma",
    "pg_basetype",
    "pg_get_acl",
    "pg_input_error_info",
    "pg_input_is_valid",
    "random_normal",
    "system_user",
    "to_bin",
    "to_oct",
    "unicode_assigned",
    "unicode_version",
    "uuid_extract_timestamp",
    "uuid_extract_version",
    "uuidv4",
    "uuidv7",
    "xmltext",
];

/// Functions that reach beyond data: the server, its files, other servers, other sessions, or
/// SQL that is given as text and so cannot be classed. By name, in whatever schema.
const BEYOND: &[&str] = &[
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "crosstabn",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "lo_export",
    "lo_import",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "set_config",
    "ts_stat",
    "xpath_table",
];

/// The same, by how the name starts. A name on the list of harmless ones is looked up before.
const BEYOND_PREFIXES: &[&str] = &[
    "binary_upgrade_",
    "database_to_xml",
    "dblink",
    "pg_advance_",
    "pg_backup_",
    "pg_cancel_",
    "pg_control_",
    "pg_copy_",
    "pg_create_",
    "pg_drop_",
    "pg_file_",
    "pg_hba_",
    "pg_ident_",
    "pg_import_",
    "pg_log_",
    "pg_logdir_",
    "pg_logical_slot_",
    "pg_ls_",
    "pg_promote",
    "pg_read_",
    "pg_reload_",
    "pg_replication_origin_",
    "pg_replication_slot_",
    "pg_rotate_",
    "pg_show_all_file_",
    "pg_start_",
    "pg_stat_file",
    "pg_stat_reset",
    "pg_stop_",
    "pg_switch_",
    "pg_terminate_",
    "pg_wal_replay_",
    "postgres_fdw_",
    "schema_to_xml",
    "table_to_xml",
];

/// Whether a call of this function is classed by its arguments.
pub(super) fn needs_arguments(name: &[String]) -> bool {
    matches!(own(name), Some("set_config" | "lo_open"))
}

/// The bare name, where it can be one of pg_catalog.
fn own(name: &[String]) -> Option<&str> {
    match name {
        [bare] => Some(bare),
        [schema, bare] if schema == "pg_catalog" => Some(bare),
        _ => None,
    }
}

/// The reach of a call of this function with these constants as arguments.
pub(super) fn function(name: &[String], arguments: &[Option<String>]) -> Reach {
    let Some(bare) = name.last() else {
        return Reach::UNKNOWN;
    };
    let argument = |at: usize| arguments.get(at).and_then(Option::as_deref);
    match own(name) {
        Some("set_config") => return set_config(argument(0), argument(1)),
        Some("lo_open") if argument(1) == Some(LO_READ) => return Reach::READ,
        Some(own) if FUNCTIONS.contains(own) => return Reach::READ,
        Some(own) if WRITING_FUNCTIONS.binary_search(&own).is_ok() => {
            return Reach::known(Class::Write);
        }
        _ => {}
    }
    let beyond = BEYOND.binary_search(&bare.as_str()).is_ok()
        || BEYOND_PREFIXES
            .iter()
            .any(|prefix| bare.starts_with(prefix));
    if beyond {
        Reach::known(Class::Ddl)
    } else {
        Reach::UNKNOWN
    }
}

/// `INV_READ`, the mode in which `lo_open` gives no right to write.
const LO_READ: &str = "262144";

/// The reach of `set_config`: that of SET, where both name and value are constants. A name that is
/// computed may be that of a setting on which row security rests.
fn set_config(name: Option<&str>, value: Option<&str>) -> Reach {
    match (name, value) {
        (Some(name), value) => setting(name, value.as_ref().map(std::slice::from_ref)),
        (None, _) => Reach::known(Class::Write).max(Reach::UNKNOWN),
    }
}

/// What `(expression).name` or `table.name` reaches: PostgreSQL calls a function of that name where
/// there is no such column.
pub(super) fn attribute(name: &str) -> Reach {
    Reach::perhaps(function(&[name.to_owned()], &[]).shown)
}

/// The operators of pg_catalog, and the words by which the grammar names some expressions.
const OPERATORS: &[&str] = &[
    "!!",
    "!~",
    "!~*",
    "!~~",
    "!~~*",
    "#",
    "##",
    "#-",
    "#>",
    "#>>",
    "%",
    "&",
    "&&",
    "&<",
    "&<|",
    "&>",
    "*",
    "*<",
    "*<=",
    "*<>",
    "*=",
    "*>",
    "*>=",
    "+",
    "-",
    "->",
    "->>",
    "-|-",
    "/",
    "<",
    "<->",
    "<<",
    "<<=",
    "<<|",
    "<=",
    "<>",
    "<@",
    "<^",
    "=",
    ">",
    ">=",
    ">>",
    ">>=",
    ">^",
    "?",
    "?#",
    "?&",
    "?-",
    "?-|",
    "?|",
    "?||",
    "@",
    "@-@",
    "@>",
    "@?",
    "@@",
    "@@@",
    "BETWEEN",
    "BETWEEN SYMMETRIC",
    "NOT BETWEEN",
    "NOT BETWEEN SYMMETRIC",
    "^",
    "^@",
    "|",
    "|&>",
    "|/",
    "|>>",
    "||",
    "||/",
    "~",
    "~*",
    "~<=~",
    "~<~",
    "~=",
    "~>=~",
    "~>~",
    "~~",
    "~~*",
];

/// The reach of an operator: one that is not PostgreSQL's own calls a function we do not know.
pub(super) fn operator(name: &[String]) -> Reach {
    match name {
        // `x = ANY (SELECT …)` written as IN has no operator name at all.
        [] => Reach::READ,
        [bare] if OPERATORS.contains(&bare.as_str()) => Reach::READ,
        [schema, bare] if schema == "pg_catalog" && OPERATORS.contains(&bare.as_str()) => {
            Reach::READ
        }
        _ => Reach::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_are_searched_are_sorted() {
        for list in [READING, WRITING, WRITING_FUNCTIONS, BEYOND, BEYOND_PREFIXES] {
            assert!(list.is_sorted(), "{list:?}");
        }
        let listed = include_str!("functions.txt")
            .lines()
            .filter(|line| !line.starts_with('#'));
        assert!(listed.is_sorted());
    }

    #[test]
    fn no_listed_function_reaches_beyond_data() {
        for name in FUNCTIONS.iter() {
            assert!(WRITING_FUNCTIONS.binary_search(name).is_err(), "{name}");
            assert!(BEYOND.binary_search(name).is_err(), "{name}");
            let reaches = BEYOND_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
            // Looks up a number; all others of its family change something.
            assert!(!reaches || *name == "pg_replication_origin_oid", "{name}");
        }
    }
}
