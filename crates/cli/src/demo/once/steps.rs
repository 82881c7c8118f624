//! The story, step by step.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tokio_postgres::NoTls;

use super::super::stage::Stage;
use super::browser::{Api, Browser};
use super::live::{
    Measured, PATIENCE, Seen, measure, now_micros, open_socket, until_closed, until_ended,
};
use super::sql::{Connection, Way, failed, sql_state, tls};
use super::{Steps, broken, proofs};
use crate::failure::{Doing, Failure, Outcome};

/// How long a checkpoint may take after the last entry: published each second.
const CHECKPOINT: Duration = Duration::from_millis(1_500);

/// How long after its cut a backend may still be seen in PostgreSQL.
const BACKEND_GONE: Duration = Duration::from_secs(1);

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How soon after the command an ended session's query must be gone.
const FORCED_END: Duration = Duration::from_secs(2);

/// A person at work: a browser, a token for programs, a way into the database.
struct At {
    browser: Browser,
    api: Api,
    way: Way,
    session: String,
}

/// Everything, in order. Stops at the first step that is not as promised.
pub(super) async fn story(stage: &mut Stage, steps: &mut Steps) -> Outcome {
    let outcome = strangers(stage).await;
    steps.step("without a session nothing opens", outcome)?;

    let browser = Browser::new(&stage.ca)?;
    let outcome = sign_in(stage, &browser).await;
    steps.step(
        "ana signs in through the real pages: password and one-time code",
        outcome,
    )?;
    let outcome = order(stage, &browser).await;
    steps.step("web app: a page is read, a form is sent", outcome)?;
    let at = at_work(stage, browser, "ana").await;
    let at = named(
        steps,
        "ana approves a token for programs and takes a database password",
        at,
    )?;
    let outcome = call_api(stage, &at).await;
    steps.step("API with the bearer token", outcome)?;
    let outcome = ask_sql(&at).await;
    steps.step(
        "SQL with an unchanged driver: ana reads, and may not write",
        outcome,
    )?;

    idle_cut(stage, &at, steps).await?;
    let outcome = refused_after(stage, &at).await;
    steps.step(
        "afterwards the old cookie, token and database password open nothing",
        outcome,
    )?;

    let browser = Browser::new(&stage.ca)?;
    let again = async {
        let ana = stage.user("ana")?;
        browser.sign_in(&stage.shop(), ana, 0).await?;
        at_work(stage, browser, "ana").await
    };
    let at = named(steps, "ana signs in again, with a new session", again.await)?;
    let outcome = forced_end(stage, &at).await;
    steps.step("dan ends ana's session while her query runs", outcome)?;

    tokio::time::sleep(CHECKPOINT).await;
    steps.step(
        "the log is proven, while Curfew runs",
        proofs::as_it_is(stage),
    )?;
    stage.curfew.stop().await;
    steps.step(
        "Curfew stops; the log is proven as it lies",
        proofs::as_it_is(stage),
    )?;
    steps.step("a tampered copy is refused", proofs::tampered(stage))?;
    steps.step(
        "an action forged into an ended session is refused",
        proofs::forged(stage, &at.session),
    )
}

/// A step whose result is needed later; its session is what was seen.
fn named(steps: &mut Steps, title: &str, at: Outcome<At>) -> Outcome<At> {
    match at {
        Ok(at) => {
            steps.seen(title, format_args!("session {}", at.session));
            Ok(at)
        }
        Err(failure) => {
            steps.not_as_promised(title);
            Err(failure)
        }
    }
}

async fn strangers(stage: &Stage) -> Outcome<String> {
    let page = Browser::new(&stage.ca)?.open(&stage.shop()).await?;
    if page.url.path() != "/sign-in" {
        return broken(format_args!(
            "a stranger got {} at {}",
            page.status, page.url
        ));
    }
    let (status, _) = Api::new(&stage.ca, None)?
        .get(&format!("{}/api/orders", stage.api()))
        .await?;
    if status != StatusCode::UNAUTHORIZED {
        return broken(format_args!(
            "a stranger's API call was answered with {status}"
        ));
    }
    let way = Way::new(&stage.ca, stage.ports.postgres, "ana", "cfd_guessed")?;
    let state = refusal(&way).await?;
    Ok(format!(
        "web app: to the sign-in page; API: {status}; database: {state}"
    ))
}

/// How a database connection is refused.
async fn refusal(way: &Way) -> Outcome<String> {
    match way.connect().await {
        Ok(_) => broken("a database connection was opened"),
        Err(error)
            if error
                .as_db_error()
                .is_some_and(|error| error.code().code().starts_with("28")) =>
        {
            Ok(sql_state(&error))
        }
        Err(error) => broken(format_args!(
            "the database refused with `{}`",
            sql_state(&error)
        )),
    }
}

