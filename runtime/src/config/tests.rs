//! Errors must name file, line, key and remedy; overrides must land where they say.

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: String,
    #[serde(default)]
    limits: Vec<Limit>,
    #[serde(default)]
    process: ProcessConfig,
    #[serde(default)]
    telemetry: TelemetryConfig,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    unit: String,
    #[serde(with = "duration", default)]
    window: std::time::Duration,
}

impl ServiceConfig for Sample {
    const NAME: &'static str = "sample";
    const ENV_SHORT: &'static [(&'static str, &'static str)] = &[("TOLLGATE_NAME", "name")];

    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn check(&self) -> Result<(), Invalid> {
        match self.limits.iter().position(|limit| limit.unit == "fortnight") {
            Some(at) => Err(Invalid::new(
                format!("limits[{at}].unit"),
                "`fortnight` is unknown",
                "second, minute, hour or day",
            )),
            None => Ok(()),
        }
    }
}

fn load_text(text: &str, sets: &[&str], env: &[(&str, &str)]) -> Result<Sample, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sample.yaml");
    std::fs::write(&file, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    load::<Sample>(&file, &sets, &Env::of(env.iter().copied()))
        .map(|loaded| loaded.config)
        .map_err(|e| e.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn errors_name_file_line_column_and_key() {
    for (text, expected) in [
        (
            "name: a\nlimits:\n  - unit: second\n  - unti: x\n",
            "sample.yaml:4:11: limits[1].unti: unknown field `unti`, expected `unit` or `window`",
        ),
        (
            "name: a\nlimits:\n  - {unit: s, window: 5 parsecs}\n",
            "sample.yaml:3:23: limits[0].window: `5 parsecs` is not a duration; expected a whole number with ms, s, m, h or d, such as 200ms",
        ),
        (
            "name: a\nlimits:\n  - unit: second\n  - unit: fortnight\n",
            "sample.yaml:4:11: limits[1].unit: `fortnight` is unknown; expected second, minute, hour or day",
        ),
        ("limits: []\n", "sample.yaml:1:1: missing field `name`"),
        ("name: [a\n", "sample.yaml:1:7: name: unclosed bracket '['"),
    ] {
        assert_eq!(load_text(text, &[], &[]).unwrap_err(), expected);
    }
}

#[test]
fn environment_and_set_override_the_file() {
    let text = "name: file\nlimits: [{unit: second}]\n";
    assert_eq!(load_text(text, &[], &[]).unwrap().name, "file");
    assert_eq!(load_text(text, &[], &[("TOLLGATE_NAME", "short")]).unwrap().name, "short");
    assert_eq!(load_text(text, &["name=flag"], &[("TOLLGATE_NAME", "short")]).unwrap().name, "flag");
    let changed =
        load_text(text, &["limits.0.unit=hour"], &[("TOLLGATE_TELEMETRY__SAMPLE_RATIO", "0.5")]).unwrap();
    assert_eq!((changed.limits[0].unit.as_str(), changed.telemetry.sample_ratio), ("hour", 0.5));
    assert!(load_text(text, &[], &[("TOLLGATE_AUTHZ_SERVICE_HOST", "10.0.0.1")]).is_ok());
}

#[test]
fn a_section_of_nothing_has_its_defaults_and_words_are_no_booleans() {
    let sample = load_text("name: a\nlimits:\nprocess:\ntelemetry:\n", &[], &[]).unwrap();
    assert_eq!(
        (sample.limits.len(), sample.telemetry.sample_ratio),
        (0, TelemetryConfig::default().sample_ratio)
    );
    assert_eq!(load_text("name: no\n", &[], &[]).unwrap().name, "no");
    assert_eq!(load_text("name: a\n", &["name=off"], &[]).unwrap().name, "off");
    let files =
        [("1.yaml", "name: a\nlimits:\n"), ("2.yaml", "limits: [{unit: day}]\n"), ("3.yaml", "limits:\n")];
    assert_eq!(load_folder(&files, &[]).unwrap().limits.len(), 1);
}

#[test]
fn a_bad_override_is_named() {
    let text = "name: a\nlimits: [{unit: second}]\n";
    for (sets, expected) in [
        (["nonsense"], "nonsense: expected key.path=value"),
        (["limits.7.unit=x"], "--set limits.7.unit=x: `limits.7.unit`: `7` is not one of the 1 entries"),
        (["telemetry.sample_ratio=lots"], "--set telemetry.sample_ratio=lots: a text; expected f64"),
    ] {
        assert_eq!(load_text(text, &sets, &[]).unwrap_err(), expected);
    }
}

#[test]
fn documents_keep_their_lines() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        kind: String,
    }
    let text = "# a\n---\nkind: One\n---\n\n---\nkind: Two\nextra: 1\n";
    let error = parse_yaml_documents::<Doc>(Path::new("p.yaml"), text).unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (Some(8), "extra"));
    let good = parse_yaml_documents::<Doc>(Path::new("p.yaml"), "kind: One\n---\nkind: Two\n").unwrap();
    let kinds: Vec<_> = good.iter().map(|d| (d.line, d.value.kind.as_str())).collect();
    assert_eq!(kinds, [(1, "One"), (3, "Two")]);
}

