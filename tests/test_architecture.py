"""The rules of the code base that a reader relies on: layers, cycles, who makes tasks, sizes, names, import cost."""

from __future__ import annotations

import ast
import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.figure import FIGURES

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "flatwater"

# What each layer may import, beside itself. A new layer is added here, in its row (docs/internals.md draws them).
BELOW_SERVER = {"guard", "memory", "engine", "store", "gateway", "settings", "listener", "bounded"}
BELOW_SERVER |= {"errors", "quantity", "extension"}
LAYERS: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"server", "demo"} | BELOW_SERVER,
    "agent": {"memory"},
    "pytest_plugin": {"server"} | BELOW_SERVER,
    "server": BELOW_SERVER,
    "demo": BELOW_SERVER - {"settings"},
    "guard": {"quantity", "memory", "bounded", "errors"},
    "engine": {"store", "bounded", "extension", "errors"},
    "gateway": {"listener", "quantity", "bounded", "errors"},
    "memory": {"quantity", "bounded", "extension", "errors"},
    "store": {"bounded", "errors"},
    "settings": {"quantity", "errors"},  # read by cli and server only: the layers take plain values
    "listener": {"bounded", "errors"},
    "bounded": {"errors"},
    "extension": {"errors"},
    "errors": set(),
    "quantity": set(),
}

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_CLASS_LINES = 350
MAX_MEDIAN_FUNCTION_LINES = 8
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"}
HEAVY = ["sqlalchemy", "starlette", "uvicorn", "aiohttp", "rich", "textual", "prometheus_client", "alembic"]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_bytes(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.fixture(autouse=True, scope="module")
def _parsed_once() -> Iterator[None]:
    """A million nodes would be looked at by every later collection."""
    yield
    trees.cache_clear()


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(module: str, tree: ast.Module, *, typing_too: bool = True) -> Iterator[tuple[str, int]]:
    """Every module of ours that ``module`` imports anywhere in its text, with the line."""
    skipped = set() if typing_too else {id(node) for block in typing_blocks(tree) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.startswith("flatwater"))
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            if base.split(".")[0] == "flatwater":
                for alias in node.names:
                    name = f"{base}.{alias.name}"
                    yield (name if name in trees() else base), node.lineno


def absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = (SOURCE / Path(*module.split("."))).is_dir()
    parts = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
    return ".".join([*parts, node.module] if node.module else parts)


def typing_blocks(tree: ast.Module) -> Iterator[ast.If]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield node


def functions() -> Iterator[tuple[str, Function]]:
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield module, node


def length(node: Function | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_module_has_its_layer() -> None:
    unknown = {layer(module) for module in trees()} - LAYERS.keys() - {""}
    assert not unknown, f"not in a row of LAYERS: {unknown}"


def test_layers_point_one_way() -> None:
    wrong = [
        f"{module}:{line} imports {target}"
        for module, tree in trees().items()
        for target, line in imports(module, tree)
        if layer(target) not in LAYERS.get(layer(module), set()) | {layer(module), ""}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    """At run time, lazy imports in functions included; imports for type checkers alone are not."""
    graph = {
        module: {target for target, _ in imports(module, tree, typing_too=False)} - {module}
        for module, tree in trees().items()
    }
    assert not (found := cycle(graph)), " → ".join(found)


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one cycle, the first one repeated at the end; empty when there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


def test_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_bounded_creates_tasks() -> None:
    forbidden = {"create_task", "ensure_future", "run_coroutine_threadsafe"}
    wrong = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module, tree in trees().items()
        if layer(module) != "bounded"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and (node.attr in forbidden or ast.unparse(node) == "asyncio.TaskGroup"))
        or (isinstance(node, ast.ImportFrom) and node.module == "asyncio")
    ]
    assert not wrong, "use flatwater.bounded.TaskGroup:\n" + "\n".join(wrong)


def test_files_are_small() -> None:
    folders = [PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "examples"))]
    sizes = {path: len(path.read_bytes().splitlines()) for folder in folders for path in folder.rglob("*.py")}
    large = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in sizes.items() if lines > MAX_FILE_LINES]
    assert not large, "\n".join(large)


def test_functions_are_small(pytestconfig: pytest.Config) -> None:
    lengths = [(length(node), f"{module}.{node.name}") for module, node in functions()]
    large = [f"{name}: {lines} lines" for lines, name in lengths if lines > MAX_FUNCTION_LINES]
    assert not large, "\n".join(large)
    median = statistics.median(lines for lines, _ in lengths)
    pytestconfig.stash.setdefault(FIGURES, []).append(
        f"{len(trees())} modules, {len(lengths)} functions, median {median:g} lines"
    )
    assert median <= MAX_MEDIAN_FUNCTION_LINES


def test_classes_are_small() -> None:
    large = [
        f"{module}.{node.name}: {length(node)} lines"
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and length(node) > MAX_CLASS_LINES
    ]
    assert not large, "\n".join(large)


def test_modules_are_named_for_what_they_hold() -> None:
    wrong = [module for module in trees() if FORBIDDEN_NAMES & set(module.split("."))]
    assert not wrong, f"names that say nothing: {wrong}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("flatwater", [*HEAVY, "asyncio", "msgspec", "click"]),
        ("flatwater.errors", [*HEAVY, "asyncio"]),
        ("flatwater.bounded", HEAVY),
        ("flatwater.settings", HEAVY),
        ("flatwater.cli", HEAVY),
        ("flatwater.guard.worker", [*HEAVY, "asyncio", "cachebox"]),  # lives in other people's workers
        ("flatwater.store", ["starlette", "uvicorn", "aiohttp", "alembic", "psycopg", "pymysql"]),
        ("flatwater.engine.engine", ["starlette", "uvicorn", "aiohttp", "alembic", "psycopg", "pymysql", "pymodbus"]),
    ],
)
def test_import_stays_light(module: str, absent: list[str]) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} does not exist yet")
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & set({absent!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_names_of_bounded_are_imported_when_they_are_asked_for() -> None:
    bounded = importlib.import_module("flatwater.bounded")
    assert sorted(bounded.__all__) == sorted(name for names in bounded._MODULES.values() for name in names)
    for name in bounded.__all__:
        assert getattr(bounded, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Cash'"):
        _ = bounded.Cash


def test_package_says_its_version() -> None:
    from importlib.metadata import version

    import flatwater

    assert flatwater.__version__ == version("flatwater")
    assert (PACKAGE / "py.typed").exists()


def test_no_registry_is_named() -> None:
    """The lock and the sources install from wherever the user's own client is told to."""
    hosts = [b"pypi" + b".org", b"pythonhosted" + b".org", b"npmjs" + b".org"]
    files = [path for name in ("requirements.lock", "pyproject.toml", "Makefile") if (path := ROOT / name).exists()]
    files += [path for path in (ROOT / "ui").glob("*.json") if path.is_file()]
    assert not [path.name for path in files if any(host in path.read_bytes() for host in hosts)]
