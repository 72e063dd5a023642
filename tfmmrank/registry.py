"""Names for the parts that a recipe can choose, and that a user can add to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

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
