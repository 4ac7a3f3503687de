"""What may never go wrong in deciding, and the test that holds it: each runs on SQLite and on PostgreSQL."""

from __future__ import annotations

CASES = {
    "two approvers, one action, one moment": (
        "approvals/test_races.py::test_overlapping_selections_each_action_is_decided_once"
    ),
    "approve against reject; a double click": "approvals/test_races.py::test_a_double_click_against_a_rejection",
    "approve, or edit, against the expiry sweep": "approvals/test_edge_races.py::test_approve_or_edit_against_expiry",
    "extend against expiry": "approvals/test_edge_races.py::test_extending_against_expiry_and_against_itself",
    "approve, or edit, against cancel": "approvals/test_edge_races.py::test_deciding_against_cancelling",
    "the same POST again after a lost answer": "api/test_idempotency.py::test_decisions_take_keys",
    "edit against edit against approve": (
        "approvals/test_races.py::test_two_edits_and_an_approval_leave_one_action_that_counts"
    ),
    "two final votes, one dispatch; one person, one vote": (
        "approvals/test_races.py::test_the_last_votes_and_a_requesters_own"
    ),
    "two people settle, two people answer": (
        "approvals/test_races.py::test_two_people_settle_an_unknown_one_and_answer_a_question"
    ),
    "the right goes between page and POST": (
        "approvals/test_decide.py::test_a_right_that_went_between_page_and_post_forbids_each_line"
    ),
    "the right goes during the decision": (
        "approvals/test_edge_races.py::test_a_right_that_goes_while_its_owner_decides_and_before_the_effect"
    ),
    "the right goes between decision and effect": "flows/test_guards.py::test_an_approver_who_lost_the_right",
    "the first of two voters lost the right": (
        "approvals/test_decide.py::test_a_first_vote_whose_giver_lost_the_right_counts_no_more"
    ),
    "and regained it": (
        "approvals/test_decide.py::test_a_vote_whose_giver_may_decide_again_counts_once_one_of_the_two_says_so"
    ),
    "another team's id over HTTP": "api/test_rights.py::test_an_admin_of_another_team_finds_nothing",
    "another team's batch over the socket": "approvals/test_live.py::test_another_teams_batches_are_never_sent",
    "the agent's token can't decide": "approvals/test_digests.py::test_a_token_that_only_launches_cannot_decide",
    "rows changed before the decision": (
        "approvals/test_evidence.py::test_what_was_changed_before_the_decision_cannot_be_approved"
    ),
    "rows changed after the decision": "flows/test_tampering.py::test_an_approved_action_that_was_changed_never_runs",
    "row and receipt changed together": (
        "approvals/test_evidence.py::test_what_was_changed_together_with_its_receipt_never_begins"
    ),
    "the end of the chain moved": "approvals/test_evidence.py::test_the_end_of_the_chain_moved_before_a_decision",
    "receipts cut off at the end": (
        "approvals/test_evidence.py::test_receipts_cut_off_together_with_the_end_of_the_chain"
    ),
    "a gap, a reordering, a rewritten receipt": "accounts/test_receipts.py::test_tampering_is_seen_where_it_happened",
    "a standing permission widened": (
        "approvals/test_grants.py::test_one_that_was_widened_in_the_database_covers_nothing_and_is_found"
    ),
    "an edit that breaks the schema": ("approvals/test_views.py::test_a_refused_edit_is_422_and_keeps_what_was_typed"),
    "an edit over a threshold": (
        "approvals/test_duties.py::test_an_edit_that_raises_the_amount_over_a_threshold_needs_two"
    ),
    "1, '1', 1.0, order of keys, NFC and NFD": "approvals/test_digests.py::test_the_database_gives_back_what_was_bound",
    "a name that stands twice": (
        "approvals/test_digests.py::test_a_name_that_stands_twice_in_a_decision_decides_nothing"
    ),
    "NaN, NUL, half a pair, endless nesting": (
        "approvals/test_digests.py::test_hostile_arguments_of_an_edit_change_nothing"
    ),
    "approve after expiry": (
        "approvals/test_decide.py::test_after_the_deadline_nothing_is_approved_and_the_batch_closes"
    ),
    "approved before, executed after expiry": "flows/test_guards.py::test_an_approval_whose_time_is_over",
    "a worker paused past the deadline": (
        "approvals/test_escalation.py::test_a_worker_that_was_paused_past_the_deadline_executes_nothing"
    ),
    "a crash after the effect, before its record": "crash/test_kill_in_tool.py::test_it_acts_once_or_a_person_is_asked",
    "a crash at any moment": "crash/test_sigkill.py::test_it_finishes_with_each_effect_once",
    "the same message twice": "flows/test_races.py::test_the_same_message_at_once_advances_once",
    "approve, then cancel before the effect": "approvals/test_edge_races.py::test_cancelling_against_the_claim",
    "two workers and an undo at the claim": "approvals/test_edge_races.py::test_two_workers_and_an_undo_at_the_claim",
    "item 3 of 10 fails under each mode": "flows/test_together.py::test_a_failure_in_the_middle",
    "dry run, then its target changed": (
        "flows/test_dry_run.py::test_what_changed_meanwhile_is_refused_with_what_changed"
    ),
    "a report chosen while it is planned again": (
        "flows/test_dry_run.py::test_two_people_carry_out_the_same_report_while_a_third_plans_it_again"
    ),
    "a decision before the run has parked": "flows/test_races.py::test_deciding_against_parking",
    "a payload longer than its preview": (
        "approvals/test_hostile.py::test_what_was_not_shown_whole_cannot_be_approved_on_the_page"
    ),
    "hostile text in every field": "approvals/test_hostile.py::test_hostile_text_in_every_field_is_plain_text",
    "an instruction in a tool's result": (
        "flows/test_filters.py::test_an_instruction_in_a_ticket_sends_what_follows_to_a_person"
    ),
    "a fork executes nothing again": (
        "flows/test_forks.py::test_earlier_steps_are_replayed_and_nothing_is_executed_again"
    ),
    "an easier policy releases nothing that waits": (
        "approvals/test_calibration.py::test_publishing_an_easier_policy_releases_nothing_that_waits"
    ),
    "twenty people, all at once, to the effect": "flows/test_load.py::test_twenty_people_decide_everything_at_once",
}
