//! OCSF 1.8.0, one JSON object a line.
//!
//! Source: <https://schema.ocsf.io/1.8.0>, profiles `datetime`, `host` and `security_control`.
//! `type_uid` is `class_uid × 100 + activity_id`, `category_uid` is `class_uid / 1000`.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::facts::{
    AccountActivity, ApplicationActivity, AuthenticationActivity, Class, Decision, Entity,
    EntityActivity, Facts, LogActivity, Outcome, Severity,
};
use crate::record::{Record, Source};
use crate::text::hex;

/// The version of the schema.
pub const VERSION: &str = "1.8.0";

/// `activity_id` 99: what the schema has no number for is named by `activity_name`.
const OTHER: u64 = 99;

/// A class, an activity in it, and its name where the schema has none.
struct Kind {
    class: u64,
    activity: u64,
    name: Option<&'static str>,
}

/// The record as an OCSF event.
pub fn event(record: &Record, source: &Source) -> Value {
    let facts = &record.facts;
    let kind = kind(facts);
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    put("class_uid", json!(kind.class));
    put("category_uid", json!(kind.class / 1_000));
    put("activity_id", json!(kind.activity));
    put("type_uid", json!(kind.class * 100 + kind.activity));
    if let Some(name) = kind.name {
        put("activity_name", json!(name));
    }
    put("severity_id", json!(severity(facts.severity)));
    put("time", json!(record.time.as_micros() / 1_000));
    put("time_dt", json!(record.time.to_string()));
    put("message", json!(record.message()));
    if kind.class == 2004 {
        // In a finding the status is that of the finding: 1 is New.
        put("status_id", json!(1));
    } else {
        put("status_id", json!(status(facts.outcome)));
    }
    if let Some(reason) = &facts.reason {
        put("status_detail", json!(reason));
    }
    if let Some((action, disposition)) = facts.decision.map(disposition) {
        put("action_id", json!(action));
        put("disposition_id", json!(disposition));
    }
    put("metadata", metadata(record, source));
    put("raw_data", json!(record.entry()));
    put(
        "raw_data_hash",
        json!({"algorithm_id": 3, "value": hex(&Sha256::digest(&record.bytes))}),
    );
    put("unmapped", unmapped(record));
    details(kind.class, record, source, &mut event);
    Value::Object(event)
}

fn kind(facts: &Facts) -> Kind {
    let named = |class, (activity, name): (u64, Option<&'static str>)| Kind {
        class,
        activity,
        name,
    };
    match &facts.class {
        Class::Log(activity) => named(1008, log_activity(*activity)),
        Class::Application(activity) => named(6002, application_activity(*activity)),
        Class::Entity { activity, .. } => named(3004, (entity_activity(*activity), None)),
        Class::Account(activity) => named(3001, (account_activity(*activity), None)),
        Class::Authentication(activity) => named(3002, authentication_activity(*activity)),
        Class::Action => action_kind(facts),
        Class::Closed => named(4001, (2, None)),
        Class::Finding => named(2004, (1, None)),
        Class::Unknown => named(0, (0, None)),
    }
}

fn log_activity(activity: LogActivity) -> (u64, Option<&'static str>) {
    match activity {
        LogActivity::Start => (6, None),
        LogActivity::Stop => (7, None),
        LogActivity::Delete => (2, None),
        LogActivity::Archive => (4, None),
        LogActivity::Rotate => (5, None),
        LogActivity::Other(name) => (OTHER, Some(name)),
    }
}

fn application_activity(activity: ApplicationActivity) -> (u64, Option<&'static str>) {
    match activity {
        ApplicationActivity::Start => (3, None),
        ApplicationActivity::Stop => (4, None),
        ApplicationActivity::Other(name) => (OTHER, Some(name)),
    }
}

fn entity_activity(activity: EntityActivity) -> u64 {
    match activity {
        EntityActivity::Create => 1,
        EntityActivity::Update => 3,
        EntityActivity::Delete => 4,
    }
}

fn account_activity(activity: AccountActivity) -> u64 {
    match activity {
        AccountActivity::Create => 1,
        AccountActivity::Enable => 2,
        AccountActivity::PasswordReset => 4,
        AccountActivity::Disable => 5,
        AccountActivity::FactorSet => 10,
    }
}

