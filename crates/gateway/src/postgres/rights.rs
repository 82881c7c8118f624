//! What an account can do at its server, against what its class says it may.
//!
//! Asked as the account itself, with the questions of `rights/catalog.sql`. Whatever is beyond the
//! class is a [`Problem`] that names the right, the object and the SQL that takes it away. What
//! cannot be known counts as beyond: functions and extensions that `rights/builtins.txt` does not
//! list, servers that are not PostgreSQL 13 to 18, and whatever stands between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use curfew_entry::{AccountClass, ResourceName};
use serde::{Deserialize, Serialize};

use super::accounts::Login;
use super::direct::{Direct, Row};
use super::upstream::{ConnectError, Database, Target};
use crate::config::{Access, PostgresResource};

const CATALOG: &str = include_str!("rights/catalog.sql");
const BUILTINS: &str = include_str!("rights/builtins.txt");

/// The oldest and the newest PostgreSQL whose catalogs and functions are known here.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;
/// What is told of one question: whoever has a hundred tables to look at finds the rest once these
/// are put right.
const TOLD_MAX: usize = 20;
/// Words in `version()` of servers that only speak PostgreSQL's protocol, or whose rights differ.
const OTHERS: &[&str] = &[
    "-YB-",
    "Greenplum",
    "Redshift",
    "CockroachDB",
    "Materialize",
    "RisingWave",
];

/// How bad it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The database is served all the same.
    Warning,
    /// The database is not served.
    Error,
}

/// Something that an account can do beyond its class, or that cannot be known.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Which account has which right on what.
    pub what: String,
    /// How to put it right: SQL, unless it says otherwise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fix: Option<String>,
}

impl Problem {
    pub(super) fn error(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            what: what.into(),
            fix: None,
        }
    }

    pub(super) fn warning(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(what)
        }
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into()).filter(|fix| !fix.is_empty());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "; to put it right: {fix}"),
            None => Ok(()),
        }
    }
}

/// Looks at all accounts of a database, as a gateway does before it serves it. A database that cannot
/// be looked at has an error too, whatever is relied on.
pub async fn check(config: &PostgresResource) -> Vec<Problem> {
    let mut problems: Vec<Problem> = relied_on(config).into_iter().collect();
    let found = match Database::load(config) {
        Ok(database) => inspect(&database).await.map_err(|error| {
            let name = &config.name;
            format!("database `{name}` cannot be asked what its accounts can do: {error}")
        }),
        Err(error) => Err(error.to_string()),
    };
    match found {
        Err(error) => problems.push(Problem::error(error)),
        Ok(found) if matches!(config.access, Access::Lenient(_)) => {
            problems.extend(found.into_iter().map(only_a_warning));
        }
        Ok(found) => problems.extend(found),
    }
    problems
}

/// What to say where something else than the database's rights is relied on.
pub(super) fn relied_on(config: &PostgresResource) -> Option<Problem> {
    let name = &config.name;
    let what = match &config.access {
        Access::Enforced(_) => return None,
        Access::Lenient(_) => format!(
            "database `{name}` has trust = \"classifier\": what its accounts can do beyond their \
             class is served all the same"
        ),
        Access::Classifier(account) => format!(
            "database `{name}` has trust = \"classifier\": all sessions use the account `{}`, and \
             only Curfew's reading of SQL keeps them from what policy does not permit",
            account.user
        ),
    };
    let fix = format!("`curfew database setup {name}` makes an account for each class");
    Some(Problem::warning(what).fix(fix))
}

/// The same where it does not keep the database from being served.
pub(super) fn only_a_warning(problem: Problem) -> Problem {
    Problem {
        severity: Severity::Warning,
        ..problem
    }
}

/// Looks at all accounts of a database. Where one serves everybody there is no class to look for.
pub(super) async fn inspect(database: &Database) -> Result<Vec<Problem>, ConnectError> {
    let mut problems = Vec::new();
    for class in database.logins.classes() {
        let Some(login) = database.logins.of(Some(class)) else {
            continue;
        };
        let account = Account {
            name: &database.name,
            class,
            login,
        };
        problems.extend(
            account
                .inspect(&database.target, &database.database)
                .await?,
        );
    }
    Ok(problems)
}

/// An account to be looked at.
struct Account<'a> {
    name: &'a ResourceName,
    class: AccountClass,
    login: &'a Login,
}

impl fmt::Display for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, class, login } = self;
        write!(f, "database `{name}`: account `{}` ({class})", login.user)
    }
}

