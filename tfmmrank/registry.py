"""Names for the parts that a recipe can choose, and that a user can add to."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, get_type_hints

T = TypeVar("T", bound=type)


def nearest(name: str, known: Iterator[str] | list[str]) -> str:
    """Returns ``'; did you mean "x"?'`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


class Registry(Generic[T]):
    """Classes by name, in the order of their registration.

    Example:
        >>> fusions = Registry("fusion")
        >>> @fusions.register("mine")
        ... class Mine: ...
        >>> fusions["mine"] is Mine
        True
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._classes: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator. Raises ValueError when another class already has the name."""

        def add(cls: T) -> T:
            known = self._classes.get(name)
            # Running a notebook's cell again defines a class again.
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f'{self.what} "{name}" is already registered by {known.__module__}.{known.__qualname__}'
                )
            self._classes[name] = cls
            return cls

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._classes:
            raise ValueError(
                f'unknown {self.what} "{name}"{nearest(name, list(self))}; known: {", ".join(sorted(self))}'
            )
        return self._classes[name]

    def name_of(self, cls: type) -> str:
        """The name a class was registered under."""
        for name, known in self._classes.items():
            if known is cls:
                return name
        raise ValueError(
            f"{cls.__module__}.{cls.__qualname__} is not a registered {self.what}; decorate it with register"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __contains__(self, name: str) -> bool:
        return name in self._classes


def options_of(cls: type) -> dict[str, Any]:
    """Keyword arguments that a class and its bases name, without Keras's, and their types; ``Any`` where none is."""
    types: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__module__.startswith(("keras", "tf_keras", "tensorflow")):
            break
        if "__init__" in vars(base):
            init = vars(base)["__init__"]
            try:
                hints = get_type_hints(init)
            except NameError:  # imported for type checkers alone
                hints = {}
            for name, parameter in inspect.signature(init).parameters.items():
                if parameter.kind != parameter.VAR_KEYWORD:
                    types.setdefault(name, hints.get(name, Any))
    types.pop("self", None)
    return types
