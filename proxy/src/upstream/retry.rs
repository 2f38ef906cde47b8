//! Whether a request is tried again, and when. Pure: how a try ended in, a wait out.
//!
//! Whether there is room for another try is the breaker's to say, and whether the request can be sent a second time
//! is known by whoever has it.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use tollgate_runtime::config::Invalid;

use super::tally::Outcome;
use crate::config::{self, RetryOn};
use crate::error::{ProxyError, Retry as Repeatable};

/// A route's rules, compiled.
#[derive(Debug)]
pub struct Retry {
    on: Vec<RetryOn>,
    codes: Vec<StatusCode>,
    methods: Vec<Method>,
    /// Tries beyond the first.
    pub(crate) attempts: u32,
    /// How long each try may take.
    pub(crate) per_try_timeout: Option<Duration>,
    backoff: Duration,
    max_backoff: Duration,
}

/// Tries beyond the first, at most.
const MAX_ATTEMPTS: u32 = 10;

impl Retry {
    pub(crate) fn compile(config: &config::Retry, key: &str) -> Result<Self, Invalid> {
        if !(1..=MAX_ATTEMPTS).contains(&config.attempts) {
            let problem = format!("{} tries are too many or none", config.attempts);
            return Err(Invalid::new(format!("{key}.attempts"), problem, format!("1 to {MAX_ATTEMPTS}")));
        }
        if config.on.contains(&RetryOn::Timeout) && config.per_try_timeout.is_none() {
            return Err(Invalid::new(
                format!("{key}.on"),
                "no try times out before the request as a whole does",
                "`per_try_timeout` beside `timeout`",
            ));
        }
        let code = |(index, code): (usize, &u16)| {
            StatusCode::from_u16(*code).map_err(|_| {
                let problem = format!("{code} is not a status");
                Invalid::new(format!("{key}.codes[{index}]"), problem, "a number from 200 to 599")
            })
        };
        let method = |(index, name): (usize, &String)| {
            Method::from_bytes(name.as_bytes()).map_err(|_| {
                let problem = format!("`{name}` is not a method");
                Invalid::new(format!("{key}.methods[{index}]"), problem, "a method in capitals such as GET")
            })
        };
        Ok(Self {
            on: config.on.clone(),
            codes: config.codes.iter().enumerate().map(code).collect::<Result<_, _>>()?,
            methods: config.methods.iter().enumerate().map(method).collect::<Result<_, _>>()?,
            attempts: config.attempts,
            per_try_timeout: config.per_try_timeout,
            backoff: config.backoff,
            max_backoff: config.max_backoff,
        })
    }

    /// Whether requests of this method may be acted on twice.
    pub(crate) fn admits(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// The wait before try number `next` (the first is 0) after an answer; none when the answer stands. `left` is
    /// what remains of the request's time, `draw` is chance from 0 to 1.
    pub(crate) fn after_answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        next: u32,
        left: Duration,
        draw: f64,
    ) -> Option<Duration> {
        let outcome = Outcome::of(status, headers);
        let wanted = self.codes.contains(&status)
            || self.on.iter().any(|on| match on {
                RetryOn::Gateway => outcome == Outcome::Gateway,
                RetryOn::ServerError => matches!(outcome, Outcome::Gateway | Outcome::ServerError),
                RetryOn::TooManyRequests => status == StatusCode::TOO_MANY_REQUESTS,
                RetryOn::Reset | RetryOn::Timeout => false,
            });
        if !wanted {
            return None;
        }
        let wait = match headers.get(RETRY_AFTER) {
            // Who says when to come back is not asked before; a date is farther away than we wait.
            Some(after) => {
                let seconds = after.to_str().ok()?.trim().parse().ok()?;
                let asked = Duration::from_secs(seconds);
                if asked > self.max_backoff {
                    return None;
                }
                asked.max(self.wait(next, draw))
            }
            None => self.wait(next, draw),
        };
        (next <= self.attempts && wait < left).then_some(wait)
    }

