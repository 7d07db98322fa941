"""What may start when: the endpoint is asked once all documents are read, the index comes once."""

from types import SimpleNamespace

from rare_assets.command.order import Schedule, Task
from rare_assets.command.plan import Stale
from rare_assets.stages.order import AFTER_DOCUMENTS

INDEX = Task("corpus_index_job", ("corpus_index",), None)


def documents(shard):
    return Task("documents_job", ("documents",), shard)


def asking(shard, *stages):
    return Task("rare_job", stages or AFTER_DOCUMENTS, shard)


class World:
    """Stands for the planner: which tables of a shard are current, and whether the index is."""

    def __init__(self, shards, current=(), indexed=False):
        self.shards = [SimpleNamespace(key=key) for key in shards]
        self.current = set(current)
        self.indexed = indexed
        self.told = []

    def documents(self, shard):
        return self._stale(shard.key, "documents")

    def questions(self, shard):
        return self._stale(shard, "questions")

    def after_questions(self, shard, index):
        stages = AFTER_DOCUMENTS[1:]
        return [found for stage in stages if (found := self._stale(shard, stage))]

    def asked(self, shard, index):
        return [found for stage in AFTER_DOCUMENTS if (found := self._stale(shard, stage))]

    def index(self, registered):
        return None if self.indexed else "missing"

    def index_state(self):
        return "state" if self.indexed else None

    def _stale(self, shard, stage):
        return None if (shard, stage) in self.current else Stale(stage, "missing")

    def schedule(self, asked=None, asking_at_once=2, ahead=0, at_once=2, under_way=()):
        keys = [shard.key for shard in self.shards]
        return Schedule(
            self,
            self.shards,
            keys,
            keys if asked is None else asked,
            asking_at_once=asking_at_once,
            ahead=ahead,
            at_once=at_once,
            under_way=under_way,
            decided=lambda *said: self.told.append(said),
        )

    def finish(self, schedule, running, task, **how):
        """Let a task end well unless `how` says otherwise."""
        running.remove(task)
        if not how.get("failed"):
            self.current |= {(task.shard, asset) for asset in task.assets}
            self.indexed |= task == INDEX
        schedule.finished(task, **{"failed": False, **how})

    def start(self, schedule, running):
        """What starts now, beside what runs."""
        started = []
        while (task := schedule.next(running)) is not None:
            running.append(task)
            started.append(task)
        return started


def test_nothing_is_asked_before_all_is_read_and_shards_are_asked_about_while_the_index_is_made():
    world = World("abc")
    schedule, running = world.schedule(), []
    assert world.start(schedule, running) == [documents("a"), documents("b")]
    world.finish(schedule, running, documents("a"))
    assert world.start(schedule, running) == [documents("c")]
    world.finish(schedule, running, documents("b"))
    assert world.start(schedule, running) == []
    world.finish(schedule, running, documents("c"))
    assert world.start(schedule, running) == [
        asking("a", "questions"),
        asking("b", "questions"),
        INDEX,
    ]
    world.finish(schedule, running, asking("a", "questions"))
    assert world.start(schedule, running) == [asking("c", "questions")]
    world.finish(schedule, running, INDEX)
    assert world.start(schedule, running) == []  # both places are taken
    world.finish(schedule, running, asking("b", "questions"))
    assert world.start(schedule, running) == [asking("a", "hard_negatives", "reasoning")]
    world.finish(schedule, running, asking("c", "questions"))
    assert world.start(schedule, running) == [asking("b", "hard_negatives", "reasoning")]
    for shard in "ab":
        world.finish(schedule, running, asking(shard, "hard_negatives", "reasoning"))
    assert world.start(schedule, running) == [asking("c", "hard_negatives", "reasoning")]


def test_where_the_index_is_current_a_shard_is_one_run():
    world = World("ab", current=[("a", "documents"), ("b", "documents")], indexed=True)
    schedule, running = world.schedule(asking_at_once=1), []
    assert world.start(schedule, running) == [asking("a")]
    world.finish(schedule, running, asking("a"))
    assert world.start(schedule, running) == [asking("b")]


def test_where_the_pool_holds_them_back_runs_start_ahead_of_their_place():
    current = [(shard, "documents") for shard in "abcde"]
    world = World("abcde", current=current, indexed=True)
    schedule, running = world.schedule(asking_at_once=2, ahead=1), []
    assert world.start(schedule, running) == [asking("a"), asking("b"), asking("c")]
    world.finish(schedule, running, asking("b"))
    assert world.start(schedule, running) == [asking("d")]


def test_runs_ahead_leave_the_index_its_place():
    world = World("abc", current=[(shard, "documents") for shard in "abc"])
    schedule, running = world.schedule(asking_at_once=1, ahead=1, at_once=1), []
    started = world.start(schedule, running)
    assert started == [asking("a", "questions"), asking("b", "questions"), INDEX]


