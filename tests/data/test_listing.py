"""Folders and zips of images: which files are ignored, read and refused."""

import os
import re
import shutil
import unicodedata
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leapwarp.data import imagenet, images, listing
from leapwarp.data.imagenet import Kind
from leapwarp.data.store import DataError

OWN = Kind("own", ())
COUNT = 4
CLASSES = {"train": ["c00", "c01"], "val": ["c02"], "test": ["c03"]}
LEFT = [
    *("._0.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", ".ipynb_checkpoints/0-checkpoint.png"),
    *("__MACOSX/c00/0.png", "0.png~", ".git/objects/00.png", "@eaDir/0.png/SYNOPHOTO_THUMB_M.png", ".0.png.swp"),
    *("0.png:Zone.Identifier", "~$0.png", "#0.png#", "$RECYCLE.BIN/0.png", "lost+found/0.png", "__pycache__/0.png"),
    *(".AppleDouble/0.png", "Icon\r", "Network Trash Folder/0.png"),
]


def colour(index, number):
    return (40 * index, 10 * number, 200)


def make(root):
    """train/val/test with 2/1/1 classes of four images of one colour each."""
    for part, names in CLASSES.items():
        for name in names:
            (root / part / name).mkdir(parents=True)
            for number in range(COUNT):
                Image.new("RGB", (6, 6), colour(int(name[1:]), number)).save(root / part / name / f"{number}.png")
    return root


def zipped(root):
    """The same in a zip with backslashes and without entries for folders, as some Windows programs make one."""
    path = root.with_name(f"{root.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.writestr(f"{root.name}\\{file.relative_to(root)}".replace("/", "\\"), file.read_bytes())
    return path


def is_right(found):
    assert found.names == ["c00", "c01", "c02", "c03"] and len(found.images) == 4 * COUNT
    wanted = [colour(index, number) for index in range(4) for number in range(COUNT)]
    assert np.array_equal(found.images[:, :, 3, 3].numpy(), wanted)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("where", ["", "train", "train/c00"])
def test_what_systems_and_editors_leave_is_passed_over_and_said(tmp_path, capsys, left, where, packed):
    root = make(tmp_path / "own")
    path = root / where / left
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no picture")
    is_right(imagenet.read(zipped(root) if packed else root, OWN, 6))
    assert re.fullmatch(r".*own(\.zip)?: passed over 1 '[^\n]+'\n", capsys.readouterr().out)


def test_the_whole_of_a_set_is_told_in_one_line(tmp_path, capsys):
    root = make(tmp_path / "own")
    for name in ("train/c00/._0.png", "val/c02/._1.png", "val/c02/notes.txt", "test/c03/README", "train/loose.png"):
        (root / name).write_bytes(b"")
    is_right(imagenet.read(root, OWN, 6))
    said = capsys.readouterr().out
    assert said == f"{root}: passed over 2 '._*', 1 '.txt', 1 'pictures outside of classes', 1 'without an extension'\n"


def test_pictures_of_every_extension_and_letter_case_are_read(tmp_path, capsys):
    root = make(tmp_path / "own")
    for number, ending in enumerate([".tif", ".GIF", ".ppm", ".JPEG"]):
        file = root / "train/c00" / f"{number}.png"
        Image.open(file).save(file.with_suffix(ending), quality=100)
        file.unlink()
    found = imagenet.read(root, OWN, 6)
    wanted = [colour(0, number) for number in range(COUNT)]
    assert np.abs(found.images[:COUNT, :, 3, 3].numpy().astype(int) - wanted).max() <= 2  # JPEG is lossy
    assert capsys.readouterr().out == ""


def test_multi_cv_passes_over_the_same(tmp_path, capsys):
    for name in "ab":
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (6, 6), (number, 0, 0)).save(tmp_path / "mine" / name / f"{number}.tif")
    for left in ("Thumbs.db", "a/Thumbs.db", "a/._0.tif", "b/notes.txt"):
        (tmp_path / "mine" / left).write_bytes(b"x")
    (tmp_path / "mine/.ipynb_checkpoints").mkdir()
    found = images.find("mine", tmp_path, lambda name: {})
    assert (found.classes, len(found.train_labels), len(found.test_labels)) == (2, 18, 2)
    assert found.test_images[:, 0, 16, 16].tolist() == [9, 9]
    assert "passed over 1 '._*', 1 '.ipynb_checkpoints', 1 '.txt', 2 'thumbs.db'" in capsys.readouterr().out


def test_links_are_followed_but_not_in_circles(tmp_path, capsys):
    root = make(tmp_path / "own")
    (root / "train/c01").rename(tmp_path / "elsewhere")
    (root / "train/c01").symlink_to(tmp_path / "elsewhere")
    (root / "train/c00/again").symlink_to(root / "train")
    is_right(imagenet.read(root, OWN, 6))
    assert "passed over 1 'links that lead back'" in capsys.readouterr().out
    for name in ("val/c02/9.png", "val/c09", "train/c01/README"):  # a picture, a class, and what may be either
        (root / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(DataError, match=f"{name}: cannot be read: the link leads nowhere"):
            imagenet.read(root, OWN, 6)
        (root / name).unlink()
    (root / "val/c02/9.png").symlink_to("9.png")
    with pytest.raises(DataError, match="val/c02/9.png: cannot be read: the link leads nowhere"):
        imagenet.read(root, OWN, 6)


@pytest.mark.parametrize("packed", [False, True])
def test_a_class_without_pictures_is_named_with_what_is_there(tmp_path, packed):
    root = make(tmp_path / "own")
    for file in (root / "val/c02").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"val/c02: found 0 images of class c02 \(4 '\.heic' passed over\); needed at"):
        imagenet.read(zipped(root) if packed else root, OWN)


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("café", "CAFÉ"), ("straße", "STRASSE")])
def test_classes_that_differ_in_letter_case_are_refused(tmp_path, one, other):
    root = make(tmp_path / "own")
    (root / "train/c00").rename(root / "train" / one)
    for part, old in (("train", "c01"), ("test", "c03")):  # in one part, and in two
        (root / part / old).rename(root / part / other)
        with pytest.raises(DataError, match="found two classes called .* which on many systems are one"):
            imagenet.read(root, OWN)
        (root / part / other).rename(root / part / old)


