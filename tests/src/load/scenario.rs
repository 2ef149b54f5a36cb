//! Scenarios of load on a target, and the measurements of each.

pub mod closed;
pub mod held;
pub mod open;
mod outcome;
pub mod paced;
mod window;

pub use outcome::{Failures, Outcome, Target};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::closed::Closed;
    use super::held::Held;
    use super::open::Open;
    use super::paced::Paced;
    use super::*;
    use crate::load::answer::{Answer, Writes};
    use crate::load::client::Endpoint;
    use crate::load::process_meter::ProcessMeter;
    use crate::load::{passthrough, upstream};

    /// Starts the upstream and the reference proxy in this process.
    async fn yardstick() -> Target {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (origin, proxy) = (listen().await.unwrap(), listen().await.unwrap());
        let url = format!("http://{}", origin.local_addr().unwrap());
        let address = proxy.local_addr().unwrap();
        tokio::task::spawn_local(upstream::serve(origin));
        tokio::task::spawn_local(passthrough::serve(proxy, url));
        let endpoint =
            Endpoint { address, host: address.to_string(), path: "/v1/chat/completions".to_owned(), token: None };
        Target {
            name: "passthrough".to_owned(),
            endpoint,
            meter: Some(ProcessMeter::of(std::process::id())),
            broker: None,
        }
    }

    fn check(outcome: &Outcome, measures: &[&str]) {
        assert!(outcome.completed > 0 && outcome.failures.count == 0, "{outcome:?}");
        for name in measures {
            assert!(outcome.measures.get(*name).is_some_and(|value| *value > 0.0), "{name}: {outcome:?}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn every_scenario_completes_on_the_yardstick() {
        let target = yardstick().await;
        let window = Duration::from_millis(200);
        let chat = ["cpu_us_per_chat", "chats_per_s", "first_byte_p50_us", "total_p99_us"];
        check(&Closed::short(3, Writes::Each, window).run(&target).await.unwrap(), &chat);
        check(&Closed::short(3, Writes::Once, window).run(&target).await.unwrap(), &chat);
        check(&Closed::whole(3, window).run(&target).await.unwrap(), &chat);
        check(&Open::short(50, window).run(&target).await.unwrap(), &chat);
        let paced = Paced { streams: 5, pause: Duration::from_millis(20), window };
        check(&paced.run(&target).await.unwrap(), &["cpu_us_per_chunk", "chunks_per_s", "late_p50_us"]);
        let answer = Answer::paced(5, Duration::from_millis(100));
        let held = Held { streams: 10, answer, settle: Duration::from_millis(50), afterwards: window };
        check(&held.run(&target).await.unwrap(), &["idle_mb", "held_mb", "afterwards_mb"]);
    }

    #[tokio::test(flavor = "local")]
    async fn chats_that_are_refused_are_failures() {
        let target = yardstick().await;
        let closed =
            Closed { model: "no-such-model".to_owned(), ..Closed::short(2, Writes::Each, Duration::from_millis(50)) };
        let outcome = closed.run(&target).await.unwrap();
        assert_eq!(outcome.completed, 0);
        assert!(outcome.failures.count > 0 && outcome.failures.reasons[0].contains("404"), "{outcome:?}");
    }
}
