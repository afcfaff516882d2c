"""Logging in, defining queues, pushing jobs and looking at them, with the command line and the Python interface."""

import json

from harness import Holds

VARIABLES = {
    "cpus": {"schema": {"type": "integer", "minimum": 1, "maximum": 4, "default": 1}},
    "shm": {"schema": {"type": "string", "enum": ["1g", "2g"], "default": "1g"}},
}
TEMPLATE = {"cpus": "{{cpus}}", "shm-size": "{{shm}}", "env": ["A=1"]}


def run(server, report):
    log_in(server, report)
    define(server, report)
    push(server, report)
    refuse(server, report)
    look(server, report)
    strange(server, report)


def log_in(server, report):
    code, said = server.wandb("login", "--host", server.url, server.key, WANDB_API_KEY="")
    report.check("`wandb login --host` ends with 0", 0, code)
    report.has("`wandb login --host` knows the user", "Currently logged in as: alice", said)
    code, said = server.wandb("login", "--host", server.url, "0" * 40, "--verify", "--relogin", WANDB_API_KEY="")
    report.check("`wandb login --verify` with another key ends with 1", 1, code)
    server.wandb("login", "--host", server.url, server.key, "--relogin", WANDB_API_KEY="")
    code, said = server.wandb("status")
    report.check("`wandb status` ends with 0", 0, code)
    report.has("`wandb status` names the server", server.url, said)


def define(server, report):
    api = server.api()
    report.check("`Api().viewer`", ("alice", ["alice", "team"]), (api.viewer.username, api.viewer.teams))
    report.check("`Api().default_entity`", "alice", api.default_entity)
    queue = api.create_run_queue("plain", "local-container", entity="team", config={"env": ["B=2"]})
    report.check("`create_run_queue` gives the queue", ("plain", "team", "PROJECT"), (queue.name, queue.entity, queue.access))
    api.create_run_queue(
        "guarded",
        "local-container",
        entity="team",
        prioritization_mode="V0",
        config=TEMPLATE,
        template_variables=VARIABLES,
    )
    queue = api.run_queue("team", "guarded")
    report.check("`run_queue` knows the mode", "V0", queue.prioritization_mode)
    report.check("`run_queue` knows the type", "local-container", queue.type)
    report.check(
        "`run_queue` knows the config",
        {"resource_args": {"local-container": TEMPLATE}},
        queue.default_resource_config,
    )
    report.check(
        "`run_queue` knows the template variables",
        {name: value["schema"] for name, value in VARIABLES.items()},
        {variable["name"]: json.loads(variable["schema"]) for variable in queue.template_variables},
    )
    report.check("a new queue has no items", [], queue.items)
    api.upsert_run_queue("upserted", {"env": ["C=1"]}, "local-container", entity="team")
    api.upsert_run_queue(
        "upserted",
        {"env": ["C={{c}}"]},
        "local-container",
        entity="team",
        template_variables={"c": {"schema": {"type": "string", "default": "x"}}},
        prioritization_mode="V0",
        external_links={"docs": "https://example.org"},
    )
    queue = api.run_queue("team", "upserted")
    report.check("`upsert_run_queue` changes a queue", "V0", queue.prioritization_mode)
    report.check(
        "`upsert_run_queue` keeps the links",
        {"links": [{"label": "docs", "url": "https://example.org"}]},
        queue.external_links,
    )
    for what, arguments, part in [
        ("a name that is taken", {"name": "plain", "config": {}}, "there is a queue"),
        ("an unknown option", {"name": "bad", "config": {"nonsense": 1}}, "`nonsense` is not an option"),
        ("a template without a schema", {"name": "bad", "config": {"cpus": "{{x}}"}}, "has no schema"),
        ("a resource that is not docker", {"name": "bad", "type": "kubernetes"}, "run docker jobs"),
    ]:
        report.has(f"`create_run_queue` refuses {what}", part, failure(create, api, **arguments))
    api.create_run_queue("short", "local-container", entity="team")
    api.run_queue("team", "short").delete()
    report.check("`RunQueue.delete` deletes", True, "NoneType" in failure(lambda: api.run_queue("team", "short").id))


def create(api, name, config=None, type="local-container"):
    api.create_run_queue(name, type, entity="team", config=config or {})


def failure(act, *arguments, **named):
    try:
        act(*arguments, **named)
    except Exception as error:
        return str(error)
    return "nothing was refused"


def launch(server, queue, *arguments):
    return server.wandb("launch", "-q", queue, "-d", "bb:1", "-e", "team", "-p", "proj", *arguments)


def newest(server):
    """The item that was pushed last, as the server's own command line shows it."""
    items = json.loads(server.cli("items", "--json"))
    return max(items, key=lambda item: int(item["id"]))


