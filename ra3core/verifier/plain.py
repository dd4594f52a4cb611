"""Plain Python values as JSON text, types kept exactly: what crosses the wall between the judge and a judged program.

Plain means None, bool, int, float (nan and infinities too), complex, str, bytes, list, tuple,
dict, set and frozenset of such. JSON has fewer types, hence one-key objects:

    {"t": [..]} tuple    {"s": [..]} set     {"f": [..]} frozenset    {"d": [[key, value], ..]} dict
    {"b": "hex"} bytes   {"i": "hex"} an int too long for JSON         {"c": [re, im]} complex
    {"w": "hex"} a str with surrogates, which JSON would join in pairs
    {"u": value} an instance of a subclass, reduced to the plain value that it holds

The fork server loads this file by its path, so it imports the standard library alone. Decoding never runs code.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

MAX_DEPTH = 200
"""Deepest nesting that is encoded or decoded."""

_SMALL = 1 << 62
_FEW = 100  # items of a set that may hash alike
_WIDE = ("utf-32-le", "surrogatepass")


class NotPlain(Exception):
    """The value, or the text, is not plain data."""


class TooDeep(NotPlain):
    """The value is nested deeper than MAX_DEPTH, or holds itself."""


class Reduced:
    """A decoded instance of a subclass: `value` is what it held; its own methods stayed in the child."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:  # unhashable when the value is
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        return self is other


def dumps(value: Any, reduce: bool = False) -> bytes:
    """Encode `value`; with `reduce`, instances of subclasses are sent as the plain value that they hold.

    Raises NotPlain when the value is not plain, is nested deeper than MAX_DEPTH, or holds itself.
    """
    return _to_json(_pack(value, 0, reduce)).encode("ascii")


def loads(data: bytes) -> Any:
    """Decode what `dumps` encoded. Raises NotPlain for anything else, however it is malformed."""
    try:
        packed = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise NotPlain(f"not JSON: {type(error).__name__}") from None
    return unpack(packed)


def pack(value: Any, reduce: bool = False) -> Any:
    """`value` as the JSON structure described above."""
    return _pack(value, 0, reduce)


def unpack(packed: Any) -> Any:
    """The value of a JSON structure; raises NotPlain when it describes none."""
    try:
        return _unpack(packed, 0)
    except (TypeError, ValueError, OverflowError) as error:  # an unhashable key, a hex digit that is none
        raise NotPlain(f"malformed: {type(error).__name__}") from None


_to_json = json.JSONEncoder(ensure_ascii=True, check_circular=False, separators=(",", ":")).encode


def _pack(value: Any, depth: int, reduce: bool) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is str:
        return value if value.isascii() or not _has_surrogates(value) else {"w": value.encode(*_WIDE).hex()}
    if kind is int:
        return value if -_SMALL < value < _SMALL else {"i": hex(value)}
    if depth >= MAX_DEPTH:
        raise TooDeep("nested too deeply")
    depth += 1
    if kind is list:
        return [_pack(item, depth, reduce) for item in value]
    if kind is dict:
        return {"d": [[_pack(key, depth, reduce), _pack(item, depth, reduce)] for key, item in value.items()]}
    if kind is tuple:
        return {"t": [_pack(item, depth, reduce) for item in value]}
    if kind is set:
        return {"s": [_pack(item, depth, reduce) for item in value]}
    if kind is frozenset:
        return {"f": [_pack(item, depth, reduce) for item in value]}
    if kind is bytes:
        return {"b": value.hex()}
    if kind is complex:
        return {"c": [value.real, value.imag]}
    if reduce:
        return {"u": _pack(_reduce(value), depth, reduce)}
    raise NotPlain(f"a value of type {kind.__name__}")


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _reduce(value: Any) -> Any:
    """The plain value inside an instance of a subclass, read by the base class's own methods."""
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, str):
        return str.__getitem__(value, slice(None))
    if isinstance(value, dict):
        return {key: dict.__getitem__(value, key) for key in dict.keys(value)}
    if isinstance(value, list):
        return list.__getitem__(value, slice(None))
    if isinstance(value, tuple):
        return tuple.__getitem__(value, slice(None))
    if isinstance(value, frozenset):
        return frozenset(frozenset.__iter__(value))
    if isinstance(value, set):
        return set(set.__iter__(value))
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()  # such as numpy.int64, which is no int
    raise NotPlain(f"a value of type {type(value).__name__}")


def _unpack(packed: Any, depth: int) -> Any:
    kind = type(packed)
    if packed is None or kind is bool or kind is int or kind is float or kind is str:
        return packed
    if depth > MAX_DEPTH:
        raise NotPlain("nested too deeply")
    depth += 1
    if kind is list:
        return [_unpack(item, depth) for item in packed]
    if kind is not dict or len(packed) != 1:
        raise NotPlain("malformed: not a tagged value")
    tag, body = next(iter(packed.items()))
    if tag == "d":
        keys = scattered([_unpack(key, depth) for key, _ in _listed(body)])
        return dict(zip(keys, (_unpack(item, depth) for _, item in body), strict=True))
    if tag == "t":
        return tuple(_unpack(item, depth) for item in _listed(body))
    if tag == "s":
        return set(scattered([_unpack(item, depth) for item in _listed(body)]))
    if tag == "f":
        return frozenset(scattered([_unpack(item, depth) for item in _listed(body)]))
    if tag == "w":
        return bytes.fromhex(body).decode(*_WIDE)
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "i":
        return int(body, 16)
    if tag == "c":
        real, imag = (_unpack(part, depth) for part in _listed(body))
        return complex(real, imag)
    if tag == "u":
        return Reduced(_unpack(body, depth))
    raise NotPlain("malformed: unknown tag")


def scattered(items: list[Any]) -> list[Any]:
    """The items, when a set of them takes no quadratic time: many different numbers can be made to hash alike."""
    if len(items) > _FEW:
        hashes = list(map(hash, items))
        alike: dict[int, set[str]] = {value: set() for value, count in Counter(hashes).items() if count > _FEW}
        for item, value in zip(items, hashes, strict=True) if alike else ():
            if value in alike:
                alike[value].add(repr(item))
        if any(len(different) > _FEW for different in alike.values()):
            raise NotPlain("values that hash alike")
    return items


def _listed(body: Any) -> list[Any]:
    if type(body) is not list:
        raise NotPlain("malformed: not a list")
    return body
