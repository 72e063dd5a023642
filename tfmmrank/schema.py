"""What the shop's columns mean: the recipe, as validated configuration. Pure Python, no TensorFlow.

A recipe is one YAML file with three parts: ``data`` (tables and columns), ``model`` (towers, fusion, cross tower) and
``train``; a fourth, ``tune``, says what a search may vary. Paths in it are relative to the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tfmmrank.ranges import Range, with_value
from tfmmrank.registry import nearest

#: What a run's recipe is called.
RECIPE_FILE = "recipe.yaml"
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
#: The kinds of columns that the package's own towers read, and how a message calls them.
READABLE = {
    "text": ({"text", "categorical"}, "text"),
    "lexical": ({"text", "categorical"}, "text"),
    "pretrained_text": ({"text", "categorical"}, "text"),
    "image": ({"image"}, "a picture"),
    "pretrained_image": ({"image"}, "a picture"),
    "behaviour": ({"numeric", "categorical"}, "numeric or categorical"),
}
_CALLED = {"text": "text", "image": "a picture", "numeric": "numeric", "categorical": "categorical"}

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
    def slot_columns(self) -> dict[str, str]:
        """Slot features and their kind, always ``numeric``."""
        if isinstance(self.labels, LibSVM):
            return {"features": "numeric"}
        if isinstance(self.labels, ExampleLists):
            return dict.fromkeys(self.labels.features, "numeric")
        return dict.fromkeys(self.behaviour.features if self.behaviour is not None else (), "numeric")

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


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class TowerConfig(BaseModel):
    """One tower: its kind, side, columns, and whatever options its class takes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    columns: Annotated[list[str], BeforeValidator(_as_list)]
    side: Literal["query", "item", "slot"] = "item"
    share: str | None = None
    fused: bool = True

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


class ContextConfig(_Part):
    """List context: attention among the items of one list."""

    layers: int = Field(default=1, gt=0)
    heads: int = Field(default=2, gt=0)
    head_size: int = Field(default=64, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class MatchConfig(BaseModel):
    """A match: its kind, the towers it compares, and whatever options its class takes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    query: str
    item: str

    @property
    def options(self) -> dict[str, Any]:
        """Options passed to the match's class as they are."""
        return dict(self.model_extra or {})


class ModelConfig(_Part):
    """Towers by modality name, the fusion, the cross tower, matches by name."""

    dim: int = Field(default=64, gt=0)
    towers: dict[str, TowerConfig]
    fusion: Annotated[FusionConfig, BeforeValidator(_as_kind)] = FusionConfig()
    cross: CrossConfig = CrossConfig()
    context: ContextConfig | None = None
    match: dict[str, MatchConfig] = {}
    modality_dropout: dict[str, Annotated[float, Field(ge=0, lt=1)]] = {}


class TrainConfig(_Part):
    """How to train."""

    loss: str = "softmax_loss"
    loss_options: dict[str, Any] = {}
    optimizer: str = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="cosine: falls to 0 at the end")
    encoder_learning_rate: float | None = Field(
        default=None, gt=0, description="of pretrained encoders' trainable blocks; null: learning_rate"
    )
    weight_decay: float = Field(default=0.0, ge=0)
    weight_averaging: float | None = Field(
        default=None, gt=0, lt=1, description="decay a step of the average that is validated and kept; null: none"
    )
    clip_norm: float | None = Field(
        default=1.0, gt=0, description="of all gradients together; with encoder_learning_rate, the encoders' apart"
    )
    epochs: int = Field(default=20, gt=0)
    patience: int = Field(default=5, ge=0, description="epochs without a better validation NDCG@10; 0: no limit")
    batch_size: int = Field(default=32, gt=0, description="lists a step")
    list_size: int | None = Field(default=None, gt=1, description="slots a training list; longer lists are sampled")
    checkpoint_every_steps: int | None = Field(default=None, gt=0)
    jit_compile: bool = False
    mixed_precision: bool = Field(default=False, description="compute in bfloat16 in training; for GPUs and TPUs")
    seed: int = 0


