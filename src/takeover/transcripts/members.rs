//! Takeovers among three members, each with logs of its own for the same shards: what one leader left unfinished, the
//! next one finds, in some of the logs. Raft is played by the commands: who elects whom, and which entries come where.
//!
//! ```text
//!   mN fences T with MORE     mN leads in term T: it stops, fences all logs, here and at the others named, and reports
//!   mN seals with MORE        what comes behind: it seals all logs there, with the prefix that it has found
//!   mN append S ENTRY         an entry comes to stand in shard S's log, at mN alone
//!   mN takes S from mM to I   mN's log of shard S becomes mM's, up to entry I
//!   mN commit S I             mN hears that shard S's log is committed up to entry I
//!   mN checkpoint S           where a checkpoint of shard S would stand at mN, and what it would name as ruling
//!   mN installs S from mM     the state of shard S as mM has it takes the place of mN's log of it
//!   mN restarts               of what stands in its logs mN does not know what is committed
//! ```
//!
//! All other commands are a lone member's, behind the member's name.

use super::*;

struct ThreeMembers {
    of: [LoneMember; 3],
    /// The entries of each log from index 2 on, those that a state stands for as well.
    entries: [[Vec<(Position, Payload)>; 3]; 3],
}

fn three() -> ThreeMembers {
    ThreeMembers { of: [fresh(), fresh(), fresh()], entries: Default::default() }
}

/// `m1` is member 1.
fn place(name: &str) -> usize {
    name.strip_prefix('m').expect("a member is named mN").parse().unwrap()
}

impl ThreeMembers {
    fn append(&mut self, at: usize, shard: usize, words: &[&str]) -> Position {
        let log = &mut self.of[at].logs[shard];
        let term = log.last().term.max(epoch(words[1]).term);
        let place = Position { index: log.last().index.next(), term };
        let payload = entry(words);
        log.stand(place, Decoded::of(place.index, Some(&payload)));
        self.entries[at][shard].push((place, payload));
        place
    }

    /// As an append of a leader does: what stands already stays, and what differs gives way.
    fn take(&mut self, at: usize, shard: usize, from: usize, upto: Index) -> String {
        let given = self.entries[from][shard].clone();
        let mut replaced = None;
        for (place, payload) in given.into_iter().filter(|(place, _)| place.index <= upto) {
            let log = &mut self.of[at].logs[shard];
            let entries = &mut self.entries[at][shard];
            let own = entries.iter().position(|(own, _)| own.index == place.index);
            if place.index <= log.committed().index || own.is_some_and(|own| entries[own].0 == place) {
                continue;
            }
            if let Some(own) = own {
                replaced.get_or_insert(place.index);
                entries.truncate(own);
            }
            log.stand(place, Decoded::of(place.index, Some(&payload)));
            entries.push((place, payload));
        }
        let last = self.of[at].logs[shard].last().index;
        replaced.map_or(format!("stands up to {last}"), |from| {
            format!("another stood from {from} on: up to {last}")
        })
    }

    fn commit_upto(&mut self, at: usize, shard: usize, upto: Index) -> String {
        let log = &mut self.of[at].logs[shard];
        let mut read = vec![];
        while let Some((at, said)) = log.read_next(upto).expect("the log makes sense") {
            let said = match said {
                EntryRead::Fence(epoch) => format!("fence {epoch}"),
                EntryRead::Seal(Seal { epoch, prefix }) => format!("seal {epoch} up to {prefix}"),
                EntryRead::Writes(count) => {
                    format!("writes {}", list(log.newest(count).map(|write| write.revision)))
                }
                other => format!("{other:?}"),
            };
            read.push(format!("{}: {said}", at.index));
        }
        if read.is_empty() { String::new() } else { format!("shard {shard}: {}\n", read.join(", ")) }
    }

    /// An entry for each log, at a majority.
    fn everywhere(
        &mut self,
        at: usize,
        with: &[usize],
        shards: std::ops::Range<usize>,
        words: &[&str],
    ) -> String {
        let mut said = String::new();
        for shard in shards {
            let Position { index, .. } = self.append(at, shard, words);
            with.iter().for_each(|other| _ = self.take(*other, shard, at, index));
            said += &self.commit_upto(at, shard, index);
        }
        said
    }

