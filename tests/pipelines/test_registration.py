"""MONAI with medrecon's readers and writers: ours are found, its own still work."""

import json
import logging
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, image_writer
from monai.transforms import LoadImage, SaveImage
from monai.transforms.io.array import SUPPORTED_READERS
from PIL import Image as PILImage

import medrecon.pipelines
from medrecon.pipelines import DicomWriter, HDF5Writer, KSpaceReader, SinogramReader, register


def test_import_loads_neither_monai_nor_torch():
    code = (
        "import json, sys, medrecon.pipelines; print(json.dumps([n for n in ('torch', 'monai') if n in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_public_names_are_there():
    for name in medrecon.pipelines.__all__:
        assert getattr(medrecon.pipelines, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute"):
        _ = medrecon.pipelines.nothing


def test_twice_is_once():
    register()
    before = dict(SUPPORTED_READERS), dict(image_writer.SUPPORTED_WRITERS)
    filters = len(logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").filters)
    register()
    assert before == (SUPPORTED_READERS, image_writer.SUPPORTED_WRITERS)
    assert len(logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").filters) == filters
    assert SUPPORTED_READERS["kspacereader"] is KSpaceReader
    assert SUPPORTED_READERS["sinogramreader"] is SinogramReader


def test_fresh_process_keeps_builtin_writers():
    """In a process where nothing was saved before, MONAI's table is empty and stays so if somebody fills it first."""
    code = (
        "from medrecon.pipelines import register; register(); register()\n"
        "from monai.data.image_writer import resolve_writer as r\n"
        "print([r(e)[0].__name__ for e in ('nii.gz', 'png', 'dcm', 'h5', 'nii')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "['NibabelWriter', 'PILWriter', 'DicomWriter', 'HDF5Writer', 'NibabelWriter']" in result.stdout


def test_our_writers_win_even_after_monai_resolved_its_own(monkeypatch):
    monkeypatch.setitem(image_writer.SUPPORTED_WRITERS, "dcm", (image_writer.NibabelWriter,))
    register()
    assert image_writer.resolve_writer(".dcm") == (DicomWriter,)
    assert image_writer.resolve_writer("h5") == (HDF5Writer,)


def test_builtin_formats_load_and_save(tmp_path):
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2, 3, 4, 1])), tmp_path / "x.nii.gz")
    np.save(tmp_path / "x.npy", array)
    PILImage.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "x.png")
    load = LoadImage()
    nifti = load(tmp_path / "x.nii.gz")
    assert nifti.shape == (3, 4, 5)
    assert nifti.affine.diagonal().tolist() == [2, 3, 4, 1]
    assert load(tmp_path / "x.npy").shape == (3, 4, 5)
    assert load(tmp_path / "x.png").shape == (4, 3)
    for suffix in (".nii.gz", ".nii"):
        SaveImage(tmp_path, output_ext=suffix, separate_folder=False, print_log=False)(nifti[None])
        assert np.array_equal(nibabel.load(tmp_path / f"x_trans{suffix}").get_fdata(), array)
    png = MetaTensor(torch.arange(12.0).reshape(1, 4, 3))
    SaveImage(tmp_path, "p", ".png", separate_folder=False, print_log=False)(png, filename=tmp_path / "out")
    with PILImage.open(tmp_path / "out.png") as saved:
        assert saved.size == (4, 3)


def test_the_missing_decoder_is_no_news(caplog):
    with caplog.at_level(logging.WARNING):
        LoadImage()
    assert not caplog.records
    logger = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    with caplog.at_level(logging.WARNING):
        logger.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]
