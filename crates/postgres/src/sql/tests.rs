//! Awkward statements and the class of each.

use super::*;

const R: Reach = Reach::READ;
const W: Reach = Reach::known(Class::Write);
const D: Reach = Reach::known(Class::Ddl);
/// Nothing is known of some name in it.
const U: Reach = Reach::UNKNOWN;
/// A write for certain, with some name in it of which nothing is known.
const V: Reach = Reach {
    shown: Class::Write,
    possible: Class::Ddl,
};
/// Lifts a protection against writes, or may call a function that writes.
const P: Reach = Reach::perhaps(Class::Write);

fn classify(text: &[u8]) -> Statement {
    let text = TextRules::default().read(text);
    text.map_or_else(|| Statement::unreadable(0), |text| super::classify(&text))
}

/// Awkward statements and what they are.
const TABLE: &[(&str, Reach)] = &[
    ("", R),
    ("-- nothing but words", R),
    (";;", R),
    ("select 1", R),
    ("table t", R),
    ("values (1), (2)", R),
    (
        "select * from t where a in (1, 2) and b between 3 and 4 and c like 'x%'",
        R,
    ),
    (
        "select a, count(*) filter (where b) over (partition by c order by d) from t group by rollup (a)",
        R,
    ),
    (
        "with recursive r as (select 1 union all select n + 1 from r) select * from r",
        R,
    ),
    (
        "select coalesce(a, b), nullif(a, b), greatest(a, b), case when a then b else c end from t",
        R,
    ),
    (
        "select extract(year from now()), position('a' in b), trim(both from c), a at time zone 'utc' from t",
        R,
    ),
    (
        "select json_object('a': 1), json_array(1, 2), '{}'::jsonb @> '{}'",
        R,
    ),
    (
        "select * from json_table('[]', '$[*]' columns (a int path '$'))",
        R,
    ),
    ("select xmlelement(name a, 1)", R),
    ("select current_user, current_date, session_user", R),
    ("select * from t tablesample system (10)", R),
    ("select * from generate_series(1, 10) with ordinality", R),
    ("select pg_catalog.upper('a')", R),
    ("select a operator(pg_catalog.+) b from t", R),
    ("select a operator(evil.+) b from t", U),
    ("select a <~~~> b from t", U),
    ("select a from t order by a using <", R),
    ("select a from t order by a using operator(evil.<)", U),
    (
        "select (select max(a) from t), exists (select 1), array(select 1), row(1, 2)",
        R,
    ),
    (
        "select pg_sleep(1), random(), clock_timestamp(), gen_random_uuid()",
        R,
    ),
    ("select uuidv7()", R),
    (
        "select pg_get_viewdef('v'::regclass), has_table_privilege('t', 'select')",
        R,
    ),
    ("select public.upper('a')", U),
    ("select my_function(1)", U),
    ("select * from my_function(1)", U),
    ("select nextval('s')", W),
    ("select setval('s', 1)", W),
    ("select pg_advisory_lock(1)", W),
    ("select pg_notify('c', 'x')", W),
    ("select lo_get(1)", R),
    ("select pg_terminate_backend(1)", D),
    (
        "select pg_catalog.pg_cancel_backend(pid) from pg_stat_activity",
        D,
    ),
    ("select pg_read_file('/etc/passwd')", D),
    ("select pg_reload_conf()", D),
    ("select lo_import('/etc/passwd')", D),
    ("select lo_export(1, '/tmp/x')", D),
    (
        "select * from dblink('host=x', 'delete from t') as d (a int)",
        D,
    ),
    ("select query_to_xml('delete from t', true, true, '')", D),
    ("select table_to_xml('t', true, true, '')", D),
    ("select public.dblink_exec('drop table t')", D),
    ("select set_config('search_path', 'a', false)", R),
    ("select set_config('work_mem', '1MB', false)", R),
    ("select pg_catalog.set_config('role', 'admin', false)", D),
    (
        "select set_config(search_path, 'admin', false) from (select 'role' as search_path) s",
        V,
    ),
    ("select set_config('ro' || 'le', 'admin', false)", V),
    ("select set_config('app.user', '1', false)", W),
    (
        "select set_config(setting_name => 'role', new_value => 'a', is_local => false)",
        V,
    ),
    ("select 1 where pg_terminate_backend(1)", D),
    ("select 1 order by pg_terminate_backend(1)", D),
    ("select 1 limit my_function()", U),
    ("select sum(a) filter (where my_function(a)) from t", U),
    ("select sum(a) over (order by my_function(a)) from t", U),
    ("select * from t tablesample system (my_function())", U),
    ("with d as (delete from t returning *) select * from d", W),
    (
        "with a as (with b as (insert into t values (1) returning 1) select 1) select 1",
        W,
    ),
    ("select * from (select 1) s for update", W),
    ("select * from t for share", W),
    ("select * from t for no key update skip locked", W),
    ("select * into x from t", D),
    ("select 1 union (select 2 into x)", D),
    ("select 1; delete from t", W),
    ("select 1; drop table t; select 2", D),
    ("insert into t values (1)", W),
    ("insert into t values (pg_terminate_backend(1))", D),
    ("update t set a = 1 where current of c", W),
    ("delete from t", W),
    (
        "merge into t using s on t.a = s.a when matched then delete returning merge_action()",
        W,
    ),
    (
        "insert into t values (1) on conflict (a) do update set b = excluded.b returning old.a",
        W,
    ),
    ("truncate t", W),
    ("lock table t", W),
    ("create table t (a int)", D),
    ("create temp table t as select 1", D),
    ("alter role x password 'secret'", D),
    ("grant all on t to public", D),
    ("drop schema s cascade", D),
    ("vacuum full t", D),
    ("analyze t", W),
    ("checkpoint", D),
    ("load 'x'", D),
    ("do $$ begin delete from t; end $$", D),
    ("call p()", D),
    ("refresh materialized view v", D),
    ("reindex table t", D),
    ("security label on table t is 'x'", D),
    ("alter system set work_mem = '1MB'", D),
    ("alter role x set client_encoding = 'sjis'", D),
    (
        "create function f() returns int language sql as 'select 1'",
        D,
    ),
    ("comment on table t is 'x'", D),
    (
        "create subscription s connection 'host=x password=y' publication p",
        D,
    ),
    ("explain select 1", R),
    ("explain delete from t", R),
    ("explain delete from t where my_function()", U),
    (
        "explain (costs off) with d as (delete from t returning 1) select * from d",
        W,
    ),
    ("explain analyze select 1", R),
    ("explain analyze delete from t", W),
    ("explain (analyze) insert into t select 1", W),
    ("explain (analyze false) delete from t", W),
    ("explain analyze create table x as select 1", D),
    ("copy t to stdout", R),
    ("copy (select 1) to stdout with (format csv, header)", R),
    ("copy (delete from t returning *) to stdout", W),
    ("copy t from stdin", W),
    ("copy t to '/tmp/x'", D),
    ("copy t from '/tmp/x'", D),
    ("copy t to program 'sh'", D),
    ("copy t from program 'sh'", D),
    ("prepare p as select 1", R),
    ("prepare p as delete from t", W),
    ("execute p (1)", R),
    ("execute p (my_function())", U),
    ("explain analyze execute p", R),
    ("deallocate all", R),
    ("discard all", R),
    ("declare c cursor for select 1", R),
    ("declare c cursor with hold for select my_function()", U),
    ("declare c cursor for select 1 for update", W),
    ("fetch all from c", R),
    ("move 5 in c", R),
    ("close c", R),
    ("begin", R),
    ("begin read only", R),
    (
        "start transaction isolation level serializable, deferrable",
        R,
    ),
    ("begin read write", P),
    ("set transaction read write", P),
    ("set session characteristics as transaction read write", P),
    (
        "set session characteristics as transaction isolation level serializable",
        R,
    ),
    ("commit and chain", R),
    ("savepoint a; rollback to a; release a", R),
    ("prepare transaction 'x'", W),
    ("commit prepared 'x'", W),
    ("set statement_timeout = 0", R),
    ("set local work_mem to '1MB'", R),
    ("set time zone 'Europe/Berlin'", R),
    ("set search_path = app, public", R),
    ("set search_path = evil, pg_catalog", U),
    ("set search_path = 'evil, pg_catalog'", U),
    ("set client_encoding = 'UTF8'", R),
    ("set names 'sjis'", R),
    ("set client_encoding to 'Shift_JIS'", R),
    ("set standard_conforming_strings = off", R),
    ("set standard_conforming_strings = on", R),
    ("set role admin", D),
    ("set session authorization admin", D),
    ("reset role", R),
    ("set default_transaction_read_only = off", P),
    ("set session_replication_role = replica", D),
    ("set row_security = off", R),
    ("set log_statement = 'none'", U),
    ("set app.tenant = '7'", W),
    ("reset all", R),
    ("show all", R),
    ("listen c", R),
    ("notify c, 'x'", W),
    ("set constraints all deferred", W),
    ("lock table t in access share mode", R),
    ("lock table t in row share mode nowait", W),
    ("select (x).lo_unlink from (select 1::oid) as y(x)", P),
    ("select ('s'::regclass).nextval", P),
    ("select (pid).pg_terminate_backend from pg_stat_activity", U),
    ("select a.pid from pg_stat_activity a", R),
    (
        "select pg_advisory_unlock_all(); close all; unlisten *; reset all",
        R,
    ),
    ("select pg_catalog.set_config('search_path', '', false)", R),
    (
        "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind';",
        R,
    ),
    ("select pg_catalog.pg_export_snapshot()", R),
    ("set role none", R),
    ("set session authorization default", R),
    ("set default_transaction_read_only = on", R),
    ("set search_path = pg_catalog, app", R),
    ("select lo_open(1, 262144)", R),
    ("select lo_open(1, 131072)", W),
    ("select lo_open(1, x) from t", W),
    ("select pg_catalog.nextval('s')", W),
    ("selec 1", D),
    ("select 1 from", D),
    ("select 'open", D),
];

