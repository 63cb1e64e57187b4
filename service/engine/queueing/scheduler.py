"""Decides which job runs when and on which worker; which job is refused is its lane's business.

A worker that is given a batch is also given the next one, ahead of time, if no other worker is idle. If nothing was
queued then, it is given what comes later once it is about to be done: until then another worker may be done first, or
the job may be withdrawn.

Each model has a lane, and whose turn it is is told by `FairShares`. A batch has jobs of one model.

Dear jobs, which are likely to take far longer than others, wait in a queue of their own. While other jobs come, dear
jobs have half of the workers: never more, and no less where so many of them wait. A single worker gives others as much
time after a dear job as that took.

The class reads from top to bottom: what comes in, who runs it, and the rules.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from service.engine.errors import EngineError
from service.engine.objective import Objective
from service.engine.queueing.budget_limit import BudgetLimit
from service.engine.queueing.dear_share import DearShare
from service.engine.queueing.fair_shares import FairShares
from service.engine.queueing.lane import Lane
from service.engine.queueing.slot import Batch, Runner, Slot
from service.engine.runtimes.tuning import BatchPolicy

# How much work a worker is given ahead, in seconds, and one batch in any case. It is how late the event loop may be
# without a core having nothing to do; what a worker has, no other can run any sooner.
AHEAD_S = 0.004
_AHEAD = 0.1  # share of the objective
# How long after a job others are expected.
_LATELY_S = 10.0


class Scheduler:
    """It belongs to the event loop; other threads may only look.

    Args:
        clock: seconds that never go back.

    Attributes:
        unhurried: whether nobody waits for a single answer; then dear jobs may have all workers.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.unhurried = False
        self._lanes: dict[int, Lane] = {}
        self._shares = FairShares()
        self._dear_share = DearShare(clock)
        self._slots: list[Slot] = []
        self._idle: list[Slot] = []  # a stack: what the last one ran is still in the caches of its core
        self._unfilled: dict[Slot, None] = {}  # a set in order of busy slots that could take more; some are idle by now
        self._timer: asyncio.TimerHandle | None = None

    # What comes in.

    def open_lane(
        self,
        model: int,
        capacity: int,
        policy: BatchPolicy,
        longest_s: float = math.inf,
        on_overload: Callable[[bool], None] = lambda _: None,
        objective: Objective | None = None,
        weight: float = 1.0,
        limit: BudgetLimit | None = None,
    ) -> Lane:
        """A lane for the jobs of a model; the arguments are those of `Lane` and of `FairShares.open`."""
        objective = objective or Objective(math.inf)
        lane = Lane(model, self, capacity, policy, self._clock, longest_s, on_overload, objective, limit)
        self._lanes[model] = lane
        self._shares.open(model, weight)
        return lane

    def close_lane(self, lane: Lane) -> None:
        """Forget a lane in which nothing waits, and of which nothing runs."""
        del self._lanes[lane.model]
        self._shares.close(lane.model)

    def fail_all(self, error: EngineError) -> None:
        """Fail everything that waits with this error."""
        for lane in self._lanes.values():
            lane.fail_all(error)

    def __len__(self) -> int:
        """Jobs of all lanes that wait for a worker."""
        return sum(map(len, self._lanes.values()))

    # Who runs it.

    @property
    def workers(self) -> int:
        """How many are in service."""
        return sum([slot.in_service for slot in self._slots])

    @property
    def some_idle(self) -> bool:
        """Whether one has nothing to do."""
        return bool(self._idle)

    def ahead(self, model: int) -> int:
        """How many jobs of a model workers have been given that they have not begun."""
        jobs = 0
        for slot in self._slots:
            if len(slot.batches) > 1:  # which is asked with every job, and hardly ever so
                jobs += sum([len(batch) for batch in slot.ahead if batch[0].model == model])
        return jobs

    def runs(self, model: int) -> bool:
        """Whether a worker has a job of a model."""
        return any(batch[0].model == model for slot in self._slots for batch in slot.batches)

    def share(self, model: int) -> float:
        """The part of the workers' time that a model may count on now."""
        if len(self._lanes) == 1:
            return 1.0
        running = {batch[0].model for slot in self._slots for batch in slot.batches}
        return self._shares.share(model, [each for each, lane in self._lanes.items() if each in running or len(lane)])

    @property
    def longest_batch_s(self) -> float:
        """Seconds that the longest batch of any model takes."""
        return max([lane.job_s * lane.policy.max_batch for lane in self._lanes.values()])

    def add(self, runner: Runner) -> Slot:
        """Know a worker, which is not given anything yet."""
        slot = Slot(runner)
        self._slots.append(slot)
        return slot

    def take_in(self, slot: Slot) -> None:
        """Give batches to a worker that has nothing to do, from now on."""
        slot.in_service = True
        self._rest(slot)

    def set_aside(self, slot: Slot) -> bool:
        """Give a worker nothing for now, if it has nothing to do; say whether that is so."""
        if slot not in self._idle:
            return False
        self._idle.remove(slot)
        return True

    def retire(self, slot: Slot) -> None:
        """Give a worker nothing more; it runs what it has."""
        slot.leaving = True
        self.set_aside(slot)

    def forget(self, slot: Slot) -> None:
        """Forget a worker, which is given nothing more, if that has not been done."""
        self.retire(slot)
        if slot in self._slots:
            self._slots.remove(slot)
        self._unfilled.pop(slot, None)

    def go_on(self, slot: Slot) -> Batch:
        """Note that a worker is done with a batch, and have it go on; return the batch."""
        done, now = slot.batches.popleft(), self._clock()
        self._note_service_time(done, now - slot.begun_at)
        if done[0].dear:
            self._dear_share.end()
        slot.begun_at = now
        if slot.batches:
            self._fill(slot)
        else:
            self._rest(slot)
        return done

    def take_out(self, slot: Slot) -> Batch:
        """Give nothing to a worker that is lost; return the batch it ran.

        What it was given ahead is the next for whoever takes some.
        """
        slot.in_service = False
        self.set_aside(slot)
        if not slot.batches:
            return []
        lost = slot.batches.popleft()
        self._take_back_charge(lost)
        if lost[0].dear:
            self._dear_share.end()
        while slot.batches:
            self._put_back(slot.batches.pop())
        return lost

    def dispatch(self) -> None:
        """Give out what may run now; called whenever there is more of it, or of those who run it."""
        self._dispatch_dear()
        self._dispatch_to_idle()
        self._dispatch_ahead()

    def _dispatch_dear(self) -> None:
        while self._idle and (lanes := self._wanting(dear=True)) and self._dear_may_run():
            slot = self._idle.pop(0)  # the one that ran longest ago: the others are warm
            batch = next((batch for lane in lanes if (batch := lane.next_dear())), None)
            if batch is None:
                self._idle.insert(0, slot)
                return
            self._dear_share.begin()
            self._begin(slot, batch)

    def _dispatch_to_idle(self) -> None:
        while self._idle and (batch := self._next_batch()):
            self._begin(self._idle.pop(), batch)

    def _dispatch_ahead(self) -> None:
        for slot in [*self._unfilled]:
            if self._idle or not self._wanting():
                return
            if self._is_nearly_done(slot) and not self._has_enough(slot):
                self._unfilled.pop(slot, None)  # one that came meanwhile may have filled it
                self._fill(slot)

    def _begin(self, slot: Slot, batch: Batch) -> None:
        """Give a batch to a worker that has none, and what is to follow."""
        if self._give(slot, batch):
            slot.begun_at = self._clock()
            self._fill(slot)
        else:  # it died while it had nothing to do, for which its next batch need not pay
            if batch[0].dear:
                self._dear_share.end()
            self._lane(batch).put_back(batch)

    def _give(self, slot: Slot, batch: Batch) -> bool:
        if not slot.runner.give(batch):
            return False
        slot.batches.append(batch)
        self._shares.give(batch[0].model, self._likely_s(batch))
        return True

    def _fill(self, slot: Slot) -> None:
        """Give batches ahead to a worker that has something to do, unless an idle one could run them sooner."""
        while not self._has_enough(slot):
            # Of a worker that always has something ahead dear jobs would never have a turn.
            held = self._idle or (self._wanting(dear=True) and self._dear_may_run())
            batch = [] if held else self._next_batch(ahead=True)
            if not batch:
                self._unfilled[slot] = None
                return
            if not self._give(slot, batch):
                self._lane(batch).put_back(batch)
                return

    def _rest(self, slot: Slot) -> None:
        if slot.in_service and not slot.leaving:
            self._idle.append(slot)
            self.dispatch()

    def _next_batch(self, *, ahead: bool = False) -> Batch:
        """A batch of the lane whose turn it is; empty where nothing waits that is worth running now.

        Args:
            ahead: whether it would not be begun at once, so that there is time for company to come.
        """
        for lane in self._wanting():
            if ahead and lane.policy.max_wait_ms:
                continue
            if not ahead and (wait_s := lane.company_wait_s):
                self._come_back(wait_s)
            elif batch := lane.next_batch():
                return batch
        return []

    def _put_back(self, batch: Batch) -> None:
        self._take_back_charge(batch)
        self._lane(batch).put_back(batch)

    def _take_back_charge(self, batch: Batch) -> None:
        self._shares.correct(batch[0].model, -self._likely_s(batch))

    def _note_service_time(self, batch: Batch, seconds: float) -> None:
        self._shares.correct(batch[0].model, seconds - self._likely_s(batch))
        self._lane(batch).note_service_time(batch, seconds)

    def _come_back(self, wait_s: float) -> None:
        """Dispatch again after so many seconds, unless that is to be done sooner."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + wait_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(wait_s, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self.dispatch()

    # The rules.

    def _lane(self, batch: Batch) -> Lane:
        return self._lanes[batch[0].model]

    def _wanting(self, *, dear: bool = False) -> list[Lane]:
        """The lanes in which jobs wait, whose turn it is first."""
        waiting = [lane for lane in self._lanes.values() if (lane.dear_queue if dear else lane.queue)]
        if len(waiting) < 2:
            return waiting
        return [self._lanes[model] for model in self._shares.in_turn([lane.model for lane in waiting])]

    def _likely_s(self, batch: Batch) -> float:
        """How long a worker is likely to take for a batch."""
        lane = self._lane(batch)
        return (lane.dear_queue if batch[0].dear else lane.queue).service_time.mean_s * len(batch)

    def _is_nearly_done(self, slot: Slot) -> bool:
        """Whether a worker is about to be done with what it runs. One that is long overdue, and may hang, is not."""
        if not slot.batches or not (likely_s := self._lane(slot.batches[0]).job_s * len(slot.batches[0])):
            return False  # or nobody knows
        return abs(slot.begun_at + likely_s - self._clock()) <= self._ahead_s

    def _has_enough(self, slot: Slot) -> bool:
        """Whether a worker should be given nothing ahead, or no more.

        Behind a dear job nothing should wait that others could run. Under overload one batch ahead is enough, lest
        answers be late.
        """
        if slot.leaving or (slot.batches and slot.batches[0][0].dear):
            return True
        if len(slot.batches) == 1:
            return False
        if any(lane.overloaded for lane in self._lanes.values()):
            return True
        # As long as nobody knows how long a job takes, one is enough.
        return sum([(self._lane(batch).job_s or AHEAD_S) * len(batch) for batch in slot.ahead]) >= self._ahead_s

    @property
    def _ahead_s(self) -> float:
        """How much a worker is given ahead, besides one batch: what it was given cannot have less compute any more."""
        return min([AHEAD_S, *[_AHEAD * lane.objective_s for lane in self._lanes.values()]])

    def _dear_may_run(self) -> bool:
        if self.unhurried:
            return True
        lanes = self._lanes.values()
        if all(lane.closed and not lane.queue for lane in lanes):
            return True  # nobody else comes
        if all(self._clock() - lane.came_at >= _LATELY_S for lane in lanes):
            return True
        workers = self.workers
        if wait_s := self._dear_share.wait_s(workers):
            self._come_back(wait_s)
        return not self._dear_share.is_used_up(workers)
