//! One round of load by wrk, and what it cost the process under test.

use std::fmt;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::process::{HELPER_CORE, cpu, rss_mib};

/// What one round gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) rss_mib: f64,
}

impl Sample {
    /// The median of each figure.
    pub(crate) fn median(samples: Vec<Self>) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            per_second: middle(|s| s.per_second),
            cpu_us: middle(|s| s.cpu_us),
            p99_us: middle(|s| s.p99_us),
            rss_mib: middle(|s| s.rss_mib),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9.0}   {:>14.1}   {:>6.0}   {:>7.0}",
            self.per_second, self.cpu_us, self.p99_us, self.rss_mib
        )
    }
}

/// Loads `address` for a while. A round with any answer but 2xx measures something else and is an error.
pub(crate) fn measure(
    address: SocketAddr,
    pid: u32,
    token: Option<&str>,
    connections: u32,
    round: Duration,
) -> anyhow::Result<Sample> {
    let before = cpu(pid)?;
    let output = Command::new("taskset")
        .args(["-c", &HELPER_CORE.to_string(), "wrk", "-t1", "--latency", "--timeout", "10s"])
        .args([format!("-c{connections}"), format!("-d{}s", round.as_secs())])
        .args(token.map(|token| format!("-Hauthorization: Bearer {token}")))
        .arg(format!("http://{address}/policies/POL-1042"))
        .output()
        .context("wrk cannot be run; on Debian: apt-get install -y wrk")?;
    let spent = cpu(pid)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("the round did not go cleanly:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let requests: f64 = figure(&text, " requests in ", 0)?;
    Ok(Sample {
        per_second: text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
            .and_then(|rest| rest.trim().parse().ok())
            .context("wrk printed no rate")?,
        cpu_us: spent.as_secs_f64() * 1e6 / requests,
        p99_us: text
            .lines()
            .find_map(|line| line.trim().strip_prefix("99%"))
            .and_then(|rest| micros(rest.trim()))
            .context("wrk printed no 99th percentile")?,
        rss_mib: rss_mib(pid)?,
    })
}

fn figure(text: &str, marker: &str, word: usize) -> anyhow::Result<f64> {
    text.lines()
        .find(|line| line.contains(marker))
        .and_then(|line| line.split_whitespace().nth(word)?.parse().ok())
        .with_context(|| format!("wrk printed no line with `{marker}`"))
}

/// `1.23ms`, `456us` or `1.2s` in microseconds.
fn micros(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_read_in_every_unit() {
        for (text, expected) in [("456us", 456.0), ("1.50ms", 1500.0), ("2s", 2e6)] {
            assert_eq!(micros(text), Some(expected));
        }
        assert_eq!(micros("fast"), None);
    }

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let sample = |n: f64| Sample { per_second: n, cpu_us: -n, p99_us: n, rss_mib: n };
        let median = Sample::median(vec![sample(3.0), sample(1.0), sample(2.0)]);
        assert_eq!((median.per_second, median.cpu_us), (2.0, -2.0));
    }
}
