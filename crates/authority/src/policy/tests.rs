//! Policies that are refused, with their messages, and what rules yield together.

use std::collections::BTreeSet;

use curfew_entry::Plane;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use super::*;

const SESSIONS: &str = r#"
@id("sessions") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
"#;

/// The messages of a policy made of `rules` and one that permits sessions.
fn problems(rules: &str) -> Vec<String> {
    match Policy::parse("p.cedar", &format!("{rules}{SESSIONS}")) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

fn database(name: &str) -> Resource {
    Resource {
        name: name.parse().unwrap(),
        plane: Plane::Postgres,
        environment: "production".parse().unwrap(),
        tags: BTreeSet::from(["pii".to_owned()]),
    }
}

/// What a policy of `rules` says of ann the dba who writes to `orders` from 10.0.0.1.
fn explain(rules: &str) -> Explanation {
    explain_of(Verb::SqlWrite, &database("orders"), rules)
}

fn explain_of(verb: Verb, resource: &Resource, rules: &str) -> Explanation {
    let policy = Policy::parse("p.cedar", &format!("{rules}{SESSIONS}")).unwrap();
    let subject = "ann".parse().unwrap();
    let roles = BTreeSet::from(["dba".parse().unwrap()]);
    let context = Context {
        address: "10.0.0.1".parse().unwrap(),
        network: "office".into(),
    };
    policy.explain(&Question {
        subject: &subject,
        roles: &roles,
        resource,
        verb,
        context: &context,
        aal: Aal::Two,
    })
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn each_fault_is_told_with_place_and_hint() {
    let cases: &[(&str, &[&str])] = &[
        (
            "permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:1: the rule has no `@id` (the log names rules by their id: add @id(\"some-name\") before it)",
            ],
        ),
        (
            "@id(\"a b\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:1: a rule id must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
            ],
        ),
        (
            "@id(\"a\")\n  @idel(\"5m\")\npermit (principal, action == Action::\"web.read\", resource);",
            &["p.cedar:2:3: there is no annotation `@idel` (did you mean `@idle`?)"],
        ),
        (
            "@id(\"a\") @mode(\"monitor\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: `@mode` is not supported yet (every rule is enforced: remove the annotation)",
            ],
        ),
        (
            "// é\n@id(\"é\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:2:1: a rule id must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
            ],
        ),
        (
            "@id(\"a\") @idle(\"5 parsecs\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: `@idle(\"5 parsecs\")` is not a length of time (write a length of time such as \"90s\", \"15m\", \"8h\", \"1h 30m\")",
            ],
        ),
        (
            "@id(\"a\") @idle(\"0s\") @lifetime(\"31d\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: `@idle(\"0s\")` must be longer than nothing (write a length of time such as \"90s\", \"15m\", \"8h\", \"1h 30m\")",
                "p.cedar:1:22: `@lifetime(\"31d\")` is not a length of time (write a length of time such as \"90s\", \"15m\", \"8h\", \"1h 30m\")",
            ],
        ),
        (
            "@id(\"a\") @lifetime(\"721h\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: `@lifetime(\"721h\")` is longer than 30 days (write a length of time such as \"90s\", \"15m\", \"8h\", \"1h 30m\")",
            ],
        ),
        (
            "@id(\"a\") @idle(\"2h\") @lifetime(\"1h\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: `@idle` of 2h is longer than `@lifetime` of 1h (it could never be reached: idle ≤ reauth ≤ lifetime)",
            ],
        ),
        (
            "@id(\"a\") @assurance(\"aal4\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: `@assurance(\"aal4\")` is no level (the levels are \"aal1\", \"aal2\" and \"aal3\")",
            ],
        ),
        (
            "@id(\"a\") @idle(\"5m\") forbid (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: `@idle` on a forbid has no meaning (limits belong to the permit rules that apply together with it)",
            ],
        ),
        (
            "@id(\"sessions\") permit (principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:2:1: a second rule has the id `sessions` (the log names rules by their id: give each its own)",
            ],
        ),
        (
            "@id(\"a\") @idle(\"5m\") @lifetime(\"1h\") permit (principal in Role::\"x\", action, resource);",
            &[
                "p.cedar:1:38: a rule that permits sessions must give `@reauth` (add @reauth(\"…\"), or name other actions than Action::\"session.start\")",
            ],
        ),
        (
            "@id(\"a\") permit (principal in Role::\"x\", action, resource in Environment::\"staging\");",
            &[],
        ),
        (
            "@id(\"a\") permit (principal == ?principal, action == Action::\"web.read\", resource);",
            &[
                "p.cedar:1:10: a template is not a rule (name the principal and the resource instead of `?principal`, `?resource`)",
            ],
        ),
    ];
    for (rules, expected) in cases {
        assert_eq!(problems(rules), *expected, "{rules}");
    }
}

