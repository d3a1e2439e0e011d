from importlib.metadata import EntryPoint

import pytest

from medrecon.errors import UsageError
from medrecon.reconstructors import Reconstructor, Tikhonov, available_methods, make_method, register_method, registry


class Doubling(Reconstructor):
    """Twice the adjoint."""

    def _reconstruct(self, measurements, operator, *, generator, progress):
        return 2 * operator.adjoint(measurements)


@pytest.fixture
def plugged(monkeypatch):
    """``plugged(name, value)`` installs an entry point of another package."""
    points = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    def add(name, value):
        points.append(EntryPoint(name, value, "medrecon.methods"))

    return add


def test_own_methods():
    methods = available_methods()
    assert {"adjoint", "cg-sense", "tikhonov", "tv", "l1-wavelet"} <= methods.keys()
    assert methods["tv"].parameters == ("regularization", "max_iter", "tol", "nonnegative")
    assert "medrecon" in methods["tv"].origin


def test_alias_is_the_same_method():
    assert isinstance(make_method("tikhonov"), Tikhonov)
    assert make_method("tikhonov").registered_name == "cg-sense"


def test_parameters_arrive():
    assert make_method("tv", {"regularization": 0.02, "max_iter": 7}).config() == {
        "regularization": 0.02,
        "max_iter": 7,
        "tol": 1e-3,
        "nonnegative": False,
    }


def test_misspelt_name():
    with pytest.raises(UsageError, match="no method is called 'l1-wavlet'; did you mean 'l1-wavelet'"):
        make_method("l1-wavlet")


def test_unknown_name_lists_the_known():
    with pytest.raises(UsageError, match=r"known: .*cg-sense.*tv"):
        make_method("qqqqq")


def test_unknown_parameter_names_the_known():
    with pytest.raises(UsageError, match=r"'tv' has no parameter 'max_iters': did you mean 'max_iter'.*regularization"):
        make_method("tv", {"max_iters": 3})


def test_method_without_parameters():
    with pytest.raises(UsageError, match="'adjoint' has no parameter 'tol': it takes none"):
        make_method("adjoint", {"tol": 3})


def test_entry_point(plugged, monkeypatch):
    import medrecon.reconstructors.base as host

    monkeypatch.setattr(host, "Doubling", Doubling, raising=False)
    plugged("doubling", "medrecon.reconstructors.base:Doubling")
    assert available_methods()["doubling"].summary == "Twice the adjoint."
    assert isinstance(make_method("doubling"), Doubling)


def test_broken_entry_points_are_listed_and_named(plugged):
    plugged("broken", "no_such_package:Thing")
    plugged("wrong", "medrecon.errors:UsageError")
    methods = available_methods()
    assert "no_such_package:Thing cannot be imported" in methods["broken"].summary
    with pytest.raises(UsageError, match=r"medrecon\.errors:UsageError is not a Reconstructor"):
        make_method("wrong")


@pytest.mark.parametrize(("names", "message"), [(["tv"], "taken by"), (["mine", "mine"], "claimed by")])
def test_claimed_names(plugged, names, message):
    for index, name in enumerate(names):
        plugged(name, f"elsewhere:Method{index}")
    with pytest.raises(UsageError, match=message):
        available_methods()


def test_own_entry_points_are_no_conflict(plugged):
    plugged("tv", "medrecon.reconstructors:TotalVariation")
    assert "tv" in available_methods()


def test_registering_by_hand(plugged):
    register_method("doubling", "twice")(Doubling)
    assert isinstance(make_method("twice"), Doubling)
    assert Doubling.registered_name == "doubling"
    with pytest.raises(UsageError, match="'tv' is taken by"):
        register_method("tv")(Doubling)

    class Other(Doubling):
        pass

    with pytest.raises(UsageError, match="'twice' is taken by"):
        register_method("twice")(Other)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("tv", {"regularization": -1}, "tv: regularization must be a number >= 0, got -1"),
        ("tv", {"regularization": float("nan")}, "number >= 0"),
        ("tv", {"regularization": "much"}, "got 'much'"),
        ("tv", {"tol": 1.0}, ">= 0 and < 1"),
        ("cg-sense", {"max_iter": 0}, "cg-sense: max_iter must be an integer >= 1"),
        ("cg-sense", {"max_iter": 2.5}, "integer"),
        ("cg-sense", {"max_iter": True}, "integer"),
        ("l1-wavelet", {"wavelet": "db9"}, "one of haar, db2, db3, db4, got 'db9'"),
        ("l1-wavelet", {"levels": -1}, "levels"),
        ("l1-wavelet", {"cycle_spinning": "yes"}, "true or false"),
    ],
)
def test_wrong_values(name, parameters, message):
    with pytest.raises(UsageError, match=message):
        make_method(name, parameters)
