"""Reading what others wrote: regular files, up to a size, so that no pipe, device or bomb stops or fills a machine."""

import errno
import gzip
import io
import os
import stat
from pathlib import Path


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes. Raises OSError, also for what is no such file."""
    mode = os.stat(path).st_mode  # before it is opened: a pipe would wait for its other end
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    return data


def gunzip(stored: bytes, limit: int) -> bytes:
    """What a gzip file holds, but `limit` + 1 bytes of it at most. Raises OSError, EOFError or zlib.error."""
    with gzip.GzipFile(fileobj=io.BytesIO(stored)) as file:
        return file.read(limit + 1)
