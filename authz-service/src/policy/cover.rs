//! Whether one permission allows at least what another allows. Pure.
//!
//! The answer errs on one side: "yes" is always true, "no" may only mean that it takes more than a look at the text.
//! So it may decide whom to let grant, and it may call a rule shadowed, but it must not call two rules equal.

use std::borrow::Cow;

use super::spec::{GrpcSpec, PermissionSpec};

/// Whether whoever has `wide` may do all that `narrow` allows.
pub fn covers(wide: &PermissionSpec, narrow: &PermissionSpec) -> bool {
    let (wide_requests, narrow_requests) = (requests(wide), requests(narrow));
    (wide.service == "*" || wide.service == narrow.service)
        && !wide.dry_run
        && (wide.when.is_none() || wide.when == narrow.when)
        && requests_cover(&wide_requests, &narrow_requests)
        && (wide.hosts.is_empty() || !narrow.hosts.is_empty() && subset_of_hosts(&narrow.hosts, &wide.hosts))
        && subset(&wide.scopes.all, &narrow.scopes.all)
        && any_scope_covers(wide, narrow)
}

/// Whether there may be a request that both speak of. Here "no" is always true.
pub fn may_meet(one: &PermissionSpec, other: &PermissionSpec) -> bool {
    (one.service == "*" || other.service == "*" || one.service == other.service)
        && requests_meet(&requests(one), &requests(other))
}

fn paths_may_meet(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            // The rest is one segment at least.
            (None, None) | (Some(REST), Some(_)) | (Some(_), Some(REST)) => return true,
            (None, _) | (_, None) => return false,
            (Some(one), Some(other)) => {
                let open = one.starts_with('{') || other.starts_with('{');
                // A service may read paths without regard to case.
                if !open && !one.eq_ignore_ascii_case(other) {
                    return false;
                }
            }
        }
    }
}

fn requests(permission: &PermissionSpec) -> Requests<'_> {
    requests_of(&permission.methods, &permission.paths, permission.grpc.as_ref())
}

/// Methods, and paths.
pub(super) type Requests<'p> = (Cow<'p, [String]>, Cow<'p, [String]>);

/// Methods and paths, of gRPC too.
pub(super) fn requests_of<'p>(
    methods: &'p [String],
    paths: &'p [String],
    grpc: Option<&GrpcSpec>,
) -> Requests<'p> {
    match grpc {
        None => (Cow::Borrowed(methods), Cow::Borrowed(paths)),
        Some(grpc) if grpc.methods.is_empty() => {
            (Cow::Owned(vec!["POST".to_owned()]), Cow::Owned(vec![format!("/{}/{{*}}", grpc.service)]))
        }
        Some(grpc) => {
            let paths = grpc.methods.iter().map(|method| format!("/{}/{method}", grpc.service));
            (Cow::Owned(vec!["POST".to_owned()]), Cow::Owned(paths.collect()))
        }
    }
}

/// Whether some request fits both; "no" is always true.
pub(super) fn requests_meet(one: &Requests<'_>, other: &Requests<'_>) -> bool {
    (any(&one.0) || any(&other.0) || one.0.iter().any(|method| other.0.contains(method)))
        && one.1.iter().any(|path| other.1.iter().any(|other| paths_may_meet(path, other)))
}

/// Whether whatever fits `narrow` fits `wide` too; "yes" is always true.
pub(super) fn requests_cover(wide: &Requests<'_>, narrow: &Requests<'_>) -> bool {
    (any(&wide.0) || !any(&narrow.0) && subset(&narrow.0, &wide.0))
        && narrow.1.iter().all(|path| wide.1.iter().any(|wide| path_covers(wide, path)))
}

fn any(methods: &[String]) -> bool {
    methods.iter().any(|method| method == "*")
}

fn subset(part: &[String], whole: &[String]) -> bool {
    part.iter().all(|one| whole.contains(one))
}

fn subset_of_hosts(part: &[String], whole: &[String]) -> bool {
    part.iter().all(|host| whole.iter().any(|other| other.eq_ignore_ascii_case(host)))
}

/// Whether one of the scopes that `wide` wants is there whenever `narrow` has what it wants.
fn any_scope_covers(wide: &PermissionSpec, narrow: &PermissionSpec) -> bool {
    let wanted = &wide.scopes.any;
    wanted.is_empty()
        || narrow.scopes.all.iter().any(|scope| wanted.contains(scope))
        || !narrow.scopes.any.is_empty() && subset(&narrow.scopes.any, wanted)
}

/// Whether the template `wide` matches every path that `narrow` matches.
pub fn path_covers(wide: &str, narrow: &str) -> bool {
    let (Some(wide), Some(narrow)) = (wide.strip_prefix('/'), narrow.strip_prefix('/')) else { return false };
    let wide: Vec<&str> = wide.split('/').collect();
    let narrow: Vec<&str> = narrow.split('/').collect();
    segments_cover(&wide, &narrow)
}

const REST: &str = "{**}";

fn segments_cover(wide: &[&str], narrow: &[&str]) -> bool {
    match (wide, narrow) {
        ([], []) => true,
        ([REST, tail @ ..], _) => narrow.len() > tail.len() && narrow.ends_with(tail),
        ([first, wide @ ..], [other, narrow @ ..]) => {
            segment_covers(first, other) && segments_cover(wide, narrow)
        }
        _ => false,
    }
}

fn segment_covers(wide: &str, narrow: &str) -> bool {
    let braced = |segment: &str| segment.starts_with('{');
    match (braced(wide), braced(narrow)) {
        (false, false) => wide == narrow,
        (false, true) => false,
        (true, false) => !narrow.is_empty(),
        // What may hold an escaped slash matches more than what may not.
        (true, true) => narrow != REST && (is_encoded(wide) || !is_encoded(narrow)),
    }
}

