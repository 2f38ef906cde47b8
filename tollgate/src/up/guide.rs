//! What `tollgate up` tells its person: addresses, a link, and a command for each row of the demo.

use std::path::Path;

use super::parts::DOMAIN;
use super::{Mesh, Options};
use crate::commands::say;
use crate::demo::issuer::NAME;

/// Prints it all, ending in `ready`.
pub(super) async fn print(mesh: &Mesh, options: &Options) -> anyhow::Result<()> {
    let at = mesh.addresses();
    let command = own_command();
    let data = if options.data == Path::new("data") {
        String::new()
    } else {
        format!(" --data {}", options.data.display())
    };
    let token = |user: &str, scope: &str| {
        format!("-H \"Authorization: Bearer $({command} token{data} --user {user} --scope {scope})\"")
    };
    let url = format!("http://{}", at.ingress);

    say("");
    say(&format!("  ingress      {url}"));
    say(&format!("  … with mTLS  https://localhost:{}", at.ingress_mtls.port()));
    say(&format!("  dashboard    {}", mesh.login_link().await?));
    say("               (signs in once; `tollgate dashboard login` prints another)");
    say(&format!("  policy API   http://{}    limits and data in {}", at.authz_http, options.data.display()));
    say(&format!("               (https:// there too, by the roots of `{command} ca bundle{data}`)"));
    say(&format!(
        "  authz        {}    rate limit {}    OTLP {} (gRPC), {} (HTTP)",
        at.authz, at.ratelimit, at.otlp_grpc, at.otlp_http
    ));
    say(&format!("  demo issuer  `{NAME}`, key in {}", options.data.join("demo").display()));
    say("");
    say("Try:");
    let rows = [
        ("200, open to anyone", format!("curl -i {url}/healthz")),
        ("401, no token", format!("curl -i {url}/policies/POL-1042")),
        (
            "401, expired token",
            format!(
                "curl -i {url}/policies/POL-1042 -H \"Authorization: Bearer $({command} token{data} --user reader --scope policies:read --expired)\""
            ),
        ),
        ("200", format!("curl -i {url}/policies/POL-1042 {}", token("reader", "policies:read"))),
        (
            "403, the scope is missing",
            format!("curl -i {url}/policies/POL-1042 {}", token("reader", "profile")),
        ),
        ("403, no role", format!("curl -i {url}/policies/POL-1042 {}", token("outsider", "policies:read"))),
        (
            "403, readers may not write",
            format!("curl -i -X POST {url}/policies {}", token("reader", "policies:write")),
        ),
        ("201", format!("curl -i -X POST {url}/policies {}", token("editor", "policies:write"))),
        (
            "200, having called policies, payments and, by way of the egress gateway, the credit bureau",
            format!("curl -i -X POST {url}/quotes {}", token("adjuster", "quotes:create")),
        ),
        (
            "403, whoever asks: only the workload quotes may",
            format!("curl -i {url}/payments {}", token("adjuster", "quotes:create")),
        ),
        (
            "200, over mTLS as a workload of the mesh",
            format!(
                "{command} ca issue{data} --id spiffe://{DOMAIN}/ns/insurance/sa/me --out /tmp/tollgate-me && \
                 curl -i --cacert /tmp/tollgate-me/ca.crt --cert /tmp/tollgate-me/tls.crt --key /tmp/tollgate-me/tls.key \
                 https://localhost:{}/policies/POL-1042 {}",
                at.ingress_mtls.port(),
                token("reader", "policies:read")
            ),
        ),
        (
            "200 by version 1.1, which gets a tenth of all others",
            format!(
                "curl -i {url}/policies/POL-1042 -H 'x-preview: true' {}",
                token("reader", "policies:read")
            ),
        ),
        (
            "20 to 40 pass, the rest are 429",
            format!(
                "T=$({command} token{data} --user reader --scope policies:read); seq 60 | xargs -P 60 -I@ curl -s -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: Bearer $T\" {url}/policies/POL-@ | sort | uniq -c"
            ),
        ),
    ];
    for (expected, line) in rows {
        say(&format!("  # {expected}"));
        say(&format!("  {line}"));
    }
    say(
        "  # what happens when an instance breaks, too much comes at once, a version is new, a stranger is called",
    );
    say(&format!("  {command} demo{data}"));
    say("");
    say("ready (Ctrl-C stops it)");
    Ok(())
}

pub(super) fn stopping() {
    say("stopping");
}

/// How the person called us, so that the lines above can be pasted.
fn own_command() -> String {
    std::env::args().next().unwrap_or_else(|| "tollgate".to_owned())
}
