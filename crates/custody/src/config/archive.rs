//! `[archive]`: where a copy of the log is kept.

use std::path::PathBuf;

use curfew_gate::settings::{Complaint, Duration};
use serde::Deserialize;
use url::Url;

use super::forward::is_loopback;

/// Where a copy of the log is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// `file:///…` or `s3://bucket/prefix`.
    pub url: String,
    /// How often the newest checkpoint is archived, at most.
    #[serde(default = "every")]
    pub every: Duration,
    /// How long archiving may have failed before `log.archiving_failed` is recorded.
    #[serde(default = "alarm_after")]
    pub alarm_after: Duration,
    /// For `s3`: the address of a store that is not Amazon's. Without TLS on loopback only.
    pub endpoint: Option<String>,
    /// For `s3`: the region; `us-east-1` otherwise.
    pub region: Option<String>,
    /// For `s3`: who asks. Without it: the machine's own role.
    pub access_key_id: Option<String>,
    /// For `s3`: a file with the secret access key, which nobody but Curfew may read. Relative to
    /// the configuration file.
    pub secret_access_key_file: Option<PathBuf>,
}

fn every() -> Duration {
    Duration(std::time::Duration::from_secs(300))
}

fn alarm_after() -> Duration {
    Duration(std::time::Duration::from_secs(600))
}

/// The place that `url` names, `file:///…` or `s3://bucket/prefix`, and nothing else; or what is wrong
/// with it.
pub(crate) fn place(url: &str) -> Result<Url, String> {
    let parsed = Url::parse(url).map_err(|error| error.to_string())?;
    if !matches!(parsed.scheme(), "file" | "s3") {
        return Err("it begins with neither file:// nor s3://".to_owned());
    }
    let is_bare = parsed.query().is_none()
        && parsed.fragment().is_none()
        && parsed.username().is_empty()
        && parsed.password().is_none();
    if is_bare {
        Ok(parsed)
    } else {
        Err("it has to be a place and nothing else".to_owned())
    }
}

/// The address of a store, where nobody on the way can read what is sent there; or what is wrong with it.
pub(crate) fn endpoint(url: &str) -> Result<Url, String> {
    let at = Url::parse(url).map_err(|error| format!("endpoint `{url}`: {error}"))?;
    let host = at.host_str().unwrap_or_default();
    let fits = match at.scheme() {
        "https" => !host.is_empty(),
        "http" => is_loopback(host),
        _ => false,
    };
    if fits {
        Ok(at)
    } else {
        Err(format!("endpoint `{url}`: https, or http on loopback"))
    }
}

/// What is wrong with it.
pub fn problem(archive: Option<&Archive>) -> Option<Complaint<'_>> {
    let archive = archive?;
    let hint = "url = \"file:///var/lib/curfew-archive\" or \"s3://bucket/prefix\"";
    let Ok(url) = place(&archive.url) else {
        let problem = format!("`{}` is no place for an archive", archive.url);
        return Some((&archive.url, problem, hint));
    };
    let s3_only = archive.endpoint.is_some()
        || archive.region.is_some()
        || archive.access_key_id.is_some()
        || archive.secret_access_key_file.is_some();
    if url.scheme() == "file" && s3_only {
        let problem = "a directory has no endpoint, region or keys".to_owned();
        return Some((&archive.url, problem, hint));
    }
    if archive.access_key_id.is_some() != archive.secret_access_key_file.is_some() {
        let problem = "one of access_key_id and secret_access_key_file is missing".to_owned();
        return Some((&archive.url, problem, "give both, or neither"));
    }
    let address = archive.endpoint.as_ref()?;
    endpoint(address).is_err().then(|| {
        let problem = format!("`{address}` is no endpoint");
        let hint = "endpoint = \"https://s3.example.com\"; http is for loopback";
        (address.as_str(), problem, hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<String> {
        let archive: Archive = toml::from_str(text).unwrap();
        problem(Some(&archive)).map(|(_, problem, _)| problem)
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for good in [
            "url = \"file:///srv/archive\"",
            "url = \"s3://bucket/curfew\"\nregion = \"eu-north-1\"",
            "url = \"s3://bucket\"\nendpoint = \"http://127.0.0.1:9000\"",
            "url = \"s3://b\"\naccess_key_id = \"a\"\nsecret_access_key_file = \"s\"",
        ] {
            assert_eq!(found(good), None, "{good}");
        }
        for (bad, says) in [
            ("url = \"srv/archive\"", "no place"),
            ("url = \"https://bucket/x\"", "no place"),
            ("url = \"s3://key:secret@bucket\"", "no place"),
            ("url = \"file:///srv\"\nregion = \"x\"", "a directory"),
            ("url = \"s3://b\"\naccess_key_id = \"a\"", "missing"),
            (
                "url = \"s3://b\"\nendpoint = \"http://s3.example.com\"",
                "no endpoint",
            ),
        ] {
            let problem = found(bad).unwrap_or_else(|| panic!("{bad}"));
            assert!(problem.contains(says), "{problem}");
        }
    }
}
