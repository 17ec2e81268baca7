"""How values are written as plain msgpack values, and what is accepted when they are read: one form for each type."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from types import NoneType
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from flashsd_ray import errors
from flashsd_ray.errors import FlashSDError, WireError
from flashsd_ray.wire.buffers import BufferReader, BufferWriter

MAX_INT_BYTES = 32  # of integers beyond 64 bits: seeds

ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FlashSDError)
}


class Form(Protocol):
    """One type's way onto the wire and back."""

    def write(self, value: Any, buffers: BufferWriter) -> Any:
        """What msgpack is given for the value."""
        ...

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The value that was written as ``plain``.

        Raises:
            WireError: nothing of this type is written so.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Scalar:
    """None, a truth value, a number, a text or bytes, as it is."""

    kinds: tuple[type, ...]

    def write(self, value: Any, buffers: BufferWriter) -> Any:
        """The value itself."""
        return checked(value, self.kinds)

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The value itself."""
        return checked(plain, self.kinds)


class Integer:
    """A whole number; one that does not fit into 64 bits is written as bytes."""

    def write(self, value: Any, buffers: BufferWriter) -> int | bytes:
        """The number or its bytes."""
        number: int = checked(value, (int,))
        if -(2**63) <= number < 2**63:
            return number
        size = number.bit_length() // 8 + 1
        if size > MAX_INT_BYTES:
            raise WireError(f"an integer of {size} bytes cannot be sent, {MAX_INT_BYTES} are the most")
        return number.to_bytes(size, "big", signed=True)

    def read(self, plain: Any, buffers: BufferReader) -> int:
        """The number."""
        if type(plain) is bytes and len(plain) <= MAX_INT_BYTES:
            return int.from_bytes(plain, "big", signed=True)
        number: int = checked(plain, (int,))
        return number


class Real:
    """A floating-point number; whole numbers are written as such where one is expected."""

    def write(self, value: Any, buffers: BufferWriter) -> float:
        """The number."""
        return float(checked(value, (float, int)))

    def read(self, plain: Any, buffers: BufferReader) -> float:
        """The number."""
        number: float = checked(plain, (float,))
        return number


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def write(self, value: Any, buffers: BufferWriter) -> Any:
        """The value itself."""
        return self.read(value, BufferReader(memoryview(b"")))

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The value itself."""
        if not isinstance(plain, (str, int)) or plain not in self.values:
            raise WireError(f"expected one of {self.values}, found {named(plain)}")
        return plain


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A member of an enum, by its value."""

    kind: type[Enum]

    def write(self, value: Any, buffers: BufferWriter) -> Any:
        """The member's value."""
        return checked(value, (self.kind,)).value

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The member."""
        try:
            return self.kind(plain)
        except ValueError:
            raise WireError(f"{self.kind.__name__} has no member {named(plain)}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class Maybe:
    """A value or None."""

    form: Form

    def write(self, value: Any, buffers: BufferWriter) -> Any:
        """None or what the value is written as."""
        return None if value is None else self.form.write(value, buffers)

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """None or the value."""
        return None if plain is None else self.form.read(plain, buffers)


@dataclasses.dataclass(frozen=True, slots=True)
class Items:
    """Any number of values of one type, in a tuple or a list."""

    kind: type[tuple[Any, ...]] | type[list[Any]]
    form: Form

    def write(self, value: Any, buffers: BufferWriter) -> list[Any]:
        """What the values are written as."""
        return [self.form.write(item, buffers) for item in checked(value, (self.kind,))]

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The values."""
        return self.kind([self.form.read(item, buffers) for item in checked(plain, (list,))])


@dataclasses.dataclass(frozen=True, slots=True)
class Integers(Items):
    """The same for whole numbers, of which there may be thousands: ordinary ones are not looked at one by one."""

    def write(self, value: Any, buffers: BufferWriter) -> list[Any]:
        """The numbers."""
        numbers = list(checked(value, (self.kind,)))
        if set(map(type, numbers)) == {int} and min(numbers) >= -(2**63) and max(numbers) < 2**63:
            return numbers
        return Items.write(self, value, buffers)

    def read(self, plain: Any, buffers: BufferReader) -> Any:
        """The numbers."""
        if set(map(type, checked(plain, (list,)))) == {int}:
            return self.kind(plain)
        return Items.read(self, plain, buffers)


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """Values of one type by their names."""

    form: Form

    def write(self, value: Any, buffers: BufferWriter) -> dict[str, Any]:
        """What the values are written as, by name."""
        if not isinstance(value, Mapping):
            raise WireError(f"expected names and values, found {named(value)}")
        return {checked(name, (str,)): self.form.write(item, buffers) for name, item in value.items()}

    def read(self, plain: Any, buffers: BufferReader) -> dict[str, Any]:
        """The values by name."""
        items = checked(plain, (dict,)).items()
        return {checked(name, (str,)): self.form.read(item, buffers) for name, item in items}


class TensorForm:
    """A tensor: its dtype and shape; the elements lie behind the packed part."""

    def write(self, value: Any, buffers: BufferWriter) -> list[Any]:
        """Dtype and shape."""
        if not isinstance(value, Tensor):
            raise WireError(f"expected a tensor, found {named(value)}")
        return buffers.add_tensor(value)

    def read(self, plain: Any, buffers: BufferReader) -> Tensor:
        """The tensor, on the CPU."""
        return buffers.tensor(plain)


class ArrayForm:
    """A numpy array: its dtype and shape; the elements lie behind the packed part."""

    def write(self, value: Any, buffers: BufferWriter) -> list[Any]:
        """Dtype and shape."""
        return buffers.add_array(checked(value, (np.ndarray,)))

    def read(self, plain: Any, buffers: BufferReader) -> np.ndarray:
        """The array."""
        return buffers.array(plain)


class ErrorForm:
    """One of this package's errors: its class, its message, and when to try again."""

    def write(self, value: Any, buffers: BufferWriter) -> list[Any]:
        """Class, message and time; an error of an unknown class goes as the nearest known one."""
        if not isinstance(value, FlashSDError):
            raise WireError(f"expected an error of this package, found {named(value)}")
        name = next(kind.__name__ for kind in type(value).__mro__ if ERRORS.get(kind.__name__) is kind)
        return [name, str(value), getattr(value, "retry_after_s", None)]

    def read(self, plain: Any, buffers: BufferReader) -> FlashSDError:
        """The error."""
        name, message, retry_after_s = fixed(plain, 3)
        kind = ERRORS.get(checked(name, (str,)))
        if kind is None:
            raise WireError(f"unknown error {name!r}")
        checked(message, (str,))
        if checked(retry_after_s, (float, int, NoneType)) is None:
            return kind(message)
        make: Callable[..., FlashSDError] = kind
        return make(message, retry_after_s=float(retry_after_s))


def checked(value: Any, kinds: tuple[type, ...]) -> Any:
    """The value, which is of exactly one of these types: True is no number.

    Raises:
        WireError: it is of another type.
    """
    if type(value) not in kinds:
        raise WireError(f"expected {' or '.join(kind.__name__ for kind in kinds)}, found {named(value)}")
    return value


def fixed(plain: Any, count: int) -> list[Any]:
    """The items of a list that has so many.

    Raises:
        WireError: it is no list, or has more or fewer.
    """
    items: list[Any] = checked(plain, (list,))
    if len(items) != count:
        raise WireError(f"expected {count} values, found {len(items)}")
    return items


def named(value: Any) -> str:
    """What an error message calls a value."""
    shown = f" {value!r:.40}" if isinstance(value, (str, int, float)) else ""
    return type(value).__name__ + shown
