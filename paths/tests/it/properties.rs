//! What holds for any path and any set of templates.

use proptest::prelude::*;
use tollgate_paths::{Level, Template, TemplateTrie, normalize};

const LEVELS: [Level; 4] = [Level::None, Level::Base, Level::MergeSlashes, Level::DecodeAndMerge];

/// Text made of the pieces that paths are attacked with.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5C", "\\", ";", "a", "b", "%", "%2", "%25", "%00", "#",
        "?", "\u{e4}", "%c0%ae", " ", "5", "e", "f",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn template() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["a", "b", "{*}", "a%2F", ""]);
    (prop::collection::vec(piece, 1..4), any::<bool>()).prop_map(|(mut pieces, rest)| {
        if rest {
            pieces.push("{**}");
        }
        format!("/{}", pieces.join("/"))
    })
}

proptest! {
    #[test]
    fn any_text_is_answered(path in ".{0,64}") {
        for level in LEVELS {
            let _ = normalize(&path, level);
        }
        let _ = Template::parse(&path);
    }

    #[test]
    fn normalising_twice_changes_nothing(path in hostile_path()) {
        for level in LEVELS {
            if let Ok(once) = normalize(&path, level) {
                let twice = normalize(&once, level);
                prop_assert_eq!(twice.as_deref(), Ok(&*once), "{:?}", level);
            }
        }
    }

    #[test]
    fn no_dot_segment_survives(path in hostile_path()) {
        for level in [Level::Base, Level::MergeSlashes, Level::DecodeAndMerge] {
            if let Ok(normal) = normalize(&path, level) {
                let found = normal.split('/').any(|segment| segment == "." || segment == "..");
                prop_assert!(normal.starts_with('/') && !found, "{} became {}", path, normal);
            }
        }
    }

    #[test]
    fn the_trie_agrees_with_its_templates(
        templates in prop::collection::vec(template(), 0..12),
        path in "(/(a|b|c|a%2f|)){1,5}",
    ) {
        let parsed: Vec<Template> = templates.iter().filter_map(|text| Template::parse(text).ok()).collect();
        let mut trie = TemplateTrie::new();
        for (index, template) in parsed.iter().enumerate() {
            trie.insert(template, index);
        }
        let mut found: Vec<usize> = trie.matches(&path).copied().collect();
        found.sort_unstable();
        let expected: Vec<usize> =
            (0..parsed.len()).filter(|index| parsed[*index].matches(&path)).collect();
        prop_assert_eq!(found, expected);
    }
}
