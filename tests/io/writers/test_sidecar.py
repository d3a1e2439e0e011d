import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import medrecon
from medrecon.io.writers.sidecar import is_personal, json_ready, sidecar_record, write_sidecar


def test_what_stands_in_it(mr, tmp_path):
    write_sidecar(mr, tmp_path / "a.json", ["a.nii.gz"])
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["medrecon"] == medrecon.__version__
    assert record["notice"] == "not for diagnostic use"
    assert record["files"] == ["a.nii.gz"]
    assert record["geometry"]["shape"] == [3, 24, 20]
    assert record["geometry"]["spacing_mm"] == pytest.approx({"column": 1.2, "row": 0.9, "slice": 3.0})
    np.testing.assert_array_equal(record["geometry"]["affine_ras"], mr.geometry.affine)
    assert record["intensity"]["maximum"] == float(mr.array.max())
    assert record["provenance"]["residual"] == 0.031
    assert record["acquisition"]["flip_angle"] == 90


def test_names_do_not_get_into_it(mr):
    provenance = {"PatientName": "Doe", "nested": [{"patient_id": "4711", "subjectInformation": "x", "rank": 3}]}
    header = {"ReferringPhysicianName": "Roe", "echo_time": 30.0, "study_instance_uid": "1.2.3"}
    record = sidecar_record(replace(mr, provenance=provenance, header=header), ["a.nii"])
    assert record["provenance"] == {"nested": [{"rank": 3}]}
    assert record["acquisition"] == {"echo_time": 30.0}


@pytest.mark.parametrize("field", ["operator", "operators", "operator_norm", "method", "seed", "PatientPosition"])
def test_technical_fields_stay(field):
    assert not is_personal(field)


def test_anything_becomes_json():
    value = {
        "nan": float("nan"), "numpy": np.float32(0.5), "flag": np.bool_(True), "count": np.int64(3),
        "array": np.array([1.0, np.inf]), "path": Path("/home/someone/scan.h5"), "tuple": (1, None), "object": object(),
    }  # fmt: skip
    assert json.loads(json.dumps(json_ready(value), allow_nan=False)) == {
        "nan": None, "numpy": 0.5, "flag": True, "count": 3,
        "array": [1.0, None], "path": "scan.h5", "tuple": [1, None], "object": "object",
    }  # fmt: skip
