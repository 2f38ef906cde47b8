//! Normalisation and templates as Istio's integration tests expect them (Apache-2.0, licence beside the files).

use serde_json::Value;
use tollgate_paths::{Level, Template, TemplateTrie, normalize};

const NORMALIZATION: &str = include_str!("../vectors/istio/normalization.json");
const TEMPLATES: &str = include_str!("../vectors/istio/path_template_cases.json");

fn level(name: &str) -> Level {
    match name {
        "NONE" => Level::None,
        "BASE" => Level::Base,
        "MERGE_SLASHES" => Level::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => Level::DecodeAndMerge,
        other => panic!("unknown level {other}"),
    }
}

#[test]
fn every_normalization_case() {
    let file: Value = serde_json::from_str(NORMALIZATION).unwrap();
    let mut count = 0;
    for (name, group) in file["levels"].as_object().unwrap() {
        let level = level(group["level"].as_str().unwrap());
        for case in group["cases"].as_array().unwrap() {
            let path = case["in"].as_str().unwrap();
            let normal = normalize(path, level);
            match case["out"].as_str().unwrap() {
                "400" => assert!(normal.is_err(), "{name}: {path} gave {normal:?}"),
                out => assert_eq!(normal.as_deref(), Ok(out), "{name}: {path}"),
            }
            count += 1;
        }
    }
    assert!(count > 300, "only {count} cases were found in the file");
}

#[test]
fn every_template_case() {
    let file: Value = serde_json::from_str(TEMPLATES).unwrap();
    let templates: Vec<Template> = file["templates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| Template::parse(text.as_str().unwrap()).unwrap())
        .collect();
    let mut trie = TemplateTrie::new();
    for (index, template) in templates.iter().enumerate() {
        trie.insert(template, index);
    }
    for case in file["cases"].as_array().unwrap() {
        let path = case["path"].as_str().unwrap();
        let path = path.split_once('?').map_or(path, |(path, _query)| path);
        let expected = case["allow"].as_bool().unwrap();
        assert_eq!(templates.iter().any(|template| template.matches(path)), expected, "{path}");
        assert_eq!(trie.matches(path).next().is_some(), expected, "trie on {path}");
    }
}
