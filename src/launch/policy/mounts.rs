//! What of the host a job may mount: `volume` and `mount` in every spelling that docker takes. Pure. What cannot be
//! read here for certain is refused: docker may read it in another way.
//!
//! Source: docker/cli `opts/mount.go` and `cli/compose/loader/volume.go`, moby `volume/mounts/linux_parser.go`.

use std::path::{Path, PathBuf};

use super::places::{HomeRefusal, Homes, Place, hidden_at_root, system};
use super::{Asked, Guard, Judgement, Mount, Preset, Refusal, owner_writes, patterns};
use crate::launch::resource_args::DockerOption;

/// The way to a volume that is made with options.
const BY_NAME: &str =
    "let the machine's owner make the volume with `docker volume create`, and mount it by its name";

/// What a mount hands over.
struct Wanted {
    /// A path of the host, or the name of a volume; empty for a volume that is new and the container's own.
    source: String,
    /// Can the job change it?
    writes: bool,
}

/// What of a `mount` counts here. Later fields win over earlier ones, as they do in docker.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    read_only: bool,
    /// Submounts stay writable.
    writable_below: bool,
}

/// Decides about `--volume`.
pub fn volume(guard: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    let value = option.value().unwrap_or_default();
    let parts: Vec<&str> = value.split(':').collect();
    let (source, mode) = match parts.as_slice() {
        [_] => return Ok("a new volume of the container's own".to_owned()),
        [source, _] => (*source, ""),
        [source, _, mode] => (*source, *mode),
        _ => {
            return Err(unreadable(
                "it is not `SOURCE:TARGET` or `SOURCE:TARGET:MODE`",
            ));
        }
    };
    let mut wanted = Wanted {
        source: source.to_owned(),
        writes: true,
    };
    let mut relabels = false;
    for word in mode.split(',') {
        match word {
            "ro" => wanted.writes = false,
            "z" | "Z" => relabels = true,
            "" | "rw" | "nocopy" | "private" | "rprivate" | "slave" | "rslave" | "cached"
            | "delegated" | "consistent" => {}
            "shared" | "rshared" => return Err(shared()),
            other => {
                return Err(unreadable(&format!(
                    "`{other}` is no mode that is known here"
                )));
            }
        }
    }
    wanted.writes |= relabels;
    guard.source(&wanted)
}

/// Decides about `--mount`.
pub fn mount(guard: &Guard<'_>, _: &Asked<'_>, option: &DockerOption) -> Judgement {
    let value = option.value().unwrap_or_default().trim();
    let Some(fields) = patterns::csv(value) else {
        return Err(unreadable(
            "it is not one line of `key=value` with commas between them",
        ));
    };
    let mut wanted = Fields::default();
    for field in &fields {
        read_field(field, &mut wanted)?;
    }
    let source = wanted.source.unwrap_or_default();
    let writes = !wanted.read_only || wanted.writable_below;
    match wanted.kind.as_deref().unwrap_or("volume") {
        "tmpfs" => Ok("it is memory of the job's own".to_owned()),
        "image" => guard.image(&source),
        "bind" if source.is_empty() => Err(unreadable("a bind mount has a `source`")),
        "bind" if !source.starts_with(['/', '.']) => Err(unreadable(
            "the source of a bind mount is a whole path, from `/` on",
        )),
        "bind" => guard.path(&source, writes),
        "volume" if source.is_empty() => Ok("a new volume of the container's own".to_owned()),
        "volume" => guard.volume(&source, writes),
        other => Err(unreadable(&format!("`type={other}` is not known here"))),
    }
}

