//! Dynamic metadata, written straight as the bytes of a `google.protobuf.Struct`:
//!
//! ```json
//! {"tollgate": {"rule": "per-subject", "limit": 20, "unit": "second", "remaining": 7}}
//! ```
//!
//! It is made for every answer that fell under a limit, so that our proxy can log the rule that
//! decided. As maps of boxed values it would cost a dozen allocations; as bytes it costs one.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deciding<'a> {
    pub rule: &'a str,
    pub limit: u32,
    pub unit: &'static str,
    pub remaining: u32,
}

/// The field number of both parts of a map entry, and of `Struct.fields`.
const MAP_KEY: u32 = 1;
const MAP_VALUE: u32 = 2;
const FIELDS: u32 = 1;
/// The field numbers of `google.protobuf.Value`'s kinds.
const NUMBER: u32 = 2;
const STRING: u32 = 3;
const STRUCT: u32 = 5;

/// A number: its head, and a double.
const NUMBER_BYTES: usize = 1 + 8;
/// Heads and name of the one entry that holds the others, with room to spare.
const HEADS_BYTES: usize = 32;

impl Deciding<'_> {
    /// The encoded struct.
    pub fn encode(self) -> Vec<u8> {
        let inner_len = text_len("rule", self.rule)
            + number_len("limit")
            + text_len("unit", self.unit)
            + number_len("remaining");
        let mut bytes = Vec::with_capacity(inner_len + HEADS_BYTES);
        entry(&mut bytes, "tollgate", delimited_len(inner_len), |to| {
            head(to, STRUCT, inner_len);
            text_field(to, "rule", self.rule);
            number_field(to, "limit", self.limit);
            text_field(to, "unit", self.unit);
            number_field(to, "remaining", self.remaining);
        });
        bytes
    }
}

fn text_len(key: &str, text: &str) -> usize {
    entry_len(key, delimited_len(text.len()))
}

fn number_len(key: &str) -> usize {
    entry_len(key, NUMBER_BYTES)
}

fn text_field(to: &mut Vec<u8>, key: &str, text: &str) {
    entry(to, key, delimited_len(text.len()), |to| {
        head(to, STRING, text.len());
        to.extend_from_slice(text.as_bytes());
    });
}

fn number_field(to: &mut Vec<u8>, key: &str, number: u32) {
    entry(to, key, NUMBER_BYTES, |to| {
        encode_key(NUMBER, WireType::SixtyFourBit, to);
        to.extend_from_slice(&f64::from(number).to_le_bytes());
    });
}

/// One entry of the `fields` map, whose value is `value_len` bytes long.
fn entry(to: &mut Vec<u8>, key: &str, value_len: usize, write_value: impl FnOnce(&mut Vec<u8>)) {
    head(to, FIELDS, delimited_len(key.len()) + delimited_len(value_len));
    head(to, MAP_KEY, key.len());
    to.extend_from_slice(key.as_bytes());
    head(to, MAP_VALUE, value_len);
    write_value(to);
}

/// Bytes of such an entry.
fn entry_len(key: &str, value_len: usize) -> usize {
    delimited_len(delimited_len(key.len()) + delimited_len(value_len))
}

fn head(to: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(len as u64, to);
}

/// Bytes of a length-delimited field of this content; all our field numbers take one byte.
fn delimited_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

#[cfg(test)]
mod tests {
    use tollgate_proto::prost::Message as _;
    use tollgate_proto::prost_types::{Struct, value::Kind};

    use super::*;

    #[test]
    fn reads_as_a_struct() {
        for rule in ["per-subject", "", &"long".repeat(100)] {
            let bytes = Deciding { rule, limit: 20, unit: "second", remaining: 7 }.encode();
            let all = Struct::decode(&*bytes).unwrap();
            let Some(Kind::StructValue(ours)) = all.fields["tollgate"].kind.clone() else {
                panic!("{all:?}")
            };
            let field = |name: &str| ours.fields[name].kind.clone().unwrap();
            assert_eq!(field("rule"), Kind::StringValue(rule.to_owned()));
            assert_eq!(field("limit"), Kind::NumberValue(20.0));
            assert_eq!(field("unit"), Kind::StringValue("second".to_owned()));
            assert_eq!(field("remaining"), Kind::NumberValue(7.0));
            assert_eq!((all.fields.len(), ours.fields.len()), (1, 4));
        }
    }
}
