"""Broken third-party plugins: real distributions, real processes, and a host that goes on."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from textwrap import dedent

import pytest
from attrs import field, frozen

OFFER = """
@hookimpl
def explainkit_metrics():
    return [Offer("{0}", "Something", "thirdparty_{0}.parts:thing")]
"""
CRASH = "import ctypes\nctypes.string_at(0)\n"


@frozen(kw_only=True)
class ThirdParty:
    """A third-party plugin: the hooks of its module, and how it is to be found out."""

    hooks: str
    parts: str = "def thing(): ...\n"
    requires: str = "explainkit-sdk>=0.1"
    name: str | None = None
    status: str = "failed"
    cause: str = ""
    silent: bool = field(default=False, kw_only=True)


HEALTHY = ThirdParty(
    hooks=OFFER.format("healthy")
    + """
@hookimpl
def explainkit_commands():
    return [Offer("healthy", "[/red] <b>Says</b> hello", "thirdparty_healthy.parts:hello")]
""",
    parts='def thing(): ...\n\n\ndef hello():\n    """Say hello."""\n    print("hello")\n',
    status="ok",
)
BROKEN = {
    "absent": ThirdParty(
        hooks="import a_module_that_is_not_there" + OFFER.format("absent"),
        cause="ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
    ),
    "leaves": ThirdParty(hooks="raise SystemExit('I am off')", cause="SystemExit: I am off"),
    "misspelled": ThirdParty(
        hooks=OFFER.format("misspelled").replace("explainkit_metrics", "explainkit_metricks"),
        cause="has no hook explainkit_metricks; did you mean explainkit_metrics?",
    ),
    "curious": ThirdParty(
        hooks=OFFER.format("curious").replace("metrics()", "metrics(color)"), cause="{'color'} are declared"
    ),
    "thief": ThirdParty(
        hooks=OFFER.format("cam").replace("metrics", "explainers"),
        name="cam",
        cause="the name 'cam' belongs to 'cam' (explainkit-sdk",
    ),
    "early": ThirdParty(
        hooks=OFFER.format("early"),
        requires="explainkit-sdk>=99",
        status="incompatible",
        cause="needs explainkit-sdk >=99; this is",
    ),
    "crashes": ThirdParty(hooks=OFFER.format("crashes"), parts=CRASH, cause="killed by SIGSEGV", silent=True),
    "panics": ThirdParty(
        hooks="class Panic(BaseException): ...\nraise Panic('as extensions in Rust do')",
        cause="Panic: as extensions in Rust do",
    ),
    "steers": ThirdParty(
        hooks="raise ValueError('\\x1b[2J\\x1b]0;mine\\x07 [/bold] \\ud800')", cause="ValueError: \x1b[2J"
    ),
}
LOUD = [name for name, plugin in BROKEN.items() if not plugin.silent]


def wheel(folder, name, plugin):
    """Write the wheel of a plugin, as a build backend would."""
    package, info = f"thirdparty_{name}", f"thirdparty_{name}-1.0.dist-info"
    files = {
        f"{package}/__init__.py": f"from explainkit import Offer, hookimpl\n{dedent(plugin.hooks)}",
        f"{package}/parts.py": plugin.parts,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: thirdparty-{name}\nVersion: 1.0\n"
            f"Requires-Dist: {plugin.requires}\n"
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[explainkit]\n{plugin.name or name} = {package}\n",
    }
    lines = [f"{path},{digest(text)},{len(text.encode())}" for path, text in files.items()]
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (files | {f"{info}/RECORD": "\n".join([*lines, f"{info}/RECORD,,\n"])}).items():
            archive.writestr(file, text)
    return path


def digest(text):
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def installed(folder, plugins):
    """A folder that pip installed the wheels of `plugins` to."""
    wheels = [str(wheel(folder, name, plugin)) for name, plugin in plugins.items()]
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    site = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(site), *wheels], check=True
    )
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All of them side by side."""
    return installed(tmp_path_factory.mktemp("wheels"), {"healthy": HEALTHY} | BROKEN)


