//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;
use std::path::{Path, PathBuf};

use super::SourceMap;

/// A value that parses but cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the key, as `routes[2].backends[0].cluster`.
    pub key: String,
    /// What was found.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

impl Invalid {
    /// Names the key, what is wrong with it and what would be right.
    pub fn new(key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

/// An error in a file, with its place. Prints as `file:line:column: key: problem; expected remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or the flag or variable that gave the value.
    pub file: PathBuf,
    /// Line from 1, where known.
    pub line: Option<u32>,
    /// Column from 1, where known.
    pub column: Option<u32>,
    /// Path of the key; empty where the whole file is meant.
    pub key: String,
    /// What was found.
    pub problem: String,
    /// What would be right.
    pub remedy: Option<String>,
}

impl ConfigError {
    /// An error whose place in the file is not known.
    pub fn new(file: &Path, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            key: key.into(),
            problem: problem.into(),
            remedy: None,
        }
    }

    /// Finds the line of the key that a check complained about.
    pub fn from_invalid(file: &Path, map: &SourceMap, invalid: Invalid) -> Self {
        let place = map.line_of(&invalid.key);
        Self {
            file: file.to_owned(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            key: invalid.key,
            problem: invalid.problem,
            remedy: Some(invalid.remedy),
        }
    }

    pub(super) fn of_command_line(origin: &str, problem: impl Into<String>) -> Self {
        Self::new(Path::new(origin), "", problem)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        f.write_str(": ")?;
        if !self.key.is_empty() && self.key != "." {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "; expected {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
