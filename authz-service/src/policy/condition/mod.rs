//! Conditions: what must hold of a request beside its method, its path and its caller.
//!
//! An answer is true, false or an error, and errors are carried to the end, so that whoever asked can fail safe:
//! a grant takes only [`Truth::True`], a denial everything but [`Truth::False`]. `all` and `any` are Kleene's: an
//! error matters only where the other parts leave the answer open, and the order of parts never does.

mod compare;
mod network;
mod week;
mod words;

pub use compare::{ClaimPath, Scalar, Test};
pub use network::Network;
pub use week::Week;

use super::reader::Reader;

/// Something that must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Of a claim of the token.
    Claim(ClaimPath, Test),
    /// Of a request header, its name in lower case.
    Header(Box<str>, Test),
    /// The client's address lies in one of these networks.
    Source(Box<[Network]>),
    /// The time lies in a part of the week.
    Time(Box<Week>),
    /// All of these.
    All(Box<[Self]>),
    /// One of these, or more.
    Any(Box<[Self]>),
    /// Not this.
    Not(Box<Self>),
}

/// What a condition says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told: a value has the wrong type, or nobody knows where the client is.
    Error,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Error => Self::Error,
        }
    }
}

impl Condition {
    /// Asks the request, and the time.
    pub(super) fn ask<'s>(&'s self, reader: &mut Reader<'_, 's>) -> Truth {
        match self {
            Self::Claim(path, test) => reader.claim(path).map_or(Truth::False, |value| test.of_claim(value)),
            Self::Header(name, Test::Contains(wanted)) => {
                // Asked as a list, repeated lines and commas are the same thing (RFC 9110 §5.3).
                Truth::from(reader.header_list(name).any(|item| wanted.is_text(item)))
            }
            Self::Header(name, test) => {
                Truth::from(reader.header(name).is_some_and(|value| test.of_text(value)))
            }
            Self::Source(networks) => {
                // Who is somewhere unknown is neither in the network nor outside of it.
                let Some(ip) = reader.source() else { return Truth::Error };
                Truth::from(networks.iter().any(|net| net.contains(ip)))
            }
            Self::Time(week) => {
                let (holds, until) = week.at(reader.now());
                reader.until(until);
                holds
            }
            Self::All(parts) => {
                parts.iter().fold(Truth::True, |sofar, part| match (sofar, part.ask(reader)) {
                    (Truth::False, _) | (_, Truth::False) => Truth::False,
                    (Truth::Error, _) | (_, Truth::Error) => Truth::Error,
                    (Truth::True, Truth::True) => Truth::True,
                })
            }
            Self::Any(parts) => {
                parts.iter().fold(Truth::False, |sofar, part| match (sofar, part.ask(reader)) {
                    (Truth::True, _) | (_, Truth::True) => Truth::True,
                    (Truth::Error, _) | (_, Truth::Error) => Truth::Error,
                    (Truth::False, Truth::False) => Truth::False,
                })
            }
            Self::Not(inner) => !inner.ask(reader),
        }
    }
}
