"""The XML header of ISMRMRD and fastMRI files: the numbers that a reconstruction needs, nothing else.

The parser keeps only the elements listed here, so names, dates and identifiers never enter the program.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from xml.parsers import expat  # entities cannot be declared: a document type ends the parsing

from medrecon.errors import InputError

_BYTES = 1 << 20
_DEPTH = 32
_ENCODINGS = 64
_MATRIX = 65536
_ROOT = "ismrmrdHeader"

# Element below the root -> (key in ``MrdHeader.parameters``, factor to the key's unit, largest plausible value).
_PARAMETERS = {
    "acquisitionSystemInformation/systemFieldStrength_T": ("field_strength", 1.0, 100.0),
    "experimentalConditions/H1resonanceFrequency_Hz": ("imaging_frequency", 1e-6, 1e4),
    "sequenceParameters/TR": ("repetition_time", 1.0, 1e7),
    "sequenceParameters/TE": ("echo_time", 1.0, 1e7),
    "sequenceParameters/TI": ("inversion_time", 1.0, 1e7),
    "sequenceParameters/flipAngle_deg": ("flip_angle", 1.0, 360.0),
    "sequenceParameters/echo_spacing": ("echo_spacing", 1.0, 1e7),
}
_SPACES = {
    f"{space}/{part}/{axis}": (space, part, "xyz".index(axis))
    for space in ("encodedSpace", "reconSpace")
    for part in ("matrixSize", "fieldOfView_mm")
    for axis in "xyz"
}
_LIMITS = (
    "kspace_encoding_step_0", "kspace_encoding_step_1", "kspace_encoding_step_2", "average", "slice", "contrast",
    "phase", "repetition", "set", "segment",
)  # fmt: skip
_ACCELERATION = "parallelImaging/accelerationFactor/"
_ENCODING_TEXTS = ("trajectory", "parallelImaging/calibrationMode")


@dataclass(frozen=True)
class Limit:
    """Range of an encoding counter and the value it has at the centre of k-space."""

    minimum: int
    maximum: int
    center: int


@dataclass(frozen=True)
class Space:
    """Grid of k-space or of the image: x along the read-out, y and z along the phase encodings.

    A field of view of 0 mm means that the header does not say.
    """

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Field of view over matrix in mm, 0 where unknown."""
        x, y, z = (length / count for length, count in zip(self.fov, self.matrix, strict=True))
        return x, y, z


@dataclass(frozen=True)
class Encoding:
    """One encoding of the scan; acquisitions refer to it by ``encoding_space_ref``.

    Parameters
    ----------
    encoded, recon
        Grid of the measured k-space and of the image to be made.
    limits
        Counters by name, e.g. ``kspace_encoding_step_1``; those that the header has.
    trajectory
        ``cartesian``, ``radial``, …; empty where the header does not say.
    acceleration
        Along the first and second phase encoding.
    calibration
        ``embedded``, ``interleaved``, ``separate``, ``external``, ``other`` or empty.
    """

    encoded: Space
    recon: Space
    limits: Mapping[str, Limit]
    trajectory: str
    acceleration: tuple[float, float]
    calibration: str


@dataclass(frozen=True)
class MrdHeader:
    """What an ISMRMRD header says.

    Parameters
    ----------
    encodings
        At least one.
    parameters
        All values of each acquisition parameter: ``field_strength`` (T), ``repetition_time``, ``echo_time``,
        ``inversion_time``, ``echo_spacing`` (ms), ``flip_angle`` (degrees), ``imaging_frequency`` (MHz).
    """

    encodings: tuple[Encoding, ...]
    parameters: Mapping[str, tuple[float, ...]]

    @property
    def header(self) -> dict[str, float]:
        """First value of each acquisition parameter, as :class:`medrecon.io.Scan` holds them."""
        return {name: values[0] for name, values in self.parameters.items()}


def parse_mrd_header(text: str, path: Path) -> MrdHeader:
    """Parse the XML header of the file ``path``.

    Raises
    ------
    InputError
        For XML that is broken, too long, too deep or declares a document type, for missing or absurd numbers.
    """
    found, encodings = _collect(text, path)
    parameters: dict[str, tuple[float, ...]] = {}
    for element, (name, factor, largest) in _PARAMETERS.items():
        values = [_float(word) * factor for word in found.get(element, [])]
        plausible = tuple(round(value, 9) for value in values if 0 < value <= largest)  # 0 is "not stated"; NaN neither
        if plausible:
            parameters[name] = plausible
    if not encodings:
        raise InputError(f"{path}: the ISMRMRD header has no <encoding>; the file cannot be reconstructed without")
    return MrdHeader(tuple(_encoding(values, path) for values in encodings), MappingProxyType(parameters))


