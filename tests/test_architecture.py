"""Imports run one way, names mean one thing, and every hook is tested and told of. LAYERS is the drawing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "explainkit"
PLUGINS = sorted(
    path.parent for folder in ("plugins", "adapters") for path in ROOT.glob(f"{folder}/*/__init__.py")
)
LAYERS = [  # a file, or a folder as a whole, imports only what stands in lines above its own
    "errors version",
    "hookspecs data backbones tracing files allowance rules quantiles wording",
    "builtins discovery decomposition",
    "registry regions",
    "explanation training inputs",
    "interfaces",
    "catalogue metrics",
    "questions",
    "storage",
    "comparison pipeline benchmarking testing",
    "rendering",
    "__init__",
    "cli",
    "__main__",
]
ALONE = {"builtins": {"hookspecs"}}  # what the core offers knows of the core no more than a stranger does
DOORS = {
    "figure",
    "_repr_html_",
    "save",
    "load",
    "fit",
    "explain_class",
    "counterfactual",
}  # may import upwards
VAGUE = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
MODULES = sorted(CORE.rglob("*.py"))


def unit(path):
    """The file or folder of the core that `path` belongs to."""
    first = path.relative_to(CORE).parts[0]
    return first.removesuffix(".py")


def imports(path):
    """What the module imports when it is imported or used, less what type checkers and the doors import."""
    inside = unit(path) == "__init__" if path.is_relative_to(CORE) else False
    waiting = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (inside or node.name in DOORS):
            continue
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from named(node)
        else:
            waiting += ast.iter_child_nodes(node)


def named(node):
    assert not node.level, f"a relative import in line {node.lineno}"
    for alias in node.names:
        below = node.module == "explainkit" and (
            (CORE / f"{alias.name}.py").exists() or (CORE / alias.name).is_dir()
        )
        yield f"explainkit.{alias.name}" if below else node.module


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_core_imports_downwards(path):
    mine = unit(path)
    for name in imports(path):
        package, _, rest = name.partition(".")
        assert not package.startswith("explainkit_"), f"the core must not know {package}"
        if package != "explainkit":
            continue
        theirs = rest.partition(".")[0] or "__init__"
        assert mine == theirs or LEVEL[theirs] < LEVEL[mine], f"{name} stands above {mine}"
        assert theirs in ALONE.get(mine, {theirs}), f"{mine} imports {sorted(ALONE[mine])} alone"


def test_the_drawing_has_every_part_of_the_core():
    assert {unit(path) for path in MODULES} <= LEVEL.keys()


@pytest.mark.parametrize("folder", PLUGINS, ids=name_of)
def test_plugins_and_adapters_import_explainkit_alone(folder):
    for path in folder.rglob("*.py"):
        for name in imports(path):
            package = name.partition(".")[0]
            ours = package.startswith("explainkit_") or package in ("plugins", "adapters", "tests")
            assert not ours or package == folder.name, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("folder", PLUGINS, ids=name_of)
def test_plugins_and_adapters_say_that_they_are_typed(folder):
    assert (folder / "py.typed").exists()


def test_no_module_has_a_vague_name():
    named = [path for folder in [CORE, *PLUGINS] for path in folder.rglob("*") if path.stem in VAGUE]

    assert not named


def test_the_public_list_is_sorted_and_true():
    import explainkit

    names = getattr(explainkit, "__all__", [])

    assert list(names) == sorted(names) and len(set(names)) == len(names)
    assert set(names) <= set(dir(explainkit))


def test_no_submodule_takes_the_place_of_a_public_name():
    everything = [str(path.relative_to(ROOT).with_suffix("")).replace(os.sep, ".") for path in MODULES]
    code = f"""
import importlib, explainkit as ek
names = getattr(ek, "__all__", [])
before = [getattr(ek, name) for name in names]
for module in {everything!r}:
    importlib.import_module(module.removesuffix(".__init__"))
for time in range(2):
    changed = [name for name, was in zip(names, before) if getattr(ek, name) is not was]
    assert not changed, changed
"""

    run(code)


@pytest.mark.parametrize("init", sorted(CORE.rglob("__init__.py")), ids=name_of)
def test_no_submodule_bears_the_name_of_what_its_package_gives(init):
    beside = {
        path.stem for path in init.parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    package = ".".join(init.parent.relative_to(ROOT).parts)
    given = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(init.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module != package
        for alias in node.names
    }

    assert not given & beside


@pytest.mark.parametrize("command", ["import", "--help", "--version", "plugins", "plugins --no-load"])
def test_torch_is_not_imported_by(command):
    does = (
        "import explainkit"
        if command == "import"
        else f"from explainkit.cli import main; main({command.split()})"
    )

    run(f"import sys; {does}; assert not {{'torch', 'numpy', 'matplotlib'}} & sys.modules.keys()")


def hooks():
    from explainkit.discovery import HOOKS

    return list(HOOKS)


@pytest.mark.parametrize("hook", hooks())
def test_each_hook_has_a_test_of_its_name(hook):
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]

    assert any(f"def test_{hook}" in text for text in tests)


@pytest.mark.parametrize("hook", hooks())
def test_each_hook_is_told_of_in_the_docs(hook):
    pages = [path.read_text() for suffix in ("md", "rst") for path in ROOT.glob(f"docs/**/*.{suffix}")]

    assert any(hook in page for page in pages)


def run(code):
    """Run in a fresh process, from the tree whether installed or not."""
    path = os.pathsep.join(map(str, [ROOT, ROOT / "plugins", ROOT / "adapters"]))
    command = [sys.executable, "-W", "ignore", "-c", code]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, cwd=ROOT, capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stderr
