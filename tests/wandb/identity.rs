//! Who you are: where key, address and entity come from, and `whoami`, from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::common::peer::{How, KEY, Peer};
use crate::common::sandbox::{Ran, Sandbox};

/// A home with these files, open to their owner alone, and these variables; `~` is the home.
fn home(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Sandbox {
    let mut sandbox = Sandbox::new();
    for (name, text) in files {
        let path = sandbox.write(name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
    }
    let folder = sandbox
        .path("")
        .to_string_lossy()
        .trim_end_matches('/')
        .to_owned();
    for (name, value) in variables {
        sandbox.set(name, &value.replace('~', &folder));
    }
    sandbox
}

fn origin(sandbox: &Sandbox, key: &str, arguments: &[&str]) -> (Value, String) {
    let shown = sandbox.ok(&[&["config", "show", "--json"], arguments].concat());
    assert!(!shown.contains("sesame"), "a key is shown: {shown}");
    let all: Value = serde_json::from_str(&shown).expect("JSON");
    let folder = sandbox
        .path("")
        .to_string_lossy()
        .trim_end_matches('/')
        .to_owned();
    let from = all[key]["origin"]
        .as_str()
        .unwrap_or("none")
        .replace(&folder, "~");
    (all[key]["value"].clone(), from)
}

const NETRC: (&str, &str) = (
    ".netrc",
    "machine api.wandb.ai login user password sesame\n",
);

#[test]
fn the_key_comes_from_the_first_place_that_has_one() {
    let file = ("key", "sesame\n");
    for (files, variables, expected) in [
        (
            &[NETRC, file][..],
            &[("WANDB_API_KEY", "sesame"), ("WANDB_API_KEY_FILE", "~/key")][..],
            "environment WANDB_API_KEY",
        ),
        (
            &[NETRC, file],
            &[("WANDB_API_KEY_FILE", "~/key")],
            "file ~/key",
        ),
        (&[NETRC], &[], "file ~/.netrc"),
        (&[NETRC], &[("WANDB_API_KEY", "")], "file ~/.netrc"),
        (&[NETRC], &[("WANDB_API_KEY_FILE", "~/missing")], "none"),
        (
            &[NETRC, ("key", "\n")],
            &[("WANDB_API_KEY_FILE", "~/key")],
            "none",
        ),
        (&[("_netrc", NETRC.1)], &[], "file ~/_netrc"),
        (&[NETRC, ("_netrc", NETRC.1)], &[], "file ~/.netrc"),
        (
            &[NETRC, ("other", NETRC.1)],
            &[("NETRC", "~/other")],
            "file ~/other",
        ),
        (&[NETRC], &[("NETRC", "~/missing")], "none"),
        (&[NETRC], &[("WANDB_BASE_URL", "https://w.example")], "none"),
        (
            &[(".netrc", "machine w.example:8080 password sesame")],
            &[("WANDB_BASE_URL", "https://w.example:8080")],
            "file ~/.netrc",
        ),
        (
            &[(".netrc", "machine w.example password sesame")],
            &[("WANDB_BASE_URL", "https://w.example:8080")],
            "file ~/.netrc",
        ),
        (
            &[(".netrc", "default password sesame")],
            &[],
            "file ~/.netrc",
        ),
        (&[(".netrc", "machine api.wandb.ai")], &[], "none"),
        (&[], &[], "none"),
    ] {
        let sandbox = home(files, variables);
        let (value, from) = origin(&sandbox, "api_key", &[]);
        assert_eq!(from, expected, "{files:?} {variables:?}");
        let backend = origin(&sandbox, "backend", &[]).0;
        if expected == "none" {
            assert_eq!(backend, Value::Null);
        } else {
            assert_eq!((value, backend), ("[redacted]".into(), "wandb".into()));
        }
    }
}

#[test]
fn address_and_entity_come_from_flag_environment_file_and_settings() {
    let ours = (
        ".config/wandb/launch-config.yaml",
        "base_url: https://file.example/\nentity: of-file\n",
    );
    let user = (
        ".config/wandb/settings",
        "[default]\nbase_url = https://user.example\nentity = of-user\n",
    );
    let work = (
        "wandb/settings",
        "[default]\nbase_url = https://work.example\nentity = of-work\n",
    );
    let elsewhere = (
        "conf/settings",
        "[default]\nbase_url = https://else.example\nentity = of-else\n",
    );
    let environment = [
        ("WANDB_BASE_URL", "https://env.example/"),
        ("WANDB_ENTITY", "of-env"),
    ];
    let flags = ["--base-url", "https://flag.example", "--entity", "of-flag"];
    for (files, variables, flags, url, entity, from) in [
        (
            &[ours, user, work][..],
            &environment[..],
            &flags[..],
            "flag",
            "of-flag",
            "flag --base-url",
        ),
        (
            &[ours, user, work],
            &environment,
            &["--url", "https://flag.example"],
            "flag",
            "of-env",
            "flag --base-url",
        ),
        (
            &[ours, user, work],
            &environment,
            &[],
            "env",
            "of-env",
            "environment WANDB_BASE_URL",
        ),
        (
            &[ours, user, work],
            &[],
            &[],
            "file",
            "of-file",
            "file ~/.config/wandb/launch-config.yaml",
        ),
        (
            &[user, work],
            &[],
            &[],
            "work",
            "of-work",
            "file ./wandb/settings",
        ),
        (
            &[user],
            &[],
            &[],
            "user",
            "of-user",
            "file ~/.config/wandb/settings",
        ),
        (
            &[user, elsewhere],
            &[("WANDB_CONFIG_DIR", "~/conf")],
            &[],
            "else",
            "of-else",
            "file ~/conf/settings",
        ),
    ] {
        let sandbox = home(files, variables);
        let (found, found_from) = origin(&sandbox, "base_url", flags);
        assert_eq!(
            (found, found_from.as_str()),
            (format!("https://{url}.example").into(), from)
        );
        assert_eq!(
            origin(&sandbox, "entity", flags).0,
            entity,
            "{files:?} {variables:?}"
        );
    }
    let (url, from) = origin(&home(&[], &[]), "base_url", &[]);
    assert_eq!(
        (url, from.as_str()),
        ("https://api.wandb.ai".into(), "default")
    );
    home(&[], &[("WANDB_BASE_URL", "w.example")])
        .run(&["config", "show"])
        .code(3)
        .says("environment WANDB_BASE_URL: `w.example` is not the address of a server");
}

fn whoami(peer: &Peer, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let all = [&[("WANDB_BASE_URL", peer.url.as_str())], variables].concat();
    home(&[], &all).run(&[&["whoami"], arguments].concat())
}

#[test]
fn whoami_says_who_you_are_and_where_that_comes_from() {
    let peer = Peer::new(&[]);
    let key = ("WANDB_API_KEY", KEY);
    let shown = whoami(&peer, &[key], &[]).code(0).stdout;
    let expected = format!(
        "user:     me\nentity:   me  # the key's own\nteams:    me, crew\nbase_url: {}  # environment WANDB_BASE_URL\n\
         api_key:  [redacted]  # environment WANDB_API_KEY\n",
        peer.url
    );
    assert_eq!(shown, expected);
    let json = whoami(&peer, &[key, ("WANDB_ENTITY", "crew")], &["--json"])
        .code(0)
        .stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["user"], "me");
    assert_eq!(json["entity"]["value"], "crew");
    assert_eq!(json["entity"]["origin"], "environment WANDB_ENTITY");
    assert_eq!(json["teams"][1], "crew");
    assert_eq!(peer.count("viewer"), 2, "one request each");
}

#[test]
fn whoami_without_a_key_or_with_a_bad_one_ends_with_3_and_with_5_when_nobody_answers() {
    let peer = Peer::new(&[]);
    whoami(&peer, &[], &[])
        .code(3)
        .says("no W&B key was found; looked in `WANDB_API_KEY`, `WANDB_API_KEY_FILE`, ")
        .says(".netrc (which is not there)")
        .says("hint: run `wandb login` or set `WANDB_API_KEY`; for the embedded queue, which needs no key, add `--local`");
    assert!(peer.requests().is_empty());
    whoami(&peer, &[("WANDB_API_KEY", "sesame-wrong")], &[])
        .code(3)
        .says("the API key is refused (status 401)");
    peer.fail("*", How::Status(500, "", ""), usize::MAX);
    whoami(&peer, &[("WANDB_API_KEY", KEY)], &[])
        .code(5)
        .says("cannot be reached: status 500");
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let variables = [
        ("WANDB_API_KEY", KEY),
        ("WANDB_BASE_URL", "https://wandb.invalid"),
        ("HTTPS_PROXY", "http://me:letmein@127.0.0.1:1"),
    ];
    let ran = home(&[], &variables)
        .run(&["whoami"])
        .code(5)
        .says("https://wandb.invalid cannot be reached: ")
        .says(" (by the proxy `127.0.0.1:1`)\n");
    assert!(!ran.stderr.contains("letmein"), "{}", ran.stderr);
}

#[test]
fn a_key_in_the_clear_or_open_to_all_is_warned_about() {
    let peer = Peer::new(&[]);
    let sandbox = home(
        &[("key", KEY)],
        &[
            ("WANDB_API_KEY_FILE", "~/key"),
            ("WANDB_BASE_URL", &peer.url),
        ],
    );
    let quiet = sandbox.run(&["whoami"]).code(0);
    assert_eq!(quiet.stderr, "", "loopback needs no encryption");
    fs::set_permissions(sandbox.path("key"), fs::Permissions::from_mode(0o644)).expect("changed");
    sandbox
        .run(&["whoami"])
        .code(0)
        .says("key holds a key and can be read by other users of this machine; `chmod 600");
    // A host that no proxy and no resolver leads to: the warning comes before anybody is asked.
    sandbox
        .run(&["whoami", "--base-url", "http://127.0.0.1.invalid"])
        .says("http://127.0.0.1.invalid is not encrypted: the key travels in clear");
}

/// The netrc of the server that is meant is used, and the address on the wire is the one that was configured.
#[test]
fn a_key_of_the_netrc_reaches_its_own_server_alone() {
    let peer = Peer::new(&[]);
    let host = peer.url.trim_start_matches("http://").to_owned();
    let netrc =
        format!("machine elsewhere password no\nmachine {host} login user password {KEY}\n");
    let url = format!("{}/", peer.url);
    let sandbox = home(
        &[(".netrc", &netrc)],
        &[
            ("WANDB_BASE_URL", &url),
            ("HTTP_PROXY", "http://127.0.0.1:1"),
        ],
    );
    sandbox.ok(&["whoami"]);
    assert_eq!(
        peer.count("viewer"),
        1,
        "this machine is reached without the proxy"
    );
}
