//! What a process does with a source that fails: it goes on, says so, and comes back.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tollgate_identity::source::{Source, SourceFault};
use tollgate_identity::{Identity, Material, TrustBundles};
use tollgate_runtime::Service;
use tollgate_runtime::clock::Clock;
use tollgate_testkit::authority::Authority;

use crate::wire::{CLIENT, material};

type Answer = Result<Material, SourceFault>;

/// Says what is written, and then nothing any more.
struct Script(VecDeque<Answer>);

impl Source for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn next(&mut self) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let next = self.0.pop_front();
        Box::pin(async { if let Some(answer) = next { answer } else { std::future::pending().await } })
    }
}

fn script<const N: usize>(answers: [Answer; N]) -> Box<dyn Source> {
    Box::new(Script(answers.into()))
}

/// The log as text.
#[derive(Clone, Default)]
pub(crate) struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn lines(&self, with: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

fn refused() -> Answer {
    Err(SourceFault::Refused("the join token was used already".to_owned()))
}

fn away() -> Answer {
    Err(SourceFault::Unavailable("nobody answers".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_said_loudly_and_the_question_repeated_slowly() {
    let (logged, service) = (Logged::default(), Service::for_test("workload"));
    let _listening = logged.listen();
    let authority = Authority::new("root");
    let began = Instant::now();
    let source = script([refused(), refused(), refused(), Ok(material(&authority, CLIENT))]);
    let identity = Identity::follow(source, &service).await.unwrap();
    assert_eq!(identity.material().credential.leaf.id.as_str(), CLIENT);
    let (took, lines) = (began.elapsed(), logged.lines("no identity: it is refused until somebody acts"));
    assert!(took >= Duration::from_secs(90) && took <= Duration::from_secs(181), "{took:?}");
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.contains("ERROR") && line.contains("used already")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn while_the_source_is_away_the_old_certificate_serves_and_the_log_counts_its_seconds() {
    let (logged, service) = (Logged::default(), Service::for_test("workload"));
    let _listening = logged.listen();
    let authority = Authority::new("root");
    let (first, second) = (material(&authority, CLIENT), material(&authority, CLIENT));
    let serials = [&first, &second].map(|material| material.credential.leaf.serial.clone());
    let identity =
        Identity::follow(script([Ok(first), away(), away(), refused(), Ok(second)]), &service).await.unwrap();
    let mut rotations = identity.rotations();
    assert_eq!(identity.material().credential.leaf.serial, serials[0]);
    rotations.changed().await.unwrap();
    assert_eq!(identity.material().credential.leaf.serial, serials[1]);
    let warned = logged.lines("identity not renewed; the old one stays in use");
    assert_eq!(warned.len(), 2);
    assert!(warned.iter().all(|line| line.contains("WARN") && line.contains("seconds_left=")), "{warned:?}");
    let refused = logged.lines("identity not renewed: it is refused until somebody acts");
    assert!(refused.len() == 1 && refused[0].contains("ERROR") && refused[0].contains(CLIENT), "{refused:?}");
}

#[tokio::test]
async fn a_certificate_is_in_force_since_it_came_whatever_else_changes() {
    let (clock, moving) = Clock::manual(1_800_000_000 * 1_000_000_000);
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let first = material(&authority, CLIENT);
    let identity = Identity::fixed(first.clone(), clock);
    moving.advance(Duration::from_secs(60));
    // Whom we trust changes, and our own certificate does not.
    let roots = [&authority, &other].map(|root| CertificateDer::from(root.root_der())).to_vec();
    let bundles = TrustBundles::default().with("test.example".parse().unwrap(), roots).unwrap();
    identity.replace(Material { bundles, ..first });
    assert_eq!(identity.since(), 1_800_000_000);
    identity.replace(material(&authority, CLIENT));
    assert_eq!(identity.since(), 1_800_000_060);
}
