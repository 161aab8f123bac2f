//! The command line: arguments in, exit status out.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use freshet::{Cli, Error};

/// SQL is planned level by level, in frames that are large where nothing is optimised.
const STACK: usize = 16 << 20;

fn main() -> ExitCode {
    // For the event source.
    pipeline::memory::keep_what_is_freed();
    match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build() {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "freshet: cannot start its threads: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::stdout().lock();
    let done = freshet::run(cli, &mut out).await;
    let done = done.and_then(|status| Ok(out.flush().map(|()| status)?));
    match done {
        Ok(status) => status,
        // The reader has seen enough (`| head`): nothing is wrong.
        Err(Error::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell where standard error is closed too.
            let _ = writeln!(std::io::stderr(), "freshet: {error}");
            ExitCode::from(2)
        }
    }
}
