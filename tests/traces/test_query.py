from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.editing import chosen, quoted, toggled
from traces.query import parse
from traces.tree import And, Not, Op, Or, Query, QueryError, Term, Word
from traces.vocabulary import FIELDS, STEP_FIELDS

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def read(text: str) -> Query:
    return parse(text, NOW)


def term(text: str) -> Term:
    node = read(text).node
    assert isinstance(node, Term)
    return node


def refused(text: str) -> QueryError:
    with pytest.raises(QueryError) as caught:
        read(text)
    return caught.value


def test_words_stand_side_by_side_and_all_must_hold() -> None:
    node = read("timed out").node
    assert isinstance(node, And)
    assert [word.text for word in node.nodes if isinstance(word, Word)] == ["timed", "out"]


def test_a_phrase_keeps_its_blanks_and_escapes() -> None:
    node = read(r'"say \"no\" twice"').node
    assert node == Word(text='say "no" twice', phrase=True, start=0, end=18)


def test_or_binds_less_than_and_parentheses_bind_most() -> None:
    node = read("a b OR c").node
    assert isinstance(node, Or)
    assert isinstance(node.nodes[0], And)
    node = read("a (b OR c)").node
    assert isinstance(node, And)
    assert isinstance(node.nodes[1], Or)


@pytest.mark.parametrize("text", ["-status:failed", "NOT status:failed", "not:"])
def test_not_is_a_minus_or_a_word_in_capitals(text: str) -> None:
    if text == "not:":
        assert "no field" in refused(text).message
    else:
        assert isinstance(read(text).node, Not)


def test_lower_case_operators_are_words() -> None:
    assert [text.words for text in read("this or that").texts] == [("this",), ("or",), ("that",)]


@pytest.mark.parametrize(
    "word", ["ORD-48213", "dana@harborpine.example", "https://harborpine.example/a?b=1:2", "12:30", "84.00"]
)
def test_numbers_addresses_and_ids_are_words(word: str) -> None:
    node = read(word).node
    assert isinstance(node, Word)
    assert node.text == word
    assert " ".join(node.wanted.words) == re.sub(r"[^a-z0-9]+", " ", word.lower())


@pytest.mark.parametrize(
    ("text", "op", "value"),
    [
        ("cost:>0.30", Op.GT, Decimal("0.30")),
        ("cost:>=$2", Op.GTE, Decimal(2)),
        ("cost:<1,000", Op.LT, Decimal(1000)),
        ("duration:>30s", Op.GT, 30_000),
        ("latency:<=1m30s", Op.LTE, 90_000),
        ("duration:>2h", Op.GT, 7_200_000),
        ("tokens:>10k", Op.GT, 10_000),
        ("tokens:<1.5M", Op.LT, 1_500_000),
        ("score:<0.6", Op.LT, Decimal("0.6")),
    ],
)
def test_units_are_read(text: str, op: Op, value: object) -> None:
    found = term(text)
    assert (found.op, found.values) == (op, (value,))


def test_ranges_in_both_spellings() -> None:
    assert term("cost:[0.5 TO 2]").values == term("cost:0.5..2").values == (Decimal("0.5"), Decimal(2))
    assert term("cost:0.5..2").op == Op.BETWEEN


def test_a_list_of_values_is_one_term() -> None:
    assert term("status:(failed OR stopped)").values == ("failed", "stopped")
    assert term('agent:("Refund desk" OR nightly-cleanup)').values == ("Refund desk", "nightly-cleanup")


def test_synonyms_of_a_status_are_the_status() -> None:
    assert term("state:error").values == ("failed",)
    assert term('status:"dry run"').values == ("dry_run_ready",)


@pytest.mark.parametrize(
    ("text", "op", "values"),
    [
        ("since:14d", Op.GTE, (NOW - 14 * DAY,)),
        ("until:1d", Op.LT, (NOW - DAY,)),
        ("started:>-24h", Op.GTE, (NOW - DAY,)),
        ("started:24h", Op.GTE, (NOW - DAY,)),
        ("started:today", Op.BETWEEN, (NOW.replace(hour=0), NOW.replace(hour=0) + DAY)),
        ("until:2026-11-07", Op.LT, (dt.datetime(2026, 11, 8, tzinfo=dt.UTC),)),
        ("started:>2026-11-07", Op.GTE, (dt.datetime(2026, 11, 8, tzinfo=dt.UTC),)),
        (
            "started:[2026-11-01 TO 2026-11-07]",
            Op.BETWEEN,
            (dt.datetime(2026, 11, 1, tzinfo=dt.UTC), dt.datetime(2026, 11, 8, tzinfo=dt.UTC)),
        ),
    ],
)
def test_times_are_ages_days_and_moments(text: str, op: Op, values: tuple[dt.datetime, ...]) -> None:
    found = term(text)
    assert (found.op, found.values) == (op, values)


