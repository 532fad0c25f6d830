"""`helpers.training`, and how well the labs' networks learn garments and pets."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torchvision.transforms import v2

from helpers.data import load_fashion_mnist, load_pets
from helpers.hooks import capture
from helpers.models import fashion_gap_net, fashion_net, pet_net
from helpers.training import fit, logits_of

REAL = Path(os.environ.get("LABS_DATA") or Path(__file__).parents[1] / "data")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums come out the same every time, and two tests at once do not get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def garments(monkeypatch):
    """1,000 drawn training images and 200 test images."""
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    return load_fashion_mnist("train", 1_000), load_fashion_mnist("test", 200)


def trained(make, garments, **settings):
    torch.manual_seed(0)
    net = make()
    return net, fit(net, *garments, **settings)


def test_history_and_printed_lines(garments, capsys):
    capsys.readouterr()
    net, history = trained(fashion_gap_net, garments, epochs=2, batch=64, learning_rate=0.01)
    assert {len(values) for values in vars(history).values()} == {2}
    assert history.train_loss[1] < history.train_loss[0]
    assert not net.training
    out, err = capsys.readouterr()
    assert err == "", "JupyterLab paints stderr red"
    line = r"^epoch 2: training loss ~\d\.\d\d, test loss ~\d+\.\d\d, test accuracy ~\d+ %$"
    assert re.search(line, out, re.M)
    test = garments[1]
    right = logits_of(net, torch.from_numpy(test.images)).argmax(dim=1).numpy() == test.labels
    assert history.test_accuracy[-1] == pytest.approx(right.mean())


def test_order_depends_on_the_seed_alone(garments):
    weights = []
    for order, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(0)
        net = fashion_gap_net()
        torch.manual_seed(noise)
        fit(net, *garments, epochs=1, seed=order)
        weights.append(net.linear.weight.detach())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_one_cycle_rises_and_falls_once_over_all_batches(garments, monkeypatch):
    rates = []

    class Recorded(torch.optim.lr_scheduler.OneCycleLR):
        def step(self, *args):
            super().step(*args)
            rates.append(self.get_last_lr()[0])

    monkeypatch.setattr(torch.optim.lr_scheduler, "OneCycleLR", Recorded)
    trained(fashion_gap_net, garments, epochs=2, batch=100, learning_rate=0.01, one_cycle=True)
    rates = np.array(rates[:-1])  # the last step comes after the last batch
    assert len(rates) == 2 * 10
    top = rates.argmax()
    assert 0 < top < 10 and rates.max() == pytest.approx(0.01, rel=0.1)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    assert rates[-1] < 0.001


def test_a_schedule_steps_after_each_epoch(garments):
    _, history = trained(fashion_gap_net, garments, epochs=3, schedule=lambda o: StepLR(o, 2, 0.1))
    assert history.learning_rate == pytest.approx([0.001, 0.001, 0.0001])


def test_a_plateau_schedule_looks_at_the_test_loss(garments, monkeypatch):
    looked_at = []
    step = ReduceLROnPlateau.step
    monkeypatch.setattr(ReduceLROnPlateau, "step", lambda o, loss: (looked_at.append(loss), step(o, loss)))
    _, history = trained(fashion_gap_net, garments, epochs=2, schedule=ReduceLROnPlateau)
    assert looked_at == history.test_loss


def test_two_schedules_at_once_are_refused(garments):
    with pytest.raises(ValueError, match="choose one"):
        trained(fashion_gap_net, garments, epochs=1, one_cycle=True, schedule=ReduceLROnPlateau)


def test_images_are_prepared_in_training_and_in_evaluation(garments):
    """Bytes that are scaled on the way are as good as the floats that they stand for."""
    train, test = garments
    as_bytes = [replace(some, images=(255 * some.images).round().astype(np.uint8)) for some in (train, test)]
    _, plain = trained(fashion_gap_net, garments, epochs=1)
    net, prepared = trained(fashion_gap_net, as_bytes, epochs=1, prepare=lambda images: images / 255)
    assert prepared.train_loss == pytest.approx(plain.train_loss, rel=1e-3)
    assert prepared.test_loss == pytest.approx(plain.test_loss, rel=1e-3)
    logits = logits_of(net, torch.from_numpy(as_bytes[1].images), lambda images: images / 255)
    torch.testing.assert_close(logits, logits_of(net, torch.from_numpy(test.images)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", [True, False])
def test_logits_of_leaves_the_net_as_it_was(mode):
    net = fashion_gap_net().train(mode)
    images = torch.rand(1_201, 1, 28, 28)  # more than one pass, the last one short
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    logits = logits_of(net, images)
    assert net.training is mode and not logits.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    torch.testing.assert_close(logits[1_200:], net.eval()(images[1_200:]).detach())


def test_logits_of_restores_each_module():
    net = fashion_gap_net().train()
    net.norm1.eval()  # frozen
    logits_of(net, torch.rand(2, 1, 28, 28))
    assert net.training and net.norm2.training and not net.norm1.training


def test_a_net_in_evaluation_mode_is_trained_as_any_other(garments):
    nets = []
    for mode in (True, False):
        torch.manual_seed(0)
        net = fashion_gap_net().train(mode)
        fit(net, *garments, epochs=1)
        nets.append(net)
    assert torch.equal(nets[0].norm1.running_mean, nets[1].norm1.running_mean)
    assert nets[0].norm1.running_mean.any() and torch.equal(nets[0].linear.weight, nets[1].linear.weight)


def test_one_epoch_is_the_textbook_loop(garments):
    train, test = garments[0].subset(range(200)), garments[1]
    net, history = trained(fashion_net, (train, test), epochs=1, batch=100)
    torch.manual_seed(0)
    other = fashion_net()
    optimiser = torch.optim.Adam(other.parameters(), 0.001)
    losses = []
    loader = torch.utils.data.DataLoader(train, 100, shuffle=True, generator=torch.Generator().manual_seed(0))
    for images, labels in loader:
        optimiser.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(other(images), labels))
        losses[-1].backward()
        optimiser.step()
    assert history.train_loss == pytest.approx([sum(losses).item() / 2])
    torch.testing.assert_close(net.linear.weight, other.linear.weight)


@pytest.mark.parametrize("pixels, maps", [(96, (94, 45, 20)), (72, (70, 33, 14)), (22, (20, 8, 2))])
def test_shapes_of_the_pet_net(pixels, maps):
    net = pet_net()
    with capture(net.relu1, net.relu2, net.relu3) as kept:
        assert net(torch.rand(2, 3, pixels, pixels)).shape == (2, 2)
    assert tuple(kept[layer].shape[-1] for layer in (net.relu1, net.relu2, net.relu3)) == maps
    assert sum(parameter.numel() for parameter in net.parameters()) == 42_818


def test_mode_is_restored_after_a_failure():
    net = fashion_gap_net().train()
    with pytest.raises(RuntimeError):
        logits_of(net, torch.rand(2, 3, 28, 28))
    assert net.training


def test_drawn_garments_can_be_learned_in_three_epochs(monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    garments = load_fashion_mnist("train"), load_fashion_mnist("test", 1_000)
    assert len(garments[0]) == 6_000
    _, history = trained(fashion_net, garments, epochs=3)
    assert history.test_accuracy[-1] >= 0.88  # .936 to .954 for five seeds
    _, history = trained(fashion_gap_net, garments, epochs=3, batch=64, learning_rate=0.01, one_cycle=True)
    assert history.test_accuracy[-1] >= 0.90


def test_drawn_pets_can_be_learned(monkeypatch):
    """Lab 03's recipe, with more of what the lab has no time for."""
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    pets = load_pets("train", 2_000, size=80), load_pets("test", 300, size=80)
    prepare = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
    _, history = trained(
        pet_net, pets, epochs=6, batch=16, schedule=lambda o: StepLR(o, 4, 0.2), prepare=prepare
    )
    assert history.test_accuracy[-1] >= 0.95


@pytest.mark.skipif(not (REAL / "FashionMNIST").is_dir(), reason="real Fashion-MNIST is not in LABS_DATA")
def test_fashion_mnist_can_be_learned_in_two_epochs(monkeypatch):
    """Minutes on one core, so the longest test there is."""
    monkeypatch.setenv("LABS_DATA", str(REAL))
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    garments = load_fashion_mnist("train"), load_fashion_mnist("test")
    assert np.unique(garments[0].labels).tolist() == list(range(10)) and len(garments[0]) == 60_000
    _, history = trained(fashion_net, garments, epochs=2)
    assert history.test_accuracy[-1] >= 0.85
