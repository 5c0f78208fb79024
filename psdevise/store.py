"""Files on any fsspec path: written beside, then renamed; checksummed; full disks named.

A reader never sees half a file: `write_atomic` writes `PATH.part-<pid>` and renames it over PATH only
when it is complete and, on a local disk, flushed. Object stores have no rename, but there an object
appears whole when its upload ends, which is the same promise.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from psdevise.errors import StoreError

# Packages of object stores' clients, whose errors are no OSErrors.
REMOTE = frozenset({"aiohttp", "aiobotocore", "botocore", "gcsfs", "google"})
STALLED_SECONDS = 120.0  # an upload that makes no progress for as long (at most twice that) has failed


def filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of `path` and the path inside it.

    Raises:
        StoreError: the protocol is unknown or its package is not installed.
    """
    try:
        fs, inside = fsspec.core.url_to_fs(os.fspath(path))
    except (ImportError, ValueError) as e:
        raise StoreError(str(e), where=str(path), mend="install the fsspec package for this protocol") from e
    return fs, inside


def is_local(path: str) -> bool:
    return isinstance(filesystem(path)[0], LocalFileSystem)


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


def exists(path: str) -> bool:
    fs, inside = filesystem(path)
    with explained(path):
        return bool(fs.exists(inside))


def make_folder(path: str) -> None:
    fs, inside = filesystem(path)
    with explained(path):
        fs.makedirs(inside, exist_ok=True)


def listing(path: str) -> list[str]:
    """Names (not paths) inside a folder, sorted; empty if there is no such folder."""
    fs, inside = filesystem(path)
    with explained(path):
        if not fs.exists(inside):
            return []
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(inside, detail=False, refresh=True))


def remove(path: str) -> None:
    fs, inside = filesystem(path)
    with explained(path):
        if fs.exists(inside):
            fs.rm(inside, recursive=True)


def open_read(path: str) -> IO[bytes]:
    fs, inside = filesystem(path)
    with explained(path):
        return fs.open(inside, "rb")  # type: ignore[no-any-return]


def read_bytes(path: str) -> bytes:
    with open_read(path) as f, explained(path):
        return f.read()


def read_text(path: str) -> str:
    """UTF-8, with or without the mark that some editors put in front.

    Raises:
        StoreError: not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise StoreError(f"not UTF-8 text: {e}", where=path, mend="is it compressed, or in another encoding?") from e


def read_json(path: str) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise StoreError(f"not JSON: {e}", where=path, mend="the file was cut off or edited; remove it") from e


def write_atomic(path: str, write: Callable[[IO[bytes]], object]) -> str:
    """Calls `write(file)` on a file beside `path`, then renames it into place; returns its SHA-256.

    Raises:
        StoreError: no space, no permission; whatever stood at `path` before is untouched.
    """
    fs, inside = filesystem(path)
    with explained(path):
        fs.makedirs(inside.rsplit("/", 1)[0], exist_ok=True)
        if not isinstance(fs, LocalFileSystem):
            file = fs.open(inside, "wb", autocommit=False)
            hashing = _Hashing(file)

            def upload() -> None:
                write(hashing)  # type: ignore[arg-type]
                file.close()
                if not hashing.given_up:
                    file.commit()

            try:
                if isinstance(fs, AsyncFileSystem):  # over a network
                    _watched(upload, hashing, path)
                else:
                    upload()
            except BaseException:
                file.closed = True  # else what was written so far would be finished when the file is collected
                with suppress(Exception):  # the server may be away: the first error is the one to tell
                    file.discard()
                raise
            return hashing.digest()
        part = f"{inside}.part-{os.getpid()}"
        try:
            with open(part, "wb") as f:
                hashing = _Hashing(f)
                write(hashing)  # type: ignore[arg-type]
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, inside)
        except BaseException:
            if os.path.exists(part):
                os.unlink(part)
            raise
        return hashing.digest()


def _watched(upload: Callable[[], None], hashing: _Hashing, path: str) -> None:
    """Runs `upload` in a thread and looks at its progress: clients of object stores have a deadline for an answer, but
    none for a server that stops to read."""
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            upload()
        except BaseException as e:
            ended.put(e)
        else:
            ended.put(None)

    threading.Thread(target=run, daemon=True, name="upload").start()
    position = -1
    while True:
        try:
            error = ended.get(timeout=STALLED_SECONDS)
        except queue.Empty:
            if hashing.tell() == position:
                hashing.given_up = True
                raise StoreError(
                    f"the storage has taken nothing for {STALLED_SECONDS:g} s",
                    where=path,
                    mend="is it up? Give the same command again: what was finished is kept",
                ) from None
            position = hashing.tell()
            continue
        if error is not None:
            raise error
        return


def write_bytes(path: str, data: bytes) -> str:
    return write_atomic(path, lambda f: f.write(data))


def write_text(path: str, text: str) -> str:
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str, value: Any) -> str:
    return write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_sealed(path: str, value: dict[str, Any]) -> str:
    """JSON with a checksum of its own under the key `checksum`."""
    plain = json.loads(json.dumps(value))  # as it will be read: keys are strings
    return write_json(path, plain | {"checksum": _seal(plain)})


def read_sealed(path: str) -> dict[str, Any]:
    """
    Raises:
        StoreError: also where the content is not what was written.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.pop("checksum", None) != _seal(value):
        raise StoreError("its checksum is not that of its content: cut off or changed", where=path)
    return value


def _seal(value: Any) -> str:
    return sha256_of(json.dumps(value, sort_keys=True).encode())


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open_read(path) as f, explained(path):
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def key_of(value: Any) -> str:
    """A content key: the first 16 hex digits of the SHA-256 of the value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns an OSError into a StoreError that names the path and the mend."""
    try:
        yield
    except FileNotFoundError as e:
        raise StoreError("no such file or folder", where=path, mend="check the path") from e
    except PermissionError as e:
        raise StoreError("permission denied", where=path, mend="check the owner and mode of the folder") from e
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            mend = "free some space and give the same command again: what was finished is kept"
            raise StoreError("no space left on the disk", where=path, mend=mend) from e
        raise StoreError(str(e) or type(e).__name__, where=path) from e
    except Exception as e:
        if type(e).__module__.split(".")[0] not in REMOTE:
            raise
        mend = "is the storage up? Give the same command again: what was finished is kept"
        raise StoreError(str(e) or type(e).__name__, where=path, mend=mend) from e


class _Hashing:
    """A writer that hashes what passes through; not seekable, so that nothing is rewritten unhashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha = hashlib.sha256()
        self._position = 0
        self.closed = False
        self.given_up = False

    def write(self, data: bytes) -> int:
        if self.given_up:
            raise StoreError("given up")
        self._sha.update(data)
        self._file.write(data)
        self._position += len(memoryview(data).cast("B"))
        return len(memoryview(data).cast("B"))

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def digest(self) -> str:
        return self._sha.hexdigest()
