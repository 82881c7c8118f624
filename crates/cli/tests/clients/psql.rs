//! PostgreSQL's own programs: psql and pgbench.

use std::time::Duration;

use tokio::process::Command;

use crate::stage::postgres::program as postgres_program;
use crate::stage::{Person, Stage};
use crate::tool::{Done, Talk, run};

fn psql(stage: &Stage, person: &Person) -> Command {
    let mut command = Command::new(postgres_program("psql"));
    command
        .args(["-X", "-A", "-t", "-q"])
        .args(["-v", "VERBOSITY=verbose"])
        .envs(stage.through(person));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_queries_binds_copies_and_is_told_why_it_is_cut() {
    let stage = Stage::get().await;
    let person = stage.person("psql", "worker").await;
    // \bind, the extended protocol by hand, came with psql 16.
    let version = run(psql(stage, &person), "\\echo :VERSION_NUM\n")
        .await
        .ok();
    let bound = match version.trim().parse::<u32>().unwrap() {
        160_000.. => "where id = $1 \\bind 2 \\g",
        older => {
            eprintln!("psql {older} has no \\bind: the statement goes without a parameter");
            "where id = 2;"
        }
    };
    let script = "\\set ON_ERROR_STOP 1
create table psql_rows (id int, name text);
begin; insert into psql_rows values (1, 'one'); commit;
copy psql_rows from stdin;
2\ttwo
3\tthree
\\.
select id || name from psql_rows {bound}
prepare named(int) as select name from psql_rows where id = $1; execute named(3);
copy (select * from psql_rows order by id) to stdout;
begin; delete from psql_rows; rollback;
select count(*) from psql_rows; select 'both ' || 1 \\; select 2;
";
    let out = run(psql(stage, &person), &script.replace("{bound}", bound))
        .await
        .ok();
    assert_eq!(out, "2two\nthree\n1\tone\n2\ttwo\n3\tthree\n3\nboth 1\n2\n");

    let mut talk = Talk::start(psql(stage, &person));
    talk.say("select 'here';\n").await;
    assert_eq!(talk.line().await, "here");
    stage.end(&person.session).await;
    talk.say("select 'there';\n").await;
    let errors = talk.errors().await;
    assert!(errors.contains("FATAL:  57P01: "), "{errors}");
    assert!(errors.contains("HINT:  "), "{errors}");

    let again = run(psql(stage, &person), "select 1").await;
    assert!(!again.success, "the password opens nothing any more");
    assert!(again.err.contains("your session has ended"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_that_idles_is_cut_with_the_code_for_it() {
    let stage = Stage::get().await;
    let person = stage.person("psql-idle", "guest").await;
    let mut talk = Talk::start(psql(stage, &person));
    talk.say("begin;\nselect 'here';\n").await;
    assert_eq!(talk.line().await, "here");
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    talk.say("select 'there';\n").await;
    let errors = talk.errors().await;
    assert!(errors.contains("FATAL:  25P03: "), "{errors}");
}

async fn pgbench(env: Vec<(&'static str, String)>, arguments: &[&str]) -> Done {
    let mut command = Command::new(postgres_program("pgbench"));
    command.args(arguments).envs(env);
    run(command, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_runs_in_every_mode_and_stops_when_its_session_does() {
    let stage = Stage::get().await;
    pgbench(stage.direct(), &["-i", "-q", "-s", "1"]).await.ok();
    let person = stage.person("pgbench", "worker").await;
    for mode in ["simple", "extended", "prepared"] {
        let arguments = ["-S", "-n", "-c", "4", "-t", "75", "-M", mode];
        let out = pgbench(stage.through(&person), &arguments).await.ok();
        let wanted = "number of transactions actually processed: 300/300";
        assert!(out.contains(wanted), "{mode}: {out}");
        assert!(out.contains("failed transactions: 0 "), "{mode}: {out}");
    }
    let arguments = ["-n", "-c", "2", "-t", "20", "-M", "prepared"];
    let out = pgbench(stage.through(&person), &arguments).await.ok();
    assert!(out.contains("actually processed: 40/40"), "{out}");

    let arguments = ["-S", "-n", "-c", "4", "-T", "20"];
    let running = pgbench(stage.through(&person), &arguments);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        stage.end(&person.session).await;
    };
    let (done, ()) = tokio::join!(running, ending);
    assert!(!done.success, "it should have been cut: {done:?}");
    let wanted = "terminating connection because your session has ended";
    assert!(done.err.contains(wanted), "{done:?}");
}
