//! What changing a setting can do, by SET, `set_config` or while connecting.

use super::rules::{Class, Reach};

/// Settings that change only how answers look, how plans are made and how long things may take.
/// Lower case, sorted.
const HARMLESS: &[&str] = &[
    "application_name",
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "check_function_bodies",
    "client_min_messages",
    "commit_siblings",
    "constraint_exclusion",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "datestyle",
    "default_statistics_target",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "effective_cache_size",
    "effective_io_concurrency",
    "escape_string_warning",
    "extra_float_digits",
    "from_collapse_limit",
    "geqo",
    "gin_fuzzy_search_limit",
    "gin_pending_list_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "io_combine_limit",
    "jit",
    "join_collapse_limit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "maintenance_io_concurrency",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "min_parallel_index_scan_size",
    "min_parallel_table_scan_size",
    "parallel_leader_participation",
    "parallel_setup_cost",
    "parallel_tuple_cost",
    "password_encryption",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "recursive_worktable_factor",
    "restrict_nonsystem_relation_kind",
    "seq_page_cost",
    "statement_timeout",
    "stats_fetch_consistency",
    "synchronize_seqscans",
    "synchronous_commit",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "temp_buffers",
    "temp_tablespaces",
    "timezone",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_timeout",
    "work_mem",
    "xmlbinary",
    "xmloption",
];

/// The reach of giving a setting these values, by SET, `set_config` or while connecting; `None`
/// where they are not known.
pub(crate) fn setting(name: &str, values: Option<&[&str]>) -> Reach {
    let name = name.to_ascii_lowercase();
    let value = match values {
        Some([one]) => Some(one.to_ascii_lowercase()),
        _ => None,
    };
    let is = |wanted: &[&str]| {
        value
            .as_deref()
            .is_some_and(|value| wanted.contains(&value))
    };
    const ON: &[&str] = &["on", "true", "yes", "1", "t", "y", "tr", "tru", "ye"];
    const OFF: &[&str] = &[
        "off", "false", "no", "0", "f", "n", "of", "fa", "fal", "fals",
    ];
    match name.as_str() {
        // Only narrows what follows; the other way lifts a protection that an operator may have set.
        "default_transaction_read_only" | "transaction_read_only" if is(ON) => Reach::READ,
        "default_transaction_read_only" | "transaction_read_only" => Reach::perhaps(Class::Write),
        // Without it a query that row security would cut short is refused.
        "row_security" if is(OFF) => Reach::READ,
        "role" if is(&["none"]) => Reach::READ,
        "session_authorization" if is(&["default"]) => Reach::READ,
        "role" | "session_authorization" | "session_replication_role" => Reach::known(Class::Ddl),
        // By it the server ends what outlives its connection.
        "client_connection_check_interval" => Reach::known(Class::Ddl),
        "search_path" => match values {
            Some(values) if keeps_pg_catalog_first(values) => Reach::READ,
            _ => Reach::UNKNOWN,
        },
        // The server tells of a change, and what could be read in two ways is not read at all.
        "client_encoding" | "standard_conforming_strings" => Reach::READ,
        // One of the application's own, on which row security may rest.
        _ if name.contains('.') => Reach::known(Class::Write),
        _ if name.starts_with("enable_")
            || name.starts_with("jit_")
            || name.starts_with("geqo_")
            || name.starts_with("vacuum_") =>
        {
            Reach::READ
        }
        _ if HARMLESS.binary_search(&name.as_str()).is_ok() => Reach::READ,
        _ => Reach::UNKNOWN,
    }
}

/// Whether PostgreSQL's own names come first with this search path: it names pg_catalog first, or
/// not at all. Behind another schema it is hidden by what that schema holds.
fn keeps_pg_catalog_first(path: &[&str]) -> bool {
    let path = path.join(",").to_ascii_lowercase();
    match path.find("pg_catalog") {
        None => true,
        Some(at) => path
            .get(..at)
            .is_some_and(|before| before.trim_matches([' ', '"']).is_empty()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_is_sorted() {
        assert!(super::HARMLESS.is_sorted());
    }
}