    fn fences(&mut self, at: usize, term: Term, with: &[usize]) -> String {
        (0..2).for_each(|reactor| self.of[at].coordinator.stopped(ReactorId(reactor)));
        let Some(Step::FenceControl { epoch }) = self.of[at].coordinator.begin(term) else {
            return "it does not begin".to_owned();
        };
        let fence = ["fence", &epoch.to_string()[..]].map(str::to_owned);
        let fence: Vec<&str> = fence.iter().map(String::as_str).collect();
        let mut said = self.everywhere(at, with, 0..1, &fence);
        self.of[at].coordinator.control_fenced(epoch);
        said += &self.everywhere(at, with, 1..3, &fence);
        said += &self.of[at].run(&format!("fenced 0 {epoch}"));
        said + "\n" + &self.of[at].run(&format!("fenced 1 {epoch}"))
    }

    fn seals(&mut self, at: usize, with: &[usize]) -> String {
        let member = &mut self.of[at];
        let epoch = member.logs[0].fence();
        let reports = [0, 1].map(|reactor| member.report(reactor));
        let base = reports.iter().map(|report| report.base).max().unwrap_or_default();
        let shards: Vec<Holding> = reports.into_iter().flat_map(|report| report.shards).collect();
        let prefix = longest_run(base, &shards).expect("nothing that was settled is missing");
        let (epoch, prefix) = (epoch.to_string(), prefix.to_string());
        let mut said = self.everywhere(at, with, 0..3, &["seal", &epoch, &prefix]);
        said += &self.of[at].run(&format!("sealed 0 {epoch}"));
        said + "\n" + &self.of[at].run(&format!("sealed 1 {epoch}"))
    }

    fn checkpoint(&self, at: usize, shard: usize) -> String {
        let log = &self.of[at].logs[shard];
        let index = log.needed_after();
        let Ruling { fence, seal } = log.ruling_at(index);
        format!("behind {index}, of {}: fence {fence}, seal {} up to {}", log.held(), seal.epoch, seal.prefix)
    }

    fn install(&mut self, at: usize, shard: usize, from: usize) -> String {
        let given = &self.of[from].logs[shard];
        let index = given.needed_after();
        let entries = &self.entries[from][shard];
        let place = entries.iter().map(|(place, _)| *place).find(|place| place.index == index);
        let place = place.expect("the log of who gives has it");
        self.of[at].logs[shard] = LogView::new(given.held(), given.ruling_at(index), place);
        self.entries[at][shard] = entries.iter().filter(|(place, _)| place.index <= index).cloned().collect();
        self.checkpoint(at, shard)
    }

    fn restart(&mut self, at: usize) {
        for (log, entries) in self.of[at].logs.iter_mut().zip(&self.entries[at]) {
            *log = LogView::default();
            for (place, payload) in entries {
                log.stand(*place, Decoded::of(place.index, Some(payload)));
            }
        }
        self.of[at].coordinator = Coordinator::new(2, self.of[at].logs[0].newest_epoch());
    }

    fn run(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        let (at, shard) = (place(words[0]), |text: &str| number(text) as usize);
        let named = |names: &[&str]| names.iter().map(|name| place(name)).collect::<Vec<usize>>();
        match words[1..] {
            ["fences", term, "with", ref with @ ..] => self.fences(at, Term(number(term)), &named(with)),
            ["seals", "with", ref with @ ..] => self.seals(at, &named(with)),
            ["append", of, ..] => format!("stands at {}", self.append(at, shard(of), &words[3..]).index),
            ["takes", of, "from", from, "to", upto] => {
                self.take(at, shard(of), place(from), Index(number(upto)))
            }
            ["commit", of, upto] => self.commit_upto(at, shard(of), Index(number(upto))),
            ["checkpoint", of] => self.checkpoint(at, shard(of)),
            ["installs", of, "from", from] => self.install(at, shard(of), place(from)),
            ["restarts"] => {
                self.restart(at);
                String::new()
            }
            _ => self.of[at].run(&words[1..].join(" ")),
        }
    }

