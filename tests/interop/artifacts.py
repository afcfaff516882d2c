"""Jobs as artifacts: made by `wandb job create`, pushed by name, downloaded and checked."""

import functools
import http.server
import json
import os
import pathlib
import subprocess
import threading

PROGRAM = "import wandb\nwith wandb.init() as run:\n    run.log({'loss': 1})\n"


def run(server, report):
    folder = server.folder / "job"
    folder.mkdir()
    (folder / "train.py").write_text(PROGRAM)
    (folder / "requirements.txt").write_text("wandb\n")
    made(server, report, folder)
    downloaded(server, report)
    pushed(server, report)
    logged(server, report)


def create(server, *arguments, **environment):
    return server.wandb("job", "create", *arguments, "-e", "team", "-p", "Jobs", **environment)


def made(server, report, folder):
    code, said = create(server, "image", "launch-agent-job:test", "-n", "image-job", "-a", "first")
    report.check("`wandb job create image` ends with 0", 0, code)
    report.has("`wandb job create image`", "Created job: team/Jobs/image-job:v0", said)
    code, said = create(server, "code", str(folder), "-n", "code-job", "-E", "python train.py")
    report.has("`wandb job create code`", "Created job: team/Jobs/code-job:v0", said)
    code, said = create(server, "code", str(folder), "-n", "code-job", "-E", "python train.py")
    report.has("the same code again is the same version", "code-job:v0", said)
    (folder / "train.py").write_text(PROGRAM + "# changed\n")
    code, said = create(server, "code", str(folder), "-n", "code-job", "-E", "python train.py")
    report.has("other code is the next version", "code-job:v1", said)
    with Remote(server.folder / "git", folder) as remote:
        code, said = create(server, "git", "https://git.invalid/repo.git", "-n", "git-job", "-E", "python train.py", **remote)
    report.has("`wandb job create git`", "Created job: team/Jobs/git-job:v0", said)


class Remote:
    """A git remote on this machine under an https address, which is all that the client takes."""

    def __init__(self, folder, source):
        self.folder, self.source = folder, source

    def __enter__(self):
        self.folder.mkdir()
        git = functools.partial(subprocess.run, check=True, capture_output=True)
        who = ["-c", "user.name=interop", "-c", "user.email=interop@example.invalid"]
        git(["git", "init", "-q", str(self.source)])
        git(["git", "-C", str(self.source), "add", "train.py", "requirements.txt"])
        git(["git", "-C", str(self.source), *who, "commit", "-q", "-m", "A job"])
        bare = self.folder / "repo.git"
        git(["git", "clone", "-q", "--bare", str(self.source), str(bare)])
        git(["git", "-C", str(bare), "update-server-info"])
        handler = functools.partial(Quiet, directory=str(self.folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.http://127.0.0.1:{self.server.server_port}/.insteadOf",
            "GIT_CONFIG_VALUE_0": "https://git.invalid/",
        }

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def download(artifact, folder):
    """From the server, not from the client's cache. Its `skip_cache` is no way: the client keeps the path of one file for
    all that it downloads from then on, so that of two at a time one may have the content of the other."""
    from wandb.sdk.artifacts.artifact_file_cache import get_artifact_file_cache

    get_artifact_file_cache().cleanup()
    return artifact.download(root=str(folder))


def downloaded(server, report):
    api = server.api()
    for name, kind in [("image-job:first", "image"), ("code-job:latest", "artifact"), ("git-job:v0", "repo")]:
        artifact = api.artifact(f"team/Jobs/{name}")
        folder = download(artifact, server.folder / "jobs" / kind)
        artifact.verify(folder)
        job = json.loads(pathlib.Path(folder, "wandb-job.json").read_text())
        report.check(f"`api.artifact(..).download()` of {name}", ("job", kind), (artifact.type, job["source_type"]))
    report.check("`artifact.aliases`", ["latest"], api.artifact("team/Jobs/code-job:v1").aliases)
    code = api.artifact("team/Jobs/code-code-job:latest") if api.artifact_exists("team/Jobs/code-code-job:latest") else None
    if code:
        folder = download(code, server.folder / "jobs" / "code")
        text = pathlib.Path(folder, "train.py").read_text()
        report.check("the code of a job is what was uploaded", PROGRAM + "# changed\n", text)
    report.check("`api.job()`", True, bool(api.job("team/Jobs/image-job:latest")))
    report.check("`api.list_jobs()`", 3, len(api.list_jobs("team", "Jobs")))
    report.check("`api.artifacts()`", ["code-job:v1", "code-job:v0"], [f"code-job:{a.version}" for a in api.artifacts("job", "team/Jobs/code-job")])
    try:
        came = api.artifact("team/Jobs/code-job:nope").name
    except Exception as error:
        came = str(error)
    report.has("an alias that is not there", "not found", came)


def pushed(server, report):
    server.api().create_run_queue("jobs", "local-container", entity="team", config={})
    code, said = server.wandb("launch", "-j", "team/Jobs/image-job:latest", "-q", "jobs", "-e", "team", "-p", "Jobs")
    report.check("`wandb launch -j` ends with 0", 0, code)
    items = json.loads(server.cli("items", "--json"))
    jobs = [item["spec"].get("job") for item in items if item["queue"].endswith("jobs")]
    report.check("the item names the job", ["team/Jobs/image-job:latest"], jobs)


def logged(server, report):
    """A run logs an artifact, and another uses it."""
    import wandb

    os.environ["WANDB_DIR"] = str(server.folder)
    settings = wandb.Settings(silent=True)
    for text, version in [("one", "v0"), ("two", "v1"), ("two", "v1")]:
        with wandb.init(entity="team", project="Jobs", settings=settings) as run:
            artifact = wandb.Artifact("data", "dataset", metadata={"text": text})
            with artifact.new_file("deep/x.txt") as file:
                file.write(text)
            run.log_artifact(artifact, aliases=["best"]).wait()
            report.check(f"`run.log_artifact` of {text!r}", version, artifact.version)
    with wandb.init(entity="team", project="Jobs", settings=settings) as run:
        used = run.use_artifact("data:best")
        folder = download(used, server.folder / "data")
        text = pathlib.Path(folder, "deep", "x.txt").read_text()
        report.check("`run.use_artifact(..).download()`", ("two", {"text": "two"}), (text, used.metadata))
        name = run.id
    api = server.api()
    artifact = api.artifact("team/Jobs/data:best")
    report.check("`artifact.used_by()`", [name], [run.id for run in artifact.used_by()])
    report.check("`run.used_artifacts()`", ["data:v1"], [a.name for a in api.run(f"team/Jobs/{name}").used_artifacts()])
    artifact.aliases.append("prod")
    artifact.save()
    report.check("`artifact.aliases` changed", True, "prod" in api.artifact("team/Jobs/data:v1").aliases)
    api.artifact("team/Jobs/data:v0").delete(delete_aliases=True)
    report.check("`artifact.delete()`", False, api.artifact_exists("team/Jobs/data:v0"))