def push(server, report):
    for what, queue, arguments, expected in [
        ("as it is", "plain", [], {"author": "alice", "entity": "team", "project": "proj"}),
        (
            "with -R",
            "plain",
            ["-R", '{"local-container": {"cpus": 2}}'],
            {"resource_args": {"local-container": {"env": ["B=2"], "cpus": 2}}},
        ),
        (
            "with -c and -E",
            "plain",
            [
                "-c",
                '{"overrides": {"args": ["--a", "1"], "run_config": {"lr": 0.1}}, "run_id": "chosen"}',
                "-E",
                "sh -c 'echo hi'",
            ],
            {
                "run_id": "chosen",
                "overrides": {
                    "args": ["--a", "1"],
                    "run_config": {"lr": 0.1},
                    "entry_point": ["sh", "-c", "echo hi"],
                },
            },
        ),
        ("with --name", "plain", ["--name", "shown"], {"name": "shown"}),
        (
            "without --set-var where there are defaults",
            "guarded",
            [],
            {"resource_args": {"local-container": {**TEMPLATE, "cpus": 1, "shm-size": "1g"}}},
        ),
        (
            "with --set-var",
            "guarded",
            ["--set-var", "cpus=3", "--set-var", "shm=2g"],
            {"resource_args": {"local-container": {**TEMPLATE, "cpus": 3, "shm-size": "2g"}}},
        ),
    ]:
        code, said = launch(server, queue, *arguments)
        report.check(f"`wandb launch` {what} ends with 0", 0, code)
        report.has(f"`wandb launch` {what} says where", f"Added run to queue {queue}.", said)
        spec = newest(server)["spec"]
        report.check(f"`wandb launch` {what} is the spec", expected, {key: spec.get(key) for key in expected})
    for word in ["critical", "high", "medium", "low"]:
        code, _ = launch(server, "guarded", "--priority", word)
        report.check(f"`wandb launch --priority {word}` counts", (0, word), (code, newest(server)["priority"]))


def refuse(server, report):
    before = newest(server)["id"]
    for what, queue, arguments, part in [
        ("a value beyond its maximum", "guarded", ["--set-var", "cpus=9"], "cannot be `9`: it is more than 4"),
        ("a value that is not in the list", "guarded", ["--set-var", "shm=9g"], "cannot be `9g`"),
        ("options beside templates", "guarded", ["-R", '{"local-container": {"cpus": 9}}'], "takes no `resource_args`"),
        ("a run's name that is taken", "plain", ["-c", '{"run_id": "chosen"}'], "there is a run `chosen`"),
        ("an unknown docker option", "plain", ["-R", '{"local-container": {"nonsense": 9}}'], "is not an option"),
        ("a queue that is not there", "nothing", [], "Queue not found"),
    ]:
        code, said = launch(server, queue, *arguments)
        report.check(f"`wandb launch` refuses {what}", 1, code)
        report.has(f"`wandb launch` says why it refuses {what}", part, said)
    # With a priority the client hides the server's words (it gives up on the way that would show them).
    code, said = launch(server, "guarded", "--priority", "high", "--set-var", "cpus=9")
    report.check("`wandb launch --priority` with a wrong value is refused", 1, code)
    report.check("what is refused leaves no item", before, newest(server)["id"])


def look(server, report):
    from wandb.sdk.launch import launch_add

    queued = launch_add(docker_image="bb:1", entity="team", project="proj", queue_name="plain")
    report.check("`queued_run.state` of a new item", "pending", queued.state)
    report.check("`run_queue.items` has it", True, queued.id in [item.id for item in server.api().run_queue("team", "plain").items])
    queued.delete()
    report.has("`queued_run.delete` deletes", "Could not find", failure(lambda: queued.state))
    report.has("`queued_run.delete` of what is gone is refused", "no run queue item", failure(queued.delete))


def strange(server, report):
    """Another entity's member, with the client."""
    key = server.cli("serve", "key", "create", "eve", "--entity", "spies").strip()
    code, said = server.wandb(
        "launch", "-q", "plain", "-d", "bb:1", "-e", "team", "-p", "proj", WANDB_API_KEY=key
    )
    report.check("a stranger's push is refused", 1, code)
    report.check("a stranger is told no more than that", Holds("check that you have access"), said)
    code, said = server.wandb("launch-agent", "-q", "plain", "-e", "team", WANDB_API_KEY=key)
    report.check("a stranger's agent does not start", 1, code)
    keys = json.loads(server.cli("serve", "key", "list", "--json"))
    server.cli("serve", "key", "revoke", *[str(known["id"]) for known in keys if known["user"] == "eve"])
    code, said = server.wandb("launch", "-q", "plain", "-d", "bb:1", "-e", "spies", "-p", "proj", WANDB_API_KEY=key)
    report.check("a key that is revoked lets nobody in", 1, code)
    report.has("and its user is told so", "the API key is missing or not valid", said)
    code, said = server.wandb("launch-agent", "-q", "nothing", "-e", "team")
    report.has("an agent for a queue that is not there does not start", "Not all of requested queues", said)