    fn play(&mut self, script: &str) {
        play(script, |command| self.run(command));
    }
}

/// m0 serves, and revision 2 is everywhere and settled.
fn served_by_m0() -> ThreeMembers {
    let mut members = three();
    members.play(
        "
        > m0 fences 2 with m1 m2
        shard 0: 2: fence 2.1
        shard 1: 2: fence 2.1
        shard 2: 2: fence 2.1
        nothing
        seal: 2.1 up to 1
        > m0 seals with m1 m2
        shard 0: 3: seal 2.1 up to 1
        shard 1: 3: seal 2.1 up to 1
        shard 2: 3: seal 2.1 up to 1
        nothing
        serve: 2.1 from 2
        > m0 append 1 batch 2.1 1 2
        stands at 4
        > m1 takes 1 from m0 to 4
        stands up to 4
        > m2 takes 1 from m0 to 4
        stands up to 4
        > m0 commit 1 4
        shard 1: 4: writes 2
        > m0 settle 1 2
    ",
    );
    members
}

/// What only the leader had was acknowledged to nobody: the next one does not find it, uses its number again, and
/// voids it where it stands. The old leader's log gives way to that of the new one.
#[test]
fn what_only_the_dead_leader_had_is_void() {
    let mut members = served_by_m0();
    members.play(
        "
        > m0 append 2 batch 2.1 2 3
        stands at 4
        > m1 fences 3 with m2
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 3.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        nothing
        seal: 3.1 up to 2
        > m1 seals with m2
        shard 0: 5: seal 3.1 up to 2
        shard 1: 6: seal 3.1 up to 2
        shard 2: 5: seal 3.1 up to 2
        nothing
        serve: 3.1 from 3
        > m1 append 1 batch 3.1 2 3
        stands at 7
        > m2 takes 1 from m1 to 7
        stands up to 7
        > m1 commit 1 7
        shard 1: 7: writes 3
        > m0 takes 2 from m1 to 5
        another stood from 4 on: up to 5
        > m0 takes 1 from m1 to 7
        stands up to 7
        > m0 commit 2 5
        shard 2: 4: fence 3.1, 5: seal 3.1 up to 2
        > m0 commit 1 7
        shard 1: 5: fence 3.1, 6: seal 3.1 up to 2, 7: writes 3
        > m0 log 1
        fence 3.1, seal 3.1 up to 2, live 3
        > m0 log 2
        fence 3.1, seal 3.1 up to 2, live none
    ",
    );
}

/// A write that reached a majority may have been acknowledged: the next leader finds it, though it was not told that
/// it is committed. Of a transaction over two shards of which one part is lost nothing stays, though its other part
/// is at all members.
#[test]
fn what_a_majority_has_stays_and_half_a_transaction_goes() {
    let mut members = served_by_m0();
    members.play(
        "
        > m0 append 2 batch 2.1 2 3
        stands at 4
        > m2 takes 2 from m0 to 4
        stands up to 4
        > m0 append 1 batch 2.1 2 4/2
        stands at 5
        > m1 takes 1 from m0 to 5
        stands up to 5
        > m2 takes 1 from m0 to 5
        stands up to 5
        > m0 append 2 batch 2.1 2 4/2
        stands at 5
        > m2 fences 3 with m1
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: writes 4, 6: fence 3.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 3, 5: fence 3.1
        nothing
        seal: 3.1 up to 3
        > m2 seals with m1
        shard 0: 5: seal 3.1 up to 3
        shard 1: 7: seal 3.1 up to 3
        shard 2: 6: seal 3.1 up to 3
        nothing
        serve: 3.1 from 4
        > m2 log 1
        fence 3.1, seal 3.1 up to 3, live 2
        > m2 log 2
        fence 3.1, seal 3.1 up to 3, live 3
        > m1 log 2
        fence 0.0, seal 0.0 up to 0, live none
        > m1 commit 1 7
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: writes 4, 6: fence 3.1, 7: seal 3.1 up to 3
        > m1 commit 2 6
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 3, 5: fence 3.1, 6: seal 3.1 up to 3
        > m1 log 1
        fence 3.1, seal 3.1 up to 3, live 2
        > m1 log 2
        fence 3.1, seal 3.1 up to 3, live 3
    ",
    );
}

