use super::super::bulk_file::run_here;
use super::super::placement::{place, start_lane};
use super::*;
use crate::config::{LogFormat, LogLevel, LogOutput};

struct World {
    directory: tempfile::TempDir,
    lane: Arc<Lane>,
    notices: Notices,
}

const ME: ReactorId = ReactorId(0);

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let output = LogOutput::File(directory.path().join("log"));
    let notices = Notices::start(&[output], LogFormat::Json, LogLevel::Info).unwrap();
    let files = Arc::new(Files::open(directory.path().join("store")).unwrap());
    let lane = Arc::new(Lane::new(files, notices.clone(), Arc::new(Waking::new(1).unwrap())));
    World { directory, lane, notices }
}

impl World {
    /// Both media, one after the other, each in a world of its own.
    fn each(test: impl Fn(&World)) {
        let world = self::world();
        start_lane(&world.lane, &place(1), &world.notices).unwrap();
        test(&world);
        let world = self::world();
        for track in [TrackName::Segments, TrackName::Steps] {
            let lane = world.lane.clone();
            std::thread::spawn(move || run_here(lane.run(track, Medium::Thread)));
        }
        test(&world);
    }

    fn answer(&self) -> Answer {
        let began = Instant::now();
        loop {
            if let Some(answer) = self.lane.answer(ME) {
                return answer;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the lane does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn step(&self, step: BulkStep) -> BulkDone {
        let job = JobId(7);
        self.lane.order(Order::Step { reactor: ME, job, step }).unwrap();
        match self.answer() {
            Answer::Done { job: JobId(7), done } => done,
            other => panic!("{other:?}"),
        }
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
        assert!(matches!(world.answer(), Answer::NoRoom { segment } if segment == at(1)));
        assert_eq!(world.names(), [""; 0]);
        world.lane.order(Order::Prepare { reactor: ME, segment: at(1), bytes, keep_free: 0 }).unwrap();
        let Answer::Prepared { segment, file } = world.answer() else { panic!("not prepared") };
        assert_eq!((segment, file.metadata().unwrap().len()), (at(1), bytes));
        assert!(fs::read(world.lane.files.path(&at(1).to_string())).unwrap().iter().all(|byte| *byte == 0));
        world.lane.order(Order::Recycle { reactor: ME, old: at(1), new: at(2) }).unwrap();
        let Answer::Prepared { segment, .. } = world.answer() else { panic!("not recycled") };
        assert_eq!((segment, world.names()), (at(2), vec![at(2).to_string()]));
        world.lane.order(Order::Remove { segment: at(2) }).unwrap();
        while !world.names().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
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
