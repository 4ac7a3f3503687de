"""For random runs the report is the rollup, is the sum of the steps, is what the provider billed: to the last digit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.access import Access
from runs import lifecycle, pricing, rates, stale
from runs.engine.types import Mode, Usage
from runs.forks import Fork, fork
from runs.models import PriceOverride, Run, StaleHour, Step
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from runs.samples.simulated.server import FakeMessagesServer
from tests.flows.conftest import Model
from tests.flows.shop import LocalShop
from tests.running import READ, REFUND, add_agent, advance, decide_all, launch, tool, uses
from traces import costs, rollup
from traces.models import Rollup
from traces.models import Usage as UsageRow

DAY = dt.timedelta(days=1)
MODELS = ("claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5-5")


def with_sum(said: dict[str, Any]) -> dict[str, Any]:
    """The provider gives the two kinds of cache writes, and their sum."""
    return {**said, "cache_creation_input_tokens": sum(said["cache_creation"].values())}


tokens = st.integers(0, 60_000)
any_usage = st.fixed_dictionaries(
    {
        "input_tokens": st.integers(1, 40_000),
        "output_tokens": st.integers(1, 4_000),
        "cache_read_input_tokens": tokens,
        "cache_creation": st.fixed_dictionaries(
            {"ephemeral_5m_input_tokens": tokens, "ephemeral_1h_input_tokens": tokens}
        ),
        "service_tier": st.sampled_from(["standard", "batch"]),
        "inference_geo": st.sampled_from(["global", "us"]),
    }
).map(with_sum)


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens in one run: its turns, which call is refused first, and whether it asks or delegates."""

    model: str
    usages: tuple[dict[str, Any], ...]
    refused: int
    asks: bool
    delegates: bool
    forks: bool
    late_hours: int


plans = st.builds(
    Plan,
    model=st.sampled_from(MODELS),
    usages=st.lists(any_usage, min_size=2, max_size=4).map(tuple),
    refused=st.integers(0, 6),
    asks=st.booleans(),
    delegates=st.booleans(),
    forks=st.booleans(),
    late_hours=st.integers(0, 200),
)


class Provider:
    """Answers each run by its plan, and refuses some calls once."""

    def __init__(self, made: list[Plan]) -> None:
        self.plans = made
        self.seen: set[str] = set()

    def __call__(self, body: JsonObject) -> Reply:
        task = str(body["messages"][0]["content"][0]["text"])
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        if not task.startswith("Run "):
            return Reply(text="My part is done.", usage=self.plans[0].usages[0])
        plan = self.plans[int(task.split()[1].rstrip("."))]
        mark = f"{task}{turn}"
        if turn == plan.refused and mark not in self.seen:
            self.seen.add(mark)
            return Reply.error(529, retry_after=0)
        usage = plan.usages[min(turn, len(plan.usages) - 1)]
        if turn == 0 and plan.delegates:
            asked = {"agent": "clerk", "task": "Part one.", "reasoning": "it is theirs", "confidence": 0.9}
            return Reply(tools=[ToolCall(name="delegate", input=asked)], usage=usage)
        if turn < len(plan.usages) - 1:
            wanted = REFUND if plan.asks and turn == 1 else READ
            args: dict[str, Any] = {"amount": 1.0, "reason": "late"} if wanted == REFUND else {}
            return Reply(tools=uses(tool(wanted, order="48213", **args)).tools, usage=usage)
        return Reply(text="Done.", usage=usage)


@pytest.fixture
def priced(model: Model) -> Iterator[FakeMessagesServer]:
    """The loopback provider as a real one: its calls have a price."""
    model.server.echo_model = True
    with override_settings(
        SIMULATED=False, ANTHROPIC_BASE_URL=f"http://127.0.0.1:{model.server.port}", ANTHROPIC_API_KEY="k"
    ):
        yield model.server


def billed(server: FakeMessagesServer, since: int, overrides: tuple[pricing.Override, ...] = ()) -> tuple[Decimal, int]:
    """(dollars, tokens) of every request from a number on that was answered, from the provider's own numbers."""
    usd, count = Decimal(0), 0
    for call in server.calls[since:]:
        said = call.usage
        if said is None:
            continue
        written = said["cache_creation"]
        terms = [
            "batch" if said["service_tier"] == "batch" else "",
            "geo=us" if said["inference_geo"] == "us" else "",
        ]
        usage = Usage(
            input_tokens=said["input_tokens"],
            output_tokens=said["output_tokens"],
            cache_read_tokens=said["cache_read_input_tokens"],
            cache_write_5m_tokens=written["ephemeral_5m_input_tokens"],
            cache_write_1h_tokens=written["ephemeral_1h_input_tokens"],
            terms=";".join(filter(None, terms)),
        )
        one = pricing.price(call.body["model"], usage, simulated=False, at=timezone.now(), overrides=overrides).usd
        assert one is not None
        usd += one
        count += usage.prompt_tokens + usage.output_tokens
    return usd, count


