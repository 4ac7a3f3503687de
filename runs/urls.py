from __future__ import annotations

from django.urls import path

from runs.views import agents, forks, launch, listing, live, report

app_name = "runs"

urlpatterns = [
    path("", launch.page, name="launch"),
    path("launch/estimate/", launch.estimate, name="estimate"),
    path("runs/", listing.page, name="list"),
    path("runs/<str:run_id>/", live.page, name="live"),
    path("runs/<str:run_id>/pause", live.pause, name="pause"),
    path("runs/<str:run_id>/resume", live.resume, name="resume"),
    path("runs/<str:run_id>/cancel", live.cancel, name="cancel"),
    path("runs/<str:run_id>/fork/", forks.page, name="fork"),
    path("runs/<str:run_id>/steer", live.steer, name="steer"),
    path("runs/<str:run_id>/steps/<int:seq>/", live.step, name="step"),
    path("runs/<str:run_id>/report/", report.page, name="report"),
    path("runs/<str:run_id>/report/state", report.state, name="report_state"),
    path("runs/<str:run_id>/report/execute", report.execute, name="execute"),
    path("runs/<str:run_id>/report/take-back", report.take_back, name="take_back"),
    path("runs/<str:run_id>/report/plan-again", report.plan_again, name="plan_again"),
    path("agents/", agents.index, name="agents"),
    path("agents/<str:slug>/", agents.page, name="agent"),
    path("agents/<str:slug>/connections", agents.try_connection, name="try_connection"),
    path("agents/<str:slug>/draft", agents.change, name="change_agent"),
    path("agents/<str:slug>/publish", agents.publish, name="publish_draft"),
    path("agents/<str:slug>/discard", agents.discard, name="discard_draft"),
]
