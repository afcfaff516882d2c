//! What the machine's owner lets a job ask of docker. Pure: where a path leads on this machine, and whose a container
//! is, comes in through [`Machine`].
//!
//! Everything is judged that a job's line will hold, after macros are filled: an agent cannot tell what a queue's
//! owner wrote from what a job added, so both are held to the same. A path is judged where it leads at that moment;
//! docker gets it as it was written, because the line is the queue's. Whoever can write a folder can change where a
//! name inside it leads between the two moments, which is what `mounts` is for: the listed folder itself is out of a
//! job's reach.

mod gpus;
mod limits;
mod mounts;
mod patterns;
mod places;
mod rules;
mod values;

use std::path::{Path, PathBuf};

use crate::failure::{Error, Result};
use crate::launch::resource_args::{DockerOption, Given};
pub use limits::{Limits, size};
pub use patterns::{Entry, Mount};
pub use places::{Place, cleaned};
pub use rules::{OptionRule, option_rule};

/// What the verdict on the image is about.
pub const IMAGE: &str = "image";

/// The key of a queue's config that is about building images, and no option of docker.
const BUILDER: &str = "builder";

/// Where a policy starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// What the documentation of Launch shows, without what hands over the host.
    #[default]
    Standard,
    /// What W&B's own agent takes since wandb 0.28.1.
    Strict,
    /// Whatever docker takes.
    Open,
}

impl Preset {
    /// The words of the configuration.
    pub const WORDS: [(&'static str, Preset); 3] = [
        ("standard", Preset::Standard),
        ("strict", Preset::Strict),
        ("open", Preset::Open),
    ];

    /// This preset's word.
    pub fn word(self) -> &'static str {
        Preset::WORDS
            .iter()
            .find(|(_, preset)| *preset == self)
            .map_or("", |(word, _)| word)
    }
}

/// What jobs may ask for, settled.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Where it starts from.
    pub preset: Preset,
    /// Options that are taken beyond the preset.
    pub allow: Vec<Entry>,
    /// Options that are not taken, whatever else says so.
    pub deny: Vec<Entry>,
    /// The only folders and volumes that may be mounted; `None` leaves it to the preset.
    pub mounts: Option<Vec<Mount>>,
    /// The only images that may run, as patterns; `None` is any.
    pub images: Option<Vec<String>>,
    /// How much a job may have.
    pub limits: Limits,
    /// The agent's own files, which no job may see.
    pub own_places: Vec<Place>,
    /// The owner's home folder.
    pub home: Option<PathBuf>,
    /// Where docker's engine is, when that is another machine, whose folders cannot be looked at.
    pub engine_elsewhere: Option<String>,
}

impl Policy {
    /// A preset by itself.
    pub fn of(preset: Preset) -> Self {
        Policy {
            preset,
            ..Policy::default()
        }
    }
}

/// What has to be asked of this machine. `host/` answers.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Where docker finds a path: [`cleaned`] by its text first, then with every symbolic link followed. What does not
    /// exist yet is where docker would make it. An error says why it cannot be told.
    pub real_path: fn(&Path) -> Result<PathBuf, String>,
    /// May the agent's own user read what is at a path, or look into it? Of what does not exist yet: yes.
    pub can_read: fn(&Path) -> bool,
    /// The agent whose job a container is, by name or id; `None` for all other containers.
    pub agent_of: fn(&str) -> Option<String>,
    /// How docker's client reaches its engine, such as `unix:///var/run/docker.sock`; `None` where it does not say.
    pub engine_address: fn() -> Option<String>,
    /// Where docker's engine keeps its images, containers and volumes; `None` where that is not known.
    pub engine_folder: fn() -> Option<PathBuf>,
}

/// A policy on a machine: what judges.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'a> {
    /// What the owner wants.
    pub policy: &'a Policy,
    /// Where.
    pub machine: Machine,
}

