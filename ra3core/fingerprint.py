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
from typing import Any

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

_parsing = threading.Lock()  # CPython 3.11's parser fails now and then when two threads build syntax trees


@cache
def code_digest(function: Callable[..., Any]) -> str:
    """sha256 of the code that a stage function runs; hexadecimal. Read once a process, when first asked for.

    Of a callable that only stands for a function of the module named in its `__module__`, that module is not imported.
    """
    if inspect.isfunction(function):
        file = inspect.getsourcefile(function)
    else:
        spec = importlib.util.find_spec(function.__module__)
        file = spec.origin if spec else None
    if file is None:
        raise ValueError(f"{function!r} has no source file: a stage is a function of a module")
    return source_digest(Path(file).resolve(), PACKAGE)


def source_digest(file: Path, package: Path) -> str:
    """sha256 over a module's source and that of all modules of `package` (a folder) that it imports; hexadecimal.

    Found are import statements, also inside functions, and strings that name a module of the package ("ra3core.a.b",
    as in `python -m`) or a Python file beside the module ("child.py"): that is how helpers of child processes are
    named. A name put together at run time is not found.
    """
    seen: dict[Path, str] = {}
    waiting = [file]
    while waiting:
        module = waiting.pop()
        if module in seen or (module.is_relative_to(package) and module.relative_to(package).as_posix() in PLUMBING):
            continue
        seen[module], imported = _scan(module, package)
        waiting.extend(imported)
    names = {  # independent of where the package lies
        module.relative_to(package).as_posix() if module.is_relative_to(package) else module.name: digest
        for module, digest in seen.items()
    }
    return hashlib.sha256(repr(sorted(names.items())).encode()).hexdigest()


@cache
def _scan(file: Path, package: Path) -> tuple[str, frozenset[Path]]:
    """The digest of one module's code, and the files of the package that it names."""
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
