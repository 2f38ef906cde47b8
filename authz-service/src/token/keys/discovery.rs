//! Where keys may be fetched from, and OpenID Connect Discovery: from an issuer to the address of its keys. Pure.

use serde_json::Value;
use url::Url;

use super::super::json;

/// Keys travel over TLS, or not at all further than this machine.
pub fn key_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    let on_this_machine = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && on_this_machine) {
        return Err("keys are fetched over https, or over http from this machine only".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user or password does not belong into this URL".to_owned());
    }
    Ok(url)
}

/// The address of an issuer's discovery document (OpenID Connect Discovery 1.0 §4).
pub fn document_of(issuer: &str) -> Result<Url, String> {
    let url = key_url(issuer)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an issuer with a query or fragment has no discovery document".to_owned());
    }
    key_url(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
}

/// Where the keys are, as the document of `issuer` says. A document that speaks for another issuer is refused (§4.3).
pub(super) fn keys_address(document: &[u8], issuer: &str) -> Result<Url, String> {
    let members = json::parse_object(document).map_err(|error| format!("no discovery document: {error}"))?;
    let text = |name: &str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| format!("the discovery document has no {name}"))
    };
    if text("issuer")? != issuer {
        return Err(format!("the discovery document is of another issuer: {}", shown(text("issuer")?)));
    }
    key_url(text("jwks_uri")?).map_err(|problem| format!("jwks_uri of the discovery document: {problem}"))
}

/// What a stranger wrote, short enough for a log line.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_stands_below_the_issuer() {
        for (issuer, document) in [
            ("https://idp.example", Some("https://idp.example/.well-known/openid-configuration")),
            ("https://idp.example/", Some("https://idp.example/.well-known/openid-configuration")),
            ("https://idp/realms/a", Some("https://idp/realms/a/.well-known/openid-configuration")),
            ("http://127.0.0.1:80/x", Some("http://127.0.0.1/x/.well-known/openid-configuration")),
            ("http://idp.example", None),
            ("https://idp.example?x=1", None),
            ("https://user@idp.example", None),
            ("demo", None),
        ] {
            assert_eq!(document_of(issuer).ok().as_ref().map(Url::as_str), document, "{issuer}");
        }
    }

    #[test]
    fn a_document_speaks_for_its_own_issuer_only() {
        let issuer = "https://idp.example";
        let check = |document: &str, expected: Result<&str, &str>| {
            let found = keys_address(document.as_bytes(), issuer);
            match expected {
                Ok(url) => assert_eq!(found.unwrap().as_str(), url),
                Err(needle) => assert!(found.as_ref().is_err_and(|e| e.contains(needle)), "{found:?}"),
            }
        };
        check(
            r#"{"issuer": "https://idp.example", "jwks_uri": "https://keys.example/x"}"#,
            Ok("https://keys.example/x"),
        );
        check(r#"{"issuer": "https://idp.example/", "jwks_uri": "https://k/x"}"#, Err("another issuer"));
        check(r#"{"issuer": "https://idp.example"}"#, Err("no jwks_uri"));
        check(r#"{"jwks_uri": "https://k/x"}"#, Err("no issuer"));
        check(r#"{"issuer": "https://idp.example", "jwks_uri": "http://k/x"}"#, Err("https"));
        check(r#"{"issuer": "https://idp.example", "jwks_uri": "file:///etc/passwd"}"#, Err("https"));
        check(r#"{"issuer":"https://idp.example","issuer":"x","jwks_uri":"https://k"}"#, Err("twice"));
        check("<html>", Err("no discovery document"));
    }
}
