"""Where training recipes and bundles lie: in the wheel, or in the checkout that the package runs from."""

from pathlib import Path

from medrecon.errors import InputError, UsageError
from medrecon.operators.samplers.registry import did_you_mean

CARD = "train.yaml"


def bundles() -> dict[str, Path]:
    """Return the folders of ``pipelines/`` by name; each holds a training recipe and a MONAI bundle."""
    package = Path(__file__).resolve().parents[2]
    folder = package / "recipes" / "pipelines"
    if not folder.is_dir():
        folder = package.parent / "pipelines"
        if not (package.parent / "pyproject.toml").is_file():
            raise InputError(f"the training recipes of medrecon are missing from {package}; install the package again")
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CARD}"))}


def recipe_path(name_or_path: str | Path) -> Path:
    """Return the YAML file of a recipe, given by the name of its folder or by its path."""
    text, path = str(name_or_path), Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return path
    if path.name == text:
        known = bundles()
        if text not in known:
            raise UsageError(
                f"no training recipe is called {text!r}{did_you_mean(text, known)} (a file of your own ends in .yaml)"
            )
        return known[text] / CARD
    return path / CARD
