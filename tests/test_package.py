"""The package as a user gets it: light to import, whole in its wheel, ruled like the rest."""

import inspect
import json
import os
import subprocess
import sys
import venv
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import medrecon

ROOT = Path(__file__).parents[1]


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, **options).stdout


@pytest.mark.parametrize(
    "name",
    [
        "medrecon",
        "medrecon.io",
        "medrecon.operators",
        "medrecon.models",
        "medrecon.datasets",
        "medrecon.pipelines",
        "medrecon.pipelines.bundle",
        "medrecon.cli",
    ],
)
def test_import_is_light(name):
    code = f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python("-c", code)))
    assert not loaded & {"torch", "monai", "diffusers", "pydicom", "nibabel", "h5py", "skimage", "scipy"}


def test_help_loads_no_science():
    loaded = python("-X", "importtime", "-c", "from medrecon.cli import main; main(['--help'])")
    assert "reconstruct" in loaded
    code = "import sys; from medrecon.cli import main; main(['--help']); print('torch' in sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "False"


def modules():
    return [info.name for info in walk_packages(medrecon.__path__, "medrecon.") if not info.name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_public_signatures_hide_nothing(name):
    """No ``**kwargs`` in public functions and methods, and a docstring on each."""
    if name.endswith("_hdf5_worker"):
        pytest.skip("a script of its own")
    module = import_module(name)
    for label, member in vars(module).items():
        if label.startswith("_") or getattr(member, "__module__", None) != name:
            continue
        functions = [(label, member)] if inspect.isfunction(member) else []
        if inspect.isclass(member):
            functions = [(f"{label}.{n}", f) for n, f in vars(member).items() if inspect.isfunction(f)]
            functions = [(n, f) for n, f in functions if not n.split(".")[-1].startswith("_")]
        for full, function in functions:
            kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds or full == "LinearOperator.load_state_dict", full
            assert function.__doc__, f"{name}.{full} has no docstring"


def test_modules_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "medrecon").rglob("*.py")}
    assert max(lengths.values()) <= 500, max(lengths, key=lengths.get)


def test_every_module_has_a_test():
    """A module without a test file of its own or its package's is a module nobody tests."""
    tested = " ".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in modules():
        parts = name.split(".")
        public = not any(part.startswith("_") for part in parts)
        assert not public or name in tested or parts[-1] in tested or parts[-2] in tested, name


@pytest.mark.slow
def test_wheel_works_away_from_the_checkout(tmp_path):
    """Build, install into a clean environment, run the command from there."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=True)
    # what medrecon depends on is borrowed from here, medrecon itself is not: its folder must win
    install = [clean / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    site = Path(pytest.__file__).parents[1]
    for entry in site.iterdir():
        if "medrecon" not in entry.name:
            (borrowed / entry.name).symlink_to(entry)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(borrowed), "HOME": str(tmp_path)}
    command = str(clean / "bin" / "medrecon")

    def run(*arguments):
        return subprocess.run(
            [command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    where = [clean / "bin" / "python", "-c", "import medrecon; print(medrecon.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert str(clean) in found
    recipes = {card["name"] for card in json.loads(run("operators", "--json"))["recipes"]}
    assert "mri-cartesian-4x" in recipes
    assert json.loads(run("doctor", "--json"))["checks"]["Fourier transform"] == "works"