impl Account<'_> {
    async fn inspect(&self, target: &Target, database: &str) -> Result<Vec<Problem>, ConnectError> {
        let mut server = match Direct::connect(target, self.login, database).await {
            Ok(server) => server,
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                let what = format!("{self} cannot sign in: {error}");
                let fix = format!(
                    "`curfew database setup {}` gives it its password",
                    self.name
                );
                return Ok(vec![Problem::error(what).fix(fix)]);
            }
        };
        match self.ask(&mut server).await {
            Err(ConnectError::Refused(code, message)) if !is_passing_code(&code) => {
                let what = format!(
                    "{self}: the server does not say what the account can do: {code} {message}"
                );
                Ok(vec![Problem::error(what)])
            }
            asked => asked,
        }
    }

    async fn ask(&self, server: &mut Direct) -> Result<Vec<Problem>, ConnectError> {
        let major = match self.major(server).await? {
            Ok(major) => major,
            Err(problem) => return Ok(vec![problem]),
        };
        let catalog = Catalog::new(self.class);
        let superuser = server.query(&catalog.question("superuser")).await?.rows;
        if !superuser.is_empty() {
            let mut problems = Vec::new();
            self.tell(&superuser, &mut problems);
            if self.class == AccountClass::Ddl {
                problems = problems.into_iter().map(only_a_warning).collect();
            }
            return Ok(problems);
        }
        let mut problems = self.settings(server).await?;
        if self.class == AccountClass::Ddl {
            return Ok(problems);
        }
        for question in [
            "attributes",
            "memberships",
            "ownership",
            "containers",
            "parameters",
            "relations",
            "columns",
            "large objects",
            "functions of others' rights",
        ] {
            if question == "parameters" && major < 15 {
                continue;
            }
            let rows = server.query(&catalog.question(question)).await?.rows;
            self.tell(&rows, &mut problems);
        }
        let builtins = Builtins::read(major);
        let rows = server
            .query(&catalog.question("built-in functions"))
            .await?
            .rows;
        self.tell(&builtins.too_much(rows, self.class), &mut problems);
        let mut rows = server
            .query(&catalog.question("native functions"))
            .await?
            .rows;
        rows.retain(|row| !builtins.extensions.contains(column(row, 4)));
        self.tell(&rows, &mut problems);
        let from = problems.len();
        let rows = server
            .query(&catalog.question("rights to come"))
            .await?
            .rows;
        self.tell(&rows, &mut problems);
        for to_come in problems.iter_mut().skip(from) {
            to_come.severity = Severity::Warning;
        }
        Ok(problems)
    }

    /// The server's major version; a problem where it is none whose rights are known, or where it
    /// is not the server itself that answers.
    async fn major(&self, server: &mut Direct) -> Result<Result<u32, Problem>, ConnectError> {
        let rows = server.query("SELECT version()").await?.rows;
        let version = rows.first().map(|row| column(row, 0)).unwrap_or_default();
        let other = !version.starts_with("PostgreSQL ")
            || OTHERS.iter().any(|other| version.contains(other));
        let unknown = |why: &str| {
            let (oldest, newest) = (MAJORS.start(), MAJORS.end());
            Ok(Err(Problem::error(format!(
                "{self}: {why}, and what it can do is known of PostgreSQL {oldest} to {newest} only"
            ))))
        };
        if other {
            let version: String = version.chars().take(40).collect();
            return unknown(&format!("the server is `{version}`"));
        }
        let sql = "SELECT current_setting('server_version_num'), session_user, current_user, \
                   pg_backend_pid()";
        let rows = server.query(sql).await?.rows;
        let Some(row) = rows.first() else {
            return unknown("the server does not say what it is");
        };
        let number: u32 = column(row, 0).parse().unwrap_or(0);
        let major = number / 10_000;
        if !MAJORS.contains(&major) {
            return unknown(&format!("the server is PostgreSQL {major}"));
        }
        let user = &self.login.user;
        for signed_in in [column(row, 1), column(row, 2)] {
            // Definitions may be made in the name of a role that the account becomes at once.
            if signed_in != user && self.class != AccountClass::Ddl {
                let what = format!("{self} is signed in as `{signed_in}` instead");
                let fix = format!("ALTER ROLE \"{user}\" RESET role;");
                return Ok(Err(Problem::error(what).fix(fix)));
            }
        }
        if column(row, 3) != server.process.to_string() {
            let what = format!(
                "{self}: something answers in the server's place, such as a pooler, and shares its \
                 connections between sessions"
            );
            let fix = "set `host` and `port` to the server itself";
            return Ok(Err(Problem::error(what).fix(fix)));
        }
        Ok(Ok(major))
    }

    /// Settings of the server by which rights do not hold, or not past a session's end.
    async fn settings(&self, server: &mut Direct) -> Result<Vec<Problem>, ConnectError> {
        let sql = "SELECT current_setting('lo_compat_privileges'), \
                   current_setting('max_prepared_transactions')";
        let rows = server.query(sql).await?.rows;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let mut problems = Vec::new();
        let reads = self.class <= AccountClass::Read;
        if reads && row.first().is_none_or(|setting| setting != "off") {
            let what = format!(
                "{self} can change every large object: the server's lo_compat_privileges is on"
            );
            let fix = "ALTER SYSTEM RESET lo_compat_privileges; SELECT pg_reload_conf();";
            problems.push(Problem::error(what).fix(fix));
        }
        if reads && row.get(1).is_none_or(|setting| setting != "0") {
            let what = format!(
                "{self} can leave prepared transactions behind, and their locks: the server's \
                 max_prepared_transactions is not 0, and only Curfew's reading of SQL refuses \
                 PREPARE TRANSACTION"
            );
            problems.push(Problem::warning(what));
        }
        Ok(problems)
    }

    /// What the rows of a question say.
    fn tell(&self, rows: &[Row], problems: &mut Vec<Problem>) {
        let reviewed = |row: &&Row| {
            let name = column(row, 4);
            name.is_empty() || !self.login.reviewed.iter().any(|known| known == name)
        };
        let rows: Vec<&Row> = rows.iter().filter(reviewed).collect();
        for row in rows.iter().take(TOLD_MAX) {
            let (right, object) = (column(row, 0), column(row, 1));
            let through = match column(row, 2) {
                "" => String::new(),
                "PUBLIC" => ", as everybody (PUBLIC)".to_owned(),
                name if name.trim_matches('"') == self.login.user => String::new(),
                role => format!(", through role {role}"),
            };
            let why = row.get(5).map(|why| format!(", which {why}"));
            let why = why.unwrap_or_default();
            let what = format!("{self} {right} {object}{why}{through}");
            problems.push(Problem::error(what).fix(self.ways_out(row)));
        }
        if let Some(more @ 1..) = rows.len().checked_sub(TOLD_MAX) {
            problems.push(Problem::error(format!("{self}: {more} more like the last")));
        }
    }

    /// The SQL that takes the right away, or how it is accepted.
    fn ways_out(&self, row: &Row) -> String {
        let (sql, name) = (column(row, 3), column(row, 4));
        let accept = format!(
            "if it does no more than an account for {} may, list `{name}` in its `reviewed`",
            self.class
        );
        match (sql, name) {
            (sql, "") => sql.to_owned(),
            ("", _) => accept,
            (sql, _) => format!("{sql} Or, {accept}"),
        }
    }
}

