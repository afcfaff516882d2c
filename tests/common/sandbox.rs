//! A place of its own for one test: a home folder, a PATH, a queue database, and, where wanted, a `docker` that
//! records its argv and obeys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a fake docker does. It keeps its notes in `$FAKE`: `calls` (one argv a line, quoted by bash), `images`
/// (those that are there), `state.NAME`, `args.NAME` and `log.NAME` of each container, and runs `job` as the container's
/// command, in a session of its own: a container outlives its client, and does not have its arguments. Where a file
/// `hold-STEP` is, it makes a file `held-STEP` and waits. An image comes from a registry when `digests` exists.
/// `refusals` holds what the registry answers to the next pulls and pushes, a line each; `registry` is that it serves the
/// others; to questions it answers `manifest`. The next build fails with the words of `refuse-build`. A login leaves what
/// came on standard input in `password`.
const FAKE_DOCKER: &str = r#"#!/bin/bash
if [ "$1" = --container ]; then
  shift
  bash -c 'echo $$ >"$FAKE/pid.$1"; exec bash "$FAKE/job" "$@"' job "$@" 2>&1 | tee -p "$FAKE/log.$1"
  exit "${PIPESTATUS[0]}"
fi
printf '%s\n' "${*@Q}" >>"$FAKE/calls"
config=${DOCKER_CONFIG:-$HOME/.docker}
[ "$1" != --config ] || { config=$2; shift 2; }
transfer() { # WHAT IMAGE
  echo "$1 $2"
  [ ! -e "$FAKE/hold" ] || { touch "$FAKE/held"; while [ -e "$FAKE/hold" ]; do sleep 0.02; done; }
  if [ -s "$FAKE/refusals" ]; then head -1 "$FAKE/refusals" >&2; sed -i 1d "$FAKE/refusals"; exit 1; fi
  [ -e "$FAKE/registry" ] || { echo "Error response from daemon: pull access denied for $2" >&2; exit 1; }
  echo "$2" >>"$FAKE/images"
}
name_of() { for c in "$FAKE"/state.*; do [ -e "$c" ] && grep -q "\"id\":\"$1\"" "$c" && { echo "${c##*state.}"; return; }; done; echo "$1"; }
state() { # NAME STATUS RUNNING CODE [STARTED]
  printf '{"id":"id-%s","Status":"%s","Running":%s,"ExitCode":%s,"StartedAt":"%s","FinishedAt":"2026-01-01T00:00:02Z"}\n' "$1" "$2" "$3" "$4" "${5:-2026-01-01T00:00:00Z}" >"$FAKE/state.$1.new"
  mv "$FAKE/state.$1.new" "$FAKE/state.$1"
}
hold() { while [ -e "$FAKE/hold-$1" ]; do : >"$FAKE/held-$1"; sleep 0.02; done; }
containers() { for c in "$FAKE"/state.*; do case "$c" in *.new|*'*') ;; *) echo "${c##*state.}" ;; esac; done; }
[ ! -e "$FAKE/no-engine" ] || [ "$1 $2" = "run --help" ] || { cat "$FAKE/no-engine" >&2; exit 1; }
case "$1 $2" in
  "version "*) echo 99.0 ;;
  "image inspect") grep -qxF -- "${*: -1}" "$FAKE/images" || { echo "Error: No such image: ${*: -1}" >&2; exit 1; }
    [ -e "$FAKE/digests" ] && echo '{"digests":["x@sha256:1"],"labels":{}}' || echo '{"digests":[],"labels":null}' ;;
  "pull "*) hold pull; transfer pulling "${*: -1}" ;;
  "push "*) transfer pushing "${*: -1}" ;;
  "manifest inspect") cat "$FAKE/manifest" >&2; exit 1 ;;
  "login "*)
    cat >"$FAKE/password"; env >"$FAKE/login-env"
    [ ! -e "$FAKE/refuse-login" ] || { cat "$FAKE/refuse-login" >&2; exit 1; }
    printf '{"auths":{"%s":{"auth":"%s"}}}' "${*: -1}" "$(base64 -w0 "$FAKE/password")" >"$config/config.json" ;;
  "info "*) case "$*" in *RegistryConfig*) echo '{}' ;; *LiveRestore*) [ ! -e "$FAKE/live-restore" ] || echo true ;; *) echo "$FAKE" ;; esac ;;
  "run --help") printf 'Options:\n      --brand-new string   A newer option\n' ;;
  "run "*)
    name= cidfile= args=("$@")
    for ((i = 1; i < $#; i++)); do
      case "${!i}" in --name) j=$((i + 1)); name=${!j} ;; --cidfile) j=$((i + 1)); cidfile=${!j} args[i]=.. ;; esac
    done
    hold create
    [ ! -e "$FAKE/refuse" ] || { cat "$FAKE/refuse" >&2; exit 125; }
    printf '%s\n' "$@" >"$FAKE/args.$name"
    state "$name" created false 0 0001-01-01T00:00:00Z
    printf 'id-%s' "$name" >"$cidfile"
    hold start
    echo $$ >"$FAKE/client.$name"
    state "$name" running true 0
    setsid bash -c 'end() { sed -e "s/running/exited/; s/true/false/; s/\"ExitCode\":0/\"ExitCode\":$1/" "$FAKE/state.$2" >"$FAKE/state.$2.new"; mv "$FAKE/state.$2.new" "$FAKE/state.$2"; }; "$@"; code=$?; end $code "$3"; exit $code' container "$0" --container "$name" "${args[@]}" &
    wait $!; exit $? ;;
  "container inspect") hold inspect; cat "$FAKE/state.$(name_of "${*: -1}")" 2>/dev/null || { echo "Error: No such container: ${*: -1}" >&2; exit 1; } ;;
  "ps --quiet") ;;
  "ps --all")
    hold ps
    containers | while read -r name; do
      fits=1
      for word; do case "$word" in label=*) grep -qxF -- "${word#label=}" "$FAKE/args.$name" || fits= ;; esac; done
      [ -z "$fits" ] || printf 'id-%s\t%s\t%s\t%s\n' "$name" "$name" "$(sed 's/.*"Status":"\([a-z]*\)".*/\1/' "$FAKE/state.$name")" "$(sed -n 's/^launch-agent.item=//p' "$FAKE/args.$name")"
    done ;;
  "logs "*)
    name=$(name_of "${*: -1}")
    case "$*" in *--follow*) tail -n +1 -s 0.05 -f --pid="$(cat "$FAKE/pid.$name")" "$FAKE/log.$name" ;; *) cat "$FAKE/log.$name" 2>/dev/null ;; esac
    exit 0 ;;
  "events --stream=false") echo "unknown flag: --stream" >&2; exit 125 ;;
  "events "*) case "$*" in
      *TimeNano*) [ -e "$FAKE/forgetful" ] && event=die || event=create
        containers | while read -r name; do
          if [ $event = create ] || { [ -e "$FAKE/saw-the-end" ] && grep -q exited "$FAKE/state.$name"; }; then echo "1 id-$name $event"; fi
        done ;;
    esac ;;
  "stop "*|"kill "*)
    name=$(name_of "${*: -1}")
    [ -e "$FAKE/state.$name" ] || { echo "Error response from daemon: No such container: $name" >&2; exit 1; }
    kill -KILL "$(cat "$FAKE/pid.$name")" 2>/dev/null
    while grep -q '"Running":true' "$FAKE/state.$name"; do sleep 0.02; done ;;
  "wait "*) sleep 0.1 ;;
  "build "*) hold build
    [ ! -e "$FAKE/refuse-build" ] || { cat "$FAKE/refuse-build" >&2; rm "$FAKE/refuse-build"; exit 1; }
    for ((i = 1; i < $#; i++)); do j=$((i + 1)); [ "${!i}" != --tag ] || echo "${!j}" >>"$FAKE/images"; done ;;
  "rm "*) hold rm; name=$(name_of "${*: -1}"); rm -f "$FAKE/state.$name"; hold removed ;;
  *) echo "fake docker: what is $*?" >&2; exit 1 ;;
