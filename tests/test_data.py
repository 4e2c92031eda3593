"""Data sets: read from tiny archives in their real formats, checked, split, and refused with a word of help."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import (
    write_cifar10,
    write_cifar100,
    write_fashion_mnist,
    write_folder,
    write_npz,
    write_tiny_imagenet,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import options
from engine.data import _obtain, fashion_mnist, tiny_imagenet
from engine.data.base import DataError, Source, Split, Splits
from engine.data.load import load, subset
from engine.data.stratify import spread
from engine.recipe import check

DEBIAN = Path(fashion_mnist.FashionMnist.found_at[1])


def packaged_in(monkeypatch, folder):
    monkeypatch.setattr(fashion_mnist.FashionMnist, "found_at", ("FashionMNIST/raw", str(folder)))


NOWHERE = "http://127.0.0.1:9"  # a port where nobody listens


@pytest.fixture(autouse=True)
def only_what_the_test_wrote(tmp_path, monkeypatch):
    """No proxy, no data of this machine, and no waiting."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TRAINCTL_DATA", str(tmp_path))
    packaged_in(monkeypatch, tmp_path / "no-such-folder")
    monkeypatch.setattr(_obtain, "TIMEOUT", 5.0)


def read(dataset: str, select: str = "test", **data) -> Splits:
    data.setdefault("verify", False)
    return load(check({"data": {"dataset": dataset, **data}, "eval": {"select": select}}))


def same(split: Split, images, labels) -> bool:
    return np.array_equal(split.images.numpy(), images) and np.array_equal(split.labels.numpy(), labels)


def failure(dataset: str, **data) -> DataError:
    with pytest.raises(DataError) as caught:
        read(dataset, **data)
    assert caught.value.hint
    return caught.value


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def serve(tmp_path_factory):
    """Serve a new folder over HTTP; yields the folder and its address."""
    folder = tmp_path_factory.mktemp("served")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# --- digits ---------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_images():
    from sklearn.datasets import load_digits

    splits = read("digits", select="validation")
    ours = torch.cat([part.images for part in (splits.train, splits.validation, splits.test)]).flatten(1).numpy()
    theirs = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))
    assert splits.train.images.shape == (1258, 1, 8, 8) and splits.classes == 10
    assert splits.train.images.max() == 255 and splits.train.images.min() == 0


def test_the_digits_split_is_pinned():
    """The split is part of every published number; a change of it must be seen."""
    splits = read("digits", select="validation")
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [1258, 180, 359]
    content = b"".join(part.images.numpy().tobytes() + part.labels.numpy().tobytes() for part in parts)
    assert hashlib.sha256(content).hexdigest()[:16] == "9fe38e4db771f664"


def test_the_digits_split_is_stratified():
    splits = read("digits", select="validation")
    total = sum(part.labels.bincount(minlength=10) for part in (splits.train, splits.validation, splits.test))
    for part, share in ((splits.train, 0.7), (splits.validation, 0.1), (splits.test, 0.2)):
        assert (part.labels.bincount(minlength=10) - share * total).abs().max() < 2


def test_digits_keep_their_training_split_when_best_is_chosen_on_test():
    chosen_on_test, chosen_on_validation = read("digits"), read("digits", select="validation")
    assert chosen_on_test.validation is None
    assert torch.equal(chosen_on_test.train.images, chosen_on_validation.train.images)


# --- CIFAR ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("dataset", "write", "classes"), [("cifar10", write_cifar10, 10), ("cifar100", write_cifar100, 100)]
)
def test_cifar(tmp_path, dataset, write, classes, packed):
    written = write(tmp_path, packed=packed)
    splits = read(dataset)
    assert splits.classes == classes and splits.validation is None
    assert same(splits.train, written.train_images, written.train_labels)
    assert same(splits.test, written.test_images, written.test_labels)


