//! `make bench-cold`: how long a function takes from exec to asking Lambda for its first invocation.
//!
//! The real binaries, in the environment that infra/ gives them, against a Runtime API that never answers: what counts is
//! the moment at which `GET …/invocation/next` has arrived.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lambda_runtime::{LambdaEvent, service_fn};
use serde::de::IgnoredAny;

use crate::Failure;
use crate::stages::median;

const STARTS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(10);

/// What infra/ sets, and what Lambda itself does.
const SHARED: &[(&str, &str)] = &[
    ("DATASET", "names"),
    ("DATASET_SHA256", "0000000000000000000000000000000000000000000000000000000000000000"),
    ("METRICS_NAMESPACE", "freshet"),
    ("S3_BUCKET", "freshet-lake"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("LANG", "en_US.UTF-8"),
    ("TZ", ":UTC"),
    ("_HANDLER", "bootstrap"),
    ("AWS_LAMBDA_FUNCTION_NAME", "freshet-names"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
    ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
    ("AWS_LAMBDA_LOG_LEVEL", "INFO"),
    ("AWS_REGION", "eu-central-1"),
    ("AWS_DEFAULT_REGION", "eu-central-1"),
    ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "example"),
    ("AWS_SESSION_TOKEN", "example"),
];
const CONSUMER: &[(&str, &str)] = &[("GLUE_DATABASE", "freshet")];
const PRODUCER: &[(&str, &str)] = &[
    ("KAFKA_BOOTSTRAP_SERVERS", "b-1.freshet.kafka.eu-central-1.amazonaws.com:9098"),
    ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
    ("KAFKA_SASL_MECHANISM", "AWS_MSK_IAM"),
    ("HASH_KEY_SECRET", "arn:aws:secretsmanager:eu-central-1:111122223333:secret:freshet-hash-key-a1b2c3"),
];

/// How far a start is let go. What ends it early is what a function refuses to start with.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    /// Nothing says that this is Lambda: exec, loader and log.
    Main,
    /// A wrong variable, found when all of them are read: the dataset file and the configuration as well.
    Configured,
    Next,
}

struct Start {
    name: String,
    binary: PathBuf,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    until: Until,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

/// The functions that lie beside this program and, each time in turn with them, those of another folder.
pub fn measure(other: Option<&str>) -> Result<(), Failure> {
    let own = std::env::current_exe()?;
    let beside = own.parent().ok_or("this program lies nowhere")?;
    let start = |name: String, binary, arguments, environment, until| Start {
        name,
        binary,
        arguments,
        environment,
        until,
        wall: Vec::new(),
        cpu: Vec::new(),
    };
    let mut starts = Vec::new();
    for (function, environment) in [("consumer", CONSUMER), ("producer", PRODUCER)] {
        starts.push(start(function.to_owned(), beside.join(function), &[], environment, Until::Next));
        if let Some(folder) = other {
            let name = format!("{function} of {folder}");
            starts.push(start(name, Path::new(folder).join(function), &[], environment, Until::Next));
        }
        for (name, until) in [("to a wrong configuration", Until::Configured), ("to `main`, and out", Until::Main)] {
            starts.push(start(format!("- {function} {name}"), beside.join(function), &[], environment, until));
        }
    }
    let floor = "nothing but lambda_runtime (the floor)".to_owned();
    starts.push(start(floor, own.clone(), &["next"], &[], Until::Next));

    let listener = TcpListener::bind("127.0.0.1:0")?;
    // The first round reads the files from the disk.
    for round in 0..=STARTS {
        for start in &mut starts {
            let (wall, cpu) = start.once(&listener).map_err(|e| format!("{}: {e}", start.binary.display()))?;
            if round > 0 {
                start.wall.push(wall);
                start.cpu.extend(cpu);
            }
        }
    }
    println!("From exec to the first `/next`, {STARTS} starts each, in turn; those with a dash end early.\n");
    println!("| | ms: median | min | max | CPU ms: median | min | binary KB |\n|---|---|---|---|---|---|---|");
    for Start { name, binary, wall, cpu, .. } in &starts {
        let least = |times: &[f64]| times.iter().copied().fold(f64::MAX, f64::min);
        let most = wall.iter().copied().fold(0.0, f64::max);
        let cpu = match cpu.is_empty() {
            true => "- | -".to_owned(),
            false => format!("{:.2} | {:.2}", median(cpu), least(cpu)),
        };
        let size = std::fs::metadata(binary)?.len() / 1000;
        println!("| {name} | {:.2} | {:.2} | {most:.2} | {cpu} | {size} |", median(wall), least(wall));
    }
    Ok(())
}

impl Start {
    /// Milliseconds, and milliseconds of processor time where Linux tells them.
    fn once(&self, listener: &TcpListener) -> Result<(f64, Option<f64>), Failure> {
        let mut command = Command::new(&self.binary);
        command.args(self.arguments).env_clear();
        command.envs(SHARED.iter().copied()).envs(self.environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if self.until != Until::Main {
            command.env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string());
        }
        if self.until == Until::Configured {
            command.env("S3_PATH_STYLE_ACCESS", "wrong");
        }
        let begin = Instant::now();
        let mut child = command.spawn()?;
        if self.until != Until::Next {
            let status = child.wait()?;
            let wall = ms(begin);
            return if refused(status) { Ok((wall, None)) } else { Err(format!("it ended with {status}").into()) };
        }
        let arrived = first_next(listener, &mut child, begin);
        let cpu = std::fs::read_to_string(format!("/proc/{}/schedstat", child.id())).ok();
        child.kill()?;
        child.wait()?;
        let cpu = cpu.and_then(|text| Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e6));
        Ok((arrived?, cpu))
    }
}

fn refused(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

/// Milliseconds until the request has arrived.
fn first_next(listener: &TcpListener, child: &mut Child, begin: Instant) -> Result<f64, Failure> {
    // A process that ends without a word would be waited for in vain.
    listener.set_nonblocking(true)?;
    let mut socket = loop {
        match listener.accept() {
            Ok((socket, _)) => break socket,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("it ended with {status} before it asked for an invocation").into());
                }
                if begin.elapsed() > PATIENCE {
                    return Err("it asked for no invocation".into());
                }
                std::thread::sleep(Duration::from_micros(50));
            }
            Err(e) => return Err(e.into()),
        }
    };
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        match socket.read(&mut buffer)? {
            0 => return Err("it closed the connection".into()),
            read => request.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
    let arrived = ms(begin);
    if request.starts_with(b"GET /2018-06-01/runtime/invocation/next ") {
        Ok(arrived)
    } else {
        Err(format!("it asked first for {}", String::from_utf8_lossy(&request)).into())
    }
}

fn ms(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

/// The least that a function in Rust does: it runs in a process of its own, as the functions do.
pub fn next() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let nothing = service_fn(async |_: LambdaEvent<IgnoredAny>| Ok::<_, lambda_runtime::Error>(()));
    runtime.block_on(lambda_runtime::run(nothing)).map_err(|e| e.to_string().into())
}