esac
"#;

/// How long a test waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that a command may take that ends by itself. A hang is then a failure that shows where it hangs.
const LONGEST: Duration = Duration::from_secs(300);

pub struct Sandbox {
    folder: tempfile::TempDir,
    program: PathBuf,
    /// Who runs everything, when it is not the test's own user.
    user: Option<u32>,
    path: String,
    vars: Vec<(String, String)>,
}

impl Sandbox {
    /// A sandbox with the real PATH of this machine.
    pub fn new() -> Sandbox {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = std::env::var("PATH").expect("a PATH");
        Sandbox {
            folder,
            program: env!("CARGO_BIN_EXE_launch-agent").into(),
            user: None,
            path,
            vars: Vec::new(),
        }
    }

    /// Gives the sandbox to another user, who runs everything from now on: a copy of the program too, because that user
    /// may not be let into the folder where it was built.
    pub fn give_to(&mut self, user: u32) {
        let copy = self.path("launch-agent");
        fs::copy(&self.program, &copy).expect("a copy");
        std::os::unix::fs::chown(self.folder.path(), Some(user), Some(user)).expect("given");
        (self.program, self.user) = (copy, Some(user));
    }

    /// A sandbox whose `docker` is a script that runs `job` (bash; `$1` is the container's name) as every container.
    pub fn with_fake_docker(job: &str) -> Sandbox {
        let mut sandbox = Sandbox::new();
        sandbox.write_program("docker", FAKE_DOCKER);
        fs::create_dir(sandbox.path("fake")).expect("a folder");
        sandbox.set("FAKE", sandbox.path("fake").to_str().expect("UTF-8"));
        sandbox.write("fake/images", "job:1\n");
        sandbox.write("fake/job", job);
        sandbox
    }

