//! Awkward statements and the class of each.

use super::*;

const R: Class = Class::Read;
const W: Class = Class::Write;
const D: Class = Class::Ddl;

/// Awkward statements and what they are.
const TABLE: &[(&str, Class)] = &[
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
    ("select a operator(evil.+) b from t", W),
    ("select a <~~~> b from t", W),
    ("select a from t order by a using <", R),
    ("select a from t order by a using operator(evil.<)", W),
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
    ("select public.upper('a')", W),
    ("select my_function(1)", W),
    ("select * from my_function(1)", W),
    ("select nextval('s')", W),
    ("select setval('s', 1)", W),
    ("select pg_advisory_lock(1)", W),
    ("select pg_notify('c', 'x')", W),
    ("select lo_get(1)", W),
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
    ("select set_config('search_path', 'a', false)", D),
    ("select set_config('work_mem', '1MB', false)", R),
    ("select pg_catalog.set_config('role', 'admin', false)", D),
    (
        "select set_config(search_path, 'admin', false) from (select 'role' as search_path) s",
        D,
    ),
    ("select set_config('ro' || 'le', 'admin', false)", D),
    ("select set_config('app.user', '1', false)", W),
    (
        "select set_config(setting_name => 'role', new_value => 'a', is_local => false)",
        D,
    ),
    ("select 1 where pg_terminate_backend(1)", D),
    ("select 1 order by pg_terminate_backend(1)", D),
    ("select 1 limit my_function()", W),
    ("select sum(a) filter (where my_function(a)) from t", W),
    ("select sum(a) over (order by my_function(a)) from t", W),
    ("select * from t tablesample system (my_function())", W),
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
    ("explain delete from t where my_function()", W),
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
    ("execute p (my_function())", W),
    ("explain analyze execute p", R),
    ("deallocate all", R),
    ("discard all", R),
    ("declare c cursor for select 1", R),
    ("declare c cursor with hold for select my_function()", W),
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
    ("begin read write", W),
    ("set transaction read write", W),
    ("set session characteristics as transaction read write", W),
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
    ("set search_path = evil, pg_catalog", D),
    ("set search_path = 'evil, pg_catalog'", D),
    ("set client_encoding = 'UTF8'", R),
    ("set names 'sjis'", D),
    ("set client_encoding to 'Shift_JIS'", D),
    ("set standard_conforming_strings = off", D),
    ("set standard_conforming_strings = on", R),
    ("set role admin", D),
    ("set session authorization admin", D),
    ("reset role", D),
    ("set default_transaction_read_only = off", D),
    ("set session_replication_role = replica", D),
    ("set row_security = off", D),
    ("set log_statement = 'none'", D),
    ("set app.tenant = '7'", W),
    ("reset all", R),
    ("show all", R),
    ("listen c", R),
    ("notify c, 'x'", W),
    ("set constraints all deferred", W),
    ("selec 1", D),
    ("select 1 from", D),
    ("select 'open", D),
];

#[test]
fn awkward_statements_are_what_they_are() {
    let mut wrong = Vec::new();
    for (text, class) in TABLE {
        let found = classify(text.as_bytes());
        if found.class != *class {
            wrong.push(format!("{text}: {:?}, not {class:?}", found.class));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_that_are_run_later_are_told() {
    let found =
        classify(b"prepare a as delete from t; execute b; fetch c; explain analyze execute d");
    assert_eq!(found.prepares, [("a".into(), Class::Write)]);
    assert_eq!(found.executes, ["b".into(), "d".into()]);
    assert_eq!(found.fetches, ["c".into()]);
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
}

#[test]
fn long_texts_are_cut_between_characters() {
    let text = format!("select \"{}\"", "ä".repeat(3_000));
    let found = classify(text.as_bytes());
    assert!(found.text.len() <= TEXT_BYTES_MAX);
    assert_eq!(found.class, Class::Read);
}

#[test]
fn bytes_that_are_not_utf8_are_letters() {
    assert_eq!(classify(b"select 'M\xfcller' from t").class, Class::Read);
    assert_eq!(classify(b"select f\xfc() from t").class, Class::Write);
    assert_eq!(classify(b"select 1\0; drop table t").class, Class::Ddl);
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
        assert!(
            found.class == Class::Ddl || found.class == Class::Read,
            "{head}"
        );
    }
}

#[test]
fn ordinary_depth_is_read() {
    let concatenation = format!("select a{} from t", " || b".repeat(40));
    assert_eq!(classify(concatenation.as_bytes()).class, Class::Read);
    let unions = format!("select 1{}", " union all select 2".repeat(60));
    assert_eq!(classify(unions.as_bytes()).class, Class::Read);
    let wide = format!(
        "select * from t where {}",
        vec!["a = 1"; 2_000].join(" or ")
    );
    assert_eq!(classify(wide.as_bytes()).class, Class::Read);
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
