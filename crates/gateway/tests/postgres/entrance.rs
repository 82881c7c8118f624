//! Getting in, and not.

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{Person, World, field, startup};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn code(error: &tokio_postgres::Error) -> String {
    error
        .code()
        .map(|code| code.code().to_owned())
        .unwrap_or_else(|| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_a_live_session_opens_and_a_wrong_one_does_not() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let client = world.connect(&ana).await;
    let row = client
        .query_one("select current_user, current_database()", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get(0), row.get::<_, String>(1)),
        ("curfew", world.database.clone())
    );

    // Each of several passwords of several sessions works.
    let again = world.person("ana", "dba").await;
    let third = Person {
        password: world.password(&ana.session).await,
        ..again
    };
    world.connect(&third).await;

    let mut stranger = world.person("ana", "dba").await;
    for (name, password) in [
        ("ana", "wrong"),
        ("nobody", &*ana.password),
        ("no body", "x"),
    ] {
        stranger.name = name.into();
        stranger.password = password.into();
        let error = world.try_connect(&stranger).await.err().unwrap();
        assert_eq!(code(&error), "28P01", "{name}");
    }
    let log = world.ledger();
    assert!(log.contains("\"credential.unknown\""));
    assert!(!log.contains(&ana.password));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistaken_database_is_named_to_whoever_knows_a_password_and_nobody_else() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    for database in ["order", "Orders", "no database"] {
        let mut config = world.config(&ana);
        config.dbname(database);
        let error = config.connect(world.connector()).await.err().unwrap();
        let told = error.as_db_error().unwrap();
        assert_eq!(told.code().code(), "3D000", "{database}");
        assert!(told.message().contains(database), "{told}");
        assert!(told.detail().unwrap().contains("\"orders\""), "{told}");
        config.password("wrong");
        let error = config.connect(world.connector()).await.err().unwrap();
        assert_eq!(code(&error), "28P01", "{database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_session_a_password_is_told_so() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    world.connect(&ana).await;
    world.end(&ana.session).await;
    let error = world.try_connect(&ana).await.err().unwrap();
    let told = error.as_db_error().unwrap();
    assert_eq!(told.code().code(), "28000");
    assert_eq!(told.message(), "your session has ended");
    assert!(told.hint().unwrap().contains("curfew psql orders"));
    assert!(world.ledger().contains("\"session.used_after_end\""));
    let other = world.person("ana", "dba").await;
    world.connect(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_connect_is_told_why() {
    let world = World::start().await;
    let eve = world.person("eve", "intern").await;
    let error = world.try_connect(&eve).await.err().unwrap();
    let told = error.as_db_error().unwrap();
    assert_eq!((told.code().code(), told.severity()), ("42501", "FATAL"));
    assert_eq!(
        told.detail(),
        Some("No rule permits sql.connect on orders.")
    );
}

/// What the gateway says to these bytes, sent in the clear.
async fn says(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", world.port()))
        .await
        .unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), reading).await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_tls_gets_in() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let plain = says(&world, &startup(&ana, 0x0003_0000)).await;
    assert_eq!(field(&plain[5..], b'C'), "28000");
    assert_eq!(field(&plain[5..], b'M'), "TLS is required");
    assert!(field(&plain[5..], b'H').contains("sslmode=verify-full"));
    // psql says it to the person.
    let mut command = world.psql_command(&ana);
    command.env("PGSSLMODE", "disable").args(["-c", "select 1"]);
    let output = command.output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("TLS is required"));
    // GSSAPI is declined, and asked for once.
    let both = [&GSS_REQUEST[..], &startup(&ana, 0x0003_0000)].concat();
    let answer = says(&world, &both).await;
    assert_eq!(answer[0], b'N');
    assert_eq!(field(&answer[6..], b'C'), "28000");
    // Bytes behind the question are not taken over into the encrypted stream.
    let stuffed = [&SSL_REQUEST[..], &startup(&ana, 0x0003_0000)].concat();
    let answer = says(&world, &stuffed).await;
    assert_eq!(field(&answer[5..], b'C'), "08P01", "{answer:?}");
    // Who does not begin with a length is told nothing, as by PostgreSQL.
    let web = says(&world, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(web.is_empty(), "{web:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_tls_needs_its_protocol_name() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut raw = world.raw(&ana, 0x0003_0000).await;
    raw.send(b"Q\0\0\0\x0dselect 1\0").await;
    assert_eq!(raw.until_ready().await, "TDCZI");
    let mut stream = world.direct_tls(b"").await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(field(&answer[5..], b'C'), "08P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_negotiated_and_keys_are_as_long_as_they_say() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let mut old = world.raw(&ana, 0x0003_0000).await;
    assert_eq!((old.key.len(), old.negotiated.as_deref()), (4 + 4, None));
    // The number is the server's, which notifications and pg_stat_activity name too.
    old.send(b"Q\0\0\0\x1cselect pg_backend_pid()\0\0").await;
    let process = i32::from_be_bytes(old.key[..4].try_into().unwrap());
    let row = loop {
        let (tag, body) = old.next().await.unwrap();
        if tag == b'D' {
            break body;
        }
    };
    assert_eq!(&row[6..], process.to_string().as_bytes());
    let new = world.raw(&ana, 0x0003_0002).await;
    assert_eq!((new.key.len(), new.negotiated.as_deref()), (4 + 32, None));
    let grease = world.raw(&ana, 0x0003_270f).await;
    assert_eq!(grease.key.len(), 4 + 32);
    assert_eq!(
        grease.negotiated.as_deref(),
        Some(&[0, 3, 0, 2, 0, 0, 0, 0][..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_reaches_the_statement_and_a_wrong_key_nothing() {
    let world = World::start().await;
    let ana = world.person("ana", "dba").await;
    let client = world.connect(&ana).await;
    let token = client.cancel_token();
    let running = tokio::spawn(async move {
        let ended = client.batch_execute("select pg_sleep(60)").await;
        // The connection goes on.
        client.batch_execute("select 1").await.unwrap();
        ended
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    token.cancel_query(world.connector()).await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(code(&error), "57014");

    let mut raw = world.raw(&ana, 0x0003_0002).await;
    raw.say(|out| {
        postgres_protocol::message::frontend::query("select pg_sleep(0.5)", out).unwrap()
    })
    .await;
    let mut wrong = raw.key.clone();
    if let Some(last) = wrong.last_mut() {
        *last ^= 1;
    }
    let mut packet = BytesMut::new();
    packet.put_i32(i32::try_from(wrong.len()).unwrap() + 8);
    packet.put_i32(80_877_102);
    packet.extend_from_slice(&wrong);
    assert_eq!(says(&world, &packet).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_need_asking_cannot_be_slipped_in_at_the_start() {
    let world = World::start().await;
    let ana = world.person("ana", "analyst").await;
    let mut config = world.config(&ana);
    config.options("-c role=pg_signal_backend");
    let error = config.connect(world.connector()).await.err().unwrap();
    assert_eq!(code(&error), "42501");
    let mut config = world.config(&ana);
    config
        .options("-c work_mem=3MB -c search_path=x")
        .application_name("report");
    let (client, connection) = config.connect(world.connector()).await.unwrap();
    tokio::spawn(connection);
    let row = client
        .query_one("select current_setting('work_mem')", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "3MB");
    assert!(world.ledger().contains("\"client\":\"report\""));
}
