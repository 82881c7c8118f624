//! Which account a connection uses, and when a database is served.

use std::time::Duration;

use curfew_authority::{Command, Verdict};
use curfew_entry::AccountClass::{self, Ddl, Read, Write};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::kit::{Estate, Person, Server, World, fresh_name};

const ALL: &[AccountClass] = &AccountClass::ALL;

/// Each role may do what its name says; an officer may change definitions only with an authentication
/// of the last two seconds.
const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("12h") @lifetime("12h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("connect")
permit (principal, action == Action::"sql.connect", resource == Resource::"orders");
@id("read")
permit (principal, action == Action::"sql.read", resource == Resource::"orders")
when { principal in [Role::"reader", Role::"writer", Role::"dba", Role::"officer"] };
@id("write")
permit (principal, action == Action::"sql.write", resource == Resource::"orders")
when { principal in [Role::"writer", Role::"dba", Role::"officer"] };
@id("blind-write")
permit (principal in Role::"blind", action == Action::"sql.write", resource == Resource::"orders");
@id("ddl")
permit (principal in Role::"dba", action == Action::"sql.ddl", resource == Resource::"orders");
@id("fresh-ddl") @reauth("2s")
permit (principal in Role::"officer", action == Action::"sql.ddl", resource == Resource::"orders");
@id("lively-write") @idle("2s")
permit (principal in Role::"lively", action == Action::"sql.write", resource == Resource::"orders");
@id("lively-read")
permit (principal in Role::"lively", action == Action::"sql.read", resource == Resource::"orders");
"#;

const CONTENTS: &str = "create table orders (id int primary key, item text); \
                        insert into orders values (1, 'lamp')";

async fn user(client: &tokio_postgres::Client) -> String {
    // No prepared statement that is closed later: what ends a connection is then nobody's answer.
    let answers = client.simple_query("select session_user").await.unwrap();
    let row = answers.into_iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        SimpleQueryMessage::CommandComplete(_) | SimpleQueryMessage::RowDescription(_) | _ => None,
    });
    row.unwrap()
}

/// Who a new connection of this person is at the server.
async fn signed_in_as(world: &World, person: &Person) -> String {
    user(&world.connect(person).await).await
}

fn code(error: &tokio_postgres::Error) -> String {
    let code = error.code().map(SqlState::code);
    code.unwrap_or_else(|| panic!("{error}")).to_owned()
}

/// The newest entry of a connection of this person.
fn connection_entry(world: &World, person: &Person) -> serde_json::Value {
    let session = person.session.to_string();
    let mut entries = world.entries();
    entries.retain(|entry| entry["session"] == *session && entry["verb"] == "sql.connect");
    entries.pop().unwrap()
}

#[tokio::test]
async fn the_account_is_that_of_the_most_that_policy_permits() {
    let estate = Estate::new(CONTENTS, ALL).await;
    let world = estate.open(POLICY).await;
    for (name, role, class) in [
        ("ann", "reader", Read),
        ("bob", "writer", Write),
        ("cid", "dba", Ddl),
    ] {
        let person = world.person(name, role).await;
        assert_eq!(
            signed_in_as(&world, &person).await,
            estate.role(class),
            "{role}"
        );
        let entry = connection_entry(&world, &person);
        assert_eq!(entry["kind"], "action.allowed");
        assert_eq!(entry["account"], class.as_str());
    }
    // Who may connect and not read has an account that cannot.
    let guest = world.person("gus", "guest").await;
    let client = world.connect(&guest).await;
    assert_eq!(connection_entry(&world, &guest)["account"], "connect");
    let error = client.batch_execute("table orders").await.unwrap_err();
    assert_eq!(code(&error), "42501");
    // Who may write and not read has it too: an account that writes can read.
    let blind = world.person("bea", "blind").await;
    let _client = world.connect(&blind).await;
    assert_eq!(connection_entry(&world, &blind)["account"], "connect");
}

#[tokio::test]
async fn a_class_without_an_account_is_served_by_the_next_lower_and_never_by_a_higher() {
    let estate = Estate::new(CONTENTS, &[Read, Ddl]).await;
    let world = estate.open(POLICY).await;
    let bob = world.person("bob", "writer").await;
    assert_eq!(signed_in_as(&world, &bob).await, estate.role(Read));
    // What policy permits and the account cannot do is said so.
    let client = world.connect(&bob).await;
    for sql in [
        "insert into orders values (2, 'wick')",
        "delete from orders",
    ] {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(code(&error), "42501");
        let text = error.as_db_error().unwrap();
        assert_eq!(text.message(), "this connection was opened for reading");
        let error = client.execute(sql, &[]).await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().message(), text.message());
    }
    client
        .query_one("select count(*) from orders", &[])
        .await
        .unwrap();
    // There is none for connecting only: a connection could read what policy does not permit.
    let guest = world.person("gus", "guest").await;
    let error = world.try_connect(&guest).await.unwrap_err();
    assert_eq!(code(&error), "42501");
    let detail = error.as_db_error().unwrap().detail().unwrap().to_owned();
    assert!(
        detail.contains("can do sql.read, so a connection needs permission for that"),
        "{detail}"
    );
    let entry = connection_entry(&world, &guest);
    assert_eq!(
        (&entry["kind"], &entry["account"]),
        (&"action.denied".into(), &"read".into())
    );
}