#[test]
fn durations_read_and_write() {
    for (text, millis) in
        [("200ms", 200), ("5s", 5_000), ("10m", 600_000), ("6h", 21_600_000), ("2d", 172_800_000)]
    {
        let parsed = duration::parse(text).unwrap();
        assert_eq!(parsed.as_millis(), millis);
        assert_eq!(duration::format(parsed), text);
    }
    for text in ["", "5", "s", "-1s", "1.5s", "99999999999999999999d", "5 s"] {
        assert!(duration::parse(text).is_err(), "{text}");
    }
}

#[test]
fn secrets_do_not_print() {
    let secret = Secret::new("postgres://user:hunter2@db.internal:5432/tollgate?sslmode=verify-full");
    assert_eq!(format!("{secret:?}"), "[redacted]");
    assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
    assert_eq!(secret.redacted_url(), "postgres://db.internal:5432/tollgate");
}

fn load_folder(files: &[(&str, &str)], sets: &[&str]) -> Result<Sample, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    load::<Sample>(folder.path(), &sets, &Env::empty())
        .map(|loaded| loaded.config)
        .map_err(|e| e.to_string().replace(&folder.path().display().to_string(), "DIR"))
}

#[test]
fn the_files_of_a_folder_are_one_configuration() {
    let files = [
        ("20-more.yaml", "limits:\n  - {unit: hour}\n  - {unit: day}\n"),
        ("10-first.yaml", "name: a\nlimits: [{unit: second}]\n"),
        ("30-nothing.yml", "# nothing yet\n"),
        ("notes.txt", "limits: 7"),
        (".hidden.yaml", "name: b"),
    ];
    let units = |sets: &[&str]| {
        let sample = load_folder(&files, sets).unwrap();
        sample.limits.into_iter().map(|limit| limit.unit).collect::<Vec<_>>()
    };
    assert_eq!(units(&[]), ["second", "hour", "day"]);
    assert_eq!(units(&["limits.1.unit=minute"]), ["second", "minute", "day"]);
}

#[test]
fn what_is_wrong_in_a_folder_is_told_by_its_file() {
    let first = ("1.yaml", "name: a\nlimits: [{unit: second}]\n");
    let check = |files: &[(&str, &str)], sets: &[&str], expected: &str| {
        let told = load_folder(files, sets).unwrap_err();
        assert!(told.contains(expected), "{told}");
    };
    let bad = ("2.yaml", "limits:\n  - {unit: day}\n  - {unit: fortnight}\n");
    check(
        &[first, bad],
        &[],
        "DIR/2.yaml:3:12: limits[1].unit: `fortnight` is unknown; expected second, minute",
    );
    check(&[first, ("2.yaml", "limits:\n  - {unti: day}\n")], &[], "DIR/2.yaml:2:");
    check(&[first, ("2.yaml", "limits:\n  - {unit: [\n")], &[], "DIR/2.yaml:");
    check(
        &[first, ("2.yaml", "\nname: b\n")],
        &[],
        "DIR/2.yaml:2:7: name: stands in DIR/1.yaml too; expected one of",
    );
    let nameless = ("2.yaml", "limits: []\n");
    check(&[nameless], &[], "DIR/2.yaml:1:1: missing field `name`");
    check(&[nameless, ("3.yaml", "limits: []\n")], &[], "DIR: missing field `name`");
    check(&[first], &["limits.0.unit=[]"], "--set limits.0.unit=[]");
    check(&[("readme.txt", "")], &[], "DIR: holds no .yaml file");
}