def _collect(text: str, path: Path) -> tuple[dict[str, list[str]], list[dict[str, str]]]:
    """Texts of the wanted elements: those below the root, and those of each encoding."""
    data = text.encode("utf-8", errors="replace")
    if len(data) > _BYTES:
        raise InputError(f"{path}: the ISMRMRD header has {len(data)} bytes, more than {_BYTES}; it is not a header")
    stack: list[str] = []
    words: list[str] = []
    found: dict[str, list[str]] = {}
    encodings: list[dict[str, str]] = []

    def doctype(*_: object) -> None:
        raise InputError(f"{path}: the ISMRMRD header declares a document type, which no header needs; refused")

    def start(name: str, _: object) -> None:
        stack.append(name.rpartition(" ")[2])
        words.clear()
        if stack == [_ROOT, "encoding"]:
            encodings.append({})
        if stack[0] != _ROOT:
            raise InputError(f"{path}: the header is not an ISMRMRD header: found another root than <{_ROOT}>")
        if len(stack) > _DEPTH or len(encodings) > _ENCODINGS:
            raise InputError(f"{path}: the ISMRMRD header is nested too deeply or has too many encodings")

    def end(_: str) -> None:
        place = "/".join(stack[1:])
        value = "".join(words).strip()
        if place.startswith("encoding/"):
            encodings[-1].setdefault(place.removeprefix("encoding/"), value)
        elif place in _PARAMETERS:
            found.setdefault(place, []).append(value)
        stack.pop()
        words.clear()

    parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = words.append
    try:
        parser.Parse(data.lstrip(), True)
    except expat.ExpatError as error:
        message = expat.ErrorString(error.code)
        raise InputError(f"{path}: the ISMRMRD header is not valid XML ({message} in line {error.lineno})") from None
    return found, encodings


def _encoding(values: Mapping[str, str], path: Path) -> Encoding:
    spaces: dict[str, dict[str, list[float]]] = {}
    for element, (space, part, _) in _SPACES.items():
        if element not in values:
            raise InputError(f"{path}: the ISMRMRD header lacks encoding/{element}")
        number = _number(values[element], path, element)
        smallest, largest = (1, _MATRIX) if part == "matrixSize" else (0, 1e5)
        if not smallest <= number <= largest or (part == "matrixSize" and not number.is_integer()):
            raise InputError(f"{path}: implausible value {number:g} of encoding/{element} in the ISMRMRD header")
        spaces.setdefault(space, {}).setdefault(part, []).append(number)
    limits = {name: limit for name in _LIMITS if (limit := _limit(values, name, path)) is not None}
    factors = [values.get(_ACCELERATION + f"kspace_encoding_step_{axis}", "1") for axis in (1, 2)]
    first, second = (max(_number(word, path, _ACCELERATION), 1.0) for word in factors)
    trajectory, calibration = (_keyword(values.get(element, "")) for element in _ENCODING_TEXTS)
    return Encoding(
        _space(spaces["encodedSpace"]),
        _space(spaces["reconSpace"]),
        MappingProxyType(limits),
        trajectory,
        (first, second),
        calibration,
    )


def _space(parts: Mapping[str, list[float]]) -> Space:
    columns, rows, slices = (int(number) for number in parts["matrixSize"])
    width, height, depth = parts["fieldOfView_mm"]
    return Space((columns, rows, slices), (width, height, depth))


def _limit(values: Mapping[str, str], name: str, path: Path) -> Limit | None:
    words = [values.get(f"encodingLimits/{name}/{part}") for part in ("minimum", "maximum", "center")]
    if any(word is None for word in words):
        return None
    numbers = [_number(word or "", path, f"encodingLimits/{name}") for word in words]
    minimum, maximum, center = (int(number) for number in numbers)
    if not (0 <= minimum <= maximum < _MATRIX and 0 <= center < _MATRIX):
        raise InputError(f"{path}: implausible encodingLimits/{name} in the ISMRMRD header: {numbers}")
    return Limit(minimum, maximum, center)


def _number(word: str, path: Path, element: str) -> float:
    number = _float(word)
    if not math.isfinite(number):
        raise InputError(f"{path}: <{element}> in the ISMRMRD header is not a number")
    return number


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _keyword(word: str) -> str:
    """Short plain word in lower case: what the standard enumerates, never free text."""
    return word.lower() if len(word) <= 32 and word.isascii() and word.isalpha() else ""
