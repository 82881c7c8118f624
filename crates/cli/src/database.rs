//! `curfew psql NAME` and `curfew connect NAME`; below, `curfew database`.

mod accounts;
mod passfile;

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::client::{Client, Saved, ServerArgument, is_local};
use crate::failure::{Exit, Failure, Outcome};
use crate::say;

pub(crate) use accounts::{Database, database};

/// Opens psql on a database, with a password that works in this session only.
#[derive(Args, Debug)]
pub(crate) struct Psql {
    #[command(flatten)]
    server: ServerArgument,
    /// The database, as Curfew calls it.
    name: String,
    /// Handed on to psql.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Says how to connect to a resource: a web app, an API or a database.
#[derive(Args, Debug)]
pub(crate) struct Connect {
    #[command(flatten)]
    server: ServerArgument,
    /// The resource, as Curfew calls it.
    name: String,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Password {
    user: String,
    password: String,
    host: String,
    port: u16,
    database: String,
    expires: String,
}

#[derive(Debug, Deserialize)]
struct Listed {
    resources: Vec<Resource>,
}

#[derive(Debug, Deserialize)]
struct Resource {
    name: String,
    url: Option<String>,
}

/// How a database is reached.
#[derive(Serialize)]
struct DatabaseFacts<'a> {
    plane: &'static str,
    #[serde(flatten)]
    password: &'a Password,
    hostaddr: Option<&'static str>,
    sslmode: &'static str,
    sslrootcert: String,
}

/// How a web app or API is reached.
#[derive(Serialize)]
struct WebFacts<'a> {
    plane: &'static str,
    url: &'a str,
    authorization: String,
}

/// The resource of this name, if this person may use it.
async fn find(client: &Client, name: &str) -> Outcome<Resource> {
    check_name(name)?;
    let listed: Listed = client.get("api/v1/resources").await?;
    let known: Vec<String> = listed
        .resources
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let mut all = listed.resources.into_iter();
    all.find(|one| one.name == name).ok_or_else(|| {
        Failure::hint(
            Exit::Refused,
            format_args!("there is no `{name}` that you may use"),
            format_args!("there are: {}", known.join(", ")),
        )
    })
}

async fn password(client: &Client, name: &str) -> Outcome<Password> {
    client
        .post(&format!("api/v1/databases/{name}/password"))
        .await
}

/// A name goes into a path as it is.
fn check_name(name: &str) -> Outcome {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format_args!("`{name}` is not the name of a resource"),
    ))
}

/// Names under `localhost` are this machine, which resolvers do not all know.
fn address_of(host: &str) -> Option<&'static str> {
    is_local(host).then_some("127.0.0.1")
}

fn root_certificate(saved: &Saved) -> String {
    saved
        .ca
        .as_ref()
        .map_or_else(|| "system".to_owned(), |path| path.display().to_string())
}

pub(crate) async fn psql(arguments: &Psql) -> Outcome {
    let saved = Saved::load(&arguments.server)?;
    let client = Client::signed_in(&saved)?;
    if find(&client, &arguments.name).await?.url.is_some() {
        return Err(Failure::hint(
            Exit::Refused,
            format_args!("`{}` is no database", arguments.name),
            format_args!("`curfew connect {}` says how to reach it", arguments.name),
        ));
    }
    let password = password(&client, &arguments.name).await?;
    let mut command = Command::new("psql");
    command
        .args(&arguments.arguments)
        .env("PGHOST", &password.host)
        .env("PGPORT", password.port.to_string())
        .env("PGDATABASE", &password.database)
        .env("PGUSER", &password.user)
        .env("PGPASSWORD", &password.password)
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", root_certificate(&saved));
    if let Some(address) = address_of(&password.host) {
        command.env("PGHOSTADDR", address);
    }
    let error = command.exec();
    Err(Failure::hint(
        Exit::Failed,
        format_args!("cannot start psql: {error}"),
        format_args!(
            "`curfew connect {}` prints what any other client needs",
            arguments.name
        ),
    ))
}

pub(crate) async fn connect(arguments: &Connect) -> Outcome {
    let saved = Saved::load(&arguments.server)?;
    let client = Client::signed_in(&saved)?;
    let resource = find(&client, &arguments.name).await?;
    if let Some(url) = &resource.url {
        show_web(url, &saved, arguments.json);
        return Ok(());
    }
    let password = password(&client, &arguments.name).await?;
    show_database(&password, &saved, arguments.json);
    Ok(())
}

fn show_web(url: &str, saved: &Saved, json: bool) {
    if json {
        let authorization = format!("Bearer {}", saved.token);
        say::json(&WebFacts {
            plane: "web",
            url,
            authorization,
        });
        return;
    }
    say::line(format_args!("url   {url}"));
    let ca = saved
        .ca
        .as_ref()
        .map_or_else(String::new, |path| format!("--cacert {} ", path.display()));
    say::line(format_args!(
        "curl  curl {ca}-H \"Authorization: Bearer $(curfew token)\" {url}/"
    ));
}

fn show_database(password: &Password, saved: &Saved, json: bool) {
    let facts = DatabaseFacts {
        plane: "postgres",
        hostaddr: address_of(&password.host),
        sslmode: "verify-full",
        sslrootcert: root_certificate(saved),
        password,
    };
    if json {
        say::json(&facts);
        return;
    }
    let Password {
        user,
        password,
        host,
        port,
        database,
        expires,
    } = facts.password;
    say::line(format_args!("host      {host}"));
    say::line(format_args!("port      {port}"));
    say::line(format_args!("database  {database}"));
    say::line(format_args!("user      {user}"));
    say::line(format_args!("password  {password}"));
    say::line(format_args!(
        "until     {expires}, or the end of the session"
    ));
    let root = &facts.sslrootcert;
    let address = facts
        .hostaddr
        .map_or_else(String::new, |address| format!(" hostaddr={address}"));
    say::line(format_args!(
        "psql      psql \"host={host}{address} port={port} dbname={database} user={user} \
         sslmode=verify-full sslrootcert={root}\""
    ));
}
