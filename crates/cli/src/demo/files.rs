//! The files of the demo: certificates, configuration, policy. They are good to start from.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::stage::Pace;
use crate::failure::{Doing, Outcome};

/// The name of Curfew's own pages.
pub(super) const PORTAL: &str = "curfew.localhost";
/// The name of the sample app.
pub(super) const SHOP: &str = "shop.localhost";
/// The name of the sample API.
pub(super) const API: &str = "api.localhost";
/// The origin of the demo's log.
pub(super) const ORIGIN: &str = "curfew.localhost/demo";

/// Every name the demo's certificate is for.
const NAMES: [&str; 5] = [PORTAL, SHOP, API, "localhost", "127.0.0.1"];

/// How many days the demo's certificates are good for.
const CERTIFICATE_DAYS: i64 = 7;

/// Where things listen, and how they are reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// Curfew's pages and APIs.
    pub(super) web: u16,
    /// Curfew's databases.
    pub(super) postgres: u16,
    /// The sample app itself.
    pub(super) app: u16,
    /// PostgreSQL itself.
    pub(super) upstream: u16,
}

/// Writes a file that only we may read.
pub(super) fn write_private(path: &Path, text: &str) -> Outcome {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .doing(path.display())?;
    file.write_all(text.as_bytes()).doing(path.display())
}

/// Makes an authority for this demo only, and a certificate by it. The authority's key is not kept.
pub(super) fn certificates(folder: &Path) -> Outcome<PathBuf> {
    let failed = "cannot make the demo's certificates";
    let mut authority = CertificateParams::new(Vec::<String>::new()).doing(failed)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name = named("Curfew demo authority");
    live_briefly(&mut authority);
    let authority_key = KeyPair::generate().doing(failed)?;
    let certificate = authority.self_signed(&authority_key).doing(failed)?;
    let ca = folder.join("ca.pem");
    fs::write(&ca, certificate.pem()).doing(ca.display())?;
    let issuer = Issuer::new(authority, authority_key);

    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned)).doing(failed)?;
    leaf.distinguished_name = named("Curfew demo");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    live_briefly(&mut leaf);
    let key = KeyPair::generate().doing(failed)?;
    let certificate = leaf.signed_by(&key, &issuer).doing(failed)?;
    let path = folder.join("certificate.pem");
    fs::write(&path, certificate.pem()).doing(path.display())?;
    write_private(&folder.join("certificate.key"), &key.serialize_pem())?;
    Ok(ca)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn live_briefly(params: &mut CertificateParams) {
    let today = jiff::tz::Offset::UTC
        .to_datetime(jiff::Timestamp::now())
        .date();
    let date = |days: i64| {
        let day = today.saturating_add(jiff::Span::new().days(days));
        let month = u8::try_from(day.month()).unwrap_or(1);
        rcgen::date_time_ymd(
            i32::from(day.year()),
            month,
            u8::try_from(day.day()).unwrap_or(1),
        )
    };
    params.not_before = date(-1);
    params.not_after = date(CERTIFICATE_DAYS);
}

/// Writes configuration and policy. Gives the configuration's path.
pub(super) fn configuration(folder: &Path, ports: Ports, pace: Pace) -> Outcome<PathBuf> {
    let path = folder.join("curfew.toml");
    fs::write(&path, configuration_text(ports)).doing(path.display())?;
    let policy = folder.join("policy.cedar");
    fs::write(&policy, policy_text(pace)).doing(policy.display())?;
    Ok(path)
}

