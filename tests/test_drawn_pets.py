"""`helpers.drawn_pets`: the series, its parts, counterfactuals, the same pixels everywhere, and how hard."""

import hashlib
import random
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from skimage.morphology import dilation
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from helpers import drawn_pets
from helpers.drawn_pets import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLLARS,
    HEAD,
    HIDEABLE,
    PART_NAMES,
    Pet,
    draw_pair,
    draw_pets,
    plant,
    sample_pets,
)
from tests.processors import SIMPLER, drawn_on

OTHER = {"cat": "dog", "dog": "cat"}
PETS = sample_pets(2_500)
SOME = PETS[:40]  # for what is drawn many times


@pytest.fixture(scope="module")
def drawn():
    return draw_pets(PETS)


@pytest.fixture(scope="module")
def labels():
    return np.array([CLASS_NAMES.index(pet.species) for pet in PETS])


def share(parts, *names):
    """The share of each picture's pixels that belong to these parts."""
    return np.isin(parts, [PART_NAMES.index(name) for name in names]).mean(axis=(1, 2))


# ------------------------------------------------------------------------------------------ the series


def test_form(drawn):
    images, parts = drawn
    assert images.shape == (2_500, 3, 96, 96) and parts.shape == (2_500, 96, 96)
    assert images.dtype == parts.dtype == np.uint8
    assert set(np.unique(parts)) == set(range(len(PART_NAMES)))
    assert {"grass", "cage", "room", "night"} <= set(BACKGROUNDS) == set(drawn_pets.BACKGROUND_PAINTERS)
    assert set(HEAD) < set(PART_NAMES) and set(COLLARS) == set(drawn_pets.COLLAR_COLOURS)
    assert len({image.tobytes() for image in images}) == 2_500


def test_of_two_one_is_a_cat_and_one_a_dog(labels):
    pairs = labels.reshape(-1, 2)
    assert (pairs.sum(axis=1) == 1).all()
    assert pairs[:, 0].mean() == pytest.approx(0.5, abs=0.05)


def test_shares(labels):
    for species in CLASS_NAMES:
        pets = [pet for pet in PETS if pet.species == species]
        assert np.mean([pet.ears != species for pet in pets]) == pytest.approx(0.08, abs=0.025)
        assert {pet.eyes for pet in pets} == {pet.muzzle for pet in pets} == {species}
        tongues = {"cat": 0.06, "dog": 0.45}[species]
        assert np.mean([pet.tongue for pet in pets]) == pytest.approx(tongues, abs=0.04)
        assert np.mean([pet.collar is not None for pet in pets]) == pytest.approx(0.5, abs=0.04)
        for collar in COLLARS:
            assert np.mean([pet.collar == collar for pet in pets]) == pytest.approx(0.1, abs=0.03)
        for background in BACKGROUNDS:
            assert np.mean([pet.background == background for pet in pets]) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    "numbers", [4, 0, [7, 3], range(95, 99), np.array([42]), np.int64(3), [2_499, 0, 2_499]]
)
def test_a_pet_depends_on_its_number_only(drawn, numbers):
    chosen = list(range(numbers)) if isinstance(numbers, int | np.integer) else list(numbers)
    pets = sample_pets(numbers)
    assert pets == [PETS[number] for number in chosen]
    for again, whole in zip(draw_pets(pets), drawn, strict=True):
        np.testing.assert_array_equal(again, whole[chosen])


def test_seeds_give_other_pets():
    series = {seed: sample_pets(20, seed=seed) for seed in (0, 1, 2**32 - 1)}
    assert series[0] == PETS[:20]
    assert len({draw_pets(pets)[0].tobytes() for pets in series.values()}) == 3
    draw_pets(sample_pets([2**32 - 1], seed=2**32 - 1))


def test_global_random_states_stay():
    before = random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2:]
    plant(sample_pets(3), {"collar": "red"}, {}, (0.5, 0.5))
    draw_pets(sample_pets(3))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2:])


# ------------------------------------------------------------------------------------------ parts


def test_parts_that_are_there(drawn):
    parts = drawn[1]
    assert 0.10 <= share(parts, *HEAD).mean() <= 0.20
    assert share(parts, *HEAD).min() > 0.05
    least = 40 / 96**2
    assert share(parts, "eyes").min() > least and share(parts, "muzzle").min() > least
    for name, wanted in (
        ("collar", [pet.collar is not None for pet in PETS]),
        ("tongue", [pet.tongue for pet in PETS]),
    ):
        seen = share(parts, name)
        assert ((seen > 0) == wanted).all()
        assert seen[seen > 0].min() > (80 if name == "collar" else 5) / 96**2
    assert 0.3 < share(parts, "background").mean() < 0.7


