from __future__ import annotations

from django.urls import path

from approvals import across_views, more_views, notice_views, proof_views, views

app_name = "approvals"

urlpatterns = [
    path("notifications/", notice_views.page, name="notifications"),
    path("notifications/add", notice_views.add, name="add_channel"),
    path("notifications/take", notice_views.take, name="take_notices"),
    path("notifications/<uuid:channel_id>/change", notice_views.change, name="change_channel"),
    path("notifications/<uuid:channel_id>/remove", notice_views.remove, name="remove_channel"),
    path("notifications/<uuid:channel_id>/test", notice_views.test, name="test_channel"),
    path("log/", proof_views.log_page, name="log"),
    path("measures/", proof_views.measures_page, name="measures"),
    path("log/export", proof_views.export, name="export"),
    path("actions/<uuid:action_id>/", proof_views.action_page, name="evidence"),
    path("grants/", more_views.index, name="grants"),
    path("grants/<uuid:grant_id>/revoke", more_views.revoke, name="revoke_grant"),
    path("actions/<uuid:action_id>/allow/", more_views.give, name="allow"),
    path("later/", more_views.later, name="later"),
    path("later/<uuid:look_id>", more_views.look, name="look"),
    path("", views.inbox_page, name="inbox"),
    path("actions/", across_views.page, name="across"),
    path("actions/decide", across_views.decide, name="across_decide"),
    path("actions/undo", across_views.undo, name="across_undo"),
    path("<uuid:batch_id>/", views.batch_page, name="batch"),
    path("<uuid:batch_id>/decide", views.decide, name="decide"),
    path("<uuid:batch_id>/undo", views.undo, name="undo"),
    path("<uuid:batch_id>/extend", views.extend, name="extend"),
    path("<uuid:batch_id>/hand-over", views.hand_over, name="hand_over"),
    path("<uuid:batch_id>/actions/<uuid:action_id>/", views.edit, name="edit"),
    path("<uuid:batch_id>/actions/<uuid:action_id>/whole", views.whole, name="whole"),
]
