//! The lists by which a statement is classed. What is on no list is not read-only.

use std::collections::HashSet;
use std::sync::LazyLock;

use curfew_authority::Verb;

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
    /// The verb policy and log know it by.
    pub(crate) const fn verb(self) -> Verb {
        match self {
            Self::Read => Verb::SqlRead,
            Self::Write => Verb::SqlWrite,
            Self::Ddl => Verb::SqlDdl,
        }
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
    "pg_blocking_pids",
    "pg_collation_actual_version",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_database_collation_actual_version",
    "pg_database_size",
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

/// Whether a call of this function is classed by its first argument.
pub(super) fn needs_arguments(name: &[String]) -> bool {
    matches!(name, [one] if one == "set_config")
        || matches!(name, [schema, one] if schema == "pg_catalog" && one == "set_config")
}

/// The class of a call. `first` is the first argument, where it is a string constant.
pub(super) fn function(name: &[String], first: Option<&str>) -> Class {
    let (own, bare) = match name {
        [bare] => (true, bare.as_str()),
        [.., schema, bare] => (schema == "pg_catalog", bare.as_str()),
        [] => return Class::Ddl,
    };
    if needs_arguments(name) {
        // The value is not looked at, so a setting whose value matters is out of reach here.
        return first.map_or(Class::Ddl, |setting| match setting_kind(setting) {
            Setting::Harmless => Class::Read,
            Setting::Custom => Class::Write,
            Setting::ByValue | Setting::Beyond => Class::Ddl,
        });
    }
    if own && FUNCTIONS.contains(bare) {
        return Class::Read;
    }
    if BEYOND.binary_search(&bare).is_ok()
        || BEYOND_PREFIXES
            .iter()
            .any(|prefix| bare.starts_with(prefix))
    {
        return Class::Ddl;
    }
    Class::Write
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

/// The class of an operator: one that is not PostgreSQL's own calls a function we do not know.
pub(super) fn operator(name: &[String]) -> Class {
    match name {
        // `x = ANY (SELECT …)` written as IN has no operator name at all.
        [] => Class::Read,
        [bare] if OPERATORS.contains(&bare.as_str()) => Class::Read,
        [schema, bare] if schema == "pg_catalog" && OPERATORS.contains(&bare.as_str()) => {
            Class::Read
        }
        _ => Class::Write,
    }
}

/// What changing a setting can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Setting {
    /// How answers look, how plans are made, how long things may take.
    Harmless,
    /// Harmless for some values only: [`value_is_harmless`].
    ByValue,
    /// A setting of the application's own (`app.user`), on which row security may rest.
    Custom,
    /// Rights, safety, the log, or a setting that is not known.
    Beyond,
}

/// Settings that change only how answers look, how plans are made and how long things may take.
/// Lower case, sorted.
const HARMLESS: &[&str] = &[
    "application_name",
    "array_nulls",
    "bytea_output",
    "client_connection_check_interval",
    "client_min_messages",
    "commit_siblings",
    "constraint_exclusion",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "datestyle",
    "default_statistics_target",
    "default_text_search_config",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "effective_cache_size",
    "effective_io_concurrency",
    "escape_string_warning",
    "extra_float_digits",
    "from_collapse_limit",
    "geqo",
    "gin_fuzzy_search_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "join_collapse_limit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "min_parallel_index_scan_size",
    "min_parallel_table_scan_size",
    "parallel_leader_participation",
    "parallel_setup_cost",
    "parallel_tuple_cost",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "recursive_worktable_factor",
    "seq_page_cost",
    "statement_timeout",
    "synchronize_seqscans",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "temp_buffers",
    "timezone",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_timeout",
    "work_mem",
    "xmlbinary",
    "xmloption",
];

/// What setting `name` can do.
pub(crate) fn setting_kind(name: &str) -> Setting {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "client_encoding" | "search_path" | "standard_conforming_strings" => Setting::ByValue,
        _ if name.contains('.') => Setting::Custom,
        _ if name.starts_with("enable_")
            || name.starts_with("jit_")
            || name.starts_with("geqo_") =>
        {
            Setting::Harmless
        }
        _ if HARMLESS.binary_search(&name.as_str()).is_ok() => Setting::Harmless,
        _ => Setting::Beyond,
    }
}

/// Client encodings in which the second byte of a character can be an ASCII one. Text in these
/// cannot be read without knowing the encoding at that moment: a quote could be half a letter.
const UNREADABLE_ENCODINGS: &[&str] = &[
    "big5",
    "gb18030",
    "gbk",
    "johab",
    "mskanji",
    "shiftjis",
    "shiftjis2004",
    "sjis",
    "uhc",
    "win932",
    "win936",
    "win949",
    "win950",
    "windows932",
    "windows936",
    "windows949",
    "windows950",
];

/// Whether text in this client encoding can be read byte by byte.
pub(crate) fn encoding_is_readable(name: &str) -> bool {
    // PostgreSQL compares encoding names by their letters and digits alone.
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    !UNREADABLE_ENCODINGS.contains(&name.as_str())
}

/// Whether this value of a [`Setting::ByValue`] setting is harmless.
pub(crate) fn value_is_harmless(name: &str, values: &[&str]) -> bool {
    match name.to_ascii_lowercase().as_str() {
        "client_encoding" => matches!(values, [one] if encoding_is_readable(one)),
        "standard_conforming_strings" => {
            matches!(values, [one] if matches!(one.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1"))
        }
        // With pg_catalog named in the path, functions in front of it hide PostgreSQL's own.
        "search_path" => !values
            .iter()
            .any(|value| value.to_ascii_lowercase().contains("pg_catalog")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_are_searched_are_sorted() {
        for list in [READING, WRITING, BEYOND, HARMLESS, BEYOND_PREFIXES] {
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
            assert!(BEYOND.binary_search(name).is_err(), "{name}");
            let reaches = BEYOND_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
            // Looks up a number; all others of its family change something.
            assert!(!reaches || *name == "pg_replication_origin_oid", "{name}");
        }
    }
}
