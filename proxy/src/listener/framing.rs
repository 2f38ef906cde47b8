//! Where messages begin and end on an HTTP/1.1 connection, read strictly. Pure.
//!
//! hyper forgives what RFC 9112 lets a recipient forgive: lines that end in a bare LF, a length beside a transfer
//! coding, the same length twice. It re-frames what it forwards, so none of these smuggles anything through; but
//! no honest client sends them, and whoever stands before us may read them otherwise. So every byte passes here
//! on its way to hyper, and a head that is not strict is refused before hyper sees it whole.
//!
//! ```text
//! head --length--> body --------------------------\
//!   ^ \--chunked--> size -> data -> size 0 -> trailers
//!   \-------------------------------------------------/
//! ```
//!
//! After a message that asks to switch protocols nothing may come before its answer: what the bytes would mean is not
//! settled until then.

use memchr::memchr;
use smallvec::SmallVec;

/// As much of a line as says what it is. What messages are framed by is refused where it is longer, however it comes.
const LINE_START: usize = 96;
/// Digits of the largest chunk size, with zeros before it.
const MAX_SIZE_DIGITS: usize = 16;

/// An offer that everybody may ignore, and that we do.
pub(super) const NO_SWITCH: &[u8] = b"h2c";

/// What is not strict about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("more than one content-length")]
    TwoLengths,
    #[error("a content-length that is no number")]
    BadLength,
    #[error("content-length beside transfer-encoding")]
    LengthAndCoding,
    #[error("a transfer-encoding other than chunked")]
    BadCoding,
    #[error("a chunk size that is no number")]
    BadChunk,
    #[error("bytes before the answer to a request to switch protocols")]
    BeforeTheAnswer,
}

/// A violation, and how many bytes before it belong to messages that are fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) violation: Violation,
    pub(super) fine: usize,
}

/// Follows one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    part: Part,
    /// The beginning of a line that came in pieces.
    line: SmallVec<[u8; LINE_START]>,
    /// How long these pieces are together.
    line_bytes: usize,
    /// Whether the last byte of the piece before was a carriage return.
    after_cr: bool,
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    switches: bool,
    /// How many heads have ended; it may begin anew.
    heads: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    Body(u64),
    ChunkSize,
    /// Data and the line end after it.
    Chunk(u64),
    Trailers,
    /// The message before asks to switch protocols.
    Switching,
}

impl Framing {
    /// Whether the last message asks to switch protocols.
    pub(super) fn switches(&self) -> bool {
        self.part == Part::Switching
    }

    /// Nothing of a next message came, and nothing of the one before is missing.
    pub(super) fn is_between_messages(&self) -> bool {
        self.part == Part::Head && self.lines == 0 && self.line_bytes == 0 && self.line.is_empty()
    }

    /// The number of the head of which something has come, and something is missing.
    pub(super) fn unfinished_head(&self) -> Option<u32> {
        (self.part == Part::Head && !self.is_between_messages()).then_some(self.heads)
    }

    /// What comes next belongs to a head.
    pub(super) fn is_in_head(&self) -> bool {
        self.part == Part::Head
    }