fn column(row: &Row, at: usize) -> &str {
    row.get(at).map(String::as_str).unwrap_or_default()
}

/// Whether it may be otherwise in a moment.
fn is_passing(error: &ConnectError) -> bool {
    match error {
        ConnectError::Io(_) | ConnectError::Slow => true,
        ConnectError::Refused(code, _) => is_passing_code(code),
        ConnectError::NoTls
        | ConnectError::NoKey
        | ConnectError::Authentication(_)
        | ConnectError::NotServed(_)
        | ConnectError::NoAccount => false,
    }
}

/// Insufficient resources, operator intervention, system errors, and connection exceptions.
fn is_passing_code(code: &str) -> bool {
    ["53", "57", "58", "08"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// The questions of `catalog.sql`, put for a class.
struct Catalog {
    class: AccountClass,
    questions: BTreeMap<&'static str, &'static str>,
}

impl Catalog {
    fn new(class: AccountClass) -> Self {
        let questions = CATALOG
            .split("\n--@ ")
            .skip(1)
            .filter_map(|part| part.split_once('\n'))
            .collect();
        Self { class, questions }
    }

    /// No question is empty text, which the server answers with no rows: the name is one of the
    /// file's, which a test holds.
    fn question(&self, name: &str) -> String {
        let part = |name| self.questions.get(name).copied().unwrap_or_default();
        let class = format!("'{}'", self.class);
        [part("common"), &part(name).replace(":class", &class)].concat()
    }
}

/// What `builtins.txt` says for one version of PostgreSQL.
struct Builtins {
    /// By name, or how it begins: the lowest class that may call it, and what it does.
    functions: BTreeMap<&'static str, (AccountClass, &'static str)>,
    /// As the catalog's question names them.
    extensions: BTreeSet<String>,
}

impl Builtins {
    fn read(major: u32) -> Self {
        let mut known = Self {
            functions: BTreeMap::new(),
            extensions: BTreeSet::new(),
        };
        for line in BUILTINS.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.splitn(3, ' ');
            let (Some(name), Some(class)) = (words.next(), words.next()) else {
                continue;
            };
            if name == "extension" {
                known.extensions.insert(line.to_owned());
                continue;
            }
            let rest = words.next().unwrap_or_default();
            if rest.parse::<u32>().is_ok_and(|until| major > until) {
                continue;
            }
            let mut classes = AccountClass::ALL.into_iter();
            if let Some(class) = classes.find(|known| known.as_str() == class) {
                known.functions.insert(name, (class, rest));
            }
        }
        known
    }

    /// What is known of a function.
    fn find(&self, name: &str) -> Option<(AccountClass, &'static str)> {
        let (_, known) =
            self.functions
                .iter()
                .find(|(known, _)| match known.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => name == **known,
                })?;
        Some(*known)
    }

    /// The rows of functions that an account of this class may not call, with what they do.
    fn too_much(&self, rows: Vec<Row>, class: AccountClass) -> Vec<Row> {
        let told = |mut row: Row| {
            let what = match self.find(column(&row, 4)) {
                // A session that may only connect may ask for the server's own state too.
                Some((least, _)) if least <= class.max(AccountClass::Read) => return None,
                Some((_, what)) => what.to_owned(),
                None => "is not known to stay within the account's rights".to_owned(),
            };
            let object = column(&row, 1).to_owned();
            row.truncate(4);
            row.extend([object, what]);
            Some(row)
        };
        rows.into_iter().filter_map(told).collect()
    }
}