#[test]
fn cedar_speaks_once_and_without_its_own_names() {
    let wrong = problems(
        "@id(\"a\") permit (principal, action in [Action::\"sql.read\", Action::\"sql.write\"], resource)\n\
         when { context.netwrok == \"office\" };",
    );
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("p.cedar:2:8: "), "{wrong:?}");
    assert!(
        wrong[0].contains("netwrok") && wrong[0].contains("did you mean `network`?"),
        "{wrong:?}"
    );
    assert!(!wrong[0].contains("policy0"), "{wrong:?}");
    let wrong =
        problems("@id(\"a\") permit (principal, action == Action::\"sql.raed\", resource);");
    assert!(wrong[0].contains("sql.read"), "{wrong:?}");
    let wrong = problems(
        "@id(\"a\") permit (principal in Rule::\"x\", action == Action::\"sql.read\", resource);",
    );
    assert!(wrong[0].contains("Role"), "{wrong:?}");
    let wrong = problems("@id(\"a\") permit (principal, action == Action::\"sql.read\", resource)");
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    // Several faults of several rules at once.
    let wrong = problems(
        "permit (principal, action == Action::\"sql.read\", resource);\n\
         @id(\"b\") @idel(\"x\") permit (principal, action == Action::\"sql.read\", resource);",
    );
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

#[test]
fn a_policy_without_sessions_or_out_of_bounds_is_refused() {
    let text = "@id(\"a\") permit (principal, action == Action::\"web.read\", resource);";
    let error = Policy::parse("p.cedar", text).unwrap_err().to_string();
    assert!(error.contains("no rule permits a session"), "{error}");
    assert!(Policy::parse("p.cedar", "").is_err());
    let long = format!("{SESSIONS}{}", "// \n".repeat(POLICY_BYTES_MAX / 4));
    assert!(
        Policy::parse("p.cedar", &long)
            .unwrap_err()
            .to_string()
            .contains("over the limit")
    );
    let dense = format!("{SESSIONS}//{}\n", "\u{1}".repeat(POLICY_BYTES_MAX / 4));
    let error = Policy::parse("p.cedar", &dense).unwrap_err().to_string();
    assert!(error.contains("more than one entry can hold"), "{error}");
}

#[test]
fn the_strictest_limits_win_and_each_is_explained() {
    let told = explain(
        "@id(\"b\") @idle(\"5m\") @lifetime(\"8h\") @record(\"signed\") permit (principal in Role::\"dba\", action == Action::\"sql.write\", resource in Environment::\"production\");\n\
         @id(\"a\") @idle(\"10m\") @reauth(\"15m\") @assurance(\"aal3\") @record(\"witnessed\") permit (principal, action in [Action::\"sql.write\", Action::\"sql.ddl\"], resource == Resource::\"orders\");\n\
         @id(\"c\") @idle(\"1m\") permit (principal in Role::\"root\", action, resource == Resource::\"orders\");",
    );
    let id = |text: &str| text.parse::<RuleId>().unwrap();
    let minutes = |n: u64| Span::from_secs(60 * n);
    let demands = Demands {
        idle: Some(minutes(5)),
        reauth: Some(minutes(15)),
        lifetime: Some(minutes(480)),
        assurance: Some(Aal::Three),
        record: Some(RecordLevel::Witnessed),
    };
    assert_eq!(
        told.ruling,
        Ruling::Permit {
            rules: vec![id("a"), id("b")],
            demands
        }
    );
    assert_eq!(told.idle, Some((minutes(5), id("b"))));
    assert_eq!(told.reauth, Some((minutes(15), id("a"))));
    assert_eq!(told.lifetime, Some((minutes(480), id("b"))));
    assert_eq!(told.assurance, Some((Aal::Three, id("a"))));
    assert_eq!(told.record, Some((RecordLevel::Witnessed, id("a"))));
    let lines: Vec<usize> = told.applied.iter().map(|rule| rule.line).collect();
    assert_eq!(lines, [2, 1]);
}

