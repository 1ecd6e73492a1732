"""Imports run one way, names mean one thing, every hook is tested and documented. LAYERS is the drawing."""

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
LAYERS = [  # a file imports only from lines above its own, and from its own line
    "errors version",
    "protocols",
    "explanations questions.quantiles",
    "data.types data.random_keys data.splits",
    "networks",
    "data",
    "registry",
    "registry.builtins",
    "training",
    "explainers.inputs explainers.state explainers.identity",
    "explainers",
    "registry.catalog data.datasets.aviary.observer",
    "explainers.saving",
    "metrics.concepts",
    "questions",
    "metrics",
    "comparison pipeline export",
    "rendering",
    "testing",
    "__init__",
    "cli",
    "__main__",
]
"""The longest name here that a file is, or is within, tells its layer."""

UPWARD = {  # the only functions that may import from a layer above their own
    ("explanations/display.py", "rendering"),
    ("explainers/interface.py", "explain_class"),
    ("explainers/interface.py", "counterfactual"),
    ("explainers/interface.py", "counterfactual_methods"),
    ("data/datasets/aviary/dataset.py", "ideal_observer"),
}
ALONE = {"registry.builtins": {"registry.hookspecs"}}  # what the core offers knows no more than a plugin does
VAGUE = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
MODULES = sorted(CORE.rglob("*.py"))


def dotted(path):
    """``metrics.results`` for explainkit/metrics/results.py, ``metrics`` for its __init__."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def level_of(name):
    """The layer of a module, by the longest name in LAYERS that it is or is within."""
    while name not in LEVEL:
        assert "." in name, f"{name} is not in LAYERS"
        name = name.rpartition(".")[0]
    return LEVEL[name]


def imports(path):
    """(module, function it is imported in or None), less what is imported for type checkers alone."""
    waiting = [(ast.parse(path.read_text()), None)]
    while waiting:
        node, function = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += [(child, function) for child in node.orelse]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((name, function) for name in imported(node))
        else:
            inner = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
            waiting += [(child, inner) for child in ast.iter_child_nodes(node)]


def imported(node):
    """The modules of a from-import: those that it names, or the one that it takes names from."""
    assert not node.level, f"a relative import in line {node.lineno}"
    folder = ROOT / node.module.replace(".", "/")
    for alias in node.names:
        below = (folder / f"{alias.name}.py").exists() or (folder / alias.name / "__init__.py").exists()
        yield f"{node.module}.{alias.name}" if below else node.module


def of_the_core(path):
    """What a module of the core imports of the core, by name below explainkit, and in which function."""
    for name, function in imports(path):
        package, _, rest = name.partition(".")
        assert not package.startswith("explainkit_"), f"the core must not know {package}"
        if package == "explainkit":
            yield rest or "__init__", function


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "__main__.py"], ids=name_of)
def test_the_core_imports_downwards(path):
    mine, file = dotted(path), str(path.relative_to(CORE))
    if mine == "__init__":
        return  # the list of public names
    for theirs, function in of_the_core(path):
        if (file, function) not in UPWARD:
            assert level_of(theirs) <= level_of(mine), f"{theirs} stands above {mine}"
        assert theirs in ALONE.get(mine, {theirs}), f"{mine} imports {sorted(ALONE[mine])} alone"


def test_every_upward_import_is_needed_and_they_are_at_most_five():
    used = {
        (str(path.relative_to(CORE)), function)
        for path in MODULES
        if dotted(path) != "__init__"
        for theirs, function in of_the_core(path)
        if level_of(theirs) > level_of(dotted(path))
    }

    assert used == UPWARD and len(UPWARD) <= 5


def test_no_file_imports_itself_round_a_circle():
    below = {
        dotted(path): {
            theirs
            for theirs, function in of_the_core(path)
            if (str(path.relative_to(CORE)), function) not in UPWARD
        }
        for path in MODULES
        if dotted(path) not in ("__init__", "__main__")
    }
    while below:
        free = {name for name, theirs in below.items() if not theirs & below.keys() - {name}}
        assert free, f"a circle among {sorted(below)}"
        below = {name: theirs for name, theirs in below.items() if name not in free}


@pytest.mark.parametrize("folder", PLUGINS, ids=name_of)
def test_plugins_and_adapters_import_explainkit_alone(folder):
    for path in folder.rglob("*.py"):
        for name, _ in imports(path):
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
    from explainkit.registry.discovery import HOOKS

    return list(HOOKS)


@pytest.mark.parametrize("hook", hooks())
def test_each_hook_has_a_test_of_its_name(hook):
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]

    assert any(f"def test_{hook}" in text for text in tests)


@pytest.mark.parametrize("hook", hooks())
def test_each_hook_is_documented(hook):
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
