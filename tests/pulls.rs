//! Which images are pulled and when, what is tried again, and how the agent logs in to a cloud's registry; with a fake
//! docker and fake CLIs of the clouds.

use std::fs;

use serde_json::Value;

use crate::common::sandbox::Sandbox;

const IMAGE: &str = "ghcr.io/team/train:1";

/// A sandbox with a queue `q`, whose agent has this configuration, and an image of a registry that is here.
fn sandbox(config: &str) -> Sandbox {
    let sandbox = Sandbox::with_fake_docker("echo ran");
    sandbox.queue("q", "{}");
    sandbox.write(".config/wandb/launch-config.yaml", config);
    sandbox.write("fake/images", &format!("job:1\n{IMAGE}\n"));
    sandbox.write("fake/digests", "");
    sandbox
}

/// What the registry answers to the next pulls, one line each.
fn refuse(sandbox: &Sandbox, said: &[&str]) {
    let lines: Vec<String> = said
        .iter()
        .map(|line| format!("Error response from daemon: {line}\n"))
        .collect();
    sandbox.write("fake/refusals", &lines.concat());
    sandbox.write("fake/registry", "");
}

fn pulls(sandbox: &Sandbox) -> usize {
    sandbox.calls("pull").len()
}

/// An item's message without the hint, which stands on a line of its own.
fn message(item: &Value) -> &str {
    let message = item["message"].as_str().expect("a message");
    message.split("\nhint: ").next().expect("a line")
}

fn warnings(item: &Value) -> Vec<&str> {
    let warnings = item["warnings"].as_array().expect("a list");
    warnings.iter().filter_map(Value::as_str).collect()
}

#[test]
fn without_a_policy_an_image_is_pulled_and_what_is_here_is_used_when_that_fails() {
    let sandbox = sandbox("");
    refuse(&sandbox, &["denied: no", "denied: no"]);
    let first = sandbox.push(IMAGE, &[]);
    let second = sandbox.push(IMAGE, &[]);
    let third = sandbox.push(IMAGE, &[]);
    let ran = sandbox.once(&[]).code(0);
    assert_eq!(pulls(&sandbox), 3, "before every job");
    let warning = format!(
        "the image `{IMAGE}` could not be pulled, so the one on this machine is used: denied: no"
    );
    assert_eq!(warnings(&sandbox.item(&first)), [&warning]);
    assert!(warnings(&sandbox.item(&second)).is_empty(), "it was said");
    assert!(warnings(&sandbox.item(&third)).is_empty(), "it was pulled");
    assert_eq!(ran.stderr.matches(&warning).count(), 1, "{}", ran.stderr);
    let log = sandbox.log(&first);
    let expected = format!(
        "\ndocker pull {IMAGE}\npulling {IMAGE}\nError response from daemon: denied: no\n[launch-agent: warning: {warning}]\nran\n"
    );
    assert!(log.contains(&expected), "{log}");
}

#[test]
fn a_registry_that_cannot_be_reached_is_left_alone_where_the_image_is_here() {
    let sandbox = sandbox("");
    sandbox.write(
        "fake/images",
        &format!("{IMAGE}\nghcr.io/team/eval:1\nquay.io/team/x:1\n"),
    );
    refuse(&sandbox, &["dial tcp: lookup ghcr.io: no such host"]);
    for image in [IMAGE, IMAGE, "ghcr.io/team/eval:1", "quay.io/team/x:1"] {
        sandbox.push(image, &[]);
    }
    sandbox
        .once(&[])
        .code(0)
        .says("the registry `ghcr.io` cannot be reached: images of it that are on this machine are used as they are, and it is asked again in 5 minutes")
        .says("the image `ghcr.io/team/eval:1` could not be pulled, so the one on this machine is used: its registry could not be reached a moment ago");
    let asked = sandbox.calls("pull");
    assert_eq!(
        asked,
        [
            format!("'pull' '{IMAGE}'"),
            "'pull' 'quay.io/team/x:1'".to_owned()
        ],
        "one trial for ghcr.io, and other registries are asked"
    );
    // What is not here has no other way than the registry.
    sandbox.push("ghcr.io/team/new:1", &[]);
    sandbox.once(&[]).code(0);
    assert_eq!(pulls(&sandbox), 3);
}