#[test]
fn a_limit_that_is_built_in_is_told_where_no_rule_is_as_strict() {
    let erase = |reauth: &str, verb: Verb| {
        let action = verb.as_str();
        let rule = format!(
            "@id(\"e\") {reauth} permit (principal, action == Action::\"{action}\", resource == Resource::\"gateway\");"
        );
        let told = explain_of(verb, &Resource::gateway(), &rule);
        let Ruling::Permit { demands, .. } = told.ruling else {
            panic!("{told:?}");
        };
        let by_rule = told.reauth.map(|(span, _)| span);
        (demands.reauth, by_rule, told.fresh)
    };
    let minutes = |n: u64| Some(Span::from_secs(60 * n));
    let of = |reauth| erase(reauth, Verb::LogErase);
    assert_eq!(of(""), (minutes(5), None, minutes(5)));
    let longer = (minutes(5), minutes(60), minutes(5));
    assert_eq!(of("@reauth(\"1h\")"), longer);
    assert_eq!(of("@reauth(\"5m\")"), (minutes(5), minutes(5), None));
    assert_eq!(of("@reauth(\"1m\")"), (minutes(1), minutes(1), None));
    assert_eq!(erase("", Verb::LogReveal), (None, None, None));
}

#[test]
fn everything_policy_can_see_is_seen() {
    let permits = |condition: &str| {
        let rules = format!(
            "@id(\"a\") permit (principal == Subject::\"ann\", action == Action::\"sql.write\", resource) when {{ {condition} }};"
        );
        matches!(explain(&rules).ruling, Ruling::Permit { .. })
    };
    assert!(permits("context.network == \"office\""));
    assert!(!permits("context.network == \"home\""));
    assert!(permits("context.address.isInRange(ip(\"10.0.0.0/8\"))"));
    assert!(!permits("context.address.isInRange(ip(\"11.0.0.0/8\"))"));
    assert!(permits("context.aal >= 2"));
    assert!(!permits("context.aal >= 3"));
    assert!(permits(
        "resource.tags.contains(\"pii\") && resource.plane == \"postgres\" && resource.name == \"orders\""
    ));
}

#[test]
fn a_rule_that_cannot_be_evaluated_never_opens_anything() {
    let overflow = "when { context.aal + 9223372036854775807 > 0 }";
    let permit = "@id(\"p\") permit (principal, action == Action::\"sql.write\", resource);";
    let forbid = format!(
        "@id(\"f\") forbid (principal, action == Action::\"sql.write\", resource) {overflow};"
    );
    let told = explain(&format!("{permit}{forbid}"));
    assert_eq!(
        told.ruling,
        Ruling::Forbid {
            rules: vec!["f".parse().unwrap()]
        }
    );
    assert!(told.applied.iter().any(|rule| rule.failed));
    let bad_permit = format!(
        "@id(\"b\") @idle(\"1s\") permit (principal, action == Action::\"sql.write\", resource) {overflow};"
    );
    let told = explain(&format!("{permit}{bad_permit}"));
    let rules = vec!["p".parse().unwrap()];
    assert_eq!(
        told.ruling,
        Ruling::Permit {
            rules,
            demands: Demands::default()
        }
    );
    assert_eq!(explain(&bad_permit).ruling, Ruling::Silent);
}

#[test]
fn a_satisfied_forbid_wins_over_all() {
    let told = explain(
        "@id(\"p\") permit (principal, action == Action::\"sql.write\", resource);\n\
         @id(\"f\") @reason(\"frozen\") forbid (principal, action == Action::\"sql.write\", resource);",
    );
    assert_eq!(
        told.ruling,
        Ruling::Forbid {
            rules: vec!["f".parse().unwrap()]
        }
    );
}