async fn sign_in(stage: &Stage, browser: &Browser) -> Outcome<String> {
    // The code of the step before is still taken; so the next sign-in need not wait for a new one.
    let page = browser
        .sign_in(&stage.shop(), stage.user("ana")?, -1)
        .await?;
    if !page.url.as_str().starts_with(&stage.shop())
        || !page.text.contains("Signed in as <strong>ana")
    {
        return broken(format_args!(
            "signing in led to {} ({})",
            page.url, page.status
        ));
    }
    Ok(format!(
        "from {} to sign-in and back; the app is told who it is: ana",
        stage.shop()
    ))
}

async fn order(stage: &Stage, browser: &Browser) -> Outcome<String> {
    let page = browser.open(&stage.shop()).await?;
    let page = browser
        .submit(&page, "/", &[("item", "storm lamp"), ("quantity", "2")])
        .await?;
    if page.status != StatusCode::OK || !page.text.contains("storm lamp") {
        return broken(format_args!("the form was answered with {}", page.status));
    }
    Ok("the order stands on the page that came back".to_owned())
}

/// What somebody who has signed in needs to work everywhere.
async fn at_work(stage: &Stage, browser: Browser, name: &str) -> Outcome<At> {
    let portal = stage.portal();
    let api = Api::new(&stage.ca, Some(browser.bearer(&portal).await?))?;
    let (status, password) = api
        .post(&format!("{portal}/api/v1/databases/orders/password"))
        .await?;
    let field =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(secret) = field(&password, "password") else {
        return broken(format_args!("no database password: {status} {password}"));
    };
    let (status, session) = api.get(&format!("{portal}/api/v1/session")).await?;
    let Some(id) = field(&session, "session") else {
        return broken(format_args!("no session: {status} {session}"));
    };
    let way = Way::new(&stage.ca, stage.ports.postgres, name, &secret)?;
    Ok(At {
        browser,
        api,
        way,
        session: id,
    })
}

async fn call_api(stage: &Stage, at: &At) -> Outcome<String> {
    let (status, body) = at.api.get(&format!("{}/api/orders", stage.api())).await?;
    let subject = body.get("subject").and_then(Value::as_str);
    let orders = body
        .get("orders")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    if status != StatusCode::OK || subject != Some("ana") {
        return broken(format_args!("the API answered {status} {body}"));
    }
    Ok(format!("{status}, {orders} orders, as ana"))
}

async fn ask_sql(at: &At) -> Outcome<String> {
    let connection = at.way.connect().await.map_err(failed("connecting"))?;
    let count = "SELECT count(*) FROM orders";
    let row = connection
        .client
        .query_one(count, &[])
        .await
        .map_err(failed(count))?;
    let orders: i64 = row.get(0);
    let insert = "INSERT INTO customers (name, city) VALUES ('x', 'y')";
    let state = match connection.client.execute(insert, &[]).await {
        Ok(_) => return broken("the analyst's write went through"),
        Err(error) => sql_state(&error),
    };
    if !state.starts_with("42501") {
        return broken(format_args!(
            "the analyst's write was refused with `{state}`"
        ));
    }
    connection
        .client
        .query_one(count, &[])
        .await
        .map_err(failed("reading after the refusal"))?;
    Ok(format!(
        "{orders} orders read; a write: {state}; the connection lives on"
    ))
}

/// The moment at which ana's session ends, in microseconds since the epoch. Looking is no activity.
async fn deadline_micros(stage: &Stage, at: &At) -> Outcome<i64> {
    let (status, session) = at
        .api
        .get(&format!("{}/api/v1/session", stage.portal()))
        .await?;
    let Some(text) = session.pointer("/deadline/at").and_then(Value::as_str) else {
        return broken(format_args!("no deadline: {status} {session}"));
    };
    let moment: jiff::Timestamp = text.parse().doing("the deadline")?;
    Ok(moment.as_microsecond())
}

async fn idle_cut(stage: &Stage, at: &At, steps: &mut Steps) -> Outcome {
    let title = "open and then left alone: WebSocket, SSE, psql, psql in a transaction";
    let opened = async {
        let socket = open_socket(stage, &at.browser, &tls(&stage.ca)?).await?;
        let stream = at
            .browser
            .stream(&format!("{}/events", stage.shop()))
            .await?;
        let idle = at.way.connect().await.map_err(failed("connecting"))?;
        idle.client
            .query_one("SELECT 1", &[])
            .await
            .map_err(failed("SELECT 1"))?;
        let inside = at.way.connect().await.map_err(failed("connecting"))?;
        inside
            .client
            .batch_execute("BEGIN; SELECT 1")
            .await
            .map_err(failed("BEGIN"))?;
        Ok((
            socket,
            stream,
            idle,
            inside,
            deadline_micros(stage, at).await?,
        ))
    };
    let (socket, stream, idle, inside, deadline) = match opened.await {
        Ok(opened) => opened,
        Err(failure) => {
            steps.not_as_promised(title);
            return Err(failure);
        }
    };
    let left = Duration::from_micros(u64::try_from(deadline - now_micros()).unwrap_or(0));
    steps.seen(
        title,
        format_args!(
            "all four live; the idle limit ends them in {:.1} s",
            left.as_secs_f64()
        ),
    );
    let ended = tokio::time::timeout(left + PATIENCE, async {
        tokio::join!(
            until_closed(socket),
            until_ended(stream),
            ended(idle),
            ended(inside)
        )
    });
    let outcome = async {
        let (socket, stream, idle, inside) = ended
            .await
            .map_err(|_| Failure::failed("something was still open long after the limit"))?;
        let measured = [
            measure("WebSocket", socket, deadline, "close code 3008")?,
            measure("SSE", stream, deadline, "stream ended")?,
            measure("psql", idle, deadline, "57P05")?,
            measure("psql in a transaction", inside, deadline, "25P03")?,
        ];
        let lines: Vec<String> = measured.iter().map(Measured::to_string).collect();
        Ok(lines.join("\n"))
    };
    steps.step("all cut by the server, on time", outcome.await)
}

