from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from service.dataset.items import DatasetError, Unreadable
from service.dataset.opening import Reading, open_dataset
from tests.service.dataset.datasets import (
    READING,
    all_items,
    opened,
    write_files,
    write_parquet,
    write_parquet_table,
    write_tar,
)

FIVE = [(f"{number}.jpg", bytes([number]) * 700) for number in range(5)]


def test_folder_is_read_in_the_order_of_its_paths_without_what_is_hidden_or_no_image(tmp_path: Path) -> None:
    names = ["b/a.png", "a.jpg", "a/z.JPEG", "a/b/c.webp"]
    others = [".hidden.png", ".folder/a.png", "labels.csv", "a/README"]
    write_files(tmp_path, {name: name.encode() for name in (*names, *others)})
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    dataset = opened(tmp_path)
    (source,) = dataset.sources
    assert dataset.images == 4
    assert all_items(source) == [(name, name.encode()) for name in sorted(names)]
    assert all_items(source, 2) == [(name, name.encode()) for name in sorted(names)[2:]]


def test_names_that_are_no_text_are_read(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    write_files(tmp_path, {name: b"data"})
    assert all_items(opened(tmp_path).sources[0]) == [(name, b"data")]


def test_list_names_files_from_its_own_folder_on(tmp_path: Path) -> None:
    write_files(tmp_path / "images", {"a.png": b"a", "b": b"b"})
    elsewhere = write_files(tmp_path / "elsewhere", {"c.png": b"c"}) / "c.png"
    (tmp_path / "list.txt").write_text(f"images/b\r\n\nmissing.png\n{elsewhere}\nimages\nimages/a.png")
    dataset = opened(tmp_path / "list.txt")
    told = [
        ("images/b", b"b"),
        ("missing.png", "unreadable"),
        (str(elsewhere), b"c"),
        ("images", "unreadable"),
        ("images/a.png", b"a"),
    ]
    assert dataset.images == 5
    assert all_items(dataset.sources[0]) == told
    assert all_items(dataset.sources[0], 3) == told[3:]


def test_pipe_in_a_list_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.txt").write_text("pipe.png\n")
    assert all_items(opened(tmp_path / "list.txt").sources[0]) == [("pipe.png", "unreadable")]


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")])
def test_shards_have_the_images_among_their_members_in_order(tmp_path: Path, suffix: str, mode: str) -> None:
    members = [
        ("0.json", b"{}"),
        FIVE[3],
        ("3.cls", b"7"),
        ("a/._x.png", b"hidden"),
        *FIVE[:2],
        ("n" * 200 + ".png", b"n"),
    ]
    write_tar(tmp_path / f"b{suffix}", members, mode)
    write_tar(tmp_path / f"a{suffix}", FIVE, mode)
    dataset = opened(tmp_path)
    assert [source.name for source in dataset.sources] == [f"a{suffix}", f"b{suffix}"]
    assert all_items(dataset.sources[0]) == FIVE
    assert all_items(dataset.sources[1]) == [FIVE[3], *FIVE[:2], ("n" * 200 + ".png", b"n")]
    for start in range(6):
        assert all_items(dataset.sources[0], start) == FIVE[start:]


def test_compressed_shard_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = []

    class Watched(gzip.GzipFile):
        def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
            if whence == io.SEEK_SET and offset < self.tell():
                backwards.append(offset)
            return super().seek(offset, whence)

    members = [(f"{number:03}{'x' * (number % 7 * 40)}.jpg", bytes([number]) * 3000) for number in range(100)]
    write_tar(tmp_path / "a.tgz", members, "w:gz")
    monkeypatch.setattr("service.dataset.tar_shards.gzip.GzipFile", Watched)
    assert all_items(opened(tmp_path).sources[0]) == members
    assert backwards == [0]  # once it is known to be a tar file


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_the_library_reads(tmp_path: Path, format_: int) -> None:
    names = ["a.png", "d" * 90 + "/" + "e" * 50 + ".png", "ä.png", os.fsdecode(b"\xe4.png"), "n" * 100, "b.jpg"]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=format_, errors="surrogateescape") as tar:
        for number, name in enumerate(names):
            for mtime in (0, 1.5):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = 511 + number, mtime
                tar.addfile(member, io.BytesIO(bytes([number]) * member.size))
            for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
                other = tarfile.TarInfo(f"{number}.png")
                other.type, other.linkname = kind, "a.png"
                tar.addfile(other)
    with tarfile.open(path) as tar:
        expected = [
            (member.name, file.read())
            for member in tar
            if member.isreg() and member.name.endswith(("png", "jpg")) and (file := tar.extractfile(member))
        ]
    assert len(expected) == 10
    assert all_items(opened(path).sources[0]) == expected


