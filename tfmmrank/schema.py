"""What the shop's columns mean: the recipe, as validated configuration. Pure Python, no TensorFlow.

A recipe is one YAML file with three parts: ``data`` (tables and columns), ``model`` (towers, fusion, cross tower) and
``train``. Paths in it are relative to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfmmrank.registry import nearest

#: Names that no column or feature may have, and what has them.
RESERVED = {
    "query": "the query's text",
    "query_id": "the query's id",
    "item_id": "the item's id",
    "item_ids": "an input of the served model",
    "num_items": "an input of the served model",
    "item_row": "the item's place in the catalogue",
    "label": "the label",
    "weight": "the label's weight",
}
BEHAVIOUR_FEATURES = (
    "past_impressions",
    "past_clicks",
    "past_carts",
    "past_purchases",
    "past_ctr",
    "past_cart_rate",
    "past_purchase_rate",
    "past_mean_position",
    "age_days",
)


Grade = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the key, the value and what was expected."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Items(_Part):
    """The table of items. ``image`` holds a path, relative to ``image_root`` (default: the table's folder)."""

    table: Path | list[Path]
    id: str = "item_id"
    texts: list[str] = []
    image: str | None = None
    image_root: Path | None = None
    numeric: list[str] = []
    categorical: list[str] = []
    timestamp: str | None = None


class Queries(_Part):
    """The table of queries; ``numeric`` and ``categorical`` hold the user's or the moment's context."""

    table: Path | list[Path]
    id: str = "query_id"
    text: str | None = "query"
    numeric: list[str] = []
    categorical: list[str] = []
    timestamp: str | None = None
    split: str | None = None


class Judgements(_Part):
    """Graded judgements: one row a (query, item), grade >= 0, optional weight."""

    kind: Literal["judgements"] = "judgements"
    table: Path | list[Path]
    query_id: str = "query_id"
    item_id: str = "item_id"
    grade: str = "grade"
    weight: str | None = None


class Logs(_Part):
    """A behaviour log: one row an impression. Times are ISO 8601 or seconds since 1970, UTC.

    ``grades``, ``debias``, ``propensity`` and ``max_weight`` say how labels are made of it.
    """

    kind: Literal["logs"] = "logs"
    table: Path | list[Path]
    query_id: str = "query_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    position: str | None = None
    click: str = "click"
    cart: str | None = None
    purchase: str | None = None
    propensity: str | None = None
    grades: dict[Literal["click", "cart", "purchase"], Grade] = Field(
        default={"click": 1.0, "cart": 2.0, "purchase": 3.0}, min_length=1
    )
    debias: Literal["none", "ipw"] = "none"
    max_weight: float = Field(default=10.0, ge=1, allow_inf_nan=False, description="cap of 1 / propensity, for ipw")

    @model_validator(mode="after")
    def _propensity_for_ipw(self) -> Logs:
        if self.debias == "ipw" and self.propensity is None:
            raise ValueError('debias is "ipw", so propensity must name the column of known propensities')
        if self.debias == "none" and self.propensity is not None:
            raise ValueError(
                f'propensity is "{self.propensity}", and debias is "none", which ignores it; set "debias: ipw" under '
                "labels, or remove propensity"
            )
        return self


class LibSVM(_Part):
    """LETOR files (``grade qid:7 1:0.5 ...``), by split. There is no catalogue: features belong to the list."""

    kind: Literal["libsvm"] = "libsvm"
    files: dict[Literal["train", "valid", "test"], list[Path]]
    num_features: int | None = None


class ExampleLists(_Part):
    """TF-Ranking's own TFRecords, by split: ExampleListWithContext or SequenceExample, with dense float features."""

    kind: Literal["elwc", "sequence_example"]
    files: dict[Literal["train", "valid", "test"], list[Path]]
    features: dict[str, int] = Field(description="example feature name to its width")
    label: str = "label"
    weight: str | None = None
    query_text: str | None = Field(default=None, description="context feature with the query's text")

    @model_validator(mode="after")
    def _features_are_not_labels(self) -> ExampleLists:
        for key, name in (("label", self.label), ("weight", self.weight)):
            if name in self.features:
                raise ValueError(f'features: "{name}" is the {key}; a model that sees it would learn nothing else')
        for name in self.features:
            if name in RESERVED:
                raise ValueError(
                    f'features: "{name}" is reserved for {RESERVED[name]}; write the feature by another name'
                )
        return self


class Behaviour(_Part):
    """Features of past behaviour, folded from a log: for each list, only what happened before it (docs/data.md)."""

    logs: Logs
    features: list[str] = Field(default=list(BEHAVIOUR_FEATURES), min_length=1)
    prior_strength: float = Field(
        default=20.0, ge=0, allow_inf_nan=False, description="pseudo-impressions at the shop's mean rate"
    )

    @model_validator(mode="after")
    def _known_features(self) -> Behaviour:
        for name in self.features:
            if name not in BEHAVIOUR_FEATURES:
                raise ValueError(
                    f'unknown behaviour feature "{name}"{nearest(name, list(BEHAVIOUR_FEATURES))}; '
                    f"known: {', '.join(BEHAVIOUR_FEATURES)}"
                )
            if self.features.count(name) > 1:
                raise ValueError(f'behaviour feature "{name}" stands there twice; expected each once')
        return self


class Split(_Part):
    """How lists are parted: by the query table's column, by hash of the normalised query text, or by time."""

    by: Literal["column", "query", "time"] = "column"
    valid: float = Field(default=0.1, ge=0, lt=1, description="share of lists, for query and time")
    test: float = Field(default=0.2, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Split:
        if self.valid + self.test >= 1:
            raise ValueError(
                f"valid ({self.valid}) and test ({self.test}) leave nothing to train on; expected a sum below 1"
            )
        return self


class DataConfig(_Part):
    """Tables, columns, labels, splits."""

    name: str = "shop"
    items: Items | None = None
    queries: Queries | None = None
    labels: Annotated[Judgements | Logs | LibSVM | ExampleLists, Field(discriminator="kind")]
    behaviour: Behaviour | None = None
    split: Split = Split()
    on_bad_row: Literal["fail", "skip"] = "fail"
    max_image_pixels: int = Field(default=50_000_000, gt=0)
    chunk_rows: int = Field(default=100_000, gt=0, description="rows held at once while preparing")

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        tables = self.labels.kind in ("judgements", "logs")
        if tables and (self.items is None or self.queries is None):
            raise ValueError(f'labels of kind "{self.labels.kind}" need both "items" and "queries"')
        if not tables:
            # By value, and not by what was set: a run keeps its recipe with all defaults written out.
            parts = {"items": None, "queries": None, "behaviour": None, "split": Split()}
            ignored = [name for name, default in parts.items() if getattr(self, name) != default]
            if ignored:
                raise ValueError(
                    f'labels of kind "{self.labels.kind}" bring lists that are split and carry their features; '
                    f"remove {', '.join(ignored)}"
                )
        if tables and self.split.by == "time" and self.queries is not None and self.queries.timestamp is None:
            raise ValueError('split.by is "time", so queries.timestamp must name the column')
        if tables and self.split.by == "column" and self.queries is not None and self.queries.split is None:
            raise ValueError('split.by is "column", so queries.split must name the column')
        self._check_names()
        return self

    def _check_names(self) -> None:
        """Refuses columns of one name, and names that are taken. Raises ValueError."""
        features = dict.fromkeys(BEHAVIOUR_FEATURES if self.behaviour is not None else (), "a behaviour feature")
        seen: dict[str, str] = {}
        for where, names in self._columns():
            for name in names:
                taken = {**RESERVED, **features}.get(name, "a behaviour feature" if name.startswith("past_") else None)
                if taken:
                    raise ValueError(
                        f'{where}: column name "{name}" is reserved for {taken}; rename the column, or use a copy of '
                        "it by another name"
                    )
                if name in seen:
                    raise ValueError(f'{where}: column "{name}" is already used by {seen[name]}')
                seen[name] = where

    def _columns(self) -> list[tuple[str, list[str]]]:
        columns = []
        if self.items is not None:
            image = [self.items.image] if self.items.image else []
            columns += [("items.texts", self.items.texts), ("items.image", image)]
            columns += [("items.numeric", self.items.numeric), ("items.categorical", self.items.categorical)]
        if self.queries is not None:
            columns += [("queries.numeric", self.queries.numeric), ("queries.categorical", self.queries.categorical)]
        return columns

    @property
    def item_columns(self) -> dict[str, str]:
        """Raw item columns and their kinds: ``text``, ``image``, ``numeric`` or ``categorical``."""
        if self.items is None:
            return {}
        kinds = dict.fromkeys(self.items.texts, "text")
        if self.items.image:
            kinds[self.items.image] = "image"
        kinds.update(dict.fromkeys(self.items.numeric, "numeric"))
        kinds.update(dict.fromkeys(self.items.categorical, "categorical"))
        return kinds

    @property
    def query_columns(self) -> dict[str, str]:
        """Raw query columns and their kinds; the text column is called ``query`` whatever the table calls it."""
        if isinstance(self.labels, ExampleLists) and self.labels.query_text:
            return {"query": "text"}
        if self.queries is None:
            return {}
        kinds = {"query": "text"} if self.queries.text else {}
        kinds.update(dict.fromkeys(self.queries.numeric, "numeric"))
        kinds.update(dict.fromkeys(self.queries.categorical, "categorical"))
        return kinds


class TowerConfig(BaseModel):
    """One tower: its kind, side, columns, and whatever options its class takes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    columns: list[str]
    side: Literal["query", "item", "slot"] = "item"
    share: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options passed to the tower's class as they are."""
        return dict(self.model_extra or {})


class FusionConfig(BaseModel):
    """The fusion's name and its class's options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = "concat"

    @property
    def options(self) -> dict[str, Any]:
        """Options passed to the fusion's class as they are."""
        return dict(self.model_extra or {})


class CrossConfig(_Part):
    """The cross tower over the fused vector: DCN cross layers, then deep layers."""

    layers: int = Field(default=2, ge=0)
    projection_dim: int | None = Field(default=None, gt=0)
    deep: list[int] = [128, 64]
    dropout: float = Field(default=0.0, ge=0, lt=1)


class ModelConfig(_Part):
    """Towers by modality name, the fusion, the cross tower."""

    dim: int = Field(default=64, gt=0)
    towers: dict[str, TowerConfig]
    fusion: FusionConfig = FusionConfig()
    cross: CrossConfig = CrossConfig()


class TrainConfig(_Part):
    """How to train."""

    loss: str = "softmax_loss"
    loss_options: dict[str, Any] = {}
    optimizer: str = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    epochs: int = Field(default=20, gt=0)
    patience: int = Field(default=5, ge=0, description="epochs without a better validation NDCG@10; 0: no limit")
    batch_size: int = Field(default=32, gt=0, description="lists a step")
    list_size: int | None = Field(default=None, gt=1, description="slots a training list; longer lists are sampled")
    checkpoint_every_steps: int | None = Field(default=None, gt=0)
    jit_compile: bool = False
    seed: int = 0


class Recipe(_Part):
    """A whole recipe. ``root`` is the folder that its paths are relative to."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    root: Path = Field(Path(), exclude=True)

    def path(self, path: Path) -> Path:
        """A path of the recipe, made absolute; ``$VARIABLES`` and ``~`` are expanded."""
        import os

        expanded = Path(os.path.expandvars(str(path))).expanduser()
        return expanded if expanded.is_absolute() else (self.root / expanded).resolve()

    @classmethod
    def load(cls, file: str | Path) -> Recipe:
        """Reads and validates a YAML recipe. Raises RecipeError."""
        file = Path(file)
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"{file}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{file}: is not YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(content, dict):
            raise RecipeError(f"{file}: expected a mapping with data, model and train, found {type(content).__name__}")
        return cls.from_dict(content, root=file.parent, source=str(file))

    @classmethod
    def from_dict(cls, content: dict[str, Any], root: str | Path = ".", source: str = "recipe") -> Recipe:
        """Validates a recipe given as a dict. Raises RecipeError."""
        for key in content:
            if not isinstance(key, str):
                raise RecipeError(f"{source}: {key!r}: is no key; expected text (known: {', '.join(_keys_at(()))})")
            if key == "root":
                raise RecipeError(f"{source}: root: unknown key; paths are relative to the recipe's folder")
        try:
            return cls(**content, root=Path(root).resolve())
        except ValidationError as error:
            raise RecipeError("\n".join(f"{source}: {line}" for line in _explain(error))) from error


def _explain(error: ValidationError) -> list[str]:
    """One line an error: key, what is wrong, the value received."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            known = _keys_at(item["loc"][:-1])
            hint = nearest(str(item["loc"][-1]), known)
            lines.append(f"{key}: unknown key{hint}" + (f" (known: {', '.join(known)})" if known and not hint else ""))
        elif item["type"] == "missing":
            lines.append(f"{key}: is missing")
        else:
            value = item["input"]
            shown = "" if isinstance(value, dict) else f", got {value!r}"
            lines.append(f"{key}: {item['msg'].removeprefix('Value error, ')}{shown}")
    return lines


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """The keys allowed at a place in the recipe, for suggestions."""
    kinds: dict[str, type[BaseModel]] = {"judgements": Judgements, "logs": Logs, "libsvm": LibSVM, "elwc": ExampleLists}
    parts: dict[str, type[BaseModel]] = {
        "data": DataConfig, "model": ModelConfig, "train": TrainConfig, "items": Items, "queries": Queries,
        "behaviour": Behaviour, "split": Split, "cross": CrossConfig, "sequence_example": ExampleLists, **kinds,
    }  # fmt: skip
    model: type[BaseModel] | None = Recipe if not location else parts.get(str(location[-1]))
    return [name for name in model.model_fields if name != "root"] if model else []
