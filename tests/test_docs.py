"""What the documentation says is so: its Python runs, its options and links exist."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from medrecon.cli import COMMANDS, main
from medrecon.pipelines.training.recipe import (
    FastMRIData,
    ImageData,
    ModelPart,
    PhantomData,
    ScanData,
    TrainingPart,
    TrainingRecipe,
    ValidationPart,
)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*(?:\.[a-z_][a-z0-9_.-]*[a-z0-9])?")
PROGRAM = re.compile(r"^(?:[A-Z_]+=\S+\s+)*(\S+)")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
SKIPPED = "# not run"
FIELDS = {
    "": [TrainingRecipe],
    "data.": [FastMRIData, ImageData, PhantomData, ScanData],
    "model.": [ModelPart],
    "training.": [TrainingPart],
    "validation.": [ValidationPart],
}


def snippets(page):
    """Python fences that are meant to be run, in order."""
    found = (body for language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language == "python")
    return [body for body in found if not body.lstrip().startswith(SKIPPED)]


def command_lines(page):
    """Shell lines and code spans, continuation lines joined, without prompt and comment."""
    text = page.read_text(encoding="utf-8")
    shell = [body for language, body in FENCE.findall(text) if language in ("", "sh", "bash", "shell", "console")]
    lines = [line for body in shell for line in body.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return [line.strip().removeprefix("$ ") for line in lines if line.strip()]


def medrecon_words(line):
    """Words after ``medrecon``; None where the line runs another program."""
    line = line.replace("python -m medrecon", "medrecon")
    program = PROGRAM.match(line)
    if program is None or program[1].rpartition("/")[2] != "medrecon":
        return None
    words = shlex.split(line, comments=True)
    return words[next(i for i, word in enumerate(words) if word.rpartition("/")[2] == "medrecon") + 1 :]


@pytest.fixture(scope="module")
def options():
    """Options of each command, as its --help lists them."""

    def listed(*command):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            assert main([*command, "--help"]) == 0
        return set(OPTION.findall(shown.getvalue()))

    fields = {
        f"--{'' if part is TrainingRecipe else prefix}{name}".replace("_", mark)
        for prefix, parts in FIELDS.items()
        for part in parts
        for name in part.model_fields
        for mark in "_-"
    } | {"--data.mask.acceleration", "--data.mask.center-fraction"}
    known = {"": listed(), **{name: listed(name) | {"--help"} for name in COMMANDS}}
    return known | {name: known[name] | fields for name in ("train", "evaluate")}


def unknown_options(page, options):
    """Options that no command has, or not the one they are given to."""
    everything = set.union(*options.values())
    wrong = []
    for line in command_lines(page):
        words = medrecon_words(line)
        if words is not None:
            command = words[0] if words and words[0] in options else ""
            known = options[command] if command else everything
            wrong += [
                line
                for word in words
                if OPTION.fullmatch(word.partition("=")[0]) and word.partition("=")[0] not in known
            ]
        elif line.startswith("--"):
            wrong += [line for option in OPTION.findall(line) if option not in everything]
    prose = re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    return wrong + [option for option in OPTION.findall(prose) if option not in everything]


@pytest.mark.parametrize("name", NAMES)
def test_options_exist(name, options):
    assert not unknown_options(ROOT / name, options)


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name):
    for line in command_lines(ROOT / name):
        words = medrecon_words(line)
        if words and not words[0].startswith("-") and words[0] != "COMMAND":
            assert words[0] in COMMANDS, line


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    text = FENCE.sub("", (ROOT / name).read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if not re.match(r"[a-z]+:", target):
            assert ((ROOT / name).parent / target).exists(), target


@pytest.mark.parametrize("name", [name for name, page in zip(NAMES, PAGES, strict=True) if snippets(page)])
def test_python_runs(name, tmp_path):
    """The snippets of a page run in order in one empty folder, each with names of its own."""
    for number, body in enumerate(snippets(ROOT / name), start=1):
        script = tmp_path / f"snippet_{number}.py"
        script.write_text(body, encoding="utf-8")
    driver = (
        "import glob, runpy, warnings\n"
        # what other packages say of one another when they are imported is not ours
        "with warnings.catch_warnings(action='ignore'):\n"
        "    import ignite.engine, monai.engines, monai.transforms\n"
        "warnings.simplefilter('error')\n"
        "for path in sorted(glob.glob('snippet_*.py'), key=lambda p: int(p[8:-3])):\n"
        "    runpy.run_path(path, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", driver],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_checks_find_mistakes(tmp_path, options):
    """The pattern matching above is worth nothing if it matches nothing."""
    page = tmp_path / "page.md"
    page.write_text(
        "Try --maks or `--axs coil,y,x`, never `pip install --no-deps`.\n\n"
        "```sh\nOMP_NUM_THREADS=1 medrecon reconstruct a.npy \\\n  --operator x -o b.nii.gz  # --comment\n"
        "medrecon reconstruct a.npy --mask m.npy\npython benchmarks/x.py --quick\n```\n"
        "```python\n# not run\n1 / 0\n```\n```python\nprint('--option')\n```\n"
    )
    wrong = unknown_options(page, options)
    assert len(wrong) == 3
    assert wrong[0].startswith("OMP_NUM_THREADS=1 medrecon reconstruct a.npy")
    assert wrong[1:] == ["--axs coil,y,x", "--maks"]
    assert snippets(page) == ["print('--option')\n"]


@pytest.mark.parametrize("name", NAMES)
def test_page_has_no_machine_paths(name):
    assert not re.search(r"(/work/|/home/|/tmp/|/root/)", (ROOT / name).read_text(encoding="utf-8"))
