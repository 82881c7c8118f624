//! The text of a setup.

use std::collections::BTreeMap;
use std::fmt::Write;

use curfew_entry::AccountClass;

use super::Options;

/// What the text is made of.
pub(super) struct Script<'a> {
    pub(super) database: &'a str,
    /// The roles, by class.
    pub(super) accounts: &'a BTreeMap<AccountClass, &'a str>,
    /// What the server keeps of their passwords.
    pub(super) verifiers: &'a BTreeMap<AccountClass, String>,
    pub(super) options: &'a Options,
    /// Built-in functions that everybody may call and an account for reading must not, with the
    /// class that may.
    pub(super) withheld: Vec<(&'static str, AccountClass)>,
}

/// A name, quoted.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, quoted.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// As it stands in a text for `format`.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(identifier).collect();
    names.join(", ")
}

fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(literal).collect();
    texts.join(", ")
}

impl Script<'_> {
    pub(super) fn write(&self) -> String {
        let parts = [
            self.head(),
            self.roles(),
            self.attributes(),
            self.database(),
            self.schemas(),
            self.functions(),
            self.tables(),
            self.definitions(),
            "COMMIT;\n".to_owned(),
        ];
        parts.join("\n")
    }

    /// The accounts of these classes that there are.
    fn roles_of(&self, classes: &[AccountClass]) -> impl Iterator<Item = &str> {
        let found = classes.iter().filter_map(|class| self.accounts.get(class));
        found.copied().collect::<Vec<_>>().into_iter()
    }

    /// Those who keep what is taken from PUBLIC, and the accounts from this class on.
    fn keepers(&self, from: AccountClass) -> Vec<&str> {
        let others = self.options.grant_back.iter().map(String::as_str);
        let own = self.accounts.range(from..).map(|(_, name)| *name);
        others.chain(own).collect()
    }

    /// A mark for quoting that occurs in none of the names.
    fn mark(&self) -> String {
        let names = self.accounts.values().copied();
        let names = names.chain(self.options.grant_back.iter().map(String::as_str));
        let names = names.chain(self.options.schemas.iter().map(String::as_str));
        let all: String = names.chain([self.database]).collect();
        let mut mark = "$curfew$".to_owned();
        while all.contains(&mark) {
            mark.insert(1, '_');
        }
        mark
    }

    /// Statements in PL/pgSQL, with what they declare.
    fn block(&self, declare: &str, body: &str) -> String {
        let mark = self.mark();
        let declare = match declare {
            "" => String::new(),
            declare => format!("DECLARE {declare}\n"),
        };
        format!("DO {mark}\n{declare}BEGIN\n{body}END\n{mark};\n")
    }

    fn head(&self) -> String {
        format!(
            "-- The accounts by which Curfew uses the database {database}: one for each class of access,
-- with no more rights than the class says. Run this in that database as a superuser. It can be run
-- again, and should be when schemas or owners have come. It changes nothing but rights, and the
-- accounts.
--
-- What PostgreSQL gives to everybody (PUBLIC) cannot be kept from single accounts. So parts 3 to 5
-- take rights from PUBLIC, which changes what others may do in this database; \
             {keepers}
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
",
            database = identifier(self.database),
            keepers = match self.options.grant_back.as_slice() {
                [] => "nobody gets them back:\n-- name roles that need them with --grant-back.".to_owned(),
                names => format!(
                    "these get them back:\n-- {}.",
                    identifiers(names.iter().map(String::as_str)).replace('\n', " ")
                ),
            }
        )
    }

    fn roles(&self) -> String {
        let mut text = String::from(
            "-- 1. The accounts. Passwords are given as SCRAM verifiers, from which nobody can sign in.\n",
        );
        let mut body = String::new();
        for name in self.accounts.values() {
            let _ = writeln!(
                body,
                "  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {}) THEN\n    CREATE ROLE {};\n  \
                 END IF;",
                literal(name),
                identifier(name),
            );
        }
        text += &self.block("", &body);
        for (class, name) in self.accounts {
            let password = self.verifiers.get(class);
            let password = password.map(|verifier| format!(" PASSWORD {}", literal(verifier)));
            let _ = writeln!(
                text,
                "ALTER ROLE {} LOGIN{};",
                identifier(name),
                password.unwrap_or_default()
            );
        }
        for name in self.roles_of(&[AccountClass::Connect, AccountClass::Read]) {
            let _ = writeln!(
                text,
                "ALTER ROLE {} SET default_transaction_read_only = on;",
                identifier(name)
            );
        }
        text
    }

    fn attributes(&self) -> String {
        let below = self.roles_of(&[
            AccountClass::Connect,
            AccountClass::Read,
            AccountClass::Write,
        ]);
        let body = format!(
            "  FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ({})
     AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) LOOP
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS', role);
  END LOOP;\n",
            literals(below)
        );
        format!(
            "-- 2. Attributes that reach past any right.\n{}",
            self.block("role name;", &body)
        )
    }

    fn database(&self) -> String {
        let database = identifier(self.database);
        let all = identifiers(self.accounts.values().copied());
        let mut text = format!(
            "-- 3. The database: nobody makes temporary tables or schemas in it unasked.\n\
             REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC;\n\
             GRANT CONNECT ON DATABASE {database} TO {all};\n"
        );
        let keepers = self.keepers(AccountClass::Ddl);
        if !keepers.is_empty() {
            let keepers = identifiers(keepers);
            let _ = writeln!(text, "GRANT TEMPORARY ON DATABASE {database} TO {keepers};");
        }
        text
    }

    fn schemas(&self) -> String {
        let keepers = match self.options.grant_back.as_slice() {
            [] => String::new(),
            names => format!(
                "    EXECUTE format('GRANT CREATE ON SCHEMA %I TO %s', schema, {});\n",
                literal(&identifiers(names.iter().map(String::as_str)))
            ),
        };
        let body = format!(
            "  FOR schema IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
     AND has_schema_privilege('public', oid, 'CREATE') LOOP
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', schema);
{keepers}  END LOOP;\n"
        );
        format!(
            "-- 4. Schemas: up to PostgreSQL 14 everybody may make objects in `public`.\n{}",
            self.block("schema name;", &body)
        )
    }

    fn functions(&self) -> String {
        let mut text = String::from(
            "-- 5. Built-in functions that everybody may call and that do more than read: they make large
--    objects, write to the write-ahead log, notify, take advisory locks, and end or cancel what
--    others run under the same account.\n",
        );
        for class in [AccountClass::Write, AccountClass::Ddl] {
            let names = self.withheld.iter().filter(|(_, least)| *least == class);
            let names = literals(names.map(|(name, _)| *name));
            let keepers = match self.keepers(class).as_slice() {
                [] => String::new(),
                keepers => format!(
                    "    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', function, {});\n",
                    literal(&identifiers(keepers.iter().copied()))
                ),
            };
            let body = format!(
                "  FOR function IN SELECT oid::regprocedure FROM pg_proc
     WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN ({names}) LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
{keepers}  END LOOP;\n"
            );
            text += &self.block("function regprocedure;", &body);
        }
        text
    }

    /// The schemas with the tables, as a condition.
    fn chosen(&self) -> String {
        match self.options.schemas.as_slice() {
            [] => "nspname !~ '^pg_' AND nspname <> 'information_schema'".to_owned(),
            names => format!(
                "nspname IN ({})",
                literals(names.iter().map(String::as_str))
            ),
        }
    }

    /// What is granted in each schema now, as texts for `format`, and what for objects to come.
    fn grants(&self) -> (Vec<String>, Vec<String>) {
        use AccountClass::{Connect, Ddl, Read, Write};
        const DATA: &str = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE";
        let roles = |classes: &[AccountClass]| identifiers(self.roles_of(classes));
        let below = percent(&roles(&[Connect, Read, Write]));
        let using = percent(&roles(&[Read, Write, Ddl]));
        let mut now = vec![
            format!("REVOKE ALL ON SCHEMA %I FROM {below}"),
            format!("REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM {below}"),
            format!("REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM {below}"),
            format!("GRANT USAGE ON SCHEMA %I TO {using}"),
        ];
        if let Some(name) = self.accounts.get(&Ddl) {
            let role = percent(&identifier(name));
            now.push(format!("GRANT CREATE ON SCHEMA %I TO {role}"));
        }
        let mut to_come = Vec::new();
        for (classes, right, on) in [
            (&[Read][..], "SELECT", "TABLES"),
            (&[Read], "SELECT", "SEQUENCES"),
            (&[Write, Ddl], DATA, "TABLES"),
            (&[Write, Ddl], "SELECT, USAGE", "SEQUENCES"),
        ] {
            let roles = roles(classes);
            if !roles.is_empty() {
                let escaped = percent(&roles);
                let all = format!("GRANT {right} ON ALL {on} IN SCHEMA %I TO {escaped}");
                now.push(all);
                to_come.push(format!("GRANT {right} ON {on} TO {roles}"));
            }
        }
        (now, to_come)
    }

    fn tables(&self) -> String {
        if self.options.leave_tables {
            return "-- 6. Rights to schemas, tables and sequences are left as they are.\n"
                .to_owned();
        }
        let (now, to_come) = self.grants();
        let quoted = |statements: &[String]| {
            let quoted = statements
                .iter()
                .map(|text| format!("      {}", literal(text)));
            quoted.collect::<Vec<_>>().join(",\n")
        };
        let ddl = self.accounts.get(&AccountClass::Ddl);
        let maker = ddl.map_or_else(String::new, |name| {
            format!(" UNION SELECT {}::name", literal(name))
        });
        let body = format!(
            "  FOR schema IN SELECT oid, nspname FROM pg_namespace WHERE {chosen} LOOP
    FOREACH statement IN ARRAY ARRAY[\n{now}] LOOP
      EXECUTE format(statement, schema.nspname);
    END LOOP;
    -- What its owners make later.
    FOR owner IN SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = schema.oid
        UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE oid = schema.oid
        UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database(){maker} LOOP
      -- The owner of the database, whoever that is, makes nothing under this name.
      CONTINUE WHEN owner = 'pg_database_owner';
      FOREACH statement IN ARRAY ARRAY[\n{to_come}] LOOP
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I %s', owner, schema.nspname,
                       statement);
      END LOOP;
    END LOOP;
  END LOOP;\n",
            chosen = self.chosen(),
            now = quoted(&now),
            to_come = quoted(&to_come),
        );
        let declare = "schema record; owner name; statement text;";
        let block = self.block(declare, &body);
        format!(
            "-- 6. Schemas, tables and sequences, all of them: to keep some from an account, name the others
--    with --schema, or give these rights yourself and use --no-tables.\n{block}"
        )
    }

    fn definitions(&self) -> String {
        let Some(name) = self.accounts.get(&AccountClass::Ddl) else {
            return String::new();
        };
        let (role, database) = (identifier(name), identifier(self.database));
        let ours = literals(self.accounts.values().copied());
        let body = format!(
            "  FOR owner IN
      SELECT pg_get_userbyid(nspowner) AS name FROM pg_namespace WHERE {chosen}
      UNION SELECT pg_get_userbyid(relowner) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
             WHERE {chosen}
      UNION SELECT pg_get_userbyid(proowner) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
             WHERE {chosen}
      UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database() LOOP
    IF owner.name IN ({ours}) OR owner.name ~ '^pg_' THEN
      CONTINUE;
    END IF;
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = owner.name) THEN
      RAISE NOTICE 'what the superuser % owns cannot be changed through {told}', owner.name;
    ELSE
      EXECUTE format('GRANT %I TO {escaped}', owner.name);
    END IF;
  END LOOP;
  -- What it makes belongs to the database's owner, as if the owner had made it.
  SELECT rolname INTO owner FROM pg_database JOIN pg_roles r ON r.oid = datdba
   WHERE datname = current_database() AND NOT rolsuper AND rolname NOT IN ({ours});
  IF FOUND THEN
    EXECUTE format('ALTER ROLE {escaped} IN DATABASE %I SET role = %L', current_database(),
                   owner.rolname);
  END IF;\n",
            chosen = self.chosen(),
            told = name.replace(['\'', '%'], "_"),
            escaped = percent(&role).replace('\'', "''"),
        );
        format!(
            "-- 7. Definitions: this account stands in for the owners.\n\
             GRANT CREATE, TEMPORARY ON DATABASE {database} TO {role};\n{}",
            self.block("owner record;", &body)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_wherever_they_stand() {
        let nasty = "a\"b'c$curfew$%d\\";
        let accounts = AccountClass::ALL.map(|class| (class, nasty)).into();
        let verifiers = BTreeMap::new();
        let options = Options {
            grant_back: vec![nasty.to_owned()],
            schemas: vec![nasty.to_owned()],
            leave_tables: false,
        };
        let script = Script {
            database: nasty,
            accounts: &accounts,
            verifiers: &verifiers,
            options: &options,
            withheld: super::super::withheld(),
        };
        let text = script.write();
        assert!(text.contains("DO $_curfew$\n"));
        for statement in pg_query::split_with_parser(&text).unwrap() {
            pg_query::parse(statement, 0).unwrap();
        }
    }
}
