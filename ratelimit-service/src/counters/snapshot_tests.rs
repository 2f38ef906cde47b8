//! Counters on disk: found again, bounded, and refused where they are not whole.

use std::sync::Arc;

use super::*;
use crate::counters::Batch;
use crate::limits::{Algorithm, Limit, Mode};
use crate::window::{Hits, Tally, Unit, Window};

const NOW: u64 = 86_400 * 20_000;
const BOUNDS: Bounds = Bounds { max_keys: 100_000, max_bytes: usize::MAX };

fn limits() -> [Limit; 3] {
    let window = Window::of_several(std::num::NonZeroU32::MIN, Unit::Hour).unwrap();
    let of = |algorithm| Limit { requests: 10, window, algorithm };
    [of(Algorithm::FixedWindow), of(Algorithm::TokenBucket { burst: 20 }), of(Algorithm::SlidingWindow)]
}

fn count(store: &MemoryStore, caller: u64, hits: Hits, now_seconds: u64) -> Vec<Tally> {
    let mut batch = Batch::with_capacity(3);
    for (index, limit) in limits().into_iter().enumerate() {
        batch.push(limit, Mode::Enforce, hits, |buffer| {
            buffer.extend_from_slice(format!("{index}:{caller}").as_bytes());
        });
    }
    let mut tallies = Vec::new();
    store.count_now(&Arc::new(batch), now_seconds * 1_000_000, &mut tallies);
    tallies
}

fn written(callers: u64) -> (MemoryStore, tempfile::TempDir, std::path::PathBuf) {
    let store = MemoryStore::new(BOUNDS);
    for caller in 0..callers {
        count(&store, caller, Hits::Add(1 + caller % 7), NOW);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.snapshot");
    assert_eq!(write(&store, &file, NOW).unwrap(), callers * 3);
    (store, folder, file)
}

#[test]
fn counters_are_found_again_as_they_were() {
    let (before, _folder, file) = written(1_000);
    let after = read(&file, BOUNDS, NOW).unwrap().unwrap();
    assert_eq!(after.len(), before.len());
    for later in [0, 600] {
        for caller in 0..1_000 {
            let ask = |store| count(store, caller, Hits::Look, NOW + later);
            assert_eq!(ask(&after), ask(&before), "{caller} after {later} s");
        }
    }
    assert!(read(Path::new("/nowhere/counters"), BOUNDS, NOW).unwrap().is_none());
}

#[test]
fn what_is_over_by_now_and_what_is_too_much_stays_out() {
    let (_before, _folder, file) = written(1_000);
    assert!(read(&file, BOUNDS, NOW + 86_400).unwrap().unwrap().is_empty());
    let small = read(&file, Bounds::keys(640), NOW).unwrap().unwrap();
    assert!(small.len() <= 640, "{}", small.len());
}

#[test]
fn a_file_that_is_not_whole_is_refused() {
    let (_before, folder, file) = written(100);
    let whole = std::fs::read(&file).unwrap();
    let other = folder.path().join("other");
    let told = |bytes: &[u8]| {
        std::fs::write(&other, bytes).unwrap();
        read(&other, BOUNDS, NOW).map(drop).unwrap_err().to_string()
    };
    for length in [0, 7, 8, 20, 100, whole.len() - 33, whole.len() - 1] {
        assert!(told(&whole[..length]).contains("not whole"), "{length}");
    }
    for at in (8..whole.len()).step_by(97) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(told(&changed).contains("not whole"), "{at}");
    }
    assert!(told(&[&whole[..], &[0]].concat()).contains("not whole"));
    assert!(told(&[b"TGCOUNT9", &whole[8..]].concat()).contains("version"));
    // Nothing is left beside it.
    assert!(!file.with_extension("new").exists());
}

#[test]
fn only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_before, _folder, file) = written(1);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}
