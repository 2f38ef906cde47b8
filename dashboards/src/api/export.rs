//! Rows as CSV or as one JSON document a line, for spreadsheets and scripts.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};

use super::types::RequestRow;

/// What a search answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Page,
    Csv,
    Ndjson,
}

impl Format {
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if accept.contains("text/csv") {
            Self::Csv
        } else if accept.contains("application/x-ndjson") {
            Self::Ndjson
        } else {
            Self::Page
        }
    }
}

pub(super) fn ndjson(rows: &[RequestRow]) -> Response {
    let mut body = String::new();
    for row in rows {
        body.push_str(&serde_json::to_string(row).expect("a row has a JSON form"));
        body.push('\n');
    }
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

pub(super) fn csv(rows: &[RequestRow]) -> Response {
    let mut body = String::from(
        "time,outcome,method,path,caller,dest,reason,duration_ms,status,source,route,reporter,version,subject,id,trace_id\n",
    );
    for row in rows {
        let outcome = serde_json::to_value(row.outcome).ok();
        let duration = row.duration_ms.map(|ms| ms.to_string()).unwrap_or_default();
        let status = row.status.to_string();
        let fields = [
            row.time.as_str(),
            outcome.as_ref().and_then(|o| o.as_str()).unwrap_or_default(),
            &row.method,
            &row.path,
            &row.caller,
            &row.dest,
            &row.reason,
            &duration,
            &status,
            &row.source,
            &row.route,
            &row.reporter,
            &row.version,
            &row.subject,
            &row.id,
            &row.trace_id,
        ];
        body.push_str(&fields.map(field).join(","));
        body.push('\n');
    }
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"requests.csv\""),
    ];
    (headers, body).into_response()
}

fn field(text: &str) -> String {
    // A spreadsheet would run what begins so as a formula, and callers choose their paths.
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_never_formulas() {
        assert_eq!(field("plain"), "plain");
        assert_eq!(field("a,b"), "\"a,b\"");
        assert_eq!(field("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(field("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
    }
}
