//! A terminal that closes under an agent.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::sandbox::Sandbox;

/// A job that waits until the test lets it go.
const WAITS: &str = "until [ -e $FAKE/go ]; do sleep 0.02; done";

fn wait_for_the_end_to_be_near(sandbox: &Sandbox) {
    sandbox.wait_for("the agent to say so", || {
        sandbox
            .read("agent.err")
            .contains("ending when the running job has ended; a second signal stops it")
    });
}

#[test]
fn a_terminal_that_closes_is_heard_once() {
    let sandbox = Sandbox::with_fake_docker(WAITS);
    sandbox.queue("q", "{}");
    let id = sandbox.push("job:1", &[]);
    let mut agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the container", || sandbox.calls("run").len() == 1);
    agent.signal(Signal::SIGHUP);
    wait_for_the_end_to_be_near(&sandbox);
    // Were it counted again, the next would be the third, and leave at once.
    agent.signal(Signal::SIGHUP);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait(&sandbox), Some(0));
    assert_eq!(sandbox.item(&id)["message"], "the agent was stopped");
}

#[test]
fn what_nohup_started_hears_no_terminal() {
    let sandbox = Sandbox::with_fake_docker(WAITS);
    sandbox.queue("q", "{}");
    let id = sandbox.push("job:1", &[]);
    let program = sandbox.command(&["--local", "-q", "q"]);
    let mut nohup = Command::new("nohup");
    nohup.arg(program.get_program()).args(program.get_args());
    nohup.env_clear().current_dir(sandbox.path(""));
    nohup.envs(
        program
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let mut agent = sandbox.start_command(nohup);
    sandbox.wait_for("the container", || sandbox.calls("run").len() == 1);
    // Were it counted, the next would be the second, and stop the job.
    agent.signal(Signal::SIGHUP);
    agent.signal(Signal::SIGTERM);
    wait_for_the_end_to_be_near(&sandbox);
    sandbox.write("fake/go", "");
    assert_eq!(agent.wait(&sandbox), Some(0));
    assert_eq!(sandbox.item(&id)["state"], "FINISHED");
}