    /// The same after a failure. `timed_out`: it was this try's time that was over, not the request's.
    pub(crate) fn after_failure(
        &self,
        error: &ProxyError,
        timed_out: bool,
        next: u32,
        left: Duration,
        draw: f64,
    ) -> Option<Duration> {
        let wanted = match error.may_retry() {
            Repeatable::Yes => true,
            Repeatable::IfReused => self.on.contains(&RetryOn::Reset),
            Repeatable::Never => timed_out && self.on.contains(&RetryOn::Timeout),
        };
        let wait = self.wait(next, draw);
        (wanted && next <= self.attempts && wait < left).then_some(wait)
    }

    fn wait(&self, next: u32, draw: f64) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << next.saturating_sub(1).min(MAX_ATTEMPTS));
        doubled.min(self.max_backoff).mul_f64(1.0 - draw.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(on: &[RetryOn], codes: &[u16]) -> Retry {
        let config = config::Retry {
            attempts: 2,
            on: on.to_vec(),
            codes: codes.to_vec(),
            methods: vec!["GET".into()],
            per_try_timeout: Some(Duration::from_secs(1)),
            backoff: Duration::from_millis(20),
            max_backoff: Duration::from_secs(1),
        };
        Retry::compile(&config, "retry").unwrap()
    }

    const PLENTY: Duration = Duration::from_secs(60);

    #[test]
    fn after_answers() {
        for (status, after, on, codes, next, expected) in [
            (503, None, vec![RetryOn::Gateway], vec![], 1, Some(20)),
            (503, None, vec![RetryOn::Gateway], vec![], 2, Some(40)),
            (503, None, vec![RetryOn::Gateway], vec![], 3, None),
            (500, None, vec![RetryOn::Gateway], vec![], 1, None),
            (500, None, vec![RetryOn::ServerError], vec![], 1, Some(20)),
            (429, None, vec![RetryOn::TooManyRequests], vec![], 1, Some(20)),
            (409, None, vec![], vec![409], 1, Some(20)),
            (200, None, vec![RetryOn::ServerError], vec![], 1, None),
            (503, Some("1"), vec![RetryOn::Gateway], vec![], 1, Some(1000)),
            (503, Some("0"), vec![RetryOn::Gateway], vec![], 1, Some(20)),
            (503, Some("2"), vec![RetryOn::Gateway], vec![], 1, None),
            (503, Some("Wed, 21 Oct 2099 07:28:00 GMT"), vec![RetryOn::Gateway], vec![], 1, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(after) = after {
                headers.insert(RETRY_AFTER, after.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            let wait = retry(&on, &codes).after_answer(status, &headers, next, PLENTY, 0.0);
            assert_eq!(wait, expected.map(Duration::from_millis), "{status} {after:?} {on:?} {next}");
        }
    }

    #[test]
    fn after_failures() {
        let refused = || ProxyError::UpstreamConnect(std::io::ErrorKind::ConnectionRefused.into());
        for (error, timed_out, on, expected) in [
            (refused(), false, vec![], true),
            (ProxyError::UpstreamReset(None), false, vec![RetryOn::Reset], true),
            (ProxyError::UpstreamReset(None), false, vec![RetryOn::Gateway], false),
            (ProxyError::UpstreamTimeout(PLENTY), true, vec![RetryOn::Timeout], true),
            (ProxyError::UpstreamTimeout(PLENTY), false, vec![RetryOn::Timeout], false),
            (ProxyError::ClientGone, false, vec![RetryOn::Reset, RetryOn::Timeout], false),
        ] {
            let wait = retry(&on, &[]).after_failure(&error, timed_out, 1, PLENTY, 0.0);
            assert_eq!(wait.is_some(), expected, "{error} {on:?}");
        }
        let no_time = retry(&[], &[]).after_failure(&refused(), false, 1, Duration::from_millis(10), 0.0);
        assert_eq!(no_time, None);
    }

    #[test]
    fn waits_differ() {
        let retry = retry(&[], &[]);
        assert_eq!(retry.wait(1, 1.0), Duration::from_millis(10));
        assert_eq!(retry.wait(9, 0.0), Duration::from_secs(1));
    }
}
