//! The filter language: `key:value`, `key:>=400`, `-key:value`, `key:a,b`, `"text"`; terms are and-ed.
//!
//! Pure. A value that ends in `*` takes everything that begins so; `4xx` takes a class of statuses; `dur` takes
//! units and means milliseconds without one. A word without a colon is text.

use tollgate_proto::attributes as a;

use super::fields::column_of;
use super::lexer::{Value, unquote, values, words};
use crate::store::{Bloom, Cell, Column, MISSING, Zone, names};

/// A filter may not have more terms.
const MAX_TERMS: usize = 64;
/// A filter may not be longer.
const MAX_BYTES: usize = 8 * 1024;
/// Columns that text is looked for in.
pub(crate) const TEXT_COLUMNS: &[&str] = &[
    names::BODY,
    a::URL_PATH,
    names::CALLER,
    names::DEST,
    a::TOLLGATE_REASON,
    a::HTTP_ROUTE,
    a::TOLLGATE_REQUEST_ID,
    a::USER_AGENT_ORIGINAL,
    a::SECURITY_RULE_NAME,
    a::TOLLGATE_RATELIMIT_RULE,
    names::NAME,
];

/// What is wrong with a filter, and in which term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{term}`: {problem}")]
pub(crate) struct FilterError {
    pub(crate) term: String,
    pub(crate) problem: String,
}

