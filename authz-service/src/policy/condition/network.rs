//! Networks of addresses: `10.0.0.0/8`, `2001:db8::/32`.

use std::net::IpAddr;

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Bits before the address of an IPv4 address in IPv6 clothes: `::ffff:10.0.0.0/104` is 10.0.0.0/8.
const MAPPED_BITS: u8 = 96;

impl Network {
    /// Reads an address with the number of its leading bits; a lone address is a network of one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network; write 10.0.0.0/8 or 2001:db8::/32");
        let (address, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width: u8 = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(width), |bits| bits.parse().ok().filter(|bits| *bits <= width));
        let bits = bits.ok_or_else(wrong)?;
        // Addresses are compared as what they are, so a network is of one family too.
        let network = match address.to_canonical() {
            plain if plain == address => Self { address, bits },
            plain => Self {
                address: plain,
                bits: bits.checked_sub(MAPPED_BITS).ok_or_else(|| {
                    format!("`{text}` is IPv4 in IPv6 clothes, and more than that; write it as IPv4, such as 10.0.0.0/8")
                })?,
            },
        };
        let address = network.address;
        if network.masked(address) != address {
            return Err(format!(
                "`{text}` has bits beyond its length; write {}/{}",
                network.masked(address),
                network.bits
            ));
        }
        Ok(network)
    }

    /// Whether `address` is one of these. An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.address
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(self.bits.into())).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(self.bits.into())).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_in_networks() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "2001:db8::1", true),
            ("::1/128", "::1", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.0.0.0", false),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.7", true),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), expected, "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "x/8", "10.0.0.1/8", "::1/64", "::/129"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        for (text, remedy) in [
            ("::ffff:10.0.0.0/95", "write it as IPv4, such as 10.0.0.0/8"),
            ("::ffff:10.0.0.1/104", "write 10.0.0.0/8"),
        ] {
            let error = Network::parse(text).unwrap_err();
            assert!(error.contains(text) && error.ends_with(remedy), "{error}");
        }
    }
}
