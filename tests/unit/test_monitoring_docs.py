"""The page on monitoring and the dashboard name the metrics that there are, and all of them."""

import json
import re
from pathlib import Path
from typing import Any

from leader_jobs.escort import OPTIONS
from leader_jobs.metrics import Metrics

_DOCS = Path(__file__).parents[2] / "docs"
_DASHBOARD = _DOCS / "grafana" / "leader-jobs.json"
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}


def sample_names() -> dict[str, set[str]]:
    """Return the names of all samples, by the name that the page has for the metric."""
    found = {}
    for family in Metrics(places=tuple).collect():
        names = {f"{family.name}{suffix}" for suffix in _SUFFIXES[family.type]}
        found[f"{family.name}_total" if family.type == "counter" else family.name] = names
    return found


def named_in(text: str) -> set[str]:
    """Return the metrics that *text* names."""
    return set(re.findall(r"\bleader_jobs_\w+", text))


def queries(dashboard: Any) -> list[str]:
    """Return the queries of all panels."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_can_be_imported() -> None:
    """It asks for a data source, brings no id of another installation, and its panels fit the grid."""
    dashboard = json.loads(_DASHBOARD.read_text())

    assert "id" not in dashboard
    assert dashboard["schemaVersion"] >= 36
    assert {variable["name"] for variable in dashboard["templating"]["list"]} >= {"datasource"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) > 8
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    """A metric that is renamed would leave a panel empty for good."""
    names = sample_names()
    shown = named_in(" ".join(queries(json.loads(_DASHBOARD.read_text()))))

    assert shown <= set().union(*names.values())
    assert [metric for metric, samples in names.items() if not samples & shown] == []
    for query in queries(json.loads(_DASHBOARD.read_text())):
        assert query.count("(") == query.count(")")
        assert query.count("{") == query.count("}")


def test_the_page_has_every_metric_and_no_other() -> None:
    """Its table is what there is to scrape, with its type; its alerts are about that."""
    page = (_DOCS / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(leader_jobs_\w+)` \| (\w+) \|", page, re.MULTILINE)
    families = Metrics(places=tuple).collect()
    types = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in families
    }

    assert dict(rows) == types
    assert named_in(page) - {"leader_jobs_probe_port"} <= set().union(
        types, *sample_names().values()
    )


def test_the_options_are_on_the_page_of_runleader() -> None:
    """Each option of this kind has its row."""
    page = (_DOCS / "django.md").read_text()
    for option in OPTIONS:
        assert f"`--{option.replace('_', '-')}" in page
