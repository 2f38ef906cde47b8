//! `tollgate check`: is this file right, and if not, what would be?
//!
//! The kind of a file is told by its top-level keys, so that one command serves all of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tollgate_authz::policy::{cases, documents};
use tollgate_runtime::cli::BAD_INPUT;
use tollgate_runtime::config::{self, ConfigError, Env, ServiceConfig};

use crate::commands::say;

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Proxy,
    Authz,
    Ratelimit,
    Dashboard,
    Limits,
    Policy,
    Cases,
    /// Somebody else's, beside ours: it is not looked into.
    Manifest,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy configuration",
            Self::Authz => "authz configuration",
            Self::Ratelimit => "rate-limit configuration",
            Self::Dashboard => "dashboard configuration",
            Self::Limits => "limits",
            Self::Policy => "policy",
            Self::Cases => "policy cases",
            Self::Manifest => "Kubernetes manifest, not looked into",
        }
    }

    /// The first key that only one kind of file has.
    fn of(text: &str) -> Option<Self> {
        let has = |key: &str| {
            text.lines()
                .any(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':')))
        };
        [
            ("apiVersion", Self::Manifest),
            ("kind", Self::Policy),
            ("cases", Self::Cases),
            ("domain", Self::Limits),
            ("listeners", Self::Proxy),
            ("database", Self::Authz),
            ("limits", Self::Ratelimit),
            ("otlp", Self::Dashboard),
        ]
        .into_iter()
        .find_map(|(key, kind)| has(key).then_some(kind))
    }
}

/// Whether a folder's files make one proxy together: one of them has routes or clusters, and no listener.
fn is_one_proxy(path: &Path) -> bool {
    let is_part = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        Kind::of(&text).is_none()
            && ["routes:", "clusters:"].iter().any(|key| text.lines().any(|line| line.starts_with(key)))
    };
    path.is_dir() && files_below(path).iter().any(is_part)
}

/// Checks every file and says what each is, or what is wrong with it.
pub fn command(paths: &[PathBuf], env: &Env) -> ExitCode {
    let mut wrong = false;
    let whole = |path: &PathBuf| if is_one_proxy(path) { vec![path.clone()] } else { files_below(path) };
    for path in paths.iter().flat_map(whole) {
        match file(&path, env) {
            Ok((kind, outline)) => {
                say(&format!("{}: ok ({})", path.display(), kind.name()));
                outline.iter().for_each(|line| say(&format!("  {line}")));
            }
            Err(errors) => {
                wrong = true;
                for error in errors {
                    say(&format!("error: {error}"));
                }
            }
        }
    }
    if wrong { ExitCode::from(BAD_INPUT) } else { ExitCode::SUCCESS }
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
        .into_iter()
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml"))
        .collect()
}

/// What the file is, and what is in it where that can be said in a few lines.
fn file(path: &Path, env: &Env) -> Result<(Kind, Vec<String>), Vec<String>> {
    let one = |error: String| vec![error];
    if path.is_dir() {
        return service::<tollgate_proxy::Config>(path, env).map(|config| (Kind::Proxy, config.outline()));
    }
    let text =
        std::fs::read_to_string(path).map_err(|e| one(format!("{}: cannot be read: {e}", path.display())))?;
    let kind = Kind::of(&text).ok_or_else(|| {
        one(format!(
            "{}: not a file of Tollgate's; expected one with a top-level key kind (policy), cases (policy cases), domain (limits), listeners (proxy), database (authz), limits (rate limit) or otlp (dashboard)",
            path.display()
        ))
    })?;
    match kind {
        Kind::Proxy => {
            return service::<tollgate_proxy::Config>(path, env).map(|config| (kind, config.outline()));
        }
        Kind::Authz => service::<tollgate_authz::Config>(path, env).map(drop),
        Kind::Ratelimit => service::<tollgate_ratelimit::Config>(path, env).map(drop),
        Kind::Dashboard => service::<tollgate_dashboard::Config>(path, env).map(drop),
        Kind::Limits => tollgate_ratelimit::limits::Folder::read(path)
            .and_then(|folder| folder.compile())
            .map(|_| ())
            .map_err(|e| one(e.to_string())),
        Kind::Policy => policy(path, &text),
        Kind::Manifest => Ok(()),
        Kind::Cases => cases::parse(path, &text).map(|_| ()).map_err(|error| one(error.to_string())),
    }?;
    Ok((kind, Vec::new()))
}

/// The references between objects are checked within the file's folder, since a policy is a folder of files;
/// what is said is about this file.
fn policy(path: &Path, text: &str) -> Result<(), Vec<String>> {
    let strings = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    documents::parse(path, text).map_err(|error| strings(vec![error]))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = documents::load_dir(folder).map_err(|error| strings(vec![error]))?;
    let mut errors = documents::check(&all).err().unwrap_or_default();
    errors.retain(|error| error.file.file_name() == path.file_name());
    if errors.is_empty() { Ok(()) } else { Err(strings(errors)) }
}

fn service<C: ServiceConfig>(path: &Path, env: &Env) -> Result<C, Vec<String>> {
    config::load::<C>(path, &[], env)
        .map(|loaded| loaded.config)
        .map_err(|error: ConfigError| vec![error.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_file_is_told_by_its_keys() {
        for (text, kind) in [
            ("kind: Role\nname: a\n", Some(Kind::Policy)),
            ("cases: []\n", Some(Kind::Cases)),
            ("apiVersion: v1\nkind: Service\n", Some(Kind::Manifest)),
            ("# limits\ndomain: insurance\n", Some(Kind::Limits)),
            ("telemetry: {}\nlisteners: []\n", Some(Kind::Proxy)),
            ("database: {}\n", Some(Kind::Authz)),
            ("limits:\n  folder: x\n", Some(Kind::Ratelimit)),
            ("otlp: {}\n", Some(Kind::Dashboard)),
            ("  domain: indented\n", None),
            ("hello: world\n", None),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }
}
