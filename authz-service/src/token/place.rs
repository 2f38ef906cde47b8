//! Where a token may stand in a request.

use super::Refusal;
use super::check::Check;
use super::claim_header::http_name;
use super::claim_parameter::parameter_name;
use crate::policy::spec::TokenPlaceSpec;

/// One place where an issuer's token may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer …`
    Bearer,
    /// Another header whose whole value is the token. In lower case.
    Header(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
    /// A query parameter.
    Query(Box<str>),
}

impl TokenPlace {
    /// The place of RFC 6750, used where an issuer names none.
    pub const fn bearer() -> Self {
        Self::Bearer
    }

    /// Checks what was written.
    pub(super) fn from_spec(spec: &TokenPlaceSpec) -> Result<Self, String> {
        match spec {
            TokenPlaceSpec::Header(name) if http_name(name).is_none() => {
                Err(format!("`{name}` is no name of a header"))
            }
            TokenPlaceSpec::Header(name) if name.eq_ignore_ascii_case("cookie") => {
                Err("for a cookie, write {cookie: its name}".to_owned())
            }
            TokenPlaceSpec::Header(name) if name.eq_ignore_ascii_case("authorization") => Ok(Self::Bearer),
            TokenPlaceSpec::Header(name) => Ok(Self::Header(name.to_ascii_lowercase().into())),
            TokenPlaceSpec::Cookie(name) => http_name(name)
                .map(|name| Self::Cookie(name.into()))
                .ok_or_else(|| format!("`{name}` is no name of a cookie")),
            TokenPlaceSpec::Query(name) => parameter_name(name)
                .map(|name| Self::Query(name.into()))
                .ok_or_else(|| format!("`{name}` is no name of a query parameter")),
        }
    }
}

/// A token and where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// The token.
    pub token: &'a str,
    /// Where it stood.
    pub place: &'a TokenPlace,
}

/// Looks for a token in all `places`. Two tokens, even equal ones, are an error: an upstream might take the other.
pub fn find<'a>(
    places: &'a [TokenPlace],
    target: &'a str,
    header: impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<Found<'a>>, Refusal> {
    let mut found: Option<Found<'a>> = None;
    for place in places {
        let mut take = |token: &'a str| match found.replace(Found { token, place }) {
            Some(_) => Err(Refusal::new(Check::OnePlace, "tokens stand in two places")),
            None => Ok(()),
        };
        match place {
            TokenPlace::Bearer => bearer(header("authorization"), &mut take)?,
            TokenPlace::Header(name) => header(name).map_or(Ok(()), &mut take)?,
            TokenPlace::Cookie(name) => {
                let pairs = header("cookie").into_iter().flat_map(|cookies| cookies.split([';', ',']));
                for token in
                    pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(key, _)| *key == &**name)
                {
                    take(token.1)?;
                }
            }
            TokenPlace::Query(name) => {
                let query = target.split_once('?').map_or("", |(_, query)| query);
                let names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
                // Upstreams decode names; what we would overlook is no way to say a token.
                if names.into_iter().any(|written| is_escaped(written, name)) {
                    return Err(Refusal::new(
                        Check::OnePlace,
                        "the token's parameter is written with escapes",
                    ));
                }
                for token in
                    query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(k, _)| *k == &**name)
                {
                    take(token.1)?;
                }
            }
        }
    }
    Ok(found)
}

/// Whether `written` is another spelling of `name`.
fn is_escaped(written: &str, name: &str) -> bool {
    written.contains('%') && percent_encoding::percent_decode_str(written).eq(name.bytes())
}

/// Envoy joins a repeated header with commas, which stand in no JWT.
fn bearer<'a>(
    value: Option<&'a str>,
    take: &mut impl FnMut(&'a str) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for credentials in value.into_iter().flat_map(|value| value.split(',')) {
        let Some((scheme, token)) = credentials.trim().split_once([' ', '\t']) else { continue };
        if scheme.eq_ignore_ascii_case("bearer") {
            take(token.trim())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tollgate_proto::Reason;

    use super::*;

    #[test]
    fn one_token_is_found_and_two_are_refused() {
        let places = [
            TokenPlace::Bearer,
            TokenPlace::Header("x-token".into()),
            TokenPlace::Cookie("session".into()),
            TokenPlace::Query("access_token".into()),
        ];
        let check = |target: &str, headers: &[(&str, &str)], expected: Result<Option<&str>, Reason>| {
            let header = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            let found = find(&places, target, header);
            let found = found.map(|found| found.map(|found| found.token)).map_err(|refusal| refusal.reason);
            assert_eq!(found, expected, "{target} {headers:?}");
        };
        check("/", &[], Ok(None));
        check("/", &[("authorization", "Basic abc")], Ok(None));
        check("/", &[("authorization", "bearer  a.b.c")], Ok(Some("a.b.c")));
        check("/", &[("authorization", "Basic abc, Bearer a.b.c")], Ok(Some("a.b.c")));
        check("/", &[("authorization", "Bearer a,Bearer a")], Err(Reason::TokenAmbiguous));
        check("/", &[("cookie", "a=b; session=t")], Ok(Some("t")));
        check("/", &[("cookie", "a=b,session=t")], Ok(Some("t")));
        check("/", &[("authorization", "Bearer\ta.b.c")], Ok(Some("a.b.c")));
        check("/?%61ccess_token=t", &[], Err(Reason::TokenAmbiguous));
        check("/?access%5Ftoken=t", &[], Err(Reason::TokenAmbiguous));
        check("/", &[("cookie", "session=t; session=u")], Err(Reason::TokenAmbiguous));
        check("/?x=1&access_token=t", &[], Ok(Some("t")));
        check("/?access_token=t", &[("authorization", "Bearer a")], Err(Reason::TokenAmbiguous));
        check("/", &[("x-token", "t"), ("cookie", "session=t")], Err(Reason::TokenAmbiguous));
    }
}
