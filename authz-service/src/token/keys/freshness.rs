//! For how long a fetched key set is fresh, as its issuer says and within what we allow. Pure.

use std::time::Duration;

/// How long a set may be used before it is fetched again: by default, at least, and at most.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// Where the issuer says nothing.
    pub default: Duration,
    /// However short the issuer says.
    pub floor: Duration,
    /// However long the issuer says.
    pub ceiling: Duration,
}

impl Freshness {
    /// For how long an answer with these headers is fresh (RFC 9111 §4.2). `age` is how long caches held it before.
    pub fn lasts(&self, cache_control: Option<&str>, age: Option<&str>) -> Duration {
        let Some(directives) = cache_control else { return self.default };
        let mut said = None;
        for directive in directives.split(',') {
            let (name, value) = directive.trim().split_once('=').unwrap_or((directive.trim(), ""));
            if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
                return self.floor;
            }
            if name.eq_ignore_ascii_case("max-age") {
                said = value.trim_matches('"').parse().ok().map(Duration::from_secs);
            }
        }
        let Some(said) = said else { return self.default };
        let age = age.and_then(|age| age.trim().parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
        said.saturating_sub(age).clamp(self.floor, self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_decides_between_floor_and_ceiling() {
        let freshness = Freshness {
            default: Duration::from_secs(300),
            floor: Duration::from_secs(60),
            ceiling: Duration::from_secs(3600),
        };
        for (cache_control, age, seconds) in [
            (None, None, 300),
            (Some(""), None, 300),
            (Some("public"), None, 300),
            (Some("max-age=600"), None, 600),
            (Some("public, Max-Age=\"600\", must-revalidate"), None, 600),
            (Some("max-age=600"), Some("100"), 500),
            (Some("max-age=600"), Some("x"), 600),
            (Some("max-age=1"), None, 60),
            (Some("max-age=600"), Some("599"), 60),
            (Some("max-age=99999999999999999999"), None, 300),
            (Some("max-age=999999"), None, 3600),
            (Some("max-age=-1"), None, 300),
            (Some("max-age=600, no-store"), None, 60),
            (Some("no-cache"), None, 60),
            (Some("s-maxage=5"), None, 300),
        ] {
            let lasts = freshness.lasts(cache_control, age);
            assert_eq!(lasts.as_secs(), seconds, "{cache_control:?} {age:?}");
        }
    }
}
