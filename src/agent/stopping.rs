//! What ends jobs before their time: people's requests, and the signals to the agent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Agent, Phase};
use crate::config::OnSignal;
use crate::failure::Result;
use crate::host::stop;
use crate::queue::{ItemId, StopReason, Told};

/// When a stop is tried again that the machine had no thread for.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Agent {
    pub(super) fn look_at_signals(&mut self) -> Result<()> {
        let items: Vec<ItemId> = self.running.keys().cloned().collect();
        let signals = self.shared.queue.signals(&self.shared.agent, &items)?;
        for request in signals.stop {
            let patience = match request.told {
                Told::AgentAlone => Duration::ZERO,
                Told::JobToo => self.shared.config.stopped_run_timeout.value,
            };
            if let Some(running) = self.running.get_mut(&request.item)
                && running.stop_due.is_none()
            {
                running.stop_due = Some(Instant::now() + patience);
                if !patience.is_zero() {
                    log::info!(
                        "item {}: asked to stop; it has {} s to end by itself",
                        request.item,
                        patience.as_secs()
                    );
                }
            }
        }
        if signals.stop_polling && self.phase == Phase::Working {
            self.phase = Phase::Draining;
            self.resuming.request(StopReason::AgentStopped);
            log::info!("told to take nothing more; ending when the running jobs have ended");
        }
        Ok(())
    }

    pub(super) fn stop_what_is_due(&mut self) {
        let now = Instant::now();
        let due = self.running.iter().filter_map(|(item, running)| {
            let (due, reason) = running.stop_to_come()?;
            (due <= now).then(|| (item.clone(), reason))
        });
        for (item, reason) in due.collect::<Vec<_>>() {
            self.stop(&item, reason);
        }
    }

    /// Asks a job to stop, and starts the thread that sees to it.
    pub(super) fn stop(&mut self, item: &ItemId, reason: StopReason) {
        let Some(running) = self.running.get_mut(item) else {
            return;
        };
        if running.stopper.is_some() || running.stop.has_ended() {
            return;
        }
        if running.stop.request(reason) {
            log::info!("item {item}: stopping, because {reason}");
        }
        let (stop, grace) = (
            Arc::clone(&running.stop),
            self.shared.config.stop_grace.value,
        );
        let stopper = std::thread::Builder::new().name(format!("stop-{item}"));
        match stopper.spawn(move || stop::carry_out(&stop, grace)) {
            Ok(thread) => running.stopper = Some(thread),
            Err(error) => {
                log::error!("item {item}: cannot start the thread that stops it: {error}");
                running.stop.limit(None);
                running.stop_due = Some(Instant::now() + TRY_AGAIN);
            }
        }
    }

    pub(super) fn signalled(&mut self) {
        self.resuming.request(StopReason::AgentStopped);
        let on_signal = self.shared.config.on_signal.value;
        if self.phase == Phase::Working && on_signal == OnSignal::Drain && !self.is_idle() {
            self.phase = Phase::Draining;
            let (jobs, them) = match self.running.len() {
                1 => ("the running job has".to_owned(), "it"),
                count => (format!("{count} running jobs have"), "them"),
            };
            log::info!("ending when {jobs} ended; a second signal stops {them}");
            return;
        }
        self.phase = Phase::Stopping;
        let items: Vec<ItemId> = self.running.keys().cloned().collect();
        for item in items {
            self.stop(&item, StopReason::AgentStopped);
        }
    }
}
