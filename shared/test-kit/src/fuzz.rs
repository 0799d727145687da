//! Bytes as a broken disk, a careless program or an attacker makes them: valid ones, changed.
//!
//! `make test` tries a bounded number, the same each time; `make fuzz` (`FUZZ=50`: fifty times as many) goes on with others.

use bytes::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

/// Changes that one input has at most.
const CHANGES_MAX: usize = 6;

/// One change of an input.
#[derive(Debug, Clone)]
enum Change {
    /// Another byte in the place of one.
    Byte(Index, u8),
    /// One bit flipped.
    Bit(Index, u8),
    /// Everything after it is gone.
    Cut(Index),
    /// A part is gone.
    Remove(Index, Index),
    /// A part is there again and again.
    Repeat(Index, Index, usize),
    /// Something of the language, where it does not belong.
    Word(Index, Index),
    /// Anything at all.
    Noise(Index, Vec<u8>),
    /// A part becomes zeros.
    Zeros(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Bit(at, bit)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), at()).prop_map(|(from, to)| Change::Remove(from, to)),
        2 => (at(), at(), 1..40_usize).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        6 => (at(), at()).prop_map(|(at, word)| Change::Word(at, word)),
        2 => (at(), vec(any::<u8>(), 1..24)).prop_map(|(at, noise)| Change::Noise(at, noise)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Zeros(from, to)),
    ]
}

/// The place an index stands for, the end among them.
fn place(index: Index, bytes: &[u8]) -> usize {
    index.index(bytes.len() + 1)
}

/// A part of at most `longest` bytes.
fn part(from: Index, to: Index, bytes: &[u8], longest: usize) -> std::ops::Range<usize> {
    let (from, to) = (place(from, bytes), place(to, bytes));
    from.min(to)..from.max(to).min(from.min(to) + longest)
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, words: &[&str]) {
        match self {
            Self::Byte(at, byte) => {
                let at = place(*at, bytes);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Self::Bit(at, bit) => {
                let at = place(*at, bytes);
                if let Some(old) = bytes.get_mut(at) {
                    *old ^= 1 << bit;
                }
            }
            Self::Cut(at) => bytes.truncate(place(*at, bytes)),
            Self::Remove(from, to) => drop(bytes.drain(part(*from, *to, bytes, usize::MAX >> 1))),
            Self::Repeat(from, to, times) => {
                let part = part(*from, *to, bytes, 64);
                let again = bytes[part.clone()].repeat(*times);
                drop(bytes.splice(part.end..part.end, again));
            }
            Self::Word(at, word) => {
                let (at, word) = (place(*at, bytes), if words.is_empty() { "" } else { word.get(words) });
                drop(bytes.splice(at..at, word.bytes()));
            }
            Self::Noise(at, noise) => {
                let at = place(*at, bytes);
                drop(bytes.splice(at..at, noise.iter().copied()));
            }
            Self::Zeros(from, to) => {
                let part = part(*from, *to, bytes, 8_192);
                bytes[part].fill(0);
            }
        }
    }
}

/// One of the examples with up to six changes; `words` are what its language is made of, and what attacks it.
///
/// # Panics
/// When there is no example.
pub fn bytes<T: AsRef<[u8]>>(examples: &[T], words: &'static [&'static str]) -> BoxedStrategy<Bytes> {
    let examples: Vec<Vec<u8>> = examples.iter().map(|example| example.as_ref().to_vec()).collect();
    let changed = (prop::sample::select(examples), vec(change(), 0..CHANGES_MAX));
    let changed = changed.prop_map(|(mut bytes, changes)| {
        for change in &changes {
            change.apply(&mut bytes, words);
        }
        Bytes::from(bytes)
    });
    changed.boxed()
}

/// The same as text; what is no UTF-8 becomes replacement characters.
pub fn text(examples: &[&str], words: &'static [&'static str]) -> BoxedStrategy<String> {
    bytes(examples, words).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).boxed()
}

/// Tries `cases` inputs, times `FUZZ`.
///
/// # Panics
/// When `test` fails for one: with the smallest such input that was found.
pub fn all<S: Strategy>(cases: u32, inputs: S, test: impl Fn(S::Value)) {
    #[expect(clippy::disallowed_methods, reason = "how long to go on is told by the environment")]
    let times: Option<u32> = std::env::var("FUZZ").ok().map(|times| times.parse().expect("FUZZ: a number"));
    let config = ProptestConfig {
        cases: cases.saturating_mul(times.unwrap_or(1)),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let mut runner = match times {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let run = runner.run(&inputs, |input| {
        test(input);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}