#[test]
fn what_no_registry_can_have_another_of_is_not_pulled_and_nothing_is_said() {
    let digest = format!("ghcr.io/team/train@sha256:{}", "a1".repeat(32));
    let sandbox = sandbox("");
    sandbox.write("fake/images", &format!("{digest}\njob:1\n"));
    sandbox.push(&digest, &[]);
    sandbox.once(&[]).code(0);
    fs::remove_file(sandbox.path("fake/digests")).expect("removed");
    let id = sandbox.push("job:1", &[]);
    sandbox.once(&[]).code(0);
    assert_eq!(pulls(&sandbox), 0);
    assert!(warnings(&sandbox.item(&id)).is_empty());
}

#[test]
fn always_pulls_before_every_job_and_uses_nothing_else() {
    let sandbox = sandbox("pull_policy: always\n");
    refuse(&sandbox, &["denied: no"]);
    let bad = sandbox.push(IMAGE, &[]);
    let good = sandbox.push(IMAGE, &[]);
    sandbox.once(&[]).code(1);
    assert_eq!(pulls(&sandbox), 2);
    let item = sandbox.item(&bad);
    assert_eq!(item["stage"], "build", "{item}");
    assert_eq!(
        message(&item),
        format!(
            "the image `{IMAGE}` could not be pulled, and `pull_policy` is `always`: denied: no"
        )
    );
    assert_eq!(sandbox.item(&good)["state"], "FINISHED");
    sandbox.push(IMAGE, &[]);
    let line = sandbox.ok(&["--local", "-q", "q", "--dry-run"]);
    assert!(
        line.starts_with(&format!("docker pull {IMAGE}\ndocker run ")),
        "{line}"
    );
}

#[test]
fn missing_pulls_what_is_missing_and_never_nothing() {
    for (policy, pulled) in [("missing", 1), ("never", 0)] {
        let sandbox = sandbox(&format!("pull_policy: {policy}\n"));
        sandbox.write("fake/registry", "");
        let here = sandbox.push(IMAGE, &[]);
        let missing = sandbox.push("ghcr.io/team/new:1", &[]);
        sandbox.once(&[]);
        assert_eq!(pulls(&sandbox), pulled, "{policy}");
        assert_eq!(sandbox.item(&here)["state"], "FINISHED", "{policy}");
        let item = sandbox.item(&missing);
        if policy == "never" {
            assert_eq!(item["stage"], "build", "{item}");
            assert_eq!(
                message(&item),
                "the image `ghcr.io/team/new:1` is not on this machine, and `pull_policy` is `never`"
            );
        } else {
            assert_eq!(item["state"], "FINISHED", "{item}");
        }
    }
}

#[test]
fn the_option_of_the_queue_beats_the_agents_key() {
    let sandbox = sandbox("pull_policy: always\n");
    sandbox.queue("other", r#"{"pull": "never"}"#);
    sandbox.ok(&["push", "-q", "other", "-p", "demo", "-d", IMAGE]);
    sandbox.run(&["--local", "-q", "other", "--once"]).code(0);
    assert_eq!(pulls(&sandbox), 0);
    assert!(sandbox.calls("run")[0].contains(&format!("'--pull' 'never' '{IMAGE}'")));
}

#[test]
fn what_passes_is_tried_again_and_what_is_certain_is_not() {
    for (said, trials) in [
        (
            &[
                "unexpected EOF",
                "received unexpected HTTP status: 503 Service Unavailable",
            ][..],
            3,
        ),
        (&["dial tcp 10.0.0.1:443: connect: connection refused"], 2),
        (
            &["manifest for ghcr.io/team/new:1 not found: manifest unknown: manifest unknown"],
            1,
        ),
        (
            &["no matching manifest for linux/amd64 in the manifest list entries"],
            1,
        ),
    ] {
        let sandbox = sandbox("");
        refuse(&sandbox, said);
        let id = sandbox.push("ghcr.io/team/new:1", &[]);
        let ran = sandbox.once(&[]);
        assert_eq!(pulls(&sandbox), trials, "{said:?}");
        if trials > 1 {
            assert_eq!(sandbox.item(&id)["state"], "FINISHED", "{said:?}");
            let log = sandbox.log(&id);
            assert!(
                log.contains("[launch-agent: trying again in 1 s]\n"),
                "{log}"
            );
        } else {
            let item = sandbox.item(&id);
            let message = format!(
                "the image `ghcr.io/team/new:1` is not on this machine and could not be pulled: {}",
                said[0]
            );
            assert_eq!(self::message(&item), message);
            assert_eq!(item["stage"], "build");
            ran.says("hint: ");
        }
    }
}

#[test]
fn four_jobs_that_want_the_same_image_pull_it_once() {
    let sandbox = sandbox("max_jobs: 4\n");
    sandbox.write("fake/registry", "");
    sandbox.write("fake/hold", "");
    let ids: Vec<String> = (0..4)
        .map(|_| sandbox.push("ghcr.io/team/new:1", &[]))
        .collect();
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the pull to begin and all jobs to want it", || {
        let log_of = |id: &String| sandbox.item(id)["log"].is_string();
        sandbox.path("fake/held").exists() && ids.iter().all(log_of)
    });
    fs::remove_file(sandbox.path("fake/hold")).expect("removed");
    for id in &ids {
        assert_eq!(sandbox.item_in(id, &["FINISHED", "FAILED"])["exit_code"], 0);
    }
    assert_eq!(pulls(&sandbox), 1, "{:?}", sandbox.calls("pull"));
}

