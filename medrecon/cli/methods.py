"""``medrecon methods``: how measurements can be reconstructed."""

from medrecon.cli.console import print_json, print_table
from medrecon.cli.options import Json


def methods(*, as_json: Json = False) -> None:
    """List the reconstruction methods, ours and those of other packages."""
    from medrecon.reconstructors.registry import MethodInfo, available_methods
    from medrecon.reconstructors.volume import DEFAULT_METHOD, RSS

    rss = MethodInfo("Root sum of squares of the zero-filled coil images (MRI only).", "medrecon", ())
    found = {RSS: rss, **available_methods()}
    if as_json:
        print_json({"default": DEFAULT_METHOD, "methods": {name: info._asdict() for name, info in found.items()}})
        return
    rows = [(name, info.summary, ", ".join(info.parameters), info.origin) for name, info in found.items()]
    print_table("Methods", ("name", "what", "parameters", "from"), rows)