/// What a job asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The image that will run.
    pub image: &'a str,
    /// Its options, as they will stand on the line.
    pub options: &'a [DockerOption],
    /// Whether the config has the key `builder`.
    pub builder: bool,
    /// The agent that asks, as the label of its jobs has it.
    pub agent: &'a str,
}

/// The verdict on one thing that a job asks for, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The option by its one name, or `image`, or `builder`.
    pub option: String,
    /// How it stands on the line; for an option that is missing, its name.
    pub given: String,
    /// The rule that allows it, or a refusal.
    pub verdict: Judgement,
}

/// The rule that allows a thing, or a refusal.
pub type Judgement = Result<String, Refusal>;

/// Why a thing is refused, and what its owner could write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// What the machine's owner would write to allow it, or what the job should ask for instead.
    pub hint: String,
}

impl Refusal {
    fn new(rule: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal {
            rule: rule.into(),
            hint: hint.into(),
        }
    }

    /// A refusal that an entry of `policy.allow` lifts.
    fn unless_allowed(rule: impl Into<String>, entry: &str) -> Self {
        Refusal::new(rule, owner_writes("allow", entry))
    }
}

/// The hint that says which line of the configuration allows a thing.
fn owner_writes(key: &str, entry: &str) -> String {
    let entry = serde_json::Value::from(entry);
    format!(
        "the machine's owner allows it in launch-config.yaml with `policy: {{{key}: [{entry}]}}`"
    )
}

impl Check {
    /// Does the policy take it?
    pub fn is_allowed(&self) -> bool {
        self.verdict.is_ok()
    }
}

impl Guard<'_> {
    /// An error that names the first thing which the policy does not take.
    pub fn check(&self, asked: &Asked<'_>) -> Result<()> {
        for check in self.judge(asked) {
            if let Err(refusal) = check.verdict {
                return Err(Error::input(format!(
                    "this machine's policy refuses `{}`: {}",
                    check.given, refusal.rule
                ))
                .hint(refusal.hint));
            }
        }
        Ok(())
    }

    /// The verdict on everything that a job asks for: its image, its options in their order, and what it should have
    /// asked for.
    pub fn judge(&self, asked: &Asked<'_>) -> Vec<Check> {
        let mut checks = vec![Check {
            option: IMAGE.to_owned(),
            given: asked.image.to_owned(),
            verdict: self.image(asked.image),
        }];
        if asked.builder {
            checks.push(Check {
                option: BUILDER.to_owned(),
                given: BUILDER.to_owned(),
                verdict: self.builder(),
            });
        }
        checks.extend(asked.options.iter().map(|option| {
            Check {
                option: option.name.clone(),
                given: shown(option),
                verdict: self
                    .option(option, asked)
                    .and_then(|rule| self.within_limits(option, asked.options, rule)),
            }
        }));
        checks.extend(self.missing_limits(asked.options));
        checks
    }

    fn image(&self, image: &str) -> Judgement {
        let Some(images) = &self.policy.images else {
            return Ok("any image may run".to_owned());
        };
        match images
            .iter()
            .find(|pattern| patterns::is_image(pattern, image))
        {
            Some(pattern) => Ok(format!("`policy.images` lists `{pattern}`")),
            None => Err(Refusal::new(
                "the image is not among `policy.images`",
                owner_writes("images", image),
            )),
        }
    }

    fn builder(&self) -> Judgement {
        let is_named = |entries: &[Entry]| entries.iter().any(|entry| entry.option == BUILDER);
        if is_named(&self.policy.deny) {
            return Err(denied(BUILDER));
        }
        if self.policy.preset == Preset::Strict && !is_named(&self.policy.allow) {
            return Err(outside_strict(BUILDER));
        }
        Ok("how images are built is in the documentation".to_owned())
    }

    fn option(&self, option: &DockerOption, asked: &Asked<'_>) -> Judgement {
        let name = option.name.as_str();
        let named = |entry: &&Entry| entry.option == name;
        let mut denials = self.policy.deny.iter().filter(named);
        if let Some(entry) = denials.find(|entry| self.denies(entry, option)) {
            return Err(denied(&entry.to_string()));
        }
        let value = compared(option);
        let openings = self.policy.allow.iter().filter(named);
        let openings = openings.filter(|entry| entry.allows(&value));
        // One that names the value opens more than one of the option alone.
        let allowed = openings.max_by_key(|entry| entry.value.is_some()).cloned();
        if let Some(entry) = allowed.as_ref().filter(|entry| entry.value.is_some()) {
            return Ok(format!("`policy.allow` lists `{entry}`"));
        }
        let is_mount = ["volume", "mount"].contains(&name);
        if self.policy.preset == Preset::Open && !(is_mount && self.policy.mounts.is_some()) {
            return Ok("the preset `open` takes every option of docker".to_owned());
        }
        if self.policy.preset == Preset::Strict && !rules::is_strict(name) && allowed.is_none() {
            return Err(outside_strict(name));
        }
        let opened = allowed.map(|entry| format!("`policy.allow` lists `{entry}`"));
        match option_rule(name) {
            _ if option.given == Given::Flag(false) => Ok("it is turned off".to_owned()),
            Some(OptionRule::Allowed(why)) => Ok(opened.unwrap_or_else(|| (*why).to_owned())),
            Some(OptionRule::Refused(why)) => {
                opened.ok_or_else(|| Refusal::unless_allowed(*why, &exact(option)))
            }
            Some(OptionRule::ByValue(judge, _)) => judge(self, asked, option),
            None => opened.ok_or_else(|| {
                Refusal::unless_allowed(
                    "the installed docker knows this option, and this policy does not know what it does",
                    name,
                )
            }),
        }
    }
}

