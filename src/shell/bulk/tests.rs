use super::super::bulk_file::run_here;
use super::super::logger::Outputs;
use super::super::placement::{place, start_lane};
use super::*;
use crate::config::{LogFormat, LogLevel, LogOutput};
use std::path::PathBuf;

struct World {
    directory: tempfile::TempDir,
    lane: Arc<Lane>,
    logger: Logger,
}

const ME: ReactorId = ReactorId(0);

fn world() -> World {
    world_with(|store| Files::open(store).unwrap())
}

fn world_with(files: impl FnOnce(PathBuf) -> Files) -> World {
    let directory = tempfile::tempdir().unwrap();
    let output = LogOutput::File(directory.path().join("log"));
    let outputs = Outputs::open(&[output]).unwrap();
    let logger = Logger::start(outputs, LogFormat::Json, LogLevel::Debug).unwrap();
    let mut files = files(directory.path().join("store"));
    files.tell_to(logger.clone());
    let lane = Arc::new(Lane::new(Arc::new(files), logger.clone(), Arc::new(Wakers::new(1).unwrap())));
    World { directory, lane, logger }
}

impl World {
    /// Both media, one after the other, each in a world of its own.
    fn each(test: impl Fn(&World)) {
        let world = self::world();
        start_lane(&world.lane, place(1).lane(), &world.logger).unwrap();
        test(&world);
        self::world().on_threads(test);
    }

    fn on_threads(self, test: impl Fn(&World)) {
        let world = self;
        for queue in [WorkerName::Segments, WorkerName::Steps] {
            let lane = world.lane.clone();
            std::thread::spawn(move || run_here(lane.run(queue, Medium::Thread)));
        }
        test(&world);
    }