/// A leader dies when a majority has its fence of the control shard, and only itself that of another shard. The next one
/// puts an entry of its own in the place of the latter, which leaves no trace; and whoever had a fence in a log does not
/// use the name of its epoch again.
#[test]
fn the_fence_of_a_takeover_that_died_is_replaced() {
    let mut members = served_by_m0();
    members.play(
        "
        > m1 append 0 fence 3.1
        stands at 4
        > m2 takes 0 from m1 to 4
        stands up to 4
        > m1 append 1 fence 3.1
        stands at 5
        > m2 fences 4 with m0
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1, 5: fence 4.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 4.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 4.1
        nothing
        seal: 4.1 up to 2
        > m2 seals with m0
        shard 0: 6: seal 4.1 up to 2
        shard 1: 6: seal 4.1 up to 2
        shard 2: 5: seal 4.1 up to 2
        nothing
        serve: 4.1 from 3
        > m1 takes 0 from m2 to 6
        stands up to 6
        > m1 takes 1 from m2 to 6
        another stood from 5 on: up to 6
        > m1 takes 2 from m2 to 5
        stands up to 5
        > m1 commit 0 6
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1, 5: fence 4.1, 6: seal 4.1 up to 2
        > m1 commit 1 6
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 4.1, 6: seal 4.1 up to 2
        > m1 log 1
        fence 4.1, seal 4.1 up to 2, live 2
        > m1 restarts
        > m1 fences 5 with m2
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1, 5: fence 4.1, 6: seal 4.1 up to 2, 7: fence 5.2
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 4.1, 6: seal 4.1 up to 2, 7: fence 5.2
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 4.1, 5: seal 4.1 up to 2, 6: fence 5.2
        nothing
        seal: 5.2 up to 2
        > m1 seals with m2
        shard 0: 8: seal 5.2 up to 2
        shard 1: 8: seal 5.2 up to 2
        shard 2: 7: seal 5.2 up to 2
        nothing
        serve: 5.2 from 3
    ",
    );
}

/// A leader dies as it seals: one log has its seal, another does not. The next leader finds the same prefix, and its own
/// seal voids in the other log what the first would have.
#[test]
fn the_seal_of_a_takeover_that_died_holds_for_the_next_one() {
    let mut members = served_by_m0();
    members.play(
        "
        > m0 append 1 batch 2.1 2 3
        stands at 5
        > m0 append 2 batch 2.1 2 4
        stands at 4
        > m1 takes 2 from m0 to 4
        stands up to 4
        > m1 fences 3 with m2
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 3.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 4, 5: fence 3.1
        nothing
        seal: 3.1 up to 2
        > m1 append 1 seal 3.1 2
        stands at 6
        > m2 takes 1 from m1 to 6
        stands up to 6
        > m2 log 2
        fence 0.0, seal 0.0 up to 0, live none
        > m2 restarts
        > m2 fences 4 with m0
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1, 5: fence 4.2
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 3.1, 6: seal 3.1 up to 2, 7: fence 4.2
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 4, 5: fence 3.1, 6: fence 4.2
        nothing
        seal: 4.2 up to 2
        > m2 seals with m0
        shard 0: 6: seal 4.2 up to 2
        shard 1: 8: seal 4.2 up to 2
        shard 2: 7: seal 4.2 up to 2
        nothing
        serve: 4.2 from 3
        > m2 log 1
        fence 4.2, seal 4.2 up to 2, live 2
        > m2 log 2
        fence 4.2, seal 4.2 up to 2, live none
        > m0 commit 1 8
        shard 1: 5: fence 3.1, 6: seal 3.1 up to 2, 7: fence 4.2, 8: seal 4.2 up to 2
        > m0 commit 2 7
        shard 2: 4: writes 4, 5: fence 3.1, 6: fence 4.2, 7: seal 4.2 up to 2
        > m0 log 1
        fence 4.2, seal 4.2 up to 2, live none
        > m0 log 2
        fence 4.2, seal 4.2 up to 2, live none
    ",
    );
}

