use super::*;

fn env(pairs: &[(&str, &str)]) -> Env {
    let mut all = std::collections::HashMap::from([("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")]);
    all.extend(pairs.iter().copied());
    Env::new(all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())))
}

fn problems(pairs: &[(&str, &str)], build_has_tls: bool) -> String {
    let mut env = env(pairs);
    KafkaSettings::read_for_build(&mut env, build_has_tls);
    env.finish(()).map_or_else(|e| e.to_string(), |()| String::new())
}

const PROTOCOL: &str = "KAFKA_SECURITY_PROTOCOL";
const MECHANISM: &str = "KAFKA_SASL_MECHANISM";
const USER: (&str, &str) = ("KAFKA_SASL_USERNAME", "u");
const PASSWORD: (&str, &str) = ("KAFKA_SASL_PASSWORD", "p");
const SECRET: (&str, &str) = ("KAFKA_SASL_CREDENTIALS_SECRET", "AmazonMSK_freshet");

#[test]
fn settings_that_contradict_each_other_are_refused_with_what_was_expected() {
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("KAFKA_BOOTSTRAP_SERVERS", "")], "KAFKA_BOOTSTRAP_SERVERS is not set; expected the brokers"),
        (&[(PROTOCOL, "tls")], "KAFKA_SECURITY_PROTOCOL is `tls`; expected plaintext, ssl"),
        (&[(MECHANISM, "PLAIN")], "KAFKA_SASL_MECHANISM is set, but KAFKA_SECURITY_PROTOCOL is `plaintext`"),
        (&[(PROTOCOL, "sasl_ssl")], "KAFKA_SASL_MECHANISM is not set; expected PLAIN"),
        (&[(PROTOCOL, "sasl_ssl"), (MECHANISM, "GSSAPI")], "KAFKA_SASL_MECHANISM is `GSSAPI`; expected PLAIN"),
        (
            &[(PROTOCOL, "sasl_ssl"), (MECHANISM, "PLAIN"), PASSWORD],
            "KAFKA_SASL_USERNAME is not set; expected the user",
        ),
        (&[(PROTOCOL, "sasl_ssl"), (MECHANISM, "PLAIN"), USER, SECRET], "KAFKA_SASL_USERNAME is set beside"),
        (&[(PROTOCOL, "sasl_ssl"), (MECHANISM, "AWS_MSK_IAM"), USER], "KAFKA_SASL_USERNAME is set, but AWS_MSK_IAM"),
        (&[(PROTOCOL, "sasl_plaintext"), (MECHANISM, "AWS_MSK_IAM")], "expects sasl_ssl"),
    ];
    for (pairs, expected) in cases {
        let problems = problems(pairs, true);
        assert!(problems.contains(expected), "{pairs:?}: {problems}");
        assert_eq!(problems.lines().filter(|line| line.starts_with("  - ")).count(), 1, "{problems}");
    }
}

#[test]
fn a_build_without_tls_says_so_and_still_takes_plain() {
    for pairs in [
        &[(PROTOCOL, "ssl")] as &[_],
        &[(PROTOCOL, "sasl_ssl"), (MECHANISM, "PLAIN"), USER, PASSWORD],
        &[(PROTOCOL, "sasl_plaintext"), (MECHANISM, "SCRAM-SHA-512"), USER, PASSWORD],
    ] {
        let problems = problems(pairs, false);
        assert!(problems.contains("built without: build it with `--features tls`"), "{pairs:?}: {problems}");
    }
    assert_eq!(problems(&[(PROTOCOL, "sasl_plaintext"), (MECHANISM, "PLAIN"), USER, PASSWORD], false), "");
    assert_eq!(problems(&[], false), "");
}

#[test]
fn a_password_is_never_printed() {
    let mut env = env(&[(PROTOCOL, "sasl_plaintext"), (MECHANISM, "PLAIN"), USER, ("KAFKA_SASL_PASSWORD", "hush")]);
    let settings = KafkaSettings::read_for_build(&mut env, true);
    assert!(!format!("{settings:?}").contains("hush"));
    let config = resolve(&settings);
    assert!(!format!("{config:?}").contains("hush"));
    assert_eq!(config.client_config().get("sasl.password"), Some("hush"));
}