def test_cifar_needs_no_torchvision_for_what_lies_there_unchecked(tmp_path):
    write_cifar10(tmp_path)
    program = (
        "import sys\n"
        "from engine.recipe import check\n"
        "from engine.data.load import load\n"
        "load(check({'data': {'dataset': 'cifar10', 'verify': False}}))\n"
        "assert not {'torchvision', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent)


def publish(monkeypatch, name, written, archive=None, url=NOWHERE):
    """Let torchvision's table hold the checksums of what the test wrote."""
    from torchvision import datasets

    published = getattr(datasets, name)
    monkeypatch.setattr(published, "url", f"{url}/{published.filename}")
    if archive:
        monkeypatch.setattr(published, "tgz_md5", md5(archive))
    if written.folder.exists():
        for table in ("train_list", "test_list"):
            sums = [[file, md5(written.folder / file)] for file, _ in getattr(published, table)]
            monkeypatch.setattr(published, table, sums)


def test_cifar_checksums(tmp_path, monkeypatch):
    written = write_cifar10(tmp_path)
    error = failure("cifar10", verify=True)
    assert "data_batch_1: wrong checksum" in str(error) and "c99cafc152244af753f735de768cd75f" in str(error)
    assert "data.verify = false" in error.hint
    publish(monkeypatch, "CIFAR10", written)
    assert same(read("cifar10", verify=True).test, written.test_images, written.test_labels)
    batch = written.folder / "test_batch"
    batch.write_bytes(batch.read_bytes()[:-1] + b"!")
    assert "test_batch: wrong checksum" in str(failure("cifar10", verify=True))


def test_a_packed_cifar_is_checked_before_it_is_unpacked(tmp_path):
    written = write_cifar100(tmp_path, packed=True)
    assert "cifar-100-python.tar.gz: wrong checksum" in str(failure("cifar100", verify=True))
    assert not written.folder.exists()


def test_cifar_is_downloaded_and_checked(tmp_path, monkeypatch, serve):
    folder, url = serve
    written = write_cifar10(folder)
    publish(monkeypatch, "CIFAR10", written)
    archive = folder / "cifar-10-python.tar.gz"
    shutil.make_archive(str(archive).removesuffix(".tar.gz"), "gztar", folder, written.folder.name)
    publish(monkeypatch, "CIFAR10", written, archive, url)
    splits = read("cifar10", verify=True)
    assert same(splits.train, written.train_images, written.train_labels)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"cifar-10-batches-py", "cifar-10-python.tar.gz", ".lock"}