    fn answer(&self) -> BulkAnswer {
        let (began, mut looks) = (Instant::now(), 0);
        loop {
            if let Some(answer) = self.lane.answer(ME) {
                return answer;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the lane does not answer");
            if looks % 250 == 0 {
                // As the supervisor does.
                self.lane.keep_awake();
            }
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn step(&self, step: BulkStep) -> BulkDone {
        let job = JobId(7);
        self.lane.order(Order::Step { reactor: ME, job, step }).unwrap();
        match self.answer() {
            BulkAnswer::Done { job: JobId(7), done } => done,
            other => panic!("{other:?}"),
        }
    }

    /// What has been done to files since the last look, as the log has it.
    fn deeds(&self) -> Vec<String> {
        self.logger.flush();
        let path = self.directory.path().join("log");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, "").unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let deed = |line: serde_json::Value| {
            let field = |name: &str| Some(line[name].as_str()?.to_string());
            Some(format!("{}: {}", field("msg")?, field("file")?))
        };
        { lines }.filter_map(deed).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path().join("store")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn block(fill: u8, bytes: usize) -> Buffer {
    let mut buffer = Buffer::with_capacity(bytes);
    buffer.extend(&vec![fill; bytes]);
    buffer
}

#[test]
fn a_file_appears_whole_and_goes() {
    World::each(|world| {
        let name = || "a.checkpoint.new".to_string();
        assert_eq!(world.step(BulkStep::Create { name: name() }), BulkDone::Done);
        let blocks = vec![block(1, 4096), block(2, 300 << 10)];
        assert_eq!(world.step(BulkStep::Append { name: name(), blocks }), BulkDone::Done);
        let blocks = vec![block(3, 8192)];
        assert_eq!(world.step(BulkStep::Append { name: name(), blocks }), BulkDone::Done);
        assert_eq!(world.names(), ["a.checkpoint.new"]);
        let as_name = "a.checkpoint".to_string();
        assert_eq!(world.step(BulkStep::Publish { name: name(), as_name: as_name.clone() }), BulkDone::Done);
        let content = fs::read(world.lane.files.path(&as_name)).unwrap();
        let expected = [vec![1; 4096], vec![2; 300 << 10], vec![3; 8192]].concat();
        assert!(content == expected, "{} bytes", content.len());
        assert_eq!(world.step(BulkStep::Remove { name: as_name.clone() }), BulkDone::Done);
        assert_eq!(world.step(BulkStep::Remove { name: as_name }), BulkDone::Done);
        assert_eq!(world.names(), [""; 0]);
    });
}

/// A log is read while it is written, past whatever the page cache has of the file.
#[test]
fn a_piece_of_a_segment_is_read_up_to_the_end_of_its_file() {
    World::each(|world| {
        let segment = SegmentName { log: LogId(0), sequence: 3 };
        let blocks: Vec<u8> = (0..100u8).flat_map(|n| [n; 4096]).collect();
        fs::write(world.lane.files.path(&segment.to_string()), &blocks).unwrap();
        let read = |offset, bytes| world.step(BulkStep::Read(LogPiece { segment, offset, bytes }));
        assert!(read(0, 256 << 10) == BulkDone::Read(blocks[..256 << 10].to_vec()));
        assert!(read(8192, 4096) == BulkDone::Read(vec![2; 4096]));
        assert!(read(90 * 4096, 256 << 10) == BulkDone::Read(blocks[90 * 4096..].to_vec()));
        assert_eq!(read(100 * 4096, 256 << 10), BulkDone::Read(vec![]));
        let segment = SegmentName { log: LogId(0), sequence: 4 };
        let missing = world.step(BulkStep::Read(LogPiece { segment, offset: 0, bytes: 4096 }));
        assert!(matches!(missing, BulkDone::Failed(_)), "{missing:?}");
    });
}

#[test]
fn a_created_file_is_empty_whatever_stood_there() {
    World::each(|world| {
        let name = || "a.checkpoint.new".to_string();
        fs::write(world.lane.files.path(&name()), b"from before").unwrap();
        assert_eq!(world.step(BulkStep::Create { name: name() }), BulkDone::Done);
        assert_eq!(fs::metadata(world.lane.files.path(&name())).unwrap().len(), 0);
        assert_eq!(world.step(BulkStep::Remove { name: name() }), BulkDone::Done);
        let append = BulkStep::Append { name: name(), blocks: vec![block(1, 4096)] };
        assert!(matches!(world.step(append), BulkDone::Failed(_)));
    });
}

#[test]
fn a_segment_is_prepared_recycled_and_removed() {
    World::each(|world| {
        let at = |sequence| SegmentName { log: LogId(0), sequence };
        let (bytes, most) = (3 << 20, u64::MAX);
        world.lane.order(Order::Prepare { reactor: ME, segment: at(1), bytes, keep_free: most }).unwrap();
        assert!(matches!(world.answer(), BulkAnswer::DiskFull { segment } if segment == at(1)));
        assert_eq!(world.names(), [""; 0]);
        world.lane.order(Order::Prepare { reactor: ME, segment: at(1), bytes, keep_free: 0 }).unwrap();
        let BulkAnswer::Prepared { segment, file } = world.answer() else { panic!("not prepared") };
        assert_eq!((segment, file.metadata().unwrap().len()), (at(1), bytes));
        assert!(fs::read(world.lane.files.path(&at(1).to_string())).unwrap().iter().all(|byte| *byte == 0));
        world.lane.order(Order::Recycle { reactor: ME, old: at(1), new: at(2) }).unwrap();
        let BulkAnswer::Prepared { segment, .. } = world.answer() else { panic!("not recycled") };
        assert_eq!((segment, world.names()), (at(2), vec![at(2).to_string()]));
        world.lane.order(Order::Remove { segment: at(2) }).unwrap();
        while !world.names().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// After a power cut a name stands for a whole file or is not there. So content is durable before a name is
/// given, and names are before anybody is told of them.
#[test]
fn what_has_a_name_is_durable_and_so_is_the_name() {
    World::each(|world| {
        let at = |sequence| SegmentName { log: LogId(0), sequence };
        world
            .lane
            .order(Order::Prepare { reactor: ME, segment: at(1), bytes: 1 << 20, keep_free: 0 })
            .unwrap();
        world.answer();
        let first = at(1).to_string();
        assert_eq!(
            world.deeds(),
            [
                format!("file written: {first}.new"),
                format!("file synced: {first}.new"),
                format!("file gives up its name: {first}.new"),
                format!("file has its name: {first}"),
                "names synced: store".to_string(),
            ]
        );
        world.lane.order(Order::Recycle { reactor: ME, old: at(1), new: at(2) }).unwrap();
        world.answer();
        assert_eq!(
            world.deeds(),
            [
                format!("file gives up its name: {first}"),
                format!("file has its name: {}", at(2)),
                "names synced: store".to_string(),
            ]
        );
        let (name, as_name) = (|| "a.checkpoint.new".to_string(), || "a.checkpoint".to_string());
        world.step(BulkStep::Create { name: name() });
        for _ in 0..2 {
            world.step(BulkStep::Append { name: name(), blocks: vec![block(1, 4096)] });
        }
        assert_eq!(world.deeds(), ["file written: a.checkpoint.new"]);
        world.step(BulkStep::Publish { name: name(), as_name: as_name() });
        assert_eq!(
            world.deeds(),
            [
                "file synced: a.checkpoint.new",
                "file gives up its name: a.checkpoint.new",
                "file has its name: a.checkpoint",
                "names synced: store",
            ]
        );
        world.step(BulkStep::Remove { name: as_name() });
        assert_eq!(
            world.deeds(),
            [
                "file gives up its name: a.checkpoint",
                "file has its name: a.checkpoint.gone",
                "names synced: store",
            ]
        );
    });
}

/// A pipe is a file that cannot be made durable: the kernel refuses to sync it. (It is opened through the page
/// cache alone, which glommio does not do.)
#[test]
fn what_cannot_be_made_durable_gets_no_name() {
    let through_the_cache = |store: PathBuf| {
        fs::create_dir(&store).unwrap();
        Files::to_read(store)
    };
    world_with(through_the_cache).on_threads(|world| {
        let (name, as_name) = (|| "a.checkpoint.new".to_string(), || "a.checkpoint".to_string());
        let path = world.lane.files.path(&name());
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _reader = File::options().read(true).write(true).open(&path).unwrap();
        assert_eq!(world.step(BulkStep::Create { name: name() }), BulkDone::Done);
        let published = world.step(BulkStep::Publish { name: name(), as_name: as_name() });
        assert!(matches!(published, BulkDone::Failed(_)), "{published:?}");
        assert_eq!(world.names(), [name()]);
    });
}

#[test]
fn logs_get_their_segments_in_turns() {
    let order = |log, sequence| {
        let segment = SegmentName { log: LogId(log), sequence };
        Order::Prepare { reactor: ME, segment, bytes: 1, keep_free: 0 }
    };
    let mut waiting: VecDeque<Order> =
        [(1, 1), (1, 2), (1, 3), (0, 1), (0, 2)].map(|(l, s)| order(l, s)).into();
    let (mut taken, mut last) = (vec![], None);
    while !waiting.is_empty() {
        let order = take_fairly(&mut waiting, last);
        last = order.log();
        let Order::Prepare { segment, .. } = order else { panic!("another order") };
        taken.push((segment.log.0, segment.sequence));
    }
    assert_eq!(taken, [(1, 1), (0, 1), (1, 2), (0, 2), (1, 3)]);
}
