//! The PROXY protocol, versions 1 and 2: what a load balancer says before the first byte of a connection about where that
//! comes from. Pure: bytes in, addresses out, and the other way round.
//!
//! Read strictly. Whoever is let to say this is believed, so what cannot be read as a whole closes the connection, and
//! nothing is guessed from a part of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end.
const LONGEST_V1: usize = 107;
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const FIXED_V2: usize = 16;
/// Bytes after these that are read; addresses take 36, the rest is for values that nobody here looks at.
const LONGEST_V2: usize = 2048;
/// The longest header there is.
pub(crate) const LONGEST: usize = FIXED_V2 + LONGEST_V2;

/// Both ends of a connection, as a client sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// It carries somebody's connection.
    For(Ends),
    /// It speaks for itself, as health checks do, or does not know.
    Itself,
}

/// What the beginning of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// The beginning of a header; all of it belongs to that.
    More,
    /// A header of so many bytes.
    Header(Said, usize),
}

/// What is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("no PROXY header")]
    NoHeader,
    #[error("a PROXY header that does not end")]
    TooLong,
    #[error("a PROXY header that cannot be read")]
    Malformed,
}

/// Reads the beginning of a connection.
pub(crate) fn read(bytes: &[u8]) -> Result<Read, Problem> {
    const V1: &[u8] = b"PROXY ";
    let begins = |with: &[u8]| {
        let known = bytes.len().min(with.len());
        bytes[..known] == with[..known]
    };
    if begins(SIGNATURE) {
        return version_2(bytes);
    }
    if begins(V1) {
        return version_1(bytes);
    }
    Err(Problem::NoHeader)
}

fn version_1(bytes: &[u8]) -> Result<Read, Problem> {
    let head = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_V1 { Ok(Read::More) } else { Err(Problem::TooLong) };
    };
    let line = head[..end].strip_suffix(b"\r").ok_or(Problem::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Problem::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let said = match words.next() {
        // What follows is not for us to look at.
        Some("UNKNOWN") => Said::Itself,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut word = || words.next().ok_or(Problem::Malformed);
            let (from, to) = (address(word()?, family)?, address(word()?, family)?);
            let (from_port, to_port) = (port(word()?)?, port(word()?)?);
            if words.next().is_some() {
                return Err(Problem::Malformed);
            }
            let (source, destination) = (SocketAddr::new(from, from_port), SocketAddr::new(to, to_port));
            Said::For(Ends { source, destination })
        }
        _ => return Err(Problem::Malformed),
    };
    Ok(Read::Header(said, end + 1))
}

fn address(word: &str, family: &str) -> Result<IpAddr, Problem> {
    let read = match family {
        "TCP4" => word.parse::<Ipv4Addr>().map(IpAddr::V4),
        _ => word.parse::<Ipv6Addr>().map(IpAddr::V6),
    };
    read.map_err(|_| Problem::Malformed)
}

fn port(word: &str) -> Result<u16, Problem> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(Problem::Malformed)
}

fn version_2(bytes: &[u8]) -> Result<Read, Problem> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_V2) else {
        // A version or a command that nobody knows need not be waited for.
        return match bytes.get(SIGNATURE.len()) {
            Some(command) if !matches!(command, 0x20 | 0x21) => Err(Problem::Malformed),
            _ => Ok(Read::More),
        };
    };
    let (command, family) = (fixed[12], fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > LONGEST_V2 {
        return Err(Problem::TooLong);
    }
    let speaks_for_itself = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Problem::Malformed),
    };
    let Some(body) = rest.get(..length) else { return Ok(Read::More) };
    let said = match family {
        _ if speaks_for_itself => Said::Itself,
        0x00 | 0x31 => Said::Itself,
        0x11 => ends::<4>(body)?,
        0x21 => ends::<16>(body)?,
        _ => return Err(Problem::Malformed),
    };
    Ok(Read::Header(said, FIXED_V2 + length))
}

/// Two addresses of `N` bytes, two ports, and values that are only looked at for their lengths.
fn ends<const N: usize>(body: &[u8]) -> Result<Said, Problem>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>().ok_or(Problem::Malformed)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(Problem::Malformed)?;
    let (source_port, rest) = rest.split_first_chunk::<2>().ok_or(Problem::Malformed)?;
    let (destination_port, mut rest) = rest.split_first_chunk::<2>().ok_or(Problem::Malformed)?;
    while !rest.is_empty() {
        let (head, values) = rest.split_first_chunk::<3>().ok_or(Problem::Malformed)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        rest = values.get(length..).ok_or(Problem::Malformed)?;
    }
    let at = |address: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port))
    };
    Ok(Said::For(Ends { source: at(source, source_port), destination: at(destination, destination_port) }))
}

/// Writes a header of version 1. Without ends the connection is our own.
pub(crate) fn write_1(ends: Option<Ends>) -> Vec<u8> {
    let Some(ends) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (from, to) = alike(ends);
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
}

