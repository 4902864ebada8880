"""Names of the previous version: they work for one more version, with a `DeprecationWarning`."""

from __future__ import annotations

__all__ = ["current_names", "fields_renamed", "methods_renamed", "names_moved"]

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


def fields_renamed(**names: str) -> Callable[[T], T]:
    """Keep the old field names of a dataclass, ``old="new"``, as keywords and as attributes.

    If both names are given the old one counts, since `dataclasses.replace` always fills in the new one.

    Examples:
        >>> import warnings
        >>> from dataclasses import dataclass, replace
        >>> @fields_renamed(speed="velocity")
        ... @dataclass(frozen=True)
        ... class Motion:
        ...     velocity: float = 1.0
        >>> with warnings.catch_warnings(action="ignore"):
        ...     Motion(speed=2.0), Motion().speed, replace(Motion(), speed=3.0)
        (Motion(velocity=2.0), 1.0, Motion(velocity=3.0))
    """

    def decorated(cls: T) -> T:
        init = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def with_old_names(self: Any, *args: Any, **values: Any) -> None:
            init(self, *args, **current_names(cls, values, warn=True))

        cls.__init__ = with_old_names  # type: ignore[misc]
        for old, new in names.items():
            setattr(cls, old, property(functools.partial(_read, old=old, new=new)))
        cls._former = names  # type: ignore[attr-defined]
        return cls

    return decorated


def current_names(cls: type, values: Mapping[str, Any], warn: bool = False) -> dict[str, Any]:
    """The values by the present field names of ``cls``; files of the previous version need no warning."""
    former: Mapping[str, str] = getattr(cls, "_former", {})
    found = {name: value for name, value in values.items() if name not in former}
    for old in former.keys() & values.keys():
        if warn:
            _warn(f"{cls.__name__}({old}=...)", f"{former[old]}=...", 4)
        found[former[old]] = values[old]
    return found


def methods_renamed(cls: type, **names: str) -> None:
    """Keep the old names of a class's methods, ``old="new"``, for calls and for overriding.

    An old name calls the method of the class where it is found, never of a subclass. So a subclass written for the
    previous version may call ``super()`` under the old name.
    """
    for old, new in names.items():
        own = cls.__dict__
        if old in own and new not in own:
            _warn(f"{cls.__name__}.{old}", new, 4)
            setattr(cls, new, own[old])
        elif new in own:
            setattr(cls, old, _under_its_old_name(own[new], old, new))


def _under_its_old_name(method: Callable[..., Any], old: str, new: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def called(self: Any, *args: Any, **values: Any) -> Any:
        _warn(f"{type(self).__name__}.{old}", new, 3)
        return method(self, *args, **values)

    called.__doc__ = f"The former name of `{new}`."
    return called


def _read(self: Any, old: str, new: str) -> Any:
    _warn(f"{type(self).__name__}.{old}", new, 3)
    return getattr(self, new)


def _warn(old: str, new: str, stacklevel: int) -> None:
    warnings.warn(f"{old} is now called {new}; the old name goes in the next version.", DeprecationWarning, stacklevel)


def names_moved(package: str, **homes: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package for names that are no longer public: ``name="module"`` is the home of each."""

    def found(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = f"{package}.{homes[name]}"
        said = f"{package}.{name} is no longer public; in the next version it is only in {home}."
        warnings.warn(said, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), name)

    found.homes = homes  # type: ignore[attr-defined]
    return found
