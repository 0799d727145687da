//! One process a data folder: a second one would see half of the events.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Holds a lock file until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks `{folder}/lock`, or `{file}.lock` beside a single file.
    ///
    /// # Errors
    /// When another process holds it (its id is named), or the file cannot be made.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                anyhow::bail!("{} is held by process {}: one process at a time", path.display(), holder.trim());
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }

    /// Where the lock of a SQLite place is.
    pub fn of(database: &crate::config::DatabaseUrl) -> Option<PathBuf> {
        match database {
            crate::config::DatabaseUrl::Postgres(_) => None,
            crate::config::DatabaseUrl::SqliteFolder(folder) => Some(folder.join("lock")),
            crate::config::DatabaseUrl::SqliteFile(file) => {
                let mut name = file.clone().into_os_string();
                name.push(".lock");
                Some(name.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::take(&path).unwrap();
        let refused = FileLock::take(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        FileLock::take(&path).unwrap();
    }
}
