//! Writes `dashboards/openapi.json`, from which the page's TypeScript types are generated.
//! `cargo run -p tollgate-dashboard --example openapi`

fn main() -> std::io::Result<()> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    std::fs::write(file, tollgate_dashboard::api::openapi_json())
}
