//! The bulk lane: work on files that must never stand in the way of a client's request.
//!
//! Two *workers* run side by side, each doing its orders one by one; the answer goes to the reactor that asked.
//! All writes are small, one at a time and paced, so that the disk's queue stays short for the logs.
//!
//! - `Steps`: checkpoints are written, files removed and logs read back for members that lag, on a glommio executor that lets others go before it, on
//!   CPU and disk, and keeps to a calm rate. What a reactor says presses ([`Lane::hasten`]) goes faster, beside
//!   the others: checkpoints that fall behind hold memory, log and disk that grow. Where glommio cannot start
//!   (too little lockable memory), a plain thread runs the same with calls that block.
//!   glommio 0.9 now and then misses what should end its park (once in some thousand parks on a busy
//!   machine with Linux 6.18), its first one too, and then sleeps for ever: [`Lane::keep_awake`] interrupts a
//!   lane that has something to do and does not move, and nobody waits for the lane to begin.
//! - `Segments`: files for the logs, on a plain thread of normal priority. A log that has no next segment
//!   stands still ([`Lane::log_waits`]: then its file is made without a pause), and on a machine that others keep
//!   busy, the lowest priority may mean never.

use super::bulk_file::{BulkFile, Medium};
use super::files::{Files, is_full};
use super::kernel::{self, Interruptible};
use super::logger::Logger;
use super::wakers::Wakers;
use crate::io::{BulkDone, BulkStep, JobId};
use crate::limits::{
    BULK_BYTES_PER_SEC, BULK_BYTES_PER_SEC_PRESSING, BULK_ORDERS_QUEUED_MAX, BULK_WRITE_BYTES,
    REMOVE_PAUSE_MS, REMOVE_SLICE_BYTES, SEGMENT_BYTES_PER_SEC, SEGMENT_WRITE_BYTES_AT_START,
};
use crate::log::{Buffer, LogId, LogPiece, SegmentName};
use crate::stdx::HashMap;
use crate::types::ReactorId;
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// What a reactor wants of the lane.
#[derive(Debug)]
pub enum Order {
    Step { reactor: ReactorId, job: JobId, step: BulkStep },
    Prepare { reactor: ReactorId, segment: SegmentName, bytes: u64, keep_free: u64 },
    Recycle { reactor: ReactorId, old: SegmentName, new: SegmentName },
    Remove { segment: SegmentName },
}

impl Order {
    fn log(&self) -> Option<LogId> {
        match self {
            Order::Step { .. } => None,
            Order::Prepare { segment, .. } | Order::Remove { segment } => Some(segment.log),
            Order::Recycle { new, .. } => Some(new.log),
        }
    }
}

/// The oldest order of another log than the last one's, else the oldest: a log that waits for its first
/// segment does not wait for all of another's. Orders of one log, and steps, stay in their order.
fn take_fairly(waiting: &mut VecDeque<Order>, last: Option<LogId>) -> Order {
    let other = waiting.iter().position(|order| order.log() != last);
    waiting.remove(other.unwrap_or(0)).expect("the caller has put one in")
}

/// What comes back to a reactor.
#[derive(Debug)]
pub enum BulkAnswer {
    Done { job: JobId, done: BulkDone },
    Prepared { segment: SegmentName, file: File },
    DiskFull { segment: SegmentName },
}

/// The orders of one worker, and what wakes it.
struct OrderQueue {
    orders: ArrayQueue<Order>,
    waker: Mutex<Option<Waker>>,
}

impl OrderQueue {
    fn new() -> OrderQueue {
        OrderQueue { orders: ArrayQueue::new(BULK_ORDERS_QUEUED_MAX), waker: Mutex::new(None) }
    }

