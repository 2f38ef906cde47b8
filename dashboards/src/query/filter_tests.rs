//! Tables for the filter language.

use std::borrow::Cow;

use super::*;
use crate::record::{Row, Value};
use crate::store::{Block, BlockBuilder};

fn block() -> Block {
    let rows = [
        (200, "GET", "/policies/POL-1", "reader", 1_200, "ok", "-"),
        (403, "POST", "/policies", "reader", 800, "scope_missing", "UAEX"),
        (429, "POST", "/quotes", "adjuster", 300, "limit_exceeded", "RL,X"),
        (502, "GET", "/quotes", "Adjuster", 250_000, "upstream_status", ""),
    ];
    let mut builder = BlockBuilder::default();
    for (status, method, path, caller, us, reason, flags) in rows {
        builder.push(&Row::of(
            1,
            vec![
                (a::HTTP_RESPONSE_STATUS_CODE, Value::Int(status)),
                (a::HTTP_REQUEST_METHOD, Value::Text(method.into())),
                (a::URL_PATH, Value::Text(path.into())),
                (names::CALLER, Value::Text(caller.into())),
                (a::TOLLGATE_DURATION_US, Value::Int(us)),
                (a::TOLLGATE_REASON, Value::Text(reason.into())),
                (a::TOLLGATE_RESPONSE_FLAGS, Value::Text(flags.into())),
                ("tollgate.token.scopes", Value::Json(r#"["a:read","b:write"]"#.into())),
            ],
        ));
    }
    builder.finish()
}

fn check(filter: &str, expected: &[usize]) {
    let block = block();
    let mut selected = vec![true; block.rows];
    let filter = Filter::parse(filter).unwrap();
    filter.narrow(&mut selected, |name| block.columns.get(name).map(Cow::Borrowed));
    let taken: Vec<usize> = (0..block.rows).filter(|row| selected[*row]).collect();
    assert_eq!(taken, expected, "{filter:?}");
    // What pruning says must never be stricter than what the scan says.
    let may = filter.may_match(&Zone::of(&block), &Bloom::of(&block));
    assert!(may || expected.is_empty(), "{filter:?} was pruned");
}

#[test]
fn filters_take_what_they_say() {
    check("", &[0, 1, 2, 3]);
    check("status:403", &[1]);
    check("status:>=400", &[1, 2, 3]);
    check("status:4xx", &[1, 2]);
    check("status:4xx,502", &[1, 2, 3]);
    check("-status:4xx", &[0, 3]);
    check("status:>=400 method:POST", &[1, 2]);
    check("method:GET,POST", &[0, 1, 2, 3]);
    check("caller:reader", &[0, 1]);
    check("dur:>200ms", &[3]);
    check("dur:>=1", &[0, 3]);
    check("dur:<=800us", &[1, 2]);
    check("path:/policies*", &[0, 1]);
    check("-path:/policies", &[0, 2, 3]);
    check("flag:RL", &[2]);
    check("reason:scope_missing,limit_exceeded", &[1, 2]);
    check("adjuster", &[2, 3]);
    check("\"POL-1\"", &[0]);
    check("-pol", &[2, 3]);
    check("http.request.method:GET", &[0, 3]);
    check("tollgate.token.scopes:b:write", &[0, 1, 2, 3]);
    check("caller:\"reader\",adjuster", &[0, 1, 2]);
    check("caller:\"read,er\"", &[]);
    check("path:\"/policies*\"", &[]);
    check("https://issuer.test", &[]);
    check("nothing.like.it:x", &[]);
    check("-nothing.like.it:x", &[0, 1, 2, 3]);
}

fn check_error(filter: &str, expected: &str) {
    let error = Filter::parse(filter).unwrap_err().to_string();
    assert_eq!(error, expected);
}

#[test]
fn errors_name_the_term() {
    check_error("status:200 dur:>fast", "`dur:>fast`: `fast` is not a number; write 200ms, 1.5s or 800us");
    check_error("status:abc", "`status:abc`: `abc` is not a status; a number, >=400, or 4xx is");
    check_error("status:9xx", "`status:9xx`: `9xx` is no class of statuses; 1xx to 5xx are");
    check_error("reason:", "`reason:`: there is no value after the colon");
    check_error(":x", "`:x`: there is no key before the colon");
    check_error("method:GET,", "`method:GET,`: a value between commas is empty");
    check_error("a \"open", "`\"open`: a quote is not closed");
    check_error("\"\"", "`\"\"`: there is no text to look for");
    assert!(Filter::parse(&"a ".repeat(65)).is_err());
    assert!(Filter::parse(&"a".repeat(9000)).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        if let Ok(filter) = Filter::parse(&text) {
            let block = block();
            filter.narrow(&mut vec![true; block.rows], |name| block.columns.get(name).map(Cow::Borrowed));
        }
    }
}
