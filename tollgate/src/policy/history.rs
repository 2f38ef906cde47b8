//! `policy history` and `policy diff A..B`: what was, and who changed it.

use anyhow::{Context as _, bail};
use tollgate_authz::policy::diff as differences;
use tollgate_authz::store::{ChangeFilter, ChangeRow};
use tollgate_runtime::config::Env;

use super::object_name::ObjectName;
use super::place::{Place, Policy, encoded};
use crate::commands::say;

/// `policy history`
pub(super) async fn print(
    at: &Place,
    env: &Env,
    object: Option<ObjectName>,
    limit: usize,
) -> anyhow::Result<()> {
    let filter = object.as_ref().map_or_else(ChangeFilter::default, |name| ChangeFilter::of(&name.0));
    let rows: Vec<ChangeRow> = match Policy::open(at, env).await? {
        Policy::Here(store) => {
            let most = u32::try_from(limit).unwrap_or(u32::MAX);
            store.changes_of(&filter, None, most).await?
        }
        Policy::There(remote) => {
            let query = [("kind", &filter.kind), ("namespace", &filter.namespace), ("name", &filter.name)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("&{key}={}", encoded(value)))
                .collect::<String>();
            let path = format!("/v1/changes?limit={}{query}", limit.clamp(1, 1000));
            let mut page = remote.get(&path).await?;
            serde_json::from_value(page["items"].take()).context("the service's answer has no changes")?
        }
    };
    if rows.is_empty() {
        bail!("no change is known{}", if object.is_some() { " of this object" } else { "" });
    }
    for row in &rows {
        let verb = match (&row.before, &row.after) {
            (None, Some(_)) => "+",
            (Some(_), None) => "-",
            _ => "~",
        };
        let name = if row.namespace.is_empty() {
            row.name.clone()
        } else {
            format!("{}/{}", row.namespace, row.name)
        };
        let at = ChangeRow::moment(row);
        let reason = if row.reason.is_empty() { String::new() } else { format!("  {}", row.reason) };
        say(&format!("{:>6}  {at}  {verb} {} {name}  by {}{reason}", row.epoch, row.kind, row.author));
    }
    Ok(())
}

/// `policy diff A..B`
pub(super) async fn diff(at: &Place, env: &Env, epochs: &str) -> anyhow::Result<()> {
    let (from, to) = parse(epochs)?;
    let policy = Policy::open(at, env).await?;
    let (before, _) = policy.set(Some(from)).await?;
    let (after, _) = policy.set(to).await?;
    let text = differences::diff(&before, &after);
    say(if text.is_empty() { "no difference" } else { text.trim_end() });
    Ok(())
}

fn parse(epochs: &str) -> anyhow::Result<(u64, Option<u64>)> {
    let wrong = || format!("`{epochs}`: write two epochs as 12..15, or 12.. for up to the newest");
    let (from, to) = epochs.split_once("..").with_context(wrong)?;
    let to = if to.is_empty() { None } else { Some(to.parse().with_context(wrong)?) };
    Ok((from.parse().with_context(wrong)?, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_written_with_two_dots() {
        assert_eq!(parse("1..3").unwrap(), (1, Some(3)));
        assert_eq!(parse("7..").unwrap(), (7, None));
        for wrong in ["7", "..3", "a..b", "1...2", ""] {
            assert!(parse(wrong).unwrap_err().to_string().contains("12..15"), "{wrong}");
        }
    }
}
