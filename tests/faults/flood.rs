//! Jobs that print more than anybody reads.

use std::time::{Duration, Instant};

use crate::common::sandbox::Sandbox;

const JOBS: usize = 8;
const LINES: usize = 30_000;

/// The most memory that the agent ever had, in kilobytes.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse().expect("a number")
}

#[test]
fn eight_jobs_that_print_ten_thousand_lines_a_second_lose_none() {
    // Ten thousand lines, then what is left of a second.
    let job = format!(
        "case \"${{@: -1}}\" in sleep) exec sleep 600;; esac
         until [ -e $FAKE/go ]; do read -t 0.02 <> <(:) || true; done
         for ((n = 0; n < {LINES}; n += 10000)); do seq -f 'line %.0f of the flood' $((n + 1)) $((n + 10000)); sleep 0.9; done"
    );
    let sandbox = Sandbox::with_fake_docker(&job);
    sandbox.queue("q", "{}");
    let floods: Vec<String> = (0..JOBS).map(|_| sandbox.push("job:1", &[])).collect();
    let sleeper = sandbox.push("job:1", &["--", "sleep"]);
    let agent = sandbox.start_agent(&["-j", &(JOBS + 1).to_string()]);
    sandbox.wait_for("all containers", || sandbox.calls("run").len() == JOBS + 1);
    sandbox.write("fake/go", "");
    let last = floods.last().expect("a job");
    sandbox.wait_for("the flood", || sandbox.log(last).contains("line 10000 of"));
    let start = Instant::now();
    sandbox.ok(&["item", "cancel", &sleeper]);
    sandbox.item_in(&sleeper, &["STOPPED"]);
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    for id in &floods {
        sandbox.item_in(id, &["FINISHED"]);
        let log = sandbox.log(id);
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.starts_with("line "))
            .collect();
        assert_eq!(lines.len(), LINES);
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("line {} of the flood", index + 1));
        }
    }
    assert!(peak(agent.pid()) < 150_000, "{} kB", peak(agent.pid()));
}
