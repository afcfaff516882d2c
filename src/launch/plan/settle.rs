//! Settles a launch spec: image, run, macros, options and variables. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Launch, by_name};
use crate::failure::{Error, Result};
use crate::launch::build::Program;
use crate::launch::command::Secret;
use crate::launch::job_env::{self, Variable};
use crate::launch::macros::{Macros, looks_secret};
use crate::launch::network::{CA_IN_CONTAINER, Network};
use crate::launch::policy::Asked;
use crate::launch::resource_args::{Ask, DockerOption, Given, options_or_ask};
use crate::launch::spec::LaunchSpec;

/// The shortest value, in bytes, that a redactor is given.
const SHORTEST_SECRET: usize = 6;

/// Settles what a spec, its options merged already, will run.
///
/// `ask` is called for an option that is not known here; see [`options_or_ask`].
pub fn resolve(
    spec: &LaunchSpec,
    program: &Program,
    context: &Context<'_>,
    ask: Ask<'_>,
) -> Result<Launch> {
    let image = program.image.as_str();
    check_entry_point(spec, context)?;
    let run_id = spec
        .run_id
        .clone()
        .unwrap_or_else(|| context.generated_run_id.to_owned());
    let project = spec.project.to_lowercase();
    let filled = Macros {
        job: [
            // W&B writes projects in lower case everywhere, so a path made of this one finds the same project.
            (
                "project_name",
                Some(project.as_str()).filter(|it| !it.is_empty()),
            ),
            ("entity_name", spec.entity.as_deref()),
            ("run_id", Some(&run_id)),
            ("run_name", Some(spec.name.as_deref().unwrap_or(&run_id))),
            ("image_uri", Some(image)),
            ("author", spec.author.as_ref().and_then(Option::as_deref)),
        ],
        environment: context.environment,
        allowed: context.env_macros,
    }
    .fill(&spec.resource_args);

    let mut asked = options_or_ask(&filled.config, ask)?;
    if !program.entry_point.is_empty() {
        asked.retain(|option| option.name != "entrypoint");
    }
    let hidden_env = hide_in_env(&mut asked, &filled.secrets)?;
    let variables = job_env::variables(
        spec,
        context,
        &run_id,
        program.is_named_image().then_some(image),
        sets_variable(&asked, "WANDB_MODE"),
    );
    let seen = seen_secrets(&asked, &filled.secrets);
    let mut secrets = filled.secrets;
    secrets.extend(secret_values(&asked, &variables, spec, context));
    let secrets = worth_redacting(secrets);
    check_policy(spec, context, program.judged_image(), &asked, &secrets)?;
    let mut warnings = program.warnings.clone();
    warnings.extend(filled.warnings);
    warnings.extend(seen);
    let is_there =
        |name: &str| context.environment.contains_key(name) || hidden_env.contains_key(name);
    warnings.extend(missing_variables(&asked, &variables, &is_there));
    Ok(Launch {
        image: image.to_owned(),
        warnings,
        variables,
        options: [
            local_server_options(context, &asked),
            program_options(program, &asked),
            certificates(context.network).into_iter().collect(),
            asked,
        ]
        .concat(),
        build: program.build.clone(),
        entry_point: program.entry_point.clone(),
        args: spec.overrides.args.clone(),
        secrets,
        hidden_env,
        run_id,
    })
}

pub(super) fn check_entry_point(spec: &LaunchSpec, context: &Context<'_>) -> Result<()> {
    if context.secure_mode && !spec.overrides.entry_point.is_empty() {
        return Err(Error::input(
            "`overrides.entry_point` is refused: this agent runs in secure mode",
        )
        .hint("put the command into the image, or ask the machine's owner about `secure_mode` in launch-config.yaml"));
    }
    Ok(())
}

/// What the machine's owner lets a job ask for. The words of a refusal quote options, which macros may have filled.
fn check_policy(
    spec: &LaunchSpec,
    context: &Context<'_>,
    image: &str,
    options: &[DockerOption],
    secrets: &[Secret],
) -> Result<()> {
    let asked = Asked {
        image,
        options,
        builder: spec.resource_args.contains_key("builder"),
        agent: context.agent,
    };
    context.guard.check(&asked).map_err(|error| Error {
        message: redacted(&error.message, secrets),
        hint: error.hint.map(|hint| redacted(&hint, secrets)),
        ..error
    })
}

