//! Which rules redirect a machine's connections to its sidecar. Pure: options in, the input of `iptables-restore` out.
//!
//! ```text
//! PREROUTING --> TOLLGATE_INBOUND --not left out--> TOLLGATE_IN_REDIRECT --> the sidecar's inbound listener
//!                       ^
//!                       '---- the proxy, to this machine's own address (a workload that calls itself)
//! OUTPUT ------> TOLLGATE_OUTPUT --the proxy, loopback, left out--> as it was
//!                       '--all else--> TOLLGATE_OUT_REDIRECT --> the sidecar's outbound listener
//! ```
//!
//! TCP alone: there is nothing to redirect other protocols to, and a NetworkPolicy closes them.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::Options;
use crate::config::Network;
use crate::upstream::CARRIED_IN;

/// What comes in.
const INBOUND: &str = "TOLLGATE_INBOUND";
/// What goes out.
const OUTPUT: &str = "TOLLGATE_OUTPUT";
/// What came in and is redirected.
const IN_REDIRECT: &str = "TOLLGATE_IN_REDIRECT";
/// What goes out and is redirected.
const OUT_REDIRECT: &str = "TOLLGATE_OUT_REDIRECT";
/// All chains of ours. Each leads only to those after it.
const CHAINS: [&str; 4] = [INBOUND, OUTPUT, IN_REDIRECT, OUT_REDIRECT];
/// Chains of the system, and which of ours each leads to.
const JUMPS: [(&str, &str); 2] = [("PREROUTING", INBOUND), ("OUTPUT", OUTPUT)];
/// Where name servers listen.
const DNS: u16 = 53;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.0/8",
            Self::V6 => "::1/128",
        }
    }

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// Those of one family, as texts.
    fn of(self, networks: &[Network]) -> impl Iterator<Item = String> {
        networks.iter().filter(move |one| self.has(one.address())).map(ToString::to_string)
    }
}

/// The rules, whatever the machine has. `saved` is what it has (`iptables-save`): jumps of ours that stand there already are
/// taken out first, so that nothing stands twice.
pub(super) fn install(options: &Options, family: Family, saved: &str) -> String {
    let mut text = "*nat\n".to_owned();
    for chain in CHAINS {
        // Naming a chain of ours empties it.
        line(&mut text, format_args!(":{chain} - [0:0]"));
    }
    remove_jumps(&mut text, saved);
    for (from, to) in JUMPS {
        // First, so that nobody else's rule lets anything past.
        line(&mut text, format_args!("-I {from} 1 -p tcp -j {to}"));
    }
    line(&mut text, format_args!("-A {IN_REDIRECT} -p tcp -j REDIRECT --to-ports {}", options.inbound_port));
    line(
        &mut text,
        format_args!("-A {OUT_REDIRECT} -p tcp -j REDIRECT --to-ports {}", options.outbound_port),
    );
    inbound(&mut text, options);
    output(&mut text, options, family);
    text.push_str("COMMIT\n");
    text
}

/// What takes them away again; none if there are none.
pub(super) fn remove(saved: &str) -> Option<String> {
    let is_there = |chain: &&str| saved.lines().any(|line| line.starts_with(&format!(":{chain} ")));
    let chains: Vec<_> = CHAINS.into_iter().filter(is_there).collect();
    if chains.is_empty() {
        return None;
    }
    let mut text = "*nat\n".to_owned();
    remove_jumps(&mut text, saved);
    // None may be led to when it goes.
    chains.iter().for_each(|chain| line(&mut text, format_args!("-F {chain}")));
    chains.iter().for_each(|chain| line(&mut text, format_args!("-X {chain}")));
    text.push_str("COMMIT\n");
    Some(text)
}

fn remove_jumps(text: &mut String, saved: &str) {
    for (from, to) in JUMPS {
        let jump = |rule: &&str| {
            rule.starts_with(&format!("-A {from} ")) && rule.split_whitespace().any(|word| word == to)
        };
        for rule in saved.lines().filter(jump) {
            line(text, format_args!("-D{}", rule.trim_start_matches("-A")));
        }
    }
}

