//! Whether a route asks for authorization: `on`, `off`, or a map.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, MapAccess, Visitor, value};
use serde::{Deserialize, Serialize};

use super::OnError;
use super::words::one_of;

/// What a route changes about authorization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RouteAuthz {
    /// Whether it is asked.
    pub mode: AuthzMode,
    /// What happens without an answer, in place of `authz.on_error`.
    pub on_error: Option<OnError>,
    /// What becomes of paths that upstreams may read in several ways, as the authorization service is told.
    pub guard: Option<Guard>,
}

/// What becomes of a path whose readings lead to different answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// It is refused.
    Deny,
    /// The service's declaration is taken at its word, and what passes so is recorded.
    Log,
    /// As `Log`, without a record.
    Off,
}

impl Guard {
    /// As the context extension `tollgate.guard` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Log => "log",
            Self::Off => "off",
        }
    }
}

impl<'de> Deserialize<'de> for Guard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer, [("deny", Self::Deny), ("log", Self::Log), ("off", Self::Off)])
    }
}

/// Whether authorization is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthzMode {
    /// It is asked about every request.
    #[default]
    On,
    /// The route is open to anyone.
    Off,
}

impl<'de> Deserialize<'de> for AuthzMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer, [("on", Self::On), ("off", Self::Off)])
    }
}

impl<'de> Deserialize<'de> for RouteAuthz {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[derive(Default)]
        struct Long {
            mode: AuthzMode,
            on_error: Option<OnError>,
            guard: Option<Guard>,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RouteAuthz;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`on`, `off` or a map with `mode`, `on_error` and `guard`")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<RouteAuthz, E> {
                let mode = if on { AuthzMode::On } else { AuthzMode::Off };
                Ok(RouteAuthz { mode, ..RouteAuthz::default() })
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<RouteAuthz, E> {
                let mode = AuthzMode::deserialize(value::StrDeserializer::<E>::new(word))?;
                Ok(RouteAuthz { mode, ..RouteAuthz::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteAuthz, A::Error> {
                let Long { mode, on_error, guard } =
                    Long::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(RouteAuthz { mode, on_error, guard })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for RouteAuthz {
    fn schema_name() -> Cow<'static, str> {
        "RouteAuthz".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let on_error = generator.subschema_for::<Option<OnError>>();
        let switch = json_schema!({"anyOf": [{"type": "boolean"}, {"enum": ["on", "off"]}]});
        json_schema!({"anyOf": [switch, {
            "type": "object",
            "properties": {"mode": switch, "on_error": on_error, "guard": {"enum": ["deny", "log", "off"]}},
            "additionalProperties": false
        }]})
    }
}
