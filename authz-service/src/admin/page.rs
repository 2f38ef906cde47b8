//! The OpenAPI document as JSON and as a page that people read: one file, no script, nothing from elsewhere.
//!
//! The page needs credentials like everything here. A browser has no bearer token to send, so for the page alone the
//! token may come as the password of HTTP Basic; nothing else takes it so, or another site's form could use what the
//! browser remembers.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::Admin;
use super::problem::ProblemBody;

const STYLE: &str = include_str!("page.css");

/// The API's description, made once.
#[derive(Debug)]
pub(super) struct Described {
    json: String,
    page: String,
    policy: HeaderValue,
}

impl Described {
    pub(super) fn of(document: OpenApi) -> Self {
        let value = serde_json::to_value(&document).expect("an OpenAPI document is JSON");
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy =
            format!("default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; base-uri 'none'");
        Self {
            json: value.to_string(),
            page: page(&value),
            policy: HeaderValue::try_from(policy).expect("base64 can stand in a header"),
        }
    }
}

/// Whether the service answers.
#[utoipa::path(get, path = "/healthz", tag = "service", security(()), responses((status = 200, body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "service",
    responses((status = 200, body = Object), (status = "default", body = ProblemBody)))]
pub(super) async fn openapi_json(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], admin.described.json.clone()).into_response()
}

/// This document, for people. A browser may give the token as the password of HTTP Basic.
#[utoipa::path(get, path = "/docs", tag = "service",
    responses((status = 200, body = String, content_type = "text/html"), (status = "default", body = ProblemBody)))]
pub(super) async fn docs(State(admin): State<Admin>) -> Response {
    let mut response = Html(admin.described.page.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, admin.described.policy.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn page(document: &Value) -> String {
    let mut html = String::with_capacity(64 * 1024);
    write_page(&mut html, document).expect("a String takes everything");
    html
}

fn write_page(html: &mut String, document: &Value) -> std::fmt::Result {
    let title = escape(text(&document["info"]["title"]));
    write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\
         <a class=\"skip\" href=\"#main\">To the operations</a><nav aria-label=\"Operations\"><p class=\"logo\">Tollgate</p>"
    )?;
    let tags: Vec<&Value> = document["tags"].as_array().into_iter().flatten().collect();
    for tag in &tags {
        let name = text(&tag["name"]);
        write!(html, "<h2>{}</h2><ul>", escape(name))?;
        for (path, method, _) in operations(document, name) {
            let anchor = anchor(method, path);
            write!(html, "<li><a href=\"#{anchor}\"><b>{method}</b> {}</a></li>", escape(path))?;
        }
        html.push_str("</ul>");
    }
    write!(html, "<h2><a href=\"#schemas\">schemas</a></h2></nav><main id=\"main\"><h1>{title}</h1>")?;
    write!(html, "<p class=\"lead\">{}</p>", prose(text(&document["info"]["description"])))?;
    for tag in &tags {
        let name = text(&tag["name"]);
        write!(html, "<section><h2>{}</h2><p>{}</p>", escape(name), prose(text(&tag["description"])))?;
        for (path, method, operation) in operations(document, name) {
            write_operation(html, path, method, operation)?;
        }
        html.push_str("</section>");
    }
    html.push_str("<section id=\"schemas\"><h2>schemas</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        write_schema(html, name, schema)?;
    }
    html.push_str("</section></main></body></html>\n");
    Ok(())
}

const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

fn operations<'d>(
    document: &'d Value,
    tag: &'d str,
) -> impl Iterator<Item = (&'d str, &'static str, &'d Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(move |(path, item)| {
        METHODS.into_iter().filter_map(move |method| {
            let operation = item.get(method)?;
            let tagged = operation["tags"].as_array().into_iter().flatten().any(|one| one == tag);
            tagged.then(|| (path.as_str(), upper(method), operation))
        })
    })
}

fn upper(method: &str) -> &'static str {
    match method {
        "get" => "GET",
        "post" => "POST",
        "put" => "PUT",
        "delete" => "DELETE",
        _ => "PATCH",
    }
}

