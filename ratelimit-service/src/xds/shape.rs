//! From the resources of an xDS server to limits files in hand. Pure.
//!
//! A resource becomes the text that the same limits have as a file, so that what is refused, and how it is told, is
//! the same whichever way limits come.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tollgate_proto::envoy_types::pb::google::protobuf::Any;
use tollgate_proto::envoy_types::pb::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};
use tollgate_proto::prost::Message as _;

use crate::limits::Folder;
use crate::limits::compile::MAX_DEPTH;

/// The type of resource that holds limits.
pub const TYPE_URL: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";
/// Resources one answer may have.
const MAX_RESOURCES: usize = 10_000;

/// Why resources are not limits.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// More than are taken.
    #[error("{0} resources, of which {MAX_RESOURCES} are taken at most")]
    TooMany(usize),
    /// Another type.
    #[error("resource {0} is of type {1}")]
    Type(usize, String),
    /// Not a message of its type.
    #[error("resource {0} cannot be decoded")]
    Message(usize, #[source] tollgate_proto::prost::DecodeError),
    /// Entries within entries without end.
    #[error("resource {0} is more than {MAX_DEPTH} entries deep")]
    TooDeep(usize),
}

/// The resources as files, which still have to be compiled.
pub fn files_of(resources: &[Any]) -> Result<Folder, Unreadable> {
    if resources.len() > MAX_RESOURCES {
        return Err(Unreadable::TooMany(resources.len()));
    }
    let mut files: Vec<(Arc<Path>, String)> = Vec::with_capacity(resources.len());
    for (index, resource) in resources.iter().enumerate() {
        if resource.type_url != TYPE_URL {
            return Err(Unreadable::Type(index, resource.type_url.clone()));
        }
        let config = RateLimitConfig::decode(&*resource.value).map_err(|e| Unreadable::Message(index, e))?;
        let name = if config.name.is_empty() { index.to_string() } else { config.name.clone() };
        let text = text_of(&config).ok_or(Unreadable::TooDeep(index))?;
        files.push((Path::new(&format!("xds:{name}")).into(), text));
    }
    // An order of their own, so that the same set is the same however it was sent.
    files.sort();
    Ok(Folder::of_texts(files))
}

fn text_of(config: &RateLimitConfig) -> Option<String> {
    let file = json!({
        "domain": config.domain,
        "descriptors": descriptors(&config.descriptors, 0)?,
    });
    Some(format!("{file:#}"))
}

fn descriptors(all: &[RateLimitDescriptor], depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    all.iter().map(|one| descriptor(one, depth)).collect::<Option<Vec<_>>>().map(Value::from)
}

fn descriptor(one: &RateLimitDescriptor, depth: usize) -> Option<Value> {
    let mut node = Map::new();
    node.insert("key".to_owned(), one.key.as_str().into());
    if !one.value.is_empty() {
        node.insert("value".to_owned(), one.value.as_str().into());
    }
    if let Some(limit) = &one.rate_limit {
        node.insert("rate_limit".to_owned(), policy(limit));
    }
    if !one.descriptors.is_empty() {
        node.insert("descriptors".to_owned(), descriptors(&one.descriptors, depth + 1)?);
    }
    let switches = [
        ("shadow_mode", one.shadow_mode),
        ("detailed_metric", one.detailed_metric),
        ("quota_mode", one.quota_mode),
    ];
    for (name, _) in switches.into_iter().filter(|(_, is_on)| *is_on) {
        node.insert(name.to_owned(), true.into());
    }
    Some(node.into())
}

fn policy(limit: &RateLimitPolicy) -> Value {
    let mut node = Map::new();
    // A unit that nobody knows stays one, and is refused by name.
    let unit = match RateLimitUnit::try_from(limit.unit) {
        Ok(RateLimitUnit::Unknown) => None,
        Ok(unit) => Some(unit.as_str_name().to_ascii_lowercase()),
        Err(_) => Some(limit.unit.to_string()),
    };
    if let Some(unit) = unit {
        node.insert("unit".to_owned(), unit.into());
    }
    if limit.unlimited {
        node.insert("unlimited".to_owned(), true.into());
    } else {
        node.insert("requests_per_unit".to_owned(), limit.requests_per_unit.into());
    }
    if !limit.name.is_empty() {
        node.insert("name".to_owned(), limit.name.as_str().into());
    }
    if !limit.replaces.is_empty() {
        let names: Vec<_> = limit.replaces.iter().map(|one| json!({ "name": one.name })).collect();
        node.insert("replaces".to_owned(), names.into());
    }
    node.into()
}