#[test]
fn awkward_statements_are_what_they_are() {
    let mut wrong = Vec::new();
    for (text, reach) in TABLE {
        let found = classify(text.as_bytes());
        if found.reach != *reach {
            wrong.push(format!("{text}: {:?}, not {reach:?}", found.reach));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_that_are_run_later_are_told() {
    let found =
        classify(b"prepare a as delete from t; execute b; fetch c; explain analyze execute d");
    let told = [
        Named::Prepare("a".into(), W),
        Named::Execute("b".into()),
        Named::Fetch("c".into()),
        Named::Execute("d".into()),
    ];
    assert_eq!(found.names, told);
}

#[test]
fn no_literal_and_no_comment_reaches_the_log() {
    let cases = [
        (
            "select * from t where a = 'secret' and b = $1",
            "select * from t where a = $2 and b = $1",
        ),
        ("alter role x password 'secret'", "alter role x password $1"),
        (
            "select 42, 4.2, b'1', x'f', E'\\'secret', $q$secret$q$",
            "select $1, $2, $3, $4, $5, $6",
        ),
        ("/* secret */ select 1 -- secret", "select $1"),
        ("select U&'secret'", "select $1"),
        (
            "create user mapping for u server s options (password 'secret')",
            "create user mapping for u server s options (password $1)",
        ),
        ("select 'a'\n'secret'", "select $1"),
        ("do $$ secret $$", "do $1"),
    ];
    for (text, wanted) in cases {
        let found = classify(text.as_bytes());
        assert_eq!(&*found.text, wanted);
        assert!(found.fingerprint.is_some());
    }
    assert_eq!(
        &*classify(b"alter role x password secret").text,
        "(unreadable, 28 bytes)"
    );
    assert_eq!(&*classify(b"select  1,\n\t2 ;  ").text, "select $1, $2 ;");
}

#[test]
fn what_is_cut_says_so_and_hides_no_relation() {
    let text = format!(
        "select \"{}\" from payroll, public.wages",
        "ä".repeat(3_000)
    );
    let found = classify(text.as_bytes());
    assert_eq!(found.reach, R);
    assert!(found.text.len() <= 2_048);
    let mark = " … (cut; 6036 bytes; names payroll, public.wages)";
    assert!(found.text.ends_with(mark), "{}", found.text);
    let names: Vec<String> = (0..500).map(|n| format!("relation_{n}")).collect();
    let found = classify(format!("select 1 from {}", names.join(", ")).as_bytes());
    assert!(found.text.len() <= 2_048 && found.text.contains(" more)"));
}

#[test]
fn lists_of_values_are_short_in_the_log_and_in_memory() {
    let rows = vec!["(1, 'a')"; 100_000].join(",");
    let found = classify(format!("insert into t values {rows}").as_bytes());
    assert_eq!(found.reach, W);
    assert_eq!(
        &*found.text,
        "insert into t values ($1) … (199999 more values)"
    );
    // What cannot be made short is not read past a bound.
    let calls = vec!["f()"; 100_000].join(",");
    let found = classify(format!("select {calls}").as_bytes());
    assert_eq!((found.reach, found.fingerprint), (D, None));
}

#[test]
fn bytes_that_are_not_of_the_encoding_are_not_read() {
    assert_eq!(classify(b"select 'M\xfcller' from t").reach, D);
    assert_eq!(classify(b"select 1\0; drop table t").reach, D);
}

#[test]
fn what_is_not_known_comes_to_no_more_than_the_account() {
    for (reach, none, read, write) in [
        (R, Class::Read, Class::Read, Class::Read),
        (U, Class::Ddl, Class::Read, Class::Write),
        (P, Class::Write, Class::Read, Class::Write),
        (W, Class::Write, Class::Write, Class::Write),
        (V, Class::Ddl, Class::Write, Class::Write),
        (D, Class::Ddl, Class::Ddl, Class::Ddl),
    ] {
        let found = [
            reach.class(None),
            reach.class(Some(Class::Read)),
            reach.class(Some(Class::Write)),
        ];
        assert_eq!(found, [none, read, write], "{reach:?}");
    }
}

#[test]
fn no_text_has_more_tokens_than_are_counted() {
    for text in [
        "",
        "select 1",
        "a.b::int[]<>$1||'x''y' -- z",
        "é_1$ \"q\"\"r\" U&'x' 1.5e10",
    ] {
        let found = pg_query::scan(text).unwrap().tokens.len();
        assert!(tokens_of(text) as usize >= found, "{text}");
    }
}

#[test]
fn deep_nesting_is_refused_and_never_aborts() {
    const LEVELS: usize = 100_000;
    let shapes = [
        format!("select {}1{}", "(".repeat(LEVELS), ")".repeat(LEVELS)),
        format!("select {}1", "+ ".repeat(LEVELS)),
        format!("select 1{}", "+1".repeat(LEVELS)),
        format!("select 1{}", "::int".repeat(LEVELS)),
        format!("select 1{}", " union select 1".repeat(LEVELS)),
        format!("select {}true", "not ".repeat(LEVELS)),
        format!("select true{}", " and true".repeat(LEVELS)),
        format!(
            "select {}1{}",
            "(select ".repeat(LEVELS),
            ")".repeat(LEVELS)
        ),
        format!("select {}1{}", "abs(".repeat(LEVELS), ")".repeat(LEVELS)),
        format!("select {}1{}", "array[".repeat(LEVELS), "]".repeat(LEVELS)),
        format!(
            "select {}1 else 2 {}",
            "case when true then ".repeat(LEVELS),
            "end ".repeat(LEVELS)
        ),
    ];
    for text in shapes {
        // Workers and blocking threads of the runtime have 2 MiB of stack, as test threads do.
        let found = classify(text.as_bytes());
        let head: String = text.chars().take(30).collect();
        assert!(found.reach == D || found.reach == R, "{head}");
    }
}

#[test]
fn ordinary_depth_is_read() {
    let concatenation = format!("select a{} from t", " || b".repeat(40));
    assert_eq!(classify(concatenation.as_bytes()).reach, R);
    let unions = format!("select 1{}", " union all select 2".repeat(60));
    assert_eq!(classify(unions.as_bytes()).reach, R);
    let wide = format!(
        "select * from t where {}",
        vec!["a = 1"; 2_000].join(" or ")
    );
    assert_eq!(classify(wide.as_bytes()).reach, R);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_classed(text: Vec<u8>) {
        let _ = classify(&text);
    }

    #[test]
    fn any_statement_like_text_is_classed(words in proptest::collection::vec(proptest::sample::select(&[
        "select", "1", "'x'", "(", ")", ",", "from", "t", "with", "as", "delete", "insert", "into",
        "values", ";", "$1", "--", "/*", "*/", "'", "\"", "$$", "explain", "analyze", "copy", "to",
        "stdout", "set", "=", "role", "drop", "function", "f", "operator", "order", "by", "::",
    ][..]), 0..30)) {
        let _ = classify(words.join(" ").as_bytes());
    }
}
