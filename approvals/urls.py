from __future__ import annotations

from django.urls import path

from approvals import proof_views, views

app_name = "approvals"

urlpatterns = [
    path("log/", proof_views.log_page, name="log"),
    path("log/export", proof_views.export, name="export"),
    path("actions/<uuid:action_id>/", proof_views.action_page, name="evidence"),
    path("", views.inbox_page, name="inbox"),
    path("<uuid:batch_id>/", views.batch_page, name="batch"),
    path("<uuid:batch_id>/decide", views.decide, name="decide"),
    path("<uuid:batch_id>/actions/<uuid:action_id>/", views.edit, name="edit"),
]