#[cfg(test)]
mod tests {
    use tollgate_proto::envoy_types::pb::ratelimit::config::ratelimit::v3::RateLimitReplace;

    use super::*;
    use crate::limits::{Allowance, Mode};

    fn resource(config: &RateLimitConfig) -> Any {
        Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() }
    }

    fn per(unit: RateLimitUnit, requests_per_unit: u32) -> Option<RateLimitPolicy> {
        Some(RateLimitPolicy { unit: unit.into(), requests_per_unit, ..RateLimitPolicy::default() })
    }

    fn shop(descriptors: Vec<RateLimitDescriptor>) -> RateLimitConfig {
        RateLimitConfig { name: "shop".to_owned(), domain: "shop".to_owned(), descriptors }
    }

    #[test]
    fn resources_are_the_limits_that_the_same_file_makes() {
        let named = |key: &str, value: &str, rate_limit| RateLimitDescriptor {
            key: key.to_owned(),
            value: value.to_owned(),
            rate_limit,
            ..RateLimitDescriptor::default()
        };
        let free = RateLimitPolicy {
            unlimited: true,
            replaces: vec![RateLimitReplace { name: "slow".to_owned() }],
            ..RateLimitPolicy::default()
        };
        let inner =
            RateLimitDescriptor { shadow_mode: true, ..named("path", "/a*", per(RateLimitUnit::Week, 7)) };
        let outer = RateLimitDescriptor { descriptors: vec![inner], ..named("user", "", None) };
        let config = shop(vec![
            outer,
            named("free", "x", Some(free)),
            named("none", "", per(RateLimitUnit::Second, 0)),
        ]);
        let set = files_of(&[resource(&config)]).unwrap().compile().unwrap();
        let domain = set.domain("shop").unwrap();
        let rule = &domain.find([("user", "u"), ("path", "/a/b")])[0];
        assert_eq!((rule.mode, rule.limit().unwrap().window.seconds()), (Mode::Shadow, 7 * 86_400));
        assert!(rule.source.to_string().starts_with("xds:shop:"), "{}", rule.source);
        let rule = &domain.find([("free", "x")])[0];
        assert_eq!((rule.allowance, &*rule.replaces[0]), (Allowance::Unlimited, "slow"));
        assert_eq!(domain.find([("none", "n")])[0].limit().unwrap().requests, 0);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let told = |resources: &[Any]| match files_of(resources) {
            Err(error) => error.to_string(),
            Ok(files) => files.compile().unwrap_err().to_string(),
        };
        let good = resource(&shop(Vec::new()));
        assert!(told(&[Any { type_url: "x".to_owned(), ..good.clone() }]).contains("type x"));
        assert!(told(&[Any { value: vec![0xff], ..good.clone() }]).contains("cannot be decoded"));
        assert!(told(&[good.clone(), good]).contains("already has a file"));
        let limit = RateLimitPolicy { unit: 99, requests_per_unit: 1, ..RateLimitPolicy::default() };
        let wrong = RateLimitDescriptor {
            key: "a".to_owned(),
            rate_limit: Some(limit),
            ..RateLimitDescriptor::default()
        };
        assert!(told(&[resource(&shop(vec![wrong]))]).contains("descriptors[0].rate_limit.unit"));
        let deep = (0..40).fold(RateLimitDescriptor::default(), |inner, _| RateLimitDescriptor {
            key: "a".to_owned(),
            descriptors: vec![inner],
            ..RateLimitDescriptor::default()
        });
        assert!(told(&[resource(&shop(vec![deep]))]).contains("deep"));
    }
}
