"""Ninety days of work of one team: 70,000 runs with a million steps and their payloads, or a share of that."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.ids import new_id
from accounts.models import Membership, Team, User
from accounts.schemas import Role
from runs import documents
from runs.models import Agent, AgentVersion, Run, SearchDocument, Step, StepPayload
from tests.bench.load import Table, without_index_of_words
from tests.bench.text import RARE, Texts

DAYS = 90
STEPS_PER_RUN = 14.3
LONG_RUNS = 3
LONG = 2_000
AT_ONCE = 4_000

AGENTS = {
    "refund-desk": ("refund-late", "refund-damaged", "refund-lost"),
    "supplier-research": ("supplier", "price-check"),
    "nightly-cleanup": ("cleanup",),
}
TOOLS = ["carrier.track", *(f"shop.{name}" for name in ("get_order", "read_ticket", "issue_refund", "send_email"))]
TOOLS += [f"crm.{name}" for name in ("find_customer", "update_customer", "add_note")] + ["web.search", "web.fetch"]
MODELS = {"claude-sonnet-5-5": Decimal("0.0000020"), "claude-haiku-5-5": Decimal("0.0000005")}
PEOPLE = ("dana", "marco", "ana", "noor", "otto")


@dataclass
class Journals:
    """What the benchmark asks about."""

    order: str = ""
    mail: str = ""
    short: Any = None
    long: Any = None
    runs: int = 0
    steps: int = 0
    team: Any = None
    people: list[User] = field(default_factory=list)


def make(steps: int, seed: int = 7) -> Journals:
    """Fills an empty, migrated database."""
    maker = _Maker(random.Random(seed), steps)
    with without_index_of_words():
        for batch in maker.batches():
            with transaction.atomic():
                for table in batch:
                    table.flush()
    return maker.made


class _Maker:
    def __init__(self, random_: random.Random, steps: int) -> None:
        self.random = random_
        self.steps = steps
        self.texts = Texts(random_)
        self.made = Journals()
        self.tables = {model: Table(model) for model in (Run, Step, StepPayload, SearchDocument)}
        self.rare = {int(steps * share) for share in (0.11, 0.37, 0.61, 0.83)}
        self._people()

    def _people(self) -> None:
        self.made.team = Team.objects.create(slug="bench", name="Bench")
        for name in PEOPLE:
            person = User.objects.create_user(name, f"{name}@harborpine.example", first_name=name.title())
            Membership.objects.create(team=self.made.team, user=person, role=Role.ADMIN)
            self.made.people.append(person)
        self.versions: dict[str, AgentVersion] = {}
        for slug in AGENTS:
            agent = Agent.objects.create(team=self.made.team, slug=slug)
            definition = {"name": slug.replace("-", " ").capitalize()}
            self.versions[slug] = AgentVersion.objects.create(agent=agent, number=1, definition=definition)
            agent.current = self.versions[slug]
            agent.save()

    def batches(self) -> Iterator[list[Table]]:
        runs = int(self.steps / STEPS_PER_RUN)
        now = timezone.now()
        first = now - dt.timedelta(days=DAYS)
        for number in range(1, runs + 1):
            begun = first + (now - first) * (number / (runs + 1))
            self._run(number, begun, self._length(number, runs))
            if len(self.tables[Step].rows) >= AT_ONCE:
                yield list(self.tables.values())
        self.made.runs = runs
        yield list(self.tables.values())

    def _length(self, number: int, runs: int) -> int:
        if number in {runs * place // (LONG_RUNS + 1) for place in range(1, LONG_RUNS + 1)}:
            return LONG
        if number == runs - 1:
            return 20
        return max(3, int(self.random.gauss(STEPS_PER_RUN, 5)))

    def _run(self, number: int, begun: dt.datetime, length: int) -> None:
        random_ = self.random
        slug = random_.choices(list(AGENTS), (6, 3, 1))[0]
        order = f"ORD-{100_000 + number}"
        mail = f"customer{number}@harborpine.example"
        ended = random_.choices(("completed", "stopped", "failed", "cancelled"), (80, 10, 7, 3))[0]
        reason = {"completed": "done", "stopped": "max_cost", "failed": "tool_error", "cancelled": "cancelled"}[ended]
        run_id = new_id()
        run = SimpleNamespace(
            id=run_id, team_id=self.made.team.id, created_at=begun, metadata={}, task=f"Look after order {order}"
        )
        totals = {"cost_usd": Decimal(0), "input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 0}
        at = begun
        for seq in range(1, length + 1):
            at = self._step(run, seq, at, length, (order, mail), totals)
        if length == LONG and self.made.long is None:
            self.made.long = run_id
        if length == 20:
            self.made.short, self.made.order, self.made.mail = run_id, order, mail
        self._document(documents.run_document(run))  # type: ignore[arg-type]
        self.tables[Run].add(
            id=run_id,
            team_id=self.made.team.id,
            number=number,
            agent_id=self.versions[slug].agent_id,
            agent_version_id=self.versions[slug].id,
            owner_id=random_.choice(self.made.people).id,
            task=run.task,
            task_type=random_.choice(AGENTS[slug]),
            mode="batch",
            status=ended,
            stop_reason=reason,
            result="Done." if ended == "completed" else "",
            last_seq=length,
            work_steps=length,
            created_at=begun,
            started_at=begun,
            ended_at=at,
            max_cost_usd=Decimal("1.50"),
            **totals,
        )

    def _step(
        self, run: Any, seq: int, at: dt.datetime, length: int, known: tuple[str, str], totals: dict[str, Any]
    ) -> dt.datetime:
        random_ = self.random
        self.made.steps += 1
        is_model = seq % 2 == 1
        text = self.texts.text(self.texts.size())
        if self.made.steps in self.rare:
            text = f"{RARE} {text}"
        took = random_.randint(300, 9_000)
        step_id = new_id()
        usage: dict[str, Any] = {"cost_usd": Decimal(0)}
        if is_model:
            model = random_.choice(list(MODELS))
            usage = {
                "model": model,
                "input_tokens": random_.randint(200, 4_000),
                "cache_read_tokens": random_.randint(0, 30_000),
                "output_tokens": random_.randint(50, 1_500),
                "price_id": f"genai-prices/anthropic/{model}",
            }
            usage["cost_usd"] = MODELS[model] * (usage["input_tokens"] + 5 * usage["output_tokens"])
            payload = {
                "output": {"content": [{"type": "text", "text": text[: len(text) // 2]}], "stop_reason": "tool_use"},
                "reasoning": text[len(text) // 2 :],
            }
        else:
            asked = {"order": known[0], "mail": known[1]} if seq == 2 else {"page": seq}
            payload = {"input": asked, "output": {"status": "ok", "note": text}}
        for name in totals:
            totals[name] += usage.get(name, 0)
        failed = random_.random() < 0.02
        values = {
            "seq": seq,
            "kind": "model" if is_model else "tool",
            "status": "timeout" if failed else "ok",
            "tool": "" if is_model else random_.choices(TOOLS, (9, 8, 7, 6, 5, 4, 3, 2, 2, 1))[0],
            "score": round(random_.random(), 2) if is_model and seq == length else None,
            "started_at": at,
        }
        title = values["tool"] or "Decide"
        self.tables[Step].add(
            id=step_id, run_id=run.id, key=f"{values['kind']}:{seq}", title=title, duration_ms=took, **values, **usage
        )
        full = {"input": None, "output": None, "reasoning": "", "error": "Timed out" if failed else "", **payload}
        self.tables[StepPayload].add(step_id=step_id, **full)
        row = SimpleNamespace(id=step_id, title=title, summary="", model=usage.get("model", ""), **values)
        self._document(documents.step_document(run, row, SimpleNamespace(**full)))  # type: ignore[arg-type]
        return at + dt.timedelta(milliseconds=took)

    def _document(self, document: SearchDocument) -> None:
        values = {name: getattr(document, name) for name in self.tables[SearchDocument].place}
        self.tables[SearchDocument].add(**values)