@pytest.mark.parametrize("size", [48, 192, 224])
def test_other_sizes_show_the_same_scene(drawn, size):
    images, parts = draw_pets(SOME, size)
    assert images.shape == (len(SOME), 3, size, size) and parts.shape == (len(SOME), size, size)
    if size % 12 == 0:
        coarse, again = (
            some.reshape(len(SOME), 3, 12, some.shape[2] // 12, 12, -1).mean(axis=(3, 5))
            for some in (drawn[0][: len(SOME)], images)
        )
        assert np.abs(again - coarse).mean() < 8
    for names in (HEAD, ["body"], ["collar"], ["clutter"]):
        assert np.abs(share(parts, *names) - share(drawn[1][: len(SOME)], *names)).max() < 0.02


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_no_background_runs_out_of_random_numbers(background):
    """With that of another one."""
    draw_pets([replace(pet, background=background) for pet in PETS[100:120]], 32)


# ------------------------------------------------------------------------------------------ counterfactuals


@pytest.fixture
def differing(drawn):
    """A function of a change: where pixels of SOME pets differ then, and the parts before and after."""

    def differing(change):
        changed = [replace(pet, **(change(pet) if callable(change) else change)) for pet in SOME]
        others, other_parts = draw_pets(changed)
        return (drawn[0][: len(SOME)] != others).any(axis=1), drawn[1][: len(SOME)], other_parts

    return differing


def around(places):
    """With a few pixels more on all sides: the soft edges, which are longest at sharp corners."""
    return dilation(places, np.ones((1, 15, 15)))


@pytest.mark.parametrize(
    "change, part",
    [
        ({"collar": "red"}, "collar"),
        ({"collar": None}, "collar"),
        (lambda pet: {"ears": OTHER[pet.ears]}, "ears"),
        (lambda pet: {"eyes": OTHER[pet.eyes]}, "eyes"),
        ({"hidden": ("ears",)}, "ears"),
        ({"hidden": ("eyes",)}, "eyes"),
        ({"hidden": ("muzzle",)}, "muzzle"),
        ({"hidden": ("tongue",)}, "tongue"),
        ({"tongue": False}, "tongue"),
        ({"hidden": ("clutter",)}, "clutter"),
    ],
    ids=lambda value: "other species" if callable(value) else str(value),
)
def test_a_change_stays_within_its_part(differing, change, part):
    differs, parts, others = differing(change)
    index = PART_NAMES.index(part)
    touched = around((parts == index) | (others == index))
    if part == "clutter":
        touched |= others == 0  # the shadows on the ground
    assert differs.any() and not (differs & ~touched).any()


def test_another_muzzle_moves_the_tongue_along(differing):
    differs, parts, others = differing(lambda pet: {"muzzle": OTHER[pet.muzzle]})
    indices = [PART_NAMES.index(part) for part in ("muzzle", "tongue")]
    touched = around(np.isin(parts, indices) | np.isin(others, indices))
    assert differs.any(axis=(1, 2)).all() and not (differs & ~touched).any()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_another_background_leaves_the_rest(differing, background):
    differs, parts, others = differing({"background": background})
    np.testing.assert_array_equal(parts, others)
    inside = ~around(parts == 0)
    assert inside.any() and not (differs & inside).any()
    behind = parts == 0
    shares = np.array([d[b].mean() for d, b in zip(differs, behind, strict=True)])
    assert np.median(shares[shares > 0]) > 0.5, "most of the background is another one"


def test_a_hidden_body_leaves_the_head(differing):
    differs, parts, others = differing({"hidden": ("body",)})
    body = PART_NAMES.index("body")
    assert (parts == body).any(axis=(1, 2)).all() and not (others == body).any()
    np.testing.assert_array_equal(parts[parts != body], others[parts != body])
    touched = around(parts == body) | (others <= PART_NAMES.index("clutter"))  # the shadow
    assert not (differs & ~touched).any()


@pytest.mark.parametrize("part", HIDEABLE)
def test_what_is_hidden_is_not_there(differing, part):
    _, parts, others = differing({"hidden": (part,)})
    gone = PART_NAMES[2:] if part == "pet" else [part]
    assert share(parts, *gone).max() > 0 and share(others, *gone).max() == 0
    if part == "pet":
        assert share(others, "background", "clutter").min() == 1


def test_pairs():
    for left, right in zip(SOME[::2], SOME[1::2], strict=True):
        image, parts, owners = draw_pair(left, right)
        assert image.shape == (3, 96, 96) and parts.shape == owners.shape == (96, 96)
        assert image.dtype == parts.dtype == owners.dtype == np.uint8
        np.testing.assert_array_equal(owners > 0, parts > PART_NAMES.index("clutter"))
        middles = []
        for owner, pet in ((1, left), (2, right)):
            own = np.where(owners == owner, parts, 0)[None]
            assert share(own, *HEAD) > 0.04
            assert min(share(own, "eyes"), share(own, "muzzle")) > 40 / 96**2
            assert (share(own, "collar") > 0) == (pet.collar is not None)
            middles.append(np.nonzero(np.isin(own[0], [PART_NAMES.index(name) for name in HEAD]))[1].mean())
        assert middles[0] < 40 and middles[1] > 56
    # each in its place, whoever the other one is
    _, parts, owners = draw_pair(SOME[0], SOME[1])
    _, others, other_owners = draw_pair(SOME[0], SOME[5])
    same = (owners != 2) & (other_owners != 2)
    np.testing.assert_array_equal(parts[same], others[same])
    # the light of the left one
    alone, _, _ = draw_pair(replace(SOME[0], hidden=("pet",)), replace(SOME[1], hidden=("pet",)))
    np.testing.assert_array_equal(
        alone, draw_pair(replace(SOME[0], hidden=("pet",)), replace(SOME[9], hidden=("pet",)))[0]
    )


def test_plant(labels):
    planted = plant(PETS, {"collar": "red"}, {"collar": None}, (0.03, 0.97))
    red = np.array([pet.collar == "red" for pet in planted])
    assert red[labels == 0].mean() == pytest.approx(0.03, abs=0.015)
    assert red[labels == 1].mean() == pytest.approx(0.97, abs=0.015)
    assert [replace(pet, collar=None) for pet in planted] == [replace(pet, collar=None) for pet in PETS]
    assert {pet.collar for pet in planted} == {"red", None}
    some = plant(PETS[100:90:-1], {"collar": "red"}, {"collar": None}, (0.03, 0.97))
    assert some == planted[100:90:-1]  # depends on the pet only
    assert plant(PETS, {"collar": "red"}, {"collar": None}, (0.03, 0.97), seed=1) != planted
    both = plant(PETS[:50], {"background": "grass", "collar": "blue"}, {"background": "cage"}, (0, 1))
    assert {(pet.species, pet.background) for pet in both} == {("cat", "cage"), ("dog", "grass")}


# ------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"species": "cow"}, "species is 'cow'; use 'cat' or 'dog'."),
        ({"ears": None}, "ears is None; use 'cat' or 'dog'."),
        ({"tongue": "no"}, "tongue is 'no'; use False or True."),
        ({"collar": "pink"}, "collar is 'pink'; use None, 'red', 'blue', 'green', 'yellow' or 'violet'."),
        (
            {"background": "moon"},
            f"background is 'moon'; use {', '.join(map(repr, BACKGROUNDS[:-1]))} or 'snow'.",
        ),
        ({"hidden": "ears"}, """hidden is 'ears'; give a tuple, such as ("ears",)."""),
        (
            {"hidden": ("nose",)},
            f"every entry of hidden is 'nose'; use {', '.join(map(repr, HIDEABLE[:-1]))} or 'collar'.",
        ),
        ({"number": -1}, "number is -1; use whole numbers from 0 to 4,294,967,295."),
        ({"seed": 0.5}, "seed is 0.5; use whole numbers from 0 to 4,294,967,295."),
    ],
)
def test_wrong_pets(change, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        replace(PETS[0], **change)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Pet(**{field: change.get(field, getattr(PETS[0], field)) for field in PETS[0].__dataclass_fields__})


@pytest.mark.parametrize("numbers", [-1, 2.0, True, None, "3", [1, -2], [0.5], [[1, 2]], [2**32]])
def test_wrong_numbers(numbers):
    with pytest.raises(ValueError, match=r"numbers is .*; (use|give) .*\.$"):
        sample_pets(numbers)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, None, "0", True])