    /// Reads on. After an error nothing more may be read.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        // Where the head under way began; 0 also when it began in an earlier piece.
        let mut head_at = 0;
        while at < bytes.len() {
            match self.part {
                Part::Body(left) | Part::Chunk(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    let left = left - here as u64;
                    self.part = match self.part {
                        _ if left > 0 && matches!(self.part, Part::Body(_)) => Part::Body(left),
                        _ if left > 0 => Part::Chunk(left),
                        Part::Body(_) => {
                            head_at = at;
                            self.begin_head()
                        }
                        _ => Part::ChunkSize,
                    };
                }
                Part::Switching => return Err(Refused { violation: Violation::BeforeTheAnswer, fine: at }),
                Part::Head | Part::ChunkSize | Part::Trailers => {
                    let Some(end) = memchr(b'\n', &bytes[at..]) else {
                        self.keep(&bytes[at..]);
                        return Ok(());
                    };
                    let line = &bytes[at..at + end];
                    at += end + 1;
                    self.line_read(line).map_err(|violation| {
                        // A body that breaks off takes its message with it.
                        let fine = if self.part == Part::Head { head_at } else { 0 };
                        Refused { violation, fine }
                    })?;
                    if self.part == Part::Head && self.lines == 0 {
                        head_at = at;
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps the start of a line whose end is yet to come.
    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_START - self.line.len();
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        self.line_bytes += piece.len();
        if let Some(last) = piece.last() {
            self.after_cr = *last == b'\r';
        }
    }

    /// A line is complete; `piece` is its last piece, without the line feed.
    fn line_read(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let ended_well = match piece.last() {
            Some(last) => *last == b'\r',
            None => self.after_cr,
        };
        if !ended_well {
            return Err(Violation::BareLineFeed);
        }
        self.after_cr = false;
        // Without the carriage return.
        let bytes = std::mem::take(&mut self.line_bytes) + piece.len() - 1;
        if self.line.is_empty() {
            return self.line_is(&piece[..bytes], bytes);
        }
        let mut line = std::mem::take(&mut self.line);
        let room = LINE_START - line.len();
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        line.truncate(bytes);
        self.line_is(&line, bytes)
    }

    /// `line` is a line of so many bytes, or at least as much of it as is kept.
    fn line_is(&mut self, line: &[u8], bytes: usize) -> Result<(), Violation> {
        match self.part {
            Part::Head if line.is_empty() && self.lines == 0 => {}
            Part::Head if line.is_empty() => self.part = self.head_read()?,
            Part::Head => {
                self.lines += 1;
                if self.lines > 1 {
                    self.header(line, bytes > LINE_START)?;
                }
            }
            Part::ChunkSize => {
                let size = chunk_size(line).ok_or(Violation::BadChunk)?;
                self.part = if size == 0 { Part::Trailers } else { Part::Chunk(size.saturating_add(2)) };
            }
            Part::Trailers if line.is_empty() => self.part = self.begin_head(),
            Part::Trailers | Part::Body(_) | Part::Chunk(_) | Part::Switching => {}
        }
        Ok(())
    }

    /// Of a line that is `long` the end may be missing.
    fn header(&mut self, line: &[u8], long: bool) -> Result<(), Violation> {
        if let Some(value) = value_of(line, b"content-length:") {
            if self.length.is_some() {
                return Err(Violation::TwoLengths);
            }
            self.length = Some(number(value).filter(|_| !long).ok_or(Violation::BadLength)?);
        } else if let Some(value) = value_of(line, b"transfer-encoding:") {
            if long || self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::BadCoding);
            }
            self.chunked = true;
        } else if let Some(value) = value_of(line, b"upgrade:") {
            self.switches |= long || !value.eq_ignore_ascii_case(NO_SWITCH);
        }
        Ok(())
    }

    fn head_read(&mut self) -> Result<Part, Violation> {
        self.heads = self.heads.wrapping_add(1);
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Violation::LengthAndCoding),
            (None, true) => Ok(Part::ChunkSize),
            (Some(length), false) if length > 0 => Ok(Part::Body(length)),
            _ => Ok(self.begin_head()),
        }
    }

    fn begin_head(&mut self) -> Part {
        (self.lines, self.length, self.chunked) = (0, None, false);
        if self.switches { Part::Switching } else { Part::Head }
    }
}

