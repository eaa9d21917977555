"""The embedding in another program: `retrieval.embedding.load`, and the same through torch.hub."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import ROOT

from dataset import read_picture
from retrieval.embedding import TrainedNet, load
from utils import UserError

OURS = ("utils", "dataset", "networks", "triplet_network", "retrieval", "retrieval.embedding")


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


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """A program that has modules of the same names as this project's, none of which is imported yet."""
    for name in ("utils", "dataset"):
        (tmp_path / f"{name}.py").write_text(f"MINE = '{name}'\n")
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if Path(path) != ROOT)])
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize("first", [True, False])
def test_torch_hub_leaves_a_program_its_own_modules(program, stage2_run, files, net, first):
    mine = importlib.import_module("utils") if first else None
    ready = torch.hub.load(str(ROOT), "style_embedding", source="local", weights=str(stage2_run))
    assert set(OURS) & sys.modules.keys() <= {"utils"}
    assert importlib.import_module("utils").MINE == "utils"
    assert importlib.import_module("dataset").MINE == "dataset"
    assert mine in (None, sys.modules["utils"])
    torch.testing.assert_close(ready(files), net(files))
    for name in ("utils", "dataset"):
        del sys.modules[name]
