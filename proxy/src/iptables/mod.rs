//! `tollgate-proxy init-iptables`: the rules that redirect connections to a transparent sidecar, printed or applied.
//!
//! * this file: the command; [`rules`]: which rules, pure; [`apply`]: making them the machine's.

mod apply;
mod rules;

use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use tollgate_runtime::cli::{self, Extra};

use crate::config::Network;
use rules::Family;

/// Where the machine's name servers are listed.
const RESOLVERS: &str = "/etc/resolv.conf";

/// What is redirected, and what is left as it is.
#[derive(Debug, Clone, clap::Args)]
#[command(
    about = "Redirect this machine's TCP connections to its transparent sidecar (iptables)",
    long_about = "Redirects this machine's TCP connections to its transparent sidecar: what comes in to the inbound \
                  listener, what goes out to the outbound one. Prints the rules unless it is told to --apply them. \
                  To apply them it needs root, the capability NET_ADMIN and the package iptables; the proxy needs none \
                  of these, only a user of its own."
)]
pub struct Options {
    /// The port of the listener with `role: sidecar` and `transparent: true`.
    #[arg(long, value_name = "PORT", default_value = "15006", value_parser = port)]
    inbound_port: u16,
    /// The port of the listener with `role: outbound` and `transparent: true`.
    #[arg(long, value_name = "PORT", default_value = "15001", value_parser = port)]
    outbound_port: u16,
    /// The proxy's user, whose own connections are left alone. Nobody else may run as it: nothing of theirs is redirected.
    #[arg(long, value_name = "UID", default_value = "1337", value_delimiter = ',', value_parser = id)]
    proxy_uid: Vec<u32>,
    /// Groups that are left alone beside it.
    #[arg(long, value_name = "GID", value_delimiter = ',', value_parser = id)]
    proxy_gid: Vec<u32>,
    /// Ports that are redirected when somebody connects to them: `*`, a list, or nothing at all ('').
    #[arg(long, value_name = "PORTS", default_value = "*")]
    include_inbound_ports: All<u16>,
    /// Ports that are not: whoever connects to them gets past the sidecar.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    exclude_inbound_ports: Vec<u16>,
    /// Where connections may go that are redirected: `*`, a list of ranges such as 10.0.0.0/8, or nothing at all ('').
    #[arg(long, value_name = "CIDRS", default_value = "*")]
    include_outbound_cidrs: All<Network>,
    /// Ranges that are not: they are reached past the registry.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = network)]
    exclude_outbound_cidrs: Vec<Network>,
    /// Ports that are not, wherever they are: they are reached past the registry.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port)]
    exclude_outbound_ports: Vec<u16>,
    /// Name servers that may be asked over TCP; those of /etc/resolv.conf, unless given. DNS over UDP is never touched.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    dns_servers: Option<Vec<IpAddr>>,
    /// Print the rules and change nothing. This is what happens without --apply and --clean.
    #[arg(long)]
    dry_run: bool,
    /// Make them the rules of this network namespace, in place of those that an earlier run has made.
    #[arg(long, conflicts_with_all = ["dry_run", "clean"])]
    apply: bool,
    /// Take them away again. With --dry-run, print how.
    #[arg(long)]
    clean: bool,
}

/// Everything (none), or what is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct All<T>(Option<Vec<T>>);

impl<T: Word> FromStr for All<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "*" => Ok(Self(None)),
            "" => Ok(Self(Some(Vec::new()))),
            list => list
                .split(',')
                .map(|word| T::read(word.trim()))
                .collect::<Result<_, _>>()
                .map(|list| Self(Some(list))),
        }
    }
}

/// What a list is made of.
trait Word: Sized {
    fn read(text: &str) -> Result<Self, String>;
}

impl Word for u16 {
    fn read(text: &str) -> Result<Self, String> {
        port(text)
    }
}