/// A leader's seal has reached one log and not another, and so has its first write. A revision of the old epoch stands
/// in that other log behind the write, whose number would follow: it is void, though no seal has said so there.
#[test]
fn a_part_of_an_older_epoch_stands_behind_a_newer_one() {
    let mut members = served_by_m0();
    members.play(
        "
        > m0 append 2 batch 2.1 2 4
        stands at 4
        > m1 takes 2 from m0 to 4
        stands up to 4
        > m1 fences 3 with m2
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 3.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 4, 5: fence 3.1
        nothing
        seal: 3.1 up to 2
        > m1 append 0 seal 3.1 2
        stands at 5
        > m1 append 1 seal 3.1 2
        stands at 6
        > m2 takes 0 from m1 to 5
        stands up to 5
        > m2 takes 1 from m1 to 6
        stands up to 6
        > m1 append 1 batch 3.1 2 3
        stands at 7
        > m2 takes 1 from m1 to 7
        stands up to 7
        > m2 restarts
        > m2 fences 4 with m1
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1, 5: seal 3.1 up to 2, 6: fence 4.2
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 3.1, 6: seal 3.1 up to 2, 7: writes 3, 8: fence 4.2
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 4, 5: fence 3.1, 6: fence 4.2
        nothing
        seal: 4.2 up to 3
        > m2 seals with m1
        shard 0: 7: seal 4.2 up to 3
        shard 1: 9: seal 4.2 up to 3
        shard 2: 7: seal 4.2 up to 3
        nothing
        serve: 4.2 from 4
        > m2 log 1
        fence 4.2, seal 4.2 up to 3, live 2 3
        > m2 log 2
        fence 4.2, seal 4.2 up to 3, live none
    ",
    );
}

/// A member that follows reads a seal before it shows what stands in front of it. Its checkpoint stands before that,
/// and names the fence and the seal as of there: with those as of now the log would be read otherwise the next time.
#[test]
fn a_followers_checkpoint_names_what_ruled_where_it_stands() {
    let mut members = served_by_m0();
    members.play(
        "
        > m1 commit 1 4
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2
        > m1 settle 1 2
        > m1 checkpoint 1
        behind 4, of 2: fence 2.1, seal 2.1 up to 1
        > m0 append 1 batch 2.1 2 3
        stands at 5
        > m1 takes 1 from m0 to 5
        stands up to 5
        > m2 takes 1 from m0 to 5
        stands up to 5
        > m2 fences 3 with m1
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: writes 3, 6: fence 3.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        nothing
        seal: 3.1 up to 3
        > m2 seals with m1
        shard 0: 5: seal 3.1 up to 3
        shard 1: 7: seal 3.1 up to 3
        shard 2: 5: seal 3.1 up to 3
        nothing
        serve: 3.1 from 4
        > m1 commit 1 7
        shard 1: 5: writes 3, 6: fence 3.1, 7: seal 3.1 up to 3
        > m1 checkpoint 1
        behind 4, of 2: fence 2.1, seal 2.1 up to 1
        > m1 settle 1 3
        > m1 checkpoint 1
        behind 7, of 3: fence 3.1, seal 3.1 up to 3
    ",
    );
}