/// Waits until the server ends a connection.
async fn ended(connection: Connection) -> Seen {
    // The client is held until then: dropping it would end the connection from our side.
    let Connection { client, ended } = connection;
    let seen = ended.await.unwrap_or(Seen {
        what: "lost".to_owned(),
        at_micros: now_micros(),
    });
    drop(client);
    seen
}

async fn refused_after(stage: &Stage, at: &At) -> Outcome<String> {
    let page = at.browser.open(&stage.shop()).await?;
    if page.url.path() != "/sign-in" {
        return broken(format_args!(
            "the old cookie got {} at {}",
            page.status, page.url
        ));
    }
    let (status, body) = at.api.get(&format!("{}/api/orders", stage.api())).await?;
    if status != StatusCode::UNAUTHORIZED {
        return broken(format_args!("the old token got {status}"));
    }
    let says = body
        .get("error_description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let state = refusal(&at.way).await?;
    Ok(format!(
        "web app: to the sign-in page; API: {status} {says}\ndatabase: {state}"
    ))
}

async fn forced_end(stage: &Stage, at: &At) -> Outcome<String> {
    let browser = Browser::new(&stage.ca)?;
    browser
        .sign_in(&stage.portal(), stage.user("dan")?, 0)
        .await?;
    let dan = at_work(stage, browser, "dan").await?;
    let Connection { client, ended } = at.way.connect().await.map_err(failed("connecting"))?;
    let query =
        tokio::spawn(async move { client.query_one("SELECT pg_sleep(60)", &[]).await.err() });
    until_backends(stage, 1).await?;

    let end = format!("{}/api/v1/sessions/{}/end", stage.portal(), at.session);
    let asked_micros = now_micros();
    let (status, body) = dan.api.post(&end).await?;
    if !status.is_success() {
        return broken(format_args!(
            "ending the session was answered with {status} {body}"
        ));
    }
    let error = tokio::time::timeout(FORCED_END, query).await;
    let error = error
        .map_err(|_| Failure::failed("the query went on"))?
        .doing("the query")?;
    let Some(error) = error else {
        return broken("the query succeeded");
    };
    let state = sql_state(&error);
    let seen = ended.await.unwrap_or(Seen {
        what: String::new(),
        at_micros: now_micros(),
    });
    let said = format!("{state} {}", seen.what);
    if !said.contains("57P01") {
        return broken(format_args!("the query ended with `{said}`"));
    }
    until_backends(stage, 0).await?;
    let took_millis = (seen.at_micros - asked_micros) / 1_000;
    let refused = refused_after(stage, at).await?;
    Ok(format!(
        "SELECT pg_sleep(60) ended {took_millis} ms after dan's command: {state}\n\
         no backend is left in PostgreSQL\n{refused}"
    ))
}

/// Waits until PostgreSQL itself says that so many backends work for Curfew.
async fn until_backends(stage: &Stage, wanted: i64) -> Outcome {
    let (client, connection) = stage
        .postgres
        .direct("orders")
        .connect(NoTls)
        .await
        .doing("PostgreSQL")?;
    let task = tokio::spawn(connection);
    // Curfew's own look at what its accounts can do calls itself so.
    let all = "SELECT count(*) FROM pg_stat_activity
                WHERE usename LIKE 'curfew\\_orders\\_%' AND application_name <> 'curfew'";
    let active = format!("{all} AND state = 'active'");
    let sql = if wanted == 0 { all } else { &active };
    let end = tokio::time::Instant::now() + BACKEND_GONE;
    let outcome = loop {
        let count: i64 = client
            .query_one(sql, &[])
            .await
            .doing("pg_stat_activity")?
            .get(0);
        if count == wanted {
            break Ok(());
        }
        if tokio::time::Instant::now() > end {
            break broken(format_args!(
                "PostgreSQL has {count} backends for Curfew, not {wanted}"
            ));
        }
        tokio::time::sleep(LOOK).await;
    };
    drop(client);
    let _ = task.await;
    outcome
}
