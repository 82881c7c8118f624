//! What an account can do beyond its class is found, named, and taken away by the SQL that is given.

use std::time::Duration;

use curfew_entry::AccountClass::{self, Connect, Ddl, Read, Write};
use curfew_gateway::rights::{Problem, Severity, check};
use curfew_gateway::setup::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::kit::{Estate, Server, fresh_name};

const ALL: &[AccountClass] = &AccountClass::ALL;

const CONTENTS: &str = "
create table orders (id int primary key, item text);
create table stock (id int, n int);
create sequence numbers;
create schema app;
create view listed as select * from orders;
";

/// Problems that are not of the server as it is.
async fn problems(estate: &Estate) -> Vec<Problem> {
    check(&estate.config).await
}

fn told(problems: &[Problem]) -> String {
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    told.join("\n")
}

#[tokio::test]
async fn accounts_as_they_are_set_up_have_no_problem() {
    let estate = Estate::new(CONTENTS, ALL).await;
    let found = problems(&estate).await;
    assert!(found.is_empty(), "{}", told(&found));
    // Once more changes nothing, and repairs what went wrong meanwhile.
    let [read, write] = [Read, Write].map(|class| estate.role(class));
    let wrong = format!(
        "grant insert on orders to {read}; grant create on schema app to {write}; \
         alter role {read} createdb; create table later (id int); create schema more; \
         create table more.things (id int);"
    );
    let administrator = estate.administrator(&wrong).await;
    let found = problems(&estate).await;
    assert_eq!(found.len(), 3, "{}", told(&found));
    estate.set_up(&Options::default()).await;
    let found = problems(&estate).await;
    assert!(found.is_empty(), "{}", told(&found));

    let reader = estate.account(Read).await.unwrap();
    for sql in [
        "table orders",
        "table later",
        "table more.things",
        "table listed",
    ] {
        reader.batch_execute(sql).await.unwrap();
    }
    let writer = estate.account(Write).await.unwrap();
    let sql = "insert into orders values (nextval('numbers'), 'lamp'); insert into more.things values (1)";
    writer.batch_execute(sql).await.unwrap();
    writer
        .batch_execute("create table no (id int)")
        .await
        .unwrap_err();
    let definer = estate.account(Ddl).await.unwrap();
    definer
        .batch_execute("create table made (id int)")
        .await
        .unwrap();
    reader.batch_execute("table made").await.unwrap();
    let connected = estate.account(Connect).await.unwrap();
    connected.batch_execute("table orders").await.unwrap_err();
    drop(administrator);
}

#[tokio::test]
async fn definitions_are_made_in_the_name_of_the_databases_owner() {
    let estate = Estate::new("", &[]).await;
    let owner = fresh_name();
    let contents = format!(
        "create role {owner}; alter database {} owner to {owner}; grant all on schema public to {owner}; \
         set role {owner}; create table orders (id int); create schema app",
        estate.database
    );
    estate.administrator(&contents).await;
    let estate = estate.with(ALL);
    estate.set_up(&Options::default()).await;
    let found = problems(&estate).await;
    assert!(found.is_empty(), "{}", told(&found));
    let definer = estate.account(Ddl).await.unwrap();
    let sql = "alter table orders add column note text; create table app.made (id int)";
    definer.batch_execute(sql).await.unwrap();
    let sql = "select relowner::regrole::text from pg_class where relname = 'made'";
    let made_by: String = definer.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(made_by, owner);
    // And the others have their rights to what was made.
    let reader = estate.account(Read).await.unwrap();
    reader.batch_execute("table app.made").await.unwrap();
    let writer = estate.account(Write).await.unwrap();
    writer
        .batch_execute("insert into app.made values (1)")
        .await
        .unwrap();
    let found = problems(&estate).await;
    assert!(found.is_empty(), "{}", told(&found));
}

/// A right that is planted, as SQL over `{r}`, `{w}`, `{c}` (the accounts' roles) and `{u}` (a name of
/// its own); part of what is said of it; and whether the SQL that is given takes it away.
struct Plant(AccountClass, &'static str, &'static str, bool);

