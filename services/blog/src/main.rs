//! Runs blog alone.

fn main() -> std::process::ExitCode {
    service_kit::main(blog::service())
}
