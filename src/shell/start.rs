//! The start of the server, from the first system call to reactors that run.
//!
//! All that can be refused without a look at the data (ports, locked memory) is tried before the data
//! directory is made or written: a first start that fails leaves no identity behind. It runs on a thread
//! of its own, so that whatever it waits for (a disk, a port) a signal ends it.

use super::boot;
use super::bulk::Lane;
use super::clock::Clock;
use super::data_dir::DataDir;
use super::files::Files;
use super::kernel;
use super::listeners::{self, Listener};
use super::logger::Logger;
use super::placement;
use super::restart;
use super::shared::Shared;
use super::start_line;
use super::wakers::Wakers;
use crate::config::Config;
use crate::io::Port;
use crate::limits::UNSETTLED_REVISIONS_MAX;
use crate::sequencer::Sequencer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A server that runs, though it may not serve yet.
pub struct Started {
    pub shared: Arc<Shared>,
    pub threads: Vec<JoinHandle<()>>,
    /// The addresses it listens on.
    pub served: Vec<(Port, SocketAddr)>,
}

/// Starts a server. The error is a line that says what to change.
pub fn start(config: &Config, clock: Clock, logger: &Logger) -> Result<Started, String> {
    logger.info("starting a Braid server", start_line::fields(config));
    if let Err(error) = kernel::raise_open_files() {
        logger.warn("the limit of open files stays", vec![("error", error.to_string())]);
    }
    let listeners = listen(config, logger)?;
    let served = listeners.iter().map(|listener| (listener.port, listener.address)).collect();
    let placed = placement::place(config.reactors);
    let lane_placement = placed.lane();
    let spawned = boot::spawn(placed, logger)?;

    let (mut data_dir, files) = open_data_dir(config, logger)?;
    let restart = restart::restart(&mut data_dir, &files, config.reactors, config.force_new_cluster)?;
    announce_restart(logger, &data_dir, &restart);
    let failed = |error: std::io::Error| format!("cannot start: {error}");
    let wakers = Arc::new(Wakers::new(config.reactors).map_err(failed)?);
    let lane = Arc::new(Lane::new(files.clone(), logger.clone(), wakers.clone()));
    let sequencer = Arc::new(Sequencer::new(UNSETTLED_REVISIONS_MAX));
    let shared = Arc::new(Shared::new(clock, logger.clone(), sequencer, wakers, lane.clone()));
    placement::start_lane(&lane, lane_placement, logger).map_err(failed)?;
    let settings = Arc::new(boot::settings(config, &data_dir.identity));
    let threads = boot::start(spawned, restart, &settings, &shared, &files, listeners).map_err(failed)?;
    // A reactor may write as long as there is a process: the lock goes with it.
    std::mem::forget(data_dir);
    Ok(Started { shared, threads, served })
}

fn listen(config: &Config, logger: &Logger) -> Result<Vec<Listener>, String> {
    let reuse_port = config.socket_reuse_port;
    let mut listeners = listeners::listen(&config.listen_peer_urls, Port::Peer, reuse_port)?;
    for listener in &listeners {
        logger.info("serving peer traffic", vec![("address", listener.address.to_string())]);
    }
    listeners.extend(listeners::listen(&config.listen_client_urls, Port::Client, reuse_port)?);
    listeners.extend(listeners::listen(&config.listen_metrics_urls, Port::Metrics, reuse_port)?);
    Ok(listeners)
}

fn open_data_dir(config: &Config, logger: &Logger) -> Result<(DataDir, Arc<Files>), String> {
    let data_dir = DataDir::open(config)?;
    if let Some(warning) = &data_dir.warning {
        logger.warn("check file permission", vec![("error", warning.clone())]);
    }
    let mut files = data_dir.files()?;
    files.tell_to(logger.clone());
    let files = Arc::new(files);
    if !files.is_direct() || !files.writes_in_one_request() {
        let fields = vec![
            ("direct", files.is_direct().to_string()),
            ("durable-in-one-request", files.writes_in_one_request().to_string()),
        ];
        logger.warn("the file system of the data directory makes durable writes slower", fields);
    }
    Ok((data_dir, files))
}

fn announce_restart(logger: &Logger, data_dir: &DataDir, restart: &restart::Restart) {
    let identity = &data_dir.identity;
    let mut fields = vec![
        ("cluster-id", format!("{:x}", identity.cluster.0)),
        ("local-member-id", format!("{:x}", identity.member.0)),
        ("data-dir", data_dir.path().display().to_string()),
    ];
    if data_dir.is_new {
        logger.info("beginning a new cluster", fields);
        return;
    }
    if let Some(revision) = restart.alone_at {
        let fields = [&fields[..2], &[("revision", revision.to_string())]].concat();
        logger.warn("forcing restart member: all other members are removed", fields);
    }
    fields.push(("log-bytes", restart.log_bytes.to_string()));
    fields.push(("shards", restart.reactors.iter().map(|plan| plan.shards.len()).sum::<usize>().to_string()));
    logger.info("restarting a member from its data directory", fields);
}
