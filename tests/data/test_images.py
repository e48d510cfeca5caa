"""Image data sets: checks, sources, sets that are left out, and the prepared file."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sizes import one_run

from leapwarp.data import images, prepare_images
from leapwarp.data.images import build, check, check_official, fit, load
from leapwarp.data.store import DataError
from leapwarp.experiments.multicv import run


def arrays(classes=3, n=40, side=28, channels=1, first=0):
    stream = np.random.default_rng(0)
    found = {}
    for part, count in (("train", n), ("test", n // 2)):
        found[f"{part}_images"] = stream.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
        found[f"{part}_labels"] = np.arange(count) % classes + first
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three sets, and no network."""
    here = tmp_path / "data"
    here.mkdir()
    for name, channels in (("mnist", 1), ("cifar10", 3), ("mine", 3)):
        np.savez(here / f"{name}.npz", **arrays(channels=channels))
    monkeypatch.delenv("LEAPWARP_DATA", raising=False)

    def offline(name, folder):
        if images.OFFICIAL[name].loader is None:
            raise DataError("torchvision has no loader for it")
        raise OSError("no network\nand more")

    monkeypatch.setattr(images, "download", offline)
    return here


def prepare(folder, tmp_path, *more):
    out = tmp_path / "images.safetensors"
    prepare_images.main(["--dir", str(folder), "--out", str(out), "--download-dir", str(tmp_path), *more])
    return load(out)


@pytest.mark.parametrize("first", [1, -1])
def test_the_label_trap_of_svhn_is_caught_both_ways(first):
    with pytest.raises(DataError, match=r"labels run from .* needed 0 to 9.*SVHN"):
        check("svhn", arrays(10, first=first))
    assert check("svhn", arrays(10)) == 10


def digits(part, n=None):
    """Labels with SVHN's distribution: all of a part, or n at random."""
    every = np.repeat(np.arange(10), images.SVHN_DIGITS[part])
    return every if n is None else np.random.default_rng(1).choice(every, n, replace=False)


def svhn(train, test):
    given = {"train_labels": train, "test_labels": test}
    pictures = {f"{part}_images": np.zeros((len(given[f"{part}_labels"]), 1, 1, 3), np.uint8) for part in images.PARTS}
    return build("svhn", given | pictures, "svhn.npz")


def test_the_counts_of_svhns_digits_are_those_of_the_whole_set():
    about = images.OFFICIAL["svhn"]
    assert [sum(images.SVHN_DIGITS[part]) for part in images.PARTS] == [about.n_train, about.n_test]


@pytest.mark.parametrize("part", images.PARTS)
@pytest.mark.parametrize("n", [None, 3_000])
def test_a_shift_of_svhns_labels_is_named(part, n):
    good = digits(part, n)
    assert images.check_digits(part, good)
    for shift in range(1, 10):
        needed = rf"found {part} labels shifted by {shift} .*needed.*: make them \(label - {shift}\) % 10"
        with pytest.raises(DataError, match=needed) as caught:
            images.check_digits(part, (good + shift) % 10)
        assert f"label {(1 + shift) % 10}; " in str(caught.value)


def test_labels_of_a_whole_svhn_that_no_shift_explains_are_refused():
    swapped = digits("test")
    swapped[0] = 1  # one label is wrong
    with pytest.raises(DataError, match=r"found \[1743, 5100, .* needed \[1744, 5099, .*SVHN's own files"):
        images.check_digits("test", swapped)


@pytest.mark.parametrize("part", [np.arange(3_000) % 10, digits("train", 20), (digits("train", 20) + 1) % 10])
def test_labels_that_cannot_tell_a_shift_are_taken_and_said(part):
    """Equally many of each digit, or too few."""
    assert not images.check_digits("train", part)
    said = svhn(np.append(part, range(10)), digits("test", 3_000)).origin
    assert said.startswith("svhn.npz, a subset")
    assert "too even train labels to tell whether they are shifted" in said


def test_a_users_svhn_is_checked_in_both_parts():
    assert "shifted" not in svhn(digits("train", 3_000), digits("test", 3_000)).origin
    for train, test, part in ((1, 0, "train"), (0, 1, "test")):
        with pytest.raises(DataError, match=f"found {part} labels shifted by 1"):
            svhn((digits("train", 3_000) + train) % 10, (digits("test", 3_000) + test) % 10)


def test_a_download_must_have_the_official_counts():
    with pytest.raises(DataError, match=r"mnist: found \(3, 40, 20\).*official set has \(10, 60000, 10000\)"):
        check_official("mnist", arrays())


