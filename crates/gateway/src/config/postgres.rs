//! `[[postgres]]`: a database, and the accounts by which Curfew uses it.

use std::path::PathBuf;

use curfew_entry::{AccountClass, EnvironmentName, ResourceName};
use serde::Deserialize;

use super::RecordWhen;

/// A PostgreSQL database behind Curfew. Clients name it as their `dbname`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct PostgresResource {
    /// Its name in policy and log, and the `dbname` clients ask for.
    pub name: ResourceName,
    /// The environment it belongs to.
    pub environment: EnvironmentName,
    /// Free words for policy.
    pub tags: Vec<String>,
    /// Host name, address, or the folder of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The database's name at the server.
    pub database: String,
    /// The accounts Curfew uses there, and what it relies on.
    pub access: Access,
    /// How the server is spoken to.
    pub tls: UpstreamTls,
    /// A PEM file with the authorities that may vouch for the server; the system's otherwise.
    pub ca: Option<PathBuf>,
    /// When the record must be durable.
    pub record: RecordWhen,
}

/// What keeps a session from what policy does not permit it.
#[derive(Clone, Debug)]
pub enum Access {
    /// The database: a connection's account can do no more than policy permits.
    Enforced(Accounts),
    /// Accounts as well, but what they can do beyond their class only makes a warning.
    Lenient(Accounts),
    /// Curfew's reading of SQL alone: one account serves everybody.
    Classifier(Account),
}

/// An account for each class of access. A class without one is served by the next lower.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// For sessions that may connect and not read.
    pub connect: Option<Account>,
    /// For sessions that may read.
    pub read: Account,
    /// For sessions that may change data.
    pub write: Option<Account>,
    /// For sessions that may change definitions.
    pub ddl: Option<Account>,
}

/// An account at a database server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// A file with its password. Nobody but Curfew may read it.
    pub password_file: Option<PathBuf>,
    /// What somebody has looked at and found to stay within the account's class, as the check of
    /// its rights names it: `function app.tenant()`, `extension timescaledb`.
    #[serde(default)]
    pub reviewed: Vec<String>,
}

/// How an upstream database is spoken to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTls {
    /// TLS, and the server's certificate must name its host.
    #[default]
    VerifyFull,
    /// No TLS. Only for loopback and Unix sockets.
    Disable,
}

impl Accounts {
    /// The accounts there are, those with the least reach first.
    pub fn iter(&self) -> impl Iterator<Item = (AccountClass, &Account)> {
        let all = [
            (AccountClass::Connect, self.connect.as_ref()),
            (AccountClass::Read, Some(&self.read)),
            (AccountClass::Write, self.write.as_ref()),
            (AccountClass::Ddl, self.ddl.as_ref()),
        ];
        all.into_iter()
            .filter_map(|(class, account)| Some((class, account?)))
    }
}

impl PostgresResource {
    /// The accounts, where there is one for each class.
    pub fn accounts(&self) -> Option<&Accounts> {
        match &self.access {
            Access::Enforced(accounts) | Access::Lenient(accounts) => Some(accounts),
            Access::Classifier(_) => None,
        }
    }

    /// Every account Curfew uses there.
    pub fn logins(&self) -> Vec<&Account> {
        match &self.access {
            Access::Enforced(accounts) | Access::Lenient(accounts) => {
                accounts.iter().map(|(_, account)| account).collect()
            }
            Access::Classifier(account) => vec![account],
        }
    }

    /// The files it names.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let accounts: Vec<&mut Account> = match &mut self.access {
            Access::Enforced(all) | Access::Lenient(all) => {
                let read = std::iter::once(&mut all.read);
                let others = [&mut all.connect, &mut all.write, &mut all.ddl];
                read.chain(others.into_iter().flatten()).collect()
            }
            Access::Classifier(account) => vec![account],
        };
        let passwords = accounts
            .into_iter()
            .filter_map(|account| account.password_file.as_mut());
        passwords.chain(self.ca.as_mut())
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: ResourceName,
    environment: EnvironmentName,
    #[serde(default)]
    tags: Vec<String>,
    host: String,
    #[serde(default = "port")]
    port: u16,
    database: String,
    user: Option<String>,
    password_file: Option<PathBuf>,
    accounts: Option<WrittenAccounts>,
    trust: Option<Trust>,
    #[serde(default)]
    tls: UpstreamTls,
    ca: Option<PathBuf>,
    #[serde(default)]
    record: RecordWhen,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAccounts {
    connect: Option<Account>,
    read: Option<Account>,
    write: Option<Account>,
    ddl: Option<Account>,
}

/// What is relied on besides the database's own rights.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trust {
    Classifier,
}

fn port() -> u16 {
    5_432
}

impl TryFrom<Written> for PostgresResource {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let access = access(
            &written.name,
            written.user,
            written.password_file,
            written.accounts,
            written.trust,
        )?;
        Ok(Self {
            name: written.name,
            environment: written.environment,
            tags: written.tags,
            host: written.host,
            port: written.port,
            database: written.database,
            access,
            tls: written.tls,
            ca: written.ca,
            record: written.record,
        })
    }
}

