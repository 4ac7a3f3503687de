"""Three back ends agree on the same runs: the database's index, its walk from run to run, and the matcher in memory."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import access as accounts_access
from accounts.access import Access
from accounts.models import User
from runs.asked import Note
from runs.models import Action, Agent, Run, SearchDocument, Step
from runs.words import spelled, words
from tests.traces.factories import (
    T0,
    make_action,
    make_agent,
    make_model_step,
    make_run,
    make_step,
    make_team,
    make_user,
)
from traces import matching, memory, text_index
from traces.fields import Field, Type
from traces.limits import TookTooLong, bounded
from traces.query import parse
from traces.scope import Scope
from traces.tree import QueryError
from traces.vocabulary import FIELDS, STEP_FIELDS

NOW = T0 + dt.timedelta(hours=9)
WORDS = ("refund", "late", "parcel", "ORD-7", "Zoë", "ana@harborpine.example", "84.00", "退款", "returned", "x1")
METADATA: tuple[dict[str, Any], ...] = (
    {},
    {"customer": "Ana Lima"},
    {"tags": ["vip", "late one"], "n": 7},
    {"n": "2.5"},
    {"N": [-3, 40]},
)
TOOLS = ("shop.issue_refund", "shop.get_order", "Web.Search", "carrier_track")
MODELS = ("claude-sonnet-5-5", "claude-haiku-5-5")


def some_text(chance: random.Random) -> str:
    marks = (" ", ", ", "-", ": ", " … ", "\n")
    return "".join(chance.choice(WORDS) + chance.choice(marks) for _ in range(chance.randint(0, 5)))


@pytest.fixture
def world(db: None) -> Access:
    """One team with twenty runs of all kinds, and another team with the same words."""
    chance = random.Random(11)
    team, other = make_team(), make_team("elsewhere", "Elsewhere")
    people = [make_user(team), make_user(team, "émile", "Émile", "Roux")]
    agents = [make_agent(team), make_agent(team, "supplier-research", "Supplier research")]
    for number in range(20):
        fill(chance, make_some_run(chance, agents, people, number))
    outsider = make_user(other, "otto", "Otto", "Brand")
    for number in range(4):
        fill(chance, make_some_run(chance, [make_agent(other, f"other-{number}", "Other")], [outsider], number))
    return accounts_access.access_for_user(people[0])


@pytest.fixture
def facts(world: Access) -> list[memory.Facts]:
    return memory.gather(Run.objects.filter(team=world.team), NOW)


def make_some_run(chance: random.Random, agents: list[Agent], people: list[User], number: int) -> Run:
    reason = chance.choice((None, "done", "loop", "max_cost"))
    status = "running" if reason is None else "completed" if reason == "done" else "stopped"
    earlier = list(Run.objects.filter(team=agents[0].team).order_by("number"))
    return make_run(
        chance.choice(agents),
        chance.choice(people),
        created=T0 + dt.timedelta(minutes=17 * number),
        seconds=None if reason is None else chance.choice((5, 60, 3_600)),
        task=some_text(chance),
        task_type=chance.choice(("", "refund-late", "Supplier")),
        mode=chance.choice(("batch", "dry_run")),
        status=status if status != "running" else chance.choice(("running", "waiting", "queued")),
        stop_reason=reason,
        metadata=chance.choice(METADATA),
        parent=chance.choice(earlier) if earlier and chance.random() < 0.2 else None,
        forked_from=chance.choice(earlier) if earlier and chance.random() < 0.2 else None,
        max_cost_usd=chance.choice((None, Decimal("0.05"), Decimal(1))),
        wait_ms=chance.choice((0, 90_000)),
        result=chance.choice(("", "Done.")),
        simulated=chance.random() < 0.3,
        plan={"steps": []} if chance.random() < 0.5 else None,
    )


def fill(chance: random.Random, run: Run) -> None:
    for _ in range(chance.randint(0, 6)):
        texts: dict[str, Any] = {"reasoning": some_text(chance), "output": {"text": some_text(chance)}}
        if chance.random() < 0.5:
            score = chance.choice((None, 0.25, 0.6, 0.9))
            kind = chance.choice(("model", "evaluate", "plan"))
            cost = chance.choice(("0.05", "0.0125", None))
            model = chance.choice(MODELS)
            lost = chance.choice((0, 0, 500))
            texts |= {"cache_expired_tokens": lost, "title": "Judge the tone", "after": chance.choice((0, 7_200))}
            step = make_model_step(run, cost, model=model, score=score, **texts)
            if chance.random() < 0.5:
                decided = chance.choice(("rejected", "expired", "superseded"))
                make_action(run, status=decided, intent=f"{run.last_seq}:0", tool_call_id=f"of-{run.last_seq}")
            type(step).objects.filter(id=step.id).update(kind=kind)
            step.document.kind = kind
            step.document.save(update_fields=["kind"])
            continue
        status = chance.choice(("ok", "ok", "error", "timeout", "denied"))
        call = f"call-{run.number}-{run.last_seq}"
        confidence = chance.choice((None, 0.5, 0.95))
        more: dict[str, Any] = {
            "status": status,
            "tool_call_id": call,
            "confidence": confidence,
            "attempt": chance.choice((1, 2)),
        }
        error = some_text(chance) if status == "error" else ""
        make_step(run, tool=chance.choice(TOOLS), input={"order": some_text(chance)}, error=error, **more, **texts)
        if chance.random() < 0.4:
            decided = chance.choice(("pending", "rejected", "succeeded", "expired"))
            risk = chance.choice(("low", "high", "critical"))
            action = make_action(run, risk=risk, status=decided, tool_call_id=call, intent=f"{run.last_seq}:1")
            if decided in ("rejected", "succeeded"):
                Action.objects.filter(id=action.id).update(decided_by=run.owner)
    SearchDocument.objects.filter(run=run, seq=chance.randint(0, 12)).update(cut=True)
    places: list[Step | None] = [None, *run.steps.all()]
    for place in places:
        if chance.random() < 0.25:
            note(chance, run, place)


def note(chance: random.Random, run: Run, step: Step | None) -> None:
    text = some_text(chance)
    score = chance.choice((0.25, 0.6, 0.9) if not text else (None, 0.25, 0.6, 0.9))
    author = chance.choice(list(User.objects.filter(memberships__team=run.team_id).order_by("username")))
    spelling = spelled(words(text))
    Note.objects.create(team_id=run.team_id, run=run, step=step, author=author, text=text, words=spelling, score=score)


# --- queries ---------------------------------------------------------------------------------------------------------

_NAMES = {
    "agent": ("refund-desk", '"Supplier research"', "*desk*", "nobody"),
    "prompt": ("refund-desk@1", "refund-desk@v1", '"supplier research@2"'),
    "tool": (*TOOLS, "shop.*", "WEB.search", "none"),
    "model": (*MODELS, "claude-*", "gpt"),
    "user": ("dana", '"Émile Roux"', "ÉMILE", "otto", "*@harborpine.example"),
    "approver": ("dana", "émile", "otto"),
    "noted_by": ("dana", "ÉMILE", "otto", "*@harborpine.example"),
    "type": ("refund-late", "supplier", "*r*"),
    "action": ("shop.issue_refund", "SHOP.*"),
    "price": ("genai-prices/*", "x"),
    "team": ("harborpine", "elsewhere", '"harbor & pine"'),
    "tag": ("vip", '"late one"', "late*", "late"),
}
_VALUES = {
    Type.MONEY: ("0.05", ">0.02", "<=$0.06", "0.01..0.1", "*"),
    Type.DURATION: (">30s", "<2m", "1m", "*"),
    Type.COUNT: (">2", "<3", "0", "1..4", "(1 OR 2)", ">=20k"),
    Type.SCORE: ("<0.6", ">=0.6", "0.25", "*", "0.1..0.7"),
    Type.PERCENT: (">70%", "<50%", "*", "10..90"),
    Type.LEVEL: (">=high", "low", "<critical", "*"),
    Type.TIME: ("8h", ">-7h", "2026-03-12", "[2026-03-12T13:00+00:00 TO 2026-03-12T16:00+00:00]"),
    Type.RUN: ("R-3", "*", "(R-2 OR R-5)"),
    Type.ID: ("*", "0197f3a2-6c1e-7d3b-9a54-2f1c8e7b6d50"),
    Type.TEXT: ("refund", "lat*", '"refund late"', "*", "(parcel OR ord-7)", "=refund", "zoe", "84.00"),
}


def values_of(field: Field) -> tuple[str, ...]:
    if field.type is Type.CHOICE:
        return (*field.choices, "*")
    return _NAMES[field.name] if field.type is Type.NAME else _VALUES[field.type]


def terms(fields: dict[str, Field]) -> st.SearchStrategy[str]:
    made = [
        f"{name}:{value}"
        for name, field in fields.items()
        if name not in ("meta", "eval")
        for value in values_of(field)
    ]
    made += [f"eval.tone:{value}" for value in _VALUES[Type.SCORE]] + ["eval.style:<0.9"]
    return st.sampled_from(made)


texts = st.sampled_from([*WORDS, '"late parcel"', "par*", "zoe", "款", "R-4", "ord", '"ORD 7"', "nowhere"])
NAMED = ("meta.customer:ana*", 'meta.customer:"ana lima"', "meta.customer:ana")
metadata = st.sampled_from(
    [*NAMED, "meta.n:7", "meta.x:*", "meta.n:>5", "meta.n:<=2.5", "meta.n:[-5 TO 3]", "meta.n:1..9"]
)


def joined(base: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        base,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(" ".join),
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]} OR {pair[1]})"),
            inner.map(lambda text: f"-({text})"),
        ),
        max_leaves=3,
    )


in_step = joined(st.one_of(terms(STEP_FIELDS), terms(STEP_FIELDS), texts)).map(lambda text: f"step:{{{text}}}")
sequences = st.lists(in_step, min_size=1, max_size=3).flatmap(
    lambda steps: st.sampled_from((" -> ", " => ")).map(lambda arrow: arrow.join(steps))
)
counts = st.tuples(sequences, st.sampled_from((">0", ">1", "<2", "0", "1..2", "*"))).map(
    lambda pair: f"count({pair[0]}):{pair[1]}"
)
queries = joined(st.one_of(terms(FIELDS), terms(FIELDS), texts, metadata, sequences, counts))


@pytest.fixture(params=["index", "columns", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an index finds is taken whole, or only what indexes by columns say narrows the walk, or nothing does."""
    if request.param != "index":
        monkeypatch.setattr(text_index, "MOST", -1)
    if request.param == "walk":
        monkeypatch.setattr(text_index, "MANY", -1)


