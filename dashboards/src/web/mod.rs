//! The page: files built by `dashboards/ui`, embedded in the binary.
//!
//! Without a build the server still runs and says how to make one; `x-tollgate-ui: missing` lets CI see it.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use parking_lot::Mutex;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What the page's build left in `ui/dist`; empty when there was no build.
#[derive(RustEmbed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Dist;

const MISSING_PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tollgate</title>\
<p>This binary was built without the page. Build it, then build the binary again:</p>\
<pre>cd dashboards/ui &amp;&amp; npm ci &amp;&amp; npm run build</pre>\
<p>The API answers under <code>/api/v1</code>.</p></html>";

/// Packed files by the hash of their content; the page has a few dozen.
static PACKED: LazyLock<Mutex<HashMap<[u8; 32], Bytes>>> = LazyLock::new(Mutex::default);
/// More than a page has files. A debug build that sees many builds of the page starts over.
const MAX_PACKED: usize = 256;
/// What is smaller travels in one packet anyway.
const MIN_PACKED_BYTES: usize = 1024;

/// Answers every path that is not the API's: a file, or the page for a page's path.
pub(crate) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Dist::get(path).filter(|_| !path.is_empty() && path != "index.html") {
        // Names under `assets/` carry a hash of their content.
        let cache =
            if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
        return answer(file, cache, &headers);
    }
    // A missing file must not answer with the page: a browser would take HTML for a script.
    if path.rsplit('/').next().is_some_and(|last| last.contains('.')) && path != "index.html" {
        return StatusCode::NOT_FOUND.into_response();
    }
    match Dist::get("index.html") {
        Some(page) => answer(page, "no-cache", &headers),
        None => {
            let html =
                [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
            let mut response = (html, MISSING_PAGE).into_response();
            response.headers_mut().insert("x-tollgate-ui", HeaderValue::from_static("missing"));
            response
        }
    }
}

fn answer(file: EmbeddedFile, cache: &'static str, asked: &HeaderMap) -> Response {
    let mime = file.metadata.mimetype();
    let text =
        mime.starts_with("text/") || ["javascript", "json", "xml"].iter().any(|kind| mime.contains(kind));
    let mime =
        if text && !mime.contains("charset") { format!("{mime}; charset=utf-8") } else { mime.to_owned() };
    let headers = [
        (header::CONTENT_TYPE, mime),
        (header::CACHE_CONTROL, cache.to_owned()),
        (header::VARY, "accept-encoding".to_owned()),
    ];
    let accepts =
        asked.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
    if text && accepts && file.data.len() >= MIN_PACKED_BYTES {
        return (headers, [(header::CONTENT_ENCODING, "gzip")], packed(&file)).into_response();
    }
    (headers, file.data).into_response()
}

fn packed(file: &EmbeddedFile) -> Bytes {
    let key = file.metadata.sha256_hash();
    if let Some(packed) = PACKED.lock().get(&key) {
        return packed.clone();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(&file.data).and_then(|()| encoder.finish());
    let packed = Bytes::from(written.expect("writing to memory cannot fail"));
    let mut all = PACKED.lock();
    if all.len() >= MAX_PACKED {
        all.clear();
    }
    all.insert(key, packed.clone());
    packed
}
