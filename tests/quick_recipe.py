"""The demo shop's recipe, made quick to train, export and serve."""

from pathlib import Path

import yaml


def with_quick_pictures(recipe: Path) -> None:
    """Rewrites a demo shop's recipe: a small network sees its pictures, and no pretrained one."""
    content = yaml.safe_load(recipe.read_text("utf-8"))
    del content["model"]["towers"]["colours"]
    content["model"]["towers"]["image"] = {"kind": "image", "columns": ["image"], "size": 32, "aspects": 2}
    recipe.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
