//! The compiled routes.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustc_hash::FxHashMap;
use tollgate_paths::{Template, TemplateTrie};
use tollgate_runtime::config::Invalid;

use super::Route;
use crate::config::{Match, PathMatchType, RouteConfig};

/// All routes, by host and path.
#[derive(Debug, Default)]
pub struct Table {
    exact: FxHashMap<String, TemplateTrie<Candidate>>,
    /// Suffixes with their dot, the longest first.
    wildcard: Vec<(String, TemplateTrie<Candidate>)>,
    any: TemplateTrie<Candidate>,
}

/// What a request takes.
#[derive(Debug, Clone)]
pub struct Found {
    /// The route.
    pub route: Arc<Route>,
    /// The path as the route's configuration writes it: `http.route`.
    pub path: Arc<str>,
}

#[derive(Debug, Clone)]
struct Candidate {
    found: Found,
    method: Option<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Less is more specific; compared between candidates on one path.
    rank: (PathRank, bool, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Template,
    Prefix,
}

impl Table {
    /// Compiles routes; an error names the key that is at fault.
    pub fn compile(routes: &[RouteConfig]) -> Result<Self, Invalid> {
        let mut candidates = Vec::new();
        for (at, config) in routes.iter().enumerate() {
            let route = Arc::new(Route::compile(config).map_err(|problem| {
                Invalid::new(
                    format!("routes[{at}].descriptors"),
                    problem.to_string(),
                    super::descriptor::Value::EXPECTED,
                )
            })?);
            for (index, one) in config.matches.iter().enumerate() {
                let key = format!("routes[{at}].matches[{index}]");
                let (templates, candidate) = compile_match(one, &route, &key)?;
                candidates.push((at, templates, candidate));
            }
        }
        // The sort keeps the order of the file among equals, and a trie keeps the order of insertion.
        candidates.sort_by_key(|(_, _, candidate)| candidate.rank);
        let mut table = Self::default();
        for (at, templates, candidate) in candidates {
            let hosts = &routes[at].hostnames;
            if hosts.is_empty() {
                file(&mut table.any, &templates, &candidate);
            }
            for (index, host) in hosts.iter().enumerate() {
                let trie = table.host(host).ok_or_else(|| {
                    Invalid::new(
                        format!("routes[{at}].hostnames[{index}]"),
                        format!("`{host}` is not a host"),
                        "a name such as api.example.org or *.example.org, without a port",
                    )
                })?;
                file(trie, &templates, &candidate);
            }
        }
        Ok(table)
    }

    /// The trie of one host pattern, new if need be.
    fn host(&mut self, pattern: &str) -> Option<&mut TemplateTrie<Candidate>> {
        let pattern = pattern.to_ascii_lowercase();
        let suffix = pattern.strip_prefix('*');
        let name = suffix.map_or(Some(pattern.as_str()), |suffix| suffix.strip_prefix('.'))?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || !name.bytes().all(is_host) {
            return None;
        }
        let Some(suffix) = suffix else { return Some(self.exact.entry(pattern).or_default()) };
        let place = self.wildcard.partition_point(|(other, _)| other.len() > suffix.len());
        let found = self.wildcard[place..].iter().position(|(other, _)| other == suffix);
        let index = found.map_or(place, |offset| place + offset);
        if found.is_none() {
            self.wildcard.insert(index, (suffix.to_owned(), TemplateTrie::new()));
        }
        Some(&mut self.wildcard[index].1)
    }

    /// The route for a request. `host` is in lower case and without its port, `path` normalised.
    pub fn find(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Option<&Found> {
        let exact = (!self.exact.is_empty()).then(|| self.exact.get(host)).flatten();
        let wildcard =
            self.wildcard.iter().filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix));
        exact
            .into_iter()
            .chain(wildcard.map(|(_, trie)| trie))
            .chain([&self.any])
            .flat_map(|trie| trie.matches(path))
            .find(|candidate| candidate.admits(method, headers))
            .map(|candidate| &candidate.found)
    }
}

impl Candidate {
    fn admits(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.headers.iter().all(|(name, value)| headers.get(name) == Some(value))
    }
}

fn file(trie: &mut TemplateTrie<Candidate>, templates: &[Template], candidate: &Candidate) {
    for template in templates {
        trie.insert(template, candidate.clone());
    }
}

fn compile_match(one: &Match, route: &Arc<Route>, key: &str) -> Result<(Vec<Template>, Candidate), Invalid> {
    let value = one.path.value.as_str();
    let (rank, templates) = match one.path.kind {
        PathMatchType::Exact => (PathRank::Exact, Template::exact(value).map(|one| vec![one])),
        PathMatchType::PathTemplate => (PathRank::Template, Template::parse(value).map(|one| vec![one])),
        PathMatchType::PathPrefix => (PathRank::Prefix, Template::prefix(value)),
    };
    let templates = templates.map_err(|problem| {
        Invalid::new(
            format!("{key}.path.value"),
            problem.to_string(),
            "a path such as /policies, or a template such as /policies/{id}",
        )
    })?;
    let method = one
        .method
        .as_deref()
        .map(|name| match Method::from_bytes(name.as_bytes()) {
            Ok(method) if !name.bytes().any(|byte| byte.is_ascii_lowercase()) => Ok(method),
            _ => Err(Invalid::new(
                format!("{key}.method"),
                format!("`{name}` is not a method"),
                "a method in capitals such as GET",
            )),
        })
        .transpose()?;
    let mut headers = Vec::with_capacity(one.headers.len());
    for (index, header) in one.headers.iter().enumerate() {
        let bad = |part: &str, value: &str| {
            Invalid::new(
                format!("{key}.headers[{index}].{part}"),
                format!("`{value}` cannot stand in a header"),
                "the name or value of a header",
            )
        };
        let name = HeaderName::try_from(&header.name).map_err(|_| bad("name", &header.name))?;
        let value = HeaderValue::try_from(&header.value).map_err(|_| bad("value", &header.value))?;
        headers.push((name, value));
    }
    let found = Found { route: Arc::clone(route), path: value.into() };
    let rank = (rank, method.is_none(), usize::MAX - headers.len());
    Ok((templates, Candidate { found, method, headers, rank }))
}