impl Word for Network {
    fn read(text: &str) -> Result<Self, String> {
        network(text)
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{text}` is no port from 1 to 65535"))
}

fn network(text: &str) -> Result<Network, String> {
    text.parse()
}

/// Whoever is root would get past the sidecar with it.
fn id(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("root is not the proxy's own; give it a user such as 1337".to_owned()),
        Ok(id) => Ok(id),
        Err(_) => Err(format!("`{text}` is no number of a user such as 1337")),
    }
}

impl Options {
    /// Whose connections are the proxy's own, as matches.
    fn owners(&self) -> impl Iterator<Item = String> {
        let users = self.proxy_uid.iter().map(|uid| format!("-m owner --uid-owner {uid}"));
        users.chain(self.proxy_gid.iter().map(|gid| format!("-m owner --gid-owner {gid}")))
    }

    fn name_servers(&self) -> Vec<IpAddr> {
        match &self.dns_servers {
            Some(given) => given.clone(),
            None => named_in(&std::fs::read_to_string(RESOLVERS).unwrap_or_default()),
        }
    }

    /// What would go wrong with rules that can be made.
    fn check(&self) -> Result<(), String> {
        if self.inbound_port == self.outbound_port {
            return Err(format!(
                "--inbound-port and --outbound-port are both {}: each is a listener of its own, such as 15006 and 15001",
                self.inbound_port
            ));
        }
        Ok(())
    }
}

fn named_in(resolvers: &str) -> Vec<IpAddr> {
    let one = |line: &str| line.strip_prefix("nameserver")?.trim().parse().ok();
    resolvers.lines().filter_map(one).collect()
}

/// The command, for the binary.
pub fn command() -> Extra {
    Extra { command: Options::augment_args(Command::new("init-iptables")), run }
}

fn run(matches: &ArgMatches) -> ExitCode {
    let options = match Options::from_arg_matches(matches) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    if let Err(problem) = options.check() {
        cli::tell(&format!("error: {problem}"));
        return ExitCode::from(cli::BAD_INPUT);
    }
    let done = match (options.clean, options.apply) {
        (true, _) => apply::clean(options.dry_run),
        (false, true) => apply::install(&options),
        (false, false) => {
            cli::answer(&printed(&options));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::fail(&error),
    }
}

/// The rules for both families, as a person pipes them into `iptables-restore --noflush`.
fn printed(options: &Options) -> String {
    let one = |family: Family| {
        format!("# {} --noflush\n{}", apply::restore(family), rules::install(options, family, ""))
    };
    Family::BOTH.map(one).concat()
}

#[cfg(test)]
fn parse(args: &[&str]) -> Result<Options, clap::Error> {
    let command = Options::augment_args(Command::new("init-iptables"));
    let matches = command.try_get_matches_from(std::iter::once(&"init-iptables").chain(args))?;
    Options::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_say_what_would_be_right() {
        for (args, expected) in [
            (["--proxy-uid=0"], "give it a user such as 1337"),
            (["--proxy-uid=proxy"], "`proxy` is no number of a user such as 1337"),
            (["--inbound-port=0"], "`0` is no port from 1 to 65535"),
            (["--exclude-inbound-ports=22,99999"], "`99999` is no port from 1 to 65535"),
            (["--include-inbound-ports=http"], "`http` is no port from 1 to 65535"),
            (["--exclude-outbound-cidrs=10.0.0.0/40"], "is no range of addresses such as 10.0.0.0/8"),
            (["--include-outbound-cidrs=internal"], "is no range of addresses such as 10.0.0.0/8"),
            (["--dns-servers=kube-dns"], "invalid IP address"),
            (["--inbound-ports=1"], "--inbound-port"),
        ] {
            let error = parse(&args).unwrap_err().to_string();
            assert!(error.contains(expected), "{args:?} gave\n{error}");
        }
        assert!(parse(&["--apply", "--clean"]).is_err());
        let both = parse(&["--inbound-port=15001"]).unwrap().check().unwrap_err();
        assert!(both.contains("such as 15006 and 15001"), "{both}");
    }

    #[test]
    fn what_is_printed_can_be_restored() {
        let text = printed(&parse(&["--dns-servers=10.96.0.10"]).unwrap());
        assert!(text.starts_with("# iptables-restore --noflush\n*nat\n"), "{text}");
        assert!(text.contains("COMMIT\n# ip6tables-restore --noflush\n*nat\n"), "{text}");
    }

    #[test]
    fn name_servers_are_those_of_the_machine() {
        let found = named_in("search a.test\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n");
        assert_eq!(found, ["10.96.0.10".parse::<IpAddr>().unwrap(), "fd00::a".parse().unwrap()]);
    }
}
