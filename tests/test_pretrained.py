"""`helpers.pretrained`: ImageNet weights from a server on this machine, full-size files with random weights
in the cache, and the stand-in whenever they cannot be had."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

from helpers import data, download, pretrained
from helpers.download import DataError
from helpers.photos import load_photo
from helpers.pretrained import NAMES, TITLES, WEIGHTS, remote_set
from tests.local_data import Handler, Server

ROOT = Path(__file__).parents[1]
STAND_IN = "Slim ResNet-18: stand-in, eight drawn classes"
REAL = WEIGHTS.copy()


def random_weights(name: str, **options: object) -> bytes:
    """A file with a state dict of full size, as torchvision's servers have it, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = get_model(name, weights=None).state_dict()
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def resnet18() -> bytes:
    return random_weights("resnet18")


def described(name: str, content: bytes, address: str = "http://127.0.0.1:9/") -> SimpleNamespace:
    """What torchvision would say about its weights if they were these."""
    file = f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    meta = {**REAL[name].meta, "_file_size": round(len(content) / 2**20, 3)}
    return SimpleNamespace(url=address + file, meta=meta, transforms=REAL[name].transforms)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch) -> None:
    """Empty folders, no decision made before, and stand-ins with random weights."""
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("LABS_DATA_SOURCE", raising=False)
    monkeypatch.setattr(download, "_given_up", set())
    monkeypatch.setattr(pretrained.standins, "load", lambda name: (pretrained.standins.build(name), {}))


@pytest.fixture
def server(resnet18, monkeypatch) -> Iterator[Server]:
    """Serves ResNet-18's weights under the name that is expected."""
    server = Server({})
    serve(server, "resnet18", resnet18, monkeypatch)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def serve(server: Server, name: str, content: bytes, monkeypatch) -> None:
    monkeypatch.setitem(WEIGHTS, name, described(name, content, server.address))
    server.files[f"/{remote_set(name).files[0].name}"] = content


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 1.0)


def path_of(name: str = "resnet18") -> Path:
    remote = remote_set(name)
    return remote.folder / remote.files[0].name


def put(content: bytes, name: str, monkeypatch) -> Path:
    """A file in the cache whose checksum is the expected one, and nobody to download it from."""
    monkeypatch.setitem(WEIGHTS, name, described(name, content))
    path_of(name).parent.mkdir(parents=True, exist_ok=True)
    path_of(name).write_bytes(content)
    return path_of(name)


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def assert_real(found: pretrained.Pretrained, content: bytes) -> None:
    assert (found.source, found.caption) == ("real", f"{TITLES[found.name]}, ImageNet weights")
    assert len(found.class_names) == 1000 and found.class_names[243] == "bull mastiff"
    wanted = torch.load(io.BytesIO(content), weights_only=True)
    state = found.model.state_dict()
    assert state.keys() >= wanted.keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in wanted.items())


def assert_stand_in(found: pretrained.Pretrained) -> None:
    assert found.source == "stand-in" and "stand-in, eight drawn classes" in found.caption
    assert found.class_names == tuple(pretrained.standins.CLASS_NAMES) and len(found.class_names) == 8


# ------------------------------------------------------------------------------------------ what it gives


@pytest.mark.parametrize("name", NAMES)
def test_stand_in(name, monkeypatch, capsys):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: pytest.fail("no network here"))
    found = pretrained.pretrained(name)
    assert_stand_in(found)
    assert lines(capsys) == [f"Slim {TITLES[name]}: stand-in, eight drawn classes"] == [found.caption]
    assert found.name == name and not found.model.training
    side = pretrained.standins.SIZE
    batch = found.preprocess(load_photo("cat"))[None]
    assert batch.shape == (1, 3, side, side) and batch.dtype == torch.float32
    assert found.model(batch).shape == (1, 8)


def test_stand_in_sees_drawings_as_they_are(monkeypatch):
    """At its own size nothing is resized or cut off: only normalised."""
    side = pretrained.standins.SIZE
    drawing = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    mean = torch.tensor(pretrained.standins.MEAN)[:, None, None]
    std = torch.tensor(pretrained.standins.STD)[:, None, None]
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    seen = pretrained.pretrained("resnet18").preprocess(drawing)
    torch.testing.assert_close(seen * std + mean, drawing / 255, atol=1e-6, rtol=0)


def test_photo_and_tensor_are_preprocessed_alike(resnet18, monkeypatch):
    put(resnet18, "resnet18", monkeypatch)
    preprocess = pretrained.pretrained("resnet18").preprocess
    assert (preprocess.resize_size, preprocess.crop_size) == ([256], [224])
    photo = load_photo("cat").resize(
        (300, 256)
    )  # at the size that is wanted: Pillow resizes a bit differently
    tensor = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)
    assert preprocess(photo).shape == (3, 224, 224)
    torch.testing.assert_close(preprocess(photo), preprocess(tensor))