def test_names_in_two_forms_of_unicode_are_one(tmp_path):
    root = make(tmp_path / "own")
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    (root / "train/c00").rename(root / "train" / forms[1])
    assert imagenet.read(root, OWN).names == ["c01", forms[0], "c02", "c03"]
    (root / "train/c01").rename(root / "train" / forms[0])
    with pytest.raises(DataError, match="differ in Unicode's normal form"):
        imagenet.read(root, OWN)


def test_pictures_that_are_there_twice_are_said_and_kept(tmp_path, capsys):
    root = make(tmp_path / "own")
    shutil.copy(root / "val/c02/1.png", root / "val/c02/1 (copy).png")
    assert len(imagenet.read(root, OWN, 6).images) == 4 * COUNT + 1
    said = capsys.readouterr().out
    assert re.fullmatch(
        r".*own: 1 images are the same as another of their class, .*: .*c02/1\.png is .*/1 \(copy\)\.png\n", said
    )


def test_a_picture_of_two_classes_is_said(tmp_path, capsys):
    """If a class were copied into another part, it would be used for training and for testing."""
    root = make(tmp_path / "own")
    shutil.copytree(root / "train/c01", root / "test/copied")
    assert len(imagenet.read(root, OWN, 6).names) == 5
    said = capsys.readouterr().out
    assert re.fullmatch(
        rf".*own: {COUNT} images are the same as one of another class, so that [^\n]*: "
        r".*copied/0\.png is .*c01/0\.png\n",
        said,
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x1f\x8b\x08\0", r"own.zip: found a file that is no zip \(it is packed with gzip: unpack it\), needed a"),
        (b"PK\x03\x04cut", "own.zip: truncated or damaged zip"),
        (b"", "own.zip: truncated or damaged zip"),
    ],
)
def test_a_file_that_is_no_zip_is_not_called_a_damaged_one(tmp_path, data, said):
    (tmp_path / "own.zip").write_bytes(data)
    with pytest.raises(DataError, match=said):
        imagenet.read(tmp_path / "own.zip", OWN)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_a_zip_has_twice_is_refused(tmp_path):
    with zipfile.ZipFile(zipped(make(tmp_path / "own")), "a") as archive:
        archive.writestr("own/val/c02/1.png", b"another")
    with pytest.raises(DataError, match=r"own\.zip/own/val/c02/1\.png: is in the zip twice"):
        imagenet.read(tmp_path / "own.zip", OWN)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    root = make(tmp_path / "own")
    os.rename(os.fsencode(root / "train/c00"), os.fsencode(root / "train") + b"/caf\xe9")
    with pytest.raises(DataError, match=r"found the name b'caf\\xe9', needed UTF-8"):
        imagenet.read(root, OWN)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    root = make(tmp_path / "own")
    scan = os.scandir

    def forbidden(folder):
        if str(folder).endswith("c01"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DataError, match=r"train/c01: cannot be read \(Permission denied\)"):
        imagenet.read(root, OWN)


def test_one_folder_too_many_at_the_top_is_unpacked_archives(tmp_path):
    make(tmp_path / "outer/own")
    is_right(imagenet.read(tmp_path / "outer", OWN, 6))
    is_right(imagenet.read(zipped(tmp_path / "outer"), OWN, 6))


NAMES = st.one_of(
    st.sampled_from([*LEFT, "0.png", "1.JPG", "x.txt", "y.heic", "deep/2.png", "deep/.DS_Store", "9.tif"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6),
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.dictionaries(NAMES, st.sampled_from([b"", b"GIF89a", None]), max_size=5),
    st.sampled_from(["", "train", "val/c02"]),
)
def test_any_folder_is_read_or_refused_in_one_line(tmp_path_factory, extra, where):
    root = make(tmp_path_factory.mktemp("any") / "own")
    n = 4 * COUNT
    for name, content in extra.items():
        path = root / where / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() or path.exists():
                continue
            path.write_bytes((root / "train/c00/1.png").read_bytes() if content is None else content)
        except OSError:  # no name for this file system
            continue
        kept = listing.is_picture(name) and not any(map(listing.left_by, name.split("/")))
        n += kept and (where == "val/c02" or (where == "train" and "/" in name))  # the latter makes a class
    try:
        found, said = imagenet.read(root, OWN, 6), ""
    except DataError as error:
        found, said = None, str(error)
    if found is None:
        assert re.fullmatch(f"{root}.*", said)
        assert set(extra.values()) & {b"", b"GIF89a"} or where == "train"
    else:
        assert len(found.images) == n
