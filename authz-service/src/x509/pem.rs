//! PEM (RFC 7468): labelled blocks of base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A block and what it says it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    pub(super) der: Vec<u8>,
}

/// All blocks of a text. Text between blocks is a comment, as tools write it.
pub(super) fn blocks(text: &str) -> Result<Vec<Block<'_>>, String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_comment, begun)) = rest.split_once("-----BEGIN ") {
        let (label, body) = begun.split_once("-----").ok_or("a BEGIN line does not end")?;
        let end = format!("-----END {label}-----");
        let (body, after) =
            body.split_once(&end).ok_or_else(|| format!("the block {label} has no END line"))?;
        let digits: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(digits).map_err(|_| format!("the block {label} is not base64"))?;
        blocks.push(Block { label, der });
        rest = after;
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_comments() {
        let text = "subject=x\n-----BEGIN A-----\nAA\nEC\n-----END A-----\n\n-----BEGIN B C-----\r\n-----END B C-----";
        let found = blocks(text).unwrap();
        assert_eq!(
            found,
            [Block { label: "A", der: vec![0, 1, 2] }, Block { label: "B C", der: Vec::new() }]
        );
        assert_eq!(blocks("nothing").unwrap(), []);
        for bad in ["-----BEGIN A", "-----BEGIN A-----\nAAEC", "-----BEGIN A-----\n?\n-----END A-----"] {
            assert!(blocks(bad).is_err(), "{bad}");
        }
    }
}
