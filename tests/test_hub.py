"""The embedding in another program: `retrieval.embedding.load`, and the same through torch.hub."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import ROOT, stage1

from dataset import read_picture
from retrieval.embedding import TrainedNet, load
from utils import UserError


@pytest.fixture(scope="module")
def net(stage2_run) -> TrainedNet:
    return load(stage2_run)


@pytest.fixture(scope="module")
def files(collection) -> list[Path]:
    return sorted(collection.rglob("*.png"))[::20]


def test_embeddings_have_length_1_and_do_not_depend_on_the_company(net, files):
    together = net(files)
    assert together.shape == (5, 16) and together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    for file, embedding in zip(files, together, strict=True):
        torch.testing.assert_close(net(str(file)), embedding[None], atol=1e-5, rtol=0)


def test_paths_and_arrays_give_the_same(net, files):
    arrays = [read_picture(file) for file in files]
    torch.testing.assert_close(net(arrays), net(files))
    torch.testing.assert_close(net(np.stack(arrays)), net(files))
    torch.testing.assert_close(net(arrays[0]), net(files[0]))


def test_what_is_no_picture_or_no_run_is_refused(net, tmp_path):
    (tmp_path / "words.jpg").write_text("words")
    with pytest.raises(UserError, match="words.jpg: cannot be read"):
        net(tmp_path / "words.jpg")
    with pytest.raises(ValueError, match="uint8"):
        net(np.zeros((8, 8, 3)))
    with pytest.raises(UserError, match="weights.pt"):
        load(tmp_path)


PROGRAM = """
import sys
import torch
net = torch.hub.load(sys.argv[1], "style_embedding", source="local", weights=sys.argv[2])
ours = {"dataset", "networks", "triplet_network", "retrieval", "retrieval.embedding"}
assert not ours & sys.modules.keys()
import dataset, utils
assert utils.MINE and dataset.MINE
torch.save(net(sys.argv[3:]), "embeddings.pt")
"""


@pytest.mark.parametrize("first", ["import utils", ""])
def test_torch_hub_leaves_a_program_its_own_modules_of_the_same_names(collection, files, first, tmp_path):
    stage1(collection, tmp_path / "run", "--arch", "squeezenet1_1", "--epochs", 1)  # a net that any program can make
    for name, text in {"utils": "MINE = True", "dataset": "MINE = True", "program": first + PROGRAM}.items():
        (tmp_path / f"{name}.py").write_text(text)
    subprocess.run([sys.executable, "program.py", ROOT, "run", *files], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "embeddings.pt"), load(tmp_path / "run")(files))
