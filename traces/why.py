"""Why these? What the found runs have more often, or less often, than the team's other runs of the same time."""

from __future__ import annotations

import math
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from django.db.models import QuerySet

from accounts.access import Access, rows
from runs.models import Action, Run, SearchDocument
from traces import by_steps, matching
from traces.editing import joined, written
from traces.scope import Scope
from traces.tree import Query

MOST_RUNS = 500
MOST_SHOWN = 12
MOST_OF_A_KIND = 3
FEWEST = 3
SURE = 2.0
"""Standard errors by which two shares must differ. Chance reaches that one time in twenty."""

TITLES = {
    "prompt": "Agent and version",
    "type": "Task type",
    "user": "Started by",
    "mode": "Mode",
    "status": "Status",
    "stop": "Stop reason",
    "tool": "Tool",
    "model": "Model",
    "first_failing": "First failing tool",
    "follows": "One tool after another",
    "steps": "Steps",
    "approval": "Approval",
    "tag": "Tag",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`found` and `rest` are shares of runs, from 0 to 1. `query` narrows the search to it; "" where nothing does."""

    title: str
    value: str
    found: float
    rest: float
    query: str

    @property
    def more(self) -> bool:
        return self.found > self.rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """`found` and `rest` are how many runs were compared: the newest of each."""

    found: int
    rest: int
    reasons: tuple[Reason, ...]


def why(access: Access, query: Query, scope: Scope) -> Why:
    """Newest runs that the query finds against the newest it does not, back to the oldest of those found."""
    runs = rows(access, Run)
    found = list(_newest(matching.matching(runs, query.node, scope)))
    if not found:
        return Why(found=0, rest=0, reasons=())
    ids = {run.id for run in found}
    oldest = found[-1].created_at
    # All that match among the newest are found, back to the oldest of them: the others there do not match.
    others = _newest(runs.filter(created_at__gte=oldest), len(found) + MOST_RUNS)
    rest = [run for run in others if run.id not in ids][:MOST_RUNS]
    tallies = [_tally(side) for side in (found, rest)]
    return Why(found=len(found), rest=len(rest), reasons=tuple(_reasons(query, tallies, len(found), len(rest))))


def _newest(runs: QuerySet[Run], most: int = MOST_RUNS) -> QuerySet[Run]:
    return runs.select_related("agent", "agent_version", "owner").order_by("-created_at", "-id")[:most]


Trait = tuple[str, str, str]
"""(dimension, what people read, what is written into a query)."""


def _tally(runs: list[Run]) -> Counter[Trait]:
    """How many runs have each trait."""
    traits: dict[uuid.UUID, set[Trait]] = {run.id: set(_of_run(run)) for run in runs}
    documents = (
        SearchDocument.objects.filter(by_steps.of_these(traits), seq__gt=0)
        .order_by("run_id", "seq")
        .values_list("run_id", "tool", "model", "status")
    )
    steps: dict[uuid.UUID, list[tuple[str, str, str]]] = defaultdict(list)
    for run_id, *step in documents:
        steps[run_id].append((step[0], step[1], step[2]))
    for run_id, taken in steps.items():
        traits[run_id].update(_of_steps(taken))
    asked = Action.objects.filter(run__in=list(traits), batch__isnull=False)
    for run_id, status in asked.values_list("run_id", "status"):
        if status in ("rejected", "expired"):
            traits[run_id].add(("approval", status, f"approval:{status}"))
    return Counter(trait for found in traits.values() for trait in found)


def _of_run(run: Run) -> Iterator[Trait]:
    version = f"{run.agent.slug}@{run.agent_version.number}"
    yield "prompt", version, f"prompt:{version}"
    yield "user", run.owner.label, f"user:{run.owner.username}"
    yield "mode", run.mode, f"mode:{run.mode}"
    yield "status", run.status, f"status:{run.status}"
    if run.task_type:
        yield "type", run.task_type, written("type", run.task_type)
    if run.stop_reason and run.stop_reason != "done":
        yield "stop", run.stop_reason, f"stop:{run.stop_reason}"
    if run.last_seq:
        low = 2 ** int(math.log2(run.last_seq))
        yield "steps", f"{low} to {low * 2 - 1}", f"steps:{low}..{low * 2 - 1}"
    tags = run.metadata.get("tags") or run.metadata.get("tag") or []
    for tag in [tags] if isinstance(tags, str) else tags:
        yield "tag", str(tag), written("tag", str(tag))


def _of_steps(steps: list[tuple[str, str, str]]) -> Iterator[Trait]:
    tools = [tool for tool, _, _ in steps if tool]
    for tool in set(tools):
        yield "tool", tool, written("tool", tool)
    for model in {model for _, model, _ in steps if model}:
        yield "model", model, written("model", model)
    for before, after in set(pairwise(tools)):
        if before != after:
            yield "follows", f"{before}, then {after}", _one_after(before, after)
    failing = next((tool for tool, _, status in steps if tool and status in ("error", "timeout", "denied")), None)
    if failing:
        yield "first_failing", failing, f"step:{{{written('tool', failing)} status:failed}}"


def _one_after(before: str, after: str) -> str:
    return f"step:{{{written('tool', before)}}} -> step:{{{written('tool', after)}}}"


def _reasons(query: Query, tallies: list[Counter[Trait]], found: int, rest: int) -> Iterable[Reason]:
    """The surest differences first. What the query itself asks for says nothing and is left out."""
    if not rest:
        return []
    asked = {term.field.name for term in query.terms}
    weighed: list[tuple[float, Trait]] = []
    for trait in {*tallies[0], *tallies[1]}:
        here, there = tallies[0][trait], tallies[1][trait]
        if trait[0] in asked or max(here, there) < FEWEST:
            continue
        both = (here + there) / (found + rest)
        error = math.sqrt(both * (1 - both) * (1 / found + 1 / rest))
        certainty = abs(here / found - there / rest) / error if error else 0.0
        if certainty >= SURE:
            weighed.append((certainty, trait))
    weighed.sort(key=lambda pair: (-pair[0], pair[1]))
    return [
        Reason(
            title=TITLES[trait[0]],
            value=trait[1],
            found=tallies[0][trait] / found,
            rest=tallies[1][trait] / rest,
            query=joined(query, trait[2]) if tallies[0][trait] / found > tallies[1][trait] / rest else "",
        )
        for trait in _varied(trait for _, trait in weighed)
    ]


def _varied(traits: Iterable[Trait]) -> list[Trait]:
    """The first of them, not too many of one dimension."""
    seen: Counter[str] = Counter()
    found: list[Trait] = []
    for trait in traits:
        seen[trait[0]] += 1
        if seen[trait[0]] <= MOST_OF_A_KIND and len(found) < MOST_SHOWN:
            found.append(trait)
    return found
