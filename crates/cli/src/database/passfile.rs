//! The password file of libpq (PostgreSQL's documentation, "The Password File").

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The longest password file that is read, in bytes: a thousand servers take about 100 kB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The password of a user at a server, where the file says one and only its owner can read it.
pub(super) fn find(host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let own = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"));
    let path = std::env::var_os("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(own)?;
    let known = std::fs::metadata(&path).ok()?;
    if !known.is_file() || known.mode() & 0o077 != 0 || known.len() > FILE_BYTES_MAX {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    look(&text, &[host, &port.to_string(), database, user])
}

/// The password in the first line whose fields fit.
fn look(text: &str, wanted: &[&str; 4]) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|mut fields| {
        let password = (fields.len() == 5).then(|| fields.pop())??;
        let mut pairs = fields.iter().zip(wanted);
        let fits = pairs.all(|(field, wanted)| field == "*" || field == wanted);
        fits.then_some(password)
    })
}

/// Fields with colons between, where a backslash takes a character as it is. The password is the rest.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(next) = chars.next() {
        let taken = match next {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => chars.next(),
            plain => Some(plain),
        };
        if let Some(field) = fields.last_mut() {
            field.extend(taken);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let file = "# comment\nshort:line\ndb:5432:*:ann:a:b\\:c\\\\\n*:*:orders:*:any\n";
        let find = |host, port, database, user| look(file, &[host, port, database, user]);
        assert_eq!(find("db", "5432", "x", "ann").as_deref(), Some("a:b:c\\"));
        assert_eq!(find("db", "5432", "orders", "bob").as_deref(), Some("any"));
        assert_eq!(find("db", "5433", "x", "ann"), None);
        assert_eq!(
            look("[\\:\\:1]:1:d:u:p", &["[::1]", "1", "d", "u"]).as_deref(),
            Some("p")
        );
    }
}