fn is_encoded(segment: &str) -> bool {
    segment.ends_with(":encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_cover_templates() {
        for (wide, narrow, expected) in [
            ("/{**}", "/", true),
            ("/{**}", "/a/b/{id}", true),
            ("/{**}", "/a/{**}", true),
            ("/a/{**}", "/a", false),
            ("/a/{**}", "/a/b", true),
            ("/a/{**}", "/a/{id}/c", true),
            ("/a/{**}", "/b/c", false),
            ("/a/{**}", "/{**}", false),
            ("/a/{id}", "/a/{**}", false),
            ("/a/{id}", "/a/{other}", true),
            ("/a/{*}", "/a/1", true),
            ("/a/{id}", "/a/", false),
            ("/a/{id}", "/a/{id}/b", false),
            ("/a/1", "/a/{id}", false),
            ("/a/{id:encoded}", "/a/{id}", true),
            ("/a/{id}", "/a/{id:encoded}", false),
            ("/{**}/x", "/a/b/x", true),
            ("/{**}/x", "/a/b/y", false),
            ("/{**}/x", "/x", false),
        ] {
            assert_eq!(path_covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn templates_that_never_meet() {
        for (one, other, expected) in [
            ("/a", "/b", false),
            ("/a", "/A", true),
            ("/a/{id}", "/a/b", true),
            ("/a/{id}", "/a/b/c", false),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/b/{**}", false),
            ("/{**}/x", "/a", true),
            ("/a/{**}", "/a", false),
            ("/a/{**}", "/a/", true),
        ] {
            assert_eq!(paths_may_meet(one, other), expected, "{one} {other}");
            assert_eq!(paths_may_meet(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn what_a_cover_says_is_true_of_paths() {
        let templates =
            ["/{**}", "/a", "/a/", "/a/{id}", "/a/{**}", "/a/b", "/{x}/b", "/{**}/b", "/a/{x}/{y}"];
        let paths = ["/", "/a", "/a/", "/b", "/a/b", "/a/c", "/c/b", "/a/b/c", "/a/b/b", "/a//b"];
        for wide in templates {
            for narrow in templates {
                let matches = |template: &str, path: &str| {
                    tollgate_paths::Template::parse(template).unwrap().matches(path)
                };
                let really = paths.iter().all(|path| !matches(narrow, path) || matches(wide, path));
                assert!(!path_covers(wide, narrow) || really, "{wide} {narrow}");
            }
        }
    }

    #[test]
    fn permissions_cover_permissions() {
        let permission = |json: serde_json::Value| serde_json::from_value::<PermissionSpec>(json).unwrap();
        let with = |changes: serde_json::Value| {
            let mut base =
                serde_json::json!({"name": "p", "service": "s", "methods": ["GET"], "paths": ["/a/{id}"]});
            for (key, value) in changes.as_object().unwrap() {
                base[key] = value.clone();
            }
            permission(base)
        };
        let base = with(serde_json::json!({}));
        for (wide, narrow, expected) in [
            (serde_json::json!({}), serde_json::json!({}), true),
            (serde_json::json!({"service": "*"}), serde_json::json!({}), true),
            (serde_json::json!({}), serde_json::json!({"service": "*"}), false),
            (serde_json::json!({"methods": ["*"]}), serde_json::json!({"methods": ["PUT"]}), true),
            (serde_json::json!({}), serde_json::json!({"methods": ["*"]}), false),
            (serde_json::json!({}), serde_json::json!({"methods": ["GET", "PUT"]}), false),
            (serde_json::json!({"paths": ["/{**}"]}), serde_json::json!({}), true),
            (serde_json::json!({}), serde_json::json!({"paths": ["/a/{id}", "/b"]}), false),
            (serde_json::json!({"dry_run": true}), serde_json::json!({}), false),
            (serde_json::json!({"when": {"claim": "a", "equals": 1}}), serde_json::json!({}), false),
            (serde_json::json!({}), serde_json::json!({"when": {"claim": "a", "equals": 1}}), true),
            (
                serde_json::json!({"methods": ["POST"], "paths": ["/p.S/{m}"]}),
                serde_json::json!({"methods": [], "paths": [], "grpc": {"service": "p.S", "methods": ["Get"]}}),
                true,
            ),
            (
                serde_json::json!({"methods": [], "paths": [], "grpc": {"service": "p.S", "methods": ["Get"]}}),
                serde_json::json!({"methods": [], "paths": [], "grpc": {"service": "p.S"}}),
                false,
            ),
            (serde_json::json!({}), serde_json::json!({"hosts": ["h"]}), true),
            (serde_json::json!({"hosts": ["h"]}), serde_json::json!({}), false),
            (serde_json::json!({"hosts": ["H", "i"]}), serde_json::json!({"hosts": ["h"]}), true),
            (serde_json::json!({}), serde_json::json!({"scopes": {"all": ["x"]}}), true),
            (serde_json::json!({"scopes": {"all": ["x"]}}), serde_json::json!({}), false),
            (
                serde_json::json!({"scopes": {"any": ["x", "y"]}}),
                serde_json::json!({"scopes": {"all": ["x"]}}),
                true,
            ),
            (
                serde_json::json!({"scopes": {"any": ["x", "y"]}}),
                serde_json::json!({"scopes": {"any": ["x"]}}),
                true,
            ),
            (
                serde_json::json!({"scopes": {"any": ["x"]}}),
                serde_json::json!({"scopes": {"any": ["x", "y"]}}),
                false,
            ),
        ] {
            assert_eq!(covers(&with(wide.clone()), &with(narrow.clone())), expected, "{wide} {narrow}");
        }
        assert!(covers(&base, &base));
    }
}
