"""Data in the forms that other programs and sites write: pickles of every protocol, official and Kaggle's archives."""

import bz2
import gzip
import io
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from leapwarp.data import caches, imagenet, images, omniglot, prepare_imagenet, tables
from leapwarp.data.imagenet import KINDS, Kind
from leapwarp.data.store import DataError

OWN = Kind("own", ())
N = 3  # images of a class
NAMES = {"train": ["n02", "n01"], "val": ["n03"], "test": ["n04"]}
PIXELS = {part: np.random.default_rng(len(part)).integers(0, 256, (N * len(names), 8, 8, 3), dtype=np.uint8)
          for part, names in NAMES.items()}  # fmt: skip


def is_right(found, names=("n01", "n02", "n03", "n04")):
    assert found.names == list(names)
    wanted = np.concatenate([PIXELS["train"][N:], PIXELS["train"][:N], PIXELS["val"], PIXELS["test"]])
    assert np.array_equal(found.images.permute(0, 2, 3, 1).numpy(), wanted)


def class_dict(part, of=list):
    return {name: of(range(N * i, N * (i + 1))) for i, name in enumerate(NAMES[part])}


def write(root, name, make, protocol=4):
    """`make(part)` pickled as the file of each part."""
    root.mkdir(exist_ok=True)
    for part in NAMES:
        (root / name.format(part)).write_bytes(pickle.dumps(make(part), protocol=protocol))


# Pickles


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "pixels", [np.asarray, np.asfortranarray, lambda x: x.transpose(0, 3, 1, 2), lambda x: x / 255]
)
def test_caches_of_every_protocol_and_layout_are_read(tmp_path, protocol, pixels):
    made = lambda part: {"image_data": pixels(PIXELS[part]), "class_dict": class_dict(part)}  # noqa: E731
    write(tmp_path / "own", "mini-imagenet-cache-{}.pkl", made, protocol)
    is_right(imagenet.read(tmp_path / "own", OWN, 8))


@pytest.mark.parametrize("of", [list, range, np.array, tuple, set], ids=str)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_rows_of_a_class_may_be_of_any_kind(tmp_path, of, protocol):
    kind = (lambda rows: rows) if of is range else (lambda rows: np.array(list(rows))) if of is np.array else of
    made = lambda part: {b"image_data": PIXELS[part], b"class_dict": class_dict(part, kind)}  # noqa: E731
    write(tmp_path / "own", "mini-imagenet-cache-{}.pkl", made, protocol)
    is_right(imagenet.read(tmp_path / "own", OWN, 8))


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickles_of_numpy_before_and_since_2_are_read(core, protocol):
    data = pickle.dumps({"image_data": PIXELS["val"], "scalar": np.float64(2)}, protocol=protocol)
    for old in (b"numpy.core", b"numpy._core"):
        for length in ("<B", "<I"):  # of short and long texts
            module = {2: b"multiarray", 5: b"numeric"}[protocol]
            for name in {module, b"multiarray"}:
                before, after = old + b"." + name, core + b"." + name
                data = data.replace(struct.pack(length, len(before)) + before, struct.pack(length, len(after)) + after)
                data = data.replace(b"c" + before + b"\n", b"c" + after + b"\n")
    if protocol == 5:  # remove the length of the frame, since the content has changed
        at = data.index(b"\x95")
        data = data[:at] + data[at + 9 :]
    assert core + b"." in data
    assert np.array_equal(caches.unpickle(io.BytesIO(data), "x.pkl")["image_data"], PIXELS["val"])


def test_a_pickle_of_python_2_is_read():
    """In Python 2, text is bytes and sets belong to another module."""
    pixels = PIXELS["val"].tobytes()
    data = b"".join(
        (
            b"\x80\x02}(U\nimage_datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01(",
            b"K" + bytes([N]) + b"K\x08K\x08K\x03tcnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN",
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(pixels)) + pixels,
            b"tbU\nclass_dict}U\x03n03c__builtin__\nset\n](K\x00K\x01K\x02e\x85Rsu.",
        )
    )
    found = caches.unpickle(io.BytesIO(data), "x.pkl")
    assert np.array_equal(found["image_data"], PIXELS["val"]) and found["class_dict"] == {"n03": {0, 1, 2}}