def test_pattern_and_names_mean_the_same_shards_as_their_folder(tmp_path: Path) -> None:
    paths = [write_tar(tmp_path / name, FIVE) for name in ("a.tar", "b.tar")]
    digests = {opened(tmp_path).digest, opened(*paths).digest, opened(tmp_path / "*.tar").digest}
    assert len(digests) == 1
    assert opened(paths[0]).digest not in digests


def test_damaged_shard_gives_what_comes_before_and_an_error(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "sound.tar", FIVE).read_bytes()
    per_member = 512 + 1024
    spoilt = {
        "header.tar": data[: 2 * per_member] + b"x" * 512 + data[2 * per_member + 512 :],
        "header_cut.tar": data[: 2 * per_member + 100],
        "image_cut.tar": data[: 2 * per_member + 600],
    }
    for name, content in spoilt.items():
        (tmp_path / name).write_bytes(content)
        (source,) = opened(tmp_path / name).sources
        read = all_items(source)
        assert read[:2] == FIVE[:2], name
        assert read[-1] == (name, "corrupt_shard"), name
        assert len(read) == 3, name
        assert all_items(source, 2) == read[2:], name


@pytest.mark.parametrize("content", [b"", b"no tar file at all" * 1000])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_file_that_is_no_shard_at_all_is_one_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    (source,) = opened(tmp_path).sources
    (item,) = source.items(0)
    assert isinstance(item.content, Unreadable)
    assert item.content.type == "corrupt_shard"


def test_compressed_shard_that_is_cut_gives_what_comes_before(tmp_path: Path) -> None:
    members = [(f"{number}.jpg", os.urandom(9000)) for number in range(100)]
    path = write_tar(tmp_path / "a.tar.gz", members, "w:gz")
    path.write_bytes(path.read_bytes()[:500_000])
    read = all_items(opened(path).sources[0])
    assert 30 < len(read) < 70
    assert read[:-1] == members[: len(read) - 1]
    assert read[-1] == ("a.tar.gz", "corrupt_shard")


def test_of_a_file_that_is_too_large_only_as_much_is_read_as_tells_that(tmp_path: Path) -> None:
    large = bytes(50_000)
    folder = write_files(tmp_path / "folder", {"a.png": large})
    shard = write_tar(tmp_path / "a.tar", [("a.png", large), ("b.png", b"b")])
    for dataset in (opened(folder), opened(shard)):
        name, data = all_items(dataset.sources[0])[0]
        assert (name, len(data)) == ("a.png", READING.most_bytes + 1)
    assert all_items(opened(shard).sources[0])[1] == ("b.png", b"b")


