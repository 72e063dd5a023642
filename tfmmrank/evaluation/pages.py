"""HTML from the package's own templates, everything escaped."""

from __future__ import annotations

from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Fills a template of ``tfmmrank/evaluation/templates``; a value that is missing is an error, not a blank."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfmmrank.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
