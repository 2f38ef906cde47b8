//! Columns as bytes: constant, delta, dictionary or plain, whichever fits, then zstd.
//!
//! ```text
//! 0 const   word
//! 1 delta   flag "some are missing" [bitmap] zigzag varint differences          whole numbers
//! 2 dict    words, width 1|2|4, one code a row                                   few different words
//! 3 plain   [bitmap] words in the order of rows                                  mostly different words
//! ```

use super::bytes::{Damaged, Reader, put_varint, put_words, read_words, unzigzag, zigzag};
use super::column::{Column, MISSING};
use super::words::Words;

const CONST: i64 = 0;
const DELTA: i64 = 1;
const DICT: i64 = 2;
const PLAIN: i64 = 3;
/// The fastest level: the store is written far more often than it is read.
const LEVEL: i32 = 1;
/// A column that claims to be larger when unpacked is damaged.
const MAX_UNPACKED: usize = 1 << 30;

/// A column as bytes.
pub(crate) struct Encoded {
    pub(crate) encoding: i64,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn encode(column: &Column) -> Encoded {
    let (encoding, raw) = match column {
        Column::Ints(values) => (DELTA, delta(values)),
        Column::Words { words, codes } => words_column(words, codes),
    };
    let packed = zstd::bulk::compress(&raw, LEVEL).ok().filter(|packed| packed.len() < raw.len());
    // One leading byte says whether zstd helped.
    let (flag, body) = packed.map_or((0, raw), |packed| (1, packed));
    let mut data = Vec::with_capacity(body.len() + 1);
    data.push(flag);
    data.extend_from_slice(&body);
    Encoded { encoding, data }
}

pub(crate) fn decode(encoding: i64, data: &[u8], rows: usize) -> Result<Column, Damaged> {
    let unpacked;
    let raw = match data.split_first() {
        Some((0, raw)) => raw,
        Some((1, packed)) => {
            unpacked = unpack(packed)?;
            unpacked.as_slice()
        }
        _ => return Err(Damaged("unknown packing")),
    };
    let mut reader = Reader(raw);
    match encoding {
        CONST => {
            let mut words = Words::default();
            words.push(reader.0);
            Ok(Column::Words { words, codes: vec![1; rows] })
        }
        DELTA => undelta(&mut reader, rows).map(Column::Ints),
        DICT => undict(&mut reader, rows),
        PLAIN => unplain(&mut reader, rows),
        _ => Err(Damaged("unknown encoding")),
    }
}

/// Unpacks what [`zstd::bulk::compress`] packed, with a ceiling.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Damaged> {
    let size = zstd::bulk::Decompressor::upper_bound(packed).ok_or(Damaged("not zstd"))?;
    if size > MAX_UNPACKED {
        return Err(Damaged("too large unpacked"));
    }
    zstd::bulk::decompress(packed, size).map_err(|_| Damaged("not zstd"))
}

fn put_bitmap(into: &mut Vec<u8>, present: impl Iterator<Item = bool>) {
    let mut byte = 0u8;
    let mut bit = 0;
    for yes in present {
        byte |= u8::from(yes) << bit;
        bit += 1;
        if bit == 8 {
            into.push(byte);
            (byte, bit) = (0, 0);
        }
    }
    if bit > 0 {
        into.push(byte);
    }
}

fn present(bitmap: &[u8], row: usize) -> bool {
    bitmap[row / 8] >> (row % 8) & 1 == 1
}

fn delta(values: &[i64]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(values.len() * 2);
    let gaps = values.contains(&MISSING);
    raw.push(u8::from(gaps));
    if gaps {
        put_bitmap(&mut raw, values.iter().map(|value| *value != MISSING));
    }
    let mut last = 0i64;
    for value in values.iter().filter(|value| **value != MISSING) {
        put_varint(&mut raw, zigzag(value.wrapping_sub(last)));
        last = *value;
    }
    raw
}

