"""How much of a model's own pace is kept with many runs at once: worker processes, a loopback model, no limits.

All runs are started first, and what that takes stands in a column of its own: `together`, from a queue that waits for
the workers, or `spread`, one after the other, as people start them. Then nothing begins and nothing ends for
some seconds, and what is done in these is counted. `pace` is the share of a turn's time, from one call of a run to its
next, that is the model's own. `fewest` and `most` are turns of single runs in that time, and `moved` the runs that
another worker took over. Last, one run of them all is cancelled while its model answers, and then the rest.
`python -m tests.bench.bare` measures what the same calls make without an engine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.engine import ENDLESS, Bench, cpu_s, loopback, surroundings, until, worker

TOGETHER, SPREAD = "together", "spread"
CASES = (
    (1, 16, 0.5, TOGETHER),
    (1, 16, 0.5, SPREAD),
    (1, 32, 0.5, TOGETHER),
    (1, 32, 0.5, SPREAD),
    (1, 64, 0.5, TOGETHER),
    (1, 64, 0.5, SPREAD),
    (1, 96, 0.5, TOGETHER),
    (1, 128, 0.5, TOGETHER),
    (1, 500, 0.5, TOGETHER),
    (1, 500, 5.0, TOGETHER),
    (2, 128, 0.5, TOGETHER),
    (2, 500, 0.5, TOGETHER),
    (2, 500, 5.0, TOGETHER),
)
LAUNCH_S = 0.025  # what starting a run costs: faster than that they would be together again


@dataclass(frozen=True, slots=True)
class Moment:
    at: float
    when: dt.datetime
    cpu_s: float
    turns: Counter[str]
    owners: dict[str, str]


class Pace(Bench):
    """One case: `runs` in `pids`, with a model that takes `model_s`."""

    def measure_pace(self, pids: list[int], runs: int, model_s: float, start: str, seconds: float) -> str:
        made = self.start_spread(runs, model_s) if start == SPREAD else self.start_together(pids, runs)
        began = time.perf_counter()
        until(lambda: self.all_answer(made), 120)
        started = time.perf_counter() - began
        time.sleep(model_s)
        first = self.moment(pids, made)
        time.sleep(seconds)
        last = self.moment(pids, made)
        one = self.cancel_one(made[runs // 2])
        cancelled = self.cancel(made)
        each = [last.turns[run] - first.turns[run] for run in made]
        took, turns = last.at - first.at, sum(each)
        rate, cpu = turns / took, last.cpu_s - first.cpu_s
        pace = model_s / self.seconds_a_turn(made, first.when, last.when)
        moved = sum(first.owners[run] != last.owners[run] for run in made)
        cells = [f"{len(pids):>8}{runs:>6}{model_s:>8.1f}{start:>10}{rate:>9.0f}{pace:>8.1%}"]
        cells += [f"{cpu * 1000 / turns:>8.2f}{cpu / took:>7.2f}{min(each):>8}{max(each):>6}{moved:>7}"]
        cells += [f"{started:>9.1f}{one:>9.2f}{cancelled:>9.1f}"]
        return "".join(cells)

    def warm_up(self, processes: int) -> None:
        """Until each has imported what it imports late, and has made calls."""
        from runs.models import WorkerHeartbeat

        until(lambda: WorkerHeartbeat.objects.count() >= processes, 60)
        made = [str(self.launch().id) for _ in range(4 * processes)]
        until(lambda: self.all_answer(made), 60)
        self.cancel(made)
        WorkerHeartbeat.objects.all().delete()

    def start_together(self, pids: list[int], runs: int) -> list[str]:
        """Queued while no worker takes them, so that launching, which is work of web processes, is not measured."""
        with stopped(pids):
            return [str(self.launch().id) for _ in range(runs)]

    def start_spread(self, runs: int, model_s: float) -> list[str]:
        """Over one time of the model, so that they have no common beat."""
        began, apart, made = time.perf_counter(), max(model_s / runs, LAUNCH_S), []
        for place in range(runs):
            time.sleep(max(0.0, began + place * apart - time.perf_counter()))
            made.append(str(self.launch().id))
        return made

    def all_answer(self, made: list[str]) -> bool:
        from runs.models import Run

        return Run.objects.filter(id__in=made, model_calls__gt=0).count() == len(made)

    def moment(self, pids: list[int], made: list[str]) -> Moment:
        from django.utils import timezone

        from runs.models import Run

        rows = list(Run.objects.filter(id__in=made).values_list("id", "model_calls", "lease_owner"))
        return Moment(
            at=time.perf_counter(),
            when=timezone.now(),
            cpu_s=sum(map(cpu_s, pids)),
            turns=Counter({str(run): calls for run, calls, _ in rows}),
            owners={str(run): owner for run, _, owner in rows},
        )

    def seconds_a_turn(self, made: list[str], begin: dt.datetime, end: dt.datetime) -> float:
        """From the first call that a run began in this time to its last one: whole turns only."""
        from django.db.models import Count, Max, Min

        from runs.models import Step

        calls = Step.objects.filter(run_id__in=made, kind="model", started_at__range=(begin, end)).values("run_id")
        rows = calls.annotate(number=Count("id"), first=Min("started_at"), last=Max("started_at"))
        spans = [(row["number"] - 1, (row["last"] - row["first"]).total_seconds()) for row in rows]
        return float(sum(span for _, span in spans) / sum(turns for turns, _ in spans))

    def cancel_one(self, run: str) -> float:
        from runs import commands
        from runs.models import Run

        began = time.perf_counter()
        commands.cancel(self.access, run)
        until(lambda: Run.objects.filter(id=run, ended_at__isnull=False).exists(), 60)
        return time.perf_counter() - began

    def cancel(self, made: list[str]) -> float:
        """All of them, in one statement: what people do one by one is not measured here."""
        from runs.models import Run

        began = time.perf_counter()
        Run.objects.filter(id__in=made, status="running").update(wish="cancel")
        until(lambda: not Run.objects.filter(id__in=made, ended_at__isnull=True).exists(), 120)
        return time.perf_counter() - began


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def main(argv: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--case", action="append", help="PROCESSES,RUNS,SECONDS OF THE MODEL,START: 1,64,0.5,spread")
    options.add_argument("--seconds", type=float, default=10.0, help="how long is counted (10)")
    given = options.parse_args(argv)
    cases = [case.split(",") for case in given.case or ()]
    wanted = [(int(processes), int(runs), float(model_s), start) for processes, runs, model_s, start in cases] or CASES
    with ExitStack() as stack:
        stack.enter_context(surroundings())
        bench = Pace()
        stack.callback(bench.close)
        print(f"{'workers':>8}{'runs':>6}{'model s':>8}{'start':>10}{'turns/s':>9}{'pace':>8}{'CPU ms':>8}", end="")
        print(f"{'cores':>7}{'fewest':>8}{'most':>6}{'moved':>7}{'start s':>9}{'cancel s':>9}{'all s':>9}")
        for processes, runs, model_s, start in wanted:
            with ExitStack() as case:
                url = case.enter_context(loopback(ENDLESS, model_s))
                concurrency = -(-runs // processes) + 4
                pids = [case.enter_context(worker(concurrency, url)) for _ in range(processes)]
                bench.warm_up(processes)
                print(bench.measure_pace(pids, runs, model_s, start, given.seconds), flush=True)


if __name__ == "__main__":
    main()
