"""`helpers.metrics`: measures of heatmaps against masks, and counterfactual pairs."""

import numpy as np
import pytest

from helpers.metrics import energy_by_class, energy_inside, flip_rate, pointing_game


@pytest.fixture
def masks():
    masks = np.zeros((4, 6, 8), dtype=bool)
    masks[:2, :3, :4] = True  # a quarter
    masks[2:, 1, 2:5] = True  # three pixels
    return masks


def test_pointing_counts_the_highest_point(masks):
    maps = np.zeros((4, 6, 8))
    maps[0, 2, 3] = maps[1, 3, 3] = maps[2, 1, 4] = 1  # inside, just below, inside
    maps[3] = -1
    maps[3, 1, 3] = 0  # inside, but blank
    np.testing.assert_array_equal(pointing_game(maps, masks), [True, False, True, False])


def test_pointing_by_chance_is_the_area(masks):
    noise = np.random.default_rng(0).random((4_000, 6, 8))
    hits = pointing_game(noise, np.repeat(masks[:1], 4_000, axis=0))
    assert hits.mean() == pytest.approx(0.25, abs=0.03)


def test_energy_by_class(masks):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 6, 8))
    maps[2] = -1  # blank
    labels = np.array([7, 3, 7, 3])
    table = energy_by_class(maps, masks, labels)
    inside = energy_inside(maps, masks)
    assert table.shape == (2, 3)
    np.testing.assert_allclose(table[0], [(inside[1] + inside[3]) / 2, (12 + 3) / 2 / 48, 0])
    np.testing.assert_allclose(table[1], [inside[0] / 2, (12 + 3) / 2 / 48, 0.5])
    even = energy_by_class(np.ones(maps.shape), masks, labels)
    np.testing.assert_allclose(even[:, 0], even[:, 1])


def test_flip_rate_counts_pairs_that_differ():
    def predict(numbers):
        return np.array([number > 10 for number in numbers], dtype=int)

    assert flip_rate(predict, [1, 9, 12, 20], lambda n: n + 5) == 0.25
    assert flip_rate(predict, [1, 9, 12, 20], lambda n: n - 5) == 0.25
    assert flip_rate(predict, [9, 12, 20], lambda n: max(n, 12)) == 1, "12 and 20 stay: one pair, which flips"


def test_flip_rate_takes_lists_and_wants_a_pair():
    assert flip_rate(lambda numbers: [n > 10 for n in numbers], [1, 9, 12], lambda n: n + 5) == pytest.approx(
        1 / 3
    )
    with pytest.raises(ValueError, match="leaves every item as it is"):
        flip_rate(lambda numbers: np.zeros(len(numbers)), [1, 2], lambda n: n)


def test_flips_in_both_directions_do_not_cancel():
    answers = {"a": 0, "b": 1, "A": 1, "B": 0}
    assert flip_rate(lambda items: np.array([answers[item] for item in items]), ["a", "b"], str.upper) == 1
