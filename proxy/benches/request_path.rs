//! What every request pays in this process: finding its route, and the work on its headers.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

fn main_benches(_c: &mut Criterion) {}

criterion_group!(benches, main_benches);
criterion_main!(benches);
