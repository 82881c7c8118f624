//! The configuration of a gateway, for tests that say only what is particular to them.

/// For the log `curfew.test/log` and the portal `curfew.localhost`, with `more` tables.
pub(crate) fn config(more: &str) -> String {
    format!(
        r#"data = "data"
policy = "policy.cedar"
origin = "curfew.test/log"
portal = "curfew.localhost"
[listen]
web = "127.0.0.1:0"
[tls]
certificate = "cert.pem"
key = "key.pem"
{more}"#
    )
}
