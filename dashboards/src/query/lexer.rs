//! A filter's text as words and values. The page splits in the same way (`ui/src/lib/filter/terms.ts`).
//!
//! Blanks and commas within quotes do not split; within quotes a backslash takes the next character as it is.

/// A value, and whether it was written in quotes: quoted, it means itself and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) quoted: bool,
}

/// Splits at blanks outside of quotes. The error is the word whose quote is not closed.
pub(super) fn words(text: &str) -> Result<Vec<&str>, &str> {
    pieces(text, char::is_whitespace).map(|words| words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// Splits at commas outside of quotes. The word it is part of has closed all of them.
pub(super) fn values(text: &str) -> Vec<Value> {
    pieces(text, |c| c == ',').unwrap_or_else(|open| vec![open]).into_iter().map(unquote).collect()
}

/// Takes the quotes off a value that begins and ends with them.
pub(super) fn unquote(text: &str) -> Value {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Value { text: text.to_owned(), quoted: false };
    };
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            plain.push(c);
            escaped = false;
        }
    }
    Value { text: plain, quoted: true }
}

fn pieces(text: &str, splits: impl Fn(char) -> bool) -> Result<Vec<&str>, &str> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        } else if !quoted && splits(c) {
            pieces.push(&text[start..at]);
            start = at + c.len_utf8();
        }
    }
    if quoted {
        return Err(&text[start..]);
    }
    pieces.push(&text[start..]);
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_together() {
        assert_eq!(words(r#"a  "b c" k:"d e",f"#), Ok(vec!["a", r#""b c""#, r#"k:"d e",f"#]));
        assert_eq!(words(r#""say \"hi\" now" b"#), Ok(vec![r#""say \"hi\" now""#, "b"]));
        assert_eq!(words(r#"a "open"#), Err(r#""open"#));
        assert_eq!(words("   "), Ok(vec![]));
    }

    #[test]
    fn values_lose_their_quotes() {
        let check = |text: &str, expected: &[(&str, bool)]| {
            let found: Vec<(String, bool)> = values(text).into_iter().map(|v| (v.text, v.quoted)).collect();
            let expected: Vec<(String, bool)> = expected.iter().map(|(t, q)| ((*t).to_owned(), *q)).collect();
            assert_eq!(found, expected);
        };
        check("a,b", &[("a", false), ("b", false)]);
        check(r#""a,b",c"#, &[("a,b", true), ("c", false)]);
        check(r#""say \"hi\"""#, &[(r#"say "hi""#, true)]);
        check(r#""back\\slash""#, &[(r"back\slash", true)]);
        check(r#""""#, &[("", true)]);
    }
}