fn inbound(text: &mut String, options: &Options) {
    for port in &options.exclude_inbound_ports {
        line(text, format_args!("-A {INBOUND} -p tcp --dport {port} -j RETURN"));
    }
    match &options.include_inbound_ports.0 {
        None => line(text, format_args!("-A {INBOUND} -p tcp -j {IN_REDIRECT}")),
        Some(ports) => {
            for port in ports {
                line(text, format_args!("-A {INBOUND} -p tcp --dport {port} -j {IN_REDIRECT}"));
            }
        }
    }
}

fn output(text: &mut String, options: &Options, family: Family) {
    let loopback = family.loopback();
    for owner in options.owners() {
        if family == Family::V4 {
            // What has come in already goes on to an app that listens on this machine's own address alone.
            line(text, format_args!("-A {OUTPUT} -o lo -s {CARRIED_IN}/32 {owner} -j RETURN"));
        }
        // A workload that calls itself comes in like anybody else.
        line(text, format_args!("-A {OUTPUT} -o lo ! -d {loopback} {owner} -j {INBOUND}"));
        // The proxy's own connections go where it sends them: otherwise they would come back to it.
        line(text, format_args!("-A {OUTPUT} {owner} -j RETURN"));
    }
    // Within the machine everything stays as it is.
    line(text, format_args!("-A {OUTPUT} -o lo -j RETURN"));
    for server in options.name_servers().into_iter().filter(|server| family.has(*server)) {
        line(text, format_args!("-A {OUTPUT} -d {server} -p tcp --dport {DNS} -j RETURN"));
    }
    for port in &options.exclude_outbound_ports {
        line(text, format_args!("-A {OUTPUT} -p tcp --dport {port} -j RETURN"));
    }
    for network in family.of(&options.exclude_outbound_cidrs) {
        line(text, format_args!("-A {OUTPUT} -d {network} -j RETURN"));
    }
    match &options.include_outbound_cidrs.0 {
        None => line(text, format_args!("-A {OUTPUT} -p tcp -j {OUT_REDIRECT}")),
        Some(networks) => {
            for network in family.of(networks) {
                line(text, format_args!("-A {OUTPUT} -d {network} -p tcp -j {OUT_REDIRECT}"));
            }
        }
    }
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a text cannot fail.
    let _ = writeln!(text, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        let mut all = vec!["--dns-servers", "10.96.0.10,fd00::a"];
        all.extend(args);
        super::super::parse(&all).unwrap()
    }

    #[test]
    fn all_that_is_redirected_by_default() {
        let expected = "\
*nat
:TOLLGATE_INBOUND - [0:0]
:TOLLGATE_OUTPUT - [0:0]
:TOLLGATE_IN_REDIRECT - [0:0]
:TOLLGATE_OUT_REDIRECT - [0:0]
-I PREROUTING 1 -p tcp -j TOLLGATE_INBOUND
-I OUTPUT 1 -p tcp -j TOLLGATE_OUTPUT
-A TOLLGATE_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A TOLLGATE_OUT_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A TOLLGATE_INBOUND -p tcp -j TOLLGATE_IN_REDIRECT
-A TOLLGATE_OUTPUT -o lo -s 127.0.0.6/32 -m owner --uid-owner 1337 -j RETURN
-A TOLLGATE_OUTPUT -o lo ! -d 127.0.0.0/8 -m owner --uid-owner 1337 -j TOLLGATE_INBOUND
-A TOLLGATE_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A TOLLGATE_OUTPUT -o lo -j RETURN
-A TOLLGATE_OUTPUT -d 10.96.0.10 -p tcp --dport 53 -j RETURN
-A TOLLGATE_OUTPUT -p tcp -j TOLLGATE_OUT_REDIRECT
COMMIT
";
        assert_eq!(install(&options(&[]), Family::V4, ""), expected);
        let v6 = install(&options(&[]), Family::V6, "");
        assert!(v6.contains("! -d ::1/128") && v6.contains("-d fd00::a -p tcp --dport 53"), "{v6}");
        assert!(!v6.contains("127.") && !v6.contains("10.96"), "{v6}");
    }

    #[test]
    fn what_is_left_out_comes_before_what_is_redirected() {
        let args = [
            "--inbound-port=6",
            "--outbound-port=1",
            "--proxy-uid=100,101",
            "--proxy-gid=102",
            "--exclude-inbound-ports=22,9090",
            "--exclude-outbound-ports=3306",
            "--exclude-outbound-cidrs=169.254.169.254,fd00::/8",
            "--include-inbound-ports=8080",
            "--include-outbound-cidrs=10.0.0.0/8",
        ];
        let text = install(&options(&args), Family::V4, "");
        let order = [
            "-A TOLLGATE_IN_REDIRECT -p tcp -j REDIRECT --to-ports 6",
            "-A TOLLGATE_OUT_REDIRECT -p tcp -j REDIRECT --to-ports 1",
            "-A TOLLGATE_INBOUND -p tcp --dport 22 -j RETURN",
            "-A TOLLGATE_INBOUND -p tcp --dport 9090 -j RETURN",
            "-A TOLLGATE_INBOUND -p tcp --dport 8080 -j TOLLGATE_IN_REDIRECT",
            "-A TOLLGATE_OUTPUT -m owner --uid-owner 100 -j RETURN",
            "-A TOLLGATE_OUTPUT -m owner --uid-owner 101 -j RETURN",
            "-A TOLLGATE_OUTPUT -m owner --gid-owner 102 -j RETURN",
            "-A TOLLGATE_OUTPUT -p tcp --dport 3306 -j RETURN",
            "-A TOLLGATE_OUTPUT -d 169.254.169.254/32 -j RETURN",
            "-A TOLLGATE_OUTPUT -d 10.0.0.0/8 -p tcp -j TOLLGATE_OUT_REDIRECT",
        ];
        let mut from = 0;
        for rule in order {
            let at = text[from..].find(&format!("{rule}\n")).unwrap_or_else(|| panic!("{rule}\n{text}"));
            from += at + rule.len();
        }
        assert!(!text.contains("fd00"), "{text}");
        let v6 = install(&options(&args), Family::V6, "");
        assert!(v6.contains("-d fd00::/8 -j RETURN") && !v6.contains("-j TOLLGATE_OUT_REDIRECT"), "{v6}");
    }

    #[test]
    fn nothing_stands_twice_and_nothing_is_left_behind() {
        let saved = "*nat\n:OUTPUT ACCEPT [0:0]\n:TOLLGATE_INBOUND - [0:0]\n:TOLLGATE_OUTPUT - [0:0]\n\
            -A PREROUTING -p tcp -j TOLLGATE_INBOUND\n-A OUTPUT -p tcp -j TOLLGATE_OUTPUT\n\
            -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT\nCOMMIT\n";
        let again = install(&options(&[]), Family::V4, saved);
        assert_eq!(again.matches("-D PREROUTING -p tcp -j TOLLGATE_INBOUND\n").count(), 1, "{again}");
        assert_eq!(again.matches("-D OUTPUT -p tcp -j TOLLGATE_OUTPUT\n").count(), 1, "{again}");
        let removed = remove(saved).unwrap();
        let expected = "*nat\n-D PREROUTING -p tcp -j TOLLGATE_INBOUND\n-D OUTPUT -p tcp -j TOLLGATE_OUTPUT\n\
            -F TOLLGATE_INBOUND\n-F TOLLGATE_OUTPUT\n-X TOLLGATE_INBOUND\n-X TOLLGATE_OUTPUT\nCOMMIT\n";
        assert_eq!(removed, expected);
        assert_eq!(remove("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"), None);
    }
}