fn authentication_activity(activity: AuthenticationActivity) -> (u64, Option<&'static str>) {
    match activity {
        AuthenticationActivity::Logon => (1, None),
        AuthenticationActivity::Logoff => (2, None),
        AuthenticationActivity::Ticket => (3, None),
        AuthenticationActivity::Other(name) => (OTHER, Some(name)),
    }
}

/// Web: HTTP Activity by method. Databases: Datastore Activity. Curfew itself: API Activity.
fn action_kind(facts: &Facts) -> Kind {
    let verb = facts.verb.unwrap_or_default();
    let (class, activity) = match facts.plane {
        Some("web") => (4002, method_activity(facts.method.as_deref())),
        Some("postgres") => match verb {
            "sql.connect" => (6005, 3),
            "sql.read" => (6005, 4),
            "sql.write" => (6005, 5),
            _ => (6005, OTHER),
        },
        _ => match verb {
            "session.list" | "log.read" => (6003, 2),
            "session.end" => (6003, 4),
            "session.start" => (6003, 1),
            _ => (6003, 3),
        },
    };
    Kind {
        class,
        activity,
        name: (activity == OTHER).then(|| facts.verb.unwrap_or("action")),
    }
}

fn method_activity(method: Option<&str>) -> u64 {
    match method {
        Some("CONNECT") => 1,
        Some("DELETE") => 2,
        Some("GET") => 3,
        Some("HEAD") => 4,
        Some("OPTIONS") => 5,
        Some("POST") => 6,
        Some("PUT") => 7,
        Some("TRACE") => 8,
        Some("PATCH") => 9,
        _ => OTHER,
    }
}

fn severity(severity: Severity) -> u64 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

fn status(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Success => 1,
        Outcome::Failure => 2,
    }
}

/// `action_id` (Allowed 1, Denied 2) and `disposition_id` of the profile `security_control`.
fn disposition(decision: Decision) -> (u64, u64) {
    match decision {
        Decision::Allowed => (1, 1),
        Decision::Challenged => (2, 23),
        Decision::Blocked => (2, 2),
        Decision::Revoked => (2, 24),
    }
}

fn metadata(record: &Record, source: &Source) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "product": {
            "name": "Curfew",
            "vendor_name": "Curfew",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "profiles": ["datetime", "host", "security_control"],
        "uid": format!("{}#{}", source.origin, record.index),
        "sequence": record.index,
        "log_name": source.origin,
        "event_code": record.facts.kind,
        "original_time": record.time.to_string(),
    });
    if let (Some(session), Some(metadata)) = (&record.facts.session, metadata.as_object_mut()) {
        metadata.insert("correlation_uid".to_owned(), json!(session));
    }
    metadata
}

/// What leads back to the proof, and what the schema has no place for.
fn unmapped(record: &Record) -> Value {
    let facts = &record.facts;
    let mut unmapped = Map::new();
    unmapped.insert("index".to_owned(), json!(record.index));
    unmapped.insert("leaf_hash".to_owned(), json!(record.leaf_hex()));
    let texts = [
        ("network", &facts.network),
        ("fingerprint", &facts.fingerprint),
        ("by", &facts.by),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            unmapped.insert(name.to_owned(), json!(text));
        }
    }
    if let Some(account) = facts.account {
        unmapped.insert("account".to_owned(), json!(account));
    }
    let numbers = [
        ("late_us", facts.late_us),
        ("connection", facts.connection),
        ("bytes_in", facts.bytes_in),
        ("bytes_out", facts.bytes_out),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            unmapped.insert(name.to_owned(), json!(number));
        }
    }
    Value::Object(unmapped)
}

/// What the classes ask for besides.
fn details(class: u64, record: &Record, source: &Source, event: &mut Map<String, Value>) {
    let facts = &record.facts;
    let mut put = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    match class {
        1008 => put("log_name", json!(source.origin)),
        6002 => put("app", json!({"name": "Curfew", "vendor_name": "Curfew"})),
        3004 => put("entity", entity(facts)),
        3001 | 3002 => {
            put("user", user(facts));
            if class == 3002 {
                put("service", json!({"name": "Curfew"}));
                put("session", session(facts));
                if let Some(mfa) = facts.mfa {
                    put("is_mfa", json!(mfa));
                }
            }
        }
        4002 => put("http_request", request(facts)),
        6003 => {
            let operation = facts.verb.unwrap_or("action");
            put(
                "api",
                json!({"operation": operation, "service": {"name": "Curfew"}}),
            );
        }
        6005 => {
            let name = facts.resource.as_deref().unwrap_or("unknown");
            // 1 is Relational.
            put(
                "database",
                json!({"name": name, "type_id": 1, "type": "PostgreSQL"}),
            );
            if let Some(statement) = &facts.statement {
                let name = facts.fingerprint.as_deref().unwrap_or("statement");
                put(
                    "query_info",
                    json!({"query_string": statement, "name": name}),
                );
            }
        }
        2004 => put("finding_info", finding(record, source)),
        _ => {}
    }
    people(class, facts, event);
}

