//! Files: who else can read what is secret, and whether the data folder is this configuration's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use curfew_gate::problem::Problem;
use curfew_gateway::config::Config;
use curfew_gateway::data::DataDir;

pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut found: Vec<Problem> = secrets(config)
        .filter_map(|(place, path)| exposure(&place, path))
        .collect();
    found.extend(data(config));
    found
}

/// The files that hold what proves who Curfew is, with the keys of the configuration that name them.
fn secrets(config: &Config) -> impl Iterator<Item = (String, &Path)> {
    let tls = std::iter::once(("[tls] key".to_owned(), config.tls.key.as_path()));
    let databases = config.postgres.iter().flat_map(|database| {
        let place = format!("database `{}`", database.name);
        let files = database.logins().into_iter();
        files.filter_map(move |account| Some((place.clone(), account.password_file.as_deref()?)))
    });
    let receivers = config.forward.iter().flat_map(|receiver| {
        let place = format!("[[forward]] `{}`", receiver.name);
        let files = receiver.token_file.iter().chain(&receiver.key);
        files.map(move |path| (place.clone(), path.as_path()))
    });
    let archive = config.archive.as_ref();
    let archive = archive.and_then(|archive| archive.secret_access_key_file.as_deref());
    let archive = archive.map(|path| ("[archive]".to_owned(), path));
    tls.chain(databases).chain(receivers).chain(archive)
}

/// Who else than its owner can read or change a file.
fn exposure(place: &str, path: &Path) -> Option<Problem> {
    // One that is not there is told by whoever needs it.
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    let fix = format!(
        "chmod 600 {}, and change the secret if others were on this host",
        path.display()
    );
    let shown = path.display();
    if mode & 0o007 != 0 {
        let what = format!("{shown} is open to everybody on this host (mode {mode:03o})");
        return Some(Problem::error(place, what, fix));
    }
    (mode & 0o070 != 0).then(|| {
        let what = format!("{shown} is open to a group (mode {mode:03o})");
        Problem::warning(place, what, fix)
    })
}

fn data(config: &Config) -> Option<Problem> {
    let data = DataDir::of(config);
    if let Err(error) = data.master() {
        let fix = "`curfew init` makes it; of an earlier one restore the folder `keys`";
        return Some(Problem::error("data", error.to_string(), fix));
    }
    let origin = match data.origin() {
        Ok(origin) => origin,
        Err(error) => {
            let fix = "restore the folder `keys`";
            return Some(Problem::error("data", error.to_string(), fix));
        }
    };
    (origin != config.origin).then(|| {
        let what = format!(
            "the configuration says `{}`, and the log in {} is `{origin}`",
            config.origin,
            config.data.display()
        );
        let fix = "put the origin back; another log takes another data folder and `curfew init`";
        Problem::error("origin", what, fix)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn whoever_else_can_read_a_secret_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        assert_eq!(exposure("p", &path), None);
        fs::write(&path, "x").unwrap();
        let told = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            exposure("p", &path).map(|problem| problem.severity)
        };
        use curfew_gate::problem::Severity::{Error, Warning};
        assert_eq!(told(0o600), None);
        assert_eq!(told(0o400), None);
        assert_eq!(told(0o640), Some(Warning));
        assert_eq!(told(0o644), Some(Error));
        assert_eq!(told(0o602), Some(Error));
    }
}
