//! A database with an account for each class, set up as an operator would.

use std::path::PathBuf;

use bytes::BytesMut;
use curfew_entry::AccountClass;
use curfew_gate::secret;
use curfew_gateway::config::{Config, PostgresResource};
use curfew_gateway::setup::{Options, Setup};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::Raw;
use super::server::{PASSWORD, Server};
use super::world::{Person, World, fresh_name, table};

/// A database and its accounts, before any gateway.
pub(crate) struct Estate {
    pub(crate) database: String,
    pub(crate) config: PostgresResource,
    /// The rest of its table in the configuration.
    pub(crate) rest: String,
    folder: tempfile::TempDir,
}

impl Estate {
    /// A new database with these contents and with accounts of these classes.
    pub(crate) async fn new(contents: &str, classes: &[AccountClass]) -> Self {
        let server = tokio::task::spawn_blocking(Server::get).await.unwrap();
        let database = fresh_name();
        let create = format!("create database {database}");
        server.direct().await.batch_execute(&create).await.unwrap();
        let estate = Self::of(server, &database, classes, "");
        estate.administrator(contents).await;
        if !classes.is_empty() {
            estate.set_up(&Options::default()).await;
        }
        estate
    }

    /// Of a database that is there, with accounts that need not be.
    pub(crate) fn of(
        server: &Server,
        database: &str,
        classes: &[AccountClass],
        more: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rest = more.to_owned();
        for class in classes {
            rest += &format!(
                "[postgres.accounts.{class}]\nuser = \"{database}_{class}\"\npassword_file = \"{}\"\n",
                folder.path().join(class.as_str()).display()
            );
        }
        if classes.is_empty() {
            rest += "user = \"curfew\"\ntrust = \"classifier\"\n";
        }
        Self {
            config: resource(&format!("{}{rest}", table(server, database))),
            database: database.to_owned(),
            rest,
            folder,
        }
    }

    /// The same database with accounts of these classes.
    pub(crate) fn with(self, classes: &[AccountClass]) -> Self {
        Self::of(Server::get(), &self.database, classes, "")
    }

    /// A raw client around the gateway with the account of a class.
    pub(crate) async fn raw(&self, class: AccountClass) -> Raw {
        let server = Server::get();
        let mut stream = TcpStream::connect(("127.0.0.1", server.port))
            .await
            .unwrap();
        let mut ask = BytesMut::new();
        frontend::ssl_request(&mut ask);
        stream.write_all(&ask).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'S');
        let stream = server
            .connector()
            .connect("localhost".try_into().unwrap(), stream)
            .await;
        let password = std::fs::read_to_string(self.password_file(class)).unwrap();
        let account = Person {
            name: self.role(class),
            session: secret::session_id().unwrap(),
            password: password.trim_end().to_owned(),
            bearer: String::new(),
        };
        Raw::connect_to(&self.database, stream.unwrap(), &account, 0x0003_0000).await
    }

    /// The name of the role of a class.
    pub(crate) fn role(&self, class: AccountClass) -> String {
        format!("{}_{class}", self.database)
    }

    /// The file with the password of a class.
    pub(crate) fn password_file(&self, class: AccountClass) -> PathBuf {
        self.folder.path().join(class.as_str())
    }

    /// Runs the setup as a superuser.
    pub(crate) async fn set_up(&self, options: &Options) -> Vec<String> {
        let setup = Setup::new(&self.config).unwrap();
        let sql = setup.sql(options);
        let administrator = setup.connect("curfew", Some(PASSWORD.into())).await;
        let notices = administrator.unwrap().run(&sql).await;
        notices.unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// Runs SQL in the database as a superuser.
    pub(crate) async fn administrator(&self, sql: &str) -> tokio_postgres::Client {
        let client = Server::get().direct_to(&self.database).await;
        if let Err(error) = client.batch_execute(sql).await {
            panic!("{error:?}\n{sql}");
        }
        client
    }

    /// A connection around the gateway with the account of a class.
    pub(crate) async fn account(
        &self,
        class: AccountClass,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let server = Server::get();
        let password = std::fs::read_to_string(self.password_file(class)).unwrap();
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(&server.dir)
            .port(server.port)
            .user(self.role(class))
            .password(password.trim_end())
            .dbname(&self.database)
            .connect(tokio_postgres::NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A gateway before it.
    pub(crate) async fn open(&self, policy: &str) -> World {
        World::before(Server::get(), policy, &self.database, &self.rest).await
    }
}

/// What a table of the configuration says.
fn resource(table: &str) -> PostgresResource {
    let text = format!(
        "data = \"d\"\npolicy = \"p\"\norigin = \"o\"\nportal = \"curfew.localhost\"\n\
         [listen]\nweb = \"127.0.0.1:0\"\npostgres = \"127.0.0.1:0\"\n\
         [tls]\ncertificate = \"c\"\nkey = \"k\"\n{table}"
    );
    let mut config = Config::parse("curfew.toml", &text, "/".as_ref()).unwrap();
    config.postgres.remove(0)
}
