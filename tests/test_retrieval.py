"""The retrieval numbers agree with scikit-learn and with the definitions worked out by hand, ties included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

import retrieval
from retrieval import mean_average_precision, nearest, nearest_class, nearest_has_same, rank_all

# Points on a small grid: many are equally far from each other, exactly.
CASES = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=n, max_size=n),
        st.lists(st.integers(-1, 2), min_size=n, max_size=n),
        st.lists(st.integers(-1, 2), min_size=n, max_size=n),
    )
)


def random_case(n: int, d: int = 16, styles: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of length 1 that know their styles a little, styles and contents."""
    generator = torch.Generator().manual_seed(n)
    labels = torch.randint(styles, (n,), generator=generator)
    centres = torch.randn(styles, d, generator=generator)
    embeddings = torch.randn(n, d, generator=generator) + 0.5 * centres[labels]
    return torch.nn.functional.normalize(embeddings, dim=1), labels, torch.randint(4, (n,), generator=generator)


def by_definition(points: list, labels: list, excluded: list | None = None) -> list[tuple[float, ...]]:
    """AP, P@1, P@10 and R-precision of every query in plain Python, on exact distances: the slow second opinion."""
    answers = []
    for query, label in enumerate(labels):
        gallery = [row for row in range(len(labels)) if row != query and labels[row] >= 0]
        if excluded is not None:
            gallery = [row for row in gallery if (labels[row], excluded[row]) != (label, excluded[query])]
        far = {row: sum((a - b) ** 2 for a, b in zip(points[row], points[query], strict=True)) for row in gallery}
        relevant = [row for row in gallery if labels[row] == label]
        if label < 0 or not relevant or (excluded is not None and excluded[query] < 0):
            answers.append((math.nan,) * 4)
            continue
        average = 0.0
        for row in relevant:
            within = [other for other in gallery if far[other] <= far[row]]
            average += sum(labels[other] == label for other in within) / len(within) / len(relevant)
        ranking = sorted(gallery, key=lambda row: (far[row], labels[row] == label))  # the relevant last in a tie
        others = sum(known >= 0 for known in labels) - 1
        cuts = (1, min(10, others), len(relevant))
        precisions = [sum(labels[row] == label for row in ranking[:cut]) / cut for cut in cuts]
        answers.append((average, *precisions))
    return answers


def as_table(ranking: retrieval.Ranking) -> np.ndarray:
    columns = (ranking.average_precision, ranking.precision_at_1, ranking.precision_at_10, ranking.r_precision)
    return torch.stack(columns, dim=1).numpy()


# Failures and odd cases first.


def test_an_embedding_collapsed_to_one_point_earns_nothing_but_chance() -> None:
    labels = torch.arange(40) % 4
    ranking = rank_all(torch.ones(40, 8), labels)
    assert ranking.precision_at_1.eq(0).all()
    assert ranking.precision_at_10.eq(0).all()
    assert ranking.r_precision.eq(0).all()
    torch.testing.assert_close(ranking.average_precision, torch.full((40,), 9 / 39, dtype=torch.float64))
    assert nearest_class(torch.ones(40, 8), labels).ne(labels).all()


def test_copies_of_a_picture_tie_whatever_float32_makes_of_their_distances() -> None:
    embeddings, _, _ = random_case(7, d=200)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    twice = torch.cat([embeddings, embeddings, embeddings])
    labels = torch.cat([labels, labels, (labels + 1) % 3])  # one copy of the own style, one of another
    ranking = rank_all(twice, labels)
    assert ranking.precision_at_1.eq(0).all()
    assert nearest_has_same(twice, labels)[:7].eq(0.5).all()


def test_a_picture_that_is_alone_in_its_style_has_nothing_to_find_but_is_in_the_way() -> None:
    points = torch.tensor([[0.0], [1.0], [1.5], [9.0]])
    ranking = rank_all(points, torch.tensor([0, 1, 0, 0]))
    assert ranking.average_precision[1].isnan()
    assert ranking.r_precision[1].isnan()
    # From 0.0: the stranger at 1.0 first, then both others.
    assert ranking.average_precision[0].item() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_pictures_of_unknown_style_neither_query_nor_stand_in_the_way() -> None:
    embeddings, labels, contents = random_case(60)
    known = torch.arange(60) % 3 > 0
    with_unknown = rank_all(embeddings, torch.where(known, labels, -1), contents)
    without = rank_all(embeddings[known], labels[known], contents[known])
    assert with_unknown.average_precision[~known].isnan().all()
    torch.testing.assert_close(with_unknown.average_precision[known], without.average_precision, equal_nan=True)


@pytest.mark.parametrize("n", [0, 1])
def test_without_another_picture_every_number_is_unknown(n: int) -> None:
    labels = torch.zeros(n, dtype=torch.int64)
    assert rank_all(torch.ones(n, 3), labels).average_precision.isnan().all()
    assert math.isnan(mean_average_precision(torch.ones(n, 3), labels))
    assert nearest_has_same(torch.ones(n, 3), labels).isnan().all()
    assert nearest_class(torch.ones(n, 3), labels).tolist() == [-1] * n