/// A parsed filter. Empty, it takes everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Filter {
    pub(crate) terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    /// As written.
    pub(crate) source: String,
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// Lower-case text, looked for in [`TEXT_COLUMNS`].
    Text(String),
    AnyOf {
        column: String,
        patterns: Vec<Pattern>,
    },
    Number {
        column: String,
        compare: Compare,
        than: f64,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Pattern {
    Exact(String),
    Prefix(String),
    /// The hundreds of a status.
    Class(i64),
    /// A number in the column's own unit.
    Number(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Filter {
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_BYTES {
            return Err(error("", &format!("a filter may have {MAX_BYTES} bytes")));
        }
        let words = words(text).map_err(|open| error(open, "a quote is not closed"))?;
        let terms = words.into_iter().map(Term::parse).collect::<Result<Vec<_>, _>>()?;
        if terms.len() > MAX_TERMS {
            return Err(error(&terms[MAX_TERMS].source, &format!("a filter may have {MAX_TERMS} terms")));
        }
        Ok(Self { terms })
    }

    /// A filter that takes the records with this very value in a column.
    pub(crate) fn exactly(column: &str, value: &str) -> Self {
        let patterns = vec![Pattern::Exact(value.to_owned())];
        let test = Test::AnyOf { column: column.to_owned(), patterns };
        Self { terms: vec![Term { source: format!("{column}:{value}"), negated: false, test }] }
    }

    /// A filter of one of this one's terms.
    pub(crate) fn alone(term: &Term) -> Self {
        Self { terms: vec![term.clone()] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The columns it reads.
    pub(crate) fn columns(&self) -> Vec<&str> {
        let mut columns = Vec::new();
        for term in &self.terms {
            match &term.test {
                Test::Text(_) => columns.extend_from_slice(TEXT_COLUMNS),
                Test::AnyOf { column, .. } | Test::Number { column, .. } => columns.push(column.as_str()),
            }
        }
        columns
    }

    /// Whether a block with this zone map and bloom filter may hold a record it takes.
    pub(crate) fn may_match(&self, zone: &Zone, bloom: &Bloom) -> bool {
        self.terms.iter().all(|term| term.may_match(zone, bloom))
    }

    /// Narrows `selected` to the records it takes.
    pub(crate) fn narrow<'c>(
        &self,
        selected: &mut [bool],
        column: impl Fn(&str) -> Option<std::borrow::Cow<'c, Column>>,
    ) {
        for term in &self.terms {
            let taken = term.taken(selected.len(), &column);
            for (selected, taken) in selected.iter_mut().zip(taken) {
                *selected &= taken != term.negated;
            }
        }
    }
}

fn error(term: &str, problem: &str) -> FilterError {
    FilterError { term: term.to_owned(), problem: problem.to_owned() }
}

impl Term {
    fn parse(source: &str) -> Result<Self, FilterError> {
        let (negated, rest) = match source.strip_prefix('-') {
            Some(rest) if !rest.is_empty() => (true, rest),
            _ => (false, source),
        };
        let pair = if rest.starts_with('"') { None } else { rest.split_once(':') };
        let test = match pair {
            // `https://…` is something to look for, not a key called https.
            Some((key, value)) if !value.starts_with("//") => parse_pair(source, key, value)?,
            _ => Test::Text(unquote(rest).text.to_lowercase()),
        };
        if test == Test::Text(String::new()) {
            return Err(error(source, "there is no text to look for"));
        }
        Ok(Self { source: source.to_owned(), negated, test })
    }

    fn may_match(&self, zone: &Zone, bloom: &Bloom) -> bool {
        if self.negated {
            return true;
        }
        match &self.test {
            Test::Text(_) => true,
            Test::Number { column, compare, than } => zone.ints.get(column).is_none_or(|(low, high)| {
                #[expect(clippy::cast_precision_loss, reason = "zone bounds are measurements")]
                let (low, high) = (*low as f64, *high as f64);
                compare.holds(low, *than) || compare.holds(high, *than)
            }),
            Test::AnyOf { column, patterns } => patterns.iter().any(|pattern| {
                let by_bloom = match pattern {
                    Pattern::Exact(text) if Bloom::covers(column) => bloom.may_hold(text),
                    _ => true,
                };
                let by_words =
                    zone.words.get(column).is_none_or(|words| words.iter().any(|w| pattern.takes_text(w)));
                #[expect(clippy::cast_precision_loss, reason = "zone bounds are measurements")]
                let by_range = zone.ints.get(column).is_none_or(|(low, high)| match pattern.range() {
                    Some((from, to)) => *low as f64 <= to && *high as f64 >= from,
                    None => true,
                });
                by_bloom && by_words && by_range
            }),
        }
    }

    fn taken<'c>(
        &self,
        rows: usize,
        column: &impl Fn(&str) -> Option<std::borrow::Cow<'c, Column>>,
    ) -> Vec<bool> {
        match &self.test {
            Test::Text(needle) => {
                let finder = memchr::memmem::Finder::new(needle);
                let mut taken = vec![false; rows];
                let mut lower = String::new();
                for column in TEXT_COLUMNS.iter().filter_map(|name| column(name)) {
                    let found = test_column(&column, rows, |cell| {
                        lower.clear();
                        let text = cell.text();
                        lower.extend(text.chars().flat_map(char::to_lowercase));
                        finder.find(lower.as_bytes()).is_some()
                    });
                    taken.iter_mut().zip(found).for_each(|(taken, found)| *taken |= found);
                }
                taken
            }
            Test::AnyOf { column: name, patterns } => match column(name) {
                Some(column) => {
                    test_column(&column, rows, |cell| patterns.iter().any(|p| p.takes(name, cell)))
                }
                None => vec![false; rows],
            },
            Test::Number { column: name, compare, than } => match column(name) {
                Some(column) => {
                    test_column(&column, rows, |cell| cell.number().is_some_and(|n| compare.holds(n, *than)))
                }
                None => vec![false; rows],
            },
        }
    }
}

/// Asks once for each different word, or for each number.
fn test_column(column: &Column, rows: usize, mut test: impl FnMut(Cell<'_>) -> bool) -> Vec<bool> {
    let mut taken: Vec<bool> = match column {
        Column::Ints(values) => values.iter().map(|v| *v != MISSING && test(Cell::Int(*v))).collect(),
        Column::Words { words, codes } => {
            let by_word: Vec<bool> = words.iter().map(|word| test(Cell::Word(word))).collect();
            codes.iter().map(|code| *code > 0 && by_word[*code as usize - 1]).collect()
        }
    };
    taken.resize(rows, false);
    taken
}

impl Compare {
    fn holds(self, value: f64, than: f64) -> bool {
        match self {
            Self::Less => value < than,
            Self::AtMost => value <= than,
            Self::More => value > than,
            Self::AtLeast => value >= than,
        }
    }
}

impl Pattern {
    fn takes(&self, column: &str, cell: Cell<'_>) -> bool {
        match self {
            Self::Class(hundreds) => cell.int().is_some_and(|n| n / 100 == *hundreds),
            Self::Number(number) => cell.number() == Some(*number),
            Self::Exact(_) | Self::Prefix(_) => {
                let word = match cell {
                    Cell::Word(word) => word.as_str(),
                    Cell::Int(_) => None,
                };
                let owned;
                let text = match word {
                    Some(text) => text,
                    None => {
                        owned = cell.text();
                        &owned
                    }
                };
                // Envoy joins flags with commas, and lists are kept as JSON: each element counts.
                self.takes_text(text)
                    || (column == a::TOLLGATE_RESPONSE_FLAGS
                        && text.split(',').any(|flag| self.takes_text(flag)))
                    || (text.starts_with("[\"") && self.takes_element(text))
            }
        }
    }

    fn takes_text(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Class(hundreds) => text.parse::<i64>().is_ok_and(|n| n / 100 == *hundreds),
            Self::Number(number) => text.parse() == Ok(*number),
        }
    }

    fn takes_element(&self, text: &str) -> bool {
        serde_json::from_str::<Vec<String>>(text)
            .is_ok_and(|list| list.iter().any(|one| self.takes_text(one)))
    }

    /// The numbers it can take.
    fn range(&self) -> Option<(f64, f64)> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "a status")]
            Self::Class(hundreds) => Some((*hundreds as f64 * 100.0, *hundreds as f64 * 100.0 + 99.0)),
            Self::Number(number) => Some((*number, *number)),
            Self::Exact(text) => text.parse::<f64>().ok().map(|n| (n, n)),
            Self::Prefix(_) => None,
        }
    }
}

