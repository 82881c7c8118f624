//! What the configuration of databases says, with the file around it.

use std::path::Path;

use curfew_entry::AccountClass;
use curfew_postgres::config::{Access, PostgresResource};
use curfew_postgres::databases;

use super::{Config, LEAST};

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

#[test]
fn a_password_file_that_is_of_no_use_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = "data = \"data\"\npolicy = \"p\"\norigin = \"o\"\nportal = \"c.localhost\"\n\
                    [listen]\nweb = \"127.0.0.1:0\"\npostgres = \"127.0.0.1:0\"\n\
                    [tls]\ncertificate = \"c\"\nkey = \"k\"\n\
                    [[postgres]]\nname = \"orders\"\nenvironment = \"test\"\nhost = \"localhost\"\n\
                    database = \"d\"\nuser = \"u\"\ntls = \"disable\"\npassword_file = \"pw\"\n\
                    trust = \"classifier\"\n";
    let config = Config::parse("curfew.toml", text, folder.path()).unwrap();
    let told = || databases(&config.postgres).map(|databases| databases.len());
    let missing = told().unwrap_err().to_string();
    assert!(missing.contains("`orders`") && missing.contains("/pw: No such file"));
    std::fs::write(folder.path().join("pw"), "\n").unwrap();
    let empty = told().unwrap_err().to_string();
    assert!(empty.contains("/pw: it is empty"), "{empty}");
    std::fs::write(folder.path().join("pw"), "secret\n").unwrap();
    assert_eq!(told().unwrap(), 1);
}
