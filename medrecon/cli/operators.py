"""``medrecon operators``: what measurements can be simulated and reconstructed."""

from medrecon.cli.console import print_json, print_table
from medrecon.cli.options import Json


def operators(*, as_json: Json = False) -> None:
    """List the linear operators, ours and those of other packages, and the acquisition recipes.

    A recipe, or a YAML file of your own like those in the folder ``operators/``, is what
    ``medrecon simulate --operator`` takes.
    """
    from medrecon.operators.recipes import available_recipes
    from medrecon.operators.registry import available_operators

    origins = available_operators()
    recipes = available_recipes()
    if as_json:
        cards = [{"name": r.name, "operator": r.operator, "description": r.description} for r in recipes.values()]
        print_json({"operators": origins, "recipes": cards})
        return
    print_table("Operators", ("name", "from"), list(origins.items()))
    print_table(
        "\nRecipes", ("name", "operator", "what"), [(r.name, r.operator, r.description) for r in recipes.values()]
    )
