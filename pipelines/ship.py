"""Put the model of a finished run into the package: ``python pipelines/ship.py RUN NAME [--scope scope.yaml]``."""

import argparse
from pathlib import Path

from medrecon.pipelines.training.shipping import ship


def main() -> None:
    """Ship one model and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("name", help="of the model, for --checkpoint: mri, ct, cs")
    parser.add_argument("--scope", type=Path, help="YAML file; by default scope.yaml beside the recipe")
    arguments = parser.parse_args()
    folder = ship(arguments.run, arguments.name, arguments.scope)
    for file in sorted(folder.iterdir()):
        print(f"{file.stat().st_size:10,}  {file}")


if __name__ == "__main__":
    main()
