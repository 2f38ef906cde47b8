//! A token explained: what is wrong with it, or what policy would read of it.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Admin;
use super::caller::Caller;
use super::extract::Json;
use super::problem::{Problem, ProblemBody};
use crate::token::Occasion;
use crate::token::explain::Explanation;

/// A token to explain.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenQuestion {
    /// The token. It is looked at and forgotten.
    token: String,
    /// `namespace/name` of a service to which it might be presented: what that service accepts is looked at as well.
    #[serde(default)]
    service: Option<String>,
}

/// Explains a token.
///
/// For who may read the service that is named, or list the issuers. Every check, ticked or crossed, with the code of the failure; the header and the claims; what policy would read. No
/// part of the signature comes back, and what is asked is not recorded.
#[utoipa::path(post, path = "/v1/token/verify", tag = "tools", request_body = TokenQuestion,
    responses((status = 200, body = Explanation), (status = "default", body = ProblemBody)))]
pub(super) async fn verify(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    Json(question): Json<TokenQuestion>,
) -> Result<Json<Explanation>, Problem> {
    let may_ask = match &question.service {
        Some(key) => caller.may_see_service(&admin, key),
        // Without a service it is a question about issuers, which belong to no namespace.
        None => caller.may_see_issuers(&admin),
    };
    if !may_ask {
        let detail =
            "name a service that you may read; without one this is for those who may list the issuers";
        return Err(Problem::new(StatusCode::FORBIDDEN, "role_missing", detail));
    }
    let snapshot = admin.authorizer.cell().load_full();
    let service = match &question.service {
        None => None,
        Some(key) => match snapshot.service(key) {
            Some(rules) => Some(&*rules.service),
            None => return Err(Problem::malformed(format!("service: there is no service `{key}`"))),
        },
    };
    let audiences = service.map_or(&[][..], |service| &service.audiences);
    let occasion = Occasion { audiences, holder: None, now: admin.authorizer.now() };
    let judge = admin.authorizer.judge(&snapshot);
    Ok(Json(judge.explain(question.token.trim(), service, &occasion)))
}
