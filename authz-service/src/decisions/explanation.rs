//! Why a request was refused, in one line for an operator. Pure.
//!
//! It says who, what and what was missing, and names nothing that the access log does not have anyway. The client
//! never sees it.

use std::fmt::Write as _;

use smol_str::SmolStr;
use tollgate_proto::Reason;

use crate::authorize::{Presented, Question};
use crate::policy::Decision;
use crate::policy::evaluate::Rule;
use crate::policy::nearest::{Failed, NearestMiss, missing_scopes};
use crate::policy::snapshot::ServiceRules;

/// A line is cut here.
const MAX_BYTES: usize = 512;
/// So many names are listed; the rest is counted.
const MAX_NAMES: usize = 4;

/// The line.
pub fn line(
    decision: &Decision<'_>,
    question: &Question<'_>,
    service: Option<&ServiceRules>,
    presented: &Presented,
) -> String {
    let mut line = String::with_capacity(128);
    why(&mut line, decision, question, service, presented).expect("a String takes everything");
    line.truncate(line.floor_char_boundary(MAX_BYTES));
    line
}

fn why(
    line: &mut String,
    decision: &Decision<'_>,
    question: &Question<'_>,
    service: Option<&ServiceRules>,
    presented: &Presented,
) -> std::fmt::Result {
    if let Presented::Refused(refusal) = presented {
        return write!(line, "token: {}", refusal.detail);
    }
    let (method, path) = (question.method, path_of(question.target));
    let Some(service) = service else {
        return match question.service {
            Some(said) => write!(line, "policy knows no service {said}"),
            None => write!(line, "no service of the policy has the host {}", question.host),
        };
    };
    let service = &service.service.key;
    match (decision.reason, &decision.nearest_miss) {
        (Reason::CallerDenied, _) => match question.peer {
            Some(peer) => write!(line, "{peer} is no caller of {service}"),
            None => write!(line, "{service} takes no caller without a workload identity"),
        },
        (Reason::AmbiguousRequest, _) => {
            write!(line, "{path} can be read in more than one way, and {service} judges them differently")
        }
        (_, Some(miss)) if !miss.failed.contains(Failed::METHOD) && !miss.failed.contains(Failed::HOST) => {
            nearest(line, miss, question, presented)
        }
        _ if decision.rule == Rule::DefaultDeny => {
            write!(line, "no permission of {service} speaks of {method} {path}")
        }
        (reason, _) => write!(line, "{reason}: {}", decision.rule),
    }
}

/// What the nearest grant lacked, one thing after the other.
fn nearest(
    line: &mut String,
    miss: &NearestMiss<'_>,
    question: &Question<'_>,
    presented: &Presented,
) -> std::fmt::Result {
    let (method, path) = (question.method, path_of(question.target));
    let Some(permission) = miss.permission() else { return Ok(()) };
    let role = &permission.role_name;
    let mut next = "";
    if miss.failed.contains(Failed::ROLE) {
        who(line, question, presented)?;
        write!(line, " holds no role that allows {method} {path}; enough would be ")?;
        let mut roles: Vec<&str> = miss.permissions.iter().map(|permission| &*permission.role_name).collect();
        roles.dedup();
        names(line, roles.into_iter())?;
        next = "; ";
    }
    if miss.failed.contains(Failed::SCOPES) {
        let scopes = presented.credential().scopes();
        write!(line, "{next}role {role}: scope needs ")?;
        names(line, missing_scopes(permission, scopes))?;
        line.push_str(", token has ");
        match scopes {
            [] => line.push_str("none"),
            scopes => names(line, scopes.iter().map(SmolStr::as_str))?,
        }
        next = "; ";
    }
    if miss.failed.contains(Failed::PERMISSION_WHEN) {
        write!(line, "{next}role {role}: the condition of {} does not hold", permission.name)?;
        next = "; ";
    }
    if let Some(binding) = miss.binding {
        if miss.failed.contains(Failed::BINDING_WHEN) {
            write!(line, "{next}the condition of binding {} does not hold", binding.key)?;
            next = "; ";
        }
        if miss.failed.contains(Failed::PERIOD) {
            write!(line, "{next}binding {} does not grant now", binding.key)?;
        }
    }
    Ok(())
}

fn who(line: &mut String, question: &Question<'_>, presented: &Presented) -> std::fmt::Result {
    match (presented.token(), question.peer) {
        (Some(token), _) => write!(line, "{} of {}", token.subject, token.issuer),
        (None, Some(peer)) => line.write_str(peer),
        (None, None) => line.write_str("a caller without a token"),
    }
}

fn names<'n>(line: &mut String, names: impl Iterator<Item = &'n str>) -> std::fmt::Result {
    let mut more = 0;
    for (index, name) in names.enumerate() {
        if index >= MAX_NAMES {
            more += 1;
            continue;
        }
        if index > 0 {
            line.push_str(", ");
        }
        line.push_str(name);
    }
    if more > 0 {
        write!(line, " and {more} more")?;
    }
    Ok(())
}

/// The path without its query, where keys may stand.
pub(crate) fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _query)| path)
}