#[test]
fn a_pull_that_takes_too_long_is_ended_and_a_stop_ends_one_too() {
    let sandbox = sandbox("transfer_timeout: 1\n");
    sandbox.write("fake/hold", "");
    let id = sandbox.push("ghcr.io/team/new:1", &[]);
    sandbox
        .once(&[])
        .code(1)
        .says("hint: `transfer_timeout` in launch-config.yaml sets how long it may take");
    assert_eq!(
        message(&sandbox.item(&id)),
        "the image `ghcr.io/team/new:1` is not on this machine and could not be pulled: it was not done after 1 s and was ended"
    );

    sandbox.write(".config/wandb/launch-config.yaml", "");
    fs::remove_file(sandbox.path("fake/held")).expect("removed");
    let id = sandbox.push("ghcr.io/team/new:1", &[]);
    let _agent = sandbox.start_agent(&[]);
    sandbox.wait_for("the pull to begin", || sandbox.path("fake/held").exists());
    sandbox.ok(&["item", "cancel", &id]);
    sandbox.item_in(&id, &["STOPPED"]);
}

/// A cloud's CLI that records its argv and prints a token.
fn write_cli(sandbox: &mut Sandbox, name: &str) {
    sandbox.write_program(
        name,
        &format!(
            "#!/bin/bash\nprintf '%s\\n' \"{name} ${{*@Q}}\" >>\"$FAKE/clouds\"\n[ ! -e \"$FAKE/refuse-token\" ] || {{ cat \"$FAKE/refuse-token\" >&2; exit 3; }}\necho token-of-{name}-$(wc -l <\"$FAKE/clouds\")\n"
        ),
    );
}

const CLOUDS: [(&str, &str, &str, &str); 3] = [
    (
        "aws",
        "123.dkr.ecr.eu-west-1.amazonaws.com",
        "AWS",
        "aws 'ecr' 'get-login-password' '--region' 'eu-west-1'",
    ),
    (
        "gcloud",
        "us-east1-docker.pkg.dev",
        "oauth2accesstoken",
        "gcloud 'auth' 'print-access-token'",
    ),
    (
        "az",
        "team.azurecr.io",
        "00000000-0000-0000-0000-000000000000",
        "az 'acr' 'login' '--name' 'team' '--expose-token' '--output' 'tsv' '--query' 'accessToken'",
    ),
];

/// A sandbox whose agent pushes to `host`, where `cli` gives the login.
fn with_destination(host: &str, cli: &str) -> Sandbox {
    let mut sandbox = sandbox(&format!("builder: {{destination: {host}/p/r/built}}\n"));
    sandbox.set(
        "DOCKER_CONFIG",
        sandbox.path("docker").to_str().expect("UTF-8"),
    );
    write_cli(&mut sandbox, cli);
    sandbox.write("fake/registry", "");
    sandbox
}

