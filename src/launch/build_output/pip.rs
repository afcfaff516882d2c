//! What pip said: which packages could not be installed, or that no index could be asked for them. Pure.

use super::QUOTED;
use crate::failure::Error;

/// Why pip failed, in its own words; `None` when it said nothing of it.
pub fn explain(lines: &[&str]) -> Option<Error> {
    let said = errors(lines);
    if said.is_empty() {
        return None;
    }
    // An index that gave a package's versions was reached.
    let has_versions = |line: &String| {
        line.contains("(from versions: ") && !line.contains("(from versions: none)")
    };
    if let Some(why) = lost(lines).filter(|_| !said.iter().any(has_versions)) {
        return Some(unreachable(&why));
    }
    let has = |words: &[&str]| {
        let has_one = |line: &&str| words.iter().any(|word| line.contains(word));
        lines.iter().any(has_one)
    };
    let hint = if has(&["Cannot find command 'git'"]) {
        "the package comes from a git repository: choose a base image with git, or bring a Dockerfile"
    } else if has(&[
        "gcc' failed",
        "command 'cc' failed",
        "No such file or directory: 'gcc'",
        "Unknown compiler",
    ]) {
        "the package must be compiled: choose a base image with a compiler, or bring a Dockerfile"
    } else {
        "correct the requirement; a package may also have no version for this Python"
    };
    let said = said[..said.len().min(QUOTED)].join("; ");
    Some(Error::input(format!("the packages could not be installed: {said}")).hint(hint))
}

/// pip's own lines about what failed: its errors with what is indented below them, what excludes what, and the last
/// words of a program of a package.
fn errors(lines: &[&str]) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    // The package that pip looks at. Of one that it builds it says the name itself.
    let mut package = "";
    let mut is_detail = false;
    let mut last = "";
    for line in lines {
        let text = line.trim();
        // BuildKit begins its own errors with the same word.
        let is_pips = text.starts_with("ERROR: ")
            && !text.starts_with("ERROR: failed to ")
            && !text.starts_with("ERROR: executor ")
            && !text.starts_with("ERROR: process ");
        if let Some(name) = ["Collecting ", "Processing "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
        {
            package = name.split(" (").next().unwrap_or(name);
        } else if line.starts_with("Building wheel") {
            package = "";
        }
        let found = if is_pips {
            text.trim_start_matches("ERROR: ").to_owned()
        } else if text == "[end of output]" && !package.is_empty() {
            format!("{package}: {last}")
        } else if text == "[end of output]" {
            last.to_owned()
        } else if is_detail && line.starts_with("    ") {
            text.to_owned()
        } else {
            String::new()
        };
        is_detail = if is_pips {
            line.starts_with("ERROR: ")
        } else {
            text == "The conflict is caused by:" || (is_detail && !found.is_empty())
        };
        if !found.is_empty() && !said.contains(&found) {
            said.push(found);
        }
        if !text.is_empty() {
            last = text;
        }
    }
    said
}

/// Why no index could be asked, in pip's words, once it had tried as often as it does.
fn lost(lines: &[&str]) -> Option<String> {
    lines.iter().rev().find_map(|line| {
        let why = if let Some((_, rest)) = line.split_once("Retry(total=0,") {
            let (_, why) = rest.split_once("after connection broken by '")?;
            why.rsplit_once("': ").map_or(why, |(why, _)| why)
        } else if let Some((_, rest)) = line.split_once("Max retries exceeded with url") {
            let (_, why) = rest.split_once("(Caused by ")?;
            why.rsplit_once(')').map_or(why, |(why, _)| why)
        } else {
            line.trim()
                .strip_prefix("pip._vendor.urllib3.exceptions.")?
        };
        Some(without_objects(why))
    })
}

/// Without what Python says of its own objects: `<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f3e>: `.
fn without_objects(said: &str) -> String {
    let mut text = String::new();
    let mut rest = said;
    while let Some((before, after)) = rest.split_once('<') {
        let Some((_, after)) = after.split_once('>') else {
            break;
        };
        text.push_str(before);
        rest = after.trim_start_matches([':', ',', ' ']);
    }
    text + rest
}