impl Guard<'_> {
    /// Does an entry of `deny` mean this option? Docker takes more spellings than one for some values, and what cannot
    /// be read for certain may be any of them.
    fn denies(&self, entry: &Entry, option: &DockerOption) -> bool {
        if entry.value.is_none() || entry.takes(&compared(option)) {
            return true;
        }
        let value = option.value().unwrap_or_default();
        match option.name.as_str() {
            "network" => values::network_name(value).is_none(),
            "cap-add" => values::canonical("cap-add", value) == "ALL",
            "gpus" => gpus::is_all(value) && entry.takes("all"),
            "device" => {
                let host = value.split(':').next().unwrap_or_default();
                let real = (self.machine.real_path)(Path::new(host)).unwrap_or_default();
                [cleaned(Path::new(host)), real, host.into()]
                    .iter()
                    .any(|path| entry.takes(&path.to_string_lossy()))
            }
            // Podman takes it for every variable that begins so.
            "env" => value.ends_with('*') && !value.contains('='),
            _ => false,
        }
    }
}

/// How an option is named in messages. The value of a variable is nobody's business.
fn shown(option: &DockerOption) -> String {
    match (option.name.as_str(), option.value()) {
        ("env", Some(value)) => {
            let name = value.split('=').next().unwrap_or(value);
            format!("{} {name}", option.spelling)
        }
        _ => option.words().join(" "),
    }
}

/// The value that entries of `allow` and `deny` are compared with.
fn compared(option: &DockerOption) -> String {
    match &option.given {
        Given::Flag(on) => on.to_string(),
        Given::Value(value) => values::canonical(&option.name, value),
    }
}

/// The entry of `policy.allow` that means just what a job asks for.
fn exact(option: &DockerOption) -> String {
    match option.value() {
        Some(_) => format!("{}={}", option.name, compared(option)),
        None => option.name.clone(),
    }
}

fn denied(entry: &str) -> Refusal {
    Refusal::new(
        format!("`policy.deny` lists `{entry}`"),
        format!("the machine's owner takes `{entry}` out of `policy.deny` in launch-config.yaml"),
    )
}

fn outside_strict(name: &str) -> Refusal {
    Refusal::new(
        "it is not among the options that W&B's own agent takes (`policy: {preset: strict}`)",
        format!(
            "the machine's owner allows it in launch-config.yaml with `policy: {{preset: strict, allow: [{name}]}}`"
        ),
    )
}
