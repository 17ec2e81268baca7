"""Which values can be sent, and the form that a type annotation stands for.

Forms are made from annotations, so the fields of a dataclass say by themselves what may stand in a message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from functools import cache, cached_property
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from flashsd_ray.errors import FlashSDError, WireError
from flashsd_ray.wire.buffers import BufferReader, BufferWriter
from flashsd_ray.wire.forms import (
    ArrayForm,
    Choice,
    ErrorForm,
    Form,
    Integer,
    Integers,
    Items,
    Maybe,
    Member,
    Named,
    Real,
    Scalar,
    TensorForm,
    checked,
    fixed,
    named,
)

Kind = TypeVar("Kind", bound=type)
KINDS: dict[str, Any] = {}  # dataclasses and enums that may stand where no annotation says what comes


def register(kind: Kind) -> Kind:
    """Values of this dataclass or enum can be sent by themselves; usable as a decorator.

    Raises:
        WireError: another type of this name is registered.
    """
    if KINDS.setdefault(kind.__name__, kind) is not kind:
        raise WireError(f"two types named {kind.__name__} cannot both be sent")
    return kind


class Record:
    """A dataclass: its fields in their order."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind

    @cached_property
    def fields(self) -> list[tuple[str, Form]]:
        """Names and forms; found when they are needed, because a dataclass may hold others of its own kind."""
        hints = get_type_hints(self.kind, localns={"Tensor": Tensor, "np": np})
        return [(item.name, form_of(hints[item.name])) for item in dataclasses.fields(self.kind) if item.init]

    def write(self, value: Any, buffers: BufferWriter) -> list[Any]:
        """What the fields are written as."""
        checked(value, (self.kind,))
        return [form.write(getattr(value, name), buffers) for name, form in self.fields]

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The dataclass; what it checks by itself holds."""
        pairs = zip(self.fields, fixed(plain, len(self.fields)), strict=True)
        values = {name: form.read(item, buffers) for (name, form), item in pairs}
        try:
            return self.kind(**values)
        except (FlashSDError, TypeError, ValueError) as error:
            raise WireError(f"{self.kind.__name__} is not valid: {error}") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Anything:
    """A value of any type that can be sent; says of which. ``kinds`` are those accepted, all when empty."""

    kinds: tuple[type, ...] = ()

    def write(self, value: Any, buffers: BufferWriter) -> Any:
        """The value's kind and what it is written as; None, texts, bytes and ordinary numbers as they are."""
        kind: type[Any] = type(value)
        if kind in _AS_IT_IS:
            return value
        if kind is int:
            plain = _INTEGER.write(value, buffers)
            return plain if type(plain) is int else ["int", plain]
        if KINDS.get(kind.__name__) is kind:
            return [kind.__name__, form_of(kind).write(value, buffers)]
        for name, (base, form) in _CONTAINERS.items():
            if isinstance(value, base):
                return [name, form.write(value, buffers)]
        raise WireError(f"{named(value)} cannot be sent")

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The value."""
        value = self._read(plain, buffers) if isinstance(plain, list) else checked(plain, _PLAIN)
        if self.kinds and not isinstance(value, self.kinds):
            raise WireError(f"expected one of {[kind.__name__ for kind in self.kinds]}, found {named(value)}")
        return value

    def _read(self, plain: list[Any], buffers: BufferReader) -> Any:
        name, written = fixed(plain, 2)
        checked(name, (str,))
        if name in KINDS:
            return form_of(KINDS[name]).read(written, buffers)
        if name not in _CONTAINERS:
            raise WireError(f"unknown kind of value {name!r}")
        return _CONTAINERS[name][1].read(written, buffers)


@cache
def form_of(annotation: Any) -> Form:
    """The form of everything that the annotation allows.

    Raises:
        WireError: values of this type cannot be sent.
    """
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return Choice(arguments)
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is list or (origin is tuple and arguments[1:] == (...,)):
        return (Integers if arguments[0] is int else Items)(origin, form_of(arguments[0]))
    if origin in (dict, Mapping) and arguments[0] is str:
        return Named(form_of(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Member(annotation)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return Record(annotation)
    raise WireError(f"{annotation} is not a type that can be sent")


def _union(arguments: tuple[Any, ...]) -> Form:
    others = tuple(argument for argument in arguments if argument is not NoneType)
    form = form_of(others[0]) if len(others) == 1 else Anything(others)
    return form if len(others) == len(arguments) else Maybe(form)


_AS_IT_IS: frozenset[Any] = frozenset((NoneType, bool, float, str, bytes))
_PLAIN = (NoneType, bool, int, float, str, bytes)
_INTEGER = Integer()
_ANYTHING = Anything()
_SIMPLE: dict[Any, Form] = {
    Any: _ANYTHING,
    object: _ANYTHING,
    bool: Scalar((bool,)),
    int: _INTEGER,
    float: Real(),
    str: Scalar((str,)),
    bytes: Scalar((bytes,)),
    Tensor: TensorForm(),
    np.ndarray: ArrayForm(),
    FlashSDError: ErrorForm(),
}
_CONTAINERS: dict[str, tuple[type, Form]] = {
    "tuple": (tuple, Items(tuple, _ANYTHING)),
    "list": (list, Items(list, _ANYTHING)),
    "dict": (dict, Named(_ANYTHING)),
    "tensor": (Tensor, TensorForm()),
    "array": (np.ndarray, ArrayForm()),
    "error": (FlashSDError, ErrorForm()),
    "int": (int, _INTEGER),
}