def header(name: str, size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of ustar with any field of the size that there may be."""
    told = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    told[124:136], told[156:157], told[148:156] = size, kind, b" " * 8
    told[148:156] = b"%06o\0 " % sum(told)
    return bytes(told)


def base_256(number: int) -> bytes:
    return ((0x80 << 88 if number >= 0 else 0) | number % (1 << 96)).to_bytes(12, "big")


def extended(record: bytes) -> bytes:
    return header("pax", b"%011o\0" % len(record), tarfile.XHDTYPE) + record + bytes(-len(record) % 512)


HOSTILE = {
    "size that is no octal number": header("a.png", b"99999999999\0"),
    "checksum that is no octal number": header("a.png", b"00000000012\0").replace(b"ustar", b"\xff" * 5),
    "negative size": header("a.png", base_256(-1024)),
    "size that leads back to its header": header("a.json", base_256(-512)),
    "negative size in an extension": extended(b"14 size=-1024\n") + header("a.png", b"00000000012\0"),
    "size beyond all files": header("a.json", base_256(1 << 80)),
    "size beyond the end": header("a.json", base_256(100 << 30)),
    "extension of many gigabytes": header("a.png", base_256(100 << 30), tarfile.XHDTYPE),
    "long name of a negative length": header("a.png", base_256(-512), tarfile.GNUTYPE_LONGNAME),
    "extensions of extensions": extended(b"7 a=bc\n") * 3000,
    "record of a length with many digits": extended(b"9" * 5000 + b" size=1\n"),
    "sparse file without a map": extended(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + header("a", base_256(0)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_header_that_lies_ends_its_shard_at_little_cost(tmp_path: Path, suffix: str, kind: str) -> None:
    whole = header("sound.png", b"00000000005\0") + b"sound" + bytes(507)
    data = whole + HOSTILE[kind] + whole + bytes(1024)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".tar.gz" else data)
    items = opened(path).sources[0].items(0)
    tracemalloc.start()
    try:
        told = [(item.name, item.content) for item, _ in zip(items, range(10), strict=False)]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told[0] == ("sound.png", b"sound")
    assert isinstance(told[-1][1], Unreadable)
    assert [name for name, _ in told[1:]] == [path.name]
    assert most < 10_000_000


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("name", ["a.json", "large.png"])
def test_shard_that_is_cut_within_what_is_skipped_is_damaged(tmp_path: Path, suffix: str, name: str) -> None:
    data = header("sound.png", b"00000000000\0") + header(name, b"%011o\0" % 50_000) + bytes(20_000)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".tar.gz" else data)
    read = all_items(opened(path).sources[0])
    assert read[0] == ("sound.png", b"")
    assert read[-1] == (path.name, "corrupt_shard")


def test_size_of_twelve_digits_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(header("a.png", b"000000001000") + b"x" * 512 + bytes(1024))
    assert all_items(opened(tmp_path).sources[0]) == [("a.png", b"x" * 512)]


def test_suffixes_in_capitals_mean_the_same(tmp_path: Path) -> None:
    assert all_items(opened(write_tar(tmp_path / "A.TAR.GZ", FIVE, "w:gz")).sources[0]) == FIVE


def test_shard_that_is_read_keeps_no_member_in_memory(tmp_path: Path) -> None:
    (source,) = opened(write_tar(tmp_path / "a.tar", [(f"{number}.jpg", b"x") for number in range(4000)])).sources
    tracemalloc.start()
    try:
        early, late = (
            tracemalloc.get_traced_memory()[0] for number, _ in enumerate(source.items(0)) if number in (1000, 3999)
        )
    finally:
        tracemalloc.stop()
    assert late < early + 100_000  # a member's description has more than a thousand bytes


@pytest.mark.parametrize("rows_in_group", [1, 2, 100])
def test_parquet_files_have_images_as_bytes_or_as_hugging_face_does(tmp_path: Path, rows_in_group: int) -> None:
    plain = write_parquet(
        tmp_path / "plain.parquet",
        {"label": range(5), "bytes": [data for _, data in FIVE], "name": [name for name, _ in FIVE]},
        rows_in_group,
    )
    structs = [{"bytes": data, "path": name} for name, data in FIVE]
    hugging = write_parquet(tmp_path / "hugging.parquet", {"image": structs, "label": range(5)}, rows_in_group)
    for path in (plain, hugging):
        dataset = opened(path)
        assert dataset.images == 5
        for start in range(6):
            assert all_items(dataset.sources[0], start) == FIVE[start:]


def test_rows_without_a_name_have_their_number_and_those_without_an_image_an_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"picture": [b"a", None, b"c"]})
    assert all_items(opened(path).sources[0]) == [("0", b"a"), ("1", "unreadable"), ("2", b"c")]


def test_columns_that_are_not_clear_have_to_be_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"left": [b"l"], "right": [b"r"], "title": ["t"]})
    with pytest.raises(
        DatasetError, match=r"--image-column has to say which column it is; these could be: left, right"
    ):
        opened(path)
    with pytest.raises(DatasetError, match="--name-column should be one of title, not left"):
        open_dataset([str(path)], Reading(1000, image_column="left", name_column="left"))
    chosen = open_dataset([str(path)], Reading(1000, image_column="right", name_column="title"))
    assert all_items(chosen.sources[0]) == [("t", b"r")]
    assert chosen.digest != open_dataset([str(path)], Reading(1000, image_column="left", name_column="title")).digest


def test_names_in_parquet_files_need_be_no_utf_8(tmp_path: Path) -> None:
    names = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff.png", b"b.png"]).buffers())
    images = pa.array([b"a", b"b"])
    for columns in (
        {"image": images, "name": names},
        {"image": pa.StructArray.from_arrays([images, names], ["bytes", "path"])},
    ):
        path = write_parquet_table(tmp_path / "a.parquet", pa.table(columns))
        assert all_items(opened(path).sources[0]) == [(os.fsdecode(b"\xff.png"), b"a"), ("b.png", b"b")]


def test_of_what_a_dictionary_repeats_no_more_is_held_than_may_be(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [bytes(1_000_000)] * 40, "name": ["n" * 1_000_000] * 40})
    assert path.stat().st_size < 200_000
    for name, data in all_items(opened(path).sources[0]):
        assert (len(name), len(data)) == (65_536, READING.most_bytes + 1)


def test_columns_with_one_name_are_told_apart_by_nobody(tmp_path: Path) -> None:
    images, names = pa.array([b"a"]), pa.array(["a"])
    cases = {
        "--image-column": pa.Table.from_arrays([images, images], ["image", "image"]),
        "--name-column": pa.Table.from_arrays([images, names, names], ["image", "name", "name"]),
    }
    for flag, table in cases.items():
        path = write_parquet_table(tmp_path / "a.parquet", table)
        with pytest.raises(DatasetError, match=f"{flag} has to say which column it is; several are called"):
            opened(path)


def test_damaged_pages_of_a_parquet_file_are_one_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"bytes": [os.urandom(3000) for _ in range(20)]}, 5)
    data = bytearray(path.read_bytes())
    data[20_000:30_000] = bytes(10_000)
    path.write_bytes(data)
    read = all_items(opened(path).sources[0])
    assert read[-1] == ("a.parquet", "corrupt_shard")


def test_parquet_file_that_cannot_be_read_at_all_is_one_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"bytes": [b"a"]})
    (tmp_path / "b.parquet").write_bytes(b"no")
    dataset = opened(tmp_path)
    assert dataset.images == 2
    assert [all_items(source) for source in dataset.sources] == [[("0", b"a")], [("b.parquet", "corrupt_shard")]]
    assert all_items(dataset.sources[1], 1) == []


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", FIVE)
    parquet = write_parquet(tmp_path / "sub.parquet", {"bytes": [b"a"]})
    write_files(tmp_path, {"a.csv": b"", "x/a.png": b"", "y/a.png": b""})
    cases = {
        "there is nothing at": (tmp_path / "missing*",),
        "is no folder, no tar file, no list": (tmp_path / "a.csv",),
        r"files of several kinds \(tar, parquet\)": (tmp_path,),
        r"of several kinds \(parquet, tar\)": (tar, parquet),
        "one can be given at a time": (tmp_path / "x", tmp_path / "y"),
        "named twice": (tar, tar),
    }
    for told, inputs in cases.items():
        with pytest.raises(DatasetError, match=told):
            opened(*inputs)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("suffix", [".tar", ".txt", ".parquet"])
def test_pipe_or_device_is_no_input(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"endless{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(DatasetError, match="is no regular file"):
            opened(tmp_path / f"{name}{suffix}")


def test_link_that_leads_to_itself_is_one_error_or_none(tmp_path: Path) -> None:
    (write_files(tmp_path / "images", {"b.png": b"b"}) / "a.png").symlink_to("a.png")
    assert all_items(opened(tmp_path / "images").sources[0]) == [("a.png", "unreadable"), ("b.png", b"b")]
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "b.tar", FIVE)
    (tmp_path / "shards" / "a.tar").symlink_to("a.tar")
    assert [all_items(source) for source in opened(tmp_path / "shards").sources] == [FIVE]


def test_name_that_the_system_takes_for_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read: File name too long"):
        opened(tmp_path / ("n" * 300 + ".tar"))
    with pytest.raises(DatasetError, match="is no pattern"):
        opened(tmp_path / "**.tar")


def test_digest_changes_with_the_input(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "folder", {"a.png": b"a"})
    before = opened(folder).digest
    write_files(folder, {"b.png": b"b"})
    assert opened(folder).digest != before
    tar = write_tar(tmp_path / "a.tar", FIVE)
    before = opened(tar).digest
    write_tar(tar, [*FIVE[1:], FIVE[0]])
    os.utime(tar, ns=(1, 1))
    assert opened(tar).digest != before


def test_empty_folder_has_one_source_without_images(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    assert dataset.images == 0
    assert [all_items(source) for source in dataset.sources] == [[]]
