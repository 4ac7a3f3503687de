from __future__ import annotations

from django.urls import path

from traces import cost_views, erasing_views, note_views, search_views, share_views, views

app_name = "traces"

urlpatterns = [
    path("traces/", views.search, name="search"),
    path("traces/values/", search_views.values, name="values"),
    path("traces/new/", search_views.new, name="new"),
    path("traces/why/", search_views.why_these, name="why"),
    path("traces/compare/", search_views.compare_runs, name="compare"),
    path("traces/saved/", search_views.save, name="save"),
    path("traces/saved/<uuid:saved_id>/delete/", search_views.delete, name="saved_delete"),
    path("traces/<uuid:run_id>/", views.trace, name="trace"),
    path("traces/<uuid:run_id>/rows/", views.trace_rows, name="rows"),
    path("traces/<uuid:run_id>/steps/<int:seq>/", views.step, name="step"),
    path("traces/<uuid:run_id>/export.json", views.trace_json, name="export"),
    path("traces/<uuid:run_id>/notes/", note_views.notes, name="notes"),
    path("traces/<uuid:run_id>/notes/add/", note_views.add, name="add_note"),
    path("traces/<uuid:run_id>/notes/<uuid:note_id>/", note_views.change, name="change_note"),
    path("traces/<uuid:run_id>/steps/<int:seq>/notes/", note_views.notes, name="step_notes"),
    path("traces/<uuid:run_id>/steps/<int:seq>/notes/add/", note_views.add, name="add_step_note"),
    path("traces/<uuid:run_id>/shares/", share_views.create, name="share"),
    path("traces/<uuid:run_id>/shares/<uuid:share_id>/revoke/", share_views.revoke, name="revoke_share"),
    path("traces/shared/<str:token>/", share_views.shared, name="shared"),
    path("traces/shared/<str:token>/rows/", share_views.shared_rows, name="shared_rows"),
    path("traces/shared/<str:token>/steps/<int:seq>/", share_views.shared_step, name="shared_step"),
    path("accounts/erasure/", erasing_views.erasure, name="erasure"),
    path("accounts/erasure/text/", erasing_views.erase_text, name="erase_text"),
    path("accounts/erasure/people/<uuid:user_id>/", erasing_views.erase_person, name="erase_person"),
    path("costs/", views.costs_page, name="costs"),
    path("costs/alerts/", cost_views.alert_list, name="alerts"),
    path("costs/alerts/new/", cost_views.add_alert, name="add_alert"),
    path("costs/alerts/<uuid:alert_id>/snooze/", cost_views.snooze_alert, name="snooze_alert"),
    path("costs/alerts/<uuid:alert_id>/delete/", cost_views.delete_alert, name="delete_alert"),
    path("costs/prices/", cost_views.price_list, name="prices"),
    path("costs/prices/new/", cost_views.add_price, name="add_price"),
    path("costs/prices/<uuid:price_id>/end/", cost_views.end_price, name="end_price"),
    path("costs/export.csv", views.costs_csv, name="costs_csv"),
]