#[rustfmt::skip]
const PLANTS: &[Plant] = &[
    Plant(Read, "alter role {r} superuser", "is a superuser", true),
    Plant(Read, "create role {u} superuser; grant {u} to {r}", "is a superuser, or can become one role {u}", true),
    Plant(Read, "create role {u}g; create role {u} superuser; grant {u} to {u}g; grant {u}g to {r}; alter role {r} noinherit", "is a superuser, or can become one role {u}", true),
    Plant(Read, "alter role {r} createrole", "may create roles role {r}", true),
    Plant(Read, "alter role {r} createdb", "may create databases role {r}", true),
    Plant(Read, "alter role {r} replication", "may replicate role {r}", true),
    Plant(Read, "alter role {r} bypassrls", "bypasses row security role {r}", true),
    Plant(Read, "create role {u} createrole; grant {u} to {r}", "may create roles role {u}", true),
    Plant(Read, "grant pg_write_all_data to {r}", "is a member of role pg_write_all_data", true),
    Plant(Read, "grant pg_signal_backend to {r}", "is a member of role pg_signal_backend", true),
    Plant(Read, "grant pg_execute_server_program to {r}", "is a member of role pg_execute_server_program", true),
    Plant(Read, "create role {u}; grant pg_read_server_files to {u}; grant {u} to {r}", "is a member of role pg_read_server_files", true),
    Plant(Read, "alter table stock owner to {r}", "owns table public.stock", true),
    Plant(Read, "alter schema app owner to {r}", "owns schema app", true),
    Plant(Read, "create role {u}; alter sequence numbers owner to {u}; grant {u} to {r}", "owns sequence public.numbers, through role {u}", true),
    Plant(Read, "grant temporary on database {db} to public", "has TEMPORARY on database {db}, as everybody (PUBLIC)", true),
    Plant(Read, "grant create on database {db} to {r}", "has CREATE on database {db};", true),
    Plant(Read, "grant create on schema public to public", "has CREATE on schema public, as everybody (PUBLIC)", true),
    Plant(Read, "create role {u}; grant create on schema app to {u}; grant {u} to {r}", "has CREATE on schema app, through role {u}", true),
    Plant(Read, "grant insert, delete on orders to {r}", "has DELETE, INSERT on table public.orders;", true),
    Plant(Read, "grant update on listed to public", "has UPDATE on table public.listed, as everybody (PUBLIC)", true),
    Plant(Read, "grant truncate on orders to {r}", "has TRUNCATE on table public.orders", true),
    Plant(Read, "grant references on orders to {r}", "has REFERENCES on table public.orders", true),
    Plant(Read, "grant trigger on orders to {r}", "has TRIGGER on table public.orders", true),
    Plant(Read, "grant update (item) on orders to {r}", "has UPDATE on columns item of table public.orders", true),
    Plant(Read, "grant insert on pg_catalog.pg_am to {r}", "has INSERT on table pg_am", true),
    Plant(Read, "grant usage on sequence numbers to {r}", "has USAGE on sequence public.numbers", true),
    Plant(Read, "grant update on sequence numbers to public", "has UPDATE on sequence public.numbers", true),
    Plant(Read, "select lo_create(81); grant update on large object 81 to {r}", "has UPDATE on large object 81", true),
    Plant(Read, "grant execute on function lo_create(oid) to {r}", "may call function pg_catalog.lo_create(oid), which makes a large object", true),
    Plant(Read, "grant execute on function pg_notify(text, text) to public", "may call function pg_catalog.pg_notify(text,text), which sends a notification", true),
    Plant(Read, "grant execute on function pg_terminate_backend(int, bigint) to {r}", "pg_terminate_backend(integer,bigint), which ends connections of others", true),
    Plant(Read, "grant execute on function pg_read_file(text) to {r}", "pg_read_file(text), which is not known to stay within", true),
    Plant(Read, "grant execute on function pg_stat_reset() to public", "pg_stat_reset(), which is not known", true),
    Plant(Read, "create role {u}; grant execute on function pg_switch_wal() to {u}; grant {u} to {r}", "pg_switch_wal(), which is not known to stay within the account's rights, through role {u}", true),
    Plant(Read, "create function app.sd() returns int language sql security definer as 'select 1'; grant usage on schema app to public", "may call, with the rights of curfew, function app.sd(), as everybody (PUBLIC)", true),
    Plant(Read, "create procedure public.sp() language sql security definer as 'select 1'", "may call, with the rights of curfew, function public.sp()", true),
    Plant(Read, "create schema {u}; create function {u}.sd() returns int language sql security definer as 'select 1'; create view v as select {u}.sd()", "function {u}.sd()", true),
    Plant(Read, "create schema {u}; create function {u}.step(int, int) returns int language sql security definer as 'select 1'; revoke execute on function {u}.step(int, int) from public; create aggregate public.agg(int) (sfunc = {u}.step, stype = int)", "function public.agg(integer)", true),
    Plant(Read, "create extension dblink", "functions, such as public.dblink", true),
    Plant(Read, "create extension xml2; create extension dblink", "of extension xml2", true),
    Plant(Read, "create extension pg_stat_statements; grant execute on all functions in schema public to {r}", "may call function public.pg_stat_statements_reset(", true),
    Plant(Read, "create function public.own_lo(oid) returns oid language internal as 'be_lo_create'", "may call function public.own_lo(oid)", true),
    Plant(Read, "create extension postgres_fdw; create server away foreign data wrapper postgres_fdw; grant usage on foreign server away to {r}", "has USAGE on foreign server away", true),
    Plant(Read, "create extension postgres_fdw; grant usage on foreign data wrapper postgres_fdw to public", "has USAGE on foreign data wrapper postgres_fdw", true),
    Plant(Write, "alter role {w} createrole", "may create roles role {w}", true),
    Plant(Write, "alter table stock owner to {w}", "owns table public.stock", true),
    Plant(Write, "grant create on schema app to {w}", "has CREATE on schema app", true),
    Plant(Write, "grant trigger on orders to {w}", "has TRIGGER on table public.orders", true),
    Plant(Write, "grant update on pg_catalog.pg_am to {w}", "has UPDATE on table pg_am", true),
    Plant(Write, "grant execute on function pg_cancel_backend(int) to {w}", "pg_cancel_backend(integer), which cancels what others run", true),
    Plant(Write, "create function public.sw() returns int language sql security definer as 'select 1'; revoke execute on function public.sw() from public; grant execute on function public.sw() to {w}", "function public.sw()", true),
    Plant(Connect, "grant select on orders to public", "({class}) has SELECT on table public.orders, as everybody (PUBLIC)", true),
    Plant(Connect, "grant select (item) on orders to {c}", "has SELECT on columns item of table public.orders", true),
    Plant(Connect, "grant pg_read_all_data to {c}", "is a member of role pg_read_all_data", true),
    Plant(Connect, "grant pg_monitor to {c}", "is a member of role pg_monitor", true),
    Plant(Connect, "select lo_create(82); grant select on large object 82 to {c}", "has SELECT on large object 82", true),
    Plant(Connect, "grant {r} to {c}", "has SELECT on table public.orders, through role {r}", false),
];

