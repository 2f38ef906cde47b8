//! The methods that a rule speaks of: in one word for those that everybody uses.

use std::sync::Arc;

/// Those that have a bit.
const USUAL: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

/// Methods; all of them when none is named. They are case-sensitive (RFC 9110 §9.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Methods {
    usual: u16,
    others: Option<Arc<[Box<str>]>>,
}

impl Methods {
    /// Exactly these, or all of them.
    pub fn new<'m>(methods: impl IntoIterator<Item = &'m str>) -> Self {
        let (mut usual, mut others) = (0, Vec::new());
        for method in methods {
            match bit_of(method) {
                Some(bit) => usual |= bit,
                None => others.push(method.into()),
            }
        }
        Self { usual, others: (!others.is_empty()).then(|| others.into()) }
    }

    /// Whether it speaks of all methods, and none need be looked at.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.usual == 0 && self.others.is_none()
    }

    /// Whether it speaks of `method`.
    #[inline]
    pub fn contains(&self, method: &str) -> bool {
        if self.is_any() {
            return true;
        }
        match bit_of(method) {
            Some(bit) => self.usual & bit != 0,
            None => self.others.iter().flat_map(|others| &**others).any(|other| **other == *method),
        }
    }

    /// Their names.
    pub fn names(&self) -> Vec<&str> {
        let usual =
            USUAL.into_iter().filter(|method| bit_of(method).is_some_and(|bit| self.usual & bit != 0));
        usual.chain(self.others.iter().flat_map(|others| &**others).map(|other| &**other)).collect()
    }
}

#[inline]
fn bit_of(method: &str) -> Option<u16> {
    Some(match method {
        "GET" => 1,
        "HEAD" => 1 << 1,
        "POST" => 1 << 2,
        "PUT" => 1 << 3,
        "PATCH" => 1 << 4,
        "DELETE" => 1 << 5,
        "OPTIONS" => 1 << 6,
        "CONNECT" => 1 << 7,
        "TRACE" => 1 << 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_named_and_nothing_else() {
        for named in [&["GET"][..], &["GET", "PURGE"], &["PURGE"], &["TRACE", "POST"]] {
            let methods = Methods::new(named.iter().copied());
            assert!(!methods.is_any(), "{named:?}");
            for method in USUAL.into_iter().chain(["PURGE", "purge", "get", ""]) {
                assert_eq!(methods.contains(method), named.contains(&method), "{method} of {named:?}");
            }
            let mut names = methods.names();
            names.sort_unstable();
            let mut wanted = named.to_vec();
            wanted.sort_unstable();
            assert_eq!(names, wanted);
        }
    }

    #[test]
    fn without_a_name_it_has_all() {
        let all = Methods::new([]);
        assert!(all.is_any() && all.contains("GET") && all.contains("PURGE") && all.names().is_empty());
    }
}