def test_a_date_means_the_day_of_the_readers_zone() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    node = parse("since:2026-11-01", NOW.astimezone(zone)).node
    assert isinstance(node, Term)
    assert node.values == (dt.datetime(2026, 10, 31, 22, tzinfo=dt.UTC),)


@pytest.mark.parametrize(
    ("text", "position", "fixed"),
    [
        ("timed statsu:failed", 6, "timed status:failed"),
        ("status:faild", 7, "status:failed"),
        ("stop:(loop OR max_cots)", 14, "stop:(loop OR max_cost)"),
        ("a cost>0.5", 2, "a cost:>0.5"),
        ("(a OR b", 0, "(a OR b)"),
        ('x "abc', 2, 'x "abc"'),
        ("a) b", 1, "a b"),
        ('since:"14 days"', 6, "since:14d"),
        ("tool:>x", 5, "tool:x"),
        ("weather:rain", 0, '"weather:rain"'),
        ("step:{tool:x", 0, "step:{tool:x}"),
        ("step:{statsu:ok}", 6, "step:{status:ok}"),
        ("step:{status:faild}", 13, "step:{status:failed}"),
        ("attempt:>1 x", 0, "step:{attempt:>1} x"),
        ("run.tool:x", 0, "tool:x"),
        ("count(step:{a})", 0, "count(step:{a}):>0"),
        ("count(step:{a}", 0, "count(step:{a})"),
        ("step:{a} -> b", 9, "step:{a}  b"),
        ("is:wating", 3, "is:waiting"),
        ("approval:aproved", 9, "approval:approved"),
        ("a*b", 0, "a b"),
        ("refund … late", 7, "refund  late"),
        ("a | by agnet", 7, "a | by agent"),
    ],
)
def test_an_error_points_at_its_character_and_offers_a_query_that_works(text: str, position: int, fixed: str) -> None:
    error = refused(text)
    assert error.position == position
    assert error.fixed(text) == fixed
    if not fixed.startswith("count(step:{a})") or fixed.endswith("0"):
        read(fixed)


@pytest.mark.parametrize(
    "text",
    [
        "status:",
        "a OR",
        "OR a",
        "()",
        "cost:abc",
        "score:1.5",
        "cost:[2 TO 1]",
        "run:xyz",
        '""',
        "-",
        "a\0b",
        "status:(",
        "tool:[a TO b]",
        "step:{}",
        "step:{step:{a}}",
        "step:{agent:x}",
        "step:{a} ->",
        " -> ".join(["step:{a}"] * 9),
        "count(step:{a}):many",
        "meta:x",
        "meta.x:a*b",
        "batch:7",
        "cache_hit:140%",
        "%",
        '"…"',
        "| by",
        "| by tool,tool",
        "a | b",
    ],
)
def test_what_cannot_be_read_is_refused_with_words(text: str) -> None:
    error = refused(text)
    assert error.message
    assert 0 <= error.position <= error.end <= len(text)