/// A member that was given the state of a shard takes over before it shows that: its prefix holds the state's revision,
/// of whose parts no log here says anything.
#[test]
fn who_takes_over_with_a_state_that_is_ahead_serves_behind_it() {
    let mut members = served_by_m0();
    members.play(
        "
        > m0 append 1 batch 2.1 2 3/2
        stands at 5
        > m0 append 2 batch 2.1 2 3/2
        stands at 4
        > m1 takes 1 from m0 to 5
        stands up to 5
        > m1 takes 2 from m0 to 4
        stands up to 4
        > m0 commit 1 5
        shard 1: 5: writes 3
        > m0 commit 2 4
        shard 2: 4: writes 3
        > m0 settle 1 3
        > m0 settle 2 3
        > m2 installs 1 from m0
        behind 5, of 3: fence 2.1, seal 2.1 up to 1
        > m2 installs 2 from m0
        behind 4, of 3: fence 2.1, seal 2.1 up to 1
        > m2 fences 3 with m1
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 6: fence 3.1
        shard 2: 5: fence 3.1
        nothing
        seal: 3.1 up to 3
        > m2 seals with m1
        shard 0: 5: seal 3.1 up to 3
        shard 1: 7: seal 3.1 up to 3
        shard 2: 6: seal 3.1 up to 3
        nothing
        serve: 3.1 from 4
    ",
    );
}

/// A leader that is deposed and elected anew finds another leader's entries at the indexes where it proposed: they count
/// as what they are. What it had proposed is nowhere.
#[test]
fn a_leader_comes_back_to_what_another_wrote_in_its_place() {
    let mut members = served_by_m0();
    members.play(
        "
        > m0 append 1 batch 2.1 2 3
        stands at 5
        > m1 fences 3 with m2
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: fence 3.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        nothing
        seal: 3.1 up to 2
        > m1 seals with m2
        shard 0: 5: seal 3.1 up to 2
        shard 1: 6: seal 3.1 up to 2
        shard 2: 5: seal 3.1 up to 2
        nothing
        serve: 3.1 from 3
        > m1 append 1 batch 3.1 2 3 4
        stands at 7
        > m2 takes 1 from m1 to 7
        stands up to 7
        > m0 lost
        stop
        > m0 takes 0 from m1 to 5
        stands up to 5
        > m0 takes 1 from m1 to 7
        another stood from 5 on: up to 7
        > m0 takes 2 from m1 to 5
        stands up to 5
        > m0 fences 4 with m2
        shard 0: 4: fence 3.1, 5: seal 3.1 up to 2, 6: fence 4.2
        shard 1: 5: fence 3.1, 6: seal 3.1 up to 2, 7: writes 3 4, 8: fence 4.2
        shard 2: 4: fence 3.1, 5: seal 3.1 up to 2, 6: fence 4.2
        nothing
        seal: 4.2 up to 4
        > m0 seals with m2
        shard 0: 7: seal 4.2 up to 4
        shard 1: 9: seal 4.2 up to 4
        shard 2: 7: seal 4.2 up to 4
        nothing
        serve: 4.2 from 5
        > m0 log 1
        fence 4.2, seal 4.2 up to 4, live 3 4
    ",
    );
}

/// A settled revision stands at a majority. Who has none of it is not elected; played all the same, its takeover ends:
/// nothing is sealed over the hole.
#[test]
fn who_lacks_what_was_settled_seals_nothing() {
    let mut members = served_by_m0();
    members.play(
        "
        > m0 append 2 batch 2.1 2 3
        stands at 4
        > m1 takes 2 from m0 to 4
        stands up to 4
        > m0 commit 2 4
        shard 2: 4: writes 3
        > m0 append 1 batch 2.1 3 4
        stands at 5
        > m1 takes 1 from m0 to 5
        stands up to 5
        > m2 takes 1 from m0 to 5
        stands up to 5
        > m2 fences 3 with m1
        shard 0: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        shard 1: 2: fence 2.1, 3: seal 2.1 up to 1, 4: writes 2, 5: writes 4, 6: fence 3.1
        shard 2: 2: fence 2.1, 3: seal 2.1 up to 1, 4: fence 3.1
        nothing
        the data directory is damaged: revision 3 was settled here, and of revision 3 no part is in any log; the end is missing of what log 0 has of shard 0, or log 1 has of shard 2. Nothing was cut off, and nothing is served. Restore the data directory from a copy that was made while the server was stopped; braid dump-log prints what can still be read
    ",
    );
}
