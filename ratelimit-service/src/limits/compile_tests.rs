//! Tables for what limits files mean, and for those that are refused.

use std::path::Path;

use tollgate_runtime::config::parse_yaml;

use super::*;

fn domain(text: &str) -> Result<Domain, Invalid> {
    let file: LimitFile = parse_yaml(Path::new("test.yaml"), text).expect("the shape is right");
    compile(&file, &|_| Source { file: Path::new("test.yaml").into(), line: 0 })
}

/// As the reference's documentation writes them, with its traps side by side.
const SHOP: &str = r#"
domain: shop
descriptors:
  - key: user
    rate_limit: {unit: second, requests_per_unit: 1}
  - key: user
    value: gold
    rate_limit: {unit: second, requests_per_unit: 2}
  - key: user
    value: go*
    rate_limit: {unit: second, requests_per_unit: 3}
  - key: user
    value: g*
    rate_limit: {unit: second, requests_per_unit: 4}
  - key: user
    value: gone
    descriptors:
      - key: path
        value: /a
        rate_limit: {unit: minute, requests_per_unit: 5}
  - key: plan
    descriptors:
      - key: path
        value: "/v1/*"
        rate_limit: {unit: hour, requests_per_unit: 6, name: plan-path}
        descriptors:
          - key: method
            rate_limit: {unit: day, requests_per_unit: 7}
  - key: a_b
    rate_limit: {unit: second, requests_per_unit: 8}
  - key: a
    value: b
    rate_limit: {unit: second, requests_per_unit: 9}
  - key: number
    value: 42
    rate_limit: {unit: second, requests_per_unit: 10}
  - key: everything
    value: "*"
    rate_limit: {unit: second, requests_per_unit: 11}
"#;

