//! Against a real `dbus-daemon` and a real `polkitd`, private to each test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed set-up step should stop the test"
)]

mod agent;
mod host;

use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;

use super::*;
use agent::{Agent, Event, Reply};
use host::{Client, Host, eventually};

/// Longer than any test may wait: for questions that end otherwise.
const LONG: Duration = Duration::from_secs(120);
/// For questions that nobody answers.
const SHORT: Duration = Duration::from_millis(300);

fn polkit_at(bus: &str, deadline: Duration) -> Polkit {
    Polkit::new(Settings {
        deadline,
        bus: Some(bus.to_owned()),
    })
}

async fn ask(polkit: &Polkit, client: &Client, readonly: bool) -> Result<(), Refused> {
    polkit.check(&client.facts, client.pidfd(), readonly).await
}

fn questions(polkit: &Polkit) -> usize {
    polkit.inner.queue.taken()
}

#[tokio::test]
async fn the_policy_allows_one_user_and_denies_another() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let (bin, daemon) = (Client::of("bin"), Client::of("daemon"));
    assert_eq!(ask(&polkit, &bin, false).await, Ok(()));
    assert_eq!(ask(&polkit, &daemon, false).await, Err(Refused::Denied));
    // The read-only socket is another action, which the policy allows to all.
    assert_eq!(ask(&polkit, &daemon, true).await, Ok(()));
    // A kernel or a caller without pidfds.
    assert_eq!(polkit.check(&bin.facts, None, false).await, Ok(()));
}

#[tokio::test]
async fn a_user_to_be_asked_without_an_agent_is_told_so() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let refused = ask(&polkit, &Client::of("nobody"), false).await;
    assert_eq!(refused, Err(Refused::NoAgent("org.libvirt.unix.manage")));
}

#[tokio::test]
async fn what_the_agent_answers_decides() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    for (reply, expected) in [
        (Reply::Authenticated, Ok(())),
        (Reply::WrongPassword, Err(Refused::Denied)),
        (Reply::Dismissed, Err(Refused::Dismissed)),
    ] {
        let client = Client::of("nobody");
        let mut agent = Agent::start(host.bus(), &client, reply).await;
        assert_eq!(ask(&polkit, &client, false).await, expected);
        let event = agent.event().await;
        assert_eq!(event, Event::Asked("org.libvirt.unix.manage".into()));
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_question_along() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let client = Client::of("nobody");
    let mut agent = Agent::start(host.bus(), &client, Reply::Never).await;
    tokio::select! {
        result = ask(&polkit, &client, false) => panic!("answered: {result:?}"),
        event = agent.event() => assert!(matches!(event, Event::Asked(_))),
    }
    assert_eq!(agent.event().await, Event::TakenBack);
    eventually("the place is free", || questions(&polkit) == 0).await;
    // By the question's ticket, and not by giving up the connection with all questions on it.
    assert!(!polkit.inner.authority.is_idle().await);
}

#[tokio::test]
async fn the_deadline_takes_the_question_back() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), SHORT);
    let client = Client::of("nobody");
    let mut agent = Agent::start(host.bus(), &client, Reply::Never).await;
    assert_eq!(ask(&polkit, &client, false).await, Err(Refused::Late));
    assert!(matches!(agent.event().await, Event::Asked(_)));
    assert_eq!(agent.event().await, Event::TakenBack);
    eventually("the place is free", || questions(&polkit) == 0).await;
    // By the question's ticket, and not by giving up the connection with all questions on it.
    assert!(!polkit.inner.authority.is_idle().await);
}

#[tokio::test]
async fn polkit_and_the_bus_may_restart() {
    let mut host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let bin = Client::of("bin");
    assert_eq!(ask(&polkit, &bin, false).await, Ok(()));

    host.stop_polkitd();
    let refused = ask(&polkit, &bin, false).await.unwrap_err();
    assert!(matches!(refused, Refused::Unavailable(_)), "{refused:?}");
    host.start_polkitd().await;
    assert_eq!(ask(&polkit, &bin, false).await, Ok(()));

    host.stop_polkitd();
    host.stop_bus();
    let refused = ask(&polkit, &bin, false).await.unwrap_err();
    assert!(matches!(refused, Refused::Unavailable(_)), "{refused:?}");
    host.start_bus();
    host.start_polkitd().await;
    assert_eq!(ask(&polkit, &bin, false).await, Ok(()));
}

#[tokio::test]
async fn a_bus_that_hangs_is_given_up_and_dialled_again() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), SHORT);
    let bin = Client::of("bin");
    assert_eq!(ask(&polkit, &bin, false).await, Ok(()));
    host.signal_bus(Signal::STOP);
    assert_eq!(ask(&polkit, &bin, false).await, Err(Refused::Late));
    eventually("the question is given up", || questions(&polkit) == 0).await;
    assert!(polkit.inner.authority.is_idle().await);
    host.signal_bus(Signal::CONT);
    assert_eq!(ask(&polkit_at(host.bus(), LONG), &bin, false).await, Ok(()));
}

