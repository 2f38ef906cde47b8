//! The YAML files that make one configuration together: one, or those of a folder.
//!
//! ```text
//! 10-listeners.yaml   listeners: [a]          listeners: [a]
//! 20-shop.yaml        routes: [b, c]    --->  routes: [b, c, d]     lists follow each other in the order of file names
//! 30-office.yaml      routes: [d]
//! ```
//!
//! A section that is no list stands in one file. What is wrong is told by the file that it stands in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::overrides::Override;
use super::{ConfigError, Invalid, SourceMap, typed, yaml};

/// Files of one configuration.
const MAX_FILES: usize = 1024;

/// The files, joined.
pub(super) struct Files {
    /// The file or the folder, as it was named.
    named: PathBuf,
    files: Vec<(PathBuf, String)>,
    joined: Value,
    /// Where the entries of each section come from: the file, and the number of its first entry.
    origins: BTreeMap<String, Vec<(usize, usize)>>,
}

impl Files {
    /// Reads a file, or every `.yaml` and `.yml` file of a folder whose name does not begin with a dot.
    pub(super) fn read(named: &Path) -> Result<Self, ConfigError> {
        if !named.is_dir() {
            return Self::one(named, yaml::read(named)?);
        }
        let problem = |problem: String| ConfigError::new(named, "", problem);
        let entries = std::fs::read_dir(named).map_err(|e| problem(format!("cannot be read: {e}")))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| is_yaml(path) && path.is_file());
        paths.sort();
        if paths.is_empty() {
            return Err(problem("holds no .yaml file".to_owned()));
        }
        if paths.len() > MAX_FILES {
            return Err(problem(format!("holds more than {MAX_FILES} files")));
        }
        let mut files = Self::none(named);
        for path in paths {
            let text = yaml::read(&path)?;
            files.add_file(path, text)?;
        }
        Ok(files)
    }

    /// One file, whose text is in hand.
    pub(super) fn one(file: &Path, text: String) -> Result<Self, ConfigError> {
        let mut files = Self::none(file);
        files.add_file(file.to_owned(), text)?;
        Ok(files)
    }

    fn none(named: &Path) -> Self {
        Self {
            named: named.to_owned(),
            files: Vec::new(),
            joined: Value::Object(Map::new()),
            origins: BTreeMap::new(),
        }
    }

    fn add_file(&mut self, path: PathBuf, text: String) -> Result<(), ConfigError> {
        let sections: Option<Map<String, Value>> = yaml::parse_yaml_strict(&path, &text)?;
        self.files.push((path, text));
        for (name, section) in sections.into_iter().flatten() {
            self.add(name, section)?;
        }
        Ok(())
    }

    fn add(&mut self, name: String, section: Value) -> Result<(), ConfigError> {
        let file = self.files.len() - 1;
        let Value::Object(joined) = &mut self.joined else { return Ok(()) };
        let first = match (joined.get_mut(&name), section) {
            // In a section of nothing may stand what another file says.
            (None | Some(Value::Null), section) => {
                joined.insert(name.clone(), section);
                0
            }
            (Some(_), Value::Null) => return Ok(()),
            (Some(Value::Array(all)), Value::Array(more)) => {
                let first = all.len();
                all.extend(more);
                first
            }
            (Some(_), _) => {
                let other = self.origins.get(&name).and_then(|origins| origins.first());
                let other = other.map_or(&self.named, |(other, _)| &self.files[*other].0);
                let (path, text) = &self.files[file];
                let problem = format!("stands in {} too", other.display());
                let invalid =
                    Invalid::new(name, problem, "one of the two: only lists may be spread over files");
                return Err(ConfigError::from_invalid(path, &SourceMap::of(text), invalid));
            }
        };
        self.origins.entry(name).or_default().push((file, first));
        Ok(())
    }

    /// What the files say together, with this laid over it.
    pub(super) fn typed<C: DeserializeOwned>(&self, laid_over: &[Override]) -> Result<C, ConfigError> {
        let mut value = self.joined.clone();
        for one in laid_over {
            one.apply(&mut value).map_err(|problem| ConfigError::of_command_line(&one.origin, problem))?;
        }
        typed::read(&value).map_err(|wrong| {
            let (key, problem) = wrong.into_parts();
            match laid_over.iter().find(|one| one.concerns(&key)) {
                Some(one) => ConfigError::of_command_line(&one.origin, problem),
                None => ConfigError { remedy: None, ..self.placed(Invalid::new(key, problem, "")) },
            }
        })
    }

    /// An error where it stands, by the numbers that its file has.
    pub(super) fn placed(&self, invalid: Invalid) -> ConfigError {
        let place = match self.files.len() {
            1 => Some((0, invalid.key.clone())),
            _ => self.place(&invalid.key),
        };
        let Some((file, key)) = place else {
            return ConfigError::from_invalid(&self.named, &SourceMap::default(), invalid);
        };
        let (path, text) = &self.files[file];
        ConfigError::from_invalid(path, &SourceMap::of(text), Invalid { key, ..invalid })
    }

    /// The file of `routes[12].backends`, and what it is called there.
    fn place(&self, key: &str) -> Option<(usize, String)> {
        let end = key.find(['.', '[']).unwrap_or(key.len());
        let (name, rest) = key.split_at(end);
        let origins = self.origins.get(name)?;
        let entry = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let Some((number, below)) =
            entry.and_then(|(number, below)| Some((number.parse::<usize>().ok()?, below)))
        else {
            return origins.first().map(|(file, _)| (*file, key.to_owned()));
        };
        let (file, first) = origins.iter().rev().find(|(_, first)| *first <= number)?;
        Some((*file, format!("{name}[{}]{below}", number - first)))
    }
}

fn is_yaml(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}
