//! What every implementation of [`Queue`] must do. The embedded queue and W&B's client each bring
//! their own [`World`].

use std::time::{Duration, Instant};

use launch_agent::failure::{AtStage, Error, Kind, Stage};
use launch_agent::queue::{
    AgentId, AgentInfo, AgentStatus, Ended, Exit, ItemId, Outcome, Priority, Queue, RunQueueItem,
    StopReason,
};

/// What people do to a queue from outside.
pub trait Admin {
    /// Pushes a job that runs `image`.
    fn push(&self, queue: &str, image: &str, priority: Option<Priority>) -> ItemId;
    fn cancel(&self, item: &ItemId);
    fn set_paused(&self, queue: &str, paused: bool);
    /// The word for the item's state.
    fn state(&self, item: &ItemId) -> String;
}

/// A fresh place with the queues `plain` and `urgent`; the latter knows priorities.
pub struct World<'a> {
    /// Opens the place as another agent's process would.
    pub open: &'a dyn Fn() -> Box<dyn Queue>,
    pub admin: &'a dyn Admin,
}

/// One agent with its own way to the queues.
struct Hand {
    queue: Box<dyn Queue>,
    agent: AgentId,
}

impl Hand {
    fn new(world: &World) -> Hand {
        let queue = (world.open)();
        let agent = agent_of(queue.as_ref());
        Hand { queue, agent }
    }

    fn take(&self, queue: &str) -> Option<ItemId> {
        let item = poll(self.queue.as_ref(), &self.agent, queue)?;
        assert_eq!(item.queue, queue);
        Some(item.id)
    }

    fn ack(&self, item: &ItemId, run: &str) -> bool {
        self.queue.ack(&self.agent, item, run).expect("an ack")
    }

    /// An item that this agent never took may also be an error.
    fn ack_is_refused(&self, item: &ItemId, run: &str) -> bool {
        !self.queue.ack(&self.agent, item, run).unwrap_or(false)
    }

    fn finish(&self, item: &ItemId, end: &Ended) -> bool {
        self.queue.finish(&self.agent, item, end).expect("a finish")
    }

    fn claim(&self, world: &World, image: &str, run: &str) -> ItemId {
        let item = world.admin.push("plain", image, None);
        assert_eq!(self.take("plain").as_ref(), Some(&item));
        assert!(self.ack(&item, run));
        item
    }
}

