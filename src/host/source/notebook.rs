//! A job whose entry point is a notebook gets the script of its code cells beside it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::{files, refused};
use crate::failure::{Error, Result};
use crate::launch::job::{Job, script_of};
use crate::launch::notebook;

/// How a notebook's name ends.
const END: &str = ".ipynb";

/// Names that are tried when a file has the notebook's own already.
const TRIES: usize = 100;

/// Writes the script of the notebook that the entry point names, if it names one, and makes it the entry point.
pub fn convert(job: &mut Job, folder: &Path, warnings: &mut Vec<String>) -> Result<()> {
    let written = script_of(&job.entry_point).unwrap_or_default().to_owned();
    if !written.ends_with(END) {
        return Ok(());
    }
    let Some(path) = files::find_script(job, folder)? else {
        // The check of the entry point says so.
        return Ok(());
    };
    let place = files::place(folder, &path)?.unwrap_or_else(|| folder.join(&path));
    let text = fs::read_to_string(&place)
        .map_err(|cause| Error::input(format!("the notebook `{path}` cannot be read: {cause}")))?;
    let script = notebook::script(&path, &text)?;
    if !script.left_out.is_empty() {
        let some: Vec<String> = script
            .left_out
            .iter()
            .take(5)
            .map(|it| format!("`{it}`"))
            .collect();
        let more = script.left_out.len().saturating_sub(some.len());
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        warnings.push(format!(
            "the notebook `{path}` runs as a script without what only a notebook understands: {}{rest}",
            some.join(", ")
        ));
    }
    let stem = written.strip_suffix(END).unwrap_or(&written);
    let beside = place.parent().unwrap_or(folder);
    let name = write_beside(beside, &place, &script.text)?;
    let folder_of_script = stem
        .rsplit_once('/')
        .map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let script = format!("{folder_of_script}{name}");
    let program = job.entry_point.first();
    job.entry_point = match program.map(String::as_str) {
        // What runs a notebook does not run a script, and a notebook alone is run by what runs scripts.
        Some("jupyter" | "papermill") => vec!["python".to_owned(), script],
        Some(program) if program == written => vec!["python".to_owned(), script],
        _ => job
            .entry_point
            .iter()
            .map(|word| {
                if *word == written {
                    script.clone()
                } else {
                    word.clone()
                }
            })
            .collect(),
    };
    job.is_notebook = false;
    Ok(())
}

/// Writes the script under a name that no file of the code has, and gives the name.
fn write_beside(folder: &Path, notebook: &Path, text: &str) -> Result<String> {
    let stem = notebook.file_stem().unwrap_or_default().to_string_lossy();
    for number in 0..TRIES {
        let name = match number {
            0 => format!("{stem}.py"),
            1 => format!("{stem}_notebook.py"),
            number => format!("{stem}_notebook_{number}.py"),
        };
        let path = folder.join(&name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                return file
                    .write_all(text.as_bytes())
                    .map(|()| name)
                    .map_err(|cause| refused("write", &path, &cause));
            }
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(refused("write", &path, &cause)),
        }
    }
    Err(Error::input(format!(
        "every name for the script of `{}` is taken",
        notebook.display()
    )))
}