/// The value of a header line, if it has this name (in lower case, with its colon).
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// The size stands before everything else on its line: of that the end may be missing.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let clean = matches!(rest.first(), None | Some(b';' | b' ' | b'\t'));
    let text = std::str::from_utf8(digits)
        .ok()
        .filter(|text| clean && (1..=MAX_SIZE_DIGITS).contains(&text.len()))?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

    /// Reads `text` whole, and in every split into two; all must say the same.
    #[track_caller]
    fn check(text: &str, expected: Option<(Violation, usize)>) {
        let bytes = text.as_bytes();
        let whole = Framing::default().read(bytes).err();
        assert_eq!(whole.map(|refused| (refused.violation, refused.fine)), expected, "{text:?}");
        for cut in 0..bytes.len() {
            let mut framing = Framing::default();
            let read = framing.read(&bytes[..cut]).and_then(|()| framing.read(&bytes[cut..]));
            let found = read.err().map(|refused| refused.violation);
            assert_eq!(found, expected.map(|(violation, _)| violation), "{text:?} cut at {cut}");
        }
        let mut framing = Framing::default();
        let found =
            bytes.iter().find_map(|byte| framing.read(&[*byte]).err()).map(|refused| refused.violation);
        assert_eq!(found, expected.map(|(violation, _)| violation), "{text:?} byte by byte");
    }

    #[test]
    fn what_is_strict_passes() {
        let post = "POST / HTTP/1.1\r\nhost: h\r\nContent-Length: 5\r\n\r\na\nb\nc";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\na\nb\r\nA;ext=1\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        check(GET, None);
        check(&GET.repeat(3), None);
        check(&format!("\r\n\r\n{GET}"), None);
        check(&format!("{post}{GET}{chunked}{GET}{post}"), None);
        check("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n", None);
        check(&format!("GET / HTTP/1.1\r\nx-long: {}\r\n\r\n{GET}", "y".repeat(500)), None);
    }

    #[test]
    fn what_is_not_strict_is_refused_at_its_head() {
        use Violation as V;
        check("GET / HTTP/1.1\nhost: h\n\n", Some((V::BareLineFeed, 0)));
        check("GET / HTTP/1.1\r\nhost: h\r\n\n", Some((V::BareLineFeed, 0)));
        check("\n", Some((V::BareLineFeed, 0)));
        check(&format!("{GET}GET / HTTP/1.1\n"), Some((V::BareLineFeed, GET.len())));
        let post = |headers: &str| format!("{GET}POST / HTTP/1.1\r\n{headers}\r\n\r\n0\r\n\r\n");
        for (headers, violation) in [
            ("content-length: 1\r\ncontent-length: 1", V::TwoLengths),
            ("content-length: 1\r\ncontent-length: 2", V::TwoLengths),
            ("content-length: 1, 1", V::BadLength),
            ("content-length: +1", V::BadLength),
            ("content-length: ", V::BadLength),
            ("content-length: 99999999999999999999", V::BadLength),
            ("content-length: 1\r\ntransfer-encoding: chunked", V::LengthAndCoding),
            ("TRANSFER-ENCODING: chunked\r\nCONTENT-LENGTH: 1", V::LengthAndCoding),
            ("transfer-encoding: identity", V::BadCoding),
            ("transfer-encoding: gzip, chunked", V::BadCoding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", V::BadCoding),
        ] {
            check(&post(headers), Some((violation, GET.len())));
        }
    }

    #[test]
    fn a_line_in_pieces_says_what_it_says_as_a_whole() {
        use Violation as V;
        let post = |lines: &str| format!("{GET}POST / HTTP/1.1\r\n{lines}\r\n\r\n0\r\n\r\n");
        let fill = |start: &str, with: &str, length: usize, end: &str| {
            format!("{start}{}{end}", with.repeat(length - start.len() - end.len()))
        };
        for length in [LINE_START - 1, LINE_START, LINE_START + 1, LINE_START + 2, 3 * LINE_START] {
            // Five bytes follow, which are the body.
            let refused = |violation| (length > LINE_START).then_some((violation, GET.len()));
            for (with, end) in [("0", "5"), (" ", "5"), (" ", "5 \t")] {
                let line = fill("content-length: ", with, length, end);
                check(&post(&line), refused(V::BadLength));
            }
            check(&post(&fill("content-length: 5", " ", length, "")), refused(V::BadLength));
            check(&post(&fill("content-length: 5", " ", length, "5")), Some((V::BadLength, GET.len())));
            let line = fill("transfer-encoding:", " ", length, "chunked");
            check(&post(&line), refused(V::BadCoding));
            check(
                &post(&fill("transfer-encoding: chunked", " ", length, ", gzip")),
                Some((V::BadCoding, GET.len())),
            );
            // An offer that is ignored, and one that is not.
            let switch = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", fill("upgrade:", " ", length, "h2c"));
            let early = (length > LINE_START).then_some((V::BeforeTheAnswer, switch.len()));
            check(&format!("{switch}{GET}"), early);
            let switch = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", fill("upgrade: h2c", " ", length, "x"));
            check(&format!("{switch}{GET}"), Some((V::BeforeTheAnswer, switch.len())));
            // What frames nothing may be as long as it likes.
            let other = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", fill("x-length: ", "5", length, ""));
            check(&format!("{other}{GET}"), None);

            let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
            let sized = |line: &str| format!("{chunked}{line}\r\nabc\r\n0\r\n\r\n{GET}");
            check(&sized(&fill("", "0", length, "3")), Some((V::BadChunk, 0)));
            check(&sized(&fill("3;signature=", "0", length, "")), None);
            check(&sized(&fill("0000000000000003 ", " ", length, "5")), None);
            let trailer = fill("content-length: ", "0", length, "5");
            check(&format!("{chunked}0\r\n{trailer}\r\n\r\n{GET}"), None);
        }
        check(
            &format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{}3\r\n", "0".repeat(16)),
            Some((V::BadChunk, 0)),
        );
    }

    #[test]
    fn nothing_may_come_before_the_answer_to_a_switch() {
        let violation = Violation::BeforeTheAnswer;
        let switch = format!("{GET}GET / HTTP/1.1\r\nconnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        check(&switch, None);
        check(&format!("{switch}G"), Some((violation, switch.len())));
        check(&format!("{switch}{GET}"), Some((violation, switch.len())));
        let with_body = "POST / HTTP/1.1\r\ncontent-length: 3\r\nupgrade: tls/1.0\r\n\r\nabc";
        check(with_body, None);
        check(&format!("{with_body}{GET}"), Some((violation, with_body.len())));
        check(&format!("GET / HTTP/1.1\r\nupgrade: h2c\r\n\r\n{GET}"), None);
    }

    #[test]
    fn chunks_that_cannot_be_read() {
        for size in ["x", "", "-1", "0x3", "11111111111111111"] {
            let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\nabc\r\n");
            check(&text, Some((Violation::BadChunk, 0)));
        }
        check(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\nabc",
            Some((Violation::BareLineFeed, 0)),
        );
    }
}