#[test]
fn matching_table() {
    let shop = domain(SHOP).unwrap();
    type Row = (&'static [(&'static str, &'static str)], Option<u32>);
    let table: &[Row] = &[
        (&[("user", "alice")], Some(1)),
        (&[("user", "")], Some(1)),
        (&[("user", "gold")], Some(2)),
        (&[("user", "golden")], Some(3)),
        (&[("user", "go")], Some(3)),
        (&[("user", "green")], Some(4)),
        (&[("user", "Gold")], Some(1)),
        // An exact value is chosen even where it leads nowhere; there is no way back to the wildcard.
        (&[("user", "gone")], None),
        (&[("user", "gone"), ("path", "/a")], Some(5)),
        (&[("user", "gone"), ("path", "/b")], None),
        // Deeper or shallower than the rule is no match.
        (&[("user", "alice"), ("path", "/a")], None),
        (&[("plan", "free")], None),
        (&[("plan", "free"), ("path", "/v1/x")], Some(6)),
        (&[("plan", "free"), ("path", "/v2/x")], None),
        (&[("plan", "free"), ("path", "/v1/x"), ("method", "GET")], Some(7)),
        (&[("plan", "free"), ("path", "/v1/x"), ("method", "GET"), ("more", "")], None),
        // The order of entries counts.
        (&[("path", "/v1/x"), ("plan", "free")], None),
        // The reference mixes these two up; here a key ends where it ends.
        (&[("a_b", "c")], Some(8)),
        (&[("a", "b_c")], None),
        (&[("a", "b")], Some(9)),
        (&[("number", "42")], Some(10)),
        (&[("everything", "")], Some(11)),
        (&[("everything", "at all")], Some(11)),
        (&[("nothing", "at all")], None),
        (&[], None),
    ];
    for (entries, expected) in table {
        let found = shop.find(entries.iter().copied()).first().map(|rule| match rule.allowance {
            Allowance::Limited(limit) => limit.requests,
            Allowance::Unlimited => u32::MAX,
        });
        assert_eq!(found, *expected, "{entries:?}");
    }
}

#[test]
fn names_are_given_or_composite() {
    let shop = domain(SHOP).unwrap();
    let name = |entries: &[(&str, &str)]| shop.find(entries.iter().copied())[0].name().to_owned();
    assert_eq!(name(&[("user", "gold")]), "shop.user_gold");
    assert_eq!(name(&[("plan", "x"), ("path", "/v1/y")]), "plan-path");
    assert_eq!(name(&[("plan", "x"), ("path", "/v1/y"), ("method", "z")]), "shop.plan.path_/v1/*.method");
    assert_eq!(shop.rules().len(), 11);
}

#[test]
fn modes_and_sharing() {
    let text = r#"
domain: d
descriptors:
  - {key: shadow, shadow_mode: true, rate_limit: {unit: SECOND, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, detailed_metric: true, rate_limit: {unit: week, requests_per_unit: 0, unit_multiplier: 2}}
  - {key: free, rate_limit: {unlimited: true, replaces: [{name: other}]}}
  - key: shared
    value: "p-*"
    share_threshold: true
    descriptors: [{key: leaf, rate_limit: {unit: day, requests_per_unit: 1}}]
"#;
    let d = domain(text).unwrap();
    let of = |entries: &[(&str, &str)]| d.find(entries.iter().copied())[0].clone();
    assert_eq!(of(&[("shadow", "")]).mode, Mode::Shadow);
    assert_eq!(of(&[("quota", "")]).mode, Mode::Quota);
    let Allowance::Limited(limit) = of(&[("quota", "")]).allowance else { panic!("limited") };
    assert_eq!(limit.window.seconds(), 14 * 86_400);
    assert_eq!(of(&[("free", "")]).allowance, Allowance::Unlimited);
    assert_eq!(of(&[("free", "")]).replaces[0].as_ref(), "other");
    let shared = &of(&[("shared", "p-1"), ("leaf", "x")]).shared;
    assert_eq!(**shared, [Some("p-*".into()), None]);
}

#[test]
fn algorithms_several_limits_and_candidates() {
    let text = r#"
domain: d
descriptors:
  - {key: plain, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: slides, rate_limit: {unit: minute, requests_per_unit: 5, algorithm: sliding_window}}
  - {key: bucket, rate_limit: {unit: second, requests_per_unit: 5, algorithm: token_bucket, burst: 9}}
  - {key: divided, rate_limit: {unit: second, requests_per_unit: 40, burst: 10, enforcement: quota}}
  - key: several
    rate_limits:
      - {unit: second, requests_per_unit: 5, candidate: {requests_per_unit: 3}}
      - {unit: second, requests_per_unit: 5, algorithm: token_bucket}
"#;
    let d = domain(text).unwrap();
    let of = |key: &str| d.find([(key, "v")]);
    let algorithm = |rule: &Rule| rule.limit().unwrap().algorithm;
    assert_eq!(algorithm(&of("plain")[0]), Algorithm::FixedWindow);
    assert_eq!(algorithm(&of("slides")[0]), Algorithm::SlidingWindow);
    assert_eq!(algorithm(&of("bucket")[0]), Algorithm::TokenBucket { burst: 9 });
    assert_eq!((of("divided")[0].enforced, of("divided")[0].burst), (Enforced::Quota, 10));
    let several: Vec<_> =
        of("several").iter().map(|rule| (rule.mode, rule.limit().unwrap().capacity())).collect();
    assert_eq!(several, [(Mode::Enforce, 5), (Mode::Candidate, 3), (Mode::Enforce, 5)]);
    assert!(d.rules().iter().enumerate().all(|(place, rule)| rule.index == place));
}

#[test]
fn entries_without_an_order_find_their_rule() {
    let shop = domain(SHOP).unwrap();
    let found = |entries: &[(&str, &str)]| {
        shop.find_unordered(entries)
            .map(|(order, rules)| (order[0].0.to_owned(), rules[0].limit().unwrap().requests))
    };
    assert_eq!(found(&[("path", "/v1/x"), ("plan", "free")]), Some(("plan".to_owned(), 6)));
    assert_eq!(
        found(&[("method", "GET"), ("path", "/v1/x"), ("plan", "free")]),
        Some(("plan".to_owned(), 7))
    );
    assert_eq!(found(&[("path", "/v2/x"), ("plan", "free")]), None);
    assert_eq!(found(&[]), None);
}

#[test]
fn domains_may_be_merged_where_their_keys_differ() {
    let one = domain("{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}}]}")
        .unwrap();
    let other = || {
        domain(
            "{domain: d, descriptors: [{key: k, value: v, rate_limit: {unit: day, requests_per_unit: 2}}]}",
        )
        .unwrap()
    };
    let mut set = crate::limits::LimitSet::default();
    set.merge(one).unwrap();
    set.merge(other()).unwrap();
    let merged = set.domain("d").unwrap();
    assert_eq!(merged.find([("k", "v")])[0].index, 1);
    assert_eq!(merged.find([("k", "w")])[0].index, 0);
    assert_eq!(set.merge(other()), Err("k_v".to_owned()));
}

#[test]
fn what_the_reference_refuses_is_refused() {
    let table = [
        ("descriptors: []", "domain"),
        ("domain: ''", "domain"),
        ("{domain: d, descriptors: [{value: v}]}", "descriptors[0].key"),
        ("{domain: d, descriptors: [{key: k}, {key: ''}]}", "descriptors[1].key"),
        ("{domain: d, descriptors: [{key: 'k*'}]}", "descriptors[0].key"),
        ("{domain: d, descriptors: [{key: k}, {key: k}]}", "descriptors[1]"),
        ("{domain: d, descriptors: [{key: k, value: v}, {key: k}, {key: k, value: v}]}", "descriptors[2]"),
        ("{domain: d, descriptors: [{key: k, value: 'v*'}, {key: k, value: 'v*'}]}", "descriptors[1]"),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {requests_per_unit: 1}}]}",
            "descriptors[0].rate_limit.unit",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: fortnight, requests_per_unit: 1}}]}",
            "descriptors[0].rate_limit.unit",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: unknown, requests_per_unit: 1}}]}",
            "descriptors[0].rate_limit.unit",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, unlimited: true}}]}",
            "descriptors[0].rate_limit.unit",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: day}}]}",
            "descriptors[0].rate_limit.requests_per_unit",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1, unit_multiplier: 0}}]}",
            "descriptors[0].rate_limit.unit_multiplier",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: 1, unit_multiplier: 999}}]}",
            "descriptors[0].rate_limit.unit_multiplier",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unlimited: true, replaces: [{name: ''}]}}]}",
            "descriptors[0].rate_limit.replaces[0]",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unlimited: true, name: me, replaces: [{name: me}]}}]}",
            "descriptors[0].rate_limit.replaces[0]",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1, burst: 2}}]}",
            "descriptors[0].rate_limit.burst",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1, algorithm: token_bucket, burst: 0}}]}",
            "descriptors[0].rate_limit.burst",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}, rate_limits: []}]}",
            "descriptors[0].rate_limits",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limits: [{unit: day, requests_per_unit: 1}, {unit: day, requests_per_unit: 2}]}]}",
            "descriptors[0].rate_limits[1].unit",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limits: [{unlimited: true}, {unit: day, requests_per_unit: 2}]}]}",
            "descriptors[0].rate_limits[0].unlimited",
        ),
        (
            "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1, candidate: {unit: no}}}]}",
            "descriptors[0].rate_limit.candidate.unit",
        ),
        (
            "{domain: d, descriptors: [{key: k, value: v, share_threshold: true}]}",
            "descriptors[0].share_threshold",
        ),
        (
            "{domain: d, descriptors: [{key: k, descriptors: [{key: l, rate_limit: {unit: x}}]}]}",
            "descriptors[0].descriptors[0].rate_limit.unit",
        ),
    ];
    for (text, key) in table {
        let error = domain(text).unwrap_err();
        assert_eq!(error.key, key, "{text}: {error:?}");
    }
}

#[test]
fn shapes_that_are_refused_name_file_line_and_key() {
    let table = [
        ("domain: d\ndescriptors:\n  - key: k\n    ratelimit: {}\n", 4, "ratelimit"),
        ("domain: d\ndescriptors:\n  - nonsense\n", 3, "descriptors"),
        (
            "domain: d\ndescriptors:\n  - key: k\n    rate_limit:\n      unit: day\n      requests_per_unit: many\n",
            6,
            "requests_per_unit",
        ),
        (
            "domain: d\ndescriptors:\n  - key: k\n    rate_limit:\n      unit: day\n      requests_per_unit: -1\n",
            6,
            "requests_per_unit",
        ),
        ("domain: d\ndomain: e\n", 2, "domain"),
        ("domain: [d\n", 0, ""),
    ];
    for (text, line, mentions) in table {
        let error = parse_yaml::<LimitFile>(Path::new("test.yaml"), text).unwrap_err();
        assert!(error.to_string().contains(mentions), "{error}");
        assert!(line == 0 || error.line == Some(line), "{error}: expected line {line}");
    }
}