/// With the names of this estate.
fn filled(text: &str, estate: &Estate, own: &str, class: AccountClass) -> String {
    text.replace("{r}", &estate.role(Read))
        .replace("{w}", &estate.role(Write))
        .replace("{c}", &estate.role(Connect))
        .replace("{db}", &estate.database)
        .replace("{class}", class.as_str())
        .replace("{u}", own)
}

/// Runs the SQL of a fix, which may go on with words.
async fn put_right(estate: &Estate, problems: &[Problem]) {
    for problem in problems {
        let fix = problem
            .fix
            .as_deref()
            .unwrap_or_else(|| panic!("{problem}"));
        let sql = fix.split(" Or, if").next().unwrap();
        estate.administrator(sql).await;
    }
}

#[tokio::test]
async fn every_right_beyond_the_class_is_named_and_taken_away_by_what_is_given() {
    let newer = Server::get().major().await >= 14;
    // What PostgreSQL 13 does not have.
    let here = |plant: &&Plant| newer || !plant.1.contains("_all_data");
    for Plant(class, sql, wanted, whole) in PLANTS.iter().filter(here) {
        // Up to 13 the function has one argument.
        let (sql, wanted) = match newer {
            true => ((*sql).to_owned(), (*wanted).to_owned()),
            false => (
                sql.replace("(int, bigint)", "(int)"),
                wanted.replace("(integer,bigint)", "(integer)"),
            ),
        };
        let estate = Estate::new(CONTENTS, ALL).await;
        let own = fresh_name();
        let (sql, wanted) = (
            filled(&sql, &estate, &own, *class),
            filled(&wanted, &estate, &own, *class),
        );
        estate.administrator(&sql).await;
        let found = problems(&estate).await;
        let role = estate.role(*class);
        let about = found.iter().find(|problem| {
            let text = format!("{problem}");
            text.contains(&wanted) && text.contains(&format!("account `{role}` ({class})"))
        });
        let about = about.unwrap_or_else(|| panic!("{sql}: {wanted} is not in\n{}", told(&found)));
        assert_eq!(about.severity, Severity::Error, "{about}");
        if *whole {
            put_right(&estate, &found).await;
            let left = problems(&estate).await;
            assert!(left.is_empty(), "{sql}: left is\n{}", told(&left));
        }
        let _ = estate.administrator(&format!("drop owned by {role}")).await;
    }
}