@pytest.mark.parametrize(
    "content", [torch.ones(2), Image.new("L", (2, 2)), io.BytesIO, print, np.random.default_rng(0)]
)
def test_a_pickle_of_anything_else_is_refused(content):
    with pytest.raises(
        DataError, match="x.pkl: damaged, or not a cache of images .it holds .*neither an array nor a plain"
    ):
        caches.unpickle(io.BytesIO(pickle.dumps(content)), "x.pkl")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_that_is_cut_anywhere_is_damaged(protocol):
    data = pickle.dumps({"data": PIXELS["val"][:1, :2, :2], "labels": ["a"]}, protocol=protocol)
    for length in range(len(data)):
        with pytest.raises(DataError, match="^x.pkl: damaged, or not a cache"):
            caches.unpickle(io.BytesIO(data[:length]), "x.pkl")


@pytest.mark.parametrize(
    ("pack", "said"),
    [
        (gzip.compress, "it is packed with gzip: unpack it"),
        (bz2.compress, "it is packed with bzip2: unpack it"),
        (lambda data: b"<html>" + data, "it is a page of a website"),
        (lambda data: b"", "it is empty"),
    ],
)
def test_what_lies_in_the_place_of_a_pickle_is_said(pack, said):
    data = pack(pickle.dumps({"data": [1], "labels": ["a"]}))
    with pytest.raises(DataError, match=f"^x.pkl: damaged, or not a cache of images .*; {said}"):
        caches.unpickle(io.BytesIO(data), "x.pkl")


def labelled(part, as_label=str):
    return [as_label(name) for name in NAMES[part] for _ in range(N)]


@pytest.mark.parametrize(
    "name",
    ["miniImageNet_category_split_{}.pickle", "few-shot-{}.npz", "{}.pkl", "{}.npz", "mini_imagenet_{}.pkl"],
)
@pytest.mark.parametrize("keys", [("data", "labels"), ("images", "labels"), ("features", "targets")])
def test_pixels_with_labels_are_read_under_the_names_they_have(tmp_path, name, keys):
    root = tmp_path / "own"
    if name.endswith(".npz"):
        root.mkdir()
        for part in NAMES:
            more = {"class_names": np.array([{}], dtype=object)}  # an array that is not needed
            np.savez(
                root / name.format(part),
                **dict(zip(keys, (PIXELS[part], np.array(labelled(part))), strict=True)),
                **more,
            )
    else:
        write(root, name, lambda part: dict(zip(keys, (list(PIXELS[part]), labelled(part, str.encode)), strict=True)))
    is_right(imagenet.read(root, OWN, 8))


def test_the_training_part_of_the_published_split_is_that_of_its_training_phase(tmp_path):
    write(
        tmp_path / "own",
        "miniImageNet_category_split_{}.pickle",
        lambda part: {"data": PIXELS[part], "labels": labelled(part)},
    )
    root = tmp_path / "own"
    (root / "miniImageNet_category_split_train.pickle").rename(
        root / "miniImageNet_category_split_train_phase_train.pickle"
    )
    for part in ("val", "test"):  # of the training classes, which are no part of the protocol
        (root / f"miniImageNet_category_split_train_phase_{part}.pickle").write_bytes(b"no pickle")
    is_right(imagenet.read(root, OWN, 8))


@pytest.mark.parametrize("label", [np.int64, np.float32, int])
def test_numbered_labels_are_of_a_part(tmp_path, label):
    numbers = {part: [label(7 - i) for i in range(len(names)) for _ in range(N)] for part, names in NAMES.items()}
    write(tmp_path / "own", "{}.pkl", lambda part: {"images": PIXELS[part], "labels": numbers[part]})
    is_right(imagenet.read(tmp_path / "own", OWN, 8), ("train_006", "train_007", "validation_007", "test_007"))


def test_rows_that_are_not_there_or_there_twice_are_refused(tmp_path):
    for rows, said in (
        ({"n04": [0, 1, 1]}, r"image number 1 is in class n04 and again in n04"),
        ({"n04": [0], "n05": [0]}, r"image number 0 is in class n04 and again in n05"),
        ({"n04": [-1]}, r"image number -1 of class n04 is missing"),
        ({"n04": 3}, r"class n04 has 3, needed numbers of images"),
    ):
        shutil.rmtree(tmp_path / "own", ignore_errors=True)
        write(tmp_path / "own", "{}.pkl", lambda part: {"images": PIXELS[part], "class_dict": class_dict(part)})
        (tmp_path / "own/test.pkl").write_bytes(pickle.dumps({"images": PIXELS["test"], "class_dict": rows}))
        with pytest.raises(DataError, match=f"test.pkl: {said}"):
            imagenet.read(tmp_path / "own", OWN)


