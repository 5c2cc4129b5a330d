//! Runs cases until their count is full, makes what fails smaller, and tells of each kind of failure once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Instant;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What a case broke: a kind, by which failures are told apart, and the figures.
pub type Broken = (String, String);

/// More kinds of failure than this are not looked for.
const MAX_KINDS: usize = 40;
/// How often a failing case is tried smaller.
const MAX_SMALLER: usize = 400;

/// `TOLLGATE_CASES`, else so many.
pub fn count(usual: usize) -> usize {
    number("TOLLGATE_CASES").unwrap_or(usual)
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Tries each case; panics with the smallest of each kind that fails.
pub fn cases<S>(name: &str, usual: usize, strategy: &S, mut check: impl FnMut(&S::Value) -> Result<(), Broken>)
where
    S: Strategy,
    S::Value: Debug,
{
    let seed = number("TOLLGATE_SEED").unwrap_or(1) as u8;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (begun, count) = (Instant::now(), count(usual));
    let mut broken: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for _ in 0..count {
        let mut tree = strategy.new_tree(&mut runner).unwrap();
        let Err((kind, _)) = check(&tree.current()) else { continue };
        if let Some((times, _)) = broken.get_mut(&kind) {
            *times += 1;
            continue;
        }
        let told = smallest(&mut tree, &kind, &mut check);
        broken.insert(kind, (1, told));
        if broken.len() == MAX_KINDS {
            break;
        }
    }
    println!("{name}: {count} cases in {:?}, {} kinds of failure", begun.elapsed(), broken.len());
    let told: String = broken.iter().map(|(kind, (times, told))| format!("\n{times} x {kind}\n    {told}")).collect();
    assert!(broken.is_empty(), "{told}");
}

/// The smallest case that fails in the same way.
fn smallest<T: ValueTree>(tree: &mut T, kind: &str, check: &mut impl FnMut(&T::Value) -> Result<(), Broken>) -> String
where
    T::Value: Debug,
{
    let mut told = String::new();
    for _ in 0..MAX_SMALLER {
        let case = tree.current();
        let more = match check(&case) {
            Err((of, figures)) if of == kind => {
                told = format!("{figures}: {case:?}");
                tree.simplify()
            }
            _ => tree.complicate(),
        };
        if !more {
            break;
        }
    }
    told
}
