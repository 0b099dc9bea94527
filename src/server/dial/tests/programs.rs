//! Programs: as connections, and started on demand.

use super::*;

/// A flow list of a shell's words for the policy.
fn shell(script: &str) -> String {
    format!("[sh, -c, \"{script}\"]")
}

fn is_gone(pid: &str) -> bool {
    // A zombie would still be there.
    !Path::new("/proc").join(pid.trim()).exists()
}

#[tokio::test]
async fn a_program_is_a_connection_without_descriptors_and_ends_with_it() {
    let scene = Scene::new(|dir| {
        let script = format!("echo $$ > {}/pid; exec cat", dir.display());
        format!("command: {}", shell(&script))
    });
    let mut dialled = scene.dial().await.unwrap();
    assert!(!dialled.transport.carries_descriptors());
    send(&mut dialled.transport, b"ping").await;
    assert_eq!(receive(&mut dialled.transport).await.unwrap(), b"ping");
    let pid = scene.read("pid").await;
    assert!(!is_gone(&pid));
    drop(dialled);
    eventually(|| is_gone(&pid).then_some(())).await;
}

#[tokio::test]
async fn a_program_that_will_not_end_is_killed_with_what_it_started() {
    let scene = Scene::new(|dir| {
        let dir = dir.display();
        let script = format!(
            "trap '' TERM; sh -c 'echo $$ > {dir}/child; sleep 1000' & echo $$ > {dir}/pid; sleep 1000"
        );
        format!("command: {}", shell(&script))
    });
    let dialled = scene.dial().await.unwrap();
    let pids = [scene.read("pid").await, scene.read("child").await];
    drop(dialled);
    for pid in pids {
        // A grandchild is not ours to wait for; whoever is may leave it a zombie.
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        eventually(|| {
            let state = fs::read_to_string(&stat);
            state
                .map_or(true, |text| text.contains(") Z "))
                .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_program_that_ends_before_it_says_anything_is_quoted() {
    let script = "echo first >&2; echo cannot reach hv9 >&2; exit 255";
    let scene = Scene::new(|_| format!("command: {}", shell(script)));
    let mut transport = scene.dial().await.unwrap().transport;
    // It reads nothing of this.
    send(&mut transport, b"AUTH_LIST").await;
    assert_eq!(transport.last_words(), None);
    let error = receive(&mut transport).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let words = "sh has ended (exit status: 255): cannot reach hv9";
    assert_eq!(transport.last_words(), Some(words));
    // After its end too.
    send(&mut transport, b"more").await;
    receive(&mut transport).await.unwrap_err();
}

#[tokio::test]
async fn a_program_that_spoke_ends_like_any_daemon() {
    let scene = Scene::new(|_| format!("command: {}", shell("echo x; exit 1")));
    let mut transport = scene.dial().await.unwrap().transport;
    assert_eq!(receive(&mut transport).await.unwrap(), b"x\n");
    assert_eq!(receive(&mut transport).await.unwrap(), b"");
    assert_eq!(transport.last_words(), None);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said() {
    let scene = Scene::new(|_| "command: [/no/such/program]".to_owned());
    let why = scene.failure().await;
    assert!(
        why.starts_with("cannot start /no/such/program: No such file"),
        "{why}"
    );
    assert!(scene.failure().await.contains("is down since"));
}

/// What starts `script` where nobody listens on the socket `s`; each start is a line in `starts`.
fn on_demand(dir: &Path, script: &str) -> String {
    let dir = dir.display();
    let start = shell(&format!("echo $$ >> {dir}/starts; {script}"));
    format!("unix: {dir}/s, start: {start}")
}

impl Scene {
    fn starts(&self) -> Vec<String> {
        let starts = fs::read_to_string(self.path("starts")).unwrap_or_default();
        starts.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn a_daemon_is_started_once_for_all_who_ask_and_again_after_its_end() {
    // It ends with success, as one does that was idle for long enough.
    let script = "while ! [ -e $0.end ]; do sleep 0.02; done";
    let scene =
        Scene::new(|dir| on_demand(dir, &script.replace("$0", &format!("{}/x", dir.display()))));
    for round in 1..=2 {
        let mut dials: Vec<_> = (0..20).map(|_| scene.start(false)).collect();
        let starts = eventually(|| {
            for dial in &mut dials {
                let mut cx = task::Context::from_waker(task::Waker::noop());
                assert!(dial.poll(&mut cx).is_pending());
            }
            Some(scene.starts()).filter(|all| all.len() == round)
        })
        .await;
        let listener = UnixListener::bind(scene.path("s")).unwrap();
        for dial in &mut dials {
            let dialled = poll_fn(|cx| dial.poll(cx)).await.unwrap();
            dialled.standing.opened();
        }
        assert_eq!(scene.starts(), starts);
        drop(dials);
        // It goes on without any connection.
        assert!(!is_gone(&starts[round - 1]));
        fs::write(scene.path("x.end"), "").unwrap();
        drop(listener);
        fs::remove_file(scene.path("s")).unwrap();
        eventually(|| is_gone(&starts[round - 1]).then_some(())).await;
        fs::remove_file(scene.path("x.end")).unwrap();
    }
    assert_eq!(scene.down(), []);
}

#[tokio::test]
async fn a_start_that_fails_is_told_to_all_and_not_repeated_at_once() {
    let scene = Scene::new(|dir| on_demand(dir, "sleep 0.1; echo no such driver >&2; exit 3"));
    let (one, other) = tokio::join!(scene.failure(), scene.failure());
    for why in [one, other, scene.failure().await] {
        let expected = "sh has ended (exit status: 3): no such driver; started again in 1 s";
        assert_eq!(why, expected);
    }
    assert_eq!(scene.starts().len(), 1);
    let [down] = &scene.down()[..] else {
        panic!("not one")
    };
    assert_eq!(down.retry_in, None);
    // Its time comes.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let why = scene.failure().await;
    assert!(
        why.ends_with("no such driver; started again in 2 s"),
        "{why}"
    );
    assert_eq!(scene.starts().len(), 2);
}

#[tokio::test]
async fn a_start_of_nothing_fails() {
    let scene = Scene::new(|dir| format!("unix: {}/s, start: [/no/such/daemon]", dir.display()));
    let why = scene.failure().await;
    assert!(
        why.starts_with("cannot start /no/such/daemon: No such file"),
        "{why}"
    );
    let why = scene.failure().await;
    assert!(why.contains("; started again in 1 s"), "{why}");
}

#[tokio::test]
async fn a_daemon_that_goes_into_the_background_is_started_once_though_it_is_slow() {
    let scene = Scene::new(|dir| format!("{}, connect_timeout: 20s", on_demand(dir, "exit 0")));
    let mut dialling = scene.start(false);
    let outcome = poll_fn(|cx| dialling.poll(cx));
    let waited = tokio::time::timeout(Duration::from_secs(3), outcome).await;
    assert!(waited.is_err());
    assert_eq!(scene.starts().len(), 1);
    let listener = UnixListener::bind(scene.path("s")).unwrap();
    assert!(poll_fn(|cx| dialling.poll(cx)).await.is_ok());
    drop(listener);
}