/// Every file of a folder, links included, whose text has `word`.
fn files_with(word: &str, folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(word, &path));
        } else if String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).contains(word) {
            found.push(
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    found.sort();
    found
}

#[test]
fn the_token_of_each_cloud_goes_to_dockers_input_and_nowhere_else() {
    for (cli, host, user, asked) in CLOUDS {
        let sandbox = with_destination(host, cli);
        let image = format!("{host}/p/r/built:1");
        let id = sandbox.push(&image, &[]);
        sandbox.push(&image, &["--", "again"]);
        sandbox.push(IMAGE, &[]);
        let ran = sandbox.once(&[]).code(0);

        assert_eq!(sandbox.read("fake/clouds"), format!("{asked}\n"), "once");
        let token = format!("token-of-{cli}-1");
        assert_eq!(sandbox.read("fake/password"), token);
        let folder = sandbox.path(".local/state/launch-agent/docker").join(host);
        let config = format!("'--config' '{}'", folder.display());
        let calls = sandbox.calls("--config");
        assert_eq!(
            calls,
            [
                format!("{config} 'login' '--username' '{user}' '--password-stdin' '{host}'"),
                format!("{config} 'pull' '{image}'"),
                format!("{config} 'pull' '{image}'"),
            ]
        );
        assert_eq!(sandbox.calls("pull"), [format!("'pull' '{IMAGE}'")]);
        let log = sandbox.log(&id);
        assert!(log.contains(&format!("--password-stdin {host}\n")), "{log}");

        // The one copy that docker keeps is encoded; the other is what the fake docker read.
        assert!(!ran.stderr.contains(&token) && !ran.stdout.contains(&token));
        assert_eq!(files_with(&token, &sandbox.path("")), ["password"]);
        let mode = |path: &std::path::Path| {
            use std::os::unix::fs::PermissionsExt;
            fs::metadata(path).expect("there").permissions().mode() & 0o777
        };
        assert_eq!(mode(&folder), 0o700);
        assert!(!sandbox.path("docker/config.json").exists(), "the user's");
    }
}

#[test]
fn a_token_that_the_registry_no_longer_takes_is_asked_for_anew() {
    let (cli, host, _, asked) = CLOUDS[0];
    let sandbox = with_destination(host, cli);
    let image = format!("{host}/p/r/built:1");
    sandbox.push(&image, &[]);
    let agent = sandbox.start_agent(&[]);
    sandbox.item_in("1", &["FINISHED"]);
    refuse(
        &sandbox,
        &["denied: Your authorization token has expired. Reauthenticate and try again."],
    );
    let id = sandbox.push("123.dkr.ecr.eu-west-1.amazonaws.com/p/r/built:2", &[]);
    assert_eq!(
        sandbox.item_in(&id, &["FINISHED", "FAILED"])["exit_code"],
        0
    );
    drop(agent);
    assert_eq!(sandbox.read("fake/clouds"), format!("{asked}\n{asked}\n"));
    assert_eq!(sandbox.read("fake/password"), "token-of-aws-2");
}

#[test]
fn a_login_that_docker_has_is_left_to_docker() {
    for config in [
        r#"{"auths": {"HOST": {"auth": "eDp5"}}}"#,
        r#"{"auths": {"https://HOST": {}}, "credsStore": "desktop"}"#,
        r#"{"credHelpers": {"HOST": "ecr-login"}}"#,
        r#"{"credsStore": "ecr-login"}"#,
    ] {
        let (cli, host, ..) = CLOUDS[0];
        let sandbox = with_destination(host, cli);
        sandbox.write("docker/config.json", &config.replace("HOST", host));
        let image = format!("{host}/p/r/built:1");
        sandbox.push(&image, &[]);
        sandbox.once(&[]).code(0);
        assert_eq!(
            sandbox.calls("pull"),
            [format!("'pull' '{image}'")],
            "{config}"
        );
        assert!(!sandbox.path("fake/clouds").exists(), "{config}");
    }
}

#[test]
fn the_users_docker_configuration_goes_on_working_in_the_agents() {
    let (cli, host, ..) = CLOUDS[0];
    let sandbox = with_destination(host, cli);
    let user =
        r#"{"auths":{"ghcr.io":{"auth":"eDp5"}},"credsStore":"desktop","proxies":{"default":{}}}"#;
    sandbox.write("docker/config.json", user);
    sandbox.write("docker/cli-plugins/docker-buildx", "a plugin");
    sandbox.write("docker/contexts/meta/x", "a context");
    let folder = sandbox.path(".local/state/launch-agent/docker").join(host);
    sandbox.write(&format!(".local/state/launch-agent/docker/{host}/note"), "");
    std::os::unix::fs::symlink("/nowhere", folder.join("gone")).expect("a link");
    sandbox.push(&format!("{host}/p/r/built:1"), &[]);
    // The login is refused, so that what docker was given is still there to see.
    sandbox.write(
        "fake/refuse-login",
        "Error response from daemon: login attempt failed with status: 401 Unauthorized\n",
    );
    sandbox.once(&[]).code(1).says(&format!(
        "cannot log in to the registry `{host}`: `docker --config {} login --username AWS --password-stdin {host}`: login attempt failed with status: 401 Unauthorized",
        folder.display()
    ));
    let given: Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).expect("a file"))
            .expect("JSON");
    assert_eq!(
        given,
        serde_json::json!({
            "auths": {"ghcr.io": {"auth": "eDp5"}}, "credsStore": "desktop", "proxies": {"default": {}},
            "credHelpers": {host: ""},
        })
    );
    let text = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    assert_eq!(text("cli-plugins/docker-buildx"), "a plugin");
    assert_eq!(text("contexts/meta/x"), "a context");
    assert!(!folder.join("gone").is_symlink());
    assert_eq!(
        sandbox.read("docker/config.json"),
        user,
        "the user's is as it was"
    );
}

