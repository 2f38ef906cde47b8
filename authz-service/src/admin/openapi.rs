//! The OpenAPI document: made from the handlers, so that it cannot say what they do not do.

use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use super::{Admin, first, open, protected};

#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(
        title = "Tollgate authorization service",
        description = "Policy and decisions. Rights are permissions of this same policy on the service \
            `tollgate-system/admin`, by these very paths; what spans the policy answers from what the caller may read. \
            Errors are `application/problem+json` with a `reason` for programs and the `request_id` to ask about. \
            Lists come in pages: give `next` as `cursor` until there is none. Objects have revisions (`etag`): \
            `If-Match` guards against lost updates, `Idempotency-Key` against doing things twice."
    ),
    tags(
        (name = "objects", description = "Issuers, enforcers and revocations of the cluster; services, roles, \
            bindings and denials of a namespace. One at a time, or many in one epoch."),
        (name = "history", description = "Every change is kept with its author, its reason, and the object before and \
            after. Earlier states can be read, compared and restored."),
        (name = "decisions", description = "What was decided lately and why; what would be decided."),
        (name = "tools", description = "Questions about a policy: what is odd in it, does it do what it should, who \
            may do something, what may somebody do."),
        (name = "certificates", description = "Which workload has which certificate of the built-in authority."),
        (name = "rollouts", description = "Canaries on their way from a first share of the requests to all of them. \
            Proxies make them by reporting; here they are read, held, sent on and rolled back."),
        (name = "service", description = "The service itself."),
    )
)]
struct Document;

/// The document.
pub fn document() -> OpenApi {
    let described = OpenApiRouter::<Admin>::with_openapi(Document::openapi())
        .merge(protected())
        .merge(open())
        .merge(first());
    let mut document = described.into_openapi();
    document.info.license = None;
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "An administrator's token, or a token of an issuer that the service `tollgate-system/admin` accepts.",
    ));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    document.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    document
}
