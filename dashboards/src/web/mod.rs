//! The page: files built by `dashboards/ui`, embedded in the binary.
//!
//! Without a build the server still runs and says how to make one; `x-tollgate-ui: missing` lets CI see it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use rust_embed::RustEmbed;

/// What the page's build left in `ui/dist`; empty when there was no build.
#[derive(RustEmbed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Dist;

const MISSING_PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tollgate</title>\
<p>This binary was built without the page. Build it, then build the binary again:</p>\
<pre>cd dashboards/ui &amp;&amp; npm ci &amp;&amp; npm run build</pre>\
<p>The API answers under <code>/api/v1</code>.</p></html>";

/// Answers every path that is not the API's: a file, or the page for a page's path.
pub(crate) async fn serve(method: Method, uri: Uri) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Dist::get(path).filter(|_| !path.is_empty() && path != "index.html") {
        let mime = file.metadata.mimetype().to_owned();
        // Names under `assets/` carry a hash of their content.
        let cache =
            if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
        return ([(header::CONTENT_TYPE, mime), (header::CACHE_CONTROL, cache.to_owned())], file.data)
            .into_response();
    }
    // A missing file must not answer with the page: a browser would take HTML for a script.
    if path.rsplit('/').next().is_some_and(|last| last.contains('.')) && path != "index.html" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    match Dist::get("index.html") {
        Some(page) => (html, page.data).into_response(),
        None => {
            let mut response = (html, MISSING_PAGE).into_response();
            response.headers_mut().insert("x-tollgate-ui", HeaderValue::from_static("missing"));
            response
        }
    }
}