class Recipe(_Part):
    """A whole recipe. ``root`` is the folder that its paths are relative to."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    tune: dict[str, Range] = Field(default={}, description="what a search may vary, by dotted key; training ignores it")
    root: Path = Field(Path(), exclude=True)

    def path(self, path: Path) -> Path:
        """A path of the recipe, made absolute; ``$VARIABLES`` and ``~`` are expanded."""
        import os

        expanded = Path(os.path.expandvars(str(path))).expanduser()
        return expanded if expanded.is_absolute() else (self.root / expanded).resolve()

    def with_train(self, **changes: Any) -> Recipe:
        """The recipe with other values of ``train``; those that are None stay as they are."""
        given = {key: value for key, value in changes.items() if value is not None}
        return self.model_copy(update={"train": self.train.model_copy(update=given)})

    def to_yaml(self) -> str:
        """The recipe, without ``tune``, as a file that may lie anywhere: its paths are absolute."""
        parts = {part: plain(getattr(self, part), lambda path: str(self.path(path))) for part in _PARTS}
        return yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)

    @classmethod
    def load(cls, file: str | Path) -> Recipe:
        """Reads and validates a YAML recipe, and checks that its towers read what its data has. Raises RecipeError."""
        file = Path(file)
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
        except OSError as error:
            raise RecipeError(f"{file}: cannot be read ({error.strerror})") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            found = ": ".join(part for part in (error.context, error.problem) if part)
            raise RecipeError(f"{file}: {place}{found}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise RecipeError(f"{file}: is not YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(content, dict):
            raise RecipeError(f"{file}: expected a mapping with data, model and train, found {type(content).__name__}")
        recipe = cls.from_dict(content, root=file.parent, source=str(file))
        wrong = recipe.wrong_towers()
        if wrong:
            raise RecipeError("\n".join(f"{file}: {line}" for line in wrong))
        return recipe

    def wrong_towers(self) -> list[str]:
        """What the data part shows to be wrong with the towers: one line a mistake; empty when all is well."""
        sides = {"query": self.data.query_columns, "item": self.data.item_columns, "slot": self.data.slot_columns}
        lines = []
        if all(tower.side == "query" for tower in self.model.towers.values()):
            lines.append("model.towers: none is of side item or slot; expected at least one")
        for name, tower in self.model.towers.items():
            for column in tower.columns:
                wrong = _wrong_column(tower, column, sides)
                lines += [f"model.towers.{name}: {wrong}"] if wrong else []
            wrong = _wrong_share(name, self.model.towers)
            lines += [f"model.towers.{name}.share: {wrong}"] if wrong else []
        return lines

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with other values at dotted keys, and without ``tune``. Raises RecipeError."""
        content: dict[str, Any] = self.model_dump(exclude={"root", "tune"})
        for key, value in values.items():
            try:
                content = with_value(content, key, value)
            except ValueError as error:
                raise RecipeError(f"{key}: {error}") from error
        return type(self).from_dict(content, self.root)

    def wrong_ranges(self) -> list[str]:
        """What is wrong with the keys and values of ``tune``: one line a mistake.

        Options of towers and fusions that are not in the recipe are known to their classes alone.
        """
        lines = []
        for key, values in self.tune.items():
            wrong = _wrong_tuned_key(key, self)
            if wrong:
                lines.append(f"tune.{key}: {wrong}")
                continue
            for value in values.samples():
                try:
                    self.with_values({key: value})
                except RecipeError as error:
                    lines.append(f"tune.{key}: with {value!r}, {str(error).removeprefix('recipe: ').splitlines()[0]}")
                    break
        return lines

    @classmethod
    def from_dict(cls, content: dict[str, Any], root: str | Path = ".", source: str = "recipe") -> Recipe:
        """Validates a recipe given as a dict. Raises RecipeError."""
        for key in content:
            if not isinstance(key, str):
                raise RecipeError(f"{source}: {key!r}: is no key; expected text (known: {', '.join(_keys_at(()))})")
            if key == "root":
                raise RecipeError(f"{source}: root: unknown key; paths are relative to the recipe's folder")
        try:
            recipe = cls(**content, root=Path(root).resolve())
        except ValidationError as error:
            raise RecipeError("\n".join(f"{source}: {line}" for line in _explain(error))) from error
        wrong = recipe.wrong_ranges()
        if wrong:
            raise RecipeError("\n".join(f"{source}: {line}" for line in wrong))
        return recipe


