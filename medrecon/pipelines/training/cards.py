"""Where training recipes and bundles lie: in the wheel, or in the checkout that the package runs from."""

from pathlib import Path

from medrecon.cards import card_folder
from medrecon.errors import UsageError
from medrecon.operators.samplers.registry import did_you_mean

CARD = "train.yaml"


def bundles() -> dict[str, Path]:
    """Return the folders of ``pipelines/`` by name; each holds a training recipe and a MONAI bundle."""
    return {path.parent.name: path.parent for path in sorted(card_folder("pipelines").glob(f"*/{CARD}"))}


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
