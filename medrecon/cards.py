"""Recipes as YAML cards: where ours lie, and how anybody's is read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medrecon.errors import InputError

_LARGEST = 1 << 20


def card_folder(name: str) -> Path:
    """Return the folder of our recipes of a kind, in the wheel or in the checkout that the package runs from.

    Parameters
    ----------
    name
        "operators" or "pipelines".
    """
    package = Path(__file__).resolve().parent
    folder = package / "recipes" / name
    if folder.is_dir():
        return folder
    if not (package.parent / "pyproject.toml").is_file():
        raise InputError(f"the recipes of medrecon ({name}) are missing from {package}; install the package again")
    return package.parent / name


def read_card(path: Path, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """Return the content of a card; reading it runs no code.

    Parameters
    ----------
    path
        A YAML file.
    what
        What it should be, for messages: "an operator recipe".
    keys
        That it may have, for messages.

    Raises
    ------
    InputError
        Where it cannot be read, is no YAML, or holds something else than keys and values.
    """
    import yaml

    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for {what}; expected a short YAML file")
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as {what} ({error})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not valid YAML ({error})") from error
    if not isinstance(card, dict):
        raise InputError(f"{path}: expected the keys {', '.join(keys)}, got {type(card).__name__}")
    return card
