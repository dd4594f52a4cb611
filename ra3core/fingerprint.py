"""What code a stage runs, as a digest: a change of it, and of nothing else, makes the stage's results stale.

The source of the stage's module and of every module of this package that it imports, directly or through others, is
found without running it. Comments, docstrings and formatting do not count. Modules that decide no result do not count
either, see PLUMBING: what configuration says is part of an artifact's key by its values.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

PACKAGE = Path(__file__).resolve().parent
PLUMBING = frozenset(
    f"{name}.py"
    for name in (
        "arms",
        "artifacts",
        "atomic",
        "config",
        "errors",
        "filters",
        "fingerprint",
        "section",
        "stage",
        "task_set",
    )
)

_Scanned: TypeAlias = tuple[str, frozenset[Path]]
"""The digest of one module's code, and the files of the package that it names."""

_parsing = threading.Lock()  # CPython 3.11's parser fails now and then when two threads build syntax trees


@cache
def code_digest(function: Callable[..., Any]) -> str:
    """sha256 of the code that a stage function runs; hexadecimal. Read once a process, when first asked for.

    Of a callable that only stands for a function of the module named in its `__module__`, that module is not imported.
    """
    return source_digest(_file(function), PACKAGE)


def changed(function: Callable[..., Any]) -> bool:
    """Whether the code is another by now than `code_digest` read: part of what runs may be that. Files that were not
    touched are not read again."""
    try:
        return source_digest(_file(function), PACKAGE, _read) != code_digest(function)
    except (OSError, SyntaxError, ValueError):  # gone, or half written
        return True


def _file(function: Callable[..., Any]) -> Path:
    """Where a stage function's module lies."""
    if inspect.isfunction(function):
        file = inspect.getsourcefile(function)
    else:
        spec = importlib.util.find_spec(function.__module__)
        file = spec.origin if spec else None
    if file is None:
        raise ValueError(f"{function!r} has no source file: a stage is a function of a module")
    return Path(file).resolve()


def source_digest(file: Path, package: Path, scan: Callable[[Path, Path], _Scanned] | None = None) -> str:
    """sha256 over a module's source and that of all modules of `package` (a folder) that it imports; hexadecimal.

    Found are import statements, also inside functions, and strings that name a module of the package ("ra3core.a.b",
    as in `python -m`) or a Python file beside the module ("child.py"): that is how helpers of child processes are
    named. A name put together at run time is not found. scan: reads a module; each once a process by default.
    """
    scan = scan or _scan
    seen: dict[Path, str] = {}
    waiting = [file]
    while waiting:
        module = waiting.pop()
        if module in seen or (module.is_relative_to(package) and module.relative_to(package).as_posix() in PLUMBING):
            continue
        seen[module], imported = scan(module, package)
        waiting.extend(imported)
    names = {  # independent of where the package lies
        module.relative_to(package).as_posix() if module.is_relative_to(package) else module.name: digest
        for module, digest in seen.items()
    }
    return hashlib.sha256(repr(sorted(names.items())).encode()).hexdigest()


@cache
def _scan(file: Path, package: Path) -> _Scanned:
    """One module, as it was when first asked for."""
    return _read(file, package)


def _read(file: Path, package: Path) -> _Scanned:
    """One module, as it is now."""
    status = file.stat()
    return _parsed(file, package, status.st_mtime_ns, status.st_size)


@cache
def _parsed(file: Path, package: Path, written: int, size: int) -> _Scanned:
    """A module of this time of writing and size."""
    with _parsing:
        tree = ast.parse(file.read_bytes(), str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    imported = {found for node in ast.walk(tree) for found in _named(node, file, package)}
    return hashlib.sha256(_dump(tree).encode()).hexdigest(), frozenset(imported)


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Remove every statement that is a bare string: the docstring, and those that describe a name above them."""
    node.body = [
        statement
        for statement in node.body
        if not (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
    ]


def _named(node: ast.AST, file: Path, package: Path) -> Iterator[Path]:
    """Files of the package that a node names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _files(alias.name, package)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            if not file.is_relative_to(package):
                return
            parents = (package.name, *file.relative_to(package).parts)[: -node.level]
            base = ".".join((*parents, base) if base else parents)
        for alias in node.names:  # a submodule, or a name in the module
            yield from _files(f"{base}.{alias.name}", package)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
        if text.startswith(f"{package.name}."):
            yield from _files(text, package)
        elif text.endswith(".py") and len(text) < 100 and (file.parent / text).is_file():
            yield (file.parent / text).resolve()


def _files(name: str, package: Path) -> Iterator[Path]:
    """The module `name` and the packages around it, as far as they are files of the package."""
    first, *parts = name.split(".")
    if first != package.name:
        return
    folder = package
    for part in (*parts, ""):
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"
        if part and (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
        folder = folder / part


def _dump(node: Any) -> str:
    """A syntax tree as text, without positions and empty fields, so that Python versions agree about it."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({','.join(f'{name}={_dump(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    return repr(node)