def test_weights_in_the_cache(resnet18, monkeypatch, capsys):
    put(resnet18, "resnet18", monkeypatch)
    before = torch.get_rng_state()
    found = pretrained.pretrained("resnet18")
    assert_real(found, resnet18)
    assert lines(capsys) == ["ResNet-18, ImageNet weights"]
    assert torch.equal(torch.get_rng_state(), before), "loading weights needs no random numbers"
    assert not any(module.training for module in found.model.modules())
    assert all(p.requires_grad and p.device.type == "cpu" for p in found.model.parameters())
    with torch.inference_mode():
        reference = get_model("resnet18", weights=None).eval()
        reference.load_state_dict(torch.load(io.BytesIO(resnet18), weights_only=True))
        batch = found.preprocess(load_photo("coffee"))[None]
        assert torch.equal(found.model(batch), reference(batch))


def test_two_calls_share_nothing(resnet18, monkeypatch):
    put(resnet18, "resnet18", monkeypatch)
    one, other = (pretrained.pretrained("resnet18").model for _ in range(2))
    with torch.no_grad():
        one.fc.weight.zero_()
    assert other.fc.weight.abs().sum() > 0


def test_file_of_the_old_format(monkeypatch, recwarn):
    """Some of torchvision's files are years old: no zip archive, parameters, and no counters of batches."""
    state = {
        key: nn.Parameter(tensor) if tensor.is_floating_point() else tensor
        for key, tensor in get_model("resnet18", weights=None).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    put(file.getvalue(), "resnet18", monkeypatch)
    found = pretrained.pretrained("resnet18")
    assert_real(found, file.getvalue())
    assert not any(tensor.is_meta for tensor in found.model.state_dict().values())
    assert isinstance(found.model.fc.weight, nn.Parameter)
    assert not recwarn.list


PROGRAM = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import torch
from helpers import pretrained
from helpers.photos import load_photo

for name, (url, size) in json.loads(sys.argv[1]).items():
    weights = pretrained.WEIGHTS[name]
    meta = {**weights.meta, "_file_size": size}
    pretrained.WEIGHTS[name] = SimpleNamespace(url=url, meta=meta, transforms=weights.transforms)
    found = pretrained.pretrained(name)
    with torch.inference_mode():
        logits = found.model(found.preprocess(load_photo("cat"))[None])
    status = Path("/proc/self/status")  # the peak so far; only Linux has it
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 if status.exists() else 0
    print(json.dumps({
        **{"source": found.source, "classes": len(found.class_names), "shape": list(logits.shape)},
        **{"finite": bool(logits.isfinite().all()), "spread": float(logits.std())},
        "peak": peak,
    }))
"""


def test_full_size_weights(monkeypatch):
    """In a process of its own, because of its memory."""
    paths = [put(random_weights(name), name, monkeypatch) for name in NAMES]
    described = {name: (WEIGHTS[name].url, WEIGHTS[name].meta["_file_size"]) for name in NAMES}
    try:
        outcome = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(described)],
            env={**os.environ, "LABS_DATA_SOURCE": "real", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
    finally:
        for path in paths:
            path.unlink()  # pytest would keep 700 MB
    out = outcome.stdout.splitlines()
    assert out[::2] == [f"{TITLES[name]}, ImageNet weights" for name in NAMES]
    for report in map(json.loads, out[1::2]):
        assert (report["source"], report["classes"], report["shape"]) == ("real", 1000, [1, 1000])
        assert report["finite"] and report["spread"] > 0
        assert report["peak"] <= 4e9


# ------------------------------------------------------------------------------------------ choosing


def test_unknown_name():
    with pytest.raises(ValueError, match=r"^name is 'resnet34'; use 'resnet18', 'resnet50' or 'vgg16'\.$"):
        pretrained.pretrained("resnet34")


def test_wrong_setting(monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "reel")
    with pytest.raises(DataError, match="^LABS_DATA_SOURCE is 'reel'; set it to auto, real or embedded"):
        pretrained.pretrained("resnet18")


def test_nobody_listens(resnet18, monkeypatch, capsys):
    monkeypatch.setitem(WEIGHTS, "resnet18", described("resnet18", resnet18))
    begun = time.monotonic()
    assert_stand_in(pretrained.pretrained("resnet18"))
    assert time.monotonic() - begun < 10
    (line,) = lines(capsys)
    folder = re.escape(str(remote_set("resnet18").folder))
    assert re.fullmatch(
        rf"{STAND_IN} \[ResNet-18 is not in {folder}, and no server answers \(.+\); "
        r"restart the kernel to try again\]",
        line,
    )
    assert_stand_in(pretrained.pretrained("resnet18"))
    assert lines(capsys) == [f"{STAND_IN} [for the same reason]"]
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=r"^ResNet-18 is not in .*, and no server answers .*; connect to the"):
        pretrained.pretrained("resnet18")


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_large_weights_only_on_request(name, server, monkeypatch, capsys):
    url = server.address + REAL[name].url.rpartition("/")[2]
    weights = SimpleNamespace(url=url, meta=REAL[name].meta, transforms=REAL[name].transforms)
    monkeypatch.setitem(WEIGHTS, name, weights)
    assert_stand_in(pretrained.pretrained(name))
    (line,) = lines(capsys)
    size = {"resnet50": "102.5 MB", "vgg16": "553.4 MB"}[name]
    assert f"a download of {size} starts only on request: python -m helpers.data {name}; restart" in line
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(
        DataError, match=rf"{size} starts only on request; start it with: python -m helpers.d"
    ):
        pretrained.pretrained(name)
    assert not server.seen


def test_request_on_the_command_line(server, monkeypatch, capsys):
    content = random_weights("resnet50")
    serve(server, "resnet50", content, monkeypatch)
    assert data.main(["resnet50"]) == 0
    out = lines(capsys)
    folder = remote_set("resnet50").folder
    size = download.megabytes(remote_set("resnet50").size)
    assert size.startswith("102.")
    assert out == [
        f"Downloading ResNet-50 ({size}) to {folder}",
        f"resnet50: present in {folder} (download: {size})",
    ]
    assert_real(pretrained.pretrained("resnet50"), content)
    path_of("resnet50").unlink()


def test_command_line_lists_the_weights(capsys):
    assert data.main([]) == 0
    out = capsys.readouterr().out
    folder = remote_set("vgg16").folder
    for name, size in (("resnet18", "46.8 MB"), ("resnet50", "102.5 MB"), ("vgg16", "553.4 MB")):
        assert f"{name}: missing in {folder} (download: {size})\n" in out
    assert data.PRETRAINED == NAMES


def test_command_line_without_a_network(resnet18, monkeypatch, capsys):
    monkeypatch.setitem(WEIGHTS, "resnet18", described("resnet18", resnet18))
    assert data.main(["resnet18"]) == 1
    assert re.match(r"ResNet-18 is not in .*; connect to the network", capsys.readouterr().err)


# ------------------------------------------------------------------------------------------ downloads


@pytest.mark.parametrize("mode", ["fine", "no ranges", "cut once"])
def test_weights_are_downloaded(mode, server, resnet18, capsys):
    server.mode = mode
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    out = lines(capsys)
    assert out[0].startswith(f"Downloading ResNet-18 ({download.megabytes(len(resnet18))}) to ")
    assert out[1:] == ["ResNet-18, ImageNet weights"]
    assert len(server.seen) == (2 if mode == "cut once" else 1)
    assert [path.name for path in path_of().parent.iterdir() if path.name != ".lock"] == [path_of().name]
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    assert len(server.seen) == (2 if mode == "cut once" else 1), "nothing is downloaded twice"


@pytest.mark.parametrize("mode", ["fine", "no ranges"])
def test_later_run_goes_on(mode, server, resnet18, monkeypatch, capsys):
    """ "no ranges": a server that can only begin again."""
    server.mode = "cut"
    assert_stand_in(pretrained.pretrained("resnet18"))
    assert re.search(
        r"\.pth did not come \(cut off after [\d,]+ of [\d,]+ bytes\); restart", lines(capsys)[-1]
    )
    assert not path_of().exists()
    server.mode = mode
    monkeypatch.setattr(download, "_given_up", set())  # a new kernel
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    assert server.seen[-1][1] == (len(resnet18) // 2 + len(resnet18)) // 2


@pytest.mark.parametrize(
    "mode, why",
    [
        ("wrong bytes", "wrong checksum"),
        ("login page", "wrong checksum"),
        ("gone", "HTTP status 404"),
        ("silent", "no answer within 1 s"),
        ("trickle", "slower than 5 kB/s"),
        ("dead", "no server answers"),
    ],
)
def test_server_that_fails(mode, why, server, resnet18, impatient, monkeypatch, capsys):
    server.mode = mode
    begun = time.monotonic()
    assert_stand_in(pretrained.pretrained("resnet18"))
    assert time.monotonic() - begun < 10
    (line,) = [line for line in lines(capsys) if not line.startswith("Downloading")]
    assert line.startswith(f"{STAND_IN} [ResNet-18 is not in ") and why in line
    assert not path_of().exists()
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    server.mode = "fine"  # nothing that was left behind is in the way
    assert_real(pretrained.pretrained("resnet18"), resnet18)


class AlmostAll(Handler):
    """Cuts the first download off shortly before its end, by less than the size is rounded."""

    def do_GET(self) -> None:
        if self.server.seen:
            return super().do_GET()
        body = self.server.files[self.path]
        self.server.seen.append((self.path, 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:-100])


def test_cut_off_shortly_before_the_end(server, resnet18):
    server.RequestHandlerClass = AlmostAll
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    assert [start for _, start in server.seen] == [0, len(resnet18) - 100]


class Exact(Handler):
    """As the servers of torchvision's weights: refuses to send what comes after the end of a file."""

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        if start >= len(self.server.files[self.path]):
            self.server.seen.append((self.path, start))
            return self.send_error(416)
        super().do_GET()


def test_download_that_ended_before_it_got_its_name(server, resnet18):
    server.RequestHandlerClass = Exact
    path_of().parent.mkdir(parents=True)
    path_of().with_name(f"{path_of().name}.part").write_bytes(resnet18)
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    assert [start for _, start in server.seen] == [len(resnet18)]


@pytest.mark.parametrize("excess", [-100, 0, 100, 5_000])
def test_rubbish_of_about_the_right_size(excess, server, resnet18):
    server.RequestHandlerClass = Exact
    path_of().parent.mkdir(parents=True)
    path_of().with_name(f"{path_of().name}.part").write_bytes(bytes(len(resnet18) + excess))
    assert_real(pretrained.pretrained("resnet18"), resnet18)


# ------------------------------------------------------------------------------------------ trust

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_file_is_named_and_never_loaded(damage, resnet18, monkeypatch, capsys):
    path = put(resnet18, "resnet18", monkeypatch)
    path.write_bytes(damage(resnet18))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: pytest.fail("a damaged file must not be read"))
        assert_stand_in(pretrained.pretrained("resnet18"))
    (line,) = lines(capsys)
    assert f"cannot be used ({path.name} is damaged), and no server answers" in line
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=rf"{re.escape(path.name)} is damaged.*; connect to the network"):
        pretrained.pretrained("resnet18")