/// Text without these values.
pub fn redacted(text: &str, secrets: &[Secret]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| {
        text.replace(secret.expose(), "[redacted]")
    })
}

/// Whether an `env` option says anything about a variable.
fn sets_variable(options: &[DockerOption], name: &str) -> bool {
    options
        .iter()
        .filter(|option| option.name == "env")
        .filter_map(DockerOption::value)
        .any(|value| value.split('=').next() == Some(name))
}

/// A container cannot reach a server on its host's `localhost` through docker's own network, so such a job shares
/// the host's, as under W&B's agent; `127.0.0.1` and `[::1]` are the same place. A queue that chooses a network
/// itself knows better.
fn local_server_options(context: &Context<'_>, asked: &[DockerOption]) -> Vec<DockerOption> {
    let is_local = context
        .server
        .is_some_and(|server| is_on_this_machine(&server.base_url));
    if !is_local || asked.iter().any(|option| option.name == "network") {
        return Vec::new();
    }
    [
        ("network", "host"),
        ("add-host", "host.docker.internal:host-gateway"),
    ]
    .map(|(name, value)| DockerOption::with_value(name, value))
    .into()
}

/// The options that the program needs. One that docker takes once, and that the queue or the job has chosen, is theirs.
fn program_options(program: &Program, asked: &[DockerOption]) -> Vec<DockerOption> {
    let is_chosen = |option: &&DockerOption| {
        option.name == "workdir" && asked.iter().any(|other| other.name == "workdir")
    };
    program
        .options
        .iter()
        .filter(|option| !is_chosen(option))
        .cloned()
        .collect()
}

/// The certificates that the owner wants every job to have.
fn certificates(network: &Network) -> Option<DockerOption> {
    let file = network.ca_bundle.as_ref()?;
    let mount = format!("{}:{CA_IN_CONTAINER}:ro", file.display());
    Some(DockerOption::with_value("volume", &mount))
}

fn is_on_this_machine(base_url: &str) -> bool {
    let Some((_, rest)) = base_url
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https"].contains(scheme))
    else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    ["localhost", "127.0.0.1", "[::1]"].contains(&host)
}

/// What a macro brought from a variable with a secret name goes to the container by name: the line is for everybody to
/// read. Gives the values of those variables.
fn hide_in_env(asked: &mut [DockerOption], secrets: &[Secret]) -> Result<BTreeMap<String, Secret>> {
    let mut hidden = BTreeMap::new();
    for option in asked.iter_mut().filter(|option| option.name == "env") {
        let Given::Value(assignment) = &option.given else {
            continue;
        };
        let Some((name, value)) = assignment.split_once('=') else {
            continue;
        };
        if !holds(value, secrets, 1) {
            continue;
        }
        if is_dockers_own(name) {
            return Err(Error::input(format!(
                "the variable `{name}` cannot hold a secret: it would change docker's own client, which hands secrets over"
            ))
            .hint("give the secret to the job in a variable of another name"));
        }
        hidden.insert(name.to_owned(), Secret::new(value));
        option.given = Given::Value(name.to_owned());
    }
    Ok(hidden)
}

fn holds(text: &str, secrets: &[Secret], least: usize) -> bool {
    let mut values = secrets.iter().map(Secret::expose);
    values.any(|value| value.len() >= least && text.contains(value))
}

