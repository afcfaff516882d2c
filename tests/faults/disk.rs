//! A disk that fills up, in a mount namespace of its own: the test starts its own binary again inside one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::sandbox::Sandbox;
use crate::restart::{is_made, let_go};
use crate::restart_steps::push_git;

/// Set inside the namespace.
const INSIDE: &str = "DISK_TEST_INSIDE";

/// Runs the named test again where mounts are its own; false inside.
fn is_outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let mut unshare = Command::new("unshare");
    let process = fs::metadata("/proc/self").expect("a process");
    if process.uid() != 0 {
        unshare.arg("--map-root-user");
    }
    let output = unshare
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().expect("this binary"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    true
}

/// A sandbox whose state folder is a disk of this size; the agent wants `least` bytes free there.
fn sandbox(size: &str, least: u64, job: &str) -> Sandbox {
    let sandbox = Sandbox::with_fake_docker(job);
    let state = sandbox.path(".local/state");
    fs::create_dir_all(&state).expect("a folder");
    let mounted = Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size},mode=0700"),
            "tmpfs",
        ])
        .arg(&state)
        .status()
        .expect("mount runs");
    assert!(mounted.success());
    let config = format!("min_free_disk: {least}\n");
    sandbox.write(".config/wandb/launch-config.yaml", &config);
    sandbox.queue("q", "{}");
    sandbox
}

/// Fills the disk up, the last byte included.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).expect("a file");
    let block = vec![0; 64 * 1024];
    for size in [block.len(), 1024, 1] {
        while file.write_all(&block[..size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_stops_the_taking_and_nothing_else() {
    if is_outside("faults::disk::a_full_disk_stops_the_taking_and_nothing_else") {
        return;
    }
    let job = "until [ -e $FAKE/go ]; do read -t 0.02 <> <(:) || true; done; seq 1 200000; echo last; exit 4";
    let sandbox = sandbox("16m", 1_000_000, job);
    let running = sandbox.push("job:1", &[]);
    let agent = sandbox.start_agent(&["-j", "2"]);
    sandbox.item_in(&running, &["CLAIMED"]);
    sandbox.wait_for("the container", || sandbox.calls("run").len() == 1);
    let waiting = sandbox.push("job:1", &[]);
    sandbox.wait_for("both containers", || sandbox.calls("run").len() == 2);
    let later = {
        let filler = sandbox.path(".local/state/filler");
        // A push needs room itself, so it comes first, into a queue that is paused.
        sandbox.ok(&["queue", "pause", "q"]);
        let later = sandbox.push("job:1", &[]);
        sandbox.ok(&["queue", "resume", "q"]);
        fill(&filler);
        later
    };
    // Reading goes on, writing says what is the matter.
    assert_eq!(sandbox.item(&running)["state"], "CLAIMED");
    sandbox
        .run(&["push", "-q", "q", "-p", "p", "-d", "job:1"])
        .code(5)
        .says("no space is left on the disk");
    // The jobs that run end as they end; what of their logs cannot be kept is counted.
    sandbox.write("fake/go", "");
    sandbox.wait_for("the agent to say that the disk is full", || {
        sandbox
            .read("agent.err")
            .contains("has less than 1 MB free: taking no jobs")
    });
    fs::remove_file(sandbox.path(".local/state/filler")).expect("removed");
    for item in [&running, &waiting, &later] {
        let item = sandbox.item_in(item, &["FINISHED"]);
        assert_eq!(item["exit_code"], 4, "{item}");
    }
    let said = sandbox.read("agent.err");
    assert_eq!(said.matches("taking no jobs").count(), 1, "{said}");
    assert!(
        said.contains("there is room on the disk again: taking jobs"),
        "{said}"
    );
    drop(agent);
}

#[test]
fn too_little_room_takes_nothing_and_room_again_takes_all() {
    if is_outside("faults::disk::too_little_room_takes_nothing_and_room_again_takes_all") {
        return;
    }
    let sandbox = sandbox("32m", 20_000_000, "");
    let filler = sandbox.path(".local/state/filler");
    fs::write(&filler, vec![0; 16_000_000]).expect("written");
    let id = sandbox.push("job:1", &[]);
    sandbox
        .once(&[])
        .code(1)
        .says("has less than 20 MB free: taking no jobs until it has more")
        .says("`min_free_disk`");
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the agent to say so", || {
        sandbox.read("agent.err").contains("taking no jobs")
    });
    assert_eq!(sandbox.item(&id)["state"], "PENDING");
    fs::remove_file(filler).expect("removed");
    sandbox.item_in(&id, &["FINISHED"]);
}

#[test]
fn no_image_is_built_while_there_is_too_little_room() {
    if is_outside("faults::disk::no_image_is_built_while_there_is_too_little_room") {
        return;
    }
    let mut sandbox = sandbox("32m", 20_000_000, "");
    let id = push_git(&mut sandbox);
    sandbox.write("fake/hold-fetch", "");
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the code", || is_made(&sandbox, "held-fetch"));
    // There was room when the item was taken.
    let filler = sandbox.path(".local/state/filler");
    fs::write(&filler, vec![0; 16_000_000]).expect("written");
    let_go(&sandbox, "fetch");
    let said = "has less free than `min_free_disk`: the image is built when it has more";
    sandbox.wait_for("the job to say so", || sandbox.log(&id).contains(said));
    assert_eq!(sandbox.item(&id)["state"], "CLAIMED");
    assert!(sandbox.calls("build").is_empty());
    fs::remove_file(filler).expect("removed");
    let item = sandbox.item_in(&id, &["FINISHED"]);
    assert!(item["warnings"].to_string().contains(said), "{item}");
    assert_eq!(sandbox.log(&id).matches(said).count(), 1);
    assert!(!sandbox.calls("build").is_empty());
}
