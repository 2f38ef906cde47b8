//! What goes wrong on purpose. Pure: the share and a number in, what happens out.

use std::time::Duration;

use http::StatusCode;
use tollgate_runtime::config::Invalid;

use crate::config::{self, Percent};

/// A route's faults, compiled.
#[derive(Debug)]
pub struct Fault {
    delay: Option<(Percent, Duration)>,
    abort: Option<(Percent, StatusCode)>,
}

/// The longest wait; a request in waiting holds a connection.
const MAX_DELAY: Duration = Duration::from_secs(60);

impl Fault {
    pub(crate) fn compile(config: &config::Fault, key: &str) -> Result<Self, Invalid> {
        if config.delay.is_none() && config.abort.is_none() {
            return Err(Invalid::new(key, "nothing goes wrong", "`delay` or `abort`"));
        }
        if let Some(delay) = config.delay.as_ref().filter(|delay| delay.duration > MAX_DELAY) {
            return Err(Invalid::new(
                format!("{key}.delay.duration"),
                format!("{:?} is too long", delay.duration),
                "60s or less",
            ));
        }
        let abort = config.abort.as_ref().map(|abort| {
            let status = StatusCode::from_u16(abort.status).ok();
            let status = status.filter(|status| status.is_client_error() || status.is_server_error());
            status.map(|status| (abort.percent, status)).ok_or_else(|| {
                let problem = format!("{} is not the status of a failure", abort.status);
                Invalid::new(format!("{key}.abort.status"), problem, "a number from 400 to 599")
            })
        });
        let delay = config.delay.as_ref().map(|delay| (delay.percent, delay.duration));
        Ok(Self { delay, abort: abort.transpose()? })
    }

    /// How long a request with this random number waits.
    pub fn delay(&self, draw: u64) -> Option<Duration> {
        self.delay.filter(|(percent, _)| percent.includes(draw)).map(|(_, duration)| duration)
    }

    /// How a request with this random number fails.
    pub fn abort(&self, draw: u64) -> Option<StatusCode> {
        self.abort.filter(|(percent, _)| percent.includes(draw)).map(|(_, status)| status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Abort;

    #[test]
    fn shares_are_kept() {
        let config = config::Fault {
            delay: None,
            abort: Some(Abort { percent: Percent::of_hundred(25), status: 503 }),
        };
        let fault = Fault::compile(&config, "fault").unwrap();
        let failed = (0..1000_u64).filter(|n| fault.abort(n * (u64::MAX / 1000)).is_some()).count();
        assert!((249..=251).contains(&failed), "{failed}");
        assert!(fault.delay(0).is_none());
    }
}
