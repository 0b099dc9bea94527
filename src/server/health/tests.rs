#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use super::*;

/// An address that is down.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ailing {
    upstream: Arc<str>,
    pub(crate) failures: u32,
    pub(crate) why: String,
    /// When it is tried again; `None`: with the next dial.
    pub(crate) retry_in: Option<Duration>,
    /// It is a UNIX socket that is not there.
    pub(crate) is_absent: bool,
}

impl Health {
    /// Every address that is down, by the names of the upstreams.
    pub(crate) fn snapshot(&self, now: Instant) -> Vec<Ailing> {
        let upstreams = self.upstreams();
        let all = upstreams.iter().flat_map(|(name, known)| {
            known.down.iter().map(|down| {
                let left = down.next_try.saturating_duration_since(now);
                Ailing {
                    upstream: Arc::clone(name),
                    failures: down.failures,
                    why: down.why.clone(),
                    retry_in: (down.trouble == Trouble::Costly && !left.is_zero()).then_some(left),
                    is_absent: down.trouble == Trouble::Absent,
                }
            })
        });
        let mut all: Vec<Ailing> = all.collect();
        all.sort_by(|one, other| one.upstream.cmp(&other.upstream));
        all
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn policy(upstreams: &str) -> Policy {
    let text = format!(
        "version: 1\nlisteners: {{l: {{unix: /run/l}}}}\nupstreams: {{{upstreams}}}\n\
         routes: [{{uri: x, upstream: u}}]\n"
    );
    crate::policy::load("f", &text, &|_| None).unwrap().policy
}

/// An upstream with so many addresses of no reach.
fn upstream(name: &str, addresses: u16) -> Arc<Upstream> {
    let mut upstream = Upstream::clone(&policy("u: {unix: /run/u}").upstreams[0]);
    upstream.name = name.into();
    let address = |port| Address::Tcp {
        host: name.to_owned(),
        port,
    };
    upstream.addresses = (1..=addresses).map(address).collect();
    Arc::new(upstream)
}

struct Case {
    health: Arc<Health>,
    now: Instant,
}

impl Case {
    fn new() -> Self {
        Self {
            health: Arc::default(),
            now: Instant::now(),
        }
    }

    fn admit(&self, upstream: &Arc<Upstream>) -> Result<Standing, String> {
        self.health.admit(upstream, 0, self.now)
    }

    fn fail(&self, standing: &Standing) {
        standing.failed("connection timed out", Trouble::Costly, self.now);
    }
}

#[test]
fn a_dead_daemon_fails_at_once_and_is_tried_by_one_at_a_time() {
    let mut case = Case::new();
    let hv2 = upstream("hv2", 1);
    let both = (case.admit(&hv2).unwrap(), case.admit(&hv2).unwrap());
    case.fail(&both.0);
    // Says nothing new.
    case.fail(&both.1);
    assert_eq!(case.health.snapshot(case.now)[0].failures, 1);
    let why = case.admit(&hv2).unwrap_err();
    let rest = why.strip_prefix("hv2 at tcp:hv2:1 is down since 0 s: connection timed out; ");
    let rest = rest.unwrap().strip_prefix("tried again in ").unwrap();
    assert!(["1 s", "2 s"].contains(&rest), "{rest}");

    for failures in 1..12 {
        let left = case.health.snapshot(case.now)[0].retry_in.unwrap();
        let expected = SECOND.saturating_mul(1 << (failures - 1)).min(60 * SECOND);
        assert!(expected * 3 / 4 <= left && left <= expected * 5 / 4);
        case.now += left - Duration::from_millis(1);
        case.admit(&hv2).unwrap_err();
        case.now += Duration::from_millis(1);
        let trial = case.admit(&hv2).unwrap();
        assert!(case.admit(&hv2).unwrap_err().contains("being tried now"));
        // Its client leaves: the next one tries.
        drop(trial);
        let trial = case.admit(&hv2).unwrap();
        case.fail(&trial);
        assert_eq!(case.health.snapshot(case.now)[0].failures, failures + 1);
    }
    case.now += 76 * SECOND;
    let trial = case.admit(&hv2).unwrap();
    trial.opened_at(case.now);
    assert_eq!(case.health.snapshot(case.now), []);
    assert_eq!(case.health.down.load(Ordering::Relaxed), 0);
    drop(trial);
    case.admit(&hv2).unwrap();
    assert!(case.health.upstreams().is_empty());
}

#[test]
fn clients_are_not_told_the_arguments_of_a_program() {
    let case = Case::new();
    let policy = policy("u: {command: [ssh, -i, /secret, hv]}");
    let program = &policy.upstreams[0];
    case.fail(&case.admit(program).unwrap());
    let why = case.admit(program).unwrap_err();
    assert!(why.starts_with("u is down since 0 s: "), "{why}");
}

#[test]
fn what_fails_for_free_is_known_and_tried_by_everybody() {
    let case = Case::new();
    let local = upstream("local", 1);
    for trouble in [Trouble::Absent, Trouble::Refused] {
        let standing = case.admit(&local).unwrap();
        standing.failed("refused", trouble, case.now);
        let known = &case.health.snapshot(case.now)[0];
        assert_eq!(known.is_absent, trouble == Trouble::Absent);
        assert_eq!(known.retry_in, None);
        case.admit(&local).unwrap();
    }
    // It hangs: that is another matter.
    case.fail(&case.admit(&local).unwrap());
    case.admit(&local).unwrap_err();
    assert_eq!(case.health.snapshot(case.now)[0].failures, 1);
}

#[test]
fn a_local_daemon_that_turns_clients_away_at_once_is_tried_by_everybody() {
    let case = Case::new();
    let policy = policy("u: {unix: /run/u}");
    let (local, far) = (&policy.upstreams[0], &upstream("far", 1));
    let soon = case.now + SECOND / 10;
    case.admit(local).unwrap().unwell_at("it closed", soon);
    case.admit(local).unwrap();
    case.admit(far).unwrap().unwell_at("it closed", soon);
    case.admit(far).unwrap_err();
    let late = case.now + SECOND;
    case.admit(local).unwrap().unwell_at("no answer", late);
    case.admit(local).unwrap_err();
}

#[test]
fn after_a_connection_that_was_good_somebody_finds_out_at_once() {
    let case = Case::new();
    let far = upstream("far", 1);
    let standing = case.admit(&far).unwrap();
    standing.opened();
    standing.unwell_at("no answer", case.now);
    let trial = case.admit(&far).unwrap();
    case.admit(&far).unwrap_err();
    case.fail(&trial);
    case.admit(&far).unwrap_err();
}

#[test]
fn load_spreads_over_the_addresses_that_are_well() {
    let mut case = Case::new();
    let pool = upstream("pool", 3);
    let order = |case: &Case| case.health.order(&pool, case.now);
    assert_eq!(order(&case), [0, 1, 2]);
    assert_eq!(order(&case), [1, 2, 0]);
    case.fail(&case.health.admit(&pool, 2, case.now).unwrap());
    assert_eq!(order(&case), [0, 1, 2]);
    assert_eq!(order(&case), [0, 1, 2]);
    assert_eq!(order(&case), [1, 0, 2]);
    case.health.admit(&pool, 2, case.now).unwrap_err();
    case.health.admit(&pool, 1, case.now).unwrap();
    // Its time has come, and one tries it in its turn.
    case.now += 2 * SECOND;
    assert_eq!(order(&case), [2, 0, 1]);
    let trial = case.health.admit(&pool, 2, case.now).unwrap();
    assert_eq!(order(&case), [0, 1, 2]);
    trial.opened_at(case.now);
    assert_eq!(order(&case), [1, 2, 0]);
    assert_eq!(order(&case), [2, 0, 1]);
}

#[test]
fn a_summary_names_what_cannot_be_used() {
    let case = Case::new();
    let policy = policy("u: {unix: /run/u}, v: {unix: [/run/v1, /run/v2]}, w: {unix: /run/w}");
    let summary = || case.health.summary(&policy);
    let fail = |upstream: &Arc<Upstream>, place, trouble| {
        let standing = case.health.admit(upstream, place, case.now).unwrap();
        standing.failed("no", trouble, case.now);
    };
    let [u, v, w] = &policy.upstreams[..] else {
        unreachable!()
    };
    fail(w, 0, Trouble::Absent);
    fail(v, 0, Trouble::Refused);
    assert_eq!(summary(), None);
    fail(v, 1, Trouble::Refused);
    assert_eq!(summary().unwrap(), "1 of 3 upstreams down: v");
    fail(u, 0, Trouble::Costly);
    assert_eq!(summary().unwrap(), "2 of 3 upstreams down: u, v");
    fail(&upstream("u/h", 1), 0, Trouble::Costly);
    assert_eq!(summary().unwrap(), "3 upstreams down: u, u/h, v");
    for number in 0..5 {
        fail(&upstream(&format!("a{number}"), 1), 0, Trouble::Costly);
    }
    let long = summary().unwrap();
    assert_eq!(long, "8 upstreams down: a0, a1, a2, a3, a4 and 3 more");

    // A new policy forgets what it does not name, and lets the rest be tried at once.
    case.health.admit(u, 0, case.now).unwrap_err();
    case.health.reconsider(&policy, case.now);
    assert_eq!(summary().unwrap(), "2 of 3 upstreams down: u, v");
    assert_eq!(case.health.down.load(Ordering::Relaxed), 4);
    case.health.admit(u, 0, case.now).unwrap();
}

#[test]
fn memory_is_bounded_and_what_is_down_is_forgotten_last() {
    let mut case = Case::new();
    let down = upstream("down", 1);
    case.fail(&case.admit(&down).unwrap());
    for number in 0..2 * MAX_UPSTREAMS {
        case.now += Duration::from_nanos(1);
        let pool = upstream_like(&down, &format!("pool{number}"));
        case.health.order(&pool, case.now);
    }
    assert_eq!(case.health.upstreams().len(), MAX_UPSTREAMS);
    case.admit(&down).unwrap_err();
    for number in 0..2 * MAX_UPSTREAMS {
        case.now += Duration::from_nanos(1);
        case.fail(
            &case
                .admit(&upstream_like(&down, &format!("h{number}")))
                .unwrap(),
        );
    }
    assert_eq!(case.health.upstreams().len(), MAX_UPSTREAMS);
    assert_eq!(case.health.down.load(Ordering::Relaxed), MAX_UPSTREAMS);
    case.admit(&down).unwrap();
}

fn upstream_like(other: &Upstream, name: &str) -> Arc<Upstream> {
    Arc::new(Upstream {
        name: name.into(),
        ..other.clone()
    })
}