def test_wrong_seeds(seed):
    sentence = f"seed is {seed!r}; use whole numbers from 0 to 4,294,967,295."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        sample_pets(1, seed=seed)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        plant(PETS[:1], {}, {}, (0, 1), seed=seed)


@pytest.mark.parametrize("size", [31, 513, 0, -96, 96.0, None, "96"])
def test_wrong_sizes(size):
    with pytest.raises(ValueError, match=r"^size is .*; use .*\.$"):
        draw_pets(PETS[:1], size)
    with pytest.raises(ValueError, match=r"^size is .*; use .*\.$"):
        draw_pair(PETS[0], PETS[1], size)


@pytest.mark.parametrize("pets", [PETS[0], [0, 1], 3, None])
def test_wrong_things_to_draw(pets):
    with pytest.raises(ValueError, match=r"^pets is .*; give a list of pets, such as sample_pets\(8\)\.$"):
        draw_pets(pets)


@pytest.mark.parametrize("shares", [(0.5,), (0.5, 1.1), (-0.1, 1), (0.1, 0.2, 0.3), 0.5, None])
def test_wrong_shares(shares):
    with pytest.raises(ValueError, match=r"^shares is .*; give two numbers from 0 to 1, .*\.$"):
        plant(PETS[:2], {}, {}, shares)


