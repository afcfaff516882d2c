//! Who asks, and what they may touch: the members of an entity see and change what belongs to it, and to nobody else
//! does it exist. Every resolver comes by here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use juniper::{FieldError, IntoFieldError, Value};

use super::budget::Budget;
use super::scalars::Scalar;
use super::signed::{Address, Signer};
use crate::failure::{Error, Kind};
use crate::queue::local::{Caller, LocalQueue};

/// The project of all queues and agents of an entity, in W&B's word.
pub const QUEUES_PROJECT: &str = "model-registry";

/// What a resolver works with: one for each request.
pub struct Context {
    /// The embedded queue, with everything else that is stored.
    pub queue: Arc<LocalQueue>,
    /// Whose key it is.
    pub caller: Caller,
    /// The address of this server as its clients see it, without a slash at the end.
    pub base_url: String,
    /// Signs the addresses of files.
    pub signer: Signer,
    /// The bytes that everything may take.
    quota: u64,
    /// Something failed that is no fault of the request: a client should try again.
    troubled: AtomicBool,
    /// What the request may still cost.
    pub budget: Budget,
}

impl juniper::Context for Context {}

/// What a resolver gives.
pub type Answer<T> = std::result::Result<T, Refusal>;

/// Why a resolver gives nothing, in words for whoever asked.
#[derive(Debug)]
pub struct Refusal(String);

impl IntoFieldError<Scalar> for Refusal {
    fn into_field_error(self) -> FieldError<Scalar> {
        FieldError::new(self.0, Value::null())
    }
}

impl Context {
    /// A context for one request.
    pub fn new(
        queue: Arc<LocalQueue>,
        caller: Caller,
        base_url: String,
        signer: Signer,
        quota: u64,
    ) -> Context {
        Context {
            quota,
            queue,
            caller,
            base_url,
            signer,
            troubled: AtomicBool::new(false),
            budget: Budget::new(),
        }
    }

    /// Where a file is uploaded or downloaded, without a key, from now on for a while.
    pub fn url(&self, address: &Address) -> String {
        let path = self.signer.path(self.caller.key, address);
        format!("{}{path}", self.base_url)
    }

    /// Has something failed for which the request is not to blame?
    pub fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    /// Grants a page of so many rows, unless the request has had too many already. An empty one is a question too.
    pub fn grant(&self, rows: usize) -> Answer<usize> {
        self.budget.rows(rows.max(1))?;
        Ok(rows)
    }

    /// A list that has no pages, if the request can have so many rows.
    pub fn listed<T>(&self, all: Vec<T>) -> Answer<Vec<T>> {
        self.budget.listed(all.len())?;
        Ok(all)
    }

    /// A text that may be long, if the request can have so many bytes.
    pub fn long<'a>(&self, text: Option<&'a str>) -> Answer<Option<&'a str>> {
        self.budget.bytes(text.map_or(0, str::len))?;
        Ok(text)
    }

    /// May the caller see and change what belongs to this entity?
    pub fn is_member(&self, entity: &str) -> bool {
        self.caller.entities.iter().any(|name| name == entity)
    }

    /// Fails for an entity that the caller is not a member of, and in the same words for one that is not there.
    pub fn need_member(&self, entity: &str) -> Answer<()> {
        if self.is_member(entity) {
            return Ok(());
        }
        refuse(format!(
            "permission denied: user `{}` is not a member of an entity `{}`",
            self.caller.user,
            entity.escape_debug()
        ))
    }

    /// Fails when there is no room for a launch spec or a queue's config, which may be long and stay for ever.
    pub fn need_room(&self) -> Answer<()> {
        if self.told(self.queue.used_bytes())? < self.quota {
            return Ok(());
        }
        refuse(format!(
            "the server's files and its database may take {} MiB, and there is no room left for this",
            self.quota / (1024 * 1024)
        ))
    }

    /// What the queue gave, or its error in words that may leave this machine.
    pub fn told<T>(&self, result: crate::failure::Result<T>) -> Answer<T> {
        result.map_err(|error| self.refusal(&error))
    }

    /// [`Context::told`], but what is not there is `None`.
    pub fn found<T>(&self, result: crate::failure::Result<T>) -> Answer<Option<T>> {
        match result {
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            other => self.told(other).map(Some),
        }
    }

    fn refusal(&self, error: &Error) -> Refusal {
        match error.kind {
            Kind::Input | Kind::NotFound | Kind::Config | Kind::Docker => {
                Refusal(match &error.hint {
                    Some(hint) => format!("{} (hint: {hint})", error.message),
                    None => error.message.clone(),
                })
            }
            // These name files of this machine, which is for its owner to read.
            Kind::Queue | Kind::System => {
                log::error!("{error}");
                self.troubled.store(true, Ordering::Relaxed);
                Refusal("the server cannot read or write its files; its log says why".to_owned())
            }
        }
    }
}

/// Refuses, in these words.
pub fn refuse<T>(message: impl Into<String>) -> Answer<T> {
    Err(Refusal(message.into()))
}
