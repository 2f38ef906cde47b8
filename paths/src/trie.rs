//! All templates that match a path, the most specific first, at a cost that does not grow with their number.
//!
//! ```text
//! /policies ─┬─ {id} ─── claims        A node a segment. At each node literal text comes before `{id}`,
//!            └─ archive ─ {**}         `{id}` before `{id:encoded}`, and that before `{**}`: the order of answers.
//! ```

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::spell::upper_escapes;
use crate::template::{Segment, Template, rest_matches, split_plain, split_segment};

/// Values filed under templates. Several values may stand under one template.
#[derive(Debug, Clone)]
pub struct TemplateTrie<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Node<T> {
    literals: FxHashMap<SmolStr, Node<T>>,
    one: Option<Box<Node<T>>>,
    /// Of `{id:encoded}`.
    encoded: Option<Box<Node<T>>>,
    /// Templates that go on with `{**}` from here, the longest literal end first.
    rest: Vec<Rest<T>>,
    /// Values of the templates that end here.
    values: Vec<T>,
}

#[derive(Debug, Clone)]
struct Rest<T> {
    after: Vec<Segment>,
    values: Vec<T>,
}

impl<T> TemplateTrie<T> {
    /// An empty trie.
    pub fn new() -> Self {
        Self { root: Node::new(), len: 0 }
    }

    /// How many values are filed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is filed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files `value` under `template`, behind the values that are there already.
    pub fn insert(&mut self, template: &Template, value: T) {
        self.len += 1;
        let mut node = &mut self.root;
        for (index, segment) in template.segments().iter().enumerate() {
            node = match segment {
                Segment::Literal(text) => {
                    node.literals.entry(SmolStr::from(&**text)).or_insert_with(Node::new)
                }
                Segment::One => node.one.get_or_insert_with(|| Box::new(Node::new())),
                Segment::Encoded => node.encoded.get_or_insert_with(|| Box::new(Node::new())),
                Segment::Rest => return node.insert_rest(&template.segments()[index + 1..], value),
            };
        }
        node.values.push(value);
    }

    /// The values whose template matches `path` (normalised, without its query), the most specific first.
    pub fn matches<'t, 'p>(&'t self, path: &'p str) -> Matches<'t, 'p, T> {
        let mut waiting = SmallVec::new();
        if let Some(inner) = path.strip_prefix('/') {
            waiting.push(Step::Node(&self.root, Some(inner)));
        }
        Matches { values: [].iter(), waiting }
    }
}

impl<T> Default for TemplateTrie<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Node<T> {
    fn new() -> Self {
        Self {
            literals: FxHashMap::default(),
            one: None,
            encoded: None,
            rest: Vec::new(),
            values: Vec::new(),
        }
    }

    fn insert_rest(&mut self, after: &[Segment], value: T) {
        if let Some(rest) = self.rest.iter_mut().find(|rest| rest.after == after) {
            rest.values.push(value);
            return;
        }
        let place = self.rest.partition_point(|rest| rest.after.len() >= after.len());
        self.rest.insert(place, Rest { after: after.to_vec(), values: vec![value] });
    }
}

/// The answer of [`TemplateTrie::matches`]: walks the trie as far as the caller asks, without recursion.
#[derive(Debug, Clone)]
pub struct Matches<'t, 'p, T> {
    values: std::slice::Iter<'t, T>,
    /// Where else to look, the next on top. At most three wait per segment, so a usual path needs no heap.
    waiting: SmallVec<[Step<'t, 'p, T>; 8]>,
}

#[derive(Debug)]
enum Step<'t, 'p, T> {
    /// This node, and the part of the path that is left.
    Node(&'t Node<T>, Option<&'p str>),
    /// These `{**}` templates, on the part that is left.
    Rest(&'t [Rest<T>], &'p str),
}

impl<T> Clone for Step<'_, '_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Step<'_, '_, T> {}

impl<'t, T> Iterator for Matches<'t, '_, T> {
    type Item = &'t T;

    fn next(&mut self) -> Option<&'t T> {
        loop {
            if let Some(value) = self.values.next() {
                return Some(value);
            }
            match self.waiting.pop()? {
                Step::Node(node, None) => self.values = node.values.iter(),
                Step::Node(node, Some(left)) => {
                    if !node.rest.is_empty() {
                        self.waiting.push(Step::Rest(&node.rest, left));
                    }
                    if let Some(encoded) = node.encoded.as_deref() {
                        let (head, tail) = split_plain(left);
                        if !head.is_empty() {
                            self.waiting.push(Step::Node(encoded, tail));
                        }
                    }
                    let (head, tail) = split_segment(left);
                    if let Some(one) = node.one.as_deref().filter(|_| !head.is_empty()) {
                        self.waiting.push(Step::Node(one, tail));
                    }
                    if let Some(literal) = node.literals.get(&*upper_escapes(head)) {
                        self.waiting.push(Step::Node(literal, tail));
                    }
                }
                Step::Rest(rest, left) => {
                    let Some((first, others)) = rest.split_first() else { continue };
                    self.waiting.push(Step::Rest(others, left));
                    if rest_matches(left, &first.after) {
                        self.values = first.values.iter();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trie(templates: &[&'static str]) -> TemplateTrie<&'static str> {
        let mut trie = TemplateTrie::new();
        for text in templates {
            trie.insert(&Template::parse(text).unwrap(), *text);
        }
        trie
    }

    #[track_caller]
    fn check(trie: &TemplateTrie<&'static str>, path: &str, expected: &[&str]) {
        assert_eq!(trie.matches(path).copied().collect::<Vec<_>>(), expected, "{path}");
    }

    #[test]
    fn the_most_specific_comes_first() {
        let trie = trie(&[
            "/{**}",
            "/policies/{**}",
            "/policies/{id}",
            "/policies/archive",
            "/policies/{id}/claims",
            "/policies/{**}/claims",
            "/policies",
            "/",
        ]);
        check(&trie, "/", &["/", "/{**}"]);
        check(&trie, "/policies", &["/policies", "/{**}"]);
        check(&trie, "/policies/", &["/policies/{**}", "/{**}"]);
        check(
            &trie,
            "/policies/archive",
            &["/policies/archive", "/policies/{id}", "/policies/{**}", "/{**}"],
        );
        check(
            &trie,
            "/policies/17/claims",
            &["/policies/{id}/claims", "/policies/{**}/claims", "/policies/{**}", "/{**}"],
        );
        check(&trie, "policies", &[]);
    }

    #[test]
    fn values_under_one_template_keep_their_order() {
        let mut trie = TemplateTrie::new();
        let template = Template::parse("/a/{x}").unwrap();
        trie.insert(&template, 1);
        trie.insert(&Template::parse("/a/{y}").unwrap(), 2);
        assert_eq!(trie.matches("/a/b").copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(trie.len(), 2);
    }
}