@pytest.fixture
def stopped() -> Iterator[list[str]]:
    """Queries that the database did not answer in time. A few are, on a busy machine; many would mean that nothing was
    looked at."""
    texts: list[str] = []
    yield texts
    assert len(texts) <= 5, texts


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_back_ends_agree(
    world: Access, facts: list[memory.Facts], way: None, stopped: list[str], data: st.DataObject
) -> None:
    for text in data.draw(st.lists(queries, min_size=3, max_size=3)):
        node = parse(text, NOW).node
        try:
            with bounded(2):  # PostgreSQL plans some sequences of steps badly
                matched = matching.matching(accounts_access.rows(world, Run), node, Scope(world.team.id, NOW))
                found = sorted(matched.values_list("number", flat=True))
        except TookTooLong:
            stopped.append(text)
        else:
            assert found == sorted(each.run.number for each in facts if memory.holds(node, each)), text


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.one_of(queries, st.text(max_size=40)))
def test_no_query_reads_rows_of_another_team(world: Access, stopped: list[str], text: str) -> None:
    try:
        node = parse(text, NOW).node
    except QueryError:
        return
    try:
        with bounded():
            found = matching.matching(accounts_access.rows(world, Run), node, Scope(world.team.id, NOW))
            assert set(found.values_list("team_id", flat=True)) <= {world.team.id}
    except TookTooLong:
        stopped.append(text)


def test_every_field_is_asked_about_in_this_test() -> None:
    for fields in (FIELDS, STEP_FIELDS):
        for field in fields.values():
            assert field.name in ("meta", "eval") or values_of(field)


def test_the_walk_of_the_test_is_a_walk(world: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    for most, walks in ((text_index.MOST, False), (-1, True)):
        monkeypatch.setattr(text_index, "MOST", most)
        scope = Scope(world.team.id, NOW)
        list(matching.matching(accounts_access.rows(world, Run), parse("refund", NOW).node, scope))
        assert scope.walks is walks, connection.vendor