#[tokio::test]
async fn polkitd_dying_over_a_question_is_a_refusal() {
    let mut host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let client = Client::of("nobody");
    let mut agent = Agent::start(host.bus(), &client, Reply::Never).await;
    let result = {
        let mut answer = pin!(ask(&polkit, &client, false));
        tokio::select! {
            result = &mut answer => panic!("answered: {result:?}"),
            event = agent.event() => assert!(matches!(event, Event::Asked(_))),
        }
        host.stop_polkitd();
        answer.await
    };
    let refused = result.unwrap_err();
    assert!(matches!(refused, Refused::Unavailable(_)), "{refused:?}");
}

#[tokio::test]
async fn a_reused_pid_and_a_process_that_has_gone_are_refused() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let mut client = Client::of("bin");
    let mut earlier = client.facts.clone();
    earlier.start_time = earlier.start_time.map(|time| time - 1);
    let refused = polkit.check(&earlier, None, false).await.unwrap_err();
    assert!(matches!(refused, Refused::Undecided(_)), "{refused:?}");

    client.end();
    let refused = ask(&polkit, &client, false).await.unwrap_err();
    assert!(matches!(refused, Refused::Undecided(_)), "{refused:?}");
}

#[tokio::test]
async fn one_user_cannot_take_all_places() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let client = Client::of("nobody");
    let _agent = Agent::start(host.bus(), &client, Reply::Never).await;
    let mut flood = JoinSet::new();
    for _ in 0..200 {
        let (polkit, facts) = (polkit.clone(), client.facts.clone());
        flood.spawn(async move { polkit.check(&facts, None, false).await });
    }
    let first = flood.join_next().await.unwrap().unwrap();
    assert_eq!(first, Err(Refused::TooMany));
    assert_eq!(ask(&polkit, &Client::of("bin"), false).await, Ok(()));
    flood.shutdown().await;
    eventually("every place is free", || questions(&polkit) == 0).await;
}

#[tokio::test]
async fn a_burst_of_one_user_is_served_whole() {
    let host = Host::start().await;
    let polkit = polkit_at(host.bus(), LONG);
    let client = Client::of("bin");
    let mut burst = JoinSet::new();
    for _ in 0..50 {
        let (polkit, facts) = (polkit.clone(), client.facts.clone());
        burst.spawn(async move { polkit.check(&facts, None, false).await });
    }
    while let Some(result) = burst.join_next().await {
        assert_eq!(result.unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn root_is_let_past_and_strangers_are_not_asked_about() {
    let polkit = polkit_at("unix:path=/nonexistent/bus", LONG);
    let root = UnixFacts::default();
    assert_eq!(polkit.check(&root, None, false).await, Ok(()));
    let known = UnixFacts {
        pid: 1,
        start_time: Some(1),
        uid: 1,
        ..UnixFacts::default()
    };
    for stranger in [
        UnixFacts {
            start_time: None,
            ..known.clone()
        },
        UnixFacts {
            pid: 0,
            ..known.clone()
        },
        UnixFacts {
            uid: u32::MAX,
            ..known.clone()
        },
    ] {
        let result = polkit.check(&stranger, None, false).await;
        assert_eq!(result, Err(Refused::UnknownProcess), "{stranger:?}");
    }
    let refused = polkit.check(&known, None, false).await.unwrap_err();
    assert!(matches!(refused, Refused::Unavailable(_)), "{refused:?}");
}

#[tokio::test]
async fn a_bus_that_says_nothing_does_not_hold_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let _listener = UnixListener::bind(&path).unwrap();
    let polkit = polkit_at(&format!("unix:path={}", path.display()), SHORT);
    let client = UnixFacts {
        pid: 1,
        start_time: Some(1),
        uid: 1,
        ..UnixFacts::default()
    };
    let result = polkit.check(&client, None, false).await;
    assert_eq!(result, Err(Refused::Late));
}

#[test]
fn the_client_is_told_the_kind_of_refusal_and_no_internals() {
    let text = |refused: Refused| refused.fault().to_string();
    assert_eq!(Refused::Denied.fault(), Fault::polkit_denied());
    assert_eq!(Refused::Dismissed.fault(), Fault::polkit_dismissed());
    let without_agent = Fault::polkit_without_agent("org.libvirt.unix.monitor");
    assert_eq!(
        Refused::NoAgent(authority::action(true)).fault(),
        without_agent
    );
    for (refused, expected) in [
        (Refused::UnknownProcess, "the client's process is not known"),
        (Refused::TooMany, "too many clients are waiting for polkit"),
        (Refused::Late, "polkit did not answer in time"),
        (
            Refused::Undecided("/secret".into()),
            "polkit does not decide",
        ),
        (
            Refused::Unavailable("/secret".into()),
            "polkit is not available",
        ),
    ] {
        assert_eq!(text(refused), format!("authentication failed: {expected}"));
    }
}
