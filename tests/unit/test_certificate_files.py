"""Files that are read again: what changes while they are read, and what seems not to have changed."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from modelready.redis.certificates import CertificateFiles, watch
from modelready.redis.env import FILE
from sidecar.errors import SettingsError
from tests.harness.waiting import auntil


class Pair:
    """Two files that must say the same."""

    def __init__(self, directory: Path) -> None:
        self.one, self.two = directory / "one", directory / "two"
        self.loads: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.write("first")
        self.files = CertificateFiles({"ONE": self.one, "TWO": self.two, "NONE": None}, self.load)

    def write(self, one: str, two: str = "") -> None:
        self.one.write_text(one)
        self.two.write_text(two or one)

    def load(self, contents: Mapping[str, bytes]) -> str:
        one, two = contents["ONE"].decode(), contents["TWO"].decode()
        self.loads.append(f"{one} {two}")
        self.meanwhile()
        if one != two:
            raise SettingsError(f"ONE says {one} and TWO {two}")
        return one


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_change_is_seen_though_time_and_size_stay_the_same(pair: Pair) -> None:
    before = pair.one.stat()
    pair.write("other")
    for path in (pair.one, pair.two):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pair.files.current() == "other"


@pytest.mark.parametrize("half", [False, True])
def test_what_is_written_while_it_is_read_is_left_to_the_next_look(
    half: bool, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Or the bytes that were tried would not be those that are used."""
    pair.write("second", "first" if half else "second")
    pair.meanwhile = lambda: pair.write("third")
    assert pair.files.current() == "first"
    assert caplog.text == ""
    pair.meanwhile = lambda: None
    assert pair.files.current() == "third"


def test_what_was_refused_is_neither_tried_nor_said_again(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    pair.write("second", "first")
    assert [pair.files.current() for _ in range(3)] == ["first"] * 3
    assert pair.loads == ["first first", "second first"]
    assert caplog.text.count("ONE says second and TWO first") == 1
    pair.two.unlink()
    assert [pair.files.current() for _ in range(3)] == ["first"] * 3
    assert caplog.text.count(f"TWO is '{pair.two}': it cannot be read (No such file or directory)") == 1
    pair.write("second", "first")
    pair.files.current()
    pair.write("second")
    assert pair.files.current() == "second"


def test_what_cannot_be_used_at_the_start_ends_it(pair: Pair) -> None:
    pair.write("second", "first")
    with pytest.raises(SettingsError, match="ONE says second"):
        CertificateFiles({"ONE": pair.one, "TWO": pair.two}, pair.load)
    pair.one.unlink()
    with pytest.raises(SettingsError, match=r"ONE is .* it cannot be read"):
        CertificateFiles({"ONE": pair.one}, pair.load)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1_500_000_000)


def one_byte_too_many(path: Path) -> None:
    path.write_bytes(bytes(1024 * 1024 + 1))


STRANGE = {
    fifo: "is no file",
    Path.mkdir: "Is a directory",
    sparse: "is larger than 1 MiB",
    one_byte_too_many: "is larger than 1 MiB",
    (lambda path: path.symlink_to("/dev/zero")): "is no file",
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("make", "reason"), STRANGE.items())
def test_what_would_block_or_fill_the_memory_is_refused_at_once(
    make: Callable[[Path], object], reason: str, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.two.unlink()
    make(pair.two)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert pair.files.current() == "first"
    assert f"TWO is '{pair.two}': it cannot be read ({reason})" in caplog.text
    with pytest.raises(OSError) as raised:  # noqa: PT011 - its words are what counts
        FILE.parse(str(pair.two))
    assert raised.value.strerror == reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_file_of_1_mib_is_read_whole(pair: Pair) -> None:
    pair.write("x" * 1024 * 1024)
    assert pair.files.current() == "x" * 1024 * 1024


@pytest.mark.timeout(10)
async def test_while_a_look_hangs_what_was_there_is_used_and_the_loop_is_free(pair: Pair) -> None:
    """As on a network mount that is away."""
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait()

    pair.meanwhile = hang
    pair.write("second")
    watching = asyncio.create_task(watch(pair.files, seconds=0.01))
    try:
        await auntil(hangs.is_set, 5, "a look hangs")
        assert pair.files.current() == "first"
        assert [thread.daemon for thread in threading.enumerate() if thread.name == "certificate files"] == [True]
    finally:
        goes_on.set()
    await auntil(lambda: pair.files.current() == "second", 5, "the look is done")
    watching.cancel()


async def test_what_cannot_be_used_is_said_though_nobody_connects(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    watching = asyncio.create_task(watch(None, pair.files, seconds=0.01))
    pair.write("second", "first")
    await auntil(lambda: "ONE says second and TWO first" in caplog.text, 5, "it is logged")
    watching.cancel()
