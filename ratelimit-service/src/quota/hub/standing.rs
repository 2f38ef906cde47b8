//! How divided limits stand, for people.

use serde::Serialize;

use super::state::{Divided, State};

/// How a divided limit stands, for people.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Standing {
    /// The limits domain.
    pub domain: String,
    /// The entries that name the counter.
    pub entries: Vec<(String, String)>,
    /// The rule.
    pub rule: String,
    /// The whole limit, a second.
    pub per_second: f64,
    /// What may be taken at once by all together.
    pub burst: u32,
    /// Tokens used beyond rate and burst so far, by the proxies' own reports.
    pub over_admitted: f64,
    /// Shares handed out.
    pub shares: Vec<ShareOf>,
}

/// One proxy's share.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ShareOf {
    /// The client's own name, or the number of its stream.
    pub client: String,
    /// Requests a second.
    pub per_second: f64,
    /// Tokens its bucket holds.
    pub burst: u32,
    /// Requests a second it was last seen wanting; unknown before its second report.
    pub wanted_per_second: Option<f64>,
}

impl State {
    /// Of this many limits.
    pub(super) fn standings(&self, most: usize) -> Vec<Standing> {
        self.divisions.values().take(most).map(|divided| self.standing(divided)).collect()
    }

    fn standing(&self, divided: &Divided) -> Standing {
        let terms = divided.division.terms();
        let shares = divided.division.present().filter_map(|holder| {
            let share = divided.division.told(holder)?;
            let (stream, ..) = divided.seats.get(&holder)?;
            let name = self.streams.get(stream).and_then(|stream| stream.name.as_deref());
            Some(ShareOf {
                client: name.map_or_else(|| stream.to_string(), str::to_owned),
                per_second: f64::from(share.units) / f64::from(terms.fill_seconds),
                burst: share.burst,
                wanted_per_second: divided.division.demand(holder),
            })
        });
        Standing {
            domain: divided.domain.to_string(),
            entries: divided
                .entries
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            rule: divided.rule.to_string(),
            per_second: terms.per_second(),
            burst: terms.burst,
            over_admitted: divided.division.over(),
            shares: shares.collect(),
        }
    }
}
