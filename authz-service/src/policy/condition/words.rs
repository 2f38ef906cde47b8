//! Conditions, and the other things that a rule asks, as an operator reads them.

use std::fmt::{self, Display, Formatter};

use super::{Condition, Scalar, Test};
use crate::policy::model::{Period, Who, WorkloadPattern};

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(path, test) => write!(f, "claim {} {test}", path.name()),
            Self::Header(name, test) => write!(f, "header {name} {test}"),
            Self::Source(networks) => {
                f.write_str("source in ")?;
                list(f, networks, ", ")
            }
            Self::Time(week) => write!(f, "time {week}"),
            Self::All(parts) => {
                f.write_str("all of (")?;
                list(f, parts, "; ")?;
                f.write_str(")")
            }
            Self::Any(parts) => {
                f.write_str("any of (")?;
                list(f, parts, "; ")?;
                f.write_str(")")
            }
            Self::Not(inner) => write!(f, "not ({inner})"),
        }
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(values) if values.len() == 1 => {
                f.write_str("equals ")?;
                list(f, values, "")
            }
            Self::OneOf(values) => {
                f.write_str("in ")?;
                list(f, values, ", ")
            }
            Self::Prefix(prefix) => write!(f, "begins with `{prefix}`"),
            Self::Contains(value) => write!(f, "contains {value}"),
        }
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "`{text}`"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Truth(truth) => write!(f, "{truth}"),
        }
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl Display for WorkloadPattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => f.write_str(id),
            Self::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let named = [
            ("issuer", self.issuer.as_deref()),
            ("subject", self.subject.as_deref()),
            ("client", self.client.as_deref()),
            ("group", self.group.as_deref()),
        ];
        let mut between = "";
        for (what, name) in named {
            if let Some(name) = name {
                write!(f, "{between}{what} {name}")?;
                between = ", ";
            }
        }
        if let Some(workload) = &self.workload {
            write!(f, "{between}workload {workload}")?;
            between = ", ";
        }
        match (between, self.authenticated) {
            ("", true) => f.write_str("anyone with a good token"),
            ("", false) => f.write_str("anyone"),
            (_, true) if self.issuer.is_none() => f.write_str(", with a good token"),
            _ => Ok(()),
        }
    }
}

impl Display for Period {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let moment = |seconds: i64| jiff::Timestamp::from_second(seconds).ok();
        if let Some(from) = moment(self.from) {
            write!(f, "from {from} ")?;
        }
        match moment(self.until) {
            Some(until) => write!(f, "until {until}"),
            None => f.write_str("on"),
        }
    }
}
