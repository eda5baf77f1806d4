//! How it stands with a reactor, in words, for whoever looks for what keeps it.

use super::Reactor;

impl Reactor {
    /// One line of the reactor and one for each of its shards.
    pub fn picture(&self) -> Vec<String> {
        let turn = &self.turn;
        let has_router = turn.router.is_some();
        let control = turn.control.index;
        let mut lines = vec![format!(
            "r{}: {:?} settled {} control {control} router {has_router} {}",
            turn.id,
            *turn.epoch_state,
            *turn.settled,
            self.peers.picture()
        )];
        for local in self.shards.all() {
            let (shard, group) = (&local.shard, local.shard.group());
            lines.push(format!(
                "  shard {} {:?} term {} log {}..{} committed {} persisted {} covered {} held {} arrived {:?} \
                 fence {} seal {:?} [{}]",
                shard.id,
                group.role(),
                group.term(),
                group.log_begins_behind(),
                group.last_index(),
                group.committed(),
                group.persisted_index(),
                local.coverage.covered(),
                shard.log_view().held(),
                local.arrived.as_ref().map(|arrived| arrived.revision()),
                shard.log_view().fence(),
                shard.log_view().seal(),
                group.peers_in_words()
            ));
        }
        lines
    }
}
