//! The `blockframe` program.

fn main() -> std::process::ExitCode {
    blockframe::cli::main()
}
