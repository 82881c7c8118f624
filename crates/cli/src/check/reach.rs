//! What is behind Curfew: whether it can be reached, whether databases take the accounts, and what
//! those can do there.

use std::time::Duration;

use curfew_gate::problem::Problem;
use curfew_gateway::config::{Account, Config, PostgresResource, UpstreamTls, WebResource};
use curfew_gateway::rights;
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long an answer may take: longer than any of a network that works.
const PATIENCE: Duration = Duration::from_secs(3);

/// What cannot be reached, or takes Curfew for nobody. All are asked at once.
pub(super) async fn all(config: &Config) -> Vec<Problem> {
    let databases = join_all(config.postgres.iter().map(database));
    let (mut found, databases) = tokio::join!(apps(config), databases);
    found.extend(databases.into_iter().flatten());
    found
}

/// The same of web apps alone: a gateway that runs watches its databases itself.
pub(super) async fn apps(config: &Config) -> Vec<Problem> {
    let web = join_all(config.web.iter().map(web)).await;
    web.into_iter().flatten().collect()
}

async fn web(resource: &WebResource) -> Option<Problem> {
    let url = reqwest::Url::parse(&resource.upstream).ok()?;
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect((host, port))).await;
    let why = match connected {
        Ok(Ok(_)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    let place = format!("web resource `{}`", resource.name);
    let what = format!("{} cannot be reached: {why}", resource.upstream);
    Some(Problem::warning(
        place,
        what,
        "start it, or correct `upstream`",
    ))
}

/// Where all accounts are taken, what is said of their rights; otherwise why not.
async fn database(resource: &PostgresResource) -> Vec<Problem> {
    let tried = join_all(resource.logins().into_iter().map(|it| login(resource, it))).await;
    let refused: Vec<Problem> = tried.into_iter().flatten().collect();
    if !refused.is_empty() {
        return refused;
    }
    let place = format!("database `{}`", resource.name);
    let rights = rights::check(resource).await.into_iter();
    let told = rights.map(|it| {
        let what = it.what.strip_prefix(&place).unwrap_or(&it.what);
        let what = what.trim_start_matches([':', ' ']).to_owned();
        Problem::warning(place.clone(), what, it.fix.unwrap_or_default())
    });
    told.collect()
}

async fn login(resource: &PostgresResource, account: &Account) -> Option<Problem> {
    let tried = tokio::time::timeout(PATIENCE, connect(resource, account)).await;
    let place = format!("database `{}`", resource.name);
    let at = format!("{}:{}", resource.host, resource.port);
    let (what, fix) = match tried {
        Ok(Ok(())) => return None,
        Ok(Err(Trouble::Setup(what))) => (what, "correct the file or the key that names it"),
        Ok(Err(Trouble::Server(error))) => told(resource, account, &at, &error),
        Err(_) => (
            format!("{at} does not answer within {} s", PATIENCE.as_secs()),
            "start it, or correct `host` and `port`",
        ),
    };
    Some(Problem::warning(place, what, fix))
}

fn told(
    resource: &PostgresResource,
    account: &Account,
    at: &str,
    error: &tokio_postgres::Error,
) -> (String, &'static str) {
    let user = &account.user;
    let Some(refused) = error.as_db_error() else {
        let cause =
            std::error::Error::source(error).map_or_else(String::new, |it| format!(": {it}"));
        let what = format!("{at} cannot be used: {error}{cause}");
        return (what, "start it, or correct `host`, `port`, `tls` and `ca`");
    };
    let (code, message) = (refused.code(), refused.message());
    if [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    ]
    .contains(code)
    {
        let what = format!("{at} refuses the account `{user}`: {message}");
        return (
            what,
            "correct `user` and the file that `password_file` names, or pg_hba.conf there",
        );
    }
    if *code == SqlState::INVALID_CATALOG_NAME {
        let what = format!("{at} has no database `{}`", resource.database);
        return (what, "correct `database`");
    }
    let what = format!("{at} refuses: {} {message}", code.code());
    (what, "see the server's own log")
}

/// Why a database was not connected to.
enum Trouble {
    /// A file of ours.
    Setup(String),
    /// The server, or the way there.
    Server(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// Signs in with an account that Curfew uses, and leaves again.
async fn connect(resource: &PostgresResource, account: &Account) -> Result<(), Trouble> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&resource.host)
        .port(resource.port)
        .dbname(&resource.database)
        .user(&account.user)
        .application_name("curfew check")
        .connect_timeout(PATIENCE);
    if let Some(path) = &account.password_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Trouble::Setup(format!("{}: {error}", path.display())))?;
        config.password(text.trim_end_matches(['\r', '\n']));
    }
    match resource.tls {
        UpstreamTls::Disable => {
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await?;
            leave(client, connection).await
        }
        UpstreamTls::VerifyFull => {
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            let trust =
                curfew_gate::tls::trusting(resource.ca.as_deref()).map_err(Trouble::Setup)?;
            let tls = MakeRustlsConnect::new(trust.with_no_client_auth());
            let (client, connection) = config.connect(tls).await?;
            leave(client, connection).await
        }
    }
}

/// Leaves as a client does that is done, so that the server's log says nothing of it.
async fn leave(
    client: tokio_postgres::Client,
    connection: impl Future<Output = Result<(), tokio_postgres::Error>>,
) -> Result<(), Trouble> {
    drop(client);
    Ok(connection.await?)
}
