//! Tables of instants across clock changes, and what holds for every schedule.
