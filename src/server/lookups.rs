//! Questions to the system's databases of users and hosts, which may block for as long as a
//! directory server likes: few at once, each within a bound, and none that is not waited for any
//! more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Questions at once; a stuck directory server holds up only clients whose names are not yet known.
pub(crate) const AT_ONCE: usize = 8;
/// How long a client may have to wait for its names before it is refused.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bounds the questions of all threads together.
#[derive(Debug)]
pub(crate) struct Lookups {
    permits: Arc<Semaphore>,
    deadline: Duration,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            deadline: DEADLINE,
        }
    }
}

impl Lookups {
    /// Runs `ask` where blocking is allowed, in its turn. One whose time is over before its turn is
    /// dropped with all that it holds: else a database that hangs would heap up clients that have
    /// long been refused, each with a descriptor. One that has begun goes on and keeps its place.
    ///
    /// # Errors
    /// Its own, or there was no answer in time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        ask: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permits = Arc::clone(&self.permits);
        let answer = async {
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            let answer = tokio::task::spawn_blocking(move || {
                let answer = ask();
                drop(permit);
                answer
            });
            answer.await?
        };
        tokio::time::timeout(self.deadline, answer).await?
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_database_that_hangs_heaps_up_nobody() {
        let lookups = Lookups {
            permits: Arc::new(Semaphore::new(1)),
            deadline: Duration::from_millis(20),
        };
        let (release, released) = mpsc::channel::<()>();
        let hangs = lookups.run(move || released.recv().map_err(io::Error::other));
        assert_eq!(hangs.await.unwrap_err().kind(), io::ErrorKind::TimedOut);

        let descriptor = Arc::new(());
        let held = Arc::clone(&descriptor);
        let waits = lookups.run(move || Ok(held));
        assert_eq!(waits.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(Arc::strong_count(&descriptor), 1);

        // The one that hung was still counted, and is no more.
        release.send(()).unwrap();
        let lookups = Lookups {
            deadline: DEADLINE,
            ..lookups
        };
        assert_eq!(lookups.run(|| Ok(7)).await.unwrap(), 7);
    }
}