#[test]
fn rules_may_only_name_what_is_configured() {
    let text = format!(
        "@id(\"a\") permit (principal, action == Action::\"sql.write\", resource == Resource::\"ordres\");\n\
         @id(\"b\") permit (principal, action == Action::\"sql.write\", resource in Environment::\"prod\")\n\
         unless {{ resource == Resource::\"orders\" }};{SESSIONS}"
    );
    let policy = Policy::parse("p.cedar", &text).unwrap();
    let error = policy
        .check_resources(&[database("orders")])
        .unwrap_err()
        .to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(
        lines,
        [
            "p.cedar:1:82: there is no resource `ordres` (did you mean `orders`?)",
            "p.cedar:2:85: there is no environment `prod` (environments are set in the gateway's configuration)",
        ]
    );
}

#[test]
fn miette_shows_the_source() {
    let error = Policy::parse(
        "p.cedar",
        "@id(\"a\") @idel(\"5m\")\npermit (principal, action == Action::\"web.read\", resource);",
    )
    .unwrap_err();
    let mut shown = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::none())
        .render_report(&mut shown, &error as &dyn Diagnostic)
        .unwrap();
    assert!(
        shown.contains("p.cedar:1:10") && shown.contains("did you mean `@idle`?"),
        "{shown}"
    );
}

#[test]
fn what_a_record_must_reach_is_checked() {
    let rule = "permit (principal, action == Action::\"web.write\", resource);";
    for (annotation, wanted) in [
        ("@record(\"durable\")", "is no level"),
        ("@record(\"\")", "is no level"),
        ("@recrod(\"signed\")", "did you mean `@record`?"),
    ] {
        let told = problems(&format!("@id(\"a\") {annotation} {rule}"));
        assert!(told.len() == 1 && told[0].contains(wanted), "{told:?}");
    }
    let told = problems(&format!(
        "@id(\"a\") @record(\"signed\") {}",
        rule.replace("permit", "forbid")
    ));
    assert!(told[0].contains("on a forbid has no meaning"), "{told:?}");
    let told = problems(
        "@id(\"a\") @record(\"signed\") @idle(\"1m\") @reauth(\"1h\") @lifetime(\"1h\") \
         permit (principal, action, resource);",
    );
    assert!(told[0].contains("permits sessions"), "{told:?}");

    let policy = |level: &str| {
        let text = format!("{SESSIONS}@id(\"a\") @record(\"{level}\") {rule}");
        Policy::parse("p.cedar", &text).unwrap()
    };
    assert!(policy("signed").check_witnesses(false).is_ok());
    assert!(policy("witnessed").check_witnesses(true).is_ok());
    let refused = policy("witnessed").check_witnesses(false).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("p.cedar:4:") && text.contains("`a` demands witnesses"),
        "{text}"
    );
    assert!(policy("witnessed").check_timestamps(false).is_ok());
    assert!(policy("timestamped").check_witnesses(false).is_ok());
    assert!(policy("timestamped").check_timestamps(true).is_ok());
    let refused = policy("timestamped").check_timestamps(false).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("`a` demands timestamps"), "{text}");
}

#[test]
fn a_role_that_no_rule_speaks_of_is_named_with_the_nearest() {
    let rules = format!(
        "{SESSIONS}\n@id(\"dba\") permit (principal in Role::\"dba\", action == Action::\"sql.read\", resource);\n\
         @id(\"x\") permit (principal, action == Action::\"sql.read\", resource) when {{ principal in Role::\"analyst\" }};"
    );
    let policy = Policy::parse("p", &rules).unwrap();
    assert!(policy.roles().contains("dba") && policy.roles().contains("analyst"));
    let held: Vec<RoleName> = ["dba", "analist", "zzz-nobody"]
        .map(|r| r.parse().unwrap())
        .into();
    let unknown = policy.unknown_roles(&held);
    let told: Vec<_> = unknown
        .iter()
        .map(|it| (it.to_string(), it.hint.as_str()))
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(
        told[0].0,
        "no rule of the policy speaks of the role `analist`"
    );
    assert_eq!(told[0].1, "did you mean `analyst`?");
    assert!(told[1].1.contains("`analyst`, `dba`"), "{}", told[1].1);
}
