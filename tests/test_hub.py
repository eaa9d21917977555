"""The embedding in somebody else's program: through torch.hub, or `trained.load_trained`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, run_command

from decoding import UnreadablePicture, decode
from trained import TrainedNet, load_trained
from utils import UserError


@pytest.fixture(scope="module")
def net(stage2_run: Path) -> TrainedNet:
    return load_trained(stage2_run)


@pytest.fixture(scope="module")
def files(collection: Path) -> list[Path]:
    return sorted(collection.rglob("*.jpg"))[:5]


@pytest.mark.parametrize("name", ["nothing.pt", "config.json", "last.pt"])
def test_a_file_of_no_weights_is_refused(stage2_run: Path, name: str) -> None:
    with pytest.raises(UserError, match=name):
        load_trained(stage2_run / name)


def test_what_is_no_picture_is_refused(net: TrainedNet, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("words")
    with pytest.raises(UnreadablePicture, match="words.jpg"):
        net(tmp_path / "words.jpg")
    with pytest.raises(ValueError, match="uint8"):
        net([np.zeros((8, 8), np.uint8)])
    with pytest.raises(ValueError, match="uint8"):
        net(np.zeros((8, 8, 3), np.int64))
    with pytest.raises(ValueError, match="float pictures"):
        net(torch.zeros(1, 3, 100, 100))


def test_torch_hub_gives_a_ready_net_from_anywhere(
    stage2_run: Path, files: list[Path], tmp_path: Path, net: TrainedNet
) -> None:
    program = (
        "import sys, torch\n"
        f"net = torch.hub.load({str(ROOT)!r}, 'style_embedding', source='local', weights={str(stage2_run / 'best.pt')!r})\n"
        "embeddings = net(sys.argv[1:])\n"
        "assert isinstance(net, torch.nn.Module)\n"
        "torch.save(embeddings, 'embeddings.pt')\n"
    )
    done = run_command("-c", program, *files, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "embeddings.pt"), net(files), atol=1e-5, rtol=0)


def test_a_program_with_modules_of_the_same_names_keeps_its_own(
    stage2_run: Path, files: list[Path], tmp_path: Path, net: TrainedNet
) -> None:
    for name in ("utils", "dataset", "networks"):
        (tmp_path / f"{name}.py").write_text(f"MINE = '{name}'\n")
    program = (
        "import sys, torch, utils, dataset\n"
        f"net = torch.hub.load({str(ROOT)!r}, 'style_embedding', source='local', weights={str(stage2_run)!r})\n"
        "torch.save(net(sys.argv[1:]), 'embeddings.pt')\n"
        "import utils as again\n"
        "assert again is utils and sys.modules['dataset'] is dataset\n"
        "print(utils.MINE, dataset.MINE)\n"
    )
    (tmp_path / "program.py").write_text(program)
    done = run_command("program.py", *files, cwd=tmp_path)
    assert done.stdout.split()[-2:] == ["utils", "dataset"], done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "embeddings.pt"), net(files), atol=1e-5, rtol=0)


def test_embeddings_have_length_1_and_do_not_depend_on_the_company(net: TrainedNet, files: list[Path]) -> None:
    together = net(files)
    assert together.shape == (5, 256)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    for file, embedding in zip(files, together, strict=True):
        torch.testing.assert_close(net(file), embedding[None], atol=1e-5, rtol=0)
    assert net([]).shape == (0, 256)


def test_every_form_of_a_picture_gives_the_same_embedding(net: TrainedNet, files: list[Path]) -> None:
    expected = net(files)
    arrays = [decode(file) for file in files]
    for same in (arrays, np.stack(arrays), torch.from_numpy(np.stack(arrays)), [str(file) for file in files]):
        torch.testing.assert_close(net(same), expected, atol=1e-6, rtol=0)
    larger = [cv2.copyMakeBorder(array, 0, 0, 30, 30, cv2.BORDER_CONSTANT) for array in arrays]
    torch.testing.assert_close(net(larger), expected, atol=1e-6, rtol=0)  # the sides of a wide picture are cut off


def test_gradients_flow_to_float_pictures_and_not_to_the_weights(net: TrainedNet) -> None:
    pictures = torch.rand(2, 3, 64, 64, requires_grad=True)
    embeddings = net(pictures)
    (embeddings[0] - embeddings[1]).norm().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert all(not weight.requires_grad for weight in net.parameters())


def test_float_pictures_are_embedded_as_the_middle_of_the_uint8_ones(net: TrainedNet, files: list[Path]) -> None:
    squares = torch.from_numpy(net.to_squares(files))
    start = (squares.shape[1] - 64) // 2
    middle = squares[:, start : start + 64, start : start + 64].permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(net(middle), net(files), atol=1e-5, rtol=0)


def test_stage_1_gives_its_embedding_too(stage1_run: Path, files: list[Path]) -> None:
    net = load_trained(stage1_run / "best.pt")
    embeddings, scores = net.embed_squares(torch.from_numpy(net.to_squares(files)))
    torch.testing.assert_close(embeddings, net(files))
    assert scores is not None
    assert scores.shape == (5, len(net.classes))


def test_the_three_lines_of_the_readme_work_without_hub(stage2_run: Path, files: list[Path]) -> None:
    program = (
        "from trained import load_trained\n"
        f"net = load_trained({str(stage2_run)!r})\n"
        f"print(tuple(net([{str(files[0])!r}, {str(files[1])!r}]).shape))\n"
    )
    done = run_command("-c", program)
    assert done.stdout.strip() == "(2, 256)", done.stderr
