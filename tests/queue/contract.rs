//! What every implementation of [`Queue`] must do. Run against the embedded queue here; another implementation
//! brings its own [`World`].

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
    pub queue: &'a dyn Queue,
    pub admin: &'a dyn Admin,
}

/// An implementation that is put to the test: makes a world whose leases have the given length, and shows it.
pub type Make<'a> = &'a dyn Fn(Duration, &dyn Fn(&World));

const LONG: Duration = Duration::from_secs(60);

pub fn contract(make: Make) {
    make(LONG, &order);
    make(LONG, &acknowledging);
    make(LONG, &ending);
    make(LONG, &stopping);
    make(LONG, &pausing);
    make(LONG, &unknown_queues);
    make(Duration::from_millis(200), &leases_end);
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

fn taken(world: &World, agent: &AgentId, queue: &str) -> Option<ItemId> {
    let item = poll(world.queue, agent, queue)?;
    assert_eq!(item.queue, queue);
    Some(item.id)
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
    let agent = agent_of(world.queue);
    let push = |image: &str, priority| world.admin.push("urgent", image, priority);
    let medium = push("a:1", None);
    let low = push("b:1", Some(Priority::Low));
    let critical = push("c:1", Some(Priority::Critical));
    let medium_too = push("d:1", Some(Priority::Medium));
    let high = push("e:1", Some(Priority::High));
    let elsewhere = world.admin.push("plain", "f:1", None);

    for expected in [critical, high, medium, medium_too, low] {
        assert_eq!(taken(world, &agent, "urgent"), Some(expected));
    }
    assert_eq!(taken(world, &agent, "urgent"), None);
    assert_eq!(taken(world, &agent, "plain"), Some(elsewhere));
}

fn acknowledging(world: &World) {
    let (mine, other) = (agent_of(world.queue), agent_of(world.queue));
    let ack = |agent, item: &ItemId, run| world.queue.ack(agent, item, run).expect("an ack");
    let item = world.admin.push("plain", "a:1", None);
    assert!(!ack(&mine, &item, "run1"), "nobody took it");
    assert_eq!(taken(world, &mine, "plain").as_ref(), Some(&item));
    assert_eq!(world.admin.state(&item), "LEASED");
    assert!(!ack(&other, &item, "run2"));
    assert!(ack(&mine, &item, "run1"));
    assert_eq!(world.admin.state(&item), "CLAIMED");
    assert!(ack(&mine, &item, "run1"), "repeating it is harmless");
    assert!(!ack(&mine, &item, "run3"));
    assert!(!ack(&other, &item, "run1"));
    assert!(!ack(&mine, &ItemId("no-such-item".to_owned()), "run1"));
}

fn ending(world: &World) {
    let (mine, other) = (agent_of(world.queue), agent_of(world.queue));
    let finish =
        |agent, item: &ItemId, end: &Ended| world.queue.finish(agent, item, end).expect("a finish");
    let claimed = || {
        let item = world.admin.push("plain", "a:1", None);
        assert_eq!(taken(world, &mine, "plain").as_ref(), Some(&item));
        assert!(world.queue.ack(&mine, &item, "run1").expect("an ack"));
        item
    };
    let item = claimed();
    assert!(!finish(&other, &item, &exited(0)));
    assert_eq!(world.admin.state(&item), "CLAIMED");
    assert!(finish(&mine, &item, &exited(0)));
    assert_eq!(world.admin.state(&item), "FINISHED");
    assert!(!finish(&mine, &item, &exited(1)), "it ends once");

    let stopped = claimed();
    let by_person = Ended {
        outcome: Outcome::Stopped(StopReason::Requested),
        ..exited(0)
    };
    assert!(finish(&mine, &stopped, &by_person));
    assert_eq!(world.admin.state(&stopped), "STOPPED");

    // A spec that cannot be read fails before anything is acknowledged.
    let bad = world.admin.push("plain", "b:1", None);
    assert_eq!(taken(world, &mine, "plain").as_ref(), Some(&bad));
    let failure = Err::<(), _>(Error::input("a bad spec"))
        .at(Stage::Agent)
        .expect_err("a failure");
    let failed = Ended {
        outcome: Outcome::Failed(failure),
        duration: None,
        details: "more about it".to_owned(),
    };
    assert!(finish(&mine, &bad, &failed));
    assert_eq!(world.admin.state(&bad), "FAILED");
}

fn stopping(world: &World) {
    let agent = agent_of(world.queue);
    let requests = |items: &[ItemId]| -> Vec<ItemId> {
        let signals = world.queue.signals(&agent, items).expect("signals");
        assert!(!signals.stop_polling);
        signals
            .stop
            .into_iter()
            .map(|request| request.item)
            .collect()
    };
    let (one, two) = (
        world.admin.push("plain", "a:1", None),
        world.admin.push("plain", "b:1", None),
    );
    for item in [&one, &two] {
        assert_eq!(taken(world, &agent, "plain").as_ref(), Some(item));
        assert!(world.queue.ack(&agent, item, "run1").expect("an ack"));
    }
    let nothing = world.queue.poll(&agent, AgentStatus::Running, 2, &[]);
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

    let waiting = world.admin.push("plain", "c:1", None);
    world.admin.cancel(&waiting);
    assert_eq!(world.admin.state(&waiting), "STOPPED");
    assert_eq!(taken(world, &agent, "plain"), None);
}

fn pausing(world: &World) {
    let agent = agent_of(world.queue);
    world.admin.set_paused("plain", true);
    let item = world.admin.push("plain", "a:1", None);
    assert_eq!(taken(world, &agent, "plain"), None);
    world.admin.set_paused("plain", false);
    assert_eq!(taken(world, &agent, "plain"), Some(item));
}

fn unknown_queues(world: &World) {
    let error = world
        .queue
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
    let (slow, quick) = (agent_of(world.queue), agent_of(world.queue));
    let item = world.admin.push("plain", "a:1", None);
    assert_eq!(taken(world, &slow, "plain").as_ref(), Some(&item));
    assert_eq!(taken(world, &quick, "plain"), None);

    let deadline = Instant::now() + Duration::from_secs(10);
    while world.admin.state(&item) != "PENDING" {
        assert!(Instant::now() < deadline, "the lease never ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(world.admin.state(&item), "PENDING");
    assert!(!world.queue.ack(&slow, &item, "run1").expect("an ack"));
    assert!(
        !world
            .queue
            .finish(&slow, &item, &exited(0))
            .expect("a finish")
    );
    assert_eq!(taken(world, &quick, "plain"), Some(item));
}