/// Some implementations report in the background.
fn wait_for_state(world: &World, item: &ItemId, state: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.admin.state(item) != state {
        assert!(
            Instant::now() < deadline,
            "{item:?} is {}, not {state}",
            world.admin.state(item)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An implementation that is put to the test: makes a world whose leases have the given length, and shows it.
pub type Make<'a> = &'a dyn Fn(Duration, &dyn Fn(&World));

const LONG: Duration = Duration::from_secs(60);

/// What holds for every queue.
pub fn contract(make: Make) {
    make(LONG, &order);
    make(LONG, &acknowledging);
    make(LONG, &failing);
    make(LONG, &stopping);
    make(LONG, &unknown_queues);
    make(Duration::from_millis(200), &leases_end);
}

/// What holds beyond that where the queue itself knows how a job ended, and can be paused.
pub fn contract_of_a_queue_that_knows_all(make: Make) {
    make(LONG, &ending);
    make(LONG, &taking_back);
    make(LONG, &pausing);
}

pub fn agent_of(queue: &dyn Queue) -> AgentId {
    queue
        .register(&AgentInfo {
            hostname: "box".to_owned(),
            pid: 7,
            queues: vec!["plain".to_owned(), "urgent".to_owned()],
            max_jobs: Some(1),
        })
        .expect("registered")
}

pub fn exited(code: i32) -> Ended {
    Ended {
        outcome: Outcome::Exited(Exit {
            code,
            oom_killed: false,
        }),
        duration: Some(Duration::from_millis(1_500)),
        details: String::new(),
    }
}

/// What a poll of one queue brings.
pub fn poll(queue: &dyn Queue, agent: &AgentId, name: &str) -> Option<RunQueueItem> {
    let items = queue.poll(agent, AgentStatus::Polling, 0, &[name.to_owned()]);
    let mut items = items.expect("a poll").into_iter();
    let item = items.next();
    assert_eq!(items.next(), None, "one queue gives one item at a time");
    item
}

fn order(world: &World) {
    let hand = Hand::new(world);
    let push = |image: &str, priority| world.admin.push("urgent", image, priority);
    let medium = push("a:1", None);
    let low = push("b:1", Some(Priority::Low));
    let critical = push("c:1", Some(Priority::Critical));
    let medium_too = push("d:1", Some(Priority::Medium));
    let high = push("e:1", Some(Priority::High));
    let elsewhere = world.admin.push("plain", "f:1", None);

    for expected in [critical, high, medium, medium_too, low] {
        assert_eq!(hand.take("urgent"), Some(expected));
    }
    assert_eq!(hand.take("urgent"), None);
    assert_eq!(hand.take("plain"), Some(elsewhere));
}

fn acknowledging(world: &World) {
    let (mine, other) = (Hand::new(world), Hand::new(world));
    let item = world.admin.push("plain", "a:1", None);
    assert!(mine.ack_is_refused(&item, "run1"), "nobody took it");
    assert_eq!(mine.take("plain").as_ref(), Some(&item));
    assert_eq!(world.admin.state(&item), "LEASED");
    assert!(other.ack_is_refused(&item, "run2"));
    assert!(mine.ack(&item, "run1"));
    assert_eq!(world.admin.state(&item), "CLAIMED");
    assert!(mine.ack(&item, "run1"), "repeating it is harmless");
    assert!(other.ack_is_refused(&item, "run1"));
    assert!(mine.ack_is_refused(&item, "run3"));
    assert!(mine.ack_is_refused(&ItemId("no-such-item".to_owned()), "run1"));
}

fn failing(world: &World) {
    let (mine, other) = (Hand::new(world), Hand::new(world));
    let failed = |stage| Ended {
        outcome: Outcome::Failed(
            Err::<(), _>(Error::input("a bad spec"))
                .at(stage)
                .expect_err("a failure"),
        ),
        duration: None,
        details: "more about it".to_owned(),
    };
    // A spec that cannot be read fails before anything is acknowledged.
    let bad = world.admin.push("plain", "b:1", None);
    assert_eq!(mine.take("plain").as_ref(), Some(&bad));
    assert!(!other.finish(&bad, &failed(Stage::Agent)));
    assert!(mine.finish(&bad, &failed(Stage::Agent)));
    wait_for_state(world, &bad, "FAILED");
    assert!(!mine.finish(&bad, &failed(Stage::Agent)), "it ends once");

    let refused = mine.claim(world, "c:1", "run1");
    assert!(!other.finish(&refused, &failed(Stage::Run)));
    assert_eq!(world.admin.state(&refused), "CLAIMED");
    assert!(mine.finish(&refused, &failed(Stage::Run)));
    wait_for_state(world, &refused, "FAILED");
}

fn stopping(world: &World) {
    let hand = Hand::new(world);
    let requests = |items: &[ItemId]| -> Vec<ItemId> {
        let signals = hand.queue.signals(&hand.agent, items).expect("signals");
        assert!(!signals.stop_polling);
        signals
            .stop
            .into_iter()
            .map(|request| request.item)
            .collect()
    };
    let (one, two) = (
        hand.claim(world, "a:1", "run1"),
        hand.claim(world, "b:1", "run2"),
    );
    let nothing = hand.queue.poll(&hand.agent, AgentStatus::Running, 2, &[]);
    assert_eq!(nothing.expect("a poll"), [], "no free slot, no item");
    let both = [one.clone(), two.clone()];
    assert_eq!(requests(&both), [] as [ItemId; 0]);
    world.admin.cancel(&two);
    assert_eq!(requests(&both), std::slice::from_ref(&two));
    assert_eq!(
        world.admin.state(&two),
        "CLAIMED",
        "only its agent can stop it"
    );
}

fn unknown_queues(world: &World) {
    let error = (world.open)()
        .register(&AgentInfo {
            hostname: "box".to_owned(),
            pid: 7,
            queues: vec!["plain".to_owned(), "urgnt".to_owned()],
            max_jobs: None,
        })
        .expect_err("an unknown queue");
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.message.contains("`urgnt`"), "{error}");
    assert_eq!(error.hint.as_deref(), Some("did you mean `urgent`?"));
}

fn leases_end(world: &World) {
    let (slow, quick) = (Hand::new(world), Hand::new(world));
    let item = world.admin.push("plain", "a:1", None);
    assert_eq!(slow.take("plain").as_ref(), Some(&item));
    assert_eq!(quick.take("plain"), None);
    wait_for_state(world, &item, "PENDING");
    assert!(!slow.ack(&item, "run1"));
    assert!(!slow.finish(&item, &exited(0)));
    assert_eq!(quick.take("plain"), Some(item));
}

fn ending(world: &World) {
    let (mine, other) = (Hand::new(world), Hand::new(world));
    let item = mine.claim(world, "a:1", "run1");
    assert!(!other.finish(&item, &exited(0)));
    assert_eq!(world.admin.state(&item), "CLAIMED");
    assert!(mine.finish(&item, &exited(0)));
    assert_eq!(world.admin.state(&item), "FINISHED");
    assert!(!mine.finish(&item, &exited(1)), "it ends once");

    let stopped = mine.claim(world, "b:1", "run2");
    let by_person = Ended {
        outcome: Outcome::Stopped(StopReason::Requested),
        ..exited(0)
    };
    assert!(mine.finish(&stopped, &by_person));
    assert_eq!(world.admin.state(&stopped), "STOPPED");
}

fn taking_back(world: &World) {
    let waiting = world.admin.push("plain", "c:1", None);
    world.admin.cancel(&waiting);
    assert_eq!(world.admin.state(&waiting), "STOPPED");
    assert_eq!(Hand::new(world).take("plain"), None);
}

fn pausing(world: &World) {
    let hand = Hand::new(world);
    world.admin.set_paused("plain", true);
    let item = world.admin.push("plain", "a:1", None);
    assert_eq!(hand.take("plain"), None);
    world.admin.set_paused("plain", false);
    assert_eq!(hand.take("plain"), Some(item));
}