/// Who, by which rules, from where and to where.
fn people(class: u64, facts: &Facts, event: &mut Map<String, Value>) {
    let mut put = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    let endpoint = endpoint(facts);
    if matches!(class, 3001 | 3004) {
        if let Some(by) = &facts.by {
            put("actor", json!({"user": {"name": by}}));
        }
    } else if facts.subject.is_some() || matches!(class, 6003 | 6005) {
        put(
            "actor",
            json!({"user": user(facts), "session": session(facts)}),
        );
    }
    if !facts.rules.is_empty() {
        let rules = facts.rules.iter();
        let rules = rules.map(|rule| json!({"policy": {"name": rule, "uid": rule}}));
        put("authorizations", rules.collect());
    }
    match class {
        4001 | 4002 | 6003 | 6005 => {
            put("src_endpoint", endpoint);
            if let Some(resource) = &facts.resource {
                put(
                    "dst_endpoint",
                    json!({"name": resource, "svc_name": resource}),
                );
            }
        }
        3001 | 3002 if facts.address.is_some() => put("src_endpoint", endpoint),
        _ => {}
    }
    if class == 4001 {
        let (sent, received) = (facts.bytes_in, facts.bytes_out);
        put("traffic", json!({"bytes_in": received, "bytes_out": sent}));
    }
}

fn endpoint(facts: &Facts) -> Value {
    match facts.address {
        Some(address) => json!({"ip": address.to_string()}),
        None => json!({"name": "unknown"}),
    }
}

fn user(facts: &Facts) -> Value {
    // The schema wants a user in each of these classes; a name that nobody has is not invented.
    let Some(subject) = &facts.subject else {
        return json!({"name": "unknown", "type_id": 0});
    };
    let mut user = json!({"name": subject, "uid": subject, "type_id": 1});
    if let (false, Some(user)) = (facts.roles.is_empty(), user.as_object_mut()) {
        let groups = facts.roles.iter().map(|role| json!({"name": role}));
        user.insert("groups".to_owned(), groups.collect());
    }
    user
}

fn session(facts: &Facts) -> Value {
    let mut session = json!({"issuer": "Curfew", "is_remote": true});
    let Some(fields) = session.as_object_mut() else {
        return session;
    };
    if let Some(uid) = &facts.session {
        fields.insert("uid".to_owned(), json!(uid));
    }
    if let Some(credential) = &facts.credential {
        fields.insert("credential_uid".to_owned(), json!(credential));
    }
    if facts.kind == "session.ended" {
        if let Some(reason) = &facts.reason {
            fields.insert("expiration_reason".to_owned(), json!(reason));
        }
        if let Some(deadline) = facts.deadline_us {
            fields.insert("expiration_time".to_owned(), json!(deadline / 1_000));
        }
    }
    session
}

fn entity(facts: &Facts) -> Value {
    let Class::Entity { entity, name, .. } = &facts.class else {
        return json!({"name": "unknown"});
    };
    match entity {
        Entity::Policy => json!({
            "type_id": 5,
            "name": name,
            "policy": {"name": "policy.cedar", "uid": name, "is_applied": true},
        }),
        Entity::Other(kind) => json!({"type_id": OTHER, "type": kind, "name": name}),
    }
}

fn request(facts: &Facts) -> Value {
    let mut request = Map::new();
    // The schema lists the methods; another one stands in the raw entry.
    if let Some(method) = &facts.method
        && method_activity(Some(method)) != OTHER
    {
        request.insert("http_method".to_owned(), json!(method));
    }
    let path = facts.path.as_deref().unwrap_or("/");
    request.insert("url".to_owned(), json!({"path": path}));
    if let Some(client) = &facts.client {
        request.insert("user_agent".to_owned(), json!(client));
    }
    Value::Object(request)
}

fn finding(record: &Record, source: &Source) -> Value {
    json!({
        "uid": format!("{}#{}", source.origin, record.index),
        "title": record.facts.message,
        "types": [record.facts.kind],
    })
}