def assert_all_alike(access: Access, usd: Decimal, count: int) -> None:
    start, end = timezone.now() - 30 * DAY, timezone.now() + DAY
    assert sum(Run.objects.values_list("cost_usd", flat=True), Decimal(0)) == usd
    assert sum((cost or Decimal(0) for cost in Step.objects.values_list("cost_usd", flat=True)), Decimal(0)) == usd
    for by in (*costs.BY, "task_type,day", "model,week"):
        made = costs.report(access, by=by, start=start, end=end)
        assert made.total.cost == sum((row.cost or Decimal(0) for row in made.rows), Decimal(0)) == usd, by
        assert made.total.tokens == sum(row.tokens for row in made.rows) == count, by
    kept = UsageRow.objects.filter(grain=UsageRow.HOUR, by="").values_list("cost", flat=True)
    live = costs.report(access, by="day", start=start, end=end).source
    if not live.stale_hours and not Step.objects.filter(started_at__gte=live.rolled_to or start).exists():
        assert sum(kept) == int(usd.scaleb(9))


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(made=st.lists(plans, min_size=1, max_size=4), factor=st.sampled_from(["0.85", "1.1", "0.333333"]))
def test_report_rollup_steps_and_bill_are_one_sum(
    crew: Access, shop: LocalShop, priced: FakeMessagesServer, made: list[Plan], factor: str
) -> None:
    for table in (Run, StaleHour, UsageRow, Rollup, PriceOverride):
        table.objects.all().delete()
    begun = len(priced.calls)
    priced.respond = Provider(made)
    add_agent(crew.team, "clerk", name="Clerk", tools=[])
    for index, plan in enumerate(made):
        add_agent(crew.team, f"desk-{index}", name="Desk", subagents=["clerk"], model=plan.model)
        run = launch(crew, Mode.BATCH, f"Run {index}.", agent=f"desk-{index}", task_type=f"type-{index % 2}")
        finish(run, crew)
        if plan.forks:
            last = run.steps.filter(kind="model", status="ok").order_by("-seq").values_list("seq", flat=True)[0]
            finish(fork(crew, run.id, Fork(from_seq=last)), crew)
    usd, count = billed(priced, begun)
    assert usd > 0
    assert_all_alike(crew, usd, count)

    # Moved into the past at different hours, summed up, and then some are late.
    for index, plan in enumerate(made):
        late = dt.timedelta(hours=3 + plan.late_hours)
        for run in Run.objects.filter(agent__slug=f"desk-{index}"):
            Run.objects.filter(id=run.id).update(created_at=run.created_at - late)
            for step in run.steps.all():
                Step.objects.filter(id=step.id).update(started_at=step.started_at - late)
    rollup.roll(crew.team.id)
    assert_all_alike(crew, usd, count)
    assert rollup.differing(crew.team.id) == []
    step = Step.objects.exclude(model="").earliest("started_at")
    Step.objects.filter(id=step.id).update(started_at=step.started_at + dt.timedelta(hours=1))
    stale.mark(crew.team.id, step.started_at, step.started_at + dt.timedelta(hours=1))
    assert_all_alike(crew, usd, count)
    rollup.roll(crew.team.id)
    assert_all_alike(crew, usd, count)

    # Priced again, as the provider would bill it under the new terms.
    rates.add(
        crew.team, crew.user, {"model": "*", "starts_on": (timezone.now() - 60 * DAY).date(), "factor": Decimal(factor)}
    )
    rates.reprice(crew.team)
    again, _ = billed(priced, begun, rates.of_team(crew.team.id))
    assert again != usd
    assert_all_alike(crew, again, count)
    rollup.roll(crew.team.id)
    assert_all_alike(crew, again, count)


def finish(run: Run, crew: Access) -> None:
    """What workers and an approver do until the run and its sub-agents have ended."""
    for _ in range(20):
        run = advance(run)
        for child in Run.objects.filter(parent=run, ended_at__isnull=True):
            advance(child)
        run.refresh_from_db()
        if run.is_ended:
            return
        if run.status == "waiting" and run.batches.filter(status="open").exists():
            decide_all(run, crew.user)
        if run.status == "queued" and run.due_at is not None:
            Run.objects.filter(id=run.id).update(due_at=None)
        lifecycle.wake(run.id)
    raise AssertionError(f"run {run.id} is still {run.status}: {run.stop_detail}")
