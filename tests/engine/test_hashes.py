"""Hashes of files are kept while the files stand as they are, between processes too, and no longer."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from dealrec.engine import hashes
from dealrec.errors import DataError

BEFORE = time.time() - 3600


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for what is kept, and a process that remembers nothing, an hour from now."""
    monkeypatch.setattr(hashes, "clock", lambda: time.time_ns() + 3600 * 10**9)
    path = tmp_path / "cache" / "hashes.json"
    monkeypatch.setattr(hashes, "_place", lambda: path)
    monkeypatch.setattr(hashes, "_known", {})
    monkeypatch.setattr(hashes, "LARGE", 2**16)
    return path


def large(path: Path, byte: bytes = b"a", moment: float = BEFORE) -> Path:
    path.write_bytes(byte * hashes.LARGE)
    os.utime(path, (moment, moment))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process."""
    monkeypatch.setattr(hashes, "_known", {})


def test_a_large_file_is_read_once_by_all_commands(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(tmp_path / "weights")
    assert hashes.file_hash(path) == digest(path)
    forget(monkeypatch)
    (key,) = json.loads(place.read_text())
    place.write_text(json.dumps({key: "kept"}))
    assert hashes.file_hash(path) == "kept"
    assert hashes.file_hash(path, kept=False) == digest(path)


@pytest.mark.parametrize("change", ["content", "size", "another", "in its place"])
def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = large(tmp_path / "weights")
    before = hashes.file_hash(path)
    if change == "content":
        large(path, b"b", BEFORE + 1)
    elif change == "size":
        path.write_bytes(path.read_bytes() + b"a")
        os.utime(path, (BEFORE, BEFORE))
    elif change == "in its place":  # of the same size and time, and where inodes are used again of the same inode
        path.unlink()
        large(path, b"b")
    else:  # of the same size and time
        large(tmp_path / "other", b"b").rename(path)
    for _ in range(2):
        assert hashes.file_hash(path) == digest(path) != before
        forget(monkeypatch)


@pytest.mark.parametrize("later", [0.0, 3600.0])
def test_what_has_just_changed_or_will_is_always_read(tmp_path: Path, place: Path, later: float) -> None:
    """A clock may be too coarse to tell two changes apart, or go backwards."""
    moment = hashes.clock() / 1e9 + later
    path = large(tmp_path / "weights", moment=moment)
    hashes.file_hash(path)
    large(path, b"b", moment)
    assert hashes.file_hash(path) == digest(path)
    assert not place.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', "null"])
def test_a_damaged_or_foreign_list_is_no_hindrance(tmp_path: Path, place: Path, content: str) -> None:
    place.parent.mkdir()
    place.write_text(content)
    path = large(tmp_path / "weights")
    assert hashes.file_hash(path) == digest(path)
    assert digest(path) in json.loads(place.read_text()).values()


def test_where_nothing_can_be_kept_files_are_read_again(tmp_path: Path, place: Path) -> None:
    place.parent.write_text("a file in its place")
    path = large(tmp_path / "weights")
    assert hashes.file_hash(path) == digest(path)


def test_no_more_than_so_many_are_remembered(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "MOST", 2)
    for name in ("a", "b", "c"):
        hashes.file_hash(large(tmp_path / name))
    kept = json.loads(place.read_text())
    assert len(kept) == 2
    assert f"-{(tmp_path / 'a').stat().st_ino}-" not in "".join(kept)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        hashes.file_hash(tmp_path / "none")