@pytest.fixture(scope="module")
def run(site):
    """A fresh Python that finds the plugins of `place`: `run("-m", "explainkit", "plugins")`."""

    def process(*arguments, place=site, **variables):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EXPLAINKIT_")}
        fixed = {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        return subprocess.run(
            [sys.executable, *arguments], env=inherited | fixed | variables, capture_output=True, text=True,
            cwd=place, check=False,
        )  # fmt: skip

    return process


@pytest.fixture(scope="module")
def command(run):
    return lambda *arguments, **settings: run("-m", "explainkit", *arguments, **settings)


@pytest.fixture(scope="module")
def rows(command):
    """What ``explainkit plugins --json`` says, by distribution."""
    ran = command("plugins", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    return {(row["distribution"], row["name"]): row for row in json.loads(ran.stdout)}


@pytest.fixture(scope="module")
def diagnoses(command):
    """What ``explainkit doctor`` says of each distribution: status, and the rest of the line."""
    ran = command("doctor", EXPLAINKIT_BLOCK="explainkit-sdk")
    lines = [line.split() for line in ran.stdout.splitlines()]
    rows = {words[1]: (words[3], " ".join(words[4:])) for words in lines if len(words) > 3}
    return ran.returncode, rows


def test_there_are_the_seven_faults_of_third_parties_and_more():
    assert len(BROKEN) >= 7


@pytest.mark.parametrize("name", LOUD)
def test_a_broken_plugin_is_a_row_with_its_cause(rows, name):
    row = rows[f"thirdparty-{name}", BROKEN[name].name or name]

    assert (row["status"], row["version"], row["offers"]) == (BROKEN[name].status, "1.0", {})
    assert BROKEN[name].cause in row["cause"]


def test_healthy_plugins_and_ours_work_beside_them(rows):
    assert rows["thirdparty-healthy", "healthy"]["offers"] == {
        "metrics": ["healthy"],
        "commands": ["healthy"],
    }
    ours = {name: row["status"] for (place, name), row in rows.items() if place == "explainkit-sdk"}
    assert ours.keys() >= {"builtins", "cam", "protopnet"} and set(ours.values()) == {"ok"}


def test_the_table_tells_every_cause_and_nothing_steers_the_terminal(command):
    ran = command("plugins")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert all(BROKEN[name].cause.replace("\x1b", r"\x1b") in ran.stdout for name in LOUD)
    assert r"\x1b[2J\x1b]0;mine\x07 [/bold] \ud800" in ran.stdout and not {"\x1b", "\x07"} & set(ran.stdout)


def test_a_command_warns_once_of_each_and_does_its_work(command):
    ran = command("healthy")

    assert (ran.returncode, ran.stdout) == (0, "hello\n")
    lines = ran.stderr.splitlines()
    assert len(lines) == len(LOUD) and all(line.startswith("explainkit: Plugin '") for line in lines)
    for name in LOUD:
        plugin = BROKEN[name]
        [line] = [line for line in lines if f"(thirdparty-{name} 1.0) {plugin.status}" in line]
        assert plugin.cause.replace("\x1b", r"\x1b") in line and line.endswith("see `explainkit plugins`.")


@pytest.mark.parametrize("name", ["train", "demo"])
def test_our_commands_know_nothing_of_them(command, name):
    ran = command(name, "--help")

    assert (ran.returncode, ran.stderr) == (0, "") and f"explainkit {name}" in ran.stdout


def test_the_help_has_the_commands_of_healthy_plugins(command):
    ran = command("--help")

    assert ran.returncode == 0 and "hello" in ran.stdout and "train" in ran.stdout


def test_ours_are_used_beside_them_and_theirs_are_refused_in_words(run):
    code = """
import warnings
import explainkit as ek
from explainkit import registry
from explainkit.errors import PluginError
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert ek.backbone("tiny").channels == 32
    assert registry.find("explainers", "cam").__module__ == "explainkit_cam.explainer"
    assert registry.find("metrics", "healthy")
assert {warning.category for warning in caught} == {ek.PluginWarning}, caught
for name in ("absent", "early", "misspelled/thing"):
    try:
        registry.find("metrics", name)
    except PluginError as error:
        assert f"(thirdparty-{name.partition('/')[0]} 1.0)" in str(error), error
    else:
        raise AssertionError(name)
print(len(caught))
"""
    ran = run("-c", code)

    assert (ran.returncode, ran.stdout.strip()) == (0, str(len(LOUD))), ran.stderr


@pytest.mark.parametrize("name", LOUD)
def test_each_is_an_error_when_strict(command, name):
    plugin = BROKEN[name]
    ran = command(
        "plugins", EXPLAINKIT_STRICT_PLUGINS="1", EXPLAINKIT_PLUGINS=f"thirdparty-healthy,thirdparty-{name}"
    )

    assert (ran.returncode, ran.stdout) == (2, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith("explainkit: Plugin '") and f"(thirdparty-{name} 1.0) {plugin.status}" in line


def test_healthy_ones_are_no_error_when_strict(command):
    ran = command("healthy", EXPLAINKIT_STRICT_PLUGINS="1", EXPLAINKIT_PLUGINS="healthy")

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello\n", "")


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "thief"])  # alone, a thief is well
def test_doctor_finds_out_each_in_a_process_of_its_own(diagnoses, name):
    status, cause = diagnoses[1][f"thirdparty-{name}"]

    assert diagnoses[0] == 1 and status == BROKEN[name].status
    assert BROKEN[name].cause.replace("\x1b", r"\x1b") in cause


def test_doctor_finds_healthy_ones_well(diagnoses, command):
    assert diagnoses[1]["thirdparty-healthy"][0] == "ok"
    alone = command("doctor", EXPLAINKIT_BLOCK="explainkit-sdk", EXPLAINKIT_PLUGINS="healthy")
    assert alone.returncode == 0


def test_doctor_survives_a_plugin_that_no_listing_does(command, tmp_path):
    garbage = "import os\nos.write(2, b'\\xff\\xfe')\n"
    place = installed(tmp_path, {"kills": ThirdParty(hooks=garbage + CRASH), "healthy": HEALTHY})
    settings = {"place": place, "EXPLAINKIT_BLOCK": "explainkit-sdk"}

    listed = command("plugins", "--no-load", **settings)
    examined = command("doctor", **settings)
    without = command("plugins", place=place, EXPLAINKIT_BLOCK="kills")

    assert listed.returncode == 0 and "thirdparty-kills" in listed.stdout
    assert examined.returncode == 1 and "killed by SIGSEGV" in examined.stdout
    assert without.returncode == 0 and "named in EXPLAINKIT_BLOCK" in without.stdout


DAMAGE = {
    "entry points in another encoding": ("entry_points.txt", b"[explainkit]\nm\xfcll = thirdparty_healthy\n"),
    "entry points that are none": ("entry_points.txt", b"[explainkit]\nno equals sign\n"),
    "metadata in another encoding": ("METADATA", b"Name: m\xfcll\nVersion: 1.0\n"),
    "no metadata": ("METADATA", None),
    "no name": ("METADATA", b"Version: 1.0\n"),
    "markup for a name": (
        "METADATA",
        b"Name: [/red][link=x]\nVersion: [/]\nRequires-Dist: explainkit-sdk>>1",
    ),
}


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=() if "encoding" in what else pytest.mark.slow) for what in DAMAGE],
)
def test_metadata_that_cannot_be_read_stops_nobody(command, tmp_path, what):
    place = installed(tmp_path, {"healthy": HEALTHY, "damaged": ThirdParty(hooks=OFFER.format("damaged"))})
    file, content = DAMAGE[what]
    path = place / "thirdparty_damaged-1.0.dist-info" / file
    path.unlink() if content is None else path.write_bytes(content)

    listed, table = (
        command("plugins", *options, place=place, EXPLAINKIT_BLOCK="explainkit-sdk")
        for options in (["--json"], [])
    )

    assert (listed.returncode, listed.stderr, table.returncode) == (0, "", 0)
    rows = {row["distribution"]: row["status"] for row in json.loads(listed.stdout)}
    assert rows["thirdparty-healthy"] == "ok" and len(rows) == 3  # and ours
    other = rows.keys() - {"thirdparty-healthy", "explainkit-sdk"}
    assert {rows[name] for name in other} <= {"failed", "ok"} and None not in other