fn write_operation(
    html: &mut String,
    path: &str,
    method: &'static str,
    operation: &Value,
) -> std::fmt::Result {
    let id = anchor(method, path);
    write!(html, "<article id=\"{id}\"><h3><b>{method}</b> <code>{}</code></h3>", escape(path))?;
    write!(html, "<p>{}</p>", prose(text(&operation["summary"])))?;
    if let Some(more) = operation["description"].as_str() {
        write!(html, "<p>{}</p>", prose(more))?;
    }
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        html.push_str("<table><caption>Parameters</caption><tbody>");
        for parameter in parameters {
            write!(
                html,
                "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(text(&parameter["name"])),
                escape(text(&parameter["in"])),
                kind(&parameter["schema"]),
                prose(text(&parameter["description"])),
            )?;
        }
        html.push_str("</tbody></table>");
    }
    if let Some(content) = operation["requestBody"]["content"].as_object() {
        for (media, body) in content {
            write!(html, "<p>Body: {} as <code>{}</code></p>", kind(&body["schema"]), escape(media))?;
        }
    }
    html.push_str("<table><caption>Answers</caption><tbody>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let bodies = response["content"].as_object().into_iter().flatten();
        let bodies: Vec<String> = bodies
            .map(|(media, body)| format!("{} as <code>{}</code>", kind(&body["schema"]), escape(media)))
            .collect();
        write!(
            html,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td></tr>",
            escape(status),
            bodies.join(", ")
        )?;
    }
    html.push_str("</tbody></table></article>");
    Ok(())
}

fn write_schema(html: &mut String, name: &str, schema: &Value) -> std::fmt::Result {
    write!(html, "<article id=\"schema-{0}\"><h3><code>{0}</code></h3>", escape(name))?;
    write!(html, "<p>{}</p>", prose(text(&schema["description"])))?;
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(properties) = schema["properties"].as_object() {
        html.push_str("<table><tbody>");
        for (key, property) in properties {
            write!(
                html,
                "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(key),
                kind(property),
                if required.contains(&key.as_str()) { "required" } else { "" },
                prose(text(&property["description"])),
            )?;
        }
        html.push_str("</tbody></table>");
    } else {
        write!(html, "<p>{}</p>", kind(schema))?;
    }
    html.push_str("</article>");
    Ok(())
}

/// What a schema is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escape(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#schema-{name}\"><code>{name}</code></a>");
    }
    for (key, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        if let Some(parts) = schema[key].as_array() {
            let parts: Vec<String> = parts.iter().filter(|part| part["type"] != "null").map(kind).collect();
            return parts.join(between);
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> =
            values.iter().map(|v| format!("<code>{}</code>", escape(text(v)))).collect();
        return values.join(", ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<&str> =
                names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
            names.join(" or ")
        }
        _ => "anything".to_owned(),
    };
    if name == "array" {
        return format!("list of {}", kind(&schema["items"]));
    }
    match schema["format"].as_str() {
        Some(format) => format!("{} ({})", escape(&name), escape(format)),
        None => escape(&name),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn anchor(method: &str, path: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("{}{}", method.to_lowercase(), path.chars().map(plain).collect::<String>())
}

/// Escaped, with what stands in backticks as code.
fn prose(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 16);
    for (index, part) in text.split('`').enumerate() {
        let part = escape(part);
        if index % 2 == 1 {
            html.push_str("<code>");
            html.push_str(&part);
            html.push_str("</code>");
        } else {
            html.push_str(&part);
        }
    }
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_operation_and_every_link_leads_somewhere() {
        let described = Described::of(crate::admin::openapi());
        let document: Value = serde_json::from_str(&described.json).unwrap();
        let mut count = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let id = format!("<article id=\"{}\">", anchor(method, path));
                assert_eq!(described.page.matches(&id).count(), 1, "{method} {path}");
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
        for link in described.page.split("href=\"#").skip(1) {
            let target = link.split('"').next().unwrap();
            assert!(described.page.contains(&format!("id=\"{target}\"")), "#{target} leads nowhere");
        }
        for outside in ["http://", "https://", "<script", "style=\""] {
            assert!(!described.page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_comes_from_the_document_is_text() {
        assert_eq!(prose("a `<b>` & c"), "a <code>&lt;b&gt;</code> &amp; c");
        assert_eq!(escape("\"x\""), "&quot;x&quot;");
    }
}
