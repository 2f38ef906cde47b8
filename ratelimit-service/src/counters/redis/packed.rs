//! Numbers in one string, as `cmsgpack` packs them in Redis.
//!
//! As an array each would be a reply of its own, which the client's parser takes longer for than the rest of a call takes.

/// The numbers of an array; what is below zero counts as nothing. `None` for anything else.
pub(super) fn numbers(mut packed: &[u8]) -> Option<Vec<u64>> {
    let bytes = &mut packed;
    let length = match take(bytes)? {
        [head @ 0x90..=0x9f] => u32::from(head & 0x0f),
        [0xdc] => u16::from_be_bytes(take(bytes)?).into(),
        [0xdd] => u32::from_be_bytes(take(bytes)?),
        _ => return None,
    };
    // No number is shorter than a byte, so a length that lies asks for little.
    let mut numbers = Vec::with_capacity(bytes.len().min(length as usize));
    for _ in 0..length {
        numbers.push(number(bytes)?);
    }
    bytes.is_empty().then_some(numbers)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let signed = |number: i64| u64::try_from(number).unwrap_or(0);
    Some(match take(bytes)? {
        [small @ 0x00..=0x7f] => small.into(),
        [0xcc] => u8::from_be_bytes(take(bytes)?).into(),
        [0xcd] => u16::from_be_bytes(take(bytes)?).into(),
        [0xce] => u32::from_be_bytes(take(bytes)?).into(),
        [0xcf] => u64::from_be_bytes(take(bytes)?),
        [0xe0..=0xff] => 0,
        [0xd0] => signed(i8::from_be_bytes(take(bytes)?).into()),
        [0xd1] => signed(i16::from_be_bytes(take(bytes)?).into()),
        [0xd2] => signed(i32::from_be_bytes(take(bytes)?).into()),
        [0xd3] => signed(i64::from_be_bytes(take(bytes)?)),
        // Stored by somebody else under our name.
        [0xca] => f32::from_be_bytes(take(bytes)?) as u64,
        [0xcb] => f64::from_be_bytes(take(bytes)?) as u64,
        _ => return None,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_length_of_number_is_read() {
        let packed = [
            &[0x98][..],
            &[0x00],
            &[0x7f],
            &[0xcc, 0xff],
            &[0xcd, 0x01, 0x00],
            &[0xce, 0x65, 0x00, 0x00, 0x00],
            &[0xcf, 0, 0, 0, 3, 0, 0, 0, 0],
            &[0xff],
            &[0xcb, 0x40, 0x0c, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(numbers(&packed), Some(vec![0, 127, 255, 256, 0x6500_0000, 3 << 32, 0, 3]));
        for cut in 0..packed.len() {
            assert_eq!(numbers(&packed[..cut]), None, "cut after {cut}");
        }
        assert_eq!(numbers(&[&packed[..], &[0]].concat()), None, "something is behind it");
        assert_eq!(numbers(&[0x91, 0xc0]), None, "nil is no number");
        assert_eq!(numbers(&[0xdc, 0, 1, 5]), Some(vec![5]));
        assert_eq!(numbers(&[0xdd, 0xff, 0xff, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = numbers(&bytes);
        }
    }
}
