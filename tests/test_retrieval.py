"""The numbers of retrieval agree with scikit-learn and with what they come to by hand, ties included."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

from retrieval.metrics import DEFINITIONS, measure, measure_neighbours, nearest_is_same, summarise
from triplet_network import average_precisions, draw_fixed_triplets


def draw_case(n: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of length 1 that know their styles a little; styles and contents."""
    generator = torch.Generator().manual_seed(0)
    label, other = torch.randint(5, (n,), generator=generator), torch.randint(4, (n,), generator=generator)
    centres = torch.randn(5, 16, generator=generator)
    return normalize(torch.randn(n, 16, generator=generator) + 0.5 * centres[label], dim=1), label, other


def test_a_ranking_worked_out_by_hand():
    # The query at 0 sees, in order: own, other, (own, other) equally far away, own.
    points = torch.tensor([[0.0], [1.0], [-2.0], [3.0], [-3.0], [4.0]])
    label = torch.tensor([0, 0, 1, 0, 1, 0])
    assert average_precisions(points, label)[0].item() == pytest.approx((1 / 1 + 2 / 4 + 3 / 5) / 3)
    found = {name: value[0].item() for name, value in measure_neighbours(points, label).items()}
    assert found["map_at_100"] == pytest.approx((1 / 1 + 2 / 4 + 3 / 5) / 3)
    assert found["precision_at_1"] == 1
    assert found["precision_at_10"] == pytest.approx(3 / 5)  # of the five that there are
    assert found["r_precision"] == pytest.approx(1 / 3)
    points[1] = 5.0  # own now stands last; the first is the other at -2
    found = {name: value[0].item() for name, value in measure_neighbours(points, label).items()}
    assert [found[f"recall_at_{k}"] for k in (1, 5, 10)] == [0, 1, 1]


def test_the_query_s_content_is_taken_out_of_its_style_alone():
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    label, other = torch.tensor([0, 0, 1, 0]), torch.tensor([5, 5, 5, 6])
    assert average_precisions(points, label, other)[0] == 1 / 2  # what is left is the other style at 2 and its own at 3


def test_average_precision_is_scikit_learn_s():
    embeddings, label, _ = draw_case()
    embeddings[:40] = embeddings[40:80]  # copies: ties
    found, points = average_precisions(embeddings, label), embeddings.double().numpy()
    for query in range(0, 300, 7):
        others = np.arange(300) != query
        far = np.square(points[others] - points[query]).sum(axis=1).round(12)
        theirs = average_precision_score(label.numpy()[others] == label[query].item(), -far)
        assert found[query].item() == pytest.approx(theirs, abs=1e-6)


def test_neighbours_are_scikit_learn_s():
    embeddings, label, other = draw_case(700)  # more than a hundred of each style
    _, nearest = NearestNeighbors(n_neighbors=101).fit(embeddings.numpy()).kneighbors(embeddings.numpy())
    same = label.numpy()[nearest[:, 1:]] == label.numpy()[:, None]
    shares = same.cumsum(axis=1) / np.arange(1, 101)
    found = {name: value.numpy() for name, value in measure_neighbours(embeddings, label).items()}
    np.testing.assert_array_equal(found["precision_at_1"], same[:, 0])
    np.testing.assert_allclose(found["precision_at_10"], shares[:, 9])
    np.testing.assert_allclose(found["map_at_100"], (shares * same).sum(axis=1) / 100)
    for k in (1, 5, 10):
        np.testing.assert_array_equal(found[f"recall_at_{k}"], same[:, :k].any(axis=1))
    same = other.numpy()[nearest[:, 1]] == other.numpy()
    np.testing.assert_array_equal(nearest_is_same(embeddings, other).numpy(), same)


def test_the_summary_leaves_out_what_says_nothing():
    embeddings = torch.eye(5)
    label, other = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 1, -1])
    triplets = draw_fixed_triplets(label.numpy(), other.numpy(), np.arange(5))
    found = measure(embeddings, label, other, torch.from_numpy(triplets), torch.full((5,), torch.nan).double())
    numbers = summarise(found, label.numpy(), triplets, ["ink", "oil", "alone"])
    assert numbers["n_queries"] == 4  # the fifth is alone in its style
    assert numbers["per_style"]["alone"]["map"] is None
    assert numbers["per_style"]["ink"]["n_queries"] == 2
    assert numbers["accuracy"] is None and numbers["accuracy_over_classes"] is None
    assert len(triplets) == 40
    assert set(DEFINITIONS) <= set(numbers)


def test_accuracy_over_classes_counts_small_classes_as_much():
    label = torch.tensor([0] * 8 + [1, 1])
    right = torch.tensor([1.0] * 8 + [0.0, 0.0]).double()
    triplets = torch.tensor([[0, 1, 8]])
    found = measure(torch.randn(10, 3), label, torch.full_like(label, -1), triplets, right)
    numbers = summarise(found, label.numpy(), triplets.numpy(), ["many", "few"])
    assert numbers["accuracy"] == 0.8 and numbers["accuracy_over_classes"] == 0.5
    assert numbers["map_cross_content"] is None and numbers["content_precision_at_1"] is None
