"""Reading and checking subsets of ImageNet in all their layouts, the stand-in, and the command that prepares them.

Made-up images stand in for the sets; with LEAPWARP_DATA set, the real Tiny-ImageNet is read as well.
"""

import io
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leapwarp.data import classes, imagenet, prepare_imagenet, store, textures
from leapwarp.data.imagenet import Kind
from leapwarp.data.prepare import VARIABLE
from leapwarp.data.store import DataError

CLASSES = {"train": ["n03", "n01", "n02"], "val": ["n05", "n04"], "test": ["n06"]}
COUNT = 4
SIZE = 10
KIND = Kind("small", ("small",), (3, 2, 1), (COUNT, COUNT), SIZE)


def picture(name: str, number: int) -> np.ndarray:
    """Image `number` of a class: two uniform halves, which show orientation and channel order. [SIZE, SIZE, 3]"""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:5] = [40 * int(name[1:]), 10 * number, 200]
    image[5:, :3] = [255, 0, 3]
    return image


def encoded(name: str, number: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture(name, number)).save(data, "PNG")
    return data.getvalue()


def as_folders(root: Path) -> None:
    for part, names in CLASSES.items():
        for name in names:
            (root / part / name).mkdir(parents=True)
            for number in range(COUNT):
                (root / part / name / f"{number}.png").write_bytes(encoded(name, number))


def as_zip(root: Path) -> None:
    as_folders(root)
    shutil.make_archive(str(root), "zip", root.parent, root.name)
    shutil.rmtree(root)


def as_csv(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    for part, names in CLASSES.items():
        lines = ["filename,label"]
        for name in names:
            for number in range(COUNT):
                (root / "images" / f"{name}_{number}.png").write_bytes(encoded(name, number))
                lines.append(f"{name}_{number}.png,{name}")
        (root / f"{part}.csv").write_text("\n".join(lines))


def stacked(part: str) -> np.ndarray:
    return np.stack([picture(name, number) for name in CLASSES[part] for number in range(COUNT)])


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def as_cache(root: Path) -> None:
    for part, names in CLASSES.items():
        rows = {name: list(range(COUNT * i, COUNT * (i + 1))) for i, name in enumerate(names)}
        dump(root / f"mini-imagenet-cache-{part}.pkl", {"image_data": stacked(part), "class_dict": rows})


def as_split(root: Path) -> None:
    for part, word in {"train": "train_phase_train", "val": "val", "test": "test"}.items():
        labels = [name for name in CLASSES[part] for _ in range(COUNT)]
        dump(root / f"miniImageNet_category_split_{word}.pickle", {"data": stacked(part), "labels": labels})


def as_tiered(root: Path) -> None:
    for part, names in CLASSES.items():
        files = [np.frombuffer(encoded(name, number), np.uint8) for name in names for number in range(COUNT)]
        dump(root / f"{part}_images_png.pkl", files)
        numbers = np.arange(len(names)).repeat(COUNT)  # a name for each class, a number for each image
        content = {"label_specific": numbers, "label_specific_str": names, "label_general_str": ["general"]}
        dump(root / f"{part}_labels.pkl", content)


def as_npz(root: Path) -> None:
    root.mkdir(parents=True)
    for part, names in CLASSES.items():
        np.savez(root / f"{part}_images.npz", images=stacked(part))
        dump(root / f"{part}_labels.pkl", {"label_specific_str": [name for name in names for _ in range(COUNT)]})


LAYOUTS = [as_folders, as_zip, as_csv, as_cache, as_split, as_tiered, as_npz]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_is_read_to_the_same_images(tmp_path, layout):
    layout(tmp_path / "small")
    path = imagenet.find(tmp_path, KIND)
    assert path is not None
    found = imagenet.read(path, KIND)
    assert found.names == ["n01", "n02", "n03", "n04", "n05", "n06"]
    assert found.split == {"train": [0, 1, 2], "validation": [3, 4], "test": [5]}
    for index, name in enumerate(found.names):
        rows = found.rows(index)
        assert len(rows) == COUNT
        for number, row in enumerate(rows):
            assert np.array_equal(found.images[row].permute(1, 2, 0).numpy(), picture(name, number))


def test_numbered_labels_are_told_apart_between_parts(tmp_path):
    as_npz(tmp_path / "small")
    for part, names in CLASSES.items():
        dump(tmp_path / f"small/{part}_labels.pkl", {"labels": np.arange(len(names)).repeat(COUNT)})
    found = imagenet.read(tmp_path / "small", KIND)
    assert found.names == ["train_000", "train_001", "train_002", "validation_000", "validation_001", "test_000"]


def test_the_file_gives_back_what_was_saved(tmp_path):
    made = textures.make((2, 1, 1), 3, 8)
    path = tmp_path / "classes.safetensors"
    classes.save(path, made, "none")
    found = classes.load(path)
    assert torch.equal(found.images, made.images) and torch.equal(found.label, made.label)
    assert found[2:] == made[2:]
    assert classes.load(path, 4).images.shape == (12, 3, 4, 4)
    store.write(path, {"images": made.images}, {"source": "x"})
    with pytest.raises(DataError, match=r"holds \['checksum', 'images', 'source'\] and lacks \['label', 'names', 'sp"):
        classes.load(path)


def test_resizing_to_a_half_is_nearly_the_mean_and_the_same_in_chunks(monkeypatch):
    images = textures.make((2, 1, 1), 5, 16).images
    half = classes.resize(images, 8)
    flat = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8)
    assert (classes.resize(flat, 8) == 77).all()
    mean = images.float().unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))
    assert (half - mean).abs().mean() < 8  # a triangle of twice the width, not a box
    monkeypatch.setattr(classes, "CHUNK", 3)
    assert torch.equal(classes.resize(images, 8), half)


