"""Two processes train one model: equal weights, and the scores of one process."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from medrecon.pipelines.training.judge import judge
from medrecon.pipelines.training.processes import Processes, start_processes

SCRIPT = """
    import sys
    from pathlib import Path

    import torch

    from medrecon.pipelines.training import engine
    from medrecon.pipelines.training.recipe import load_training_recipe
    from medrecon.pipelines.training.run import train

    card, folder = sys.argv[1:]
    close = engine.Training._close_epoch

    def keep(self, trainer):
        close(self, trainer)
        volumes = {self.data.train.volume_of(i) for batch in self._sampler for i in batch}
        torch.save([self.model.state_dict(), volumes], Path(folder).with_name(f"rank{self.processes.rank}.pt"))

    engine.Training._close_epoch = keep
    train(load_training_recipe(card), Path(folder), quiet=True)
"""


def torchrun(arguments, timeout=240):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.slow
def test_two_processes(fastmri_recipe, fastmri_folder, tmp_path):
    """Five volumes to judge, three in one process and two in the other."""
    held = fastmri_folder("multi", 5, 2, name="val")
    changes = {"data.validation": str(held), "data.augment": False, "training.epochs": 2}
    card = fastmri_recipe(changes)
    (tmp_path / "card.yaml").write_text(card.to_yaml())
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    done = torchrun([tmp_path / "script.py", tmp_path / "card.yaml", tmp_path / "run"])
    assert done.returncode == 0, done.stderr
    (first, mine), (second, other) = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not mine & other
    assert len(mine | other) == 4
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    verdicts = [row for row in rows if row["event"] == "validation"]
    best = max(verdicts, key=lambda row: row["ssim"])
    alone = {score.volume: dict(score.scores) for score in judge(tmp_path / "run").verdict.scores}
    assert len(alone) == 5
    for volume, scores in alone.items():
        assert scores == pytest.approx(best["volumes"][volume], rel=1e-5)


@pytest.mark.slow
def test_the_command_under_torchrun(recipe, tmp_path):
    """One volume to judge: a process without any must not make the other wait."""
    card = recipe({"data.validation": 0.1, "training.epochs": 1})
    (tmp_path / "card.yaml").write_text(card.to_yaml())
    done = torchrun(["-m", "medrecon", "train", tmp_path / "card.yaml", "--output", tmp_path / "run"])
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "run" / "model") in done.stdout
    assert done.stdout.count("model") == 1
    again = torchrun(["-m", "medrecon", "train", tmp_path / "card.yaml", "--output", tmp_path / "run"])
    assert again.returncode != 0
    assert again.stderr.count("error: ") >= 1
    assert "is there already and not empty" in again.stderr


def test_alone():
    alone = start_processes(torch.device("cpu"))
    assert alone == Processes()
    assert alone.main
    assert alone.gather("x") == ["x"]
    assert alone.total(1.0, 2.0) == [1.0, 2.0]
    alone.wait()
