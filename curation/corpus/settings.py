"""Settings that were kept as JSON, as the dataclass that they were.

What a later version of the program added is at its default, which is what it was then.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def settings_from(kind: type[T], content: Any) -> T:
    """A settings dataclass out of its JSON.

    Args:
        kind: the dataclass; its fields may be dataclasses, tuples of them, or either or None.
        content: the object that `dataclasses.asdict` and json made of it.

    Raises:
        ValueError: if it names a setting that there is none of, or has a value that is not allowed.
    """
    return cast(T, _value(kind, content))


def _value(hint: Any, content: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        if content is None:
            return None
        (hint, *_) = [each for each in get_args(hint) if each is not NoneType]
        return _value(hint, content)
    if is_dataclass(hint) and isinstance(content, dict):
        hints = get_type_hints(hint)
        unknown = set(content) - {field.name for field in fields(hint)}
        if unknown:
            raise ValueError(f"there is no setting {', '.join(sorted(unknown))}")
        given = {name: _value(hints[name], value) for name, value in content.items()}
        return cast(Any, hint)(**given)
    if get_origin(hint) is tuple and isinstance(content, list):
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(_value(kinds[0], each) for each in content)
        return tuple(_value(each, one) for each, one in zip(kinds, content, strict=True))
    return content
