"""`load_photo` and `upload`: photos that scikit-image ships, and whatever file someone brings along."""

import base64
import io
import os
import re
import socket
import struct
import warnings
import zlib
from datetime import UTC, datetime
from pathlib import Path

import IPython.display
import ipywidgets
import nbformat
import numpy as np
import pytest
from PIL import Image

from helpers import photos
from helpers.course import notebooks
from helpers.download import DataError
from helpers.photos import SHIPPED_PHOTOS, load_photo, upload

RED, BLUE = (200, 30, 40), (30, 40, 200)


def two_halves(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Left red, right blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def close(image: Image.Image, at: tuple[int, int], rgb: tuple[int, int, int], within: int = 12) -> bool:
    return max(abs(a - b) for a, b in zip(image.getpixel(at), rgb, strict=True)) <= within


def assert_halves(image: Image.Image, size: tuple[int, int] = (40, 20)) -> None:
    assert image.mode == "RGB" and image.size == size
    assert close(image, (5, 10), RED, 40) and close(image, (35, 10), BLUE, 40)


# ------------------------------------------------------------------------------------------ shipped ones


@pytest.mark.parametrize("name", SHIPPED_PHOTOS)
def test_shipped_photo_needs_no_network(name, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("this reaches for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    photo = load_photo(name)
    assert photo.mode == "RGB" and min(photo.size) >= 128
    assert np.asarray(photo).std() > 10


def test_the_cat_is_the_cat():
    from skimage import data

    assert np.array_equal(np.asarray(load_photo("cat")), data.chelsea())


def test_a_name_goes_before_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two_halves().save("cat", format="PNG")
    assert load_photo("cat").size != (40, 20)
    assert_halves(load_photo("./cat"))


# ------------------------------------------------------------------------------------------ files that work

SAVED = {
    "jpg": lambda path: two_halves().save(path, "JPEG", quality=95),
    "cmyk": lambda path: two_halves().convert("CMYK").save(path, "JPEG", quality=95),
    "png": lambda path: two_halves().save(path, "PNG"),
    "palette": lambda path: two_halves().quantize(4).save(path, "PNG"),
    "webp": lambda path: two_halves().save(path, "WEBP", lossless=True),
    "bmp": lambda path: two_halves().save(path, "BMP"),
    "animated gif": lambda path: two_halves().save(
        path, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 20), (0, 255, 0))] * 2
    ),
    "stereo": lambda path: two_halves().save(
        path, "MPO", save_all=True, append_images=[Image.new("RGB", (40, 20))], quality=95
    ),
}


@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED.keys())
def test_formats(save, tmp_path):
    save(tmp_path / "photo.any")  # the content decides, not the name
    assert_halves(load_photo(tmp_path / "photo.any"))


def test_photo_is_turned_upright(tmp_path):
    lying, exif = two_halves().transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees, clockwise, to see it upright
    lying.save(tmp_path / "phone.jpg", quality=95, exif=exif)
    assert Image.open(tmp_path / "phone.jpg").size == (20, 40)
    assert_halves(load_photo(str(tmp_path / "phone.jpg")))


def test_broken_exif_does_no_harm(tmp_path):
    two_halves().save(tmp_path / "photo.jpg", quality=95, exif=b"Exif\x00\x00nonsense")
    assert_halves(load_photo(tmp_path / "photo.jpg"))


def test_16_bit_grey(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(32, 0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    grey = np.asarray(load_photo(tmp_path / "deep.png"))
    assert grey.shape == (32, 256, 3) and np.array_equal(grey[0, :, 0], np.arange(256))


def test_transparent_becomes_white(tmp_path):
    image = two_halves().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 10, 20))
    image.save(tmp_path / "cut-out.png")
    photo = load_photo(tmp_path / "cut-out.png")
    assert photo.mode == "RGB" and photo.getpixel((5, 10)) == (255, 255, 255)
    assert photo.getpixel((15, 10)) == RED


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    two_halves().save(tmp_path / "mine.png")
    assert_halves(load_photo("~/mine.png"))