fn parse_pair(source: &str, key: &str, value: &str) -> Result<Test, FilterError> {
    if key.is_empty() {
        return Err(error(source, "there is no key before the colon"));
    }
    if value.is_empty() {
        return Err(error(source, "there is no value after the colon"));
    }
    let column = column_of(key).into_owned();
    for (sign, compare) in
        [(">=", Compare::AtLeast), ("<=", Compare::AtMost), (">", Compare::More), ("<", Compare::Less)]
    {
        if let Some(number) = value.strip_prefix(sign) {
            let than = parse_number(&column, number)
                .ok_or_else(|| error(source, &format!("`{number}` is not a number{}", unit_hint(&column))))?;
            return Ok(Test::Number { column, compare, than });
        }
    }
    let patterns = values(value)
        .iter()
        .map(|value| parse_pattern(&column, value).map_err(|problem| error(source, &problem)))
        .collect::<Result<_, _>>()?;
    Ok(Test::AnyOf { column, patterns })
}

fn parse_pattern(column: &str, value: &Value) -> Result<Pattern, String> {
    if value.quoted {
        return Ok(Pattern::Exact(value.text.clone()));
    }
    let value = value.text.as_str();
    if value.is_empty() {
        return Err("a value between commas is empty".to_owned());
    }
    if column == a::HTTP_RESPONSE_STATUS_CODE {
        if let Some(hundreds) = value.strip_suffix("xx") {
            return match hundreds.parse() {
                Ok(hundreds @ 1..=5) => Ok(Pattern::Class(hundreds)),
                _ => Err(format!("`{value}` is no class of statuses; 1xx to 5xx are")),
            };
        }
        if value.parse::<u16>().is_err() {
            return Err(format!("`{value}` is not a status; a number, >=400, or 4xx is"));
        }
    }
    if column == a::TOLLGATE_DURATION_US {
        return parse_number(column, value)
            .map(Pattern::Number)
            .ok_or_else(|| format!("`{value}` is not a duration{}", unit_hint(column)));
    }
    if column == names::TRACE {
        return Ok(Pattern::Exact(value.to_ascii_lowercase()));
    }
    match value.strip_suffix('*') {
        Some(prefix) => Ok(Pattern::Prefix(prefix.to_owned())),
        None => Ok(Pattern::Exact(value.to_owned())),
    }
}

/// A number in the column's own unit.
fn parse_number(column: &str, text: &str) -> Option<f64> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite());
    if column != a::TOLLGATE_DURATION_US {
        return number(text);
    }
    let units = [("us", 1.0), ("µs", 1.0), ("ms", 1_000.0), ("s", 1_000_000.0), ("m", 60_000_000.0)];
    for (unit, us) in units {
        if let Some(n) = text.strip_suffix(unit).and_then(number) {
            return Some(n * us);
        }
    }
    number(text).map(|ms| ms * 1_000.0)
}

fn unit_hint(column: &str) -> &'static str {
    if column == a::TOLLGATE_DURATION_US { "; write 200ms, 1.5s or 800us" } else { "" }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
