//! The compiled routes.

use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderMap, Method};
use rustc_hash::FxHashMap;
use tollgate_paths::{Template, TemplateTrie};
use tollgate_runtime::config::Invalid;

use super::Route;
use super::matcher::{Header, Peer, PeerNames, QueryParam};
use crate::config::{Match, PathMatchType, RouteConfig};

/// All routes, by host and path.
#[derive(Debug, Default)]
pub struct Table {
    exact: FxHashMap<String, TemplateTrie<Candidate>>,
    /// By suffixes with their dot.
    wildcard: FxHashMap<String, TemplateTrie<Candidate>>,
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
    /// Empty: every listener.
    listeners: Arc<[String]>,
    method: Option<Method>,
    headers: Vec<Header>,
    query_params: Vec<QueryParam>,
    peer: Option<Peer>,
    /// Less is more specific; compared between candidates on one path.
    rank: (PathRank, bool, bool, Reverse<usize>, Reverse<usize>),
}

/// What of a request decides its route. No claims yet: nobody has verified them.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'r> {
    /// The listener that it came to.
    pub listener: &'r str,
    /// The host in lower case, without its port.
    pub host: &'r str,
    /// The normalised path.
    pub path: &'r str,
    /// The query, as it came.
    pub query: Option<&'r str>,
    /// The method.
    pub method: &'r Method,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// Who is at the other end, where a certificate says so.
    pub peer: PeerNames<'r>,
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
            let route = Arc::new(Route::compile(config, &format!("routes[{at}]"))?);
            let listeners: Arc<[String]> = config.listeners.as_slice().into();
            for (index, one) in config.matches.iter().enumerate() {
                let key = format!("routes[{at}].matches[{index}]");
                let (templates, mut candidate) = compile_match(one, &route, &key)?;
                candidate.listeners = Arc::clone(&listeners);
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
        Some(match suffix {
            Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_default(),
            None => self.exact.entry(pattern).or_default(),
        })
    }

    /// Whether a route names this host.
    pub fn names(&self, host: &str) -> bool {
        self.exact.contains_key(host)
            || host.match_indices('.').any(|(at, _)| at > 0 && self.wildcard.contains_key(&host[at..]))
    }

    /// The route for a request.
    pub fn find(&self, ask: &Ask<'_>) -> Option<&Found> {
        let host = ask.host;
        let exact = (!self.exact.is_empty()).then(|| self.exact.get(host)).flatten();
        // From the longest suffix to the shortest; a name that is nothing but a suffix is not below it.
        let dots = if self.wildcard.is_empty() { "" } else { host };
        let wildcard = dots.match_indices('.').filter(|(at, _)| *at > 0);
        let wildcard = wildcard.filter_map(|(at, _)| self.wildcard.get(&host[at..]));
        exact
            .into_iter()
            .chain(wildcard)
            .chain([&self.any])
            .flat_map(|trie| trie.matches(ask.path))
            .find(|candidate| candidate.admits(ask))
            .map(|candidate| &candidate.found)
    }
}

impl Candidate {
    fn admits(&self, ask: &Ask<'_>) -> bool {
        (self.listeners.is_empty() || self.listeners.iter().any(|name| name == ask.listener))
            && self.method.as_ref().is_none_or(|wanted| wanted == ask.method)
            && self.headers.iter().all(|header| header.is_in(ask.headers))
            && self.query_params.iter().all(|param| param.is_in(ask.query))
            && self.peer.as_ref().is_none_or(|peer| peer.is(ask.peer))
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
    let headers = Header::compile(&one.headers, key)?;
    let query_params = QueryParam::compile(&one.query_params, key)?;
    let peer = Peer::compile(one.peer.as_ref(), key)?;
    let found = Found { route: Arc::clone(route), path: value.into() };
    let rank = (rank, method.is_none(), peer.is_none(), Reverse(headers.len()), Reverse(query_params.len()));
    Ok((templates, Candidate { found, listeners: Arc::default(), method, headers, query_params, peer, rank }))
}
