from __future__ import annotations

from django.urls import path

from traces import views

app_name = "traces"

urlpatterns = [
    path("traces/", views.search, name="search"),
    path("traces/<uuid:run_id>/", views.trace, name="trace"),
    path("traces/<uuid:run_id>/rows/", views.trace_rows, name="rows"),
    path("traces/<uuid:run_id>/steps/<int:seq>/", views.step, name="step"),
    path("traces/<uuid:run_id>/export.json", views.trace_json, name="export"),
    path("costs/", views.costs_page, name="costs"),
    path("costs/export.csv", views.costs_csv, name="costs_csv"),
]
