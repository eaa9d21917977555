"""Section 3.2.1: triplets keep the rule and are drawn evenly; three branches share their weights; the loss by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from networks import EmbeddingNet
from triplet_network import TripletNet, draw_fixed_triplets, draw_triplets, read_triplets, triplet_losses
from utils import UserError


def draw(style: np.ndarray, content: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    return draw_triplets(style, content, rows, np.random.default_rng(seed))[0]


def test_every_triplet_keeps_the_rule_where_the_content_is_known():
    generator = np.random.default_rng(7)
    style, content = generator.integers(0, 11, 5000), generator.integers(-1, 9, 5000)
    rows = generator.permutation(np.arange(1000, 4000))
    anchor, positive, negative = draw(style, content, rows, seed=1).T
    assert (anchor == rows).all(), "every picture is the anchor once, in the order of the epoch"
    assert np.isin(np.concatenate([positive, negative]), rows).all()
    assert (style[positive] == style[anchor]).all() and (positive != anchor).all()
    assert (style[negative] != style[anchor]).all()
    known = content[anchor] >= 0
    assert (content[positive[known]] != content[anchor[known]]).all() and (content[positive[known]] >= 0).all()
    assert (content[negative[known]] == content[anchor[known]]).all()


def test_all_that_keep_the_rule_are_drawn_evenly():
    style, content = np.array([0] * 6 + [1] * 6), np.array([0, 0, 1, 1, 2, 2] * 2)
    drawn = np.stack([draw(style, content, np.arange(12), seed)[0] for seed in range(2000)])
    assert (drawn[:, 0] == 0).all()
    positives, times = np.unique(drawn[:, 1], return_counts=True)
    assert positives.tolist() == [2, 3, 4, 5] and times.min() > 400, "500 each are expected"
    negatives, times = np.unique(drawn[:, 2], return_counts=True)
    assert negatives.tolist() == [6, 7] and times.min() > 900


def test_an_anchor_of_unknown_content_gets_any_other_picture_of_its_style_evenly():
    style, content = np.array([0, 0, 0, 1, 1]), np.full(5, -1)
    drawn = np.concatenate([draw(style, content, np.array([4, 1, 0, 3, 2]), seed) for seed in range(300)])
    for anchor, others in ((0, {1, 2}), (1, {0, 2}), (2, {0, 1})):
        found, times = np.unique(drawn[drawn[:, 0] == anchor, 1], return_counts=True)
        assert set(found.tolist()) == others and times.min() > 100


def test_the_rule_gives_way_only_for_anchors_that_need_it_and_these_are_counted():
    # The only style-0 picture of content 1 finds no negative of its content, the style-1 picture of content 2 neither.
    style, content = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 2])
    for seed in range(50):
        drawn, fallbacks = draw_triplets(style, content, np.arange(5), np.random.default_rng(seed))
        assert fallbacks == 2
        assert drawn[2, 1] in (0, 1) and drawn[2, 2] in (3, 4) and drawn[0].tolist() == [0, 2, 3]


def test_the_triplets_of_validation_are_ten_for_each_anchor_and_the_same_each_time():
    style, content = np.arange(100) % 5, np.arange(100) % 7
    style[:3] = [20, 21, -1]  # one picture of a style, and one of none: no anchors
    drawn = draw_fixed_triplets(style, content, np.arange(100))
    assert len(drawn) == 970 and not np.isin(drawn[:, :2], [0, 1, 2]).any()
    assert (drawn == draw_fixed_triplets(style, content, np.arange(100))).all()
    with pytest.raises(UserError, match="two classes of two each"):
        draw_fixed_triplets(np.array([0, 0, 1]), np.array([0, 1, 0]), np.arange(3))


# Triplets from files.

SPLIT = np.array(["train"] * 10 + ["val"] * 10 + ["test"] * 10)


def test_a_file_says_which_is_nearer_and_what_can_teach_nothing_is_left_out_and_counted(tmp_path: Path, capsys):
    (tmp_path / "1").write_text("0 1 2\n3 4 3\n0 1 15\n")
    (tmp_path / "2").write_text("10 11 12\n20 21 22\n")
    found = read_triplets([tmp_path / "1", tmp_path / "2"], SPLIT)
    assert found["train"].tolist() == [[0, 2, 1]], "a b c: a is nearer to c, so c is the positive"
    assert found["val"].tolist() == [[10, 12, 11]] and found["test"].tolist() == [[20, 22, 21]]
    assert "3 of 5" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*input contained no data")
@pytest.mark.parametrize("text", ["0 1 9999\n", "0 1\n", "0 1 x\n", "", "0 1 2\n"])
def test_what_is_no_list_of_triplets_or_has_none_to_validate_is_refused_by_name(text, tmp_path):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=r"--triplets .*list\.txt: .*give"):
        read_triplets([tmp_path / "list.txt"], SPLIT)


# The net and the loss.


def test_three_branches_share_one_set_of_parameters_and_each_gives_gradients():
    net = TripletNet(EmbeddingNet("tiny", 8), None).eval()
    assert sum(part.numel() for part in net.parameters()) == sum(part.numel() for part in net.embedding.parameters())
    pictures = torch.randn(6, 3, 32, 32, requires_grad=True)
    alone, branches = net.embedding(pictures), net(pictures)
    for place, branch in enumerate(branches):  # anchor, positive, negative of one triplet, then of the next
        assert torch.allclose(branch, alone[place::3], atol=1e-6)
    triplet_losses(*branches, margin=20.0)[0].sum().backward()
    assert (pictures.grad.flatten(1).abs().sum(dim=1) > 0).all()
    assert torch.allclose(TripletNet(net.embedding, 0.25).branch(pictures).norm(dim=1), torch.full((6,), 0.25))


def test_the_loss_of_a_case_worked_out_by_hand():
    anchor = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    positive = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    negative = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
    # Distances: sqrt(2) and 2; 0 and 2; sqrt(2) and sqrt(0.8).
    losses, right = triplet_losses(anchor, positive, negative, margin=0.7)
    assert losses.tolist() == pytest.approx([2**0.5 - 2 + 0.7, 0.0, 2**0.5 - 0.8**0.5 + 0.7], abs=1e-4)
    assert right.tolist() == [True, True, False]
    losses, _ = triplet_losses(anchor, positive, negative, margin=0.7, squared=True)
    assert losses.tolist() == pytest.approx([0.0, 0.0, 2 - 0.8 + 0.7], abs=1e-4)