/// Variables that change what docker's client does, the libraries in it, or the credential helpers that it calls:
/// those are scripts too, and programs in Python.
fn is_dockers_own(name: &str) -> bool {
    const NAMES: [&str; 19] = [
        "PATH",
        "ENV",
        "BASH_ENV",
        "SHELLOPTS",
        "NODE_OPTIONS",
        "GNUPGHOME",
        "PASSWORD_STORE_DIR",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "HOME",
        "TMPDIR",
        "GODEBUG",
        "GOTRACEBACK",
        "GOMAXPROCS",
        "GLIBC_TUNABLES",
        "REGISTRY_AUTH_FILE",
        "RES_OPTIONS",
        "HOSTALIASES",
        "GCONV_PATH",
    ];
    const BEGINNINGS: [&str; 12] = [
        "CLOUDSDK_",
        "PERL5",
        "PYTHON",
        "DOCKER_",
        "BUILDKIT_",
        "BUILDX_",
        "CONTAINER_",
        "CONTAINERS_",
        "STORAGE_",
        "LD_",
        "XDG_",
        "SSL_CERT_",
    ];
    let name = name.to_ascii_uppercase();
    NAMES.contains(&name.as_str())
        || name.ends_with("_PROXY")
        || BEGINNINGS.iter().any(|start| name.starts_with(start))
}

/// The owner has allowed the macro, but only `env` can keep its value from those who look at the processes.
fn seen_secrets(asked: &[DockerOption], secrets: &[Secret]) -> Vec<String> {
    let seen: BTreeSet<&str> = asked
        .iter()
        .filter(|option| {
            option
                .value()
                .is_some_and(|value| holds(value, secrets, SHORTEST_SECRET))
        })
        .map(|option| option.spelling.as_str())
        .collect();
    let warn = |spelling: &str| {
        format!(
            "`{spelling}` holds a variable with a secret name: every user of this machine can read it there with `ps`; in `env` it is out of sight"
        )
    };
    seen.into_iter().map(warn).collect()
}

/// Docker drops a variable by name that it cannot find, without a word.
fn missing_variables(
    asked: &[DockerOption],
    variables: &[Variable],
    is_there: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let is_handed_over = |name: &str| {
        variables
            .iter()
            .any(|variable| matches!(variable, Variable::ByName(known, _) if known == name))
    };
    let missing: BTreeSet<&str> = by_name(asked)
        .filter(|name| !is_there(name) && !is_handed_over(name))
        .collect();
    missing
        .into_iter()
        .map(|name| {
            format!("`{name}` is to come from the agent's environment, but it is not set there: the container does not get it")
        })
        .collect()
}

fn secret_values(
    asked: &[DockerOption],
    variables: &[Variable],
    spec: &LaunchSpec,
    context: &Context<'_>,
) -> Vec<Secret> {
    let keys = spec
        .api_key
        .iter()
        .chain(context.server.map(|server| &server.api_key))
        .cloned();
    let own = variables.iter().filter_map(|variable| match variable {
        Variable::ByName(_, value) => Some(value.clone()),
        Variable::Plain(..) => None,
    });
    let named = by_name(asked)
        .filter(|name| looks_secret(name))
        .filter_map(|name| context.environment.get(name).map(Secret::new));
    // It is in other forms than its address in what goes to a proxy: `curl -v` shows them.
    let proxy = context.network.proxy.iter();
    let proxys = proxy.filter_map(|proxy| password(proxy.expose()).map(Secret::new));
    keys.chain(own).chain(named).chain(proxys).collect()
}

/// The password in an address such as `http://user:password@host`.
fn password(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

fn worth_redacting(all: Vec<Secret>) -> Vec<Secret> {
    let mut kept: Vec<Secret> = Vec::new();
    for secret in all {
        if secret.expose().len() >= SHORTEST_SECRET && !kept.contains(&secret) {
            kept.push(secret);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_password_of_a_proxy() {
        for (address, expected) in [
            ("http://me:sesame@proxy:3128", Some("sesame")),
            ("https://me:a:b@c@proxy/x:y@z", Some("a:b@c")),
            ("http://me@proxy:3128", None),
            ("http://proxy:3128/me:no@x", None),
        ] {
            assert_eq!(password(address), expected, "{address}");
        }
    }

    #[test]
    fn knows_this_machine() {
        for (url, local) in [
            ("http://localhost:8080", true),
            ("https://localhost", true),
            ("http://127.0.0.1:9/x", true),
            ("http://[::1]:80", true),
            ("http://[::1]", true),
            ("https://api.wandb.ai", false),
            ("http://localhost.example.com", false),
            ("http://example.com/localhost", false),
            ("localhost:8080", false),
        ] {
            assert_eq!(is_on_this_machine(url), local, "{url}");
        }
    }
}