#[tokio::test]
async fn parameters_may_be_set_by_whom_they_were_granted_to() {
    if Server::get().major().await < 15 {
        return;
    }
    let estate = Estate::new(CONTENTS, ALL).await;
    let role = estate.role(Read);
    let sql = format!("grant set on parameter session_replication_role to {role}");
    estate.administrator(&sql).await;
    let found = problems(&estate).await;
    let wanted = "has SET on parameter session_replication_role";
    assert!(told(&found).contains(wanted), "{}", told(&found));
    put_right(&estate, &found).await;
    assert!(problems(&estate).await.is_empty());
}

#[tokio::test]
async fn what_was_reviewed_is_passed_over_and_nothing_else() {
    let mut estate = Estate::new(CONTENTS, &[Read]).await;
    let sql = "create extension dblink; \
               create function app.tenant() returns int language sql security definer as 'select 1'; \
               create function app.other() returns int language sql security definer as 'select 1'; \
               grant usage on schema app to public";
    estate.administrator(sql).await;
    let found = problems(&estate).await;
    assert_eq!(found.len(), 3, "{}", told(&found));
    let told_how = found
        .iter()
        .all(|one| one.to_string().contains("in its `reviewed`"));
    assert!(told_how, "{}", told(&found));
    let reviewed = [
        "function app.tenant()",
        "extension dblink",
        "table public.orders",
    ];
    let curfew_gateway::config::Access::Enforced(accounts) = &mut estate.config.access else {
        panic!("{:?}", estate.config);
    };
    accounts.read.reviewed = reviewed.map(str::to_owned).to_vec();
    estate
        .administrator(&format!("grant insert on orders to {}", estate.role(Read)))
        .await;
    let found = told(&problems(&estate).await);
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(
        found.contains("app.other()") && found.contains("INSERT"),
        "{found}"
    );
}

#[tokio::test]
async fn rights_that_will_come_are_a_warning() {
    let estate = Estate::new(CONTENTS, &[Read]).await;
    let role = estate.role(Read);
    let sql = format!("alter default privileges in schema app grant insert on tables to {role}");
    estate.administrator(&sql).await;
    let found = problems(&estate).await;
    assert_eq!(found.len(), 1, "{}", told(&found));
    assert_eq!(found[0].severity, Severity::Warning);
    assert!(
        found[0]
            .what
            .contains("will have INSERT on tables that curfew makes in schema app")
    );
    put_right(&estate, &found).await;
    assert!(problems(&estate).await.is_empty());
}

#[tokio::test]
async fn a_superuser_for_definitions_is_a_warning_and_one_for_reading_is_not() {
    let estate = Estate::new(CONTENTS, &[Read, Ddl]).await;
    estate
        .administrator(&format!("alter role {} superuser", estate.role(Ddl)))
        .await;
    let found = problems(&estate).await;
    assert_eq!(found.len(), 1, "{}", told(&found));
    assert_eq!(found[0].severity, Severity::Warning);
}

#[tokio::test]
async fn a_role_that_the_account_becomes_at_once_is_not_what_was_looked_at() {
    let estate = Estate::new(CONTENTS, &[Read]).await;
    let (role, own) = (estate.role(Read), fresh_name());
    let sql =
        format!("create role {own}; grant {own} to {role}; alter role {role} set role = {own}");
    estate.administrator(&sql).await;
    let found = told(&problems(&estate).await);
    assert!(
        found.contains(&format!("is signed in as `{own}` instead")),
        "{found}"
    );
}