@pytest.mark.parametrize(("name", "key"), [("svhn", "split"), ("cifar10", "train")])
def test_a_download_goes_through_torchvisions_loader(monkeypatch, tmp_path, name, key):
    from torchvision import datasets

    asked = []

    class Loader:
        def __init__(self, root, download, **which):
            asked.append((root, download, which))
            self.n = 40 if which[key] in (True, "train") else 20

        def __iter__(self):
            pixels = (np.full((32, 32, 3), i + 100 * (self.n == 20), dtype=np.uint8) for i in range(self.n))
            return ((Image.fromarray(each), i % 10) for i, each in enumerate(pixels))

    about = images.OFFICIAL[name]._replace(n_train=40, n_test=20)
    monkeypatch.setitem(images.OFFICIAL, name, about)
    monkeypatch.setattr(images, "SVHN_DIGITS", {"train": (4,) * 10, "test": (2,) * 10})
    monkeypatch.setattr(datasets, about.loader, Loader)
    found = images.find(name, None, lambda name: images.download(name, tmp_path))
    assert [(root, fetched) for root, fetched, _ in asked] == [(str(tmp_path), True)] * 2
    assert [which[key] for _, _, which in asked] == (["train", "test"] if key == "split" else [True, False])
    assert found.train_images[:, 0, 0, 0].tolist() == list(range(40)) and found.origin == "torchvision"
    assert found.test_labels.tolist() == [i % 10 for i in range(20)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.zeros(39, dtype=np.int64)}, "needed one each"),
        ({"train_labels": np.zeros(40)}, "needed one each"),
        ({"test_labels": np.full(20, 3)}, "needed 0 to 2"),
        ({"train_labels": np.resize([-1, 1, 2], 40)}, "labels run from -1 to 2"),
        ({"train_images": np.zeros((40, 28, 28, 1), dtype=np.float32)}, "needed uint8"),
        ({"train_images": np.zeros((40, 28, 28, 2), dtype=np.uint8)}, "needed uint8"),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        check("mine", arrays() | change)


def test_a_set_cannot_have_more_classes_than_it_has():
    with pytest.raises(DataError, match="found 11 classes, the set has 10"):
        check("mnist", arrays(11))


def test_small_images_are_padded_with_zeros_and_large_ones_resized():
    given = torch.full((2, 28, 28, 1), 7, dtype=torch.uint8)
    padded = fit(given)
    assert padded.shape == (2, 1, 32, 32)
    assert torch.equal(padded[:, 0, 2:-2, 2:-2], given[..., 0])
    assert int(padded.sum()) == int(given.sum())
    assert torch.equal(fit(torch.full((1, 64, 48, 3), 9, dtype=torch.uint8)), torch.full((1, 3, 32, 32), 9).byte())


def test_normalisation_is_hats_for_known_sets_and_their_own_for_others():
    assert build("mnist", arrays(), "x").mean == [0.1]
    own = build("mine", arrays(channels=3), "x")
    pixels = own.train_images.float() / 255
    normalised = (pixels - torch.tensor(own.mean).view(3, 1, 1)) / torch.tensor(own.std).view(3, 1, 1)
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(normalised.std((0, 2, 3)), torch.ones(3), rtol=1e-4, atol=0)


def test_sets_that_cannot_be_had_are_left_out_with_one_line_each(folder, tmp_path, capsys):
    found = prepare(folder, tmp_path, "--sets", "mnist", "svhn", "cifar10", "facescrub", "cifar100", "mine")
    assert list(found.sets) == ["mnist", "cifar10", "mine"]
    assert found.source == "multicv-subsets"
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert [line.split(":")[1].split()[0] for line in lines] == ["svhn", "facescrub", "cifar100"]
    assert "the download failed (no network)" in lines[0] and "torchvision has no loader" in lines[1]
    assert "a subset: 3 classes with 40 + 20 images where the set has 10" in found.sets["mnist"].origin


def test_a_stand_in_has_its_own_name(folder, tmp_path):
    np.savez(folder / "chars74k.npz", **arrays(channels=3))
    found = prepare(folder, tmp_path, "--sets", "mnist", "svhn", "cifar10")
    assert list(found.sets) == ["mnist", "chars74k", "cifar10"]