def test_a_part_that_is_missing_is_named_and_other_files_beside_folders_are_not_in_the_way(tmp_path):
    write(tmp_path / "own", "mini-imagenet-cache-{}.pkl", lambda part: {"image_data": PIXELS[part], "class_dict": {}})
    (tmp_path / "own/mini-imagenet-cache-val.pkl").unlink()
    with pytest.raises(
        DataError, match=r"cache-train.pkl and .*cache-test.pkl and no mini-imagenet-cache-val.pkl, needed"
    ):
        imagenet.read(tmp_path / "own", OWN)
    for part, names in NAMES.items():
        for i, name in enumerate(names):
            (tmp_path / "own" / part / name).mkdir(parents=True)
            for n in range(N):
                Image.fromarray(PIXELS[part][N * i + n]).save(tmp_path / "own" / part / name / f"{n}.png")
    is_right(imagenet.read(tmp_path / "own", OWN, 8))


# CSV


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_files_of_spreadsheets_are_read(tmp_path, coding, separator, end):
    root = tmp_path / "own"
    (root / "images").mkdir(parents=True)
    for part, names in NAMES.items():
        lines = [separator.join(("Filename", "label"))]
        for row, pixels in enumerate(PIXELS[part]):
            Image.fromarray(pixels).save(root / "images" / f"{part}{row}.png")
            lines.append(separator.join((f"./{part}{row}.png", names[row // N])))
        lines = [f"sep={separator}", *lines] if end == "\r\n" else lines  # a line of Excel's own
        (root / f"{part}.csv").write_bytes(end.join([*lines, ""]).encode(coding))
    is_right(imagenet.read(root, OWN, 8))
    (root / "val.csv").write_bytes(b"filename,label\nval0.png,n03\nval0.png,n03\n")
    with pytest.raises(DataError, match=r"val.csv: names images/val0.png of class n03 twice"):
        imagenet.read(root, OWN, 8)


# The official Tiny-ImageNet


def official_tiny(root, n_train=2, n_val=1):
    """The layout of tiny-imagenet-200: the colour of an image tells class and number."""
    names = [f"n{7 * i:08d}" for i in range(200)]
    annotations = []
    for part in ("val", "test"):
        (root / part / "images").mkdir(parents=True)
    picture = lambda i, n: Image.new("RGB", (64, 64), (i, n, 9))  # noqa: E731
    for i, name in enumerate(names):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("0\t0\t62\t62")
        for n in range(n_train):
            picture(i, n).save(root / "train" / name / "images" / f"{name}_{n}.JPEG", "PNG")
        for n in range(n_val):
            annotations.append(f"val_{len(annotations)}.JPEG\t{name}\t0\t0\t62\t62")
            picture(i, 100 + n).save(root / "val/images" / f"val_{len(annotations) - 1}.JPEG", "PNG")
    picture(0, 0).save(root / "test/images/test_0.JPEG", "PNG")
    (root / "val/val_annotations.txt").write_text("\n".join([*annotations, ""]))
    (root / "wnids.txt").write_text("\n".join(names))
    return names


def test_the_official_tiny_imagenet_is_split_by_class_and_has_a_name_of_its_own(tmp_path, capsys, monkeypatch):
    names = official_tiny(tmp_path / "tiny-imagenet-200")
    found, _, taken = prepare_imagenet.prepare("mini", "auto", str(tmp_path))
    assert found.source == "tiny-imagenet-200-subset" and "tiny-imagenet-200-subset from" in taken
    assert [len(found.split[part]) for part in ("train", "validation", "test")] == [128, 32, 40]
    assert (
        found.names[:17] == [*names[:16], names[25]] and found.names[128] == names[16] and found.names[-1] == names[199]
    )
    for index in (0, 16, 199):
        i = names.index(found.names[index])
        assert found.images[list(found.rows(index)), :, 0, 0].tolist() == [[i, 0, 9], [i, 1, 9], [i, 100, 9]]
    assert "200 '.txt', 1 'images of test/, which have no labels'" in capsys.readouterr().out
    monkeypatch.setattr(imagenet, "OFFICIAL_TINY", (2, 1))
    assert imagenet.read(tmp_path / "tiny-imagenet-200", KINDS["tiny"]).source == "tiny-imagenet-200"


def test_the_official_tiny_imagenet_with_val_sorted_into_folders_or_damaged(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    official_tiny(root)
    whole = imagenet.read(root, KINDS["tiny"])
    annotations = (root / "val/val_annotations.txt").read_text()
    for line in annotations.splitlines():
        file, name = line.split("\t")[:2]
        (root / "val" / name).mkdir()
        (root / "val/images" / file).rename(root / "val" / name / file)
    (root / "val/images").rmdir()
    assert imagenet.read(root, KINDS["tiny"]).checksum == whole.checksum
    (root / "val/val_annotations.txt").unlink()
    assert imagenet.read(root, KINDS["tiny"]).checksum == whole.checksum
    (root / "val/val_annotations.txt").write_text(annotations + "val_999.JPEG\tn00000000\t0\t0\t1\t1\n")
    with pytest.raises(DataError, match="val_annotations.txt: names 'val_999.JPEG' of class 'n00000000', needed"):
        imagenet.read(root, KINDS["tiny"])


# Where sets lie and what they are called


@pytest.mark.parametrize(
    "name", ["mini-imagenet", "miniImageNet", "MiniImagenet", "mini_imagenet.zip", "Mini-ImageNet"]
)
def test_a_set_is_found_under_the_names_people_give_it(tmp_path, name):
    (tmp_path / name).mkdir()
    assert imagenet.find(tmp_path, KINDS["mini"]) == tmp_path / name
    assert imagenet.find(tmp_path, KINDS["tiered"]) is None


def test_what_is_there_but_cannot_be_read_is_not_taken_for_missing(tmp_path):
    (tmp_path / "mini-imagenet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="mini-imagenet: cannot be read"):
        prepare_imagenet.prepare("mini", "auto", str(tmp_path))
    (tmp_path / "mini-imagenet").unlink()
    (tmp_path / "miniImageNet.tar.gz").write_bytes(b"")
    with pytest.raises(
        DataError, match="miniImageNet.tar.gz: found an archive that is not read, needed a folder or a .zip"
    ):
        prepare_imagenet.prepare("mini", "auto", str(tmp_path))
    (tmp_path / "mnist.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="mnist.npz: cannot be read"):
        images.find("mnist", tmp_path, lambda name: {})


def test_a_data_source_is_called_as_its_folder_really_is(tmp_path, monkeypatch):
    for name in ("birds.v1", "birds.v2", "鳥の写真"):
        write(tmp_path / name, "{}.pkl", lambda part: {"images": PIXELS[part], "labels": labelled(part)})
        assert prepare_imagenet.prepare("mini", str(tmp_path / name), None)[0].source == name
    monkeypatch.chdir(tmp_path / "birds.v1")
    for given in (".", "./", "../birds.v1", "../birds.v2/../birds.v1/."):
        assert prepare_imagenet.prepare("mini", given, None)[0].source == "birds.v1"
    for given, said in (
        ("/", "rows would call the data ''"),
        ("bad\nname", "rows would call the data 'bad"),
        ("Glyphs", "as other data are called"),
    ):
        if given != "/":
            (tmp_path / given).mkdir()
        with pytest.raises(DataError, match=said):
            prepare_imagenet.prepare("mini", str(tmp_path / given), None)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "bad\nname"])
def test_names_of_sets_are_names(tmp_path, name):
    with pytest.raises(DataError, match="is no name of a set"):
        images.find(name, tmp_path, lambda name: {})


# Omniglot, notMNIST, GTSRB


def omniglot_files(root, monkeypatch):
    monkeypatch.setattr(omniglot, "ALPHABETS", 2)
    monkeypatch.setattr(omniglot, "CHARACTERS", 2)
    for number, (part, alphabet) in enumerate(zip(omniglot.PARTS, ("Greek", "Tagalog"), strict=True), 1):
        folder = root / part / alphabet / "character01"
        folder.mkdir(parents=True)
        for drawing in range(1, 21):
            image = Image.new("1", (105, 105), 1)
            image.paste(0, (5 * number, 2 * drawing, 60, 80))
            image.save(folder / f"{number:04d}_{drawing:02d}.png")


def test_kaggles_omniglot_and_a_git_clone_of_it_are_found_and_the_same(tmp_path, monkeypatch):
    omniglot_files(tmp_path / "plain/omniglot-py", monkeypatch)
    wanted = omniglot.read(tmp_path / "plain/omniglot-py").checksum
    for part in omniglot.PARTS:
        source = tmp_path / "plain/omniglot-py" / part
        shutil.copytree(source, tmp_path / "kaggle" / part / part)
        for top in (part, ""):  # in the clone, and zipped without the folder at the top
            path = tmp_path / ("clone" if top else "bare") / "omniglot/python" / f"{part}.zip"
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted(source.rglob("*.png")):
                    archive.write(file, f"{top}/{file.relative_to(source)}".removeprefix("/"))
                archive.writestr(f"__MACOSX/{part}/Greek/character01/._0001_01.png", b"x")
    for name, where in (("kaggle", ""), ("clone", "omniglot/python"), ("bare", "omniglot/python")):
        root = omniglot.find(tmp_path / name)
        assert root == tmp_path / name / where and omniglot.read(root).checksum == wanted


def notmnist(root, n=11):
    """Ten letters with n images each, and the two empty files of the published set."""
    for i, letter in enumerate("ABCDEFGHIJ"):
        (root / letter).mkdir(parents=True)
        for number in range(n):
            Image.new("L", (28, 28), 20 * i + number).save(root / letter / f"{number:02d}.png")
    (root / "A/RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png").write_bytes(b"")
    (root / "F/Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png").write_bytes(b"")


@pytest.mark.parametrize("where", ["notmnist", "notMNIST_small", "notmnist/notMNIST_small"])
def test_notmnist_as_published_counts_as_whole_in_our_own_split(tmp_path, monkeypatch, capsys, where):
    notmnist(tmp_path / where)
    found = images.find("notmnist", tmp_path, lambda name: {})
    assert (len(found.train_labels), len(found.test_labels)) == (100, 10)
    assert found.test_images[:, 0, 16, 16].tolist() == [20 * i + 9 for i in range(10)]
    assert ", a subset: 10 classes with 100 + 10 images" in found.origin
    said = capsys.readouterr().out
    assert said.count("(empty, as two files of notMNIST are published)") == 2 and said.count("\n") == 1
    monkeypatch.setattr(images, "NOTMNIST", 110)
    found = images.find("notmnist", tmp_path, lambda name: {})
    assert ", whole, in our own split: 10 classes with 100 + 10" in found.origin and "subset" not in found.origin
    (tmp_path / where / "C/00.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.png: truncated or damaged PNG of 0 bytes"):
        images.find("notmnist", tmp_path, lambda name: {})


SIGNS = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")


def gtsrb(root, train, test, table, digits=5, kind="ppm", separator=";", column="Filename"):
    """Three classes; the test images are flat, and their order is not that of their classes."""
    for label in range(3):
        folder = root / train / f"{label:0{digits}d}"
        folder.mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (20, 20), (label, number, 0)).save(folder / f"{label:05d}_{number:05d}.{kind}")
        (folder / f"GT-{label:05d}.csv").write_text(separator.join(SIGNS))
    (root / test).mkdir(parents=True)
    lines = [separator.join((*SIGNS[1:], column))]
    for number, label in enumerate((2, 0, 1, 0)):
        Image.new("RGB", (20, 20), (label, 100 + number, 0)).save(root / test / f"{number:05d}.{kind}")
        path = f"{test}/{number:05d}.{kind}" if column == "Path" else f"{number:05d}.{kind}"
        lines.append(separator.join(("20", "20", "5", "5", "15", "15", str(label), path)))
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("\n".join([*lines, ""]))


LAYOUTS = {
    "official": ("GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images", "GTSRB/Final_Test/Images/GT-final_test.csv"),
    "torchvision": ("GTSRB/Training", "GTSRB/Final_Test/Images", "GT-final_test.csv"),
    "kaggle": ("Train", "Test", "Test.csv", 1, "png", ",", "Path"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["traffic-signs", "GTSRB"])
def test_gtsrb_is_read_with_the_labels_of_its_own_csv(tmp_path, layout, name):
    gtsrb(tmp_path / name, *LAYOUTS[layout])
    found = images.find("traffic-signs", tmp_path, lambda name: {})
    assert found.classes == 3 and found.train_labels.tolist() == sorted([0, 1, 2] * 4)
    assert found.train_images[:, :2, 16, 16].tolist() == [[label, n] for label in range(3) for n in range(4)]
    assert found.test_labels.tolist() == [0, 0, 1, 2]
    assert found.test_images[:, :2, 16, 16].tolist() == [[0, 101], [0, 103], [1, 102], [2, 100]]


def test_gtsrb_without_its_test_labels_or_with_an_image_missing_is_refused(tmp_path):
    gtsrb(tmp_path / "GTSRB", *LAYOUTS["official"])
    table = tmp_path / "GTSRB" / LAYOUTS["official"][2]
    (table.parent / "00002.ppm").unlink()
    with pytest.raises(DataError, match=r"GT-final_test.csv: names '00002.ppm' of class '1', needed an image"):
        images.find("traffic-signs", tmp_path, lambda name: {})
    table.unlink()
    with pytest.raises(DataError, match="found the test images of GTSRB and no GT-final_test.csv"):
        images.find("traffic-signs", tmp_path, lambda name: {})


def test_the_training_images_of_gtsrbs_own_archive_are_whole():
    assert images._whole("traffic-signs", 43, (39_209, 12_630)) and not images._whole(
        "traffic-signs", 43, (39_208, 12_630)
    )


def test_one_part_of_a_folder_of_images_is_not_a_class(tmp_path):
    notmnist(tmp_path / "mine/train")
    with pytest.raises(DataError, match="mine/train: found no folder for the other part beside it"):
        images.find("mine", tmp_path, lambda name: {})


@pytest.mark.parametrize("dtype", ["u1", "f8", "<u2"])
@pytest.mark.parametrize("keys", ["{}_images {}_labels", "x_{} y_{}"])
def test_arrays_of_keras_and_of_other_dtypes_are_read(tmp_path, dtype, keys):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), dtype=np.uint8)
    scaled = {"u1": pixels, "f8": pixels / 255, "<u2": pixels.astype("<u2") * 257}[dtype]
    arrays = {}
    for part in images.PARTS:
        names = keys.format(part, part).split()
        arrays |= {names[0]: scaled, names[1]: (np.arange(20)[:, None] % 3).astype(dtype)}
    np.savez(tmp_path / "mine.npz", **arrays)
    found = images.find("mine", tmp_path, lambda name: {})
    assert np.array_equal(found.train_images[:, :, 2:-2, 2:-2].numpy(), pixels)
    assert found.train_labels.tolist() == [i % 3 for i in range(20)]


def test_an_archive_of_arrays_that_is_something_else_says_what(tmp_path):
    objects = np.empty(2, dtype=object)
    np.savez(tmp_path / "mine.npz", train_images=objects, train_labels=[0, 1], test_images=objects, test_labels=[0, 1])
    with pytest.raises(DataError, match=r"mine.npz: holds arrays of objects"):
        images.find("mine", tmp_path, lambda name: {})
    for data, said in ((b"<html>", "it is a page of a website"), (b"", "it is empty"), (pickle.dumps({}), "it begins")):
        (tmp_path / "mine.npz").write_bytes(data)  # numpy's own message would advise to allow pickles
        with pytest.raises(DataError, match=rf"mine.npz: damaged, or no .npz \({said}"):
            images.find("mine", tmp_path, lambda name: {})
    np.savez(tmp_path / "mine.npz", data=[1], labels=[0])
    with pytest.raises(DataError, match="lacks the arrays train_images, .*; found data, labels"):
        images.find("mine", tmp_path, lambda name: {})


def test_a_table_has_its_rows_by_the_names_of_its_header():
    assert tables.read("\ufeffA; b \n1;2\n".encode(), "x.csv") == [{"a": "1", "b": "2"}]
    assert tables.read(b"", "x.csv") == []
    with pytest.raises(DataError, match="x.csv: is no CSV"):
        tables.read(b"\xff\xfe\xff", "x.csv")