fn read_field(field: &str, wanted: &mut Fields) -> Result<(), Refusal> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
        None => (field.to_ascii_lowercase(), None),
    };
    let text = value.unwrap_or_default();
    match key.as_str() {
        "type" | "source" | "src" => {
            let slot = if key == "type" {
                &mut wanted.kind
            } else {
                &mut wanted.source
            };
            let new = if key == "type" {
                text.to_ascii_lowercase()
            } else {
                text.to_owned()
            };
            if slot.replace(new).is_some() {
                return Err(unreadable(&format!("`{key}` is there twice")));
            }
        }
        "readonly" | "ro" => {
            wanted.read_only = match value {
                None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                Some(other) => {
                    return Err(unreadable(&format!(
                        "`{key}={other}` is neither yes nor no"
                    )));
                }
            }
        }
        "bind-recursive" => wanted.writable_below |= text == "writable",
        // Docker does not keep its case.
        "bind-propagation"
            if ["shared", "rshared"].contains(&text.trim().to_ascii_lowercase().as_str()) =>
        {
            return Err(shared());
        }
        "volume-driver" if !["", "local"].contains(&text) => {
            return Err(Refusal::new("a volume's driver can name any path", BY_NAME));
        }
        "volume-opt" => {
            let rule =
                "the options of a new volume can name any path of the host, as `device=/` does";
            return Err(Refusal::new(rule, BY_NAME));
        }
        "target" | "dst" | "destination" | "consistency" | "bind-propagation"
        | "bind-nonrecursive" | "volume-driver" | "volume-nocopy" | "volume-label"
        | "volume-subpath" | "image-subpath" | "tmpfs-size" | "tmpfs-mode" => {}
        other => {
            return Err(unreadable(&format!(
                "`{other}` is no field that is known here"
            )));
        }
    }
    Ok(())
}

/// The hint that says which entry of `mounts` allows a thing.
fn owner_lists(entry: &str) -> String {
    let hint = owner_writes("mounts", entry);
    format!("{hint}; `mounts` lists everything that may be mounted, so nothing else may be")
}

fn unreadable(why: &str) -> Refusal {
    Refusal::new(
        format!("what it mounts cannot be told: {why}"),
        r#"write it as docker's documentation does, such as "volume": "/data:/data:ro""#,
    )
}

fn shared() -> Refusal {
    Refusal::new(
        "with `shared` propagation, what the job mounts appears on the host",
        "leave the propagation out, or write `rslave`",
    )
}

/// A path as it was written and where it leads, for messages.
fn spelled(written: &str, real: &Path) -> String {
    if Path::new(written) == real {
        format!("`{written}`")
    } else {
        format!("`{written}`, which is `{}`,", real.display())
    }
}

