"""The command line: ``medrecon COMMAND``. No science in here.

Every command lives in its own module and imports what it needs when it runs, and the overview that
``--help`` prints needs nothing at all, so both answer at once.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medrecon import __version__

if TYPE_CHECKING:
    from cyclopts import App

ABOUT = """From raw measurements to images: MRI k-space, CT sinograms, compressed sensing, any linear operator.

Results go to standard output, log and progress to standard error. Not for diagnostic use.
Exit codes: 0 ok, 1 reconstruction failed, 2 usage, 3 unreadable input, 4 NaN or diverged,
5 out of memory, 6 some of several inputs failed, 130 interrupted."""

COMMANDS = {
    "info": "What a raw file holds, and what would be done with it.",
    "reconstruct": "Raw data to NIfTI, DICOM, HDF5, NPZ or PNG.",
    "simulate": "An MR, CT or natural image to raw data of any operator.",
    "train": "A recipe and data to a trained model, in one process or many.",
    "evaluate": "NMSE, PSNR and SSIM against a reference, by fastMRI's definitions.",
    "convert-idm": "A checkpoint of the published IDM code to a model folder, and back.",
    "operators": "Operators and acquisition recipes that are available.",
    "methods": "Reconstruction methods that are available.",
    "doctor": "What is installed, which back ends work, which device is used.",
}


def overview() -> str:
    """Return what ``medrecon --help`` prints."""
    commands = "\n".join(f"  {name:12} {summary}" for name, summary in COMMANDS.items())
    return (
        f"Usage: medrecon COMMAND\n\n{ABOUT}\n\nCommands:\n{commands}\n\n"
        "'medrecon COMMAND --help' tells the options of one; 'medrecon --version' the version."
    )


def build_app() -> "App":
    """Return the command-line application; its commands are imported only when they are called."""
    from cyclopts import App

    app = App(
        name="medrecon",
        help=ABOUT,
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # else cyclopts leaves without a word
    )
    for name, summary in COMMANDS.items():
        module = name.replace("-", "_")
        app.command(f"medrecon.cli.{module}:{module}", name=name, help=summary)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens in ([], ["--help"], ["-h"]):
        print(overview())  # noqa: T201 (the command line's own voice)
        return 0
    from cyclopts import CycloptsError

    from medrecon.cli.runtime import exit_code_of, stop_on_terminate, without_closed_streams

    stop_on_terminate()
    without_closed_streams()
    try:
        result = build_app()(tokens, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2  # cyclopts has printed what was wrong and what was meant
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 (the outermost border: everything becomes a message and a code)
        return exit_code_of(error)
    return result if isinstance(result, int) else 0
