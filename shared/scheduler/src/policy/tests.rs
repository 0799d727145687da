//! Tables of decisions, and what holds for every sequence of them.
