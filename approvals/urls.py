from __future__ import annotations

from django.urls import path

from approvals import views

app_name = "approvals"

urlpatterns = [
    path("", views.inbox_page, name="inbox"),
    path("<uuid:batch_id>/", views.batch_page, name="batch"),
    path("<uuid:batch_id>/decide", views.decide, name="decide"),
    path("<uuid:batch_id>/actions/<uuid:action_id>/", views.edit, name="edit"),
]
