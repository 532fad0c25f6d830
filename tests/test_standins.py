"""The stand-ins for ImageNet weights: what labs 04 and 05 build on, and that they can be made again."""

import pytest
import torch
import torchvision
from torch import nn

from helpers import pretrained, standins
from helpers.course import standins as training
from helpers.data import load_things
from helpers.hooks import capture
from helpers.training import logits_of

LAST = {"resnet18": "layer4", "resnet50": "layer4", "vgg16": "features.28"}


@pytest.fixture(scope="module")
def unseen():
    return load_things("test", 320, size=standins.SIZE)


@pytest.mark.parametrize("name", standins.NAMES)
def test_file_is_small_and_knows_how_it_was_made(name):
    assert (standins.WEIGHTS / f"{name}.safetensors").stat().st_size <= 2_000_000
    _, settings = standins.load(name)
    assert settings["accuracy"] >= 0.93
    assert settings["training_loss"][-1] < 0.3 * settings["training_loss"][0]
    recipe = training.RECIPES[name]
    assert {key: settings[key] for key in recipe} == recipe, (
        "the recipe has changed since; run `standins` again"
    )


@pytest.mark.parametrize("name", standins.NAMES)
def test_most_unseen_drawings_are_recognised(name, unseen):
    net, _ = standins.load(name)
    assert not net.training
    said = logits_of(net, torch.from_numpy(unseen.images), training.PREPARE).argmax(dim=1).numpy()
    assert (said == unseen.labels).mean() >= 0.93


@pytest.mark.parametrize("name", standins.NAMES)
def test_layers_have_the_names_of_the_large_ones(name):
    with torch.device("meta"):
        large = getattr(torchvision.models, name)()
    slim = standins.build(name)
    kinds = {where: type(module) for where, module in large.named_modules() if where}
    assert {where: type(module) for where, module in slim.named_modules() if where} == kinds
    assert slim.state_dict().keys() == large.state_dict().keys()
    for where, module in large.named_modules():
        if isinstance(module, nn.ReLU):
            assert slim.get_submodule(where).inplace == module.inplace


@pytest.mark.parametrize("name", standins.NAMES)
def test_last_maps_have_at_least_six_cells_a_side(name):
    net, _ = standins.load(name)
    layer = net.get_submodule(LAST[name])
    with torch.no_grad(), capture(layer) as kept:
        logits = net(torch.zeros(1, 3, standins.SIZE, standins.SIZE))
    assert logits.shape == (1, 8)
    assert min(kept[layer].shape[2:]) >= 6


def test_unknown_name():
    with pytest.raises(ValueError, match="no stand-in 'alexnet'; there are: resnet18, resnet50, vgg16"):
        standins.load("alexnet")


def test_saved_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(standins, "WEIGHTS", tmp_path / "weights")
    net = standins.build("vgg16").eval()
    standins.save("vgg16", net, {"epochs": 3})
    again, settings = standins.load("vgg16")
    assert settings == {"epochs": 3}
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(again(images), net(images), rtol=0.01, atol=0.01)  # half precision


def test_merged_normalisation_computes_the_same():
    torch.manual_seed(0)
    net = standins.slim_vgg(standins.VGG_DIVISOR, batch_norm=True)
    images = torch.rand(4, 3, 96, 96)
    with torch.no_grad():
        net(images)  # in training mode: statistics that are neither 0 nor 1
        net.eval()
        torch.testing.assert_close(
            training.merge_normalisation(net)(images), net(images), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_loss_falls_when_one_is_trained_again(name, monkeypatch):
    monkeypatch.setattr(training, "UNSEEN", 16)
    recipe = {**training.RECIPES[name], "images": 240, "epochs": 3}
    _, settings = training.train(name, recipe)
    assert settings["training_loss"][-1] < 0.95 * settings["training_loss"][0]


def test_command_trains_and_stores(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(standins, "WEIGHTS", tmp_path)
    monkeypatch.setattr(training, "UNSEEN", 8)
    monkeypatch.setitem(
        training.RECIPES, "resnet50", {**training.RECIPES["resnet50"], "images": 32, "epochs": 1}
    )
    from helpers.course.__main__ import main

    assert main(["standins", "resnet50"]) == 0
    assert "unseen drawings" in capsys.readouterr().out
    assert standins.load("resnet50")[1]["images"] == 32


@pytest.mark.parametrize("name", standins.NAMES)
def test_pretrained_gives_the_stored_network_with_its_preprocessing(name, unseen, monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    net = pretrained.pretrained(name)
    images = torch.from_numpy(unseen.images[:8])
    with torch.no_grad():
        torch.testing.assert_close(net.preprocess(images), training.PREPARE(images))
        torch.testing.assert_close(
            net.model(net.preprocess(images)), standins.load(name)[0](training.PREPARE(images))
        )


def test_loading_draws_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    standins.load("vgg16")
    assert torch.equal(torch.rand(1), expected)