fn unreachable(why: &str) -> Error {
    if why.contains("CERTIFICATE_VERIFY_FAILED") {
        return Error::input(format!(
            "the package index shows a certificate that the image does not know: {why}"
        ))
        .hint("name your company's certificates in `network.ca_bundle` of launch-config.yaml");
    }
    Error::input(format!(
        "the package index could not be reached from the build: {why}"
    ))
    .hint("see that a build reaches it: network, DNS, and `network.proxy` of launch-config.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(lines: &[&str]) -> Error {
        explain(lines).expect("a reason")
    }

    const NONE: &str =
        "ERROR: Could not find a version that satisfies the requirement six (from versions: none)";
    const NO_MATCH: &str = "ERROR: No matching distribution found for six";

    fn retry(left: u32, why: &str) -> String {
        format!(
            "WARNING: Retrying (Retry(total={left}, connect=None, read=None, redirect=None, status=None)) after connection broken by '{why}': /simple/six/"
        )
    }

    #[test]
    fn an_index_that_cannot_be_reached_is_no_fault_of_the_requirements() {
        for (why, said, hint) in [
            (
                "NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f3ec8f5e290>: Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')",
                "the package index could not be reached from the build: NewConnectionError('Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')",
                "`network.proxy`",
            ),
            (
                "ProxyError('Cannot connect to proxy.', NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7fda>: Failed to establish a new connection: [Errno 111] Connection refused'))",
                "the package index could not be reached from the build: ProxyError('Cannot connect to proxy.', NewConnectionError('Failed to establish a new connection: [Errno 111] Connection refused'))",
                "`network.proxy`",
            ),
            (
                "ConnectTimeoutError(<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>, 'Connection to pypi.org timed out. (connect timeout=15)')",
                "the package index could not be reached from the build: ConnectTimeoutError('Connection to pypi.org timed out. (connect timeout=15)')",
                "`network.proxy`",
            ),
            (
                "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate (_ssl.c:992)'))",
                "the package index shows a certificate that the image does not know: SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate (_ssl.c:992)'))",
                "`network.ca_bundle`",
            ),
        ] {
            let error = explained(&[&retry(1, "x"), &retry(0, why), NONE, NO_MATCH]);
            assert_eq!(error.message, said);
            assert!(error.hint.expect("a hint").contains(hint));
        }
        let error = explained(&[
            "ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='files.pythonhosted.org', port=443): Max retries exceeded with url: /x.whl (Caused by NewConnectionError('<x object at 0x7>: Failed to establish a new connection: [Errno 101] Network is unreachable'))",
        ]);
        assert_eq!(
            error.message,
            "the package index could not be reached from the build: NewConnectionError('Failed to establish a new connection: [Errno 101] Network is unreachable')"
        );
        let error = explained(&[
            "ERROR: Exception:",
            "Traceback (most recent call last):",
            "pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='files.pythonhosted.org', port=443): Read timed out.",
        ]);
        assert_eq!(
            error.message,
            "the package index could not be reached from the build: ReadTimeoutError: HTTPSConnectionPool(host='files.pythonhosted.org', port=443): Read timed out."
        );
    }

    #[test]
    fn a_connection_that_came_back_is_not_why_a_package_is_missing() {
        let wrong = "ERROR: Could not find a version that satisfies the requirement six==99 (from versions: 1.15.0, 1.16.0)";
        for lines in [
            [&*retry(3, "ReadTimeoutError('x')"), NONE, NO_MATCH],
            [&retry(0, "ReadTimeoutError('x')"), wrong, NO_MATCH],
        ] {
            let error = explained(&lines);
            assert_eq!(
                error.message,
                format!(
                    "the packages could not be installed: {}; No matching distribution found for six",
                    &lines[1]["ERROR: ".len()..]
                )
            );
            assert!(
                error
                    .hint
                    .expect("a hint")
                    .starts_with("correct the requirement")
            );
        }
    }

    #[test]
    fn what_pip_says_below_an_error_belongs_to_it() {
        for (output, said) in [
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n    six==1.16.0 from https://x/six.whl:\n        Expected sha256 00\n             Got        8a\n\n    more\n",
                "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.; six==1.16.0 from https://x/six.whl:; Expected sha256 00; Got        8a",
            ),
            (
                "ERROR: Cannot install a and b because these package versions have conflicting dependencies.\n\nThe conflict is caused by:\n    The user requested b==1\n    a 2 depends on b>=2\n\nTo fix this you could try to:\n1. loosen\nERROR: ResolutionImpossible: for help visit x\n",
                "Cannot install a and b because these package versions have conflicting dependencies.; The user requested b==1; a 2 depends on b>=2; ResolutionImpossible: for help visit x",
            ),
            (
                "Collecting x==1\nProcessing ./libs/b (from -r x)\n  error: subprocess-exited-with-error\n  \n  × Getting requirements to build wheel did not run successfully.\n  ╰─> [2 lines of output]\n      Traceback:\n      RuntimeError: no CUDA found\n      [end of output]\n  \n  note: x\nerror: subprocess-exited-with-error\n",
                "./libs/b: RuntimeError: no CUDA found",
            ),
            (
                "Collecting x\nCollecting y\nBuilding wheels for collected packages: x, y\n      building x\n      error: command 'gcc' failed: No such file or directory\n      [end of output]\nERROR: Failed building wheel for x\nFailed to build x\n",
                "error: command 'gcc' failed: No such file or directory; Failed building wheel for x",
            ),
        ] {
            let lines: Vec<&str> = output.lines().collect();
            let message = format!("the packages could not be installed: {said}");
            assert_eq!(explained(&lines).message, message);
        }
    }

    #[test]
    fn what_a_package_needs_to_be_made_is_said() {
        let error = explained(&["ERROR: Cannot find command 'git' - do you have 'git' installed?"]);
        assert!(
            error
                .hint
                .expect("a hint")
                .contains("a base image with git")
        );
        assert_eq!(
            explain(&["ERROR: failed to solve: x", "Collecting six"]),
            None
        );
    }
}