def test_nothing_starts_where_all_is_current():
    stages = ("documents", *AFTER_DOCUMENTS)
    world = World("ab", [(shard, stage) for shard in "ab" for stage in stages], indexed=True)
    assert world.start(world.schedule(), []) == []
    assert {shard for shard, _, stale in world.told if not stale} == {"a", "b"}


def test_only_what_is_asked_for_is_asked_about_but_all_is_read_and_indexed():
    world = World("ab")
    schedule, running = world.schedule(asked=["b"]), []
    done = []
    while world.start(schedule, running) or running:
        done.append(running[0])
        world.finish(schedule, running, running[0])
    assert sorted(done[:2]) == [documents("a"), documents("b")]
    assert {task.shard for task in done if task.job == "rare_job"} == {"b"}
    assert INDEX in done


def test_a_failed_shard_stops_no_other():
    world = World("ab")
    schedule, running = world.schedule(), []
    world.start(schedule, running)
    world.finish(schedule, running, documents("a"), failed=True)
    world.finish(schedule, running, documents("b"))
    assert world.start(schedule, running) == [asking("b", "questions"), INDEX]


def test_a_failed_index_ends_the_asking():
    world = World("ab")
    schedule, running = world.schedule(asking_at_once=1), []
    world.start(schedule, running)
    for shard in "ab":
        world.finish(schedule, running, documents(shard))
    assert world.start(schedule, running) == [asking("a", "questions"), INDEX]
    world.finish(schedule, running, INDEX, failed=True)
    world.finish(schedule, running, asking("a", "questions"))
    assert world.start(schedule, running) == list(running)
    assert running == []


def test_documents_that_others_would_meet_alike_start_no_more_of_them():
    world = World("abc")
    schedule, running = world.schedule(), []
    world.start(schedule, running)
    world.finish(schedule, running, documents("a"))
    world.finish(schedule, running, documents("b"), failed=True, stops_others=True)
    assert world.start(schedule, running) == []


def test_where_the_teacher_has_stopped_what_is_free_goes_on():
    world = World("abc")
    schedule, running = world.schedule(at_once=3), []
    world.start(schedule, running)
    for shard in "abc":
        world.finish(schedule, running, documents(shard))
    assert world.start(schedule, running) == [
        asking("a", "questions"),
        asking("b", "questions"),
        INDEX,
    ]
    world.finish(schedule, running, asking("a", "questions"), failed=True, stops_others=True)
    assert world.start(schedule, running) == []
    world.finish(schedule, running, INDEX)
    assert world.start(schedule, running) == []


def test_what_another_command_has_started_is_not_started_twice_and_its_shards_are_looked_at_again():
    world = World("ab", current=[("b", "documents")])
    running = [documents("a"), asking("b", "questions")]
    schedule = world.schedule(asking_at_once=4, at_once=4, under_way=running)
    assert world.start(schedule, running) == []
    world.finish(schedule, running, documents("a"))
    assert world.start(schedule, running) == [asking("a", "questions"), INDEX]
    world.finish(schedule, running, INDEX)
    assert world.start(schedule, running) == []
    world.finish(schedule, running, asking("b", "questions"))
    assert world.start(schedule, running) == [asking("b", "hard_negatives", "reasoning")]


def test_documents_and_an_older_asking_run_of_one_shard_are_both_waited_for():
    world = World("a", indexed=True)
    running = [asking("a")]
    schedule = world.schedule(asking_at_once=4, at_once=4, under_way=running)
    assert world.start(schedule, running) == [documents("a")]
    world.finish(schedule, running, documents("a"))
    assert asking("a") in running
    assert world.start(schedule, running) == []
    running.remove(asking("a"))
    schedule.finished(asking("a"), failed=False)
    assert world.start(schedule, running) == [asking("a")]


def test_an_index_that_another_command_syncs_is_looked_at_again_when_it_is_made():
    world = World("a")
    running = [INDEX]
    schedule = world.schedule(under_way=running)
    assert world.start(schedule, running) == [documents("a")]
    running.remove(INDEX)
    schedule.finished(INDEX, failed=False)
    world.finish(schedule, running, documents("a"))
    assert world.start(schedule, running) == [asking("a", "questions"), INDEX]


def test_an_index_of_another_command_that_holds_all_is_taken():
    world = World("a", current=[("a", "documents")])
    running = [INDEX]
    schedule = world.schedule(under_way=running)
    assert world.start(schedule, running) == [asking("a", "questions")]
    world.finish(schedule, running, INDEX)
    world.finish(schedule, running, asking("a", "questions"))
    assert world.start(schedule, running) == [asking("a", "hard_negatives", "reasoning")]