fn access(
    name: &ResourceName,
    user: Option<String>,
    password_file: Option<PathBuf>,
    accounts: Option<WrittenAccounts>,
    trust: Option<Trust>,
) -> Result<Access, String> {
    match (user, accounts, trust) {
        (Some(_), Some(_), _) => Err(format!(
            "database `{name}` has both `user` and [postgres.accounts]; leave `user` and \
             `password_file` out"
        )),
        (None, Some(accounts), trust) => {
            if password_file.is_some() {
                return Err(format!(
                    "`password_file` of database `{name}` belongs to no account; write it into \
                     [postgres.accounts.read] and its like"
                ));
            }
            let accounts = per_class(name, accounts)?;
            Ok(match trust {
                None => Access::Enforced(accounts),
                Some(Trust::Classifier) => Access::Lenient(accounts),
            })
        }
        (Some(user), None, Some(Trust::Classifier)) => {
            let account = Account {
                user,
                password_file,
                reviewed: Vec::new(),
            };
            check_user(name, &account)?;
            Ok(Access::Classifier(account))
        }
        (Some(user), None, None) => Err(format!(
            "database `{name}` has one account, `{user}`, for everybody: what a session may not do, \
             the database would do for it. Write [postgres.accounts.read], .write and .ddl with a \
             `user` each (`curfew database setup {name}` makes them), or trust = \"classifier\" to \
             rely on Curfew's reading of SQL alone"
        )),
        (None, None, _) => Err(format!(
            "database `{name}` has no account; write [postgres.accounts.read] with `user` and \
             `password_file` (`curfew database setup {name}` makes the account)"
        )),
    }
}

fn per_class(name: &ResourceName, written: WrittenAccounts) -> Result<Accounts, String> {
    let WrittenAccounts {
        connect,
        read,
        write,
        ddl,
    } = written;
    let Some(read) = read else {
        return Err(format!(
            "database `{name}` has no account for reading, and none with more reach stands in for \
             it; write [postgres.accounts.read]"
        ));
    };
    let accounts = Accounts {
        connect,
        read,
        write,
        ddl,
    };
    let mut seen: Vec<(AccountClass, &str)> = Vec::new();
    for (class, account) in accounts.iter() {
        check_user(name, account)?;
        if let Some((other, user)) = seen.iter().find(|(_, user)| *user == account.user) {
            return Err(format!(
                "database `{name}` has the account `{user}` for both {other} and {class}; give each \
                 class its own, or leave [postgres.accounts.{class}] out"
            ));
        }
        seen.push((class, &account.user));
    }
    Ok(accounts)
}

fn check_user(name: &ResourceName, account: &Account) -> Result<(), String> {
    if account.user.is_empty() || account.user.contains('\0') {
        return Err(format!(
            "an account of database `{name}` has an empty `user`; write the name of a role at the \
             server"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, LEAST};
    use super::*;

    const DATABASE: &str = r#"
[[postgres]]
name = "orders"
environment = "test"
host = "localhost"
database = "o"
"#;

    fn parse(more: &str) -> Result<PostgresResource, String> {
        let listen = LEAST.replace("[tls]", "postgres = \"127.0.0.1:0\"\n[tls]");
        let text = format!("{listen}{DATABASE}{more}");
        let config = Config::parse("curfew.toml", &text, Path::new("/etc/curfew"));
        let mut config = config.map_err(|error| error.to_string())?;
        Ok(config.postgres.remove(0))
    }

    fn account(class: &str, user: &str) -> String {
        format!("[postgres.accounts.{class}]\nuser = \"{user}\"\npassword_file = \"{user}.pw\"\n")
    }

    #[test]
    fn an_account_for_each_class_or_one_and_the_word_for_it() {
        let all = [account("read", "r"), account("ddl", "d")].concat();
        let database = parse(&all).unwrap();
        let Access::Enforced(accounts) = &database.access else {
            panic!("{database:?}");
        };
        let found: Vec<_> = accounts.iter().map(|(c, a)| (c, a.user.as_str())).collect();
        assert_eq!(found, [(AccountClass::Read, "r"), (AccountClass::Ddl, "d")]);
        let file = accounts.read.password_file.as_deref();
        assert_eq!(file, Some(Path::new("/etc/curfew/r.pw")));
        assert_eq!(database.port, 5_432);

        let lenient = parse(&format!("trust = \"classifier\"\n{all}")).unwrap();
        assert!(matches!(lenient.access, Access::Lenient(_)));
        let one = "user = \"u\"\npassword_file = \"pw\"\ntrust = \"classifier\"\n";
        let one = parse(one).unwrap();
        let Access::Classifier(account) = &one.access else {
            panic!("{one:?}");
        };
        let file = account.password_file.as_deref();
        assert_eq!(file, Some(Path::new("/etc/curfew/pw")));
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_what_to_write() {
        let read = account("read", "r");
        let cases = [
            (
                String::new(),
                "has no account; write [postgres.accounts.read]",
            ),
            ("trust = \"classifier\"".to_owned(), "has no account"),
            (
                "user = \"u\"".to_owned(),
                "`curfew database setup orders` makes them), or trust = \"classifier\"",
            ),
            (
                format!("user = \"u\"\n{read}"),
                "leave `user` and `password_file` out",
            ),
            (
                format!("user = \"u\"\ntrust = \"classifier\"\n{read}"),
                "leave `user` and `password_file` out",
            ),
            (
                format!("password_file = \"p\"\n{read}"),
                "belongs to no account",
            ),
            (account("write", "w"), "write [postgres.accounts.read]"),
            (
                format!("{read}{}", account("write", "r")),
                "the account `r` for both read and write",
            ),
            (account("read", ""), "empty `user`"),
            (
                format!("{read}{}", account("admin", "a")),
                "unknown field `admin`, expected one of `connect`, `read`, `write`, `ddl`",
            ),
            (
                "[postgres.accounts.read]\npassword_file = \"p\"".to_owned(),
                "missing field `user`",
            ),
            (
                "trust = \"everybody\"".to_owned(),
                "unknown variant `everybody`, expected `classifier`",
            ),
            ("users = \"u\"".to_owned(), "unknown field `users`"),
        ];
        for (more, wanted) in cases {
            let told = parse(&more).unwrap_err();
            assert!(told.contains(wanted), "{more}: {told}");
        }
    }
}
