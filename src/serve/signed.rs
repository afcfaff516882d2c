//! Addresses that let in whoever holds them: each names one file and one direction, is signed by this server, and
//! expires, at the latest with the key that it was given out for. A client uploads and downloads by them without it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

/// How long an address is good for, in seconds. What has begun by then may end.
const LIFETIME: i64 = 3_600;

/// What an address is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Where the file of that name of a run is uploaded.
    PutRunFile(i64, String),
    /// Where an announced file of an artifact is uploaded.
    PutArtifactFile(i64),
    /// Where an announced manifest is uploaded.
    PutManifest(i64),
    /// Where the run's file of that number is downloaded.
    GetRunFile(i64),
    /// Where the artifact's file of that number is downloaded.
    GetArtifactFile(i64),
    /// Where a manifest is downloaded.
    GetManifest(i64),
}

impl Address {
    fn text(&self) -> String {
        match self {
            Address::PutRunFile(run, name) => format!("put-run-file:{run}:{name}"),
            Address::PutArtifactFile(id) => format!("put-artifact-file:{id}:"),
            Address::PutManifest(id) => format!("put-manifest:{id}:"),
            Address::GetRunFile(id) => format!("get-run-file:{id}:"),
            Address::GetArtifactFile(id) => format!("get-artifact-file:{id}:"),
            Address::GetManifest(id) => format!("get-manifest:{id}:"),
        }
    }

    fn read(text: &str) -> Option<Address> {
        let (kind, rest) = text.split_once(':')?;
        let (number, name) = rest.split_once(':')?;
        let number = number.parse().ok()?;
        Some(match kind {
            "put-run-file" => Address::PutRunFile(number, name.to_owned()),
            "put-artifact-file" => Address::PutArtifactFile(number),
            "put-manifest" => Address::PutManifest(number),
            "get-run-file" => Address::GetRunFile(number),
            "get-artifact-file" => Address::GetArtifactFile(number),
            "get-manifest" => Address::GetManifest(number),
            _ => return None,
        })
    }

    /// Does it take a file in? Otherwise it gives one out.
    pub fn is_upload(&self) -> bool {
        matches!(
            self,
            Address::PutRunFile(..) | Address::PutArtifactFile(_) | Address::PutManifest(_)
        )
    }
}

/// Signs addresses, and knows its own signature.
#[derive(Clone)]
pub struct Signer {
    secret: [u8; 32],
}

impl Signer {
    /// Signs with this secret.
    pub fn new(secret: [u8; 32]) -> Signer {
        Signer { secret }
    }

    /// The path of an address that is given out for the key of that number, good from now on for an hour.
    pub fn path(&self, key: i64, address: &Address) -> String {
        self.path_until(key, address, Timestamp::now().as_second() + LIFETIME)
    }

    fn path_until(&self, key: i64, address: &Address, until: i64) -> String {
        let text = format!("{until}:{key}:{}", address.text());
        let signature = self.signature(&text).finalize().into_bytes();
        format!(
            "/storage/{}.{}",
            URL_SAFE_NO_PAD.encode(text),
            URL_SAFE_NO_PAD.encode(signature)
        )
    }

    /// The address of a path and the number of its key, if we signed it and its time is not over.
    pub fn read(&self, path: &str) -> Option<(i64, Address)> {
        let (text, signature) = path.strip_prefix("/storage/")?.split_once('.')?;
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.signature(&text).verify_slice(&signature).ok()?;
        let (until, rest) = text.split_once(':')?;
        if until.parse::<i64>().ok()? < Timestamp::now().as_second() {
            return None;
        }
        let (key, rest) = rest.split_once(':')?;
        Some((key.parse().ok()?, Address::read(rest)?))
    }

    fn signature(&self, text: &str) -> Hmac<Sha256> {
        // A key of any length is taken, so nothing can fail; `new` takes one of a whole block.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.secret);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(text.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Address; 6] {
        [
            Address::PutRunFile(7, "a:b/..:c".to_owned()),
            Address::PutArtifactFile(1),
            Address::PutManifest(2),
            Address::GetRunFile(3),
            Address::GetArtifactFile(4),
            Address::GetManifest(5),
        ]
    }

    #[test]
    fn an_address_is_read_back_by_who_signed_it_alone() {
        let signer = Signer::new([1; 32]);
        for address in all() {
            let path = signer.path(9, &address);
            assert_eq!(signer.read(&path), Some((9, address)));
            assert_eq!(Signer::new([2; 32]).read(&path), None);
        }
    }

    #[test]
    fn no_letter_of_an_address_can_be_changed() {
        let signer = Signer::new([1; 32]);
        let path = signer.path(9, &Address::GetRunFile(3));
        for place in "/storage/".len()..path.len() - 1 {
            let mut changed = path.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("letters");
            assert_eq!(signer.read(&changed), None, "{changed}");
        }
        for other in [
            "",
            "/storage/",
            "/storage/.",
            "/storage/x.y",
            "/storage/../x.y",
        ] {
            assert_eq!(signer.read(other), None, "{other}");
        }
    }

    #[test]
    fn an_address_expires() {
        let signer = Signer::new([1; 32]);
        let address = Address::GetManifest(1);
        let now = Timestamp::now().as_second();
        assert_eq!(signer.read(&signer.path_until(9, &address, now - 1)), None);
        let path = signer.path_until(9, &address, now + 60);
        assert_eq!(signer.read(&path), Some((9, address)));
    }
}