/// The names of built-in functions that no account for reading may call, for whoever withholds them.
pub(super) fn withheld() -> Vec<(&'static str, AccountClass)> {
    let known = Builtins::read(*MAJORS.end()).functions;
    let above = known
        .into_iter()
        .filter(|(_, (class, _))| *class > AccountClass::Read);
    above.map(|(name, (class, _))| (name, class)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_in_the_file_and_is_put_for_the_class() {
        let source = include_str!("rights.rs");
        let catalog = Catalog::new(AccountClass::Write);
        for name in catalog.questions.keys().filter(|name| **name != "common") {
            assert!(
                source.contains(&format!("\"{name}\"")),
                "{name} is never asked"
            );
            let question = catalog.question(name);
            assert!(
                question.contains("SELECT") && !question.contains(":class"),
                "{question}"
            );
        }
        assert_eq!(catalog.questions.len(), 14);
    }

    #[test]
    fn what_is_known_of_functions_depends_on_class_and_version() {
        let row = |name: &str| {
            let sig = format!("function pg_catalog.{name}()");
            ["may call", &sig, "PUBLIC", "REVOKE", name]
                .map(str::to_owned)
                .to_vec()
        };
        let all = [
            "lo_create",
            "pg_sleep",
            "pg_terminate_backend",
            "pg_read_file",
            "pg_replication_origin_drop",
        ];
        let told = |major, class| -> Vec<String> {
            let rows = all.iter().map(|name| row(name)).collect();
            let rows = Builtins::read(major).too_much(rows, class);
            rows.iter()
                .map(|row| format!("{} {}", column(row, 4), column(row, 5)))
                .collect()
        };
        let large = "function pg_catalog.lo_create() makes a large object";
        let ends = "function pg_catalog.pg_terminate_backend() ends connections of others under the same account";
        let file =
            "function pg_catalog.pg_read_file() is not known to stay within the account's rights";
        let origin = "function pg_catalog.pg_replication_origin_drop() is not known to stay within the account's rights";
        assert_eq!(told(13, AccountClass::Read), [large, ends, file]);
        assert_eq!(told(18, AccountClass::Read), [large, ends, file, origin]);
        assert_eq!(told(18, AccountClass::Connect), [large, ends, file, origin]);
        assert_eq!(told(18, AccountClass::Write), [ends, file, origin]);
        assert!(withheld().contains(&("lo_create", AccountClass::Write)));
        assert!(!withheld().iter().any(|(name, _)| *name == "pg_sleep"));
    }
}
