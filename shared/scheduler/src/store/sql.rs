//! PostgreSQL and SQLite.