impl Guard<'_> {
    fn source(&self, wanted: &Wanted) -> Judgement {
        let source = wanted.source.as_str();
        if source.starts_with('~') {
            return Err(unreadable("docker does not know `~`; write the whole path"));
        }
        if source.starts_with(['/', '.']) {
            self.path(source, wanted.writes)
        } else {
            self.volume(source, wanted.writes)
        }
    }

    /// A volume by its name: docker keeps those itself, each in a folder of its own.
    fn volume(&self, name: &str, writes: bool) -> Judgement {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !is_name {
            return Err(unreadable(
                "it is neither a path from `/` on nor the name of a volume",
            ));
        }
        let Some(mounts) = &self.policy.mounts else {
            return Ok("a volume that docker keeps under this name".to_owned());
        };
        let mut like = mounts
            .iter()
            .filter(|mount| !mount.is_path() && patterns::is_like(&mount.source, name));
        match like.find(|mount| mount.writable || !writes).or(like.next()) {
            Some(mount) => writable(mount, writes),
            None => Err(Refusal::new(
                "`policy.mounts` lists no such volume",
                owner_lists(name),
            )),
        }
    }

    /// A file or folder of the host.
    fn path(&self, written: &str, writes: bool) -> Judgement {
        let policy = self.policy;
        let real = self.real(written)?;
        let seen = spelled(written, &real);
        let own_word = policy
            .mounts
            .iter()
            .flatten()
            .filter(|mount| mount.is_path())
            .map(|mount| (self.real_or_as_written(Path::new(&mount.source)), mount))
            .filter(|(path, _)| real.starts_with(path))
            .max_by_key(|(path, _)| path.components().count());
        if policy.mounts.is_some() && own_word.is_none() {
            return Err(Refusal::new(
                format!("{seen} is below no folder that `policy.mounts` lists"),
                owner_lists(&real.to_string_lossy()),
            ));
        }
        let rule = match own_word {
            Some((_, mount)) => writable(mount, writes)?,
            None => "a folder of the host that is nobody's secret".to_owned(),
        };
        if policy.preset != Preset::Open {
            self.protected(
                &real,
                &seen,
                own_word.as_ref().map(|(path, _)| path.as_path()),
            )?;
        }
        Ok(rule)
    }

    /// Refuses what is in a protected place, unless the owner lists the place itself or something in it; and what
    /// holds one, because it would come along.
    fn protected(&self, real: &Path, seen: &str, listed: Option<&Path>) -> Result<(), Refusal> {
        let opens = |rule: String| Refusal::new(rule, owner_lists(&real.to_string_lossy()));
        if listed.is_none() && !(self.machine.can_read)(real) {
            return Err(opens(format!("{seen} is closed to the agent's own user")));
        }
        let holds = |rule: String| {
            Refusal::new(
                rule,
                "mount a folder inside it that holds nothing of the kind; only `policy: {preset: open}` hands out the whole",
            )
        };
        if real == Path::new("/") {
            return Err(holds(format!("{seen} is the whole machine")));
        }
        let engines = (self.machine.engine_folder)();
        let engines = engines.map(|folder| Place::tree(folder, "docker's own folder"));
        let own = self.policy.own_places.iter().cloned();
        for place in system().chain(own).chain(engines) {
            for path in [self.real_or_as_written(&place.path), place.path.clone()] {
                let place = Place {
                    path,
                    ..place.clone()
                };
                if place.has(real) && !listed.is_some_and(|listed| place.has(listed)) {
                    return Err(opens(format!("{seen} is {}", place.what)));
                }
                if !place.has(real) && place.is_below(real) {
                    return Err(holds(format!(
                        "{seen} holds `{}`, which is {}",
                        place.path.display(),
                        place.what
                    )));
                }
            }
        }
        if let Some(entry) = hidden_at_root(real)
            && !listed.is_some_and(|listed| listed.starts_with(&entry))
        {
            return Err(opens(format!(
                "{seen} is hidden at the root of the disk, where systems keep copies of themselves"
            )));
        }
        match self.homes().refusal(real) {
            None => Ok(()),
            Some(HomeRefusal::Whole(why)) => Err(holds(format!("{seen} {why}"))),
            Some(HomeRefusal::Entry(entry)) => {
                if listed.is_some_and(|listed| listed.starts_with(&entry)) {
                    return Ok(());
                }
                let place = if entry == real {
                    String::new()
                } else {
                    format!("in `{}`, ", entry.display())
                };
                Err(opens(format!(
                    "{seen} is {place}where a home folder keeps keys, settings or programs"
                )))
            }
        }
    }

    /// Some machines have their homes elsewhere, and links where others have them.
    fn homes(&self) -> Homes {
        let both = |path: &Path| [self.real_or_as_written(path), path.to_owned()];
        let root = Path::new("/root");
        let single = self.policy.home.as_deref().into_iter().chain([root]);
        Homes {
            single: single.flat_map(both).collect(),
            parents: both(Path::new("/home")).into(),
        }
    }

    /// Where docker would find a path.
    pub(super) fn real(&self, written: &str) -> Result<PathBuf, Refusal> {
        if let Some(engine) = self.engine_elsewhere() {
            return Err(Refusal::new(
                format!(
                    "docker's engine is on another machine ({engine}), whose folders cannot be looked at from here"
                ),
                "run the agent on that machine; or, where every job may mount everything there, the owner writes `policy: {preset: open}` without `mounts`",
            ));
        }
        (self.machine.real_path)(Path::new(written)).map_err(|why| {
            Refusal::new(
                format!("where `{written}` leads cannot be told: {why}"),
                "mount a folder that the agent's own user can reach",
            )
        })
    }

    /// Where the engine is that is not on this machine: as `DOCKER_HOST` says, or a context of docker's.
    fn engine_elsewhere(&self) -> Option<String> {
        self.policy.engine_elsewhere.clone().or_else(|| {
            let address = (self.machine.engine_address)()?;
            let (scheme, _) = address.split_once("://")?;
            (!["unix", "fd"].contains(&scheme))
                .then(|| format!("docker's context leads to `{scheme}://..`"))
        })
    }

    /// The same for a path of the owner's or of the system, which is only compared with.
    fn real_or_as_written(&self, path: &Path) -> PathBuf {
        (self.machine.real_path)(path).unwrap_or_else(|_| path.to_owned())
    }
}

fn writable(mount: &Mount, writes: bool) -> Judgement {
    if writes && !mount.writable {
        return Err(Refusal::new(
            format!("`policy.mounts` lists `{mount}`: jobs may read there, not write"),
            "mount it read-only: `:ro` at the end of a `volume`, `readonly` in a `mount`",
        ));
    }
    Ok(format!("`policy.mounts` lists `{mount}`"))
}