fn undelta(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<i64>, Damaged> {
    let gaps = reader.take(1)? == [1];
    let bitmap = if gaps { reader.take(rows.div_ceil(8))? } else { &[] };
    let mut last = 0i64;
    (0..rows)
        .map(|row| {
            if gaps && !present(bitmap, row) {
                return Ok(MISSING);
            }
            last = last.wrapping_add(unzigzag(reader.varint()?));
            Ok(last)
        })
        .collect()
}

fn words_column(words: &Words, codes: &[u32]) -> (i64, Vec<u8>) {
    if words.len() == 1 && !codes.contains(&0) {
        return (CONST, words.word(0).0.to_vec());
    }
    let mut raw = Vec::new();
    if words.len() * 2 > codes.len() {
        let mut in_order = Words::default();
        for code in codes.iter().filter(|code| **code > 0) {
            in_order.push(words.word(*code as usize - 1).0);
        }
        put_bitmap(&mut raw, codes.iter().map(|code| *code > 0));
        put_words(&mut raw, &in_order);
        return (PLAIN, raw);
    }
    put_words(&mut raw, words);
    let width = match words.len() {
        0..=0xfe => 1,
        0xff..=0xfffe => 2,
        _ => 4,
    };
    raw.push(width);
    for code in codes {
        raw.extend_from_slice(&code.to_le_bytes()[..usize::from(width)]);
    }
    (DICT, raw)
}

fn undict(reader: &mut Reader<'_>, rows: usize) -> Result<Column, Damaged> {
    let words = read_words(reader)?;
    let width = usize::from(reader.take(1)?[0]);
    if !matches!(width, 1 | 2 | 4) {
        return Err(Damaged("unknown width"));
    }
    let codes: Vec<u32> = reader
        .take(rows.checked_mul(width).ok_or(Damaged("too many rows"))?)?
        .chunks_exact(width)
        .map(|chunk| {
            let mut four = [0; 4];
            four[..width].copy_from_slice(chunk);
            u32::from_le_bytes(four)
        })
        .collect();
    if codes.iter().any(|code| *code as usize > words.len()) {
        return Err(Damaged("code without a word"));
    }
    Ok(Column::Words { words, codes })
}

fn unplain(reader: &mut Reader<'_>, rows: usize) -> Result<Column, Damaged> {
    let bitmap = reader.take(rows.div_ceil(8))?;
    let words = read_words(reader)?;
    let mut next = 0u32;
    let codes = (0..rows)
        .map(|row| {
            if !present(bitmap, row) {
                return 0;
            }
            next += 1;
            next
        })
        .collect();
    if next as usize != words.len() {
        return Err(Damaged("rows and words differ"));
    }
    Ok(Column::Words { words, codes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Value;
    use crate::store::column::ColumnBuilder;

    fn value() -> impl Strategy<Value = Option<Value<'static>>> {
        prop_oneof![
            2 => Just(None),
            3 => any::<i64>().prop_map(|n| Some(Value::Int(n))),
            1 => Just(Some(Value::Int(i64::MIN))),
            3 => ".*".prop_map(|s| Some(Value::Text(s.into()))),
            1 => any::<f64>().prop_map(|f| Some(Value::Float(f))),
            1 => any::<bool>().prop_map(|b| Some(Value::Bool(b))),
            1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(|b| Some(Value::Hex(b.into()))),
            1 => any::<u128>().prop_map(|n| Some(Value::Text(uuid::Uuid::from_u128(n).to_string().into()))),
        ]
    }

    fn build(values: &[Option<Value<'static>>]) -> Column {
        let mut builder: Option<ColumnBuilder> = None;
        for (row, value) in values.iter().enumerate() {
            if let Some(value) = value {
                builder.get_or_insert_with(|| ColumnBuilder::new(value)).set(row, value);
            }
        }
        builder.map_or_else(|| Column::Ints(vec![MISSING; values.len()]), |b| b.finish(values.len()))
    }

    proptest! {
        #[test]
        fn every_column_reads_back_as_it_was(values in proptest::collection::vec(value(), 0..200)) {
            let column = build(&values);
            let encoded = encode(&column);
            let back = decode(encoded.encoding, &encoded.data, values.len()).unwrap();
            for (row, value) in values.iter().enumerate() {
                prop_assert_eq!(column.cell(row).map(super::super::column::Cell::text), back.cell(row).map(super::super::column::Cell::text));
                match value {
                    None => prop_assert!(back.cell(row).is_none()),
                    Some(Value::Text(text)) => prop_assert_eq!(back.cell(row).unwrap().text(), text.as_ref()),
                    Some(Value::Int(n)) => prop_assert_eq!(back.cell(row).unwrap().int(), Some(*n)),
                    Some(_) => prop_assert!(back.cell(row).is_some()),
                }
            }
        }

        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(encoding in -1i64..5, data in proptest::collection::vec(any::<u8>(), 0..300), rows in 0usize..500) {
            let _ = decode(encoding, &data, rows);
        }

        #[test]
        fn a_cut_column_is_an_error_and_never_a_panic(values in proptest::collection::vec(value(), 1..50), cut in 0usize..1000) {
            let encoded = encode(&build(&values));
            let cut = cut % encoded.data.len();
            let _ = decode(encoded.encoding, &encoded.data[..cut], values.len());
        }
    }
}