#[tokio::test]
async fn a_connection_ends_with_the_limits_of_all_its_account_can_do() {
    let estate = Estate::new(CONTENTS, ALL).await;
    let world = estate.open(POLICY).await;
    let officer = world.person("ofa", "officer").await;
    let (client, connection) = world
        .config(&officer)
        .connect(world.connector())
        .await
        .unwrap();
    let ended = tokio::spawn(connection);
    assert_eq!(user(&client).await, estate.role(Ddl));
    let error = tokio::time::timeout(Duration::from_secs(10), ended).await;
    let error = error.expect("it is cut").unwrap().unwrap_err();
    assert_eq!(code(&error), "57P01");
    let hint = error.as_db_error().unwrap().hint().unwrap().to_owned();
    assert!(hint.contains("connect again"), "{hint}");
    // The next one has what needs no fresh authentication.
    assert_eq!(signed_in_as(&world, &officer).await, estate.role(Write));
}

#[tokio::test]
async fn a_readers_transactions_only_read_whatever_the_client_asks_for() {
    let estate = Estate::new(CONTENTS, ALL).await;
    let world = estate.open(POLICY).await;
    let show = "show default_transaction_read_only";
    for (name, role, wanted) in [("ann", "reader", "on"), ("bob", "writer", "off")] {
        let person = world.person(name, role).await;
        let client = world.connect(&person).await;
        let shown: String = client.query_one(show, &[]).await.unwrap().get(0);
        assert_eq!(shown, wanted, "{role}");
    }
    // The account's rights do not rest on that.
    let reader = estate.account(Read).await.unwrap();
    let sql = "set default_transaction_read_only = off; begin read write; delete from orders";
    let error = reader.batch_execute(sql).await.unwrap_err();
    assert_eq!(code(&error), "42501");
}

/// Waits until this person gets a connection, or no longer does.
async fn until_served(
    world: &World,
    person: &Person,
    served: bool,
) -> Option<tokio_postgres::Error> {
    let end = tokio::time::Instant::now() + Duration::from_secs(40);
    loop {
        let tried = world.try_connect(person).await;
        if tried.is_ok() == served {
            return tried.err();
        }
        assert!(
            tokio::time::Instant::now() < end,
            "served never became {served}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_database_whose_accounts_can_do_too_much_is_not_served_until_that_is_put_right() {
    let estate = Estate::new(CONTENTS, &[Read, Write]).await;
    let role = estate.role(Read);
    estate
        .administrator(&format!("grant delete on orders to {role}"))
        .await;
    let world = estate.open(POLICY).await;
    let ann = world.person("ann", "reader").await;
    let error = world.try_connect(&ann).await.unwrap_err();
    assert_eq!(code(&error), "57P03");
    let text = format!("{:?}", error.as_db_error().unwrap());
    assert!(text.contains("the database is not served"), "{text}");
    assert!(!text.contains(&role) && !text.contains("DELETE"), "{text}");
    assert_eq!(connection_entry(&world, &ann)["account"], "read");
    estate
        .administrator(&format!("revoke delete on orders from {role}"))
        .await;
    until_served(&world, &ann, true).await;
}

#[tokio::test]
async fn with_trust_in_the_classifier_it_is_served_all_the_same() {
    let estate = Estate::new(CONTENTS, &[Read]).await;
    let role = estate.role(Read);
    estate
        .administrator(&format!("grant delete on orders to {role}"))
        .await;
    let lenient = Estate::of(
        Server::get(),
        &estate.database,
        &[Read],
        "trust = \"classifier\"\n",
    );
    std::fs::copy(estate.password_file(Read), lenient.password_file(Read)).unwrap();
    let found = curfew_gateway::rights::check(&lenient.config).await;
    let worst = found.iter().map(|one| one.severity).max();
    assert_eq!(
        worst,
        Some(curfew_gateway::rights::Severity::Warning),
        "{found:?}"
    );
    let world = lenient.open(POLICY).await;
    let ann = world.person("ann", "reader").await;
    let client = world.connect(&ann).await;
    let error = client
        .batch_execute("delete from orders")
        .await
        .unwrap_err();
    assert_eq!(code(&error), "42501");
}

#[tokio::test]
async fn a_database_that_comes_up_later_is_served_then() {
    let server = tokio::task::spawn_blocking(Server::get).await.unwrap();
    let database = fresh_name();
    let estate = Estate::of(server, &database, &[Read], "");
    std::fs::write(estate.password_file(Read), "not set yet\n").unwrap();
    let world = estate.open(POLICY).await;
    let ann = world.person("ann", "reader").await;
    let error = world.try_connect(&ann).await.unwrap_err();
    assert_eq!(code(&error), "57P03");
    let create = format!("create database {database}");
    server.direct().await.batch_execute(&create).await.unwrap();
    estate.administrator(CONTENTS).await;
    estate.set_up(&Default::default()).await;
    until_served(&world, &ann, true).await;
}

#[tokio::test]
async fn a_server_that_is_down_is_said_to_be_and_asked_again() {
    let estate = Estate::new(CONTENTS, &[Read]).await;
    // A server that is not there, on a port that nobody has.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Server {
        port,
        dir: Server::get().dir.clone(),
    };
    let away = Estate::of(&server, &estate.database, &[Read], "");
    std::fs::copy(estate.password_file(Read), away.password_file(Read)).unwrap();
    let found = curfew_gateway::rights::check(&away.config).await;
    assert!(
        found[0]
            .what
            .contains("cannot be asked what its accounts can do"),
        "{found:?}"
    );
    let rest = away.rest.clone();
    let world = World::before(&server, POLICY, &estate.database, &rest).await;
    let ann = world.person("ann", "reader").await;
    let error = world.try_connect(&ann).await.unwrap_err();
    assert_eq!(code(&error), "57P03");
    let message = error.as_db_error().unwrap().message();
    assert!(message.contains("cannot be reached yet"), "{message}");
    // It comes up: something hands its bytes to the real one.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let real = ("127.0.0.1", Server::get().port);
                let mut real = tokio::net::TcpStream::connect(real).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut real).await;
            });
        }
    });
    until_served(&world, &ann, true).await;
}

