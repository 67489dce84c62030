"""Reads the imports of nis_edge and says where a floor of the house is violated. Pure: source text in, faults out.

The floors are those of ARCHITECTURE.md: a module may import only from floors below its own, and from its own room.
Rooms on one floor do not import each other, adapters never do; floors 0 to 3 touch no clock, chance, disk or network.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Final

ROOF: Final = 5

FLOOR_OF_ROOM: Final[dict[str, int]] = {
    "limits": 0, "clock": 0, "errors": 0, "events": 0, "waiting": 0,
    "pack": 1, "wire": 1, "physics": 1,
    "native": 2, "engine": 2,
    "monitor": 3, "power": 3, "router": 3, "update": 3,
    "adapters": 4,
}  # fmt: skip
"""Everything in nis_edge that is not named here stands on the roof."""

IMPURE_MODULES: Final = frozenset(
    {
        "asyncio", "concurrent", "datetime", "glob", "http", "io", "logging", "multiprocessing", "os", "paho",
        "pathlib", "psutil", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl",
        "structlog", "subprocess", "sys", "tempfile", "threading", "time", "tuf", "urllib", "urllib3", "uuid",
    }
)  # fmt: skip
"""What floors 0 to 3 may not import: time, chance, disk, network and threads are handed in as values."""

EXCEPTIONS: Final[dict[str, frozenset[str]]] = {
    # The one place that reads the operating system's clocks.
    "nis_edge.clock": frozenset({"time"}),
    # Bounds an await in time; the loop it runs on is the caller's.
    "nis_edge.waiting": frozenset({"asyncio"}),
    # A package is a mapped file: opening it, and writing it durably, is what the room is for.
    "nis_edge.pack.container": frozenset({"os", "pathlib"}),
    "nis_edge.pack.reader": frozenset({"os", "pathlib"}),
    "nis_edge.pack.writer": frozenset({"os", "pathlib"}),
    "nis_edge.pack.huggingface": frozenset({"os", "pathlib"}),
    "nis_edge.pack.gguf_checkpoint": frozenset({"os", "pathlib"}),
    # The engine's C library stands beside the package and is loaded from there.
    "nis_edge.engine.library": frozenset({"pathlib"}),
    "nis_edge.engine.model": frozenset({"os", "pathlib"}),
}

SHARED_ADAPTER_GROUND: Final = frozenset({"nis_edge.adapters"})


def floor_of(module: str) -> int:
    """The floor of a module of ours by its dotted name, e.g. ``nis_edge.pack.reader`` -> 1."""
    parts = module.split(".")
    if len(parts) == 1:
        return 0
    return FLOOR_OF_ROOM.get(parts[1], ROOF)


def imported_modules(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Dotted names a module imports, anywhere in it, with line numbers; ``if TYPE_CHECKING`` counts too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno
            if node.module in ("nis_edge", "nis_edge.adapters"):
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level, node.lineno


def violations(module: str, source: str) -> list[str]:
    """Every breach of the floors in one module, each as ``module:line: what``.

    Args:
        module: the dotted name, e.g. ``nis_edge.monitor.machine``.
        source: its text.
    """
    floor = floor_of(module)
    room = ".".join(module.split(".")[:2])
    found = []
    for name, line in imported_modules(ast.parse(source)):
        where = f"{module}:{line}"
        top = name.split(".")[0]
        if name.startswith("."):
            found.append(f"{where}: relative import; name the room")
        elif top in ("nis_models", "nis_ota"):
            found.append(f"{where}: nis_edge never imports {top}")
        elif top == "nis_edge":
            found.extend(f"{where}: {fault}" for fault in _inner_faults(module, room, floor, name))
        elif floor <= 3 and top in IMPURE_MODULES and top not in EXCEPTIONS.get(module, frozenset()):
            found.append(f"{where}: floor {floor} is pure and may not import {top}")
    if floor <= 3 and module not in EXCEPTIONS:
        found.extend(
            f"{module}:{node.lineno}: floor {floor} is pure and may not open files"
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
        )
    return found


def _inner_faults(module: str, room: str, floor: int, imported: str) -> Iterable[str]:
    imported_room = ".".join(imported.split(".")[:2])
    imported_floor = floor_of(imported)
    if imported == "nis_edge" or imported_floor < floor:
        return ()
    if floor == ROOF:
        return ()
    if room == "nis_edge.adapters" and imported_room == room:
        return (
            ()
            if imported in SHARED_ADAPTER_GROUND or imported == module
            else (f"adapters never import each other ({imported})",)
        )
    if imported_room == room:
        return ()
    if floor == 2 and imported_floor == 2 and room == "nis_edge.engine" and imported_room == "nis_edge.native":
        return ()  # the engine stands on the kernels of its own floor
    if floor == 0 and imported_floor == 0:
        return (f"the ground imports nothing of ours ({imported})",)
    return (f"floor {floor} may not import {imported} on floor {imported_floor}",)