def test_photo_of_a_good_camera(tmp_path):
    Image.new("RGB", (8_000, 7_000), RED).save(tmp_path / "large.jpg")
    assert load_photo(tmp_path / "large.jpg").size == (8_000, 7_000)


# ------------------------------------------------------------------------------------------ files that do not


def png_of_size(width: int, height: int) -> bytes:
    """A small PNG that claims to be large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg() -> bytes:
    """A photo of 400 x 200 pixels."""
    buffer = io.BytesIO()
    two_halves((400, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


HEIC = b"\x00\x00\x00\x18ftypheic" + bytes(2_000)
TOO_LARGE = "has more than 60 megapixels; save a smaller version and try again."
NO_PICTURE = "is none of JPEG, PNG, GIF, BMP, WEBP; save it as a JPEG or PNG and try again."
BROKEN = "is broken or was cut off; copy it from where it came once more, or choose another photo."
BAD = {
    "empty": (b"", "is empty; choose another photo."),
    "text": (b"This is not a photo.", NO_PICTURE),
    "HEIC": (HEIC, NO_PICTURE),
    "cut off": (jpeg()[:1_500], BROKEN),
    "only a header": (png_of_size(40, 20), BROKEN),
    "61 megapixels": (png_of_size(10_000, 6_100), TOO_LARGE),
    "bomb": (png_of_size(50_000, 50_000), TOO_LARGE),
    "51 MB": (jpeg() + bytes(51_000_000), "MB, more than 50.0 MB; save it smaller, as a JPEG."),
}


@pytest.mark.parametrize("content, sentence", BAD.values(), ids=BAD.keys())
def test_bad_file_gets_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(DataError, match=rf"^photo\.jpg .*{re.escape(sentence)}$"):
        warnings.simplefilter("error")
        load_photo(path)


def test_missing_file():
    with pytest.raises(
        DataError, match=r"^there is no photo 'cta'; give the path .* names: cat, astronaut, "
    ):
        load_photo("cta")


def test_folder(tmp_path):
    with pytest.raises(DataError, match=r" is a folder; give the path of one photo in it\.$"):
        load_photo(tmp_path)


def test_name_that_no_system_takes():
    with pytest.raises(DataError, match=r"; "):
        load_photo("x" * 100_000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match=r"^there is no photo "):
        load_photo(tmp_path / "pipe.jpg")


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    two_halves().save(tmp_path / "photo.png")
    monkeypatch.setattr(photos, "_read_own", refuse)
    with pytest.raises(DataError, match=r"photo\.png cannot be read \(Permission denied\); make it readable"):
        load_photo(tmp_path / "photo.png")


# ------------------------------------------------------------------------------------------ upload


def uploaded(name: str, content: bytes) -> dict[str, object]:
    """One file as `ipywidgets.FileUpload` hands it over."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        **{"name": name, "type": "image/jpeg", "size": len(content)},
        **{"content": memoryview(content), "last_modified": when},
    }


@pytest.fixture
def field(monkeypatch):
    """What `upload` displays, and the photos that it shows."""
    monkeypatch.delenv("LABS_HEADLESS", raising=False)
    displayed, shown = [], []
    monkeypatch.setattr(IPython.display, "display", lambda *things: displayed.extend(things))
    assert upload(shown.append) is None
    (button,) = [thing for thing in displayed if isinstance(thing, ipywidgets.FileUpload)]
    assert any(isinstance(thing, ipywidgets.Output) for thing in displayed)
    return button, shown


def test_upload_shows_every_photo(field):
    button, shown = field
    button.value = (uploaded("a.jpg", jpeg()), uploaded("b.jpg", jpeg()))
    assert [photo.size for photo in shown] == [(400, 200), (400, 200)]
    assert_halves(shown[0].resize((40, 20)))


def test_upload_takes_the_same_photo_twice(field):
    button, shown = field
    for _ in range(2):
        button.value = (uploaded("a.jpg", jpeg()),)
        assert button.value == ()
    assert len(shown) == 2