#[test]
fn where_a_registry_does_not_say_what_it_has_the_push_decides() {
    let sandbox = sandbox("builder: {destination: me/built}\n");
    // What Docker Hub says of a repository that the first push will make.
    let denied = "errors:\ndenied: requested access to the resource is denied\nunauthorized: authentication required\n";
    sandbox.write("fake/manifest", denied);
    sandbox.write("fake/registry", "");
    sandbox.write("proj/train.py", "");
    let code = ["--code", "proj", "-E", "python train.py"];
    let push = || {
        sandbox.ok(&[&["push", "-q", "q", "-p", "demo"][..], &code].concat());
        sandbox.once(&[])
    };
    push().code(0);
    assert_eq!(sandbox.calls("build").len(), 1);
    assert_eq!(sandbox.calls("push").len(), 1);

    sandbox.write("proj/train.py", "print()");
    refuse(
        &sandbox,
        &["denied: requested access to the resource is denied"],
    );
    push().code(1).says("could not be pushed: denied");
    assert_eq!(sandbox.calls("build").len(), 2);
}

#[test]
fn the_clouds_cli_reaches_the_world_as_the_owner_says() {
    let (cli, host, ..) = CLOUDS[0];
    let mut sandbox = with_destination(host, cli);
    let bundle = sandbox.write("company.pem", "-----BEGIN CERTIFICATE-----\n");
    sandbox.write(
        ".config/wandb/launch-config.yaml",
        &format!(
            "builder: {{destination: {host}/r}}\nnetwork: {{ca_bundle: {}, proxy: 'http://me:sesame@proxy:3128'}}\n",
            bundle.display()
        ),
    );
    sandbox.write_program(cli, "#!/bin/bash\nenv >\"$FAKE/cloud-env\"\necho token\n");
    sandbox.push(&format!("{host}/r:1"), &[]);
    let ran = sandbox.once(&[]).code(0);
    let seen = sandbox.read("fake/cloud-env");
    for line in [
        format!("AWS_CA_BUNDLE={}\n", bundle.display()),
        "https_proxy=http://me:sesame@proxy:3128\n".to_owned(),
        "no_proxy=localhost,127.0.0.1,::1\n".to_owned(),
    ] {
        assert!(seen.contains(&line), "no {line} in {seen}");
    }
    assert!(!ran.stderr.contains("sesame") && !ran.stdout.contains("sesame"));
    assert!(!sandbox.log("1").contains("sesame"));
}

/// Leaves on the PATH what the fake docker needs, and no `cli`: this machine may have a real one.
fn only_without(sandbox: &mut Sandbox, cli: &str) {
    let bin = sandbox.path("bin");
    fs::remove_file(bin.join(cli)).expect("removed");
    for program in [
        "bash", "cat", "grep", "head", "mv", "rm", "sed", "setsid", "sleep", "tail", "tee",
    ] {
        let real = which::which(program).expect(program);
        std::os::unix::fs::symlink(real, bin.join(program)).expect("a link");
    }
    sandbox.clear_path();
}