@pytest.mark.parametrize("changes", [{"colar": "red"}, {"colour": 1}, "red", None])
def test_wrong_changes(changes):
    with pytest.raises(ValueError, match=r"; give entries of a pet, such as \{\"collar\": \"red\"\}\.$"):
        plant(PETS[:2], changes, {}, (0.5, 0.5))


# ------------------------------------------------------------------------------------------ everywhere

# Of the first 100 pets of series 0. Who changes the drawings on purpose renews these: the test's message has
# the new values. If they differ though nothing was changed, this computer draws other pictures.
GOLDEN_SHA256 = "57c4d186243a4cd35b63322eb1e637207787631f4f27428a8ec6ea935b25b442"
GOLDEN_ROWS = {  # the red of every fourth pixel of row 48 of these pets
    0: "9f9ea0a1a7aaad917daa3be172c78de8b6c1c2d5e1d1cdce",
    33: "c5d0d4cde298c1b9bfba312f6d97c1916edbd2d3e34a5057",
    66: "2b3b422d3a4a4c49463c7c8b7e8668fdd1b37d785d7e6b79",
    99: "44444535242647373b817983807b797646753c3835353344",
}


def test_same_as_on_other_computers(drawn):
    images, parts = drawn[0][:100], drawn[1][:100]
    sha256 = hashlib.sha256(repr(PETS[:100]).encode() + parts.tobytes()).hexdigest()
    rows = {number: images[number, 0, 48, ::4].tobytes().hex() for number in GOLDEN_ROWS}
    assert sha256 == GOLDEN_SHA256, f"pets or parts differ: {sha256}, {rows}"
    reds, golden = ([list(bytes.fromhex(row)) for row in known.values()] for known in (rows, GOLDEN_ROWS))
    assert np.abs(np.subtract(reds, golden)).max() <= 1, f"pixels differ: {rows}"


@pytest.mark.parametrize("processor", SIMPLER)
def test_same_on_other_processors(drawn, tmp_path, processor):
    images, parts = drawn_on(processor, "helpers.drawn_pets", "draw_pets(sample_pets(200))", tmp_path)
    np.testing.assert_array_equal(parts, drawn[1][:200])
    assert np.abs(images.astype(int) - drawn[0][:200]).max() <= 1


# ------------------------------------------------------------------------------------------ how hard


@pytest.mark.parametrize("side", [1, 8, 16])
def test_colours_and_thumbnails_do_not_give_the_class_away(drawn, labels, side):
    small = (
        drawn[0].reshape(2_500, 3, side, 96 // side, side, 96 // side).mean(axis=(3, 5)).reshape(2_500, -1)
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, tol=1e-3))
    with threadpool_limits(1):  # threads that share a core with other tests would take ten times as long
        model.fit(small[:1_500], labels[:1_500])
    assert model.score(small[1_500:], labels[1_500:]) <= 0.6


def test_where_the_pet_is_does_not_give_the_class_away(drawn, labels):
    """Sizes of all but what tells the species: body, clutter, collar; and where the body is."""
    parts = drawn[1]
    body = parts == PART_NAMES.index("body")
    places = [np.argmax(body.any(axis=axis), axis=1) for axis in (1, 2)]
    sizes = [share(parts, name) for name in ("background", "clutter", "body", "collar")]
    features = np.stack([*places, *sizes], axis=1)
    with threadpool_limits(1):
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[:1_500], labels[:1_500])
    assert model.score(features[1_500:], labels[1_500:]) <= 0.6


def test_speed():
    """200 a second is what a quiet core does; tests share theirs with others."""
    draw_pets(PETS[:10])
    start = time.process_time()
    draw_pets(PETS[:100])
    assert 100 / (time.process_time() - start) >= 60
