//! How the agent logs in to a cloud's registry, and what it is told of registries; with a fake docker and fake CLIs of
//! the clouds.

use std::fs;

use serde_json::Value;

use crate::common::sandbox::Sandbox;
use crate::pulls::{IMAGE, refuse, sandbox};

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