_PARTS = ("data", "model", "train")


def plain(value: Any, of_path: Callable[[Path], str]) -> Any:
    """A part of a recipe, of YAML's kinds: paths are what ``of_path`` makes of them, a None that is a default goes."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: plain(part, of_path)
            for name, part in value
            if part is not None or name not in fields or fields[name].default is not None
        }
    if isinstance(value, dict):
        return {key: plain(part, of_path) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part, of_path) for part in value]
    return of_path(value) if isinstance(value, Path) else value


class _Loader(yaml.SafeLoader):
    """YAML in which no mapping has a key twice."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        seen: dict[tuple[str, str], Any] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            first = seen.setdefault((key.tag, key.value), key)
            if first is not key:
                line = first.start_mark.line + 1
                found = f'key "{key.value}" stands there twice, first in line {line}; expected each key once'
                raise yaml.MarkedYAMLError(problem=found, problem_mark=key.start_mark)
        return node


def _wrong_column(tower: TowerConfig, column: str, sides: dict[str, dict[str, str]]) -> str | None:
    """What is wrong with a column that a tower reads; None when nothing is, as far as the recipe tells."""
    known = sides[tower.side]
    if column not in known:
        other = next((side for side in sides if column in sides[side]), None)
        if other:
            hint = f"; it is a column of side {other}, and the tower's side is {tower.side}"
        else:
            hint = nearest(column, list(known))
        return f'no {tower.side} column "{column}"{hint}; {tower.side} columns: {", ".join(known) or "none"}'
    kind = known[column]
    readable, called = READABLE.get(tower.kind, ({kind}, ""))
    if kind not in readable:
        return f'reads "{column}", which is {_CALLED[kind]}; expected {called}'
    if tower.kind == "behaviour" and tower.share is None:  # one that shares takes its owner's kinds, by place
        named = tower.options.get("categorical", [])
        if isinstance(named, list) and (column in named) != (kind == "categorical"):
            advice = "name it in" if kind == "categorical" else "take it out of"
            return f'reads "{column}", which is {kind}; {advice} the tower\'s "categorical"'
    return None


def _wrong_tuned_key(key: str, recipe: Recipe) -> str | None:
    """What is wrong with a key of ``tune``; None when nothing is, as far as the recipe tells."""
    known, towers = _tunable_keys(recipe.model), recipe.model.towers
    parts = key.split(".")
    if key == "train.seed":
        return "is the same in all trials, so that they differ in their options alone"
    around = next((other for other in recipe.tune if key.startswith(f"{other}.")), None)
    if around:
        return f'stands inside "{around}", which is tuned too; write it into each of its choices'
    if parts[0] == "data":
        return "the dataset is prepared before; expected a key inside model or train"
    if parts[:2] == ["model", "towers"] and len(parts) > 2 and parts[2] not in towers:
        return f'there is no tower "{parts[2]}"{nearest(parts[2], list(towers))}; towers: {", ".join(towers)}'
    # What stands below these, a class or a loss knows.
    options = (*(f"model.towers.{name}." for name in towers), "model.fusion.", "train.loss_options.")
    if key in known or (key.startswith(options) and all(parts)):
        return None
    same = [other for other in known if other.endswith("." + parts[-1])]
    hint = nearest(key, known) if not same else f'; did you mean "{same[0]}"?'
    return f"no such key{hint}" + ("" if hint else "; expected a key inside model or train, like train.learning_rate")


def _tunable_keys(model: ModelConfig) -> list[str]:
    """The dotted keys that a search may vary, as far as the recipe tells."""
    parts: dict[str, list[str]] = {
        "train": [name for name in TrainConfig.model_fields if name != "seed"],
        "model": list(ModelConfig.model_fields),
        "model.cross": list(CrossConfig.model_fields),
        "model.fusion": ["kind", *model.fusion.options],
        "model.towers": list(model.towers),
        **{f"model.towers.{name}": list(tower.model_dump()) for name, tower in model.towers.items()},
    }
    return [f"{part}.{name}" for part, names in parts.items() for name in names]


