//! A reader of DER (X.690 §10), as far as certificates and public keys need it.
//!
//! Strict where two readers could see different things: lengths are definite and minimal, and nothing may follow the
//! last element. It borrows from its input and cannot loop, since every step consumes at least two bytes.

/// Tags of the elements that certificates are made of.
pub(super) mod tag {
    pub(in crate::x509) const INTEGER: u8 = 0x02;
    pub(in crate::x509) const BIT_STRING: u8 = 0x03;
    pub(in crate::x509) const NULL: u8 = 0x05;
    pub(in crate::x509) const OID: u8 = 0x06;
    pub(in crate::x509) const UTC_TIME: u8 = 0x17;
    pub(in crate::x509) const GENERALIZED_TIME: u8 = 0x18;
    pub(in crate::x509) const SEQUENCE: u8 = 0x30;
    /// `[0] EXPLICIT`, the version of a certificate.
    pub(in crate::x509) const CONTEXT_0: u8 = 0xa0;
}

/// The input is no DER, or not of the expected shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The only element of `bytes`, which must have this tag.
    pub(super) fn only(bytes: &'a [u8], tag: u8) -> Result<Self, Malformed> {
        let mut reader = Self(bytes);
        let content = reader.expect(tag)?;
        reader.end()?;
        Ok(Self(content))
    }

    /// Tag and content of the next element.
    pub(super) fn next(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let [tag, first, rest @ ..] = self.0 else { return Err(Malformed) };
        if tag & 0x1f == 0x1f {
            // Tag numbers over 30 stand in nothing that we read.
            return Err(Malformed);
        }
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f)).ok_or(Malformed)?;
                let length = digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
                if length < 0x80 || digits[0] == 0 {
                    return Err(Malformed);
                }
                (length, rest)
            }
            _ => return Err(Malformed),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok((*tag, content))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    /// A sequence within.
    pub(super) fn sequence(&mut self) -> Result<Self, Malformed> {
        self.expect(tag::SEQUENCE).map(Self)
    }

    /// Passes over the next element if it has this tag.
    pub(super) fn skip_if(&mut self, tag: u8) -> Result<(), Malformed> {
        if self.0.first() == Some(&tag) {
            self.next()?;
        }
        Ok(())
    }

    /// The magnitude of a positive integer, without leading zeros.
    pub(super) fn unsigned(&mut self) -> Result<&'a [u8], Malformed> {
        match self.expect(tag::INTEGER)? {
            [] => Err(Malformed),
            [0, rest @ ..] => Ok(rest),
            [first, ..] if first & 0x80 != 0 => Err(Malformed),
            digits => Ok(digits),
        }
    }

    /// The bytes of a bit string of whole bytes.
    pub(super) fn bit_string(&mut self) -> Result<&'a [u8], Malformed> {
        match self.expect(tag::BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_definite_and_minimal() {
        let long = [&[0x04, 0x81, 0x80][..], &[7; 0x80]].concat();
        assert_eq!(Reader(&long).next(), Ok((0x04, &[7; 0x80][..])));
        for bad in [
            &[][..],
            &[0x04],
            &[0x04, 0x80, 0, 0],
            &[0x04, 0x81, 0x01, 0],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x85, 1, 0, 0, 0, 0],
            &[0x04, 2, 0],
            &[0x1f, 1, 0],
        ] {
            assert_eq!(Reader(bad).next(), Err(Malformed), "{bad:x?}");
        }
    }

    #[test]
    fn integers_are_positive() {
        assert_eq!(Reader(&[2, 2, 0, 0x80]).unsigned(), Ok(&[0x80][..]));
        assert_eq!(Reader(&[2, 1, 0]).unsigned(), Ok(&[][..]));
        assert_eq!(Reader(&[2, 1, 0x80]).unsigned(), Err(Malformed));
        assert_eq!(Reader(&[2, 0]).unsigned(), Err(Malformed));
    }
}
