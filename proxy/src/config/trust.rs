//! Who is believed about where requests and connections come from.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

/// A range of addresses, written `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Bits before the address in IPv4 written as IPv6: `::ffff:10.0.0.0/104` is 10.0.0.0/8.
const MAPPED_BITS: u8 = 96;

impl Network {
    /// The address that it is written with; IPv4 written as IPv6 is IPv4.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether an address is one of them. An IPv4 address written as IPv6 is itself.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                u32::from(network).checked_shr(shift) == u32::from(address).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                u128::from(network).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is no range of addresses such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(expected)?,
            None => most,
        };
        // Addresses are compared as what they are, so a range is of one family too.
        match address.to_canonical() {
            plain if plain == address => Ok(Self { address, bits }),
            plain => match bits.checked_sub(MAPPED_BITS) {
                Some(bits) => Ok(Self { address: plain, bits }),
                None => Err(format!(
                    "`{text}` is IPv4 written as IPv6, and more than that; expected a range of one family such as 10.0.0.0/8"
                )),
            },
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A range of addresses such as 10.0.0.0/8, or one address"})
    }
}

/// Proxies between a client and an ingress. Each of them adds whom it sees to a header; what stands before their words is
/// the client's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Trusted {
    /// How many there are: the client is so many entries from the header's end. Fewer entries, and the header is not
    /// believed. As Envoy's `xff_num_trusted_hops`.
    pub hops: u8,
    /// Where they are. Beside `hops`, the one that connects here must be among them. Alone, the client is the last entry of
    /// the header that is none of them.
    pub proxies: Vec<Network>,
    /// The header that they write. The other one is nobody's word.
    pub header: TrustedHeader,
}

/// Where proxies write down whom they see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrustedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Who says before a connection's first byte where it comes from (PROXY protocol, version 1 or 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Load balancers: they must say it. Nobody else may; who is not among them is served by the address it has, and such
    /// a header of theirs is no HTTP and no TLS.
    pub from: Vec<Network>,
}

/// Which version of the PROXY protocol is said to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocolVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "::ffff:10.0.0.1", "::1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
            ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
        let everybody: Network = "0.0.0.0/0".parse().unwrap();
        assert!(everybody.contains("203.0.113.9".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "a"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let written: Network = "::ffff:10.0.0.0/104".parse().unwrap();
        assert_eq!(written.to_string(), "10.0.0.0/8", "rules for IPv4 get it");
        let error = "::ffff:10.0.0.0/95".parse::<Network>().unwrap_err();
        assert!(error.contains("`::ffff:10.0.0.0/95`") && error.ends_with("such as 10.0.0.0/8"), "{error}");
    }
}
