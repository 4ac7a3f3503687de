"""The settings page of an agent: fields as texts and back, drafts, publishing, who may, what is never lost."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import receipts
from accounts.models import Membership, Receipt
from runs import agents, drafts, policies, settings_form
from runs.engine.types import Policy
from runs.errors import Conflict, Invalid
from runs.models import Agent, AgentDraft, AgentVersion
from runs.schemas import AgentIn
from tests.accounts.together import together
from tests.runs.factories import HOSTILE, World, make_agent, make_run, make_step

URL = "/agents/refund-desk/"
REFUND = "shop.issue_refund"
WRITES = ("draft", "publish", "discard")


def change(world: World, **typed: str) -> AgentDraft | None:
    fields = {name.replace("__", "|"): text for name, text in typed.items()}
    return drafts.change(world.access("admin"), "refund-desk", fields)


def draft_of(world: World) -> AgentIn:
    return AgentIn.model_validate(AgentDraft.objects.get(agent=world.agent).definition)


def revision(world: World) -> int:
    return AgentDraft.objects.get(agent=world.agent).revision


# --- the form --------------------------------------------------------------------------------------------------------
FULL = AgentIn.model_validate(
    {
        "name": "Refund desk",
        "instructions": "One\nTwo",
        "planning": True,
        "limits": {"max_cost_usd": "2.50", "max_seconds": None},
        "tools": [
            {
                "name": REFUND,
                "policy": "confidence",
                "threshold": 0.955,
                "risk": "critical",
                "timeout_s": 12.5,
                "evidence": 30,
                "agreement": 0.9,
                "sample": 0.05,
                "own_approval": "refused",
                "undo_s": 0,
                "expires_s": 2700,
                "remind_s": 1200,
                "widen_s": 1800,
                "reviewers": ["marco"],
                "backup": ["lea", "dana"],
                "after": ["shop.get_order"],
                "rules": [
                    {"argument": "amount", "test": "above", "value": 250, "policy": "two_person", "risk": "critical"},
                    {"argument": "currency", "test": "not_one_of", "value": ["USD", "EUR"], "policy": "forbidden"},
                    {"argument": "order", "test": "equals", "value": "48213", "risk": "high"},
                ],
            }
        ],
    }
)


def test_what_the_form_shows_is_what_it_saves() -> None:
    shown = settings_form.values(FULL)

    assert shown[f"{REFUND}|threshold"] == "95.5"
    assert shown[f"{REFUND}|undo_s"] == "0 s"
    assert shown[f"{REFUND}|expires_s"] == "45 min"
    assert shown[f"{REFUND}|backup"] == "lea, dana"
    assert shown[f"{REFUND}|rules.0.then"] == "critical/two_person"
    again = settings_form.apply(FULL, {**shown, f"{REFUND}|rules.2.value": '"48213"'})
    assert again.model_dump() == FULL.model_dump()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("max_cost_usd", "lots", "“lots” is not a number."),
        ("max_cost_usd", "-1", "Must be above 0."),
        ("max_steps", "1.5", "Write a whole number."),
        ("max_steps", "NaN", "is not a number."),
        ("name", "  ", "A name is needed."),
        ("name", "x" * 81, "At most 80 characters."),
        ("default_mode", "yolo", "One of:"),
        (f"{REFUND}|policy", "yolo", "One of:"),
        (f"{REFUND}|threshold", "101", "Write a percentage from 0 to 100."),
        (f"{REFUND}|timeout_s", "0", "Must be above 0."),
        (f"{REFUND}|evidence", "0", "At least 1."),
        (f"{REFUND}|undo_s", "2 h", "At most 1 h."),
        (f"{REFUND}|expires_s", "45", "Write a number and its unit"),
        (f"{REFUND}|expires_s", "40 d", "At most 30 d."),
        (f"{REFUND}|expires_s", "20 min", "Earlier than the 20 min there are to decide."),
        (f"{REFUND}|remind_s", "50 min", "Earlier than the 45 min there are to decide."),
        (f"{REFUND}|backup", "", "Name who is asked then."),
    ],
)
def test_a_field_that_is_wrong_says_so_and_changes_nothing(name: str, text: str, words: str) -> None:
    with pytest.raises(Invalid) as invalid:
        settings_form.apply(FULL, {name: text})

    assert words in invalid.value.errors[name]


@pytest.mark.parametrize(
    ("test", "value", "stored"),
    [
        ("above", "$1,250.50", 1250.5),
        ("above", "250", 250),
        ("equals", "true", True),
        ("equals", "48213", 48213),
        ("one_of", "a, 2 ,c", ["a", 2, "c"]),
        ("prefix", "/tmp/", "/tmp/"),
    ],
)
def test_a_rule_is_read_from_its_four_parts(test: str, value: str, stored: object) -> None:
    base = f"{REFUND}|rules.0."
    parts = {"argument": "amount", "test": test, "value": value, "then": "/two_person"}

    changed = settings_form.apply(FULL, {base + name: text for name, text in parts.items()})

    (rule,) = changed.tools[0].rules
    assert (rule.argument, rule.test, rule.value) == ("amount", test, stored)
    assert (rule.policy, rule.risk) == ("two_person", None)


@pytest.mark.parametrize(("test", "value"), [("above", "lots"), ("above", ""), ("prefix", ""), ("one_of", " , ")])
def test_a_rule_that_compares_with_nothing_is_refused_at_its_value(test: str, value: str) -> None:
    parts = {"argument": "amount", "test": test, "value": value, "then": "/review"}
    with pytest.raises(Invalid) as invalid:
        settings_form.apply(FULL, {f"{REFUND}|rules.0.{name}": text for name, text in parts.items()})

    assert list(invalid.value.errors) == [f"{REFUND}|rules.0.value"]


def test_clearing_the_argument_takes_a_rule_away() -> None:
    assert settings_form.apply(FULL, {f"{REFUND}|rules.0.argument": ""}).tools[0].rules == []


def test_a_tool_is_added_for_review_and_taken_away() -> None:
    more = settings_form.apply(FULL, {"add_tool": "shop.send_email"})
    assert [(tool.name, tool.policy) for tool in more.tools][-1] == ("shop.send_email", "review")
    assert settings_form.apply(more, {"remove_tool": REFUND}).tools == more.tools[1:]


def test_a_tool_that_is_taken_away_is_waited_for_no_longer() -> None:
    more = settings_form.apply(FULL, {"add_tool": "shop.get_order"})
    assert settings_form.apply(more, {"remove_tool": "shop.get_order"}).tools[0].after == []


# --- drafts ----------------------------------------------------------------------------------------------------------


def test_a_change_makes_a_draft_and_leaves_the_live_version(world: World) -> None:
    change(world, **{f"{REFUND}__policy": "two_person"})
    change(world, purpose="Other")

    draft = draft_of(world)
    assert (draft.purpose, {tool.name: tool.policy for tool in draft.tools}[REFUND]) == ("Other", "two_person")
    assert AgentVersion.objects.filter(agent=world.agent).count() == 1
    assert revision(world) == 2


def test_saving_what_is_live_makes_no_draft(world: World) -> None:
    assert change(world, purpose="Works through refund requests.") is None
    assert not AgentDraft.objects.exists()


def test_publishing_makes_a_new_version_with_a_receipt(world: World) -> None:
    change(world, purpose="Other")

    saved = drafts.publish(world.access("admin"), "refund-desk", revision(world))

    assert (saved.version.number, saved.version.definition["purpose"]) == (2, "Other")
    assert not AgentDraft.objects.exists()
    assert Receipt.objects.get(kind="agent.saved").payload == {"slug": "refund-desk", "version": 2}
    assert receipts.verify(world.team) == []


def test_a_draft_that_changed_since_it_was_shown_is_not_published(world: World) -> None:
    change(world, purpose="Seen")
    shown = revision(world)
    change(world, purpose="Not seen")

    with pytest.raises(Conflict):
        drafts.publish(world.access("admin"), "refund-desk", shown)
    assert AgentVersion.objects.filter(agent=world.agent).count() == 1


def test_a_version_published_meanwhile_is_kept_and_the_draft_moves_onto_it(world: World) -> None:
    change(world, purpose="Mine", max_steps="7", **{f"{REFUND}__policy": "two_person"})
    live = AgentIn.model_validate(world.agent.current.definition)  # type: ignore[union-attr]
    theirs = live.model_copy(update={"instructions": "Theirs", "tools": live.tools[:-1]})
    agents.put_agent(world.access("admin"), "refund-desk", theirs)

    with pytest.raises(Conflict, match="published v2 meanwhile"):
        drafts.publish(world.access("admin"), "refund-desk", revision(world))

    draft = draft_of(world)
    assert (draft.purpose, draft.instructions, draft.limits.max_steps) == ("Mine", "Theirs", 7)
    assert [tool.name for tool in draft.tools] == [tool.name for tool in theirs.tools]
    assert {tool.name: tool.policy for tool in draft.tools}[REFUND] == "two_person"
    assert drafts.publish(world.access("admin"), "refund-desk", revision(world)).version.number == 3


def test_two_fields_saved_at_once_are_both_kept(transactional_db: None) -> None:
    from tests.runs.factories import make_world

    world = make_world()
    access = world.access("admin")
    for round_ in range(10):
        typed = [{"purpose": f"p{round_}"}, {"max_steps": str(10 + round_)}, {"instructions": f"i{round_}"}]
        answers = together([lambda text=text: drafts.change(access, "refund-desk", text) for text in typed])  # type: ignore[misc]

        assert not [answer for answer in answers if isinstance(answer, Exception)]
        draft = draft_of(world)
        assert (draft.purpose, draft.limits.max_steps, draft.instructions) == (f"p{round_}", 10 + round_, f"i{round_}")


def test_a_rule_about_an_argument_the_tool_does_not_have_is_refused(world: World) -> None:
    from runs.models import ToolServer

    for server in ToolServer.objects.filter(team=world.team):
        for tool in server.tools:
            tool["input_schema"] = {"type": "object", "properties": {"amount": {"type": "number"}}}
        server.save()
    base = f"{REFUND}__rules.0."
    parts = {"argument": "amuont", "test": "above", "value": "1", "then": "/review"}
    with pytest.raises(Invalid, match=r"has no argument “amuont”\. It has: amount"):
        change(world, **{base + name: text for name, text in parts.items()})


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("who", "status"), [("anonymous", 302), ("viewer", 403), ("operator", 403), ("approver", 403), ("outsider", 404)]
)
def test_only_an_admin_changes_an_agent(world: World, write: str, who: str, status: int) -> None:
    response = world.client(who).post(URL + write, {"purpose": "Other"})

    assert response.status_code == status
    assert not AgentDraft.objects.exists()


@pytest.mark.parametrize("write", WRITES)
def test_an_agent_that_is_not_there_is_404_and_get_changes_nothing(world: World, write: str) -> None:
    assert world.client("admin").post(f"/agents/nobody/{write}").status_code == 404
    assert world.client("admin").get(URL + write).status_code == 405


def test_others_read_the_live_version_without_a_form(world: World) -> None:
    change(world, purpose="Secret plans")

    page = world.client("approver").get(URL).content.decode()

    assert "Secret plans" not in page
    assert 'id="settings"' not in page


def test_without_scripts_the_whole_form_is_one_post(world: World) -> None:
    client = world.client("admin")
    response = client.post(URL + "draft", {"purpose": "Other", f"{REFUND}|policy": "two_person", "max_steps": "9"})
    assert (response.status_code, response["Location"]) == (302, URL)

    page = client.get(URL).content.decode()
    assert "Draft v2, 3 changes" in page
    assert "was Always review" in page
    client.post(URL + "publish", {"revision": re.findall(r'name="revision" value="(\d+)"', page)[0]})
    assert Agent.objects.get(id=world.agent.id).current.number == 2  # type: ignore[union-attr]


def test_with_scripts_only_the_field_that_was_left_is_saved(world: World) -> None:
    """The rest of the form may be older than what somebody else saved meanwhile."""
    change(world, purpose="Theirs")
    data = {"only": "max_steps", "max_steps": "9", "purpose": "Works through refund requests."}
    response = world.client("admin").post(URL + "draft", data, headers={"HX-Request": "true"})

    assert response.status_code == 200
    assert (draft_of(world).purpose, draft_of(world).limits.max_steps) == ("Theirs", 9)
    answer = response.content.decode()
    assert 'id="note-f-max-steps" hx-swap-oob="true">was 60' in answer
    assert "2 changes" in answer
    assert 'id="replay"' in answer


def test_the_controls_that_come_with_an_answer_save_too(world: World) -> None:
    data = {"only": f"{REFUND}|policy", f"{REFUND}|policy": "confidence"}
    answer = world.client("admin").post(URL + "draft", data, headers={"HX-Request": "true"}).content.decode()

    assert f'name="{REFUND}|threshold"' in answer
    assert set(re.findall(r'hx-post="([^"]*)"', answer)) == {URL + "draft"}


def test_a_saved_rule_is_followed_by_an_empty_one(world: World) -> None:
    parts = {"argument": "amount", "test": "above", "value": "250", "then": "/two_person"}
    data = {"only": f"{REFUND}|rules", **{f"{REFUND}|rules.0.{name}": text for name, text in parts.items()}}
    answer = world.client("admin").post(URL + "draft", data, headers={"HX-Request": "true"}).content.decode()

    assert f'name="{REFUND}|rules.1.argument"' in answer
    assert draft_of(world).tools[2].rules[0].policy == "two_person"


def test_a_wrong_field_is_answered_where_it_stands(world: World) -> None:
    data = {"only": "max_cost_usd", "max_cost_usd": "lots"}
    response = world.client("admin").post(URL + "draft", data, headers={"HX-Request": "true"})

    assert response.status_code == 422
    assert "“lots” is not a number." in response.content.decode()
    assert not AgentDraft.objects.exists()


def test_a_refused_form_keeps_everything_typed(world: World) -> None:
    response = world.client("admin").post(URL + "draft", {"purpose": "A long new purpose", "max_cost_usd": "lots"})

    page = response.content.decode()
    assert response.status_code == 422
    assert 'value="A long new purpose"' in page
    assert 'value="lots"' in page
    assert "“lots” is not a number." in page


def test_the_prompt_is_shown_as_a_diff_against_the_live_one(world: World) -> None:
    change(world, instructions="Read the policy twice.\nRefund to the original card.")

    page = world.client("admin").get(URL).content.decode()

    assert re.search(r"prompt-line--old.*Read the policy first\.", page)
    assert re.search(r"prompt-line--new.*Read the policy twice\.", page)
    assert len(re.findall(r'class="prompt-line"', page)) == 1


def test_discarding_keeps_the_live_version(world: World) -> None:
    change(world, purpose="Other")
    world.client("admin").post(URL + "discard")

    assert not AgentDraft.objects.exists()
    assert AgentVersion.objects.filter(agent=world.agent).count() == 1


def test_hostile_text_is_shown_escaped(world: World) -> None:
    change(world, purpose=HOSTILE, instructions=HOSTILE)

    page = world.client("admin").get(URL).content.decode()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_number_of_queries_does_not_grow_with_tools_and_runs(world: World) -> None:
    client = world.client("admin")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(URL).status_code == 200
        return len(captured)

    make_step(make_run(world), kind="tool", tool=REFUND)
    before = queries()
    for _ in range(3):
        make_step(make_run(world), kind="tool", tool=REFUND)
    change(world, add_tool="notes.write")
    make_agent(world.team, "another")

    assert queries() <= before + 1  # the draft's own base


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("reviewers", "noor", "“noor” is nobody of this team who may decide."),
        ("backup", "otto", "“otto” is nobody of this team who may decide."),
        ("after", "shop.unknown", "“shop.unknown” is no other tool of this agent."),
        ("after", REFUND, f"“{REFUND}” is no other tool of this agent."),
        ("expires_s", "soon", "Write a number and its unit, for example 45 min or 24 h."),
    ],
)
def test_who_and_how_long_is_answered_at_its_field_and_kept(world: World, key: str, text: str, words: str) -> None:
    name = f"{REFUND}|{key}"
    with pytest.raises(Invalid) as invalid:
        drafts.change(world.access("admin"), "refund-desk", {name: text})
    assert invalid.value.errors == {name: words}

    page = world.client("admin").post(URL + "draft", {name: text, f"{REFUND}|undo_s": "30 s"})

    assert page.status_code == 422
    html = page.content.decode()
    assert words in html
    assert f'value="{text}"' in html
    assert 'value="30 s"' in html
    assert not AgentDraft.objects.exists()


def test_who_and_how_long_is_set_on_the_page(world: World) -> None:
    marco, dana = world.people["approver"].username, world.people["admin"].username
    typed = {"undo_s": "30", "reviewers": marco, "after": "shop.get_order"}
    typed |= {"expires_s": "2 h", "remind_s": "", "widen_s": "90 min", "backup": f"{dana}, {dana}"}
    client = world.client("admin")
    for only in ("undo_s", "reviewers", "after", "times"):
        data = {"only": f"{REFUND}|{only}", **{f"{REFUND}|{key}": text for key, text in typed.items()}}
        assert client.post(URL + "draft", data, headers={"HX-Request": "true"}).status_code == 200

    tool = next(tool for tool in draft_of(world).tools if tool.name == REFUND)
    assert (tool.undo_s, tool.expires_s, tool.remind_s, tool.widen_s) == (30, 7200, None, 5400)
    assert (tool.reviewers, tool.backup, tool.after) == ([marco], [dana], ["shop.get_order"])
    page = client.get(URL).content.decode()
    assert 'value="90 min"' in page
    assert "Draft v2, 6 changes" in page


def test_who_left_since_the_version_was_published_holds_nothing_up(world: World) -> None:
    change(world, **{f"{REFUND}__reviewers": world.people["approver"].username})
    drafts.publish(world.access("admin"), "refund-desk", revision(world))
    Membership.objects.filter(user=world.people["approver"]).delete()

    change(world, purpose="Other")

    assert draft_of(world).purpose == "Other"


@pytest.mark.parametrize(
    ("policy", "reads", "can_plan", "is_known", "words"),
    [
        ("auto", False, False, True, policies.UNSEEN),
        ("confidence", False, False, True, policies.UNSEEN),
        ("review", False, False, True, policies.NO_PREVIEW),
        ("two_person", False, False, True, policies.NO_PREVIEW),
        ("forbidden", False, False, True, ""),
        ("auto", True, False, True, ""),
        ("auto", False, True, True, ""),
        ("auto", False, False, False, ""),
    ],
)
def test_the_table_says_which_effect_cannot_be_tried(
    policy: str, reads: bool, can_plan: bool, is_known: bool, words: str
) -> None:
    line = policies.ToolLine(
        name="crm.merge",
        description="",
        risk="medium",
        tool_risk="medium",
        policy=Policy(policy),
        threshold="",
        reads=reads,
        is_known=is_known,
        can_plan=can_plan,
        timeout_s=None,
    )

    assert line.no_preview == words
