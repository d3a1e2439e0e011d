"""Trained models that come with the package, and checkpoints by name."""

from pathlib import Path

from medrecon.errors import InputError

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints"
SCOPE = "scope.json"


def shipped_models() -> dict[str, Path]:
    """Return the folders of the trained models that come with medrecon, by name; none where it was built without."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/config.json"))}


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """Return the folder that a checkpoint means: a path, or the bare name of a model that comes with medrecon.

    Whatever lies at that path wins over a name.

    Raises
    ------
    InputError
        For a bare name that is neither.

    Examples
    --------
    >>> checkpoint_folder("runs/knee").parts
    ('runs', 'knee')
    """
    path = Path(checkpoint)
    if path.exists() or str(checkpoint) != path.name:
        return path
    shipped = shipped_models()
    if path.name not in shipped:
        ours = f"one that comes with medrecon ({', '.join(shipped)})" if shipped else "one by name: none comes with it"
        raise InputError(f"{path}: no such folder; expected a model as 'medrecon train' leaves it, or {ours}")
    return shipped[path.name]
