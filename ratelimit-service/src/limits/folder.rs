//! Limits files on disk: which files of a folder count, and the set they make together.
//!
//! The first file that is wrong makes the whole folder wrong, so a set is never half of one
//! edition. Swap and backup files of editors, and whatever else begins with a dot, are not files of
//! ours; Kubernetes mounts, whose files are links into `..data`, are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_runtime::config::{ConfigError, Invalid, SourceMap, parse_yaml};

use super::compile::compile;
use super::file::LimitFile;
use super::matching::LimitSet;
use super::rule::Source;

/// Files one folder may hold.
const MAX_FILES: usize = 1_000;
/// Bytes one file may have.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Whether several files may make one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Domains {
    /// A second file for a domain is a mistake.
    #[default]
    OneFileEach,
    /// Files of one domain are read as one.
    Merged,
}

/// The texts of a folder's limits files, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    files: Vec<(Arc<Path>, String)>,
}

impl Folder {
    /// Reads the folder's limits files; where `path` is a file, that one alone.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let names = if path.is_file() { vec![path.to_owned()] } else { limit_files(path)? };
        let files = names
            .into_iter()
            .map(|name| read_text(&name).map(|text| (name.into(), text)))
            .collect::<Result<_, _>>()?;
        Ok(Self { files })
    }

    /// The files and their texts.
    pub fn texts(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files.iter().map(|(file, text)| (&**file, text.as_str()))
    }

    /// Texts that are in hand, and what errors call them.
    pub fn of_texts(files: Vec<(Arc<Path>, String)>) -> Self {
        Self { files }
    }

    /// Checks every file and builds the set; a domain has one file.
    pub fn compile(&self) -> Result<LimitSet, ConfigError> {
        self.compile_with(Domains::OneFileEach)
    }

    /// Checks every file and builds the set.
    pub fn compile_with(&self, domains: Domains) -> Result<LimitSet, ConfigError> {
        let mut set = LimitSet::default();
        for (file, text) in &self.files {
            let shape: LimitFile = parse_yaml(file, text)?;
            let map = SourceMap::of(text);
            let source_of = |key: &str| Source {
                file: Arc::clone(file),
                line: map.line_of(key).map_or(0, |(line, _)| line),
            };
            compile(&shape, &source_of)
                .and_then(|domain| match domains {
                    Domains::OneFileEach => set.insert(domain).map_err(|double| twice(double.name())),
                    Domains::Merged => set.merge(domain).map_err(|key| twice_in_domain(&key)),
                })
                .map_err(|invalid| ConfigError::from_invalid(file, &map, invalid))?;
        }
        Ok(set)
    }
}

fn twice_in_domain(key: &str) -> Invalid {
    let problem = format!("the composite key '{key}' is in another file of this domain too");
    Invalid::new("descriptors", problem, "each key in one file only")
}

fn twice(domain: &str) -> Invalid {
    let problem = format!("'{domain}' already has a file in this folder");
    Invalid::new("domain", problem, "one file for each domain")
}

fn limit_files(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let problem = |e: std::io::Error| ConfigError::new(folder, "", format!("cannot be read: {e}"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(problem)? {
        let path = entry.map_err(problem)?.path();
        if is_limits_file(&path) {
            names.push(path);
        }
        if names.len() > MAX_FILES {
            return Err(ConfigError::new(folder, "", format!("holds more than {MAX_FILES} limits files")));
        }
    }
    names.sort();
    Ok(names)
}

fn is_limits_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    // A dangling link is kept, so that reading it says what is wrong.
    yaml && !name.starts_with(['.', '#']) && !path.is_dir()
}

fn read_text(file: &Path) -> Result<String, ConfigError> {
    let problem = |e: std::io::Error| ConfigError::new(file, "", format!("cannot be read: {e}"));
    if std::fs::metadata(file).map_err(problem)?.len() > MAX_FILE_BYTES {
        let problem = format!("is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(ConfigError::new(file, "", problem));
    }
    std::fs::read_to_string(file).map_err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn only_limits_files_count() {
        let folder = folder_with(&[
            ("a.yaml", "domain: a"),
            ("b.yml", "domain: b\ndescriptors:\n"),
            (".a.yaml.swp", "\0binary"),
            (".b.yaml", "nonsense"),
            ("#a.yaml#", "nonsense"),
            ("a.yaml~", "nonsense"),
            ("notes.txt", "nonsense"),
        ]);
        let set = Folder::read(folder.path()).unwrap().compile().unwrap();
        let mut names: Vec<_> = set.domains().map(|domain| domain.name().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_domain_in_two_files_is_refused_where_it_stands_twice() {
        let folder = folder_with(&[("a.yaml", "domain: a"), ("b.yaml", "# again\ndomain: a")]);
        let error = Folder::read(folder.path()).unwrap().compile().unwrap_err();
        assert!(error.file.ends_with("b.yaml"), "{error}");
        assert_eq!((error.line, error.key.as_str()), (Some(2), "domain"));
    }

    #[test]
    fn rules_know_their_line() {
        let text =
            "domain: a\ndescriptors:\n  - key: k\n    rate_limit: {unit: second, requests_per_unit: 1}\n";
        let folder = folder_with(&[("a.yaml", text)]);
        let set = Folder::read(folder.path()).unwrap().compile().unwrap();
        let rule = set.domain("a").unwrap().find([("k", "v")]);
        assert!(rule[0].source.file.ends_with("a.yaml"));
        assert_eq!(rule[0].source.line, 3);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = Folder::read(Path::new("/nowhere/limits")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/limits"), "{error}");
    }
}