def _wrong_share(name: str, towers: dict[str, TowerConfig]) -> str | None:
    """What is wrong with the tower that a tower shares with; None when nothing is."""
    tower = towers[name]
    if tower.share is None:
        return None
    if tower.share not in towers:
        others = [other for other in towers if other != name and towers[other].share is None]
        return f'there is no tower "{tower.share}"{nearest(tower.share, others)}; towers: {", ".join(others) or "none"}'
    owner = towers[tower.share]
    if owner.share is not None:
        return f'tower "{tower.share}" itself shares with "{owner.share}"; expected a tower that shares with none'
    if owner.kind != tower.kind:
        return (
            f'tower "{tower.share}" is of kind "{owner.kind}"; expected "{tower.kind}": only towers of one kind share'
        )
    return None


def _explain(error: ValidationError) -> list[str]:
    """One line an error: key, what is wrong, the value received."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in _place(item["loc"])) or "(whole)"
        value = item["input"]
        if item["type"] == "extra_forbidden" and item["loc"][0] == "tune" and isinstance(value, dict):
            lines.append(
                f'{key}: stands in a mapping of its own; write the dotted key, "{key[len("tune.") :]}", in one'
            )
        elif item["type"] == "extra_forbidden":
            known = _keys_at(item["loc"][:-1])
            hint = nearest(str(item["loc"][-1]), known)
            lines.append(f"{key}: unknown key{hint}" + (f" (known: {', '.join(known)})" if known and not hint else ""))
        elif item["type"] == "missing":
            lines.append(f"{key}: is missing")
        elif item["type"] == "union_tag_not_found":
            lines.append(f"{key}.kind: is missing; expected one of {_quoted(_LABEL_KINDS)}")
        elif item["type"] == "union_tag_invalid":
            lines.append(f"{key}.kind: {_not_among(value['kind'], _LABEL_KINDS)}")
        elif item["type"] == "literal_error":
            known = re.findall("'([^']*)'", item["ctx"]["expected"])
            lines.append(f"{key}: {_not_among(value, known)}")
        elif item["type"] in ("model_type", "model_attributes_type", "dict_type"):
            known = _keys_at(item["loc"])
            keys = f" with the keys {', '.join(known)}" if known else ""
            lines.append(f"{key}: expected a mapping{keys}, got {value!r}")
        elif key.endswith(".table"):
            lines.append(f"{key}: expected a path or a list of paths, got {value!r}")
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ")
            lines.append(f"{key}: {message}" + ("" if isinstance(value, dict) else f", got {value!r}"))
    return list(dict.fromkeys(lines))


_LABEL_KINDS = ["judgements", "logs", "libsvm", "elwc", "sequence_example"]


def _place(location: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where an error is, as the recipe's keys: without the kind of labels, or of table, that pydantic tried."""
    if location[:2] == ("data", "labels"):
        location = (*location[:2], *location[3:])
    if location[:1] == ("data",) and "table" in location:
        location = location[: location.index("table") + 1]
    return location


def _not_among(value: Any, known: list[str]) -> str:
    found = f'"{value}"' if isinstance(value, str) else repr(value)
    hint = nearest(str(value), known)
    return f"found {found}{hint}{'' if hint else ';'} expected one of {_quoted(known)}"


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """The keys allowed at a place in the recipe, for suggestions."""
    kinds: dict[str, type[BaseModel]] = {"judgements": Judgements, "logs": Logs, "libsvm": LibSVM, "elwc": ExampleLists}
    parts: dict[str, type[BaseModel]] = {
        "data": DataConfig, "model": ModelConfig, "train": TrainConfig, "items": Items, "queries": Queries,
        "behaviour": Behaviour, "split": Split, "cross": CrossConfig, "context": ContextConfig,
        "sequence_example": ExampleLists, **kinds,
    }  # fmt: skip
    model: type[BaseModel] | None = Recipe if not location else parts.get(str(location[-1]))
    if location[:1] == ("tune",):
        model = Range if len(location) == 2 else None
    return [name for name in model.model_fields if name != "root"] if model else []
