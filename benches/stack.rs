//! What the whole gate adds to a call, in process: every layer on, a cache miss, a service that is ready; by how many models
//! and keys there are.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tollgate::catalogue::Catalogue;

/// As in the sidecar.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn whole_stack(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let catalogue = Catalogue::default();
    let texts: Vec<_> =
        catalogue.models().into_iter().filter(|model| model.task.label() == "text-generation").collect();
    // A budget that can refuse lets nothing pass that has no price.
    let texts: Vec<_> = texts.into_iter().filter(|model| !model.prices.is_empty()).collect();
    let mut group = criterion.benchmark_group("stack");
    let mut n = 0;
    for (models, keys) in [(1, 0), (texts.len(), 0), (1, 1), (1, 100_000), (texts.len(), 100), (texts.len(), 1000)] {
        let mut gate = common::gate(keys);
        group.bench_function(format!("{models} models, {keys} keys"), |bencher| {
            // Making the request is not measured, nor is letting go of the reply.
            bencher.iter_batched(
                || {
                    n += 1;
                    let (model, key) = (n as usize % models, n as usize % keys.max(1));
                    common::request(n, &texts[model].id, key)
                },
                |request| runtime.block_on(common::call(&mut gate, request)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, whole_stack);
criterion_main!(benches);
