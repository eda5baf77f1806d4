//! A member whose own disk or quota is full raises its own alarm, whoever leads.

use super::*;

const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";

impl Cluster {
    pub(super) fn alarms(&mut self, at: usize) -> Vec<(u64, i32)> {
        let request = proto::AlarmRequest::default();
        let reply: proto::AlarmResponse = self.call(at, ALARM, &request).unwrap();
        reply.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect()
    }

    fn try_put(&mut self, at: usize, key: &'static [u8], bytes: usize) -> Result<(), (u8, String)> {
        let value = Bytes::from(vec![7; bytes]);
        let request = proto::PutRequest { key: Bytes::from_static(key), value, ..Default::default() };
        let put: Result<proto::PutResponse, _> = self.call(at, "/etcdserverpb.KV/Put", &request);
        put.map(|_| ())
    }

    /// One of them leads, and it is not this one.
    pub(super) fn led_by_another_than(&mut self, not: usize) -> usize {
        self.until("one serves", serving);
        if self.leaders() == [not] {
            let request = proto::MoveLeaderRequest { target_id: 7 + (not as u64 + 1) % 3 };
            let moved: Result<proto::MoveLeaderResponse, _> =
                self.call(not, "/etcdserverpb.Maintenance/MoveLeader", &request);
            moved.unwrap();
        }
        self.until("it follows", |cluster| cluster.follows(not).is_some());
        self.follows(not).unwrap()
    }
}

const FULL: (u8, &str) = (8, "etcdserver: mvcc: database space exceeded");

/// As in one log: what is disarmed behind an alarm takes it away, though that is not in effect yet.
#[test]
fn an_alarm_on_its_way_is_disarmed_by_who_comes_behind_it() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    let leader = cluster.led_by_another_than(1);
    cluster.until("it leads on", serving);
    let followers: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    cluster.cut = followers.iter().map(|at| (leader, *at)).collect();
    let now = cluster.now;
    let (turn, full) = (&mut cluster.member(leader).reactors[0], MemberId(7 + followers[0] as u64));
    let Reactor { turn, leader: Some(leads), .. } = turn else { panic!("it leads") };
    leads.on_no_space_at(turn, full);
    assert!(!turn.control.has_alarm(full, AlarmType::NoSpace), "nobody has acknowledged it");
    let disarm = proto::AlarmRequest { action: 2, member_id: full.0, alarm: 1 };
    let asked = cluster.member(leader).ask(ALARM, &disarm).number();
    cluster.settle();
    assert!(cluster.member(leader).statuses.iter().all(|(of, ..)| *of != asked), "it waits for the log");
    cluster.cut.clear();
    cluster.until("it is answered", |cluster| {
        cluster.members[leader].as_ref().unwrap().statuses.iter().any(|(of, ..)| *of == asked)
    });
    assert!(cluster.now.since(now) < Duration::from_ms(900), "the same leader answers");
    assert_eq!(cluster.alarms(leader), []);
}

#[test]
fn a_follower_over_its_own_quota_raises_its_own_alarm_and_all_refuse() {
    let quota = 40_000;
    let quota_of = |settings: Settings| match settings.member {
        MemberId(8) => {
            let bounds = crate::limits::Bounds { sizes_step_bytes: 1, ..settings.bounds };
            Settings { quota_bytes: Some(quota), bounds, ..settings }
        }
        _ => settings,
    };
    let mut cluster = Cluster::of(&[1, 2, 1], 3, quota_of);
    let leader = cluster.led_by_another_than(1);
    cluster.try_put(leader, b"a", quota as usize).unwrap();
    cluster.until("the alarm stands", |cluster| {
        let control = |member: &Member| member.reactors[0].turn.control.alarms(AlarmType::None).len();
        cluster.members.iter().flatten().all(|member| control(member) == 1)
    });
    for at in 0..3 {
        assert_eq!(cluster.alarms(at), [(8, 1)]);
        let refused = cluster.try_put(at, b"b", 1).unwrap_err();
        assert_eq!((refused.0, &refused.1[..]), FULL);
    }
    // It is raised again when more is written, and no sooner.
    let disarm = proto::AlarmRequest { action: 2, member_id: 8, alarm: 1 };
    let _: proto::AlarmResponse = cluster.call(leader, ALARM, &disarm).unwrap();
    cluster.pass(Duration::from_ms(3_000));
    assert_eq!(cluster.alarms(leader), []);
    cluster.try_put(leader, b"b", 1).unwrap();
    cluster.pass(Duration::from_ms(100));
    assert_eq!(cluster.alarms(leader), [(8, 1)]);
    assert!(cluster.member(leader).log_lines.iter().any(|line| line.message == "alarm raised"));
}

#[test]
fn a_follower_with_a_full_disk_raises_its_own_alarm() {
    let mut cluster = Cluster::new(&[1, 2, 1], 3);
    let leader = cluster.led_by_another_than(2);
    cluster.member(2).disk_is_full = true;
    let mut written = 0;
    while cluster.try_put(leader, b"a", 30_000).is_ok() {
        written += 1;
        assert!(written < 100, "the disk has room");
    }
    cluster.pass(Duration::from_ms(100));
    assert_eq!(cluster.alarms(leader), [(9, 1)]);
}
