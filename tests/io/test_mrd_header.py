from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medrecon.errors import InputError
from medrecon.io.mrd_header import Limit, parse_mrd_header

PATH = Path("scan.h5")


def test_numbers_are_found(mrd_header_text):
    header = parse_mrd_header(mrd_header_text, PATH)
    (encoding,) = header.encodings
    assert encoding.encoded.matrix == (64, 48, 1)
    assert encoding.encoded.fov == (280.0, 210.0, 3.0)
    assert encoding.recon.matrix == (32, 32, 1)
    assert encoding.recon.spacing == (4.375, 4.375, 3.0)
    assert encoding.limits == {"kspace_encoding_step_1": Limit(0, 47, 24)}
    assert encoding.trajectory == "cartesian"
    assert encoding.acceleration == (1.0, 1.0)
    assert header.header == {
        "field_strength": 2.8936,
        "imaging_frequency": 123.204951,
        "repetition_time": 2800,
        "echo_time": 22,
        "flip_angle": 140,
    }


def test_nothing_personal_is_kept(mrd_header_text):
    assert "SECRET" in mrd_header_text
    assert "SECRET" not in repr(parse_mrd_header(mrd_header_text, PATH))


def test_several_encodings_echoes_and_acceleration(mrd_header_text):
    start, end = mrd_header_text.index("<encoding>"), mrd_header_text.index("</encoding>") + len("</encoding>")
    extra = (
        "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>3</kspace_encoding_step_2></accelerationFactor>"
        "<calibrationMode>Embedded</calibrationMode></parallelImaging>"
    )
    second = mrd_header_text[start:end].replace("</encoding>", extra + "</encoding>")
    text = mrd_header_text.replace("<TE>22</TE>", "<TE>10</TE><TE>20</TE>").replace(
        "<sequenceParameters>", second + "<sequenceParameters>"
    )
    header = parse_mrd_header(text, PATH)
    assert [encoding.acceleration for encoding in header.encodings] == [(1, 1), (2, 3)]
    assert header.encodings[1].calibration == "embedded"
    assert header.parameters["echo_time"] == (10, 20)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<x>64</x>", "<x>0</x>", "implausible value 0 of encoding/encodedSpace/matrixSize/x"),
        ("<x>64</x>", "<x>65537</x>", "implausible value"),
        ("<x>64</x>", "<x>1.5</x>", "implausible value"),
        ("<x>64</x>", "<x>1e999</x>", "not a number"),
        ("<x>64</x>", "<x>sixty</x>", "not a number"),
        ("<x>64</x>", "", "lacks encoding/encodedSpace/matrixSize/x"),
        ("<x>280</x>", "<x>-280</x>", "implausible value"),
        ("<x>280</x>", "<x>nan</x>", "not a number"),
        ("<center>24</center>", "<center>-1</center>", "implausible encodingLimits"),
        ("</ismrmrdHeader>", "", "not valid XML"),
        ("<encoding>", "<!-- --><encoding></encoding><encoding>", "lacks encoding"),
    ],
)
def test_absurd_headers_are_input_errors(mrd_header_text, old, new, message):
    with pytest.raises(InputError, match=message):
        parse_mrd_header(mrd_header_text.replace(old, new, 1), PATH)


@pytest.mark.parametrize("value", ["nan", "-3", "1e300", "soon", ""])
def test_absurd_optional_parameters_are_left_out(mrd_header_text, value):
    header = parse_mrd_header(mrd_header_text.replace("<TR>2800</TR>", f"<TR>{value}</TR>"), PATH)
    assert "repetition_time" not in header.header


def test_hostile_xml_is_refused():
    bomb = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    for text, message in (
        (f'<!DOCTYPE x [<!ENTITY e0 "ha">{bomb}]><ismrmrdHeader>&e9;</ismrmrdHeader>', "document type"),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><ismrmrdHeader>&e;</ismrmrdHeader>', "document type"),
        ("<ismrmrdHeader>&e;</ismrmrdHeader>", "not valid XML"),
        ("<ismrmrdHeader>" + "<a>" * 300_000, "nested too deeply"),
        ("<ismrmrdHeader>" + "<encoding></encoding>" * 1000, "too many encodings"),
        ("<ismrmrdHeader>" + " " * (1 << 20), "1048591 bytes, more than 1048576"),
        ("<html></html>", "another root"),
        ("<ismrmrdHeader/>", "no <encoding>"),
        ("", "not valid XML"),
    ):
        with pytest.raises(InputError, match=message):
            parse_mrd_header(text, PATH)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_headers_parse_or_are_refused(data):
    text = (
        "<ismrmrdHeader><encoding><encodedSpace><matrixSize><x>6</x><y>4</y><z>1</z></matrixSize>"
        "<fieldOfView_mm><x>2</x><y>2</y><z>3</z></fieldOfView_mm></encodedSpace></encoding></ismrmrdHeader>"
    )
    place = data.draw(st.integers(0, len(text) - 1))
    text = text[:place] + data.draw(st.text(max_size=6)) + text[place + data.draw(st.integers(0, 4)) :]
    with pytest.raises(InputError):  # reconSpace is missing, so it can never be right
        parse_mrd_header(text, PATH)
