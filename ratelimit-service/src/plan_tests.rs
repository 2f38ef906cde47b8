//! Tables for what becomes of a request's descriptors.

use std::path::Path;

use tollgate_runtime::config::parse_yaml;

use super::*;
use crate::limits::Source;
use crate::limits::compile::compile;
use crate::wire::messages::Entry;

const LIMITS: &str = r#"
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: second, requests_per_unit: 5, name: per-user}}
  - {key: plan, value: gold, rate_limit: {unlimited: true, replaces: [{name: per-user}, {name: per-address}]}}
  - {key: address, rate_limit: {unit: minute, requests_per_unit: 7, name: per-address}}
  - {key: watched, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 9}}
  - key: twice
    rate_limits:
      - {unit: second, requests_per_unit: 2}
      - {unit: minute, requests_per_unit: 20, name: per-minute, candidate: {requests_per_unit: 10}}
  - {key: pool, value: "a*", share_threshold: true, rate_limit: {unit: day, requests_per_unit: 3}}
"#;

fn shop() -> Domain {
    let file = parse_yaml(Path::new("shop.yaml"), LIMITS).unwrap();
    compile(&file, &|_| Source { file: Path::new("shop.yaml").into(), line: 0 }).unwrap()
}

fn descriptor(entries: &[(&str, &str)]) -> Descriptor {
    let entries =
        entries.iter().map(|(key, value)| Entry { key: (*key).into(), value: (*value).into() }).collect();
    Descriptor { entries, ..Descriptor::default() }
}

fn request(descriptors: &[Descriptor]) -> RateLimitRequest {
    RateLimitRequest { domain: "shop".into(), descriptors: descriptors.to_vec(), hits_addend: 0 }
}

/// One word a step: `free`, `unlimited`, or the name of what it is held to.
fn words(request: &RateLimitRequest) -> Vec<String> {
    let shop = shop();
    let plan = plan(&shop, request).unwrap();
    plan.steps
        .iter()
        .map(|step| match step {
            Step::Free => "free".to_owned(),
            Step::Unlimited => "unlimited".to_owned(),
            Step::Counted(rulings) => plan.rulings[rulings.clone()]
                .iter()
                .map(|ruling| format!("{} {}", ruling.name, ruling.limit.requests))
                .collect::<Vec<_>>()
                .join(", "),
        })
        .collect()
}

#[test]
fn malformed_requests_have_the_references_texts() {
    let good = request(&[descriptor(&[("user", "alice")])]);
    assert_eq!(check(&good), Ok(()));
    let table = [
        (RateLimitRequest { domain: String::new(), ..good.clone() }, "rate limit domain must not be empty"),
        (request(&[]), "rate limit descriptor list must not be empty"),
        (request(&vec![descriptor(&[]); MAX_DESCRIPTORS + 1]), "128"),
        (request(&[descriptor(&[("k", "v"); MAX_DEPTH + 1])]), "32"),
    ];
    for (request, text) in table {
        let error = check(&request).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn rules_replace_others_of_the_same_request() {
    let (user, gold, address) =
        (descriptor(&[("user", "a")]), descriptor(&[("plan", "gold")]), descriptor(&[("address", "b")]));
    let nothing = descriptor(&[("nothing", "c")]);
    assert_eq!(words(&request(&[user.clone(), address.clone()])), ["per-user 5", "per-address 7"]);
    assert_eq!(words(&request(&[user, gold, address])), ["free", "unlimited", "free"]);
    assert_eq!(words(&request(&[nothing])), ["free"]);
}

#[test]
fn several_limits_on_one_key_are_counted_apart() {
    let twice = descriptor(&[("twice", "a")]);
    assert_eq!(words(&request(std::slice::from_ref(&twice))), ["shop.twice 2, per-minute 20, per-minute 10"]);
    let (shop, asked) = (shop(), request(&[twice]));
    let plan = plan(&shop, &asked).unwrap();
    let mut keys: Vec<_> = plan.batch.iter().map(|(key, _)| key).collect();
    keys.dedup();
    assert_eq!((keys.len(), plan.rulings[2].mode), (3, Mode::Candidate));
}

#[test]
fn an_override_needs_no_rule_and_keeps_values_out_of_its_name() {
    let overridden = |unit, unit_multiplier| Descriptor {
        limit: Some(Override { requests_per_unit: 42, unit, unit_multiplier }),
        ..descriptor(&[("watched", "secret"), ("more", "")])
    };
    assert_eq!(words(&request(&[overridden(3, None)])), ["shop.watched.more 42"]);
    let shop = shop();
    for (unit, multiplier) in [(0, None), (7, None), (-1, None), (3, Some(0)), (6, Some(u32::MAX))] {
        let refused = plan(&shop, &request(&[overridden(unit, multiplier)])).unwrap_err();
        assert_eq!(refused, Malformed::OverrideUnit, "{unit} {multiplier:?}");
    }
    let one = request(&[overridden(5, Some(2))]);
    let plan = plan(&shop, &one).unwrap();
    let ruling = &plan.rulings[0];
    assert_eq!(ruling.limit.window.seconds(), 60 * 86_400);
    assert_eq!(ruling.mode, Mode::Enforce);
}

#[test]
fn hits_of_the_descriptor_win() {
    let look = Descriptor { hits_addend: Some(0), ..descriptor(&[("user", "a")]) };
    let back = Descriptor { is_negative_hits: true, ..descriptor(&[("user", "a")]) };
    let asked = RateLimitRequest { hits_addend: 4, ..request(&[descriptor(&[("user", "a")]), look, back]) };
    let shop = shop();
    let hits: Vec<_> = plan(&shop, &asked).unwrap().batch.iter().map(|(_, counting)| counting.hits).collect();
    assert_eq!(hits, [Hits::Add(4), Hits::Look, Hits::GiveBack(4)]);
}

#[test]
fn values_of_a_shared_wildcard_share_a_counter() {
    let asked = request(&[
        descriptor(&[("pool", "a1")]),
        descriptor(&[("pool", "a2")]),
        descriptor(&[("user", "a1")]),
        descriptor(&[("user", "a2")]),
    ]);
    let shop = shop();
    let plan = plan(&shop, &asked).unwrap();
    let keys: Vec<_> = plan.batch.iter().map(|(key, _)| key).collect();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[2], keys[3]);
}