#[test]
fn a_cli_that_is_missing_or_refuses_is_said_with_what_to_do() {
    for (cli, host, ..) in CLOUDS {
        let mut sandbox = with_destination(host, cli);
        let image = format!("{host}/p/r/built:1");
        sandbox.write(
            "fake/refuse-token",
            "Traceback\n\nUnable to locate credentials.\n\n",
        );
        let id = sandbox.push(&image, &[]);
        sandbox.once(&[]).code(1).says("hint: install the ");
        let message = sandbox.item(&id)["message"].to_string();
        assert!(
            message.contains(&format!("cannot log in to the registry `{host}`: `{cli} "))
                && message.contains(": Unable to locate credentials."),
            "{message}"
        );

        // An image that is here needs no login.
        sandbox.write("fake/images", &image);
        only_without(&mut sandbox, cli);
        sandbox.push(&image, &[]);
        sandbox.once(&[]).code(0).says(&format!(
            "so the one on this machine is used: cannot log in to the registry `{host}`: `{cli}` is not installed, or not on the PATH"
        ));
    }
}

#[test]
fn the_configuration_of_registries_is_checked_when_it_is_read() {
    for (config, said) in [
        (
            "builder: {destination: 'localhost:5000/x:1'}",
            "error: CONFIG: `builder.destination`: `localhost:5000/x:1` is no destination for images: it has the tag `:1`",
        ),
        (
            "registry: {type: ecr, uri: '1.dkr.ecr.eu-west-1.amazonaws.com/'}",
            "error: CONFIG: `registry`: `1.dkr.ecr.eu-west-1.amazonaws.com/` is no destination for images: it has no name of an image",
        ),
        (
            "registry: {type: harbor}",
            "error: CONFIG: `registry.type` is `harbor`",
        ),
        (
            "registry: {type: gcr, region: us}",
            "error: CONFIG: `registry` has no `project`",
        ),
        (
            "registry: {type: ecr, account: 5}",
            "error: CONFIG: `registry` has the unknown key `account`\nhint: did you mean `account_id`?",
        ),
        (
            "registry: {type: ecr, account_id: 5}",
            "error: CONFIG: `registry` has no `repository`",
        ),
        ("registry: [a]", "error: CONFIG: `registry` is no mapping"),
        (
            "environment: {type: aws}",
            "error: CONFIG: `environment` of type `aws` has no `region`",
        ),
        (
            "environment: {region: x}",
            "error: CONFIG: `environment` has no `type`",
        ),
        (
            "environment: {type: moon}",
            "error: CONFIG: `environment.type` is `moon`",
        ),
    ] {
        let sandbox = sandbox(&format!("{config}\n"));
        let path = sandbox.path(".config/wandb/launch-config.yaml");
        let said = said.replace("CONFIG", &path.display().to_string());
        sandbox.run(&["config", "show"]).code(3).says(&said);
    }
    for (config, said) in [
        (
            "registry: {type: ecr, account_id: '1', region: eu-west-1, repository: team/x}",
            "warning: `registry` is the older way to say `builder: {destination: 1.dkr.ecr.eu-west-1.amazonaws.com/team/x}`",
        ),
        (
            "registry: {type: gcr, region: us, project: p, repository: r, image-name: x}",
            "warning: `registry` is the older way to say `builder: {destination: us-docker.pkg.dev/p/r/x}`",
        ),
        (
            "{registry: {type: acr, uri: 'https://team.azurecr.io/x'}, builder: {type: docker, destination: team.azurecr.io/y}}",
            "warning: `builder.destination` is used, and `registry` is not",
        ),
        (
            "registry: {uri: team.azurecr.io/x}",
            "warning: `registry` has no `type`, so that images go nowhere",
        ),
        (
            "builder: {destination: 'localhost:5000/x'}",
            "warning: the agent knows no login of its own for the registry `localhost:5000`",
        ),
        (
            "environment: {type: gcp, region: us, zone: a}",
            "warning: `environment.zone` is unknown, and nothing is done with it",
        ),
    ] {
        let sandbox = sandbox(&format!("{config}\n"));
        sandbox.run(&["config", "show"]).code(0).says(said);
        let said = said.strip_prefix("warning: ").expect("a warning");
        let ran = sandbox.once(&[]).code(0).says(said);
        assert_eq!(ran.stderr.matches(said).count(), 1, "{}", ran.stderr);
    }
}
