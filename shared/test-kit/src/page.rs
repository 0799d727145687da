//! Pages that are generated from the code, and checked against it.

use std::path::{Path, PathBuf};

/// The folder of the whole project.
///
/// # Panics
/// When this crate is not where it is in the project.
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("shared/test-kit lies two folders down").to_path_buf()
}

/// Checks that the page `path` (from the project's folder) is `text`; writes it when `BLESS` is set (`make docs`).
///
/// # Panics
/// When the page is another one.
#[expect(clippy::disallowed_methods, reason = "whether pages are written is said by the environment of the test run")]
pub fn page(path: &str, text: &str) {
    let file = project().join(path);
    if std::env::var("BLESS").is_ok() {
        std::fs::write(&file, text).expect("the page can be written");
        return;
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = written.lines().zip(text.lines()).position(|(old, new)| old != new);
    let line = differs.unwrap_or_else(|| written.lines().count().min(text.lines().count())) + 1;
    assert!(written == text, "{path} is not what the code says from line {line}: run `make docs`");
}