def test_counts_are_named(tmp_path):
    as_folders(tmp_path / "small")
    with pytest.raises(DataError, match="found 3/2/1 train/validation/test classes, mini-imagenet has 64/16/20"):
        imagenet.read(tmp_path / "small", imagenet.KINDS["mini"])
    with pytest.raises(DataError, match="tiered-imagenet has 351/97/160"):
        imagenet.read(tmp_path / "small", imagenet.KINDS["tiered"])
    (tmp_path / "small/val/n04/2.png").unlink()
    with pytest.raises(DataError, match="val/n04: found 3 images of class n04, needed 4"):
        imagenet.read(tmp_path / "small", KIND)


def test_a_class_in_two_parts_is_refused(tmp_path):
    as_folders(tmp_path / "small")
    (tmp_path / "small/test/n06").rename(tmp_path / "small/test/n01")
    with pytest.raises(DataError, match="1 classes are in two parts of the split: n01"):
        imagenet.read(tmp_path / "small", KIND)


def test_a_damaged_image_is_named(tmp_path):
    as_folders(tmp_path / "small")
    file = tmp_path / "small/train/n02/1.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"train/n02/1\.png: truncated or damaged PNG of 40 bytes"):
        imagenet.read(tmp_path / "small", KIND)


def test_a_missing_image_of_a_csv_is_named(tmp_path):
    as_csv(tmp_path / "small")
    (tmp_path / "small/images/n05_3.png").unlink()
    with pytest.raises(DataError, match=r"val.csv names n05_3.png of class n05"):
        imagenet.read(tmp_path / "small", KIND)