#[tokio::test]
async fn many_problems_are_told_briefly() {
    let estate = Estate::new(CONTENTS, &[Read]).await;
    let role = estate.role(Read);
    let many: String = (0..40)
        .map(|n| format!("create table many{n} (a int); grant insert on many{n} to {role};"))
        .collect();
    estate.administrator(&many).await;
    let found = problems(&estate).await;
    assert_eq!(found.len(), 21, "{}", told(&found));
    assert!(told(&found).contains("20 more like the last"));
}

/// A server in the place of the real one, on loopback and without TLS, as `serve` makes it of each client.
async fn in_its_place<F>(database: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Estate
where
    F: Future<Output = std::io::Result<()>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let _ = serve(client).await;
        }
    });
    let server = Server {
        port,
        dir: Server::get().dir.clone(),
    };
    Estate::of(&server, database, &[Read], "tls = \"disable\"\n")
}

#[tokio::test]
async fn servers_that_only_speak_the_protocol_are_refused_by_name() {
    async fn cockroach(mut client: TcpStream) -> std::io::Result<()> {
        let mut startup = [0; 4];
        client.read_exact(&mut startup).await?;
        let mut rest = vec![0; usize::try_from(i32::from_be_bytes(startup)).unwrap() - 4];
        client.read_exact(&mut rest).await?;
        client
            .write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07\0\0\0\x07Z\0\0\0\x05I")
            .await?;
        let mut query = [0; 256];
        while client.read(&mut query).await? > 0 {
            let text = b"CockroachDB CCL v24.1.0";
            let mut row = vec![
                b'D',
                0,
                0,
                0,
                10 + u8::try_from(text.len()).unwrap(),
                0,
                1,
                0,
                0,
                0,
            ];
            row.push(u8::try_from(text.len()).unwrap());
            row.extend_from_slice(text);
            row.extend_from_slice(b"C\0\0\0\x08SEL\0Z\0\0\0\x05I");
            client.write_all(&row).await?;
        }
        Ok(())
    }
    let estate = in_its_place("any", cockroach).await;
    std::fs::write(estate.password_file(Read), "unused").unwrap();
    let found = told(&problems(&estate).await);
    assert!(
        found.contains("the server is `CockroachDB CCL v24.1.0`"),
        "{found}"
    );
    assert!(
        found.contains("is known of PostgreSQL 13 to 18 only"),
        "{found}"
    );
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for() {
    let estate = in_its_place("any", |client| async move {
        // Held open, without a word.
        std::mem::forget(client);
        Ok(())
    });
    let estate = estate.await;
    std::fs::write(estate.password_file(Read), "unused").unwrap();
    let looked = tokio::time::timeout(Duration::from_secs(20), problems(&estate)).await;
    let found = told(&looked.expect("it gives up"));
    assert!(found.contains("no answer within 10 s"), "{found}");
}

#[tokio::test]
async fn what_stands_between_and_shares_connections_is_found() {
    /// Hands bytes on both ways, and gives the client another process's number, as poolers do.
    async fn pooler(mut client: TcpStream) -> std::io::Result<()> {
        let mut real = TcpStream::connect(("127.0.0.1", Server::get().port)).await?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_real, mut to_real) = real.split();
        let back = async {
            let mut bytes = vec![0; 65_536];
            loop {
                let count = from_real.read(&mut bytes).await?;
                let Some(bytes) = bytes.get_mut(..count).filter(|bytes| !bytes.is_empty()) else {
                    return Ok::<_, std::io::Error>(());
                };
                let key = bytes.windows(5).position(|window| window == b"K\0\0\0\x0c");
                if let Some(process) = key.and_then(|at| bytes.get_mut(at + 5..at + 9)) {
                    process.copy_from_slice(&[0x7f; 4]);
                }
                to_client.write_all(bytes).await?;
            }
        };
        let there = tokio::io::copy(&mut from_client, &mut to_real);
        tokio::select! {
            result = back => result,
            result = there => result.map(|_| ()),
        }
    }
    let estate = Estate::new(CONTENTS, &[Read]).await;
    let behind = in_its_place(&estate.database, pooler).await;
    std::fs::copy(estate.password_file(Read), behind.password_file(Read)).unwrap();
    let found = told(&problems(&behind).await);
    assert!(
        found.contains("something answers in the server's place"),
        "{found}"
    );
}
