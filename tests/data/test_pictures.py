"""Pictures of every mode, dtype, range and shape as 8 bits, or one error that names the file."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from leapwarp.data import pictures
from leapwarp.data.store import DataError


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def decoded(data, mode=None):
    return np.asarray(pictures.decode(data, "set/c/0.png", mode))


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_16_bits_are_scaled():
    values = RAMP.astype(np.uint16) * 257
    assert np.array_equal(decoded(encoded(Image.fromarray(values))), RAMP)
    assert np.array_equal(decoded(encoded(Image.fromarray(values), "TIFF")), RAMP)
    assert np.array_equal(decoded(encoded(Image.fromarray(values.astype(">u2")), "TIFF")), RAMP)
    colours = decoded(encoded(Image.fromarray(values)), "RGB")
    assert np.array_equal(colours, np.repeat(RAMP[..., None], 3, 2))


def test_the_bits_of_a_tiff_and_what_its_white_is_are_heeded():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    inverted = encoded(Image.fromarray((255 - RAMP).astype(np.uint16) * 257), "TIFF", tiffinfo=tags)
    assert Image.open(io.BytesIO(inverted)).tag_v2[262] == 0
    assert np.array_equal(decoded(inverted), RAMP)


def test_8_bits_in_a_file_of_16_are_refused():
    with pytest.raises(
        DataError, match=r"set/c/0\.png: found a picture of mode I;16 with values from 0 to 255, needed"
    ):
        decoded(encoded(Image.fromarray(RAMP.astype(np.uint16))))
    assert not decoded(encoded(Image.new("I;16", (2, 2)))).any()  # an all-black image is not ambiguous


def test_12_bits_in_16_are_refused_as_they_would_be_black():
    """Cameras write such files. Scaled as 16 bits, their white would be 16 of 255."""
    values = RAMP.astype(np.uint16) * 16
    with pytest.raises(DataError, match=r"set/c/0\.png: .* I;16 with values from 0 to 4080, needed .* 12 bits in a"):
        decoded(encoded(Image.fromarray(values)))
    with pytest.raises(DataError, match=r"set.npz: found pictures of uint16 with values from 0 to 4080, needed"):
        pictures.stack(values[None], "set.npz")


def png_of_16_bits(values, kind):
    """A PNG of 16 bits a channel, which Pillow cannot write: kind 2 is RGB, 4 grey with alpha, 6 RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("kind", [2, 4, 6, "PPM"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_colours_of_16_bits_are_scaled_and_12_bits_in_16_refused(kind, bits):
    channels = {2: 3, 4: 2, 6: 4, "PPM": 3}[kind]
    values = np.full((*RAMP.shape, channels), 65535, np.uint16)  # alpha, if any, has all 16 bits
    colours = 3 if channels >= 3 else 1
    values[..., :colours] = (RAMP.astype(np.uint32) * (2**bits - 1) // 255)[..., None]
    if kind == "PPM":
        data = f"P6 {RAMP.shape[1]} {RAMP.shape[0]} 65535\n".encode() + values.astype(">u2").tobytes()
    else:
        data = png_of_16_bits(values, kind)
    if bits < 16:
        with pytest.raises(DataError, match=r"set/c/0\.png: .* 16 bits a channel whose largest value .* nearly black"):
            decoded(data)
    else:
        assert np.array_equal(decoded(data)[..., 0], RAMP)  # Pillow opens grey with alpha as RGBA


def test_fractions_are_scaled_and_others_refused():
    assert np.array_equal(decoded(encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF")), RAMP)
    for values in (RAMP.astype(np.float32), RAMP.astype(np.float32) / 255 - 0.5, np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(DataError, match=r"set/c/0\.png: found a picture of mode F with values from .* fractions"):
            decoded(encoded(Image.fromarray(values), "TIFF"))


def test_whole_numbers_of_32_bits_are_taken_from_0_to_255_only():
    assert np.array_equal(decoded(encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF")), RAMP)
    for values in (RAMP.astype(np.int32) - 1, RAMP.astype(np.int32) + 1):
        with pytest.raises(DataError, match=r"set/c/0\.png: found a picture of mode I with values from"):
            decoded(encoded(Image.fromarray(values), "TIFF"))


def test_what_is_transparent_lies_on_white():
    ink = np.zeros((2, 2, 4), np.uint8)
    ink[0, 0, 3] = 255  # black ink at one place, transparent black around it
    wanted = np.array([[0, 255], [255, 255]])
    assert np.array_equal(decoded(encoded(Image.fromarray(ink)))[..., 0], wanted)
    assert np.array_equal(decoded(encoded(Image.fromarray(ink[..., 2:]))), wanted)  # LA
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putpixel((0, 0), 0)
    assert np.array_equal(decoded(encoded(palette, transparency=1))[..., 0], wanted)
    assert np.array_equal(decoded(encoded(palette))[..., 0], [[0, 9], [9, 9]])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"])
def test_other_modes_are_as_pillow_converts_them(mode):
    kinds = {"CMYK": "TIFF", "YCbCr": "TIFF", "LAB": "TIFF", "HSV": None}
    image = Image.new("RGB", (8, 8), (200, 30, 90)).convert("L" if mode == "LAB" else mode)
    image = Image.frombytes("LAB", (8, 8), bytes([120, 20, 30] * 64)) if mode == "LAB" else image
    kind = kinds.get(mode, "PNG")
    found = pictures.decode(encoded(image, kind), "x") if kind else pictures.convert(image, "x")
    wanted = image.convert("L" if mode in ("1", "L") else "RGB")
    assert found.mode == wanted.mode and np.array_equal(np.asarray(found), np.asarray(wanted))
    assert pictures.convert(image, "x", "L").mode == "L"


def test_a_picture_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    image = Image.fromarray(np.repeat(RAMP[:8, :, None], 3, 2))
    found = decoded(encoded(image, exif=exif))
    assert np.array_equal(found, np.rot90(np.asarray(image), -1))


def test_of_several_frames_the_first_is_taken_and_counted():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    notes = pictures.Counter()
    for kind in ("GIF", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert (np.asarray(pictures.decode(data, "x", "L", notes)) == 10).all()
    assert notes == {pictures.FIRST_FRAME: 2}


def test_a_huge_picture_is_one_line_with_its_name(monkeypatch):
    data = encoded(Image.new("1", (13_500, 13_500)))  # 182 megapixels in 22 kB
    with pytest.raises(DataError, match=r"set/c/0\.png: Image size \(182250000 pixels\) exceeds limit"):
        decoded(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)  # from here to twice as many, Pillow only warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(encoded(Image.new("L", (4, 4), 3))).max() == 3


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "it is a page of a website: download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS: git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it is HEIC, which is not read: save it as PNG or JPEG"),
        (b"%!PS-Adobe", "it begins with b'%!PS-Adobe'"),
    ],
)
def test_what_is_no_picture_is_said_with_its_name(data, said):
    with pytest.raises(DataError, match=r"set/c/0\.png: truncated or damaged PNG of \d+ bytes") as caught:
        decoded(data)
    assert str(caught.value).endswith(f"bytes ({said}).")
    with pytest.raises(DataError, match=r"x\.pkl, image number 3: truncated or damaged picture of"):
        pictures.decode(data, "x.pkl, image number 3")


ARRAY = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "given",
    [
        ARRAY,
        ARRAY.transpose(0, 3, 1, 2),
        ARRAY.astype(np.int64),
        ARRAY.astype(np.uint16),
        ARRAY.astype(np.uint16) * 257,
        ARRAY / 255,
        (ARRAY / 255).astype(np.float32),
        np.asfortranarray(ARRAY),
        ARRAY.astype(">i4"),
        np.concatenate([ARRAY, np.full((3, 6, 5, 1), 255, np.uint8)], 3),
    ],
    ids=["NHWC", "NCHW", "int64", "uint16 of 8 bits", "uint16", "float64", "float32", "F order", "big-endian", "RGBA"],
)
def test_arrays_of_every_layout_dtype_and_range_are_the_same_pictures(given):
    assert np.array_equal(pictures.stack(given, "set.npz"), ARRAY)
    one = pictures.rows(list(given), "x.pkl")
    assert np.array_equal(np.asarray(pictures.picture(one(2), "x.pkl")), ARRAY[2])


def test_grey_arrays_have_one_channel():
    assert np.array_equal(pictures.stack(ARRAY[..., 0], "x"), ARRAY[..., :1])
    assert np.array_equal(pictures.stack(ARRAY[..., 0] > 99, "x"), (ARRAY[..., :1] > 99) * 255)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (ARRAY.astype(np.float32), "float32 with values from 0.0 to 255.0"),
        (ARRAY / 127.5 - 1, "float64 with values from -1.0 to 1.0"),
        (np.where(ARRAY == 7, np.nan, ARRAY / 255), "float64 with values from nan to nan"),
        (np.where(ARRAY == 7, np.inf, ARRAY / 255), "float64 with values from 0.0 to inf"),
        (ARRAY.astype(np.int16) - 128, "int16 with values from -128 to 127"),
        (ARRAY.astype(np.int32) * 257, "int32 with values from 0 to 65535"),
        (ARRAY // 128, "which would all be black"),
        (ARRAY.astype(complex), "complex128"),
        (ARRAY.reshape(3, 90), r"uint8 \[3, 90\], needed pictures"),
        (ARRAY.reshape(3, 5, 6, 3)[..., [0, 1, 2, 0, 1]], "found a picture of shape"),
    ],
)
def test_arrays_that_could_mean_anything_are_refused(given, said):
    with pytest.raises(DataError, match=f"^set.npz: .*{said}"):
        pictures.stack(given, "set.npz")


def test_encoded_pictures_of_a_list_are_read_however_they_are_packed():
    data = encoded(Image.fromarray(ARRAY[0]))
    flat = np.frombuffer(data, np.uint8)
    for item in (data, bytearray(data), data.decode("latin1"), flat, flat[:, None], flat[None]):
        one = pictures.rows([item], "x.pkl")
        assert np.array_equal(np.asarray(pictures.picture(one(0), "x.pkl")), ARRAY[0])


# Any input is read as the right image, or gives an error of one line that names it.


def tried(make):
    """The result of `make` and None, or None and the line of the error."""
    try:
        return make(), ""
    except DataError as error:
        return None, str(error)


DTYPES = ["?", "u1", "i1", "<u2", ">u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8"]


def meant(array):
    """The array in 8 bits, by the table of `pictures`, or None if it is ambiguous."""
    low, high = (array.min(), array.max()) if array.dtype.kind != "c" else (-1, -1)
    if array.dtype.kind == "b":
        return np.where(array, 255, 0)
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2 and high > 4095:
        return np.floor(array / 257 + 0.5)
    return np.rint(array.astype(np.float32) * 255) if array.dtype.kind == "f" and low >= 0 and high <= 1 else None


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    st.sampled_from(DTYPES), st.sampled_from([0.004, 1, 255, 257, 65_535, 1e9]), st.integers(-1, 0), st.integers(0, 99)
)
def test_any_array_is_the_right_picture_or_one_line(dtype, high, low, seed):
    drawn = np.random.default_rng(seed).uniform(low * high, high, (2, 4, 3, 3))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = drawn.astype(dtype)
    found, said = tried(lambda: pictures.stack(array, "set.npz"))
    if found is None:
        assert re.fullmatch("set.npz: .*", said)
        assert meant(array) is None or (array.dtype.kind in "iu" and array.max() == 1)
    else:
        assert found.dtype == np.uint8 and np.array_equal(found, meant(array))


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.sampled_from(MODES), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"]), st.data())
def test_any_file_is_a_picture_or_one_line(mode, kind, data):
    values = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (12, 12), values.tobytes())
    else:
        image = Image.fromarray(values).convert(mode)
    try:
        content = bytearray(encoded(image, kind))
    except (OSError, ValueError, KeyError):  # this kind of file has no such mode
        return
    whole = bytes(content)
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    elif data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    found, said = tried(lambda: pictures.decode(bytes(content), "set/c/0.png", "RGB"))
    if found is None:
        assert re.fullmatch(r"set/c/0\.png: .*", said)
        assert content != whole or mode in ("F", "I")  # 0 to 255 in place of 0 to 1, and in a file of 16 bits
    else:
        assert found.mode == "RGB"
        assert content != whole or found.size == (12, 12)