def test_nothing_known_of_the_styles_gives_no_numbers() -> None:
    embeddings, labels, _ = random_case(20)
    assert math.isnan(mean_average_precision(embeddings, torch.full_like(labels, -1)))


# The definitions.


def test_a_ranking_worked_out_by_hand() -> None:
    # One line of points; the query at 0 sees, in order: own, other, (own, other) at the same distance, own.
    points = torch.tensor([[0.0], [1.0], [-2.0], [3.0], [-3.0], [4.0]])
    ranking = rank_all(points, torch.tensor([0, 0, 1, 0, 1, 0]))
    assert ranking.average_precision[0].item() == pytest.approx((1 / 1 + 2 / 4 + 3 / 5) / 3)
    assert ranking.precision_at_1[0] == 1
    assert ranking.precision_at_10[0].item() == pytest.approx(3 / 5)
    assert ranking.r_precision[0].item() == pytest.approx(1 / 3)  # of the tie, the other style counts as first


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_every_number_follows_its_definition_exactly(case: tuple[list, list, list]) -> None:
    points, labels, contents = case
    embeddings = torch.tensor(points, dtype=torch.float32)
    for excluded in (None, contents):
        ranking = rank_all(embeddings, torch.tensor(labels), None if excluded is None else torch.tensor(excluded))
        np.testing.assert_allclose(as_table(ranking), by_definition(points, labels, excluded), rtol=1e-12)


def test_average_precision_agrees_with_scikit_learn() -> None:
    embeddings, labels, _ = random_case(300)
    embeddings[:40] = embeddings[40:80]  # ties
    ours = rank_all(embeddings, labels).average_precision
    points = embeddings.double().numpy()
    distances = np.square(points[:, None] - points).sum(axis=2)
    for query in range(300):
        others = np.arange(300) != query
        theirs = average_precision_score(labels.numpy()[others] == labels[query].item(), -distances[query, others])
        assert ours[query].item() == pytest.approx(theirs, abs=1e-9)


def test_precision_agrees_with_scikit_learns_neighbours() -> None:
    embeddings, labels, _ = random_case(300)
    _, found = NearestNeighbors(n_neighbors=11).fit(embeddings.numpy()).kneighbors(embeddings.numpy())
    same = labels.numpy()[found[:, 1:]] == labels.numpy()[:, None]
    ranking = rank_all(embeddings, labels)
    np.testing.assert_allclose(ranking.precision_at_10.numpy(), same.mean(axis=1))
    np.testing.assert_allclose(ranking.precision_at_1.numpy(), same[:, 0])
    np.testing.assert_array_equal(nearest_class(embeddings, labels).numpy(), labels.numpy()[found[:, 1]])
    np.testing.assert_allclose(nearest_has_same(embeddings, labels).numpy(), same[:, 0])


def test_cross_content_ignores_a_net_that_only_knows_styles_within_a_content() -> None:
    # The embedding knows the pair (style, content) perfectly, and nothing of a style across contents.
    style, content = torch.arange(64) % 4, torch.arange(64) // 4 % 4
    embeddings = torch.eye(16)[style * 4 + content]
    assert mean_average_precision(embeddings, style) > 0.35
    across = mean_average_precision(embeddings, style, content)
    assert across == pytest.approx(12 / (12 + 48))  # chance: 12 relevant among the 60 that are left, all equally far


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels, contents = random_case(150)
    whole = as_table(rank_all(embeddings, labels, contents))
    same, classes = nearest_has_same(embeddings, contents), nearest_class(embeddings, labels)
    monkeypatch.setattr(retrieval, "BLOCK_QUERIES", 7)
    monkeypatch.setattr(retrieval, "BLOCK_ELEMENTS", 1)
    np.testing.assert_array_equal(as_table(rank_all(embeddings, labels, contents)), whole)
    assert nearest_has_same(embeddings, contents).equal(same)
    assert nearest_class(embeddings, labels).equal(classes)


@pytest.mark.parametrize("factor", [1e-18, 1e18])
def test_the_scale_of_the_embeddings_makes_no_difference(factor: float) -> None:
    embeddings, labels, contents = random_case(80)
    scaled = as_table(rank_all(embeddings * factor, labels, contents))
    np.testing.assert_allclose(scaled, as_table(rank_all(embeddings, labels, contents)), rtol=1e-6)


def test_the_nearest_come_in_order_with_their_distances() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [0.0, 1.0]])
    rows, far = nearest(points, torch.tensor([[0.0, 0.0]]), 3)
    assert rows.tolist() == [[0, 2, 3]]
    assert far.tolist() == [[0.0, 1.0, 1.0]]
    assert nearest(points, points, 99)[0].shape == (4, 4)