#[tokio::test]
async fn passwords_are_made_once_and_only_their_verifiers_go_to_the_server() {
    use std::os::unix::fs::MetadataExt;
    let estate = Estate::new(CONTENTS, &[Read]).await;
    let file = estate.password_file(Read);
    let password = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(password.trim_end().len() >= 43, "256 bits");
    let setup = curfew_gateway::setup::Setup::new(&estate.config).unwrap();
    assert!(setup.made().is_empty());
    let sql = setup.sql(&Default::default());
    assert!(sql.contains("SCRAM-SHA-256$") && !sql.contains(password.trim_end()));
    estate.account(Read).await.unwrap();
}

/// Loads a policy with this text in place of another.
async fn load(world: &World, old: &str, new: &str) {
    let text = POLICY.replace(old, new);
    assert_ne!(text, POLICY);
    let registrar = world.gateway.running.registrar();
    let loaded = registrar.command(Command::LoadPolicy { text }).await;
    assert_eq!(loaded, Ok(Verdict::Done));
}

#[tokio::test]
async fn a_new_policy_ends_connections_whose_accounts_can_do_more_than_it_permits() {
    let estate = Estate::new(CONTENTS, ALL).await;
    let world = estate.open(POLICY).await;
    let (ann, bob) = (
        world.person("ann", "reader").await,
        world.person("bob", "writer").await,
    );
    let reader = world.connect(&ann).await;
    let (writer, connection) = world.config(&bob).connect(world.connector()).await.unwrap();
    let ended = tokio::spawn(connection);
    assert_eq!(user(&writer).await, estate.role(Write));
    load(&world, "[Role::\"writer\", Role::\"dba\"", "[Role::\"dba\"").await;
    let error = tokio::time::timeout(Duration::from_secs(10), ended).await;
    let error = error.expect("it is cut").unwrap().unwrap_err();
    assert_eq!(code(&error), "57P01");
    let message = error.as_db_error().unwrap().message();
    assert_eq!(message, "terminating connection because of a new policy");
    assert_eq!(signed_in_as(&world, &bob).await, estate.role(Read));
    assert_eq!(user(&reader).await, estate.role(Read));
    let closed = |entry: &&serde_json::Value| entry["by"] == "policy";
    assert_eq!(world.entries().iter().filter(closed).count(), 1);
    world.audit();
}

#[tokio::test]
async fn a_new_policys_stricter_limits_hold_for_connections_that_are_open() {
    let estate = Estate::new(CONTENTS, ALL).await;
    let world = estate.open(POLICY).await;
    let bob = world.person("bob", "writer").await;
    let (writer, connection) = world.config(&bob).connect(world.connector()).await.unwrap();
    let ended = tokio::spawn(connection);
    assert_eq!(user(&writer).await, estate.role(Write));
    load(&world, "@id(\"write\")", "@id(\"write\") @idle(\"1s\")").await;
    let error = tokio::time::timeout(Duration::from_secs(10), ended).await;
    let error = error.expect("it is cut").unwrap().unwrap_err();
    assert_eq!(code(&error), "57P05");
    world.audit();
}

#[tokio::test]
async fn activity_without_an_entry_counts_for_the_account() {
    let estate = Estate::new(CONTENTS, ALL).await;
    let world = estate.open(POLICY).await;
    let lou = world.person("lou", "lively").await;
    let client = world.connect(&lou).await;
    assert_eq!(user(&client).await, estate.role(Write));
    // The statement is activity as long as it runs, and no entry tells of it meanwhile.
    let running = tokio::spawn(async move { client.batch_execute("select pg_sleep(4)").await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(signed_in_as(&world, &lou).await, estate.role(Write));
    running.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(signed_in_as(&world, &lou).await, estate.role(Read));
    world.audit();
}