def test_damaged_file_is_downloaded_again(server, resnet18):
    path_of().parent.mkdir(parents=True)
    path_of().write_bytes(resnet18[: len(resnet18) // 2])
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    assert path_of().read_bytes() == resnet18


def test_what_torchvision_downloaded_is_used(resnet18, server, tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    cached = tmp_path / "torch" / "hub" / "checkpoints" / path_of().name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(resnet18)
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    assert not server.seen and not path_of().exists()
    cached.write_bytes(resnet18[:-1])
    assert_real(pretrained.pretrained("resnet18"), resnet18)
    assert server.seen and path_of().exists() and cached.read_bytes() == resnet18[:-1]


class Malicious:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, capsys):
    file = io.BytesIO()
    torch.save({"conv1.weight": Malicious(tmp_path / "touched")}, file)
    put(file.getvalue(), "resnet18", monkeypatch)
    assert_stand_in(pretrained.pretrained("resnet18"))
    assert "does not hold the weights of ResNet-18 (UnpicklingError: " in lines(capsys)[0]
    assert not (tmp_path / "touched").exists()


def test_weights_of_another_network(resnet18, monkeypatch, capsys):
    put(resnet18, "resnet50", monkeypatch)
    assert_stand_in(pretrained.pretrained("resnet50"))
    (line,) = lines(capsys)
    assert "does not hold the weights of ResNet-50 (RuntimeError: " in line and len(line) < 400
    assert "python -m" not in line, "a download would not help"
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(
        DataError, match="does not hold the weights of ResNet-50 .*; remove it, then try again"
    ):
        pretrained.pretrained("resnet50")


# ------------------------------------------------------------------------------------------ torchvision


@pytest.mark.parametrize("name", NAMES)
def test_where_the_weights_come_from(name):
    remote, weights = remote_set(name), REAL[name]
    (file,) = remote.files
    assert remote.mirrors[0] + file.name == weights.url
    assert re.fullmatch(rf"{name}-{file.sha256}\.pth", file.name) and len(file.sha256) >= 8
    assert remote.folder == download.data_folder() / "weights"
    assert (file.size > download.ASK_ABOVE) == (name != "resnet18")
    assert file.slack >= 0.0005 * 2**20, "the size is rounded"


def test_readme_lists_the_weights():
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `weights/(\S+)` \| `(\w+)` \| (\S+ MB) \|$", readme, re.MULTILINE)
    sets = [remote_set(name) for name in NAMES]
    assert rows == [
        (one.name, one.files[0].name, str(REAL[one.name]).rpartition(".")[2], download.megabytes(one.size))
        for one in sets
    ]


@pytest.mark.parametrize("digits", ["", "f37072f", "F37072FD", "not a sum"])
def test_checksum_that_is_none(digits):
    with pytest.raises(ValueError, match="is no SHA-256; give 8 to 64 of its digits, in lower case"):
        download.RemoteFile("file", digits, 1)
