//! Our own agent and commands over the server, as on other machines: only the address and the key differ.

use serde_json::{Value, json};

use super::{LAUNCH_AGENT, Member, served};
use crate::common::sandbox::{Agent, Sandbox};
use crate::common::server::{Client, Server};

struct Lab {
    folder: tempfile::TempDir,
    server: Server,
    client: Client,
    key: String,
}

impl Lab {
    fn new() -> Lab {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, client) = served(folder.path());
        let key = server.key("bob", &["team"]);
        Lab {
            folder,
            server,
            client,
            key,
        }
    }

    fn team(&self) -> Member<'_> {
        Member {
            client: &self.client,
            entity: "team",
        }
    }

    /// Another machine: its own home, a fake docker, the server's address and a key.
    fn machine(&self, job: &str) -> Sandbox {
        let mut sandbox = Sandbox::with_fake_docker(job);
        sandbox.set("WANDB_BASE_URL", &format!("http://{}", self.server.address));
        sandbox.set("WANDB_API_KEY", &self.key);
        sandbox.set("WANDB_ENTITY", "team");
        sandbox
    }

    fn agent(machine: &Sandbox, arguments: &[&str]) -> Agent {
        machine.start(&[&["-q", "q"], arguments].concat())
    }
}

#[test]
fn our_push_and_our_agent_meet_over_the_server() {
    let lab = Lab::new();
    let pusher = lab.machine("");
    let config = pusher.write("config.json", r#"{"cpus": "{{cpus}}", "rm": true}"#);
    let variables = pusher.write(
        "variables.json",
        r#"{"cpus": {"schema": {"type": "integer", "minimum": 1, "maximum": 4}}}"#,
    );
    pusher.ok(&[
        "queue",
        "create",
        "q",
        "--prioritization",
        "--config",
        config.to_str().expect("UTF-8"),
        "--template-variables",
        variables.to_str().expect("UTF-8"),
    ]);
    let push = |cpus: &str| {
        pusher.run(&[
            "push", "-q", "q", "-p", "demo", "-d", "job:1", "-v", cpus, "-P", "high", "--", "train",
        ])
    };
    push("cpus=8").code(2).says("cpus").says("4");
    let id = push("cpus=2").code(0).stdout.trim().to_owned();

    let machine = lab.machine("");
    let mut agent = Lab::agent(&machine, &["--once"]);
    assert_eq!(agent.wait(&machine), Some(0));
    let call = machine.calls("run").remove(0);
    assert!(
        call.ends_with("'--cpus' '2' '--rm' 'job:1' 'train'"),
        "{call}"
    );
    assert!(call.contains("'WANDB_USERNAME=bob'"), "{call}");
    assert!(!call.contains(&lab.key), "the key is in argv");
    let shown: Value =
        serde_json::from_str(&pusher.ok(&["item", "show", &id, "--json"])).expect("JSON");
    assert_eq!(shown["state"], "CLAIMED", "how it goes on its run says");
    assert!(
        !pusher.ok(&["item", "show", &id]).contains("project:"),
        "a pusher is not told the spec"
    );
    let shown = lab.server.cli(&["item", "show", "1"]);
    assert!(
        shown.contains(" on ") && !shown.contains("process"),
        "{shown}"
    );
}

#[test]
fn two_machines_share_the_work_and_a_bad_job_comes_back_with_its_reason() {
    let lab = Lab::new();
    lab.team().make_queue("q", &json!({}), &json!({}));
    let ids: Vec<String> = (0..10).map(|_| lab.team().push("q")).collect();
    let machines = [lab.machine("exit 0"), lab.machine("exit 0")];
    for machine in &machines {
        machine.write("fake/images", "bb:1\njob:1\na:1\n");
    }
    let mut agents: Vec<Agent> = machines
        .iter()
        .map(|machine| Lab::agent(machine, &["--once", "-j", "2"]))
        .collect();
    for (agent, machine) in agents.iter_mut().zip(&machines) {
        agent.wait(machine);
    }
    let runs: usize = machines
        .iter()
        .map(|machine| machine.calls("run").len())
        .sum();
    let log: String = machines
        .iter()
        .map(|machine| machine.read("agent.err"))
        .collect();
    assert_eq!(runs, ids.len(), "{log}");
    drop(lab.folder);
}

#[test]
fn the_server_stops_our_agent() {
    let lab = Lab::new();
    lab.team().make_queue("q", &json!({}), &json!({}));
    let machine = lab.machine("");
    let mut agent = Lab::agent(&machine, &[]);
    machine.wait_for("the agent to poll", || {
        machine.read("agent.err").contains("polling")
    });
    let log = machine.read("agent.err");
    let id = log.rsplit(" as ").next().expect("an id").trim();
    let listed = lab.server.cli(&["serve", "agent", "list", "--json"]);
    let agents: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(agents[0]["id"], id, "the log and the list say the same");
    let shown = lab.server.cli(&["queue", "show", "team/q", "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["agents"][0]["pid"], Value::Null, "it is elsewhere");
    lab.server.cli(&["serve", "agent", "stop", id]);
    assert_eq!(
        agent.wait(&machine),
        Some(0),
        "{}",
        machine.read("agent.err")
    );
    let seen = lab.client.data(LAUNCH_AGENT, &json!({"a": id}));
    assert_eq!(seen["launchAgent"]["agentStatus"], "KILLED");
}

/// What is wrong with key, address and entity is told once, in however many places a command asks.
#[test]
fn a_push_says_once_what_is_wrong_with_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    lab.team().make_queue("q", &json!({}), &json!({}));
    let mut machine = lab.machine("");
    let file = machine.write("key", &lab.key);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("changed");
    machine.set("WANDB_API_KEY", "");
    machine.set("WANDB_API_KEY_FILE", file.to_str().expect("UTF-8"));
    let push = ["push", "-q", "q", "-p", "demo"];
    let refused = machine
        .run(&[&push[..], &["-j", "nobody"]].concat())
        .code(6)
        .says("has no artifact `team/demo/nobody:latest`");
    let warning = "can be read by other users of this machine";
    assert_eq!(
        refused.stderr.matches(warning).count(),
        1,
        "{}",
        refused.stderr
    );
    machine
        .run(&[&push[..], &["-d", "job:1", "-e", "nope"]].concat())
        .code(6)
        .says("hint: the entities of this key: bob, team\n");
}