fn resolve(settings: &KafkaSettings) -> KafkaConfig {
    let sdk = SdkConfig::builder().region(aws_config::Region::new("eu-west-1")).build();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(settings.resolve(&sdk)).unwrap()
}

#[cfg(feature = "tls")]
mod with_tls {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use aws_credential_types::provider::{ProvideCredentials, future};
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::FutureProducer;

    use super::*;

    #[test]
    fn each_protocol_and_mechanism_makes_clients() {
        let cases: [&[(&str, &str)]; 7] = [
            &[],
            &[(PROTOCOL, "ssl")],
            &[(PROTOCOL, "sasl_plaintext"), (MECHANISM, "PLAIN"), USER, PASSWORD],
            &[(PROTOCOL, "sasl_ssl"), (MECHANISM, "PLAIN"), USER, PASSWORD],
            &[(PROTOCOL, "sasl_ssl"), (MECHANISM, "SCRAM-SHA-256"), USER, PASSWORD],
            &[(PROTOCOL, "SASL_SSL"), (MECHANISM, "SCRAM-SHA-512"), USER, PASSWORD],
            &[(PROTOCOL, "sasl_ssl"), (MECHANISM, "AWS_MSK_IAM")],
        ];
        for pairs in cases {
            let mut env = env(pairs);
            let settings = KafkaSettings::read(&mut env);
            env.finish(()).unwrap();
            let mut config = resolve(&settings);
            config.iam = config.iam.map(|_| iam(&Arc::default()));
            let producer = config.client_config().create_with_context::<_, FutureProducer<_>>(config.context());
            assert!(producer.is_ok(), "{pairs:?}: {:?}", producer.err());
            let mut group = config.client_config();
            group.set("group.id", "g");
            let consumer = group.create_with_context::<_, BaseConsumer<_>>(config.context());
            assert!(consumer.is_ok(), "{pairs:?}: {:?}", consumer.err());
            assert!(config.admin().is_ok(), "{pairs:?}");
        }
    }

    /// Counts how often it was asked; waits a little, as a metadata service would.
    #[derive(Debug)]
    struct Slow(Arc<AtomicUsize>);

    impl ProvideCredentials for Slow {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.0.fetch_add(1, Ordering::SeqCst);
                Ok(aws_credential_types::Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
            })
        }
    }

    fn iam(asked: &Arc<AtomicUsize>) -> MskIam {
        MskIam::with_provider("eu-west-1", Slow(Arc::clone(asked)))
    }

    // The runtime's only thread is blocked meanwhile: a token that needed it would never come.
    #[tokio::test]
    async fn a_producers_token_is_made_while_a_current_thread_runtime_is_busy() {
        let asked = Arc::default();
        let mut env = env(&[(PROTOCOL, "sasl_ssl"), (MECHANISM, "AWS_MSK_IAM")]);
        let settings = KafkaSettings::read(&mut env);
        let sdk = SdkConfig::builder().region(aws_config::Region::new("eu-west-1")).build();
        let mut config = settings.resolve(&sdk).await.unwrap();
        config.iam = Some(iam(&asked));
        let _producer: FutureProducer<_> = config.client_config().create_with_context(config.context()).unwrap();
        let started = Instant::now();
        while asked.load(Ordering::SeqCst) == 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "librdkafka's thread was given no token");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    // A consumer is polled on the runtime's own thread: blocking on a future there would panic.
    #[tokio::test]
    async fn a_consumers_token_is_made_on_the_runtimes_own_thread() {
        let asked = Arc::default();
        let mut env = env(&[(PROTOCOL, "sasl_ssl"), (MECHANISM, "AWS_MSK_IAM")]);
        let sdk = SdkConfig::builder().region(aws_config::Region::new("eu-west-1")).build();
        let mut config = KafkaSettings::read(&mut env).resolve(&sdk).await.unwrap();
        config.iam = Some(iam(&asked));
        let mut group = config.client_config();
        group.set("group.id", "g");
        let consumer: BaseConsumer<_> = group.create_with_context(config.context()).unwrap();
        let _ = consumer.poll(Duration::from_millis(500));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