class Program:
    """An object that runs a program when its pickle is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_cannot_run_programs(tmp_path):
    as_cache(tmp_path / "small")
    dump(tmp_path / "small/mini-imagenet-cache-test.pkl", Program(tmp_path / "ran"))
    with pytest.raises(DataError, match="which is neither an array nor a plain value"):
        imagenet.read(tmp_path / "small", KIND)
    assert not (tmp_path / "ran").exists()


def test_a_cache_with_fewer_images_than_it_says_is_damaged(tmp_path):
    as_cache(tmp_path / "small")
    file = tmp_path / "small/mini-imagenet-cache-test.pkl"
    content = pickle.loads(file.read_bytes())
    dump(file, content | {"image_data": content["image_data"][:2]})
    with pytest.raises(DataError, match="cache-test.pkl: image number 2 of class n06 is missing, there are 2"):
        imagenet.read(tmp_path / "small", KIND)


def test_a_csv_of_another_coding_or_a_short_row_is_said(tmp_path):
    as_csv(tmp_path / "small")
    file = tmp_path / "small/val.csv"
    lines = file.read_text()
    file.write_text(lines + "\nfoo\n")
    with pytest.raises(DataError, match="val.csv: needed rows with the columns filename and label"):
        imagenet.read(tmp_path / "small", KIND)
    file.write_bytes(lines.encode() + b"\n\xff\xfe,x\n")
    with pytest.raises(DataError, match="val.csv: is no CSV"):
        imagenet.read(tmp_path / "small", KIND)


def test_a_folder_of_ones_own_is_not_passed_off_as_a_published_set(tmp_path):
    as_folders(tmp_path / "mini-imagenet")
    with pytest.raises(DataError, match="found 3/2/1 train/validation/test classes, mini-imagenet has 64/16/20"):
        prepare_imagenet.prepare("mini", str(tmp_path / "mini-imagenet"), None)
    as_folders(tmp_path / "textures")
    with pytest.raises(DataError, match="rows would call the data textures, as other data"):
        prepare_imagenet.prepare("mini", str(tmp_path / "textures"), None)


@pytest.mark.parametrize(("content", "said"), [({"x": 1}, r"found \['x'\]"), ([1], "found list")])
def test_a_pickle_of_something_else_says_what_is_in_it(tmp_path, content, said):
    as_cache(tmp_path / "small")
    dump(tmp_path / "small/mini-imagenet-cache-val.pkl", content)
    with pytest.raises(DataError, match="needed image_data or data or images or features, " + said):
        imagenet.read(tmp_path / "small", KIND)


def test_a_folder_without_a_layout_says_what_is_there(tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small/readme.txt").write_text("")
    with pytest.raises(DataError, match=r"found \['readme.txt'\]"):
        imagenet.read(tmp_path / "small", KIND)


def run(monkeypatch, capsys, tmp_path, *arguments):
    out = tmp_path / "out.safetensors"
    monkeypatch.setattr(sys, "argv", ["prepare_imagenet"])
    prepare_imagenet.main(["--set", "mini", "--out", str(out), *arguments])
    return classes.load(out), capsys.readouterr()


def test_no_images_give_textures_and_a_warning(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(textures.make, "__defaults__", ((2, 1, 1), 3, 8))
    made, said = run(monkeypatch, capsys, tmp_path)
    assert made.source == "textures" and "WARNING: THIS IS NOT MINI-IMAGENET" in said.err
    _, said = run(monkeypatch, capsys, tmp_path, "--source", "textures")
    assert "WARNING" not in said.err


def test_what_was_asked_for_and_is_not_there_is_an_error(monkeypatch, capsys, tmp_path):
    for arguments, message in [
        (["--source", "real", "--dir", str(tmp_path)], "mini-imagenet was asked for and not found"),
        (["--source", "tiny", "--dir", str(tmp_path)], "tiny-imagenet was asked for and not found"),
        (["--dir", str(tmp_path / "nowhere")], "no such folder"),
        (["--source", str(tmp_path / "nowhere")], "needed auto, real, tiny, textures or a folder"),
    ]:
        with pytest.raises(SystemExit):
            run(monkeypatch, capsys, tmp_path, *arguments)
        assert message in capsys.readouterr().err


def test_a_folder_of_ones_own(monkeypatch, capsys, tmp_path):
    as_folders(tmp_path / "birds")
    found, said = run(monkeypatch, capsys, tmp_path, "--source", str(tmp_path / "birds"), "--size", "6")
    assert found.source == "birds" and found.images.shape == (24, 3, 6, 6)
    assert "3/2/1 train/validation/test classes, 24 images of 6 x 6" in said.out


def test_textures_are_the_same_every_time_and_classes_differ():
    first, second = textures.draw(3, 8, 16), textures.draw(4, 8, 16)
    assert torch.equal(first, textures.draw(3, 8, 16))
    means = [one.float().mean((0, 2, 3)) for one in (first, second)]
    assert (means[0] - means[1]).abs().max() > 5
    assert first.float().std(0).mean() > 10


@pytest.mark.skipif(VARIABLE not in os.environ, reason="reads Tiny-ImageNet from LEAPWARP_DATA")
@pytest.mark.slow
def test_tiny_imagenet():
    folder = Path(os.environ[VARIABLE])
    path = imagenet.find(folder, imagenet.KINDS["tiny"])
    if path is None:
        pytest.skip(f"no Tiny-ImageNet in {folder}")
    found = imagenet.read(path, imagenet.KINDS["tiny"])
    assert [len(found.split[part]) for part in classes.PARTS] == [128, 32, 40]
    assert found.images.shape == (12_800, 3, 64, 64) and found.names[0] == "n01629819"
    assert all(len(found.rows(index)) == 64 for index in range(200))