/// Writes a header of version 2. Without ends the connection is our own.
pub(crate) fn write_2(ends: Option<Ends>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some(ends) = ends else {
        header.extend([0x20, 0x00, 0, 0]);
        return header;
    };
    let (from, to) = alike(ends);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([0x21, 0x11, 0, 12]);
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            header.extend([0x21, 0x21, 0, 36]);
            header.extend(in_six(from).octets());
            header.extend(in_six(to).octets());
        }
    }
    header.extend(from.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header
}

/// Both ends in one family, as the protocol has them.
fn alike(Ends { source, destination }: Ends) -> (SocketAddr, SocketAddr) {
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let (source, destination) = (plain(source), plain(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let six = |at: SocketAddr| SocketAddr::new(in_six(at.ip()).into(), at.port());
    (six(source), six(destination))
}

fn in_six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// What is written reads back as itself, however it is cut, with whatever follows.
    #[test]
    fn what_is_written_is_read() {
        for ends in
            [ends("192.0.2.1:1234", "198.51.100.7:443"), ends("[2001:db8::1]:65535", "[2001:db8::2]:1")]
        {
            for header in [write_1(Some(ends)), write_2(Some(ends))] {
                let read_as = Ok(Read::Header(Said::For(ends), header.len()));
                assert_eq!(read(&header), read_as);
                assert_eq!(read(&[&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat()), read_as);
                for cut in 0..header.len() {
                    assert_eq!(read(&header[..cut]), Ok(Read::More), "{header:?} cut at {cut}");
                }
            }
        }
        for header in [write_1(None), write_2(None)] {
            assert_eq!(read(&header), Ok(Read::Header(Said::Itself, header.len())));
        }
        let mixed = ends("192.0.2.1:1", "[2001:db8::2]:2");
        let as_six = ends("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2");
        for header in [write_1(Some(mixed)), write_2(Some(mixed))] {
            assert_eq!(read(&header), Ok(Read::Header(Said::For(as_six), header.len())));
        }
    }

    #[test]
    fn version_1_is_read_strictly() {
        for (line, problem) in [
            ("GET / HTTP/1.1\r\n", Problem::NoHeader),
            ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Problem::NoHeader),
            ("PROXY\r\n", Problem::NoHeader),
            ("PROXY \r\n", Problem::Malformed),
            ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Problem::Malformed),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Problem::Malformed),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Problem::Malformed),
            ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Problem::Malformed),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", Problem::Malformed),
        ] {
            assert_eq!(read(line.as_bytes()), Err(problem), "{line:?}");
        }
        let endless = format!("PROXY TCP6 {}", "f".repeat(200));
        assert_eq!(read(endless.as_bytes()), Err(Problem::TooLong));
        assert_eq!(read(&endless.as_bytes()[..LONGEST_V1 - 1]), Ok(Read::More));
        let late_end = format!("PROXY UNKNOWN {}\r\n", "f".repeat(200));
        assert_eq!(read(late_end.as_bytes()), Err(Problem::TooLong));
        assert!(matches!(read(b"PROXY UNKNOWN ff:: x y\r\n"), Ok(Read::Header(Said::Itself, 24))));
    }

    #[test]
    fn version_2_is_read_strictly() {
        let with = |command: u8, family: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [SIGNATURE, &[command, family][..], &length, body].concat()
        };
        let addresses = [1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2];
        let said = Said::For(ends("1.2.3.4:1", "5.6.7.8:2"));
        let values = [&addresses[..], &[0x04, 0, 2, 9, 9]].concat();
        assert_eq!(read(&with(0x21, 0x11, &values)), Ok(Read::Header(said, FIXED_V2 + 17)));
        assert_eq!(read(&with(0x20, 0x11, &addresses)), Ok(Read::Header(Said::Itself, FIXED_V2 + 12)));
        assert_eq!(read(&with(0x21, 0x00, b"")), Ok(Read::Header(Said::Itself, FIXED_V2)));
        for (command, family, body) in [
            (0x11, 0x11, &addresses[..]),
            (0x22, 0x11, &addresses),
            (0x21, 0x12, &addresses),
            (0x21, 0x21, &addresses),
            (0x21, 0x11, &addresses[..11]),
            (0x21, 0x11, &[&addresses[..], &[0x04]].concat()),
            (0x21, 0x11, &[&addresses[..], &[0x04, 0, 9, 1]].concat()),
            (0x21, 0x51, &addresses),
        ] {
            assert_eq!(
                read(&with(command, family, body)),
                Err(Problem::Malformed),
                "{command:x} {family:x} {body:?}"
            );
        }
        assert_eq!(read(&with(0x21, 0x11, &[0; LONGEST_V2 + 1])), Err(Problem::TooLong));
        assert_eq!(read(&with(0x91, 0x11, &addresses)[..13]), Err(Problem::Malformed));
        assert_eq!(read(b"\r\n\r\nGET / HTTP/1.1\r\n"), Err(Problem::NoHeader));
        assert_eq!(read(b""), Ok(Read::More));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_no_header_is_longer_than_it_may_be(bytes: Vec<u8>, like in 0_usize..3) {
            let start: &[u8] = [&b""[..], b"PROXY TCP4 ", SIGNATURE][like];
            let bytes = [start, &bytes].concat();
            if let Ok(Read::Header(_, length)) = read(&bytes) {
                assert!(length <= bytes.len().min(LONGEST));
            }
        }
    }
}