def test_upload_of_a_bad_file_says_why_and_goes_on(field, capsys):
    button, shown = field
    button.value = (uploaded("notes.txt", b"no photo"), uploaded("a.jpg", jpeg()))
    assert f"notes.txt {NO_PICTURE}\n" in capsys.readouterr().out
    assert len(shown) == 1


def test_upload_takes_what_load_photo_takes(field):
    button, _ = field
    assert button.multiple and {".jpg", ".jpeg", ".png", ".webp"} <= set(button.accept.split(","))


def test_upload_without_a_person(monkeypatch, capsys):
    monkeypatch.setenv("LABS_HEADLESS", "1")
    monkeypatch.setattr(ipywidgets, "FileUpload", lambda **_: pytest.fail("a widget without a person"))
    upload(lambda photo: pytest.fail("nobody brought a photo"))
    assert capsys.readouterr().out.count("\n") == 1


def test_readable_on_a_path_with_a_strange_name(tmp_path):
    path = Path(tmp_path / "größe 1 [a].png")
    two_halves().save(path)
    assert_halves(load_photo(path))


# ------------------------------------------------------------------------------------------ in a browser

NOTEBOOK = """
from helpers.photos import upload
upload(lambda photo: print("shown:", *photo.size))
"""
DROP = """async (files) => {
    const dropped = new DataTransfer();
    for (const [name, content] of files)
        dropped.items.add(new File([await (await fetch(content)).blob()], name));
    const inside = document.querySelector(".labs-photo-upload").firstElementChild;
    for (const kind of ["dragover", "drop"]) {
        const event = new DragEvent(kind, {dataTransfer: dropped, bubbles: true, cancelable: true});
        inside.dispatchEvent(event);
        if (!event.defaultPrevented) throw new Error(`the page itself would take this ${kind}`);
    }
}"""


def bring_photos(page, address: str, folder: Path) -> None:
    """Drop photos on the field, choose some by a click, and choose too large a one."""
    from tests.test_browser import START, kernel_is_idle, wait_until

    page.goto(f"{address}/lab/tree/photos.ipynb?reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=START * 1000)
    wait_until(lambda: kernel_is_idle(address), START, "the kernel starts")
    page.click('li.lm-MenuBar-item:has-text("Run")')
    page.click('li.lm-Menu-item[data-command="runmenu:run-all"]')
    page.wait_for_selector(".labs-photo-upload", timeout=START * 1000)
    wait_until(lambda: page.evaluate("window.labsPhotoUpload === true"), START, "the script has run")
    below = page.locator(".jp-Cell-outputArea")

    def choose(path: Path) -> None:
        with page.expect_file_chooser() as chooser:
            page.click(".labs-photo-upload")
        chooser.value.set_files(path)

    def as_url(content: bytes) -> str:
        return "data:;base64," + base64.b64encode(content).decode()

    page.evaluate(DROP, [["a.jpg", as_url(jpeg())], ["b.jpg", as_url(b"not a photo")]])
    below.get_by_text("shown: 400 200").wait_for(timeout=START * 1000)
    below.get_by_text("b.jpg is none of JPEG").wait_for(timeout=START * 1000)

    said = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    (folder / "large.bmp").write_bytes(bytes(12_000_000))
    choose(folder / "large.bmp")
    wait_until(lambda: said, START, "the page says that this is too large")
    assert said[0].startswith("This is 12.0 MB, and the field takes at most 10 MB at a time; bring fewer or")

    two_halves((123, 45)).save(folder / "c.png")
    choose(folder / "c.png")
    below.get_by_text("shown: 123 45").wait_for(timeout=START * 1000)
    assert below.get_by_text("shown: 400 200").count() == 0 and len(said) == 1


def test_upload_in_the_browser(tmp_path):
    from tests.test_browser import CHROMIUM, CHROMIUM_FLAGS, jupyterlab, missing

    if reason := missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    cell = nbformat.v4.new_code_cell(NOTEBOOK.strip())
    metadata = {"kernelspec": notebooks.KERNELSPEC}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), work / "photos.ipynb")
    with jupyterlab(work, home) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        bring_photos(browser.new_page(), address, tmp_path)
        browser.close()