def test_a_damaged_set_is_an_error_and_not_left_out(folder, tmp_path, capsys):
    (folder / "cifar10.npz").write_bytes((folder / "cifar10.npz").read_bytes()[:500])
    with pytest.raises(SystemExit):
        prepare(folder, tmp_path)
    assert "cifar10.npz: damaged" in capsys.readouterr().err
    assert not (tmp_path / "images.safetensors").exists()


def test_with_fewer_than_three_sets_glyphs_stand_in_with_a_warning(folder, tmp_path, capsys):
    found = prepare(folder, tmp_path, "--sets", "mnist", "svhn", "facescrub")
    assert found.source == "glyph-sets" and len(found.sets) == 4
    assert "WARNING: THESE ARE NOT THE DATA SETS" in capsys.readouterr().err
    again = images.glyph_sets()
    assert all(torch.equal(found.sets[name].train_images, each.train_images) for name, each in again.items())
    each = again["glyphs-2"]
    assert (each.classes, len(each.train_labels), len(each.test_labels), each.train_images.shape[1]) == (
        20,
        300,
        100,
        3,
    )


def test_a_folder_of_images_by_class_is_a_set(tmp_path):
    stream = np.random.default_rng(0)
    for name in ("b", "a"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i in range(20):
            pixels = stream.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / name / f"{i:02d}.png")
    found = images.find("faces", tmp_path, images.download)
    assert (found.classes, len(found.train_labels), len(found.test_labels)) == (2, 36, 4)
    assert found.train_labels[0] == 0 and found.train_images.shape[1:] == (3, 32, 32)
    (tmp_path / "faces" / "a" / "00.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a/00\.png: truncated or damaged PNG of 8 bytes \(it begins with b.no image"):
        images.find("faces", tmp_path, images.download)


def test_a_ninth_set_is_held_out_like_the_others(folder, tmp_path):
    for name in ("mnist", "cifar10", "mine"):
        np.savez(folder / f"{name}.npz", **arrays(channels=1 if name == "mnist" else 3, n=60))
    found = prepare(folder, tmp_path, "--sets", "mnist", "cifar10", "mine")
    this = one_run(found, "multicv", "finetune")
    records = run.judge(this, run.train(this).state).records
    assert {task for task, _, metric, _ in records if metric == "accuracy"} == {"mnist", "cifar10", "mine"}


@pytest.mark.parametrize("sides", [(20, 25, 30, 28), (20, 25, 30, 60)])
def test_images_of_several_sizes_are_all_resized(tmp_path, sides):
    """A padded image beside a resized one would show its object smaller, and in a black frame."""
    for number, side in enumerate(sides * 5):
        path = tmp_path / "mine" / f"class{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB" if number % 3 else "L", (side, side + 1), 200).save(path)
    found = build("mine", images.read_folder(tmp_path / "mine"), "folder mine")
    assert found.train_images.shape == (18, 3, 32, 32) and (found.train_images[:, 0] == 200).all()


def test_test_images_that_are_training_images_too_are_counted():
    given = arrays(10)
    assert "too" not in build("mine", given, "a file").origin
    given["test_images"][:3] = given["train_images"][5:8]
    assert build("mine", given, "a file").origin.endswith("3 of 20 test images are training images too")


def test_a_name_that_nobody_knows_is_an_error(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        prepare(folder, tmp_path, "--sets", "mnist", "cifar10", "minst")
    assert "minst: no minst.npz or minst/ in" in capsys.readouterr().err


def test_a_download_with_shifted_labels_is_an_error_and_not_left_out(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(images, "download", lambda name, folder: arrays(10))
    with pytest.raises(SystemExit):
        prepare(folder, tmp_path, "--sets", "mnist", "cifar10", "svhn")
    assert "the official set has (10, 73257, 26032)" in capsys.readouterr().err


def test_channels_have_to_agree_between_the_parts():
    with pytest.raises(DataError, match="found 1 channels in training and 3 in test images"):
        check("mine", arrays() | {"test_images": arrays(channels=3)["test_images"]})


def test_only_the_eight_official_sets_are_those_of_the_paper():
    """A further set would be pretrained on, and claims would average over it."""
    whole = {name: SimpleNamespace(origin="a file") for name in images.OFFICIAL}
    assert images.source_of(whole) == "multicv"
    fewer, more = dict(list(whole.items())[1:]), whole | {"own": SimpleNamespace(origin="a file")}
    part = whole | {"mnist": SimpleNamespace(origin="a file, a subset: 3 classes")}
    assert [images.source_of(each) for each in (fewer, more, part)] == ["multicv-subsets"] * 3
