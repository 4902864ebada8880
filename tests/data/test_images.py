"""MNIST: the right bits from a folder, the cache or a mirror; a broken file is refused. No network."""

import builtins
import functools
import gzip
import hashlib
import http.server
import os
import re
import struct
import threading
from pathlib import Path

import numpy
import pytest
import torch

from liouville.data import images, load

NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
SHAPES = {"x_train": (6, 28, 28), "y_train": (6,), "x_test": (4, 28, 28), "y_test": (4,)}


# --- the real files ---


@pytest.fixture(scope="module")
def mnist():
    folder = os.environ.get("LIOUVILLE_DATA")
    if not folder or not any(Path(folder).glob("**/train-images-idx3-ubyte*")):
        pytest.skip("LIOUVILLE_DATA does not name a folder with the MNIST files")
    return load("mnist", train=2000, normalise=False, dtype=torch.float32)


def test_mnist_has_its_known_first_labels_and_counts(mnist):
    assert mnist.x_train.shape == (2000, 1, 28, 28) and mnist.x_test.shape == (10000, 1, 28, 28)
    assert mnist.classes == 10 and mnist.y_train.dtype == torch.int64
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert mnist.y_test.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_grey_values_are_scaled_to_1(mnist):
    assert mnist.x_train.min() == 0 and mnist.x_train.max() == 1
    assert mnist.x_train.mean().item() == pytest.approx(0.1307, abs=0.005)
    assert mnist.x_train.std().item() == pytest.approx(0.3081, abs=0.005)


# --- the same laws on a tiny set of files ---


def array_of(part):
    generator = torch.Generator().manual_seed(len(part) + SHAPES[part][0])
    if part.startswith("x"):
        return torch.randint(0, 256, SHAPES[part], generator=generator, dtype=torch.uint8)
    return (torch.arange(SHAPES[part][0]) % 10).to(torch.uint8)


def idx(part):
    shape = SHAPES[part]
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + array_of(part).numpy().tobytes()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Four tiny files stand for MNIST; they lie in tmp_path/mirror; no cache, no variable, no network."""
    files = {
        part: images._IdxFile(
            NAMES[part], hashlib.md5(idx(part)).hexdigest(), SHAPES[part], float(array_of(part).double().mean())
        )
        for part in NAMES
    }
    monkeypatch.setattr(images, "_FILES", files)
    monkeypatch.delenv("LIOUVILLE_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(images, "_retrieve", unplugged)
    write(tmp_path / "mirror")
    return tmp_path


def unplugged(url, path, pooch):
    raise ConnectionError(url)


def write(folder, zipped=True, parts=tuple(NAMES)):
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        ending, data = (".gz", gzip.compress(idx(part))) if zipped else ("", idx(part))
        (folder / (NAMES[part] + ending)).write_bytes(data)
    return folder


def correct(split):
    grey = array_of("x_train").unsqueeze(1) / 255
    return torch.equal(split.y_test, array_of("y_test").long()) and torch.allclose(
        split.x_train, (grey - 0.1307) / 0.3081, atol=1e-6
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["here", "here/mnist"])
def test_files_are_read_from_root_or_its_subfolder_zipped_or_not(tiny, place, zipped):
    write(tiny / place, zipped)
    assert correct(load("mnist", root=tiny / "here"))
    assert correct(load("mnist", root=str(tiny / "here")))


def test_the_variable_names_the_folder_and_root_goes_before_it(tiny, monkeypatch):
    monkeypatch.setenv("LIOUVILLE_DATA", str(tiny / "mirror"))
    assert correct(load("mnist"))
    monkeypatch.setenv("LIOUVILLE_DATA", str(tiny / "nowhere"))
    assert correct(load("mnist", root=tiny / "mirror"))
    with pytest.raises(FileNotFoundError) as caught:
        load("mnist")
    assert str(caught.value) == (
        f"LIOUVILLE_DATA names {tiny / 'nowhere'}, which is not a folder; correct it, or leave it out."
    )
    with pytest.raises(FileNotFoundError, match=r"^root names .*gone, which is not a folder"):
        load("mnist", root=tiny / "gone")


def test_first_points_normalisation_and_dtype_are_options(tiny):
    split = load("mnist", root=tiny / "mirror", train=3, test=2, normalise=False, dtype=torch.float64)
    assert (len(split.x_train), len(split.x_test)) == (3, 2) and split.x_train.dtype == torch.float64
    assert torch.equal(split.x_train, array_of("x_train")[:3].unsqueeze(1).double() / 255)
    assert split.y_train.tolist() == [0, 1, 2]
    for options, message in (
        ({"train": 0}, "train must be a whole number from 1 to 6, got 0."),
        ({"test": 5}, "test must be a whole number from 1 to 4, got 5."),
    ):
        with pytest.raises(ValueError) as caught:
            load("mnist", root=tiny / "mirror", **options)
        assert str(caught.value) == message


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


ADVICE = "; delete it, and it is downloaded again, or put a good copy in its place."


@pytest.mark.parametrize(
    ("spoil", "ending", "message"),
    [
        (
            lambda d: gzip.compress(d)[:-500],
            ".gz",
            "is truncated or corrupted: its gzip data does not unpack (",
        ),
        (
            lambda d: flipped(gzip.compress(d), 200),
            ".gz",
            "is truncated or corrupted: its gzip data does not unpack (",
        ),
        (lambda d: d[:-1], "", f"is truncated: {6 * 784 + 15} bytes uncompressed, expected {6 * 784 + 16}"),
        (lambda d: gzip.compress(d[:-1]), ".gz", "is truncated: "),
        (lambda d: d + b"\0", "", f"is too long: {6 * 784 + 17} bytes uncompressed, expected {6 * 784 + 16}"),
        (lambda d: flipped(d, 1000), "", "is corrupted: the MD5 sum of its uncompressed bytes is "),
        (
            lambda d: gzip.compress(flipped(d, 1000)),
            ".gz",
            "is corrupted: the MD5 sum of its uncompressed bytes is ",
        ),
        (
            lambda d: flipped(d, 3),
            "",
            "is not MNIST's train-images-idx3-ubyte: it does not start with that file's IDX header",
        ),
        (lambda d: flipped(d, 7), "", "is not MNIST's train-images-idx3-ubyte: "),
        (lambda d: b"<html>404 not found</html>", ".gz", "is not MNIST's train-images-idx3-ubyte: "),
        (lambda d: b"", ".gz", "is not MNIST's train-images-idx3-ubyte: "),
        (lambda d: d[:7], "", "is truncated: 7 bytes uncompressed"),
    ],
)
def test_a_broken_file_is_refused_and_named(tiny, spoil, ending, message):
    folder = write(tiny / "here", parts=("y_train", "x_test", "y_test"))
    path = folder / (NAMES["x_train"] + ending)
    path.write_bytes(spoil(idx("x_train")))
    with pytest.raises(ValueError) as caught:
        load("mnist", root=folder)
    assert str(caught.value).startswith(f"{path} {message}") and str(caught.value).endswith(ADVICE)
    assert path.exists()


def other(part):
    """A sound file of the same shape with other bytes, as Fashion-MNIST's are."""
    return idx(part)[: -array_of(part).numel()] + (255 - array_of(part)).numpy().tobytes()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", NAMES)