    /// Puts an executable first on the PATH.
    pub fn write_program(&mut self, name: &str, text: &str) {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).expect("a folder");
        fs::write(bin.join(name), text).expect("written");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("executable");
        if !self.path.starts_with(bin.to_str().expect("UTF-8")) {
            self.path = format!("{}:{}", bin.display(), self.path);
        }
    }

    /// Leaves nothing on the PATH but what the sandbox itself has.
    pub fn clear_path(&mut self) {
        self.path = self.path("bin").display().to_string();
    }

    /// Sets a variable for every program that the sandbox starts.
    pub fn set(&mut self, name: &str, value: &str) {
        self.vars.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, text).expect("written");
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `launch-agent` with a clean environment; it is not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", &self.path);
        // The engine may be somewhere that only the environment names.
        for name in ["DOCKER_HOST", "DOCKER_CONFIG"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("launch-agent starts");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = ended.recv_timeout(LONGEST).unwrap_or_else(|_| {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let said = ended.recv_timeout(PATIENCE).ok().and_then(Result::ok);
            panic!(
                "launch-agent {arguments:?} did not end within {} s\n--- stderr\n{}--- docker calls\n{}",
                LONGEST.as_secs(),
                said.map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
                    .unwrap_or_default(),
                self.read("fake/calls"),
            )
        });
        Ran::new(arguments, &output.expect("waited"), self.folder.path())
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).code(0).stdout
    }

    /// Makes a queue with this config, and pushes nothing.
    pub fn queue(&self, name: &str, config: &str) {
        let file = self.write(&format!("{name}.queue.json"), config);
        self.ok(&[
            "queue",
            "create",
            name,
            "--config",
            file.to_str().expect("UTF-8"),
        ]);
    }

    /// Pushes a job to queue `q` for `image` with these further arguments, and gives its id.
    pub fn push(&self, image: &str, arguments: &[&str]) -> String {
        let all = [&["push", "-q", "q", "-p", "demo", "-d", image], arguments].concat();
        self.ok(&all).trim().to_owned()
    }

    /// Runs the agent until queue `q` is empty.
    pub fn once(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["--local", "-q", "q", "--once"], arguments].concat())
    }

    /// Starts an agent of the embedded queue `q`; it is ended when the value is dropped.
    pub fn start_agent(&self, arguments: &[&str]) -> Agent {
        self.start(&[&["--local", "-q", "q"], arguments].concat())
    }

    /// Starts an agent with just these arguments.
    pub fn start(&self, arguments: &[&str]) -> Agent {
        self.start_command(self.command(arguments))
    }

    /// Starts an agent by a command of the test's own.
    pub fn start_command(&self, mut command: Command) -> Agent {
        let log = fs::File::create(self.path("agent.err")).expect("a file");
        let out = fs::File::create(self.path("agent.out")).expect("a file");
        Agent(
            command
                .stdout(out)
                .stderr(log)
                .spawn()
                .expect("the agent starts"),
        )
    }

    /// An item as `item show --json` prints it.
    pub fn item(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["item", "show", id, "--json"])).expect("JSON")
    }

    /// Waits until the item is in one of these states, and gives it.
    pub fn item_in(&self, id: &str, states: &[&str]) -> serde_json::Value {
        let mut item = self.item(id);
        self.wait_for(&format!("item {id} in {states:?}"), || {
            item = self.item(id);
            states.contains(&item["state"].as_str().expect("a state"))
        });
        item
    }

    pub fn log(&self, id: &str) -> String {
        self.ok(&["item", "logs", id])
    }

    /// Waits until `condition` holds; on failure shows everything there is to see.
    pub fn wait_for(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}\n--- agent\n{}{}--- docker calls\n{}",
                self.read("agent.err"),
                self.read("agent.out"),
                self.read("fake/calls"),
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The calls of the fake docker that begin with `word`, each as bash would print its argv.
    pub fn calls(&self, word: &str) -> Vec<String> {
        let start = format!("'{word}'");
        self.read("fake/calls")
            .lines()
            .filter(|line| line.starts_with(&start))
            .map(str::to_owned)
            .collect()
    }
}

/// An agent that runs in the background.
pub struct Agent(Child);

impl Agent {
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, signal).expect("the agent lives");
    }

    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// How long the agent has computed so far, all its threads together.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it lives");
        let fields: Vec<&str> = stat
            .rsplit(") ")
            .next()
            .expect("fields")
            .split(' ')
            .collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("a number");
        // In hundredths of a second, whatever the kernel counts in.
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Waits for the agent's end and gives its exit code.
    pub fn wait(&mut self, sandbox: &Sandbox) -> Option<i32> {
        let mut status = None;
        sandbox.wait_for("the agent to end", || {
            status = self.0.try_wait().expect("waited");
            status.is_some()
        });
        status.expect("ended").code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command did, with everything that a failing test wants to show.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    shown: String,
}

impl Ran {
    fn new(arguments: &[&str], output: &Output, folder: &Path) -> Ran {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let shown = format!(
            "launch-agent {arguments:?} in {}: {}\n--- stdout\n{stdout}--- stderr\n{stderr}",
            folder.display(),
            output.status
        );
        Ran {
            code: output.status.code(),
            stdout,
            stderr,
            shown,
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{}", self.shown);
        self
    }

    /// Asserts that standard error holds a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        assert!(self.stderr.contains(text), "no `{text}` in\n{}", self.shown);
        self
    }
}
