//! Policy in files: several YAML documents a file, a folder of files a policy.

use std::path::{Path, PathBuf};

use tollgate_runtime::config::{ConfigError, Located, SourceMap, parse_yaml_documents};

use super::check::{self, Fault};
use super::object::{Document, ObjectId, PolicySet};

/// More files than this in one folder are a mistake about the folder.
const MAX_FILES: usize = 10_000;
/// A file larger than this is no policy.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// An object and where it was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object.
    pub document: Document,
    /// The file.
    pub file: PathBuf,
    /// The line of the file on which the document starts.
    pub line: u32,
}

/// Reads the objects in one text; `file` names it in errors.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Written>, ConfigError> {
    let documents: Vec<Located<Document>> = parse_yaml_documents(file, text)?;
    let written = |Located { value, line }| Written { document: value, file: file.to_owned(), line };
    Ok(documents.into_iter().map(written).collect())
}

/// Reads one file.
pub fn load_file(file: &Path) -> Result<Vec<Written>, ConfigError> {
    parse(file, &read(file)?)
}

/// Reads every `.yaml` and `.yml` file of a folder, in the order of their names, and says where a name stands twice.
pub fn load_dir(folder: &Path) -> Result<Vec<Written>, ConfigError> {
    let unreadable = |error: std::io::Error| ConfigError::new(folder, "", format!("cannot be read: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(ConfigError::new(folder, "", format!("holds more than {MAX_FILES} files")));
        }
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(load_file(&file)?);
    }
    unique(&all)?;
    Ok(all)
}

/// Checks documents as a policy of their own, with faults at the lines where they were written.
pub fn check(written: &[Written]) -> Result<(), Vec<ConfigError>> {
    unique(written).map_err(|error| vec![error])?;
    let set = policy_set(written);
    match check::check(&set) {
        Ok(_) => Ok(()),
        Err(faults) => Err(faults.iter().map(|fault| located(written, fault)).collect()),
    }
}

/// The documents alone.
pub fn policy_set(written: &[Written]) -> PolicySet {
    written.iter().map(|written| (written.document.id(), written.document.clone())).collect()
}

/// Says where a fault was written, if one of these documents has it.
pub fn located(written: &[Written], fault: &Fault) -> ConfigError {
    let Some(found) = written.iter().find(|written| written.document.id() == fault.object) else {
        return ConfigError::new(Path::new(&fault.object.to_string()), &fault.key, &fault.problem);
    };
    let mut error =
        ConfigError::new(&found.file, &fault.key, format!("{} ({})", fault.problem, fault.object));
    error.line = Some(found.line);
    if let Ok(text) = read(&found.file)
        && let Some((line, column)) = SourceMap::of(&document_text(&text, found.line)).line_of(&fault.key)
    {
        error.line = Some(found.line + line - 1);
        error.column = Some(column);
    }
    error
}

/// The lines of the document that starts on `line`.
fn document_text(text: &str, line: u32) -> String {
    let lines = text.lines().skip(line.saturating_sub(1) as usize);
    lines.take_while(|line| line.trim_end() != "---" && !line.starts_with("--- ")).fold(
        String::new(),
        |mut document, line| {
            document.push_str(line);
            document.push('\n');
            document
        },
    )
}

/// Writes a policy as YAML, in an order that does not depend on anything but its names.
pub fn export<'d>(documents: impl IntoIterator<Item = &'d Document>) -> String {
    let texts: Vec<String> = documents.into_iter().map(to_yaml).collect();
    texts.join("---\n")
}

/// Writes one object as YAML.
pub fn to_yaml(document: &Document) -> String {
    let mut text =
        serde_saphyr::to_string(document).expect("an object of texts, lists and maps can always be written");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn unique(written: &[Written]) -> Result<(), ConfigError> {
    let mut seen: std::collections::BTreeMap<ObjectId, &Written> = std::collections::BTreeMap::new();
    for one in written {
        let id = one.document.id();
        if let Some(first) = seen.insert(id.clone(), one) {
            let place = format!("{}:{}", first.file.display(), first.line);
            let mut error = ConfigError::new(&one.file, "", format!("{id} stands twice, first in {place}"));
            error.line = Some(one.line);
            return Err(error);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |error: std::io::Error| ConfigError::new(file, "", format!("cannot be read: {error}"));
    if std::fs::metadata(file).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(ConfigError::new(file, "", "is too large for a policy file"));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}
