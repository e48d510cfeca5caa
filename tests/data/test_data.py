"""The data file, reading and checking Omniglot, glyphs, and the command that prepares them.

Made-up images stand in for Omniglot; test_workflow.py reads the real ones where LEAPWARP_DATA is set.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from leapwarp.data import alphabets, glyphs, omniglot, prepare, store
from leapwarp.data.store import DataError


def png(character: int, drawing: int, size: int = 105) -> bytes:
    """A 1-bit image like Omniglot's: black ink on white, different for every character and drawing."""
    image = Image.new("1", (size, size), 1)
    pen = ImageDraw.Draw(image)
    pen.line([(10, 10 + 4 * drawing), (90, 80)], fill=0, width=4)
    pen.line([(5 + 3 * (character % 30), 5), (50, 3 * (character // 30))], fill=0, width=4)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole made-up Omniglot of 3 alphabets (2 + 1), 6 characters; the constants are patched to match."""
    root = tmp_path_factory.mktemp("small") / "omniglot-py"
    number = 0
    contents = [{"Tagalog": 3, "Greek": 1}, {"Manipuri": 2}]
    for part, alphabets_of_part in zip(omniglot.PARTS, contents, strict=True):
        for alphabet, count in alphabets_of_part.items():
            for character in range(1, count + 1):
                number += 1
                folder = root / part / alphabet / f"character{character:02d}"
                folder.mkdir(parents=True)
                for drawing in range(1, 21):
                    (folder / f"{number:04d}_{drawing:02d}.png").write_bytes(png(number, drawing))
    return root


@pytest.fixture
def folder(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may damage: the folder with omniglot-py, unpacked."""
    monkeypatch.setattr(omniglot, "ALPHABETS", 3)
    monkeypatch.setattr(omniglot, "CHARACTERS", 6)
    monkeypatch.delenv(prepare.VARIABLE, raising=False)
    shutil.copytree(small, tmp_path / "data" / "omniglot-py")
    return tmp_path / "data"


def zipped(folder: Path) -> Path:
    """Replace the unpacked parts by zips, whose files are in reversed order, to test that listings are sorted."""
    for part in omniglot.PARTS:
        root = folder / "omniglot-py"
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            for file in sorted((root / part).rglob("*.png"), reverse=True):
                archive.write(file, file.relative_to(root))
        shutil.rmtree(root / part)
    return folder


def run(folder: Path, out: Path, capsys: pytest.CaptureFixture[str], source: str = "auto") -> str:
    """Run the command, which must fail. -> its one message"""
    with pytest.raises(SystemExit) as stop:
        prepare.main(["--source", source, "--dir", str(folder), "--out", str(out)])
    assert stop.value.code == 1
    assert not out.exists()
    assert not list(out.parent.glob(".*.tmp"))
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "Traceback" not in message
    return message


# The file


def test_store_round_trip(tmp_path: Path):
    tensors = {"b": torch.arange(6, dtype=torch.uint8).view(2, 3), "a": torch.tensor([1, -2])}
    digest = store.write(tmp_path / "deep" / "file.safetensors", tensors, {"source": "test"})
    read, metadata = store.read(tmp_path / "deep" / "file.safetensors")
    assert metadata == {"source": "test", "checksum": digest}
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["file.safetensors"]


@pytest.mark.parametrize("where", ["header", "metadata", "tensor", "cut", "empty"])
def test_store_finds_damage(tmp_path: Path, where: str):
    path = tmp_path / "file.safetensors"
    store.write(path, {"images": torch.arange(100, dtype=torch.uint8)}, {"source": "test"})
    data = bytearray(path.read_bytes())
    if where in ("header", "tensor"):
        data[5 if where == "header" else -3] ^= 0xFF
    if where == "metadata":
        data = data.replace(b"test", b"nest")
    path.write_bytes(data[: {"cut": -10, "empty": 0}.get(where, len(data))])
    with pytest.raises(DataError, match=r"file\.safetensors: damaged"):
        store.read(path)


def test_store_names_a_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match="no such data file"):
        store.read(tmp_path / "nothing.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file.safetensors"
    store.write(path, {"images": torch.ones(3)}, {})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        store.write(path, {"images": torch.zeros(3)}, {})
    assert torch.equal(store.read(path)[0]["images"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["file.safetensors"]


def test_load_refuses_a_file_of_something_else(tmp_path: Path):
    store.write(tmp_path / "a", {"images": torch.ones(3)}, {"source": "test"})
    with pytest.raises(DataError, match=r"lacks \['alphabet', 'names'\]"):
        alphabets.load(tmp_path / "a")
    tensors = {"images": torch.zeros(2, 20, 105, 105, dtype=torch.uint8), "alphabet": torch.tensor([0, 0])}
    store.write(tmp_path / "b", tensors, {"source": "test", "names": json.dumps(["x"])})
    with pytest.raises(DataError, match=r"needed torch.uint8 \[2, 20, 28, 28\]"):
        alphabets.load(tmp_path / "b")


# Omniglot


def test_folder_and_zips_give_the_same(folder: Path):
    root = folder / "omniglot-py"
    assert omniglot.find(folder) == root
    assert omniglot.find(root) == root
    assert omniglot.find(folder.parent) == root  # one folder deeper
    assert omniglot.find(root / "images_background/Greek") is None
    unpacked = omniglot.read(root)
    assert unpacked.names == ["Greek", "Manipuri", "Tagalog"]
    assert unpacked.source == "omniglot"
    assert unpacked.alphabet.tolist() == [0, 1, 1, 2, 2, 2]
    assert unpacked.images.shape == (6, 20, 28, 28)
    packed = omniglot.read(zipped(folder) / "omniglot-py")
    assert packed.checksum == unpacked.checksum
    assert torch.equal(packed.images, unpacked.images)


def test_ink_is_bright_antialiased_and_where_it_was(folder: Path):
    images = omniglot.read(folder / "omniglot-py").images
    assert images[:, :, -2:, :2].max() == 0  # a corner without ink is background
    assert images.max() > 200
    assert len(images.unique()) > 50
    greek = torch.from_numpy(np.array(Image.open(io.BytesIO(png(4, 7))).convert("L"))).float()
    area = torch.nn.functional.interpolate(255 - greek[None, None], (28, 28), mode="area")[0, 0]
    assert (images[0, 6].float() - area).abs().mean() < 4  # drawing 7 of the character numbered 4


def test_hidden_and_foreign_files_are_ignored(folder: Path):
    part = folder / "omniglot-py" / "images_background"
    for name in (".DS_Store", "Greek/character01/._0004_01.png", "Greek/readme.txt"):
        (part / name).write_bytes(b"x")
    assert omniglot.read(folder / "omniglot-py").images.shape[0] == 6


def character(folder: Path, name: str = "images_background/Tagalog/character02") -> Path:
    return folder / "omniglot-py" / name


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "character": (lambda f: shutil.rmtree(character(f)),
                  ["found 5 characters", "has 6", "images_background/Tagalog/character02"]),
    "last character": (lambda f: shutil.rmtree(character(f, "images_background/Tagalog/character03")),
                       ["found 5 characters", "has 6", "0003_01.png"]),
    "alphabet": (lambda f: shutil.rmtree(character(f).parent),
                 ["found 2 alphabets", "has 3", "1 in", "images_background"]),
    "drawing": (lambda f: (character(f) / "0002_07.png").unlink(),
                ["images_background/Tagalog/character02", "found 19 drawings", "has 20", "*_07.png"]),
    "all drawings": (lambda f: [file.unlink() for file in character(f).iterdir()],
                     ["images_background/Tagalog/character02", "found 0 drawings", "has 20"]),
    "one drawing too many": (lambda f: (character(f) / "0002_21.png").write_bytes(png(1, 1)),
                             ["images_background/Tagalog/character02", "found 21 drawings", "has 20"]),
    "image size": (lambda f: (character(f) / "0002_07.png").write_bytes(png(2, 7, 104)),
                   ["images_background/Tagalog/character02/0002_07.png", "104 x 104", "needed 105 x 105"]),
    "not an image": (lambda f: (character(f) / "0002_07.png").write_bytes(b"hello"),
                     ["images_background/Tagalog/character02/0002_07.png", "5 bytes"]),
    "empty image": (lambda f: (character(f) / "0002_07.png").write_bytes(b""),
                    ["images_background/Tagalog/character02/0002_07.png", "0 bytes"]),
}  # fmt: skip


# A zip has no empty folders, so a character without any drawing can only exist unpacked.
@pytest.mark.parametrize(
    ("damage", "packed"),
    [(damage, packed) for damage in DAMAGE for packed in (False, True) if (damage, packed) != ("all drawings", True)],
)
def test_damage_is_one_error_that_names_the_file(
    damage: str, packed: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    harm, words = DAMAGE[damage]
    harm(folder)
    message = run(zipped(folder) if packed else folder, tmp_path / "out.safetensors", capsys)
    path = f"{folder}/omniglot-py/images_background.zip/images_background" if packed else str(folder)
    assert path in message or "characters" in message
    assert all(word in message for word in words), message


def test_a_png_cut_anywhere_is_found(small: Path):
    data = png(2, 7)
    for length in range(len(data)):
        part = omniglot.Part("images_background", {}, lambda _, n=length: data[:n])
        with pytest.raises(DataError, match=r"Tagalog/character02/0002_07.png: truncated or damaged PNG of"):
            omniglot._ink(part, "Tagalog/character02/0002_07.png")


def test_a_changed_byte_in_a_png_is_found():
    data = bytearray(png(2, 7))
    data[len(data) - 30] ^= 0x10  # inside the pixels
    with pytest.raises(DataError, match="damaged PNG"):
        omniglot._ink(omniglot.Part("p", {}, lambda _: bytes(data)), "a.png")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_truncated_zip(keep: float, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = zipped(folder) / "omniglot-py" / "images_evaluation.zip"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    message = run(folder, tmp_path / "out.safetensors", capsys)
    assert f"{path}: truncated or damaged zip" in message


def test_a_changed_byte_in_a_zip(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = zipped(folder) / "omniglot-py" / "images_evaluation.zip"
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    message = run(folder, tmp_path / "out.safetensors", capsys)
    assert f"{path}/images_evaluation/Manipuri/character02/0006_20.png: damaged in the zip" in message


def test_a_missing_part(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(folder / "omniglot-py" / "images_evaluation")
    message = run(folder, tmp_path / "out.safetensors", capsys)
    assert "found neither images_evaluation/ nor images_evaluation.zip" in message


# Which data


def no_download(*_: object) -> Path:
    raise OSError("no network")


@pytest.fixture
def few_glyphs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = glyphs.make(2)
    monkeypatch.setattr(glyphs, "make", lambda: made)


def test_a_given_folder_comes_first(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.safetensors"
    prepare.main(["--dir", str(folder), "--out", str(out)])
    assert f"took Omniglot from {folder}" in capsys.readouterr().out
    data = alphabets.load(out)
    assert data.source == "omniglot"
    assert data.checksum == omniglot.read(folder / "omniglot-py").checksum
    assert "MIT" in store.read(out)[1]["licence"]


def test_the_variable_names_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(prepare.VARIABLE, str(folder))
    prepare.main(["--dir", "", "--out", str(tmp_path / "out.safetensors")])
    assert alphabets.load(tmp_path / "out.safetensors").source == "omniglot"


def test_then_the_download(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(omniglot, "download", lambda where: folder / "omniglot-py")
    prepare.main(["--out", str(tmp_path / "out.safetensors")])
    assert "took Omniglot, downloaded to" in capsys.readouterr().out


@pytest.mark.usefixtures("few_glyphs")
def test_then_glyphs_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv(prepare.VARIABLE, raising=False)
    monkeypatch.setattr(omniglot, "download", no_download)
    prepare.main(["--out", str(tmp_path / "out.safetensors")])
    output = capsys.readouterr()
    assert "took glyphs" in output.out
    assert output.err.count("NOT OMNIGLOT") == 1
    assert output.err.count("\n") >= 6
    assert "no network" in output.err
    assert alphabets.load(tmp_path / "out.safetensors").source == "glyphs"


@pytest.mark.usefixtures("few_glyphs")
def test_glyphs_asked_for_need_no_warning_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(prepare.VARIABLE, str(tmp_path / "nowhere"))
    prepare.main(["--source", "glyphs", "--out", str(tmp_path / "out.safetensors")])
    assert capsys.readouterr().err == ""


def test_omniglot_asked_for_and_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(prepare.VARIABLE, str(tmp_path))
    monkeypatch.setattr(omniglot, "download", no_download)
    with pytest.raises(SystemExit, match="1"):
        prepare.main(["--source", "omniglot", "--out", str(tmp_path / "out.safetensors")])
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert all(word in message for word in ("not found", str(tmp_path), "no network")), message


@pytest.mark.parametrize("source", ["auto", "omniglot"])
def test_a_named_folder_without_omniglot(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.safetensors"
    assert "no such folder" in run(tmp_path / "nowhere", out, capsys, source)
    (tmp_path / "other").mkdir()
    assert "there is no Omniglot in it" in run(tmp_path / "other", out, capsys, source)
    (tmp_path / "other" / "omniglot-py").mkdir()
    assert "found neither images_background/" in run(tmp_path / "other", out, capsys, source)


def test_command_line_has_help():
    result = subprocess.run([sys.executable, "-m", "leapwarp.data.prepare", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "--download-dir" in result.stdout


# Glyphs


def test_glyphs_have_the_sizes_of_omniglot():
    sizes = glyphs.sizes()
    assert len(sizes) == 50
    assert sum(sizes) == 1623
    assert (min(sizes), max(sizes)) == (14, 55)
    assert sum(size < 20 for size in sizes) == 4


def test_glyphs_repeat_and_look_like_drawings():
    data = glyphs.make(3)
    assert data.names == ["glyphs_00", "glyphs_01", "glyphs_02"]
    assert data.checksum == glyphs.make(3).checksum
    assert data.alphabet.bincount().tolist() == glyphs.sizes()[:3]
    assert data.images.dtype == torch.uint8
    assert data.images.shape[1:] == (20, 28, 28)
    ink = data.images.float().mean((2, 3)) / 255
    assert ink.min() > 0.005
    assert ink.max() < 0.4
    assert 0.05 < ink.mean() < 0.12
    assert len(data.images.flatten(0, 1).flatten(1).unique(dim=0)) == ink.numel()  # no drawing twice


def test_glyphs_of_one_character_are_alike():
    """The nearest mean of other drawings classifies far above chance and far from perfectly, as on Omniglot (0.57)."""
    data = glyphs.make(4)
    right = []
    for alphabet in range(4):
        images = data.images[data.alphabet == alphabet].float()[:14].flatten(2)  # [character, drawing, pixel]
        distance = torch.cdist(images[:, 15:].flatten(0, 1), images[:, :15].mean(1))
        right.append((distance.argmin(1) == torch.arange(14).repeat_interleave(5)).float())
    assert 0.4 < torch.cat(right).mean() < 0.9