fn configuration_text(ports: Ports) -> String {
    let Ports {
        web,
        postgres,
        app,
        upstream,
    } = ports;
    format!(
        r#"# Curfew's configuration. Every key is explained in docs/configuration.md.

# The audit log, its keys, the accounts. Relative paths start at this file.
data = "data"
# Who may do what, and for how long.
policy = "policy.cedar"
# The name of the audit log. No other log may have it.
origin = "{ORIGIN}"
# The host name of Curfew's own pages.
portal = "{PORTAL}"

[listen]
web = "127.0.0.1:{web}"
postgres = "127.0.0.1:{postgres}"

[tls]
certificate = "certificate.pem"
key = "certificate.key"

# Names for networks, as `context.network` in the policy.
[networks]
here = ["127.0.0.0/8", "::1/128"]

# A web app: page navigations without a session go to sign-in.
[[web]]
name = "shop"
environment = "production"
host = "{SHOP}"
upstream = "http://127.0.0.1:{app}"

# An API: without a session it answers 401.
[[web]]
name = "api"
environment = "production"
host = "{API}"
upstream = "http://127.0.0.1:{app}"
kind = "api"

# A database. Clients ask for it by this name as their `dbname`.
[[postgres]]
name = "orders"
environment = "production"
host = "127.0.0.1"
port = {upstream}
database = "orders"
tls = "disable"

# Its accounts. A connection uses the one with the most reach that the policy permits, and the
# database refuses what is beyond. `curfew database setup orders` makes them.
[postgres.accounts.read]
user = "curfew_orders_read"
password_file = "orders-read.password"

[postgres.accounts.write]
user = "curfew_orders_write"
password_file = "orders-write.password"

[postgres.accounts.ddl]
user = "curfew_orders_ddl"
password_file = "orders-ddl.password"

[tuning]
segment_mib = 4
"#
    )
}

fn policy_text(pace: Pace) -> String {
    let (idle, reauth, lifetime) = match pace {
        Pace::People => ("60s", "90s", "5m"),
        Pace::Walk => ("4s", "60s", "5m"),
    };
    format!(
        r#"// Who may do what, for how long, and how fresh their sign-in must be. Where several rules
// apply, the strictest limit of each kind wins; a forbid wins over every permit.

// Analysts: short sessions, so that one can watch them end.
@id("analyst-sessions") @idle("{idle}") @reauth("{reauth}") @lifetime("{lifetime}") @assurance("aal2")
permit (principal in Role::"analyst", action == Action::"session.start",
        resource == Resource::"gateway");

// They use the shop and its API …
@id("analyst-web")
permit (principal in Role::"analyst",
        action in [Action::"web.read", Action::"web.write", Action::"web.connect"],
        resource in Environment::"production");

// … and read the database.
@id("analyst-sql")
permit (principal in Role::"analyst", action in [Action::"sql.connect", Action::"sql.read"],
        resource == Resource::"orders");

// Database administrators: a working day, a fresh sign-in every hour.
@id("dba-sessions") @idle("15m") @reauth("1h") @lifetime("8h") @assurance("aal2")
permit (principal in Role::"dba", action == Action::"session.start",
        resource == Resource::"gateway");

@id("dba-web")
permit (principal in Role::"dba",
        action in [Action::"web.read", Action::"web.write", Action::"web.connect"],
        resource in Environment::"production");

@id("dba-sql")
permit (principal in Role::"dba",
        action in [Action::"sql.connect", Action::"sql.read", Action::"sql.write"],
        resource == Resource::"orders");

// Changing tables asks for a sign-in that is at most five minutes old.
@id("dba-ddl") @reauth("5m")
permit (principal in Role::"dba", action == Action::"sql.ddl", resource == Resource::"orders");

// They see and end everyone's sessions, and read the audit log. Each reading is recorded.
@id("dba-oversight")
permit (principal in Role::"dba",
        action in [Action::"session.list", Action::"session.end", Action::"log.read"],
        resource == Resource::"gateway");
"#
    )
}

#[cfg(test)]
mod tests {
    use curfew_authority::Policy;
    use curfew_gateway::config::Config;

    use super::*;

    #[test]
    fn configuration_and_policy_pass_their_own_checks() {
        let ports = Ports {
            web: 8443,
            postgres: 6432,
            app: 3000,
            upstream: 5432,
        };
        let text = configuration_text(ports);
        let config = Config::parse("curfew.toml", &text, Path::new("/demo")).unwrap();
        for pace in [Pace::People, Pace::Walk] {
            let policy = Policy::parse("policy.cedar", &policy_text(pace)).unwrap();
            policy.check_resources(&config.resources()).unwrap();
        }
    }
}
