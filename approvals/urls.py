from __future__ import annotations

from django.urls import path

from approvals import notice_views, proof_views, views

app_name = "approvals"

urlpatterns = [
    path("notifications/", notice_views.page, name="notifications"),
    path("notifications/add", notice_views.add, name="add_channel"),
    path("notifications/take", notice_views.take, name="take_notices"),
    path("notifications/<uuid:channel_id>/remove", notice_views.remove, name="remove_channel"),
    path("notifications/<uuid:channel_id>/test", notice_views.test, name="test_channel"),
    path("log/", proof_views.log_page, name="log"),
    path("measures/", proof_views.measures_page, name="measures"),
    path("log/export", proof_views.export, name="export"),
    path("actions/<uuid:action_id>/", proof_views.action_page, name="evidence"),
    path("", views.inbox_page, name="inbox"),
    path("<uuid:batch_id>/", views.batch_page, name="batch"),
    path("<uuid:batch_id>/decide", views.decide, name="decide"),
    path("<uuid:batch_id>/actions/<uuid:action_id>/", views.edit, name="edit"),
]
