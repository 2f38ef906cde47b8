//! YAML in, values out, with the place of every error.

use std::io::Read as _;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::ConfigError;

/// The largest file that is read.
const MAX_FILE: u64 = 16 << 20;

/// A document and the line it begins at.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The document.
    pub value: T,
    /// Its first line, from 1.
    pub line: u32,
}

pub(super) fn read(file: &Path) -> Result<String, ConfigError> {
    let problem = |e: std::io::Error| ConfigError::new(file, "", format!("cannot be read: {e}"));
    let mut text = String::new();
    let handle = std::fs::File::open(file).map_err(problem)?;
    handle.take(MAX_FILE + 1).read_to_string(&mut text).map_err(problem)?;
    if text.len() as u64 > MAX_FILE {
        return Err(ConfigError::new(file, "", format!("is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(text)
}

/// Parses one document; the error has the file, line, column and key path.
pub fn parse_yaml<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, ConfigError> {
    parse_from_line(file, text, 1, options(text))
}

/// As [`parse_yaml`], for a reader who does not know yet what is expected: only `true` and `false` are booleans, so that
/// `off` is a word wherever a word is expected.
pub(super) fn parse_yaml_strict<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, ConfigError> {
    parse_from_line(file, text, 1, strict(text))
}

pub(super) fn strict(text: &str) -> serde_saphyr::Options {
    let mut options = options(text);
    options.strict_booleans = true;
    options
}

/// Parses the documents of a file that are separated by `---` lines; empty ones are left out.
pub fn parse_yaml_documents<T: DeserializeOwned>(
    file: &Path,
    text: &str,
) -> Result<Vec<Located<T>>, ConfigError> {
    split_documents(text)
        .into_iter()
        .map(|(line, part)| Ok(Located { value: parse_from_line(file, part, line, options(part))?, line }))
        .collect()
}

/// The library's bounds, but for the size of the document: it may be as large as its file is. There is less than a
/// node for each byte unless aliases make more of them, which they may not.
pub(super) fn options(text: &str) -> serde_saphyr::Options {
    let usual = serde_saphyr::Budget::default();
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: usual.max_nodes.max(text.len()),
            max_events: usual.max_events.max(2 * text.len()),
            max_total_scalar_bytes: usual.max_total_scalar_bytes.max(text.len()),
        },
    }
}

fn parse_from_line<T: DeserializeOwned>(
    file: &Path,
    text: &str,
    first_line: u32,
    options: serde_saphyr::Options,
) -> Result<T, ConfigError> {
    let mut key = None;
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |de| {
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(de, &mut track);
        T::deserialize(tracked).inspect_err(|_| key = Some(track.path().to_string()))
    });
    parsed.map_err(|error| {
        let place = error.location();
        let rendered = error.without_snippet().to_string();
        ConfigError {
            file: file.to_owned(),
            line: place.map(|l| u32::try_from(l.line()).unwrap_or(u32::MAX).saturating_add(first_line - 1)),
            column: place.map(|l| u32::try_from(l.column()).unwrap_or(u32::MAX)),
            key: key.unwrap_or_default(),
            problem: without_place(&rendered).to_owned(),
            remedy: None,
        }
    })
}

/// The parser ends its messages with the place, which we print in front, as compilers do.
fn without_place(rendered: &str) -> &str {
    rendered.rfind(" at line ").map_or(rendered, |at| &rendered[..at])
}

/// Cuts at `---` lines. Such a line inside a block scalar is indented, so it does not start a line.
fn split_documents(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (number, line) in (1u32..).zip(text.split_inclusive('\n')) {
        let trimmed = line.trim_end();
        if trimmed == "---" || trimmed.starts_with("--- ") {
            documents.push((start_line, &text[start..offset]));
            (start, start_line) = (offset + line.len(), number + 1);
        }
        offset += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, part)| {
        part.lines().any(|line| {
            !line.trim().is_empty() && !line.trim_start().starts_with('#') && !line.starts_with('%')
        })
    });
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_large_and_is_read_with_its_places() {
        let text: String = (0..40_000).map(|n| format!("- {{name: n{n}, hosts: [a, b]}}\n")).collect();
        let parsed: Vec<serde_json::Value> = parse_yaml(Path::new("large.yaml"), &text).unwrap();
        assert_eq!(parsed.len(), 40_000);
        let place = super::super::source_map::SourceMap::of(&text).line_of("[39999].hosts");
        assert_eq!(place.map(|(line, _)| line), Some(40_000));
    }

    #[test]
    fn aliases_make_no_more_than_the_file_holds() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let before = format!("*a{}", n - 1);
            text += &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 10].join(", "));
        }
        let error = parse_yaml::<serde_json::Value>(Path::new("bomb.yaml"), &text).unwrap_err();
        assert_eq!(error.file, Path::new("bomb.yaml"));
    }
}