def test_length_depth_and_number_of_terms_are_bounded() -> None:
    for text in ("x" * 3_000, "(" * 200, "-" * 200 + "x", "a " * 100):
        refused(text)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("", "All runs, newest first"),
        ("status:stopped", "Runs where the status is stopped"),
        ("-tool:shop.*", "Runs where no step used shop.*"),
        (
            'agent:"Refund desk" cost:>0.3 timed',
            "Runs where the agent is Refund desk, the cost is over $0.30 and some text mentions “timed”",
        ),
        ("a OR -b", "Runs where some text mentions “a” or no text mentions “b”"),
        ("-(a b)", "Runs where not (some text mentions “a” and some text mentions “b”)"),
        (
            "risk:>=high has:rejection",
            "Runs where an action's risk is high or above and it has an action that a person rejected",
        ),
        ("since:14d", "Runs where started in the last 14d"),
        ("duration:>90s", "Runs where it took over 90s, waits included"),
        (
            'step:{tool:send_email status:failed cost:>0.5 "free text"}',
            "Runs where there is a step where the tool is send_email, the status is failed, the cost is over $0.50 "
            "and some text mentions “free text”",
        ),
        (
            "step:{tool:web_search} -> step:{tool:send_email -approval:approved}",
            "Runs where there is a step where the tool is web_search, later one where the tool is send_email and the "
            "approval is not approved",
        ),
        (
            "step:{kind:plan} => step:{kind:model}",
            "Runs where there is a step where the kind is plan, right after it one where the kind is model",
        ),
        (
            "count(step:{status:failed}):>3 model:claude-haiku-5-5",
            "Runs where there are over 3 steps where the status is failed and a step used the model claude-haiku-5-5",
        ),
        ("-step:{score:<0.6}", "Runs where there is no step where the score is under 0.60"),
        ("(approval:rejected OR eval:<0.6) prompt:triage@14", None),
        ('reasoning:"not sure" tool:(delete_user OR transfer)', None),
        ("cache_hit:<40% tokens:>50k | by version,day", None),
        ("eval.tone:<0.5", "Runs where a score of “tone” is under 0.50"),
        ("meta.customer:ana", "Runs where the metadata “customer” is ana"),
        ("run.cost:>$2 run.status:failed", "Runs where the cost is over $2 and the status is failed"),
        ("is:over_budget -is:live", "Runs where it reached its budget and not true that it has not ended"),
        ("refun*", "Runs where some text mentions a word that begins with “refun”"),
        ("output:=nothing", "Runs where some output mentions exactly “nothing”"),
        ("-output:*", "Runs where no output mentions anything"),
        ("like:R-7", "Runs where agent and task type are those of R-7"),
        ("| by type,day", "All runs, grouped by type and day"),
    ],
)
def test_the_reading_says_what_was_understood(text: str, reading: str | None) -> None:
    said = read(text).reading
    assert said == reading if reading else said.startswith("Runs where")


def test_excluded_words_are_not_highlighted() -> None:
    found = read('refund -late "order 7" task:photo -step:{stale} step:{output:box}').texts
    assert [" ".join(text.words) for text in found] == ["refund", "order 7", "photo", "box"]


@pytest.mark.parametrize(
    ("before", "field", "value", "after"),
    [
        ("timed out", "status", "failed", "timed out status:failed"),
        ("status:failed timed", "status", "stopped", "status:(failed OR stopped) timed"),
        ("status:(failed OR stopped) timed", "status", "failed", "status:stopped timed"),
        ("status:failed timed", "status", "failed", "timed"),
        ("a OR b", "type", "refund late", '(a OR b) type:"refund late"'),
    ],
)
def test_a_facet_writes_into_the_query(before: str, field: str, value: str, after: str) -> None:
    assert toggled(read(before), field, value) == after


def test_what_a_facet_shows_as_chosen() -> None:
    assert chosen(read("status:(failed OR stopped) x"), "status") == ("failed", "stopped")
    assert chosen(read("status:failed OR x"), "status") == ()


_FRAGMENTS = ("(", ")", '"', "-", ">", "<=", "[", " TO ", "]", "*", " OR ", " AND ", " NOT ", "..", "\\", "step:{", "}")
_MORE_FRAGMENTS = ("count(step:{", ":>", " -> ", " => ", "| by ", ",", "run.", "meta.", "eval.", "{")
_VALUES = ("14d", "0.5", "failed", "x", "\u00e9", "\ud800", "10k", "2026-13-45", "9" * 30, "high", "∞", "٣")
_pieces = st.sampled_from([*(f"{name}:" for name in [*FIELDS, *STEP_FIELDS]), *_FRAGMENTS, *_MORE_FRAGMENTS, *_VALUES])


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60), st.lists(_pieces, max_size=14).map("".join), st.lists(_pieces, max_size=9).map(" ".join)
    )
)
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    found: Query | QueryError
    try:
        found = read(text)
    except QueryError as error:
        found = error
    if isinstance(found, QueryError):
        assert 0 <= found.position <= found.end <= len(text)
        assert found.message
    else:
        assert found.reading


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30))
def test_a_quoted_value_is_read_back_as_it_was(value: str) -> None:
    if value.strip():
        assert term(f"type:{quoted(value)}").values == (value,)