    fn push(&self, order: Order) -> Result<(), Order> {
        self.orders.push(order)?;
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    async fn next(&self) -> Order {
        std::future::poll_fn(|context| {
            if let Some(order) = self.orders.pop() {
                return Poll::Ready(order);
            }
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
            // An order that came before the waker stood there has woken nobody.
            self.orders.pop().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The entrance to the lane, shared by all threads.
pub struct Lane {
    files: Arc<Files>,
    logger: Logger,
    segments: OrderQueue,
    steps: OrderQueue,
    answers: Box<[SegQueue<BulkAnswer>]>,
    wakers: Arc<Wakers>,
    /// Whether no pacing is needed, since no clients are served yet.
    hurry: AtomicBool,
    /// Whether the steps of each reactor press.
    haste: Box<[AtomicBool]>,
    /// Whether each reactor's log stands still until it has its next segment.
    log_waits: Box<[AtomicBool]>,
    steps_asked: AtomicU64,
    steps_answered: AtomicU64,
    /// Counts writes, pauses and answers of the steps' worker, which shows that it moves.
    moves: AtomicU64,
    seen_moves: AtomicU64,
    executor: OnceLock<Interruptible>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerName {
    Segments,
    Steps,
}

impl Lane {
    pub fn new(files: Arc<Files>, logger: Logger, wakers: Arc<Wakers>) -> Lane {
        let answers = (0..wakers.reactors()).map(|_| SegQueue::new()).collect();
        Lane {
            files,
            logger,
            segments: OrderQueue::new(),
            steps: OrderQueue::new(),
            answers,
            hurry: AtomicBool::new(true),
            haste: (0..wakers.reactors()).map(|_| AtomicBool::new(false)).collect(),
            log_waits: (0..wakers.reactors()).map(|_| AtomicBool::new(false)).collect(),
            wakers,
            steps_asked: AtomicU64::new(0),
            steps_answered: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            seen_moves: AtomicU64::new(0),
            executor: OnceLock::new(),
        }
    }

    /// Queues an order; one that does not fit comes back.
    pub fn order(&self, order: Order) -> Result<(), Order> {
        match order {
            Order::Step { .. } => {
                self.steps.push(order)?;
                self.steps_asked.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Order::Prepare { .. } | Order::Recycle { .. } | Order::Remove { .. } => self.segments.push(order),
        }
    }

    pub fn answer(&self, reactor: ReactorId) -> Option<BulkAnswer> {
        self.answers[usize::from(reactor.0)].pop()
    }

    pub fn has_no_answer(&self, reactor: ReactorId) -> bool {
        self.answers[usize::from(reactor.0)].is_empty()
    }

    /// Paces the lane from now on, since clients are served.
    pub fn clients_are_served(&self) {
        self.hurry.store(false, Ordering::Relaxed);
    }

    /// Sets whether what this reactor has asked for presses.
    pub fn hasten(&self, reactor: ReactorId, haste: bool) {
        self.haste[usize::from(reactor.0)].store(haste, Ordering::Relaxed);
    }

    /// Sets whether writes of this reactor's log wait for its next segment.
    pub fn log_waits(&self, reactor: ReactorId, waits: bool) {
        self.log_waits[usize::from(reactor.0)].store(waits, Ordering::Relaxed);
    }

    fn presses(&self) -> bool {
        self.haste.iter().any(|haste| haste.load(Ordering::Relaxed))
    }

    /// Registers the calling thread as the executor's. To be called before it runs.
    pub fn runs_here(&self) -> io::Result<()> {
        let set = self.executor.set(Interruptible::this_thread()?);
        set.expect("one executor runs the lane");
        Ok(())
    }

    /// Interrupts the executor where it has not moved since the last call though steps are under way. To be
    /// called now and then.
    pub fn keep_awake(&self) {
        let moves = self.moves.load(Ordering::Relaxed);
        let stands = self.seen_moves.swap(moves, Ordering::Relaxed) == moves;
        let under_way =
            self.steps_asked.load(Ordering::Relaxed) > self.steps_answered.load(Ordering::Relaxed);
        if let (true, true, Some(executor)) = (stands, under_way, self.executor.get()) {
            executor.interrupt();
        }
    }

    fn give(&self, reactor: ReactorId, answer: BulkAnswer) {
        self.answers[usize::from(reactor.0)].push(answer);
        self.wakers.notify(reactor);
    }

    /// Carries out one worker's orders, for ever.
    pub async fn run(&self, queue: WorkerName, medium: Medium) {
        let reads = RateLimit::new(BULK_BYTES_PER_SEC);
        let mut worker = Worker { lane: self, medium, open: HashMap::default(), reads, pressing: false };
        let queue = match queue {
            WorkerName::Segments => &self.segments,
            WorkerName::Steps => &self.steps,
        };
        let (mut waiting, mut last) = (VecDeque::new(), None);
        loop {
            if waiting.is_empty() {
                waiting.push_back(queue.next().await);
            }
            let room = BULK_ORDERS_QUEUED_MAX - waiting.len();
            waiting.extend(std::iter::from_fn(|| queue.orders.pop()).take(room));
            let order = take_fairly(&mut waiting, last);
            last = order.log();
            if matches!(order, Order::Step { .. }) {
                worker.follow_haste();
            }
            worker.carry_out(order).await;
        }
    }
}

/// A file that grows by steps.
struct Growing<'a> {
    file: BulkFile<'a>,
    bytes: u64,
    limit: RateLimit,
}

struct Worker<'a> {
    lane: &'a Lane,
    medium: Medium,
    open: HashMap<String, Growing<'a>>,
    reads: RateLimit,
    /// Whether the steps pressed at the last look, which set the thread's priority.
    pressing: bool,
}

impl<'a> Worker<'a> {
    /// Sets the thread's priority as the steps' haste asks for, and returns the rate that goes with it.
    fn follow_haste(&mut self) -> u64 {
        let pressing = self.lane.presses();
        if pressing != self.pressing {
            self.pressing = pressing;
            if pressing { kernel::step_forward() } else { kernel::step_back() }
        }
        if pressing { BULK_BYTES_PER_SEC_PRESSING } else { BULK_BYTES_PER_SEC }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Step { reactor, job, step } => {
                let done = match self.step(step).await {
                    Ok(done) => done,
                    Err(error) if is_full(&error) => BulkDone::Full,
                    Err(error) => BulkDone::Failed(error.to_string()),
                };
                self.lane.steps_answered.fetch_add(1, Ordering::Relaxed);
                self.lane.moves.fetch_add(1, Ordering::Relaxed);
                self.lane.give(reactor, BulkAnswer::Done { job, done });
            }
            Order::Prepare { reactor, segment, bytes, keep_free } => {
                let answer = self.prepare_or_not(reactor, segment, bytes, keep_free).await;
                self.lane.give(reactor, answer);
            }
            Order::Recycle { reactor, old, new } => {
                let file = self.recycle(old, new).unwrap_or_else(|error| self.halt(new, &error));
                self.lane.give(reactor, BulkAnswer::Prepared { segment: new, file });
            }
            Order::Remove { segment } => {
                if let Err(error) = self.remove(&segment.to_string()).await {
                    let fields = vec![("segment", segment.to_string()), ("error", error.to_string())];
                    self.lane.logger.warn("failed to remove a log file", fields);
                }
            }
        }
    }

    fn halt(&self, segment: SegmentName, error: &io::Error) -> ! {
        let fields = vec![("segment", segment.to_string()), ("error", error.to_string())];
        self.lane.logger.halt("failed to prepare a log file", fields)
    }

    /// Prepares a segment. Where the disk is full it is given up: other orders may free some. Any other
    /// failure is final.
    async fn prepare_or_not(
        &mut self,
        reactor: ReactorId,
        segment: SegmentName,
        bytes: u64,
        keep_free: u64,
    ) -> BulkAnswer {
        let prepared = match self.lane.files.free_bytes() {
            // What may take all there is finds out by the write: some of it may be kept for this user alone.
            Ok(free) if keep_free > 0 && free < bytes.saturating_add(keep_free) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Ok(_) => self.prepare(reactor, segment, bytes).await,
            Err(error) => Err(error),
        };
        match prepared {
            Ok(file) => BulkAnswer::Prepared { segment, file },
            Err(error) if is_full(&error) => {
                let _ = fs::remove_file(self.lane.files.unfinished(segment));
                BulkAnswer::DiskFull { segment }
            }
            Err(error) => self.halt(segment, &error),
        }
    }

    /// Writes a segment's zeros. A reservation would not do: the first write to reserved space would be
    /// journaled. A log that waits for it has no writes that a pause would let go first.
    async fn prepare(&self, reactor: ReactorId, segment: SegmentName, bytes: u64) -> io::Result<File> {
        let files = &self.lane.files;
        let unfinished = files.unfinished(segment);
        let file = BulkFile::create(self.medium, files, &unfinished).await?;
        let mut zeros = Buffer::with_capacity(SEGMENT_WRITE_BYTES_AT_START);
        zeros.fill_to(SEGMENT_WRITE_BYTES_AT_START);
        let mut limit = RateLimit::new(SEGMENT_BYTES_PER_SEC);
        let mut at = 0;
        while at < bytes {
            let hurry = self.lane.hurry.load(Ordering::Relaxed);
            let piece = if hurry { SEGMENT_WRITE_BYTES_AT_START } else { BULK_WRITE_BYTES };
            let piece = piece.min(usize::try_from(bytes - at).unwrap_or(piece));
            file.write(&zeros[..piece], at).await?;
            at += piece as u64;
            if !hurry && !self.lane.log_waits[usize::from(reactor.0)].load(Ordering::Relaxed) {
                limit.passed(self.medium, piece).await;
            }
        }
        files.publish(&file.finish().await?, &segment.to_string())?;
        files.open_segment(segment)
    }

    fn recycle(&self, old: SegmentName, new: SegmentName) -> io::Result<File> {
        let files = &self.lane.files;
        files.rename(&files.path(&old.to_string()), &files.path(&new.to_string()))?;
        files.open_segment(new)
    }

    async fn step(&mut self, step: BulkStep) -> io::Result<BulkDone> {
        let written = match step {
            BulkStep::Read(piece) => return self.read(piece).await.map(BulkDone::Read),
            BulkStep::Create { name } => {
                let path = self.lane.files.path(&name);
                let file = BulkFile::create(self.medium, &self.lane.files, &path).await?;
                let limit = RateLimit::new(BULK_BYTES_PER_SEC);
                self.open.insert(name, Growing { file, bytes: 0, limit });
                Ok(())
            }
            BulkStep::Append { name, blocks } => {
                let mut growing = self.open.remove(&name).ok_or_else(|| not_written(&name))?;
                let appended = self.append(&mut growing, &blocks).await;
                if appended.is_err() {
                    growing.file.truncate(growing.bytes).await?;
                }
                self.open.insert(name, growing);
                appended
            }
            BulkStep::Publish { name, as_name } => {
                let growing = self.open.remove(&name).ok_or_else(|| not_written(&name))?;
                self.lane.files.publish(&growing.file.finish().await?, &as_name)
            }
            BulkStep::Remove { name } => {
                if let Some(growing) = self.open.remove(&name) {
                    growing.file.close().await?;
                }
                self.remove(&name).await
            }
        };
        written.map(|()| BulkDone::Done)
    }

    /// Reads a piece of a segment past the page cache, as it is written. The reads hold the thread up, as writes do.
    async fn read(&mut self, LogPiece { segment, offset, bytes }: LogPiece) -> io::Result<Vec<u8>> {
        let file = self.lane.files.open_segment_to_read(segment)?;
        let mut buffer = Buffer::with_capacity(BULK_WRITE_BYTES);
        buffer.fill_to(BULK_WRITE_BYTES);
        let mut piece = Vec::with_capacity(bytes);
        while piece.len() < bytes {
            let wanted = BULK_WRITE_BYTES.min(bytes - piece.len());
            let there = file.read_at(&mut buffer[..wanted], offset + piece.len() as u64)?;
            piece.extend_from_slice(&buffer[..there]);
            self.reads.bytes_per_sec = self.follow_haste();
            self.reads.passed(self.medium, there).await;
            self.lane.moves.fetch_add(1, Ordering::Relaxed);
            if there < wanted {
                break;
            }
        }
        Ok(piece)
    }

    async fn append(&mut self, growing: &mut Growing<'a>, blocks: &[Buffer]) -> io::Result<()> {
        let mut at = growing.bytes;
        for piece in blocks.iter().flat_map(|block| block.chunks(BULK_WRITE_BYTES)) {
            growing.file.write(piece, at).await?;
            at += piece.len() as u64;
            growing.limit.bytes_per_sec = self.follow_haste();
            growing.limit.passed(self.medium, piece.len()).await;
            self.lane.moves.fetch_add(1, Ordering::Relaxed);
        }
        growing.bytes = at;
        Ok(())
    }

    /// Removes a file, cut in slices first: to unlink a large file at once keeps the disk from everything else.
    async fn remove(&self, name: &str) -> io::Result<()> {
        let Some((path, file)) = self.lane.files.give_up(name)? else { return Ok(()) };
        let mut bytes = file.metadata()?.len();
        while bytes > REMOVE_SLICE_BYTES {
            bytes -= REMOVE_SLICE_BYTES;
            file.set_len(bytes)?;
            file.sync_all()?;
            self.medium.pause(Duration::from_millis(REMOVE_PAUSE_MS)).await;
        }
        drop(file);
        fs::remove_file(&path)
    }
}

fn not_written(name: &str) -> io::Error {
    io::Error::other(format!("{name} is not being written"))
}

/// Keeps writes or reads below a rate, and lets none catch up on a time in which there were none.
struct RateLimit {
    bytes_per_sec: u64,
    due: Instant,
}

impl RateLimit {
    fn new(bytes_per_sec: u64) -> RateLimit {
        RateLimit { bytes_per_sec, due: Instant::now() }
    }

    async fn passed(&mut self, medium: Medium, bytes: usize) {
        let now = Instant::now();
        let cost = Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.bytes_per_sec);
        self.due = self.due.max(now - cost) + cost;
        if self.due > now {
            medium.pause(self.due - now).await;
        }
    }
}

#[cfg(test)]
mod tests;
