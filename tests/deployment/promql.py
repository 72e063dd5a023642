"""What the dashboard and the rules ask Prometheus, and which metrics that needs."""

import json
import re

from tests.deployment.folder import SERVING, documents

_KEYWORDS = {"and", "or", "unless", "offset", "bool", "atan2", "start", "end"}
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")


def dashboard() -> dict:
    return json.loads((SERVING / "grafana/dashboards/tfmmrank.json").read_text("utf-8"))


def panels() -> list[dict]:
    """The dashboard's panels, without the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_queries() -> dict[str, str]:
    """The panels' queries by panel and letter, with Grafana's variables filled in."""
    return {
        f"{panel['title']} {target['refId']}": fill_in(target["expr"])
        for panel in panels()
        for target in panel["targets"]
    }


def rule_queries() -> dict[str, str]:
    """The alerts' expressions by alert."""
    return {rule["alert"]: rule["expr"] for group in groups() for rule in group["rules"]}


def groups() -> list[dict]:
    return documents("prometheus/alerts.yml")[0]["groups"]


def fill_in(query: str) -> str:
    return query.replace("$__rate_interval", "5m").replace("$model", ".*")


def metric_names(query: str) -> set[str]:
    """Names of the series that a PromQL expression selects.

    >>> sorted(metric_names('sum by (a) (rate(:x:y{z="up"}[5m])) / on (a) w offset 1h > 2e3'))
    [':x:y', 'w']
    """
    bare = re.sub(r'"(\\.|[^"\\])*"', "", query)
    bare = _GROUPING.sub(" ", re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare))
    bare = re.sub(r"(?<![\w:])\d[\w.]*", " ", bare)
    names = re.findall(r"[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])", bare)
    return {name for name in names if name not in _KEYWORDS}