def test_a_download_with_another_checksum_leaves_nothing(tmp_path, monkeypatch, serve):
    folder, url = serve
    (folder / "cifar-10-python.tar.gz").write_bytes(b"an error page")
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", f"{url}/cifar-10-python.tar.gz")
    assert "could not deliver it" in str(failure("cifar10", verify=True))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_offline_names_the_owner_the_file_and_the_place(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", f"{NOWHERE}/cifar-10-python.tar.gz")
    error = failure("cifar10")
    assert str(error).startswith(f"cifar-10-python.tar.gz is not in {tmp_path}")
    assert "University of Toronto" in str(error)
    assert f"{NOWHERE}/cifar-10-python.tar.gz" in error.hint and f"put it in {tmp_path}" in error.hint


def test_without_download_nothing_is_asked_of_the_net_or_made(tmp_path):
    root = tmp_path / "none"
    error = failure("cifar100", root=str(root), download=False)
    assert "data.download is false" in str(error)
    assert "www.cs.toronto.edu, University of Toronto" in error.hint
    assert not root.exists()


def test_a_root_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    error = failure("cifar10", root=str(tmp_path / "file" / "data"))
    assert "cannot be written (Not a directory)" in str(error)


def test_several_runs_unpack_once(tmp_path):
    """Two processes start at once on a packed archive; both read the same images."""
    written = write_cifar10(tmp_path, packed=True)
    program = (
        "from engine.recipe import check\n"
        "from engine.data.load import load\n"
        "splits = load(check({'data': {'dataset': 'cifar10', 'verify': False}, 'eval': {'select': 'test'}}))\n"
        "print(int(splits.train.images.sum()))\n"
    )
    here = Path(__file__).parent.parent
    runs = [
        subprocess.Popen([sys.executable, "-c", program], cwd=here, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [int(run.communicate()[0]) for run in runs] == [int(written.train_images.sum())] * 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".unpack")]


def test_the_lock_is_waited_for(tmp_path, monkeypatch):
    """While another process unpacks, this one waits, and then takes what that one made."""
    written = write_cifar10(tmp_path / "elsewhere")
    remote = _obtain.Remote(f"{NOWHERE}/cifar-10-python.tar.gz", "nobody", "")
    source = Source(tmp_path, verify=False)
    started = threading.Event()

    def other():
        with _obtain.locked(tmp_path, remote, source):
            started.set()
            time.sleep(0.2)
            written.folder.rename(tmp_path / "cifar-10-batches-py")

    thread = threading.Thread(target=other)
    thread.start()
    started.wait()
    folder = _obtain.obtain_archive(remote, source, "cifar-10-batches-py")
    thread.join()
    assert (folder / "test_batch").exists()


def test_cifar_batches_that_are_none(tmp_path):
    batch = write_cifar10(tmp_path).folder / "data_batch_3"
    rows = np.zeros((2, 3072), np.uint8)
    for content, message in (
        ({"data": rows}, "'labels'"),
        ({"data": rows.astype(np.float32), "labels": [0, 1]}, "expected 'data' as uint8 [2, 3072]"),
        ({"data": rows[:1], "labels": [0, 1]}, "expected 'data' as uint8 [2, 3072]"),
        ({"data": rows, "labels": [0, 10]}, "labels 0..10, expected 0..9"),
        ([1, 2], "expected a dict"),
    ):
        batch.write_bytes(pickle.dumps(content, protocol=2))
        assert message in str(failure("cifar10"))
    batch.write_bytes(b"not a pickle")
    assert f"{batch}: cannot be read as a pickled CIFAR batch" in str(failure("cifar10"))
    batch.unlink()
    assert f"{batch} is missing" in str(failure("cifar10"))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_cifar_pickles_of_python_3_are_read_too(tmp_path, protocol):
    written = write_cifar10(tmp_path)
    content = {"data": written.test_images.reshape(-1, 3072), "labels": written.test_labels.tolist()}
    (written.folder / "test_batch").write_bytes(pickle.dumps(content, protocol=protocol))
    assert same(read("cifar10").test, written.test_images, written.test_labels)


class Malicious:
    """Unpickling it with pickle.load would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_cannot_run_code(tmp_path):
    written = write_cifar10(tmp_path)
    target = tmp_path / "owned"
    (written.folder / "test_batch").write_bytes(pickle.dumps({"data": Malicious(target), "labels": [1]}))
    assert "posix.mkdir, which is no part of an array" in str(failure("cifar10"))
    assert not target.exists()


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    import io
    import tarfile

    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("../../escaped")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    assert "member '../../escaped' would leave the folder" in str(failure("cifar10", root=str(root)))
    assert not list(tmp_path.rglob("escaped"))


def test_damaged_and_foreign_archives(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    write_cifar10(tmp_path / "other", packed=True)
    whole = (tmp_path / "other" / archive.name).read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert f"{archive}: cannot be unpacked" in str(failure("cifar10"))
    write_cifar100(tmp_path / "other", packed=True)
    shutil.copy(tmp_path / "other" / "cifar-100-python.tar.gz", archive)
    assert "holds no folder cifar-10-batches-py" in str(failure("cifar10"))
    assert not (tmp_path / "cifar-10-batches-py").exists()


# --- Fashion-MNIST --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist(tmp_path, packed):
    written = write_fashion_mnist(tmp_path, packed=packed)
    splits = read("fashion-mnist")
    assert same(splits.train, written.train_images, written.train_labels)
    assert same(splits.test, written.test_images, written.test_labels)
    assert splits.classes == 10 and splits.validation is None
    assert "train-images-idx3-ubyte" in str(failure("fashion-mnist", verify=True))


def test_fashion_mnist_of_the_debian_package(tmp_path, monkeypatch):
    written = write_fashion_mnist(tmp_path / "elsewhere")
    packaged_in(monkeypatch, written.folder)
    assert same(read("fashion-mnist").train, written.train_images, written.train_labels)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_whole_fashion_mnist(monkeypatch):
    packaged_in(monkeypatch, DEBIAN)
    splits = read("fashion-mnist", select="validation", verify=True)
    assert splits.train.images.shape == (54_000, 1, 28, 28) and len(splits.test) == 10_000
    assert splits.validation is not None
    assert splits.validation.labels.bincount().tolist() == [600] * 10
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    assert 72.0 < splits.train.images.float().mean() < 74.0  # 0.286 of 255 is its well-known mean


def test_fashion_mnist_is_downloaded(tmp_path, monkeypatch, serve):
    folder, url = serve
    written = write_fashion_mnist(folder)
    sums = [(file.name, md5(file)) for file in sorted(written.folder.iterdir())]
    contents = {
        file.stem: hashlib.md5(gzip.decompress(file.read_bytes())).hexdigest() for file in written.folder.iterdir()
    }
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.resources", sums)
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", [f"{url}/FashionMNIST/raw/"])
    monkeypatch.setattr(fashion_mnist, "CONTENT_MD5", contents)
    assert same(read("fashion-mnist", verify=True).test, written.test_images, written.test_labels)
    own = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    own.unlink()
    assert same(read("fashion-mnist", verify=True).test, written.test_images, written.test_labels)  # fetched again
    own.write_bytes(own.read_bytes()[:-9])
    assert "damaged gzip file" in str(failure("fashion-mnist", verify=True))


def test_fashion_mnist_offline(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", [f"{NOWHERE}/"])
    error = failure("fashion-mnist")
    assert "train-images-idx3-ubyte.gz is not in" in str(error) and "Zalando Research" in str(error)
    assert str(tmp_path / "FashionMNIST" / "raw") in error.hint


def test_idx_files_that_are_none(tmp_path):
    folder = write_fashion_mnist(tmp_path, packed=False).folder
    labels = folder / "train-labels-idx1-ubyte"
    good = labels.read_bytes()
    for content in (b"", good[:-1], b"\0\0\x0d\x01" + good[4:]):
        labels.write_bytes(content)
        assert f"{labels}: not an IDX file of unsigned bytes of rank 1" in str(failure("fashion-mnist"))
    labels.write_bytes(good[:4] + (10).to_bytes(4, "big") + good[8:18])
    assert "60 images of 'train', but 10 labels" in str(failure("fashion-mnist"))


# --- Tiny ImageNet --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenet(tmp_path, packed):
    written = write_tiny_imagenet(tmp_path, packed=packed)
    splits = read("tiny-imagenet")
    assert splits.classes == 4 and splits.train.images.shape == (20, 3, 32, 32)
    assert splits.train.labels.tolist() == written.train_labels.tolist()
    assert splits.test.labels.tolist() == written.test_labels.tolist()
    halved = written.test_images.reshape(8, 3, 32, 2, 32, 2).mean(
        (3, 5)
    )  # squares of 8 pixels: inside, no filter shows
    inside = np.s_[:, :, 1::4, 1::4]
    assert np.abs(splits.test.images.numpy()[inside].astype(float) - halved[inside]).mean() < 12  # JPEG's own error


def test_tiny_imagenet_is_resized_with_pillows_bilinear_filter(tmp_path):
    written = write_tiny_imagenet(tmp_path)
    expected = np.asarray(
        Image.open(written.folder / "val" / "images" / "val_3.JPEG").resize((16, 16), Image.Resampling.BILINEAR)
    )
    assert np.array_equal(read("tiny-imagenet", image_size=16).test.images[3].permute(1, 2, 0).numpy(), expected)


def test_tiny_imagenet_is_decoded_once_per_size(tmp_path, monkeypatch):
    folder = write_tiny_imagenet(tmp_path).folder
    first = read("tiny-imagenet")
    read("tiny-imagenet", image_size=16)
    caches = sorted(path.name for path in tmp_path.glob("*.npz"))
    assert caches == ["tiny-imagenet-200-16x16.npz", "tiny-imagenet-200-32x32.npz"]
    decodings = []
    decode = tiny_imagenet.decode
    monkeypatch.setattr(tiny_imagenet, "decode", lambda paths, size: decodings.append(size) or decode(paths, size))
    assert torch.equal(read("tiny-imagenet").train.images, first.train.images)
    assert read("tiny-imagenet", image_size=16).train.images.shape[-1] == 16
    assert decodings == []
    extra = sorted((folder / "train").iterdir())[0] / "images"
    shutil.copy(next(extra.iterdir()), extra / "another.JPEG")
    assert len(read("tiny-imagenet").train) == 21  # other files, another cache
    assert decodings == [32, 32]
    (tmp_path / caches[1]).write_bytes(b"damaged")
    assert len(read("tiny-imagenet").train) == 21


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_tiny_imagenet_in_a_folder_that_cannot_be_written(tmp_path):
    write_tiny_imagenet(tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert len(read("tiny-imagenet").train) == 20
    finally:
        tmp_path.chmod(0o755)
    assert not list(tmp_path.glob("*.npz"))


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    """A full disk, seen by the writer of the cache."""
    write_tiny_imagenet(tmp_path)

    def full(file, **arrays):
        file.write(b"a part of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(read("tiny-imagenet").train) == 20
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-imagenet-200"}


def test_an_incomplete_tiny_imagenet_is_refused_unless_told_otherwise(tmp_path):
    write_tiny_imagenet(tmp_path)
    error = failure("tiny-imagenet", verify=True)
    assert "4 classes, 20 training and 8 validation images; expected 200, 100000 and 10000" in str(error)


def test_tiny_imagenet_offline(tmp_path, monkeypatch):
    remote = _obtain.Remote(f"{NOWHERE}/tiny-imagenet-200.zip", "Stanford University", "0" * 32)
    monkeypatch.setattr(tiny_imagenet, "REMOTE", remote)
    error = failure("tiny-imagenet")
    assert "tiny-imagenet-200.zip is not in" in str(error) and "Stanford University" in str(error)


def test_tiny_imagenet_with_parts_missing(tmp_path):
    folder = write_tiny_imagenet(tmp_path).folder
    annotations = folder / "val" / "val_annotations.txt"
    lines = annotations.read_text()
    annotations.write_text(lines + "val_99.JPEG\tn99999999\t0\t0\t1\t1\n")
    assert f"{annotations}:9: expected a file name, a tab and a class" in str(failure("tiny-imagenet"))
    annotations.write_text(lines)
    image = folder / "val" / "images" / "val_0.JPEG"
    image.write_bytes(b"no JPEG")
    assert f"{image}: cannot be read as an image" in str(failure("tiny-imagenet"))
    image.unlink()
    assert f"{image}: cannot be read as an image" in str(failure("tiny-imagenet"))
    shutil.rmtree(folder / "val" / "images")
    assert "val/images: No such file or directory" in str(failure("tiny-imagenet"))
    shutil.rmtree(sorted((folder / "train").iterdir())[0])
    assert "no *.JPEG in it" in str(failure("tiny-imagenet"))
    (folder / "wnids.txt").unlink()
    assert "wnids.txt: cannot be read" in str(failure("tiny-imagenet"))


# --- folder and npz -------------------------------------------------------------------------------------------------


def test_folder(tmp_path):
    written = write_folder(tmp_path / "mine")
    splits = read("folder", path="mine", image_size=12)
    assert same(splits.train, written.train_images, written.train_labels)
    assert same(splits.test, written.test_images, written.test_labels)
    assert splits.classes == 3
    assert read("folder", path=str(tmp_path / "mine")).test.images.shape == (6, 3, 32, 32)


def test_a_val_folder_is_the_test_split_unless_there_is_a_test_folder(tmp_path):
    written = write_folder(tmp_path, parts=("train", "val"))
    splits = read("folder", path=".", image_size=12, select="validation")
    assert same(splits.test, written.test_images, written.test_labels)
    shutil.copytree(tmp_path / "val", tmp_path / "test")
    (tmp_path / "test" / "class0" / "000.png").unlink()
    splits = read("folder", path=".", image_size=12, select="validation")
    assert splits.validation is not None
    assert same(splits.validation, written.test_images, written.test_labels)
    assert len(splits.test) == 5 and len(splits.train) == 12


def test_images_that_are_not_square_are_cut_in_the_middle_and_grey_becomes_colour(tmp_path):
    write_folder(tmp_path)
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "test" / "class0" / "000.png")
    image = read("folder", path=".", image_size=10).test.images[0]
    assert image.shape == (3, 10, 10) and torch.all(image == 200)


def test_folders_that_are_none(tmp_path):
    assert "has no train/ and test/ (or val/)" in str(failure("folder", path="nothing"))
    write_folder(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "test" / "class1")
    assert "not the classes of train/; they differ in class1" in str(failure("folder", path="a"))
    for file in (tmp_path / "a" / "train" / "class2").iterdir():
        file.unlink()
    assert "class2" in str(failure("folder", path="a"))


def save(path: Path, **changes) -> None:
    """An .npz of 4 + 4 images [n, 3, 8, 8] with changes; None leaves an array out."""
    arrays = {"x_train": np.zeros((4, 3, 8, 8), np.uint8), "y_train": np.arange(4)}
    arrays |= {"x_test": arrays["x_train"], "y_test": arrays["y_train"], **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(("channels", "layout"), [(3, "NCHW"), (3, "NHWC"), (1, "NCHW"), (1, "NHWC"), (1, "NHW")])
def test_npz_in_every_layout(tmp_path, channels, layout):
    written = write_npz(tmp_path / "mine.npz", channels=channels)

    def arranged(images):
        return {"NCHW": images, "NHWC": images.transpose(0, 2, 3, 1), "NHW": images[:, 0]}[layout]

    save(
        tmp_path / "mine.npz",
        x_train=arranged(written.train_images), y_train=written.train_labels[:, None],
        x_test=arranged(written.test_images), y_test=written.test_labels.astype(np.uint8),
    )  # fmt: skip
    splits = read("npz", path="mine.npz")
    assert same(splits.train, written.train_images, written.train_labels)
    assert same(splits.test, written.test_images, written.test_labels)
    assert splits.classes == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None, "x_test": None}, "has no x_test, y_test"),
        ({"x_train": np.zeros((4, 3, 8, 8))}, "x_train is float64, expected uint8"),
        ({"x_train": np.zeros((4, 8, 8, 4), np.uint8)}, "x_train has shape [4, 8, 8, 4], expected"),
        ({"x_train": np.zeros((4, 64), np.uint8)}, "x_train has shape [4, 64], expected"),
        ({"x_train": np.zeros((5, 3, 8, 8), np.uint8)}, "5 images in x_train, but 4 labels"),
        ({"x_test": np.zeros((4, 1, 8, 8), np.uint8)}, "test images are [1, 8, 8], but those for training [3, 8, 8]"),
        ({"x_train": np.zeros((4, 3, 8, 9), np.uint8)}, "have 8x9 pixels"),
        ({"x_train": np.zeros((4, 3, 4, 4), np.uint8)}, "have 4x4 pixels, expected a square of 8 or more"),
        ({"y_train": np.eye(4)}, "y_train is float64, expected integers"),
        ({"y_train": np.eye(4, dtype=int)}, "y_train has shape [4, 4]"),
        ({"y_train": np.arange(4) - 1}, "class numbers from 0"),
        ({"y_train": np.array([0, 1, 2, None])}, "not an .npz of plain arrays"),
    ],
)
def test_npz_files_that_are_none(tmp_path, changes, message):
    save(tmp_path / "mine.npz", **changes)
    with pytest.raises(DataError) as caught:
        read("npz", path="mine.npz")
    assert message in str(caught.value) and caught.value.hint


def test_npz_paths_that_are_none(tmp_path):
    assert "there is no such file" in str(failure("npz", path="mine.npz"))
    (tmp_path / "text.npz").write_text("text")
    assert "not an .npz of plain arrays" in str(failure("npz", path="text.npz"))
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "not an .npz of plain arrays" in str(failure("npz", path="array.npy"))
    assert f"npz: {tmp_path}: Is a directory" in str(failure("npz", path="."))


# --- hold-out, training examples, subsets ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=80), data=st.data())
def test_every_beginning_and_end_of_the_order_is_stratified(labels, data):
    order = spread(torch.tensor(labels), "a test").tolist()
    assert sorted(order) == list(range(len(labels)))
    cut = data.draw(st.integers(0, len(labels)))
    for part in (order[:cut], order[cut:]):
        for label in range(5):
            expected = len(part) * labels.count(label) / len(labels)
            assert abs(sum(labels[index] == label for index in part) - expected) <= 5 / 2 + 0.5


def test_balanced_classes_are_spread_exactly():
    labels = torch.arange(200) % 10
    for n in (10, 50, 130):
        assert labels[spread(labels, "a test")[:n]].bincount().tolist() == [n // 10] * 10


def test_the_order_depends_on_its_purpose_and_is_pinned():
    labels = torch.arange(12) % 3
    assert spread(labels, "a").tolist() != spread(labels, "b").tolist()
    assert spread(labels, "a").tolist() == [2, 3, 10, 6, 1, 5, 8, 7, 9, 4, 11, 0]


def test_the_hold_out_is_fixed_stratified_and_disjoint(tmp_path):
    written = write_cifar10(tmp_path, per_batch=40)
    splits, again = (
        load(check({"data": {"dataset": "cifar10", "verify": False, "validation": 0.15}, "run": {"seed": seed}}))
        for seed in (1, 2)
    )
    assert splits.validation is not None and again.validation is not None
    assert torch.equal(splits.validation.images, again.validation.images)
    assert splits.validation.labels.bincount().tolist() == [3] * 10
    assert splits.train.labels.bincount().tolist() == [17] * 10
    parts = torch.cat([splits.train.images, splits.validation.images]).flatten(1).numpy()
    assert sorted(map(bytes, parts)) == sorted(map(bytes, written.train_images.reshape(200, -1)))
    assert same(splits.test, written.test_images, written.test_labels)


def test_train_examples_keeps_a_stratified_part_and_shrinks_the_hold_out_with_it(tmp_path):
    write_cifar10(tmp_path, per_batch=40)
    splits = read("cifar10", select="validation", train_examples=90)
    assert splits.train.labels.bincount().tolist() == [9] * 10
    assert splits.validation is not None and splits.validation.labels.bincount().tolist() == [1] * 10
    assert torch.equal(read("cifar10", train_examples=90).train.images, splits.train.images)
    larger = {bytes(image) for image in read("cifar10", train_examples=120).train.images.numpy()}
    assert {bytes(image) for image in splits.train.images.numpy()} < larger
    assert len(read("cifar10", select="validation", train_examples=180).train) == 180
    assert "180 images are left for training, but data.train_examples is 181" in str(
        failure("cifar10", select="validation", train_examples=181)
    )
    assert len(read("cifar10", train_examples=200).train) == 200


def test_train_examples_leaves_a_data_sets_own_validation_alone():
    splits = read("digits", select="validation", train_examples=100)
    assert len(splits.train) == 100 and splits.validation is not None and len(splits.validation) == 180


def test_too_small_a_training_split_is_refused(tmp_path):
    save(tmp_path / "mine.npz", x_train=np.zeros((3, 8, 8), np.uint8), y_train=np.arange(3),
         x_test=np.zeros((3, 8, 8), np.uint8), y_test=np.arange(3))  # fmt: skip
    assert len(read("npz", path="mine.npz").train) == 3
    assert "2 images are left for training, expected 3 or more" in str(
        failure("npz", path="mine.npz", select="validation")
    )


def test_subset():
    split = Split(torch.zeros(50, 1, 8, 8, dtype=torch.uint8), torch.arange(50) // 10)
    chosen = subset(split, 20)
    assert split.labels[chosen].bincount().tolist() == [4] * 5
    assert chosen.tolist() == sorted(chosen.tolist()) == subset(split, 20).tolist()
    assert set(subset(split, 10).tolist()) < set(chosen.tolist())
    for n in (0, 50, 51):
        assert subset(split, n).tolist() == list(range(50))


# --- where data sets come from --------------------------------------------------------------------------------------


def test_the_root_is_the_recipes_then_the_environments_then_the_users_cache(tmp_path, monkeypatch):
    for name in ("recipe", "environment", "cache/trainctl"):
        (tmp_path / name).mkdir(parents=True)
    write_npz(tmp_path / "recipe" / "mine.npz", train=10)
    write_npz(tmp_path / "environment" / "mine.npz", train=11)
    write_npz(tmp_path / "cache" / "trainctl" / "mine.npz", train=12)
    monkeypatch.setenv("TRAINCTL_DATA", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(read("npz", path="mine.npz", root=str(tmp_path / "recipe")).train) == 10
    assert len(read("npz", path="mine.npz").train) == 11
    monkeypatch.delenv("TRAINCTL_DATA")
    assert len(read("npz", path="mine.npz").train) == 12


def test_every_shipped_data_set_is_in_the_catalog_with_a_summary():
    catalog = options.catalog("DataSource")
    shipped = {"digits", "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet", "folder", "npz"}
    assert shipped <= set(catalog)
    for name in shipped:
        assert catalog[name].summary and options.load_class(catalog[name]).__name__.lower() == name.replace("-", "")


PLUGIN = '''
from dataclasses import dataclass
import torch
from engine.data.base import DataSource, Source, Split, Splits

@dataclass(frozen=True)
class {name}(DataSource):
    """Broken on purpose."""
    def load(self, source: Source) -> Splits:
        images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)
        good = Split(images, labels)
        return Splits(train=Split({images}, {labels}), test=good, classes=4)
'''


@pytest.mark.parametrize(
    ("name", "images", "labels", "message"),
    [
        ("ToyFloat", "images.float()", "labels", "are torch.float32 [4, 3, 8, 8], expected uint8"),
        ("ToyTwo", "images[:, :2]", "labels", "are torch.uint8 [4, 2, 8, 8], expected uint8"),
        ("ToyLabels", "images", "labels[:3]", "need as many int64 labels, found torch.int64 [3]"),
        ("ToyInt", "images", "labels.int()", "need as many int64 labels, found torch.int32 [4]"),
        ("ToyRange", "images", "labels + 1", "have labels 1..4, expected 0..3"),
        ("ToyEmpty", "images[:0]", "labels[:0]", "need as many int64 labels"),
    ],
)
def test_a_data_set_of_another_form_is_refused(tmp_path, monkeypatch, name, images, labels, message):
    file = tmp_path / f"{name.lower()}.py"
    file.write_text(PLUGIN.format(name=name, images=images, labels=labels))
    monkeypatch.setenv("TRAINCTL_PLUGINS", str(tmp_path))
    recipe_name = f"toy-{name[3:].lower()}"
    try:
        with pytest.raises(DataError) as caught:
            read(recipe_name)
    finally:
        with contextlib.suppress(KeyError):
            del sys.modules[f"trainctl_plugin_{file.stem}"]
    assert str(caught.value).startswith(f"{recipe_name}: the training images") and message in str(caught.value)
