//! `up`: starts all services, unless all run already.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;

use crate::deployment::{self, answers_from_elsewhere};
use crate::directory::Directory;
use crate::failure::{Failure, Outcome};
use crate::programs::is_release_running;
use crate::provider::Provider;
use crate::settings_file::SettingsFile;
use crate::signals::Signals;
use crate::{lock, output, process, readiness, welcome};

/// Pause between two looks at the processes.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of the command `up`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Return when everything is ready, instead of waiting for an interrupt.
    pub(crate) detached: bool,
    /// Run programs that cargo has built with the release profile.
    pub(crate) release: bool,
}

/// Starts all services, unless all run already. Without `-d`, waits for an interrupt and then stops all services.
pub(crate) async fn up(directory: &Directory, options: Options) -> Outcome {
    let lock = lock::take(directory)?;
    directory.create()?;
    let provider = Provider::choose(|name| std::env::var(name).ok())?;
    if let Some(settings) = SettingsFile::read(directory)
        && process::expected(directory).all(|service| process::is_running(directory, service))
    {
        return already_up(directory, &settings, &provider, options);
    }

    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        biased;
        code = signals.next() => Err(Failure::Interrupted(code)),
        started = deployment::start(directory, &provider) => started.map_err(Failure::from),
    };
    let settings = match started {
        Ok(settings) => settings,
        Err(failure) => {
            let code = failure.report();
            process::stop_all(directory).await?;
            return Ok(code);
        }
    };
    output::line(&welcome::page(directory, &settings));
    if options.detached {
        output::line("Stop: deploy/local.sh down");
        return Ok(ExitCode::SUCCESS);
    }
    output::line("Stop: Ctrl-C");
    drop(lock);
    watch(directory, signals).await
}

fn already_up(directory: &Directory, settings: &SettingsFile, provider: &Provider, options: Options) -> Outcome {
    const FIRST: &str = "first run: deploy/local.sh down";
    if answers_from_elsewhere(settings, provider) {
        let wanted = provider.describe().unwrap_or_default();
        return Err(anyhow!("it is up already, with answers from elsewhere than {wanted}: {FIRST}").into());
    }
    if options.release && !is_release_running(directory)? {
        return Err(anyhow!("it is up already, with programs that were built for a quick start: {FIRST}").into());
    }
    output::line(&welcome::page(directory, settings));
    output::line("It was up already. Stop: deploy/local.sh down");
    Ok(ExitCode::SUCCESS)
}

/// Waits for a signal, which stops everything, or for the end of a service: on purpose by `down`, else a failure.
async fn watch(directory: &Directory, mut signals: Signals) -> Outcome {
    loop {
        tokio::select! {
            _ = signals.next() => {
                output::line("");
                let _lock = lock::take(directory)?;
                process::stop_all(directory).await?;
                return Ok(ExitCode::SUCCESS);
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
        let ended = process::expected(directory).find(|service| !process::is_running(directory, *service));
        let Some(service) = ended else { continue };
        let on_purpose = directory.stopping().exists() || !directory.process_file(service).exists();
        let _lock = lock::take(directory)?;
        if on_purpose {
            output::line("Stopped by deploy/local.sh down.");
            return Ok(ExitCode::SUCCESS);
        }
        output::error(&format!("{service} has ended; {}", readiness::last_lines(&directory.log(service))));
        process::stop_all(directory).await?;
        return Ok(ExitCode::FAILURE);
    }
}