def test_a_sound_file_of_another_data_set_is_called_that_and_is_not_to_be_deleted(tiny, part, zipped):
    folder = write(tiny / "here", zipped)
    path = folder / (NAMES[part] + ".gz" * zipped)
    strangers = {
        "is a sound IDX file, but not MNIST's (its MD5 sum is ": other(part),
        f"is not MNIST's {NAMES[part]}: it is an IDX file of 3 x 5 bytes, not ": bytes(
            (0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 5)
        )
        + bytes(15),
    }
    for message, content in strangers.items():
        path.write_bytes(gzip.compress(content) if zipped else content)
        with pytest.raises(ValueError) as caught:
            load("mnist", root=folder)
        assert str(caught.value).startswith(f"{path} {message}")
        assert "move or rename it" in str(caught.value) and "delete" not in str(caught.value)


PLACES = ("mnist", "MNIST", "raw", "MNIST/raw", "mnist/raw", ".")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_names_and_folders_of_other_programs_are_known(tiny, place, zipped):
    write(tiny / "here" / place, zipped)
    for path in (tiny / "here" / place).iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert correct(load("mnist", root=tiny / "here"))


@pytest.mark.parametrize("place", PLACES)
def test_the_archive_of_keras_is_read(tiny, place):
    folder = tiny / "here" / place
    folder.mkdir(parents=True)
    numpy.savez(folder / "mnist.npz", **{part: array_of(part).numpy() for part in NAMES})
    assert correct(load("mnist", root=tiny / "here"))
    numpy.savez(folder / "mnist.npz", **{part: array_of(part).numpy()[::-1] for part in NAMES})
    with pytest.raises(ValueError, match=r"mnist.npz is corrupted"):
        load("mnist", root=tiny / "here")
    (folder / "mnist.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"mnist.npz has no array x_train that can be read"):
        load("mnist", root=tiny / "here")


def test_a_folder_for_each_file_is_read(tiny):
    write(tiny / "flat", zipped=False)
    for name in NAMES.values():
        (tiny / "here" / name).mkdir(parents=True)
        (tiny / "flat" / name).rename(tiny / "here" / name / name)
    assert correct(load("mnist", root=tiny / "here"))


@pytest.mark.parametrize("broken", [b"<html>", b"", other("x_train"), gzip.compress(idx("x_train"))[:-9]])
def test_a_sound_copy_is_used_where_another_is_broken(tiny, broken):
    write(tiny / "here", zipped=False)
    (tiny / "here" / (NAMES["x_train"] + ".gz")).write_bytes(broken)
    assert correct(load("mnist", root=tiny / "here"))
    (tiny / "here" / NAMES["x_train"]).unlink()
    write(tiny / "here" / "MNIST" / "raw", parts=("x_train",))
    assert correct(load("mnist", root=tiny / "here"))


def test_no_more_is_unpacked_than_the_file_should_have(tiny):
    folder = write(tiny / "here", parts=("y_train", "x_test", "y_test"))
    (folder / (NAMES["x_train"] + ".gz")).write_bytes(gzip.compress(idx("x_train") + bytes(10**7)))
    with pytest.raises(ValueError, match="is too long: at least 8816 bytes uncompressed, expected 4720"):
        load("mnist", root=folder)


def test_what_is_missing_in_root_is_taken_from_the_cache(tiny):
    write(tiny / "here", parts=("x_train", "y_train"))
    write(tiny / "cache" / "liouville" / "mnist", parts=("x_test", "y_test"))
    assert correct(load("mnist", root=tiny / "here"))


def test_no_file_and_no_network_say_where_it_looked_and_what_to_set(tiny):
    (tiny / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        load("mnist", root=tiny / "empty")
    cache = tiny / "cache" / "liouville" / "mnist"
    assert str(caught.value) == (
        f"MNIST's train-images-idx3-ubyte is not in {tiny / 'empty'}, {tiny / 'empty' / 'mnist'}, {cache}, "
        "and no mirror gave it (https://ossci-datasets.s3.amazonaws.com/mnist/: ConnectionError; "
        "https://storage.googleapis.com/cvdf-datasets/mnist/: ConnectionError); "
        "set LIOUVILLE_DATA, or the option root, to a folder that has train-images-idx3-ubyte.gz."
    )
    assert list(cache.iterdir()) == []


def copy_from(folder, broken_mirrors, asked):
    """A retriever that serves tmp files instead of the network; what ``broken_mirrors`` says is spoiled."""

    def retrieve(url, path, pooch):
        asked.append(url)
        data = (folder / url.rsplit("/", 1)[1]).read_bytes()
        for mirror, spoil in broken_mirrors.items():
            data = spoil(data) if url.startswith(mirror) else data
        path.write_bytes(data)

    return retrieve


def fail(data):
    raise TimeoutError


@pytest.mark.parametrize("spoil", [fail, lambda d: d[:-9], lambda d: b"<html>", lambda d: flipped(d, -6)])
def test_the_second_mirror_is_tried_when_the_first_fails_or_gives_a_broken_file(tiny, monkeypatch, spoil):
    asked = []
    first = images.MIRRORS[0]
    monkeypatch.setattr(images, "_retrieve", copy_from(tiny / "mirror", {first: spoil}, asked))
    assert correct(load("mnist"))
    assert [url.startswith(first) for url in asked] == [True, False] * 4
    cache = tiny / "cache" / "liouville" / "mnist"
    assert sorted(p.name for p in cache.iterdir()) == sorted(name + ".gz" for name in NAMES.values())
    assert correct(load("mnist")) and len(asked) == 8  # the second time from the cache


def test_broken_mirrors_leave_nothing_in_the_cache(tiny, monkeypatch):
    monkeypatch.setattr(
        images, "_retrieve", copy_from(tiny / "mirror", dict.fromkeys(images.MIRRORS, lambda d: d[:-9]), [])
    )
    with pytest.raises(FileNotFoundError, match=r"mnist/: a broken file; .*mnist/: a broken file\)"):
        load("mnist")
    assert list((tiny / "cache" / "liouville" / "mnist").iterdir()) == []


def test_an_interrupted_download_leaves_nothing_in_the_cache(tiny, monkeypatch):
    def interrupted(url, path, pooch):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "_retrieve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert list((tiny / "cache" / "liouville" / "mnist").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tiny):
    (tiny / "cache").write_text("a file where the cache folder should be")
    with pytest.raises(OSError, match=re.escape(f"cannot write to the cache folder {tiny / 'cache' / 'liouville'}")):
        load("mnist")


def test_without_pooch_the_error_names_the_extra_and_local_files_still_load(tiny, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pooch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert correct(load("mnist", root=tiny / "mirror"))
    with pytest.raises(ImportError) as caught:
        load("mnist")
    assert str(caught.value) == (
        "MNIST's train-images-idx3-ubyte is not given, and downloading it needs pooch: "
        "pip install 'liouville[data]', or set LIOUVILLE_DATA, or the option root, to a folder that has "
        "train-images-idx3-ubyte.gz."
    )


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def server(tiny):
    """An HTTP server of tmp_path on this machine's loopback."""
    handler = functools.partial(Quiet, directory=str(tiny))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


RETRIEVE = images._retrieve


@pytest.mark.parametrize("terminal", [True, False])
def test_pooch_downloads_with_progress_after_a_mirror_without_the_file(tiny, server, monkeypatch, capsys, terminal):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(images, "_retrieve", RETRIEVE)
    monkeypatch.setattr(images, "MIRRORS", (f"{server}/absent/", f"{server}/mirror/"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert correct(load("mnist"))
    said = capsys.readouterr().err
    assert f"downloading {server}/mirror/train-images-idx3-ubyte.gz" in said
    assert ("100 %" in said) == ("\r" in said) == terminal
