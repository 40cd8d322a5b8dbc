"""S3 as a file system, with a limit on every wait: a server that is silent, fails or refuses is asked again, and named.

An object appears whole or not at all, and there are no folders: one without objects is not there, and lists as empty.
"""

from __future__ import annotations

import asyncio
import configparser
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import ClientError as TransportError
from botocore import exceptions
from botocore.parsers import ResponseParserError
from s3fs import S3FileSystem
from s3fs.core import S3File, _inner_fetch, sync

from fedtasks.config import read_secret
from fedtasks.config.s3 import SCHEME, bucket_of, reached
from fedtasks.data import patience
from fedtasks.data.patience import Patience
from fedtasks.errors import ConfigError, StorageUnavailable
from fedtasks.text import plain_text

T = TypeVar("T")

_PIECE = 8 << 20
"""What one request reads or writes: S3 takes at most 10,000 pieces of an object."""

_AT_ONCE = 1000
"""So many objects S3 removes by one request."""

_KEYS = ("aws_access_key_id", "aws_secret_access_key")
_BUSY = ("SlowDown", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict")
_FULL = ("XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded")
_UNSENT = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.IncompleteReadError,
    ResponseParserError,
    TransportError,
    TimeoutError,
)
_NO_LOGIN = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
)
_MOST_SAID = 300


def s3(uri: str) -> PatientS3:
    """Return the file system that serves a URI of S3.

    Raises
    ------
    ConfigError
        Nobody has said how its bucket is reached, or the file with the credentials cannot be used.
    """
    bucket = bucket_of(uri)
    settings = reached().get(bucket)
    if settings is None:
        text = (
            f"nobody has said how bucket `{bucket}` is reached: declare what is in it in a party.yaml with section `s3`"
        )
        raise ConfigError(text, field="s3")
    keys = {} if settings.credentials_file is None else read_credentials(settings.credentials_file)
    client = {"region_name": settings.region or None, "verify": settings.authority and str(settings.authority)}
    limits = patience.LIMITS
    return PatientS3(
        key=keys.get("aws_access_key_id"),
        secret=keys.get("aws_secret_access_key"),
        token=keys.get("aws_session_token"),
        endpoint_url=settings.endpoint or None,
        client_kwargs={name: value for name, value in client.items() if value is not None},
        config_kwargs={
            "connect_timeout": limits.connect_s,
            "read_timeout": limits.answer_s,
            "retries": {"total_max_attempts": 1},
            "s3": {"addressing_style": settings.addressing},
        },
        default_block_size=_PIECE,
        use_listings_cache=False,  # others write there
    )


def read_credentials(path: Path) -> dict[str, str]:
    """Return access key, secret and maybe a session's token from a file that nobody but its owner may read.

    Raises
    ------
    ConfigError
        It cannot be read, others may read it, or it is not of that form.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_secret(path))
        found = dict(parser["default"])
    except (configparser.Error, KeyError):
        found = {}
    if not all(found.get(name) for name in _KEYS):
        # Not chained: the parser's message quotes lines.
        text = f"expected a section [default] with {' and '.join(_KEYS)}"
        raise ConfigError(text, where=str(path)) from None
    return {name: found[name] for name in (*_KEYS, "aws_session_token") if found.get(name)}


class PatientS3(S3FileSystem):  # type: ignore[misc]
    """s3fs within `patience.LIMITS`, which makes no bucket.

    Raises
    ------
    StorageUnavailable
        By every operation: the store did not serve it, though it was asked again.
    """

    retries = 1  # how often a request is sent again is a matter of patience

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        def ask() -> Awaitable[Any]:
            asked: Awaitable[Any] = super(PatientS3, self)._call_s3(method, *args, **kwargs)
            return asked

        try:
            return await _patiently(ask, f"{SCHEME}{kwargs.get('Bucket', '')}/{kwargs.get('Key', '')}")
        except OSError as error:
            if "IfNoneMatch" in kwargs and _answer(error)[0] in ("PreconditionFailed", "412"):
                raise FileExistsError(errno.EEXIST, "there is one already") from None
            raise

    async def _cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        found: bytes = await _patiently(lambda: super(PatientS3, self)._cat_file(path, *args, **kwargs), SCHEME + path)
        return found

    async def _ls(self, path: str, *args: Any, **kwargs: Any) -> list[Any]:
        try:
            found: list[Any] = await super()._ls(path, *args, **kwargs)
        except FileNotFoundError as error:
            if error.__cause__ is not None:  # there is no such bucket
                raise
            return []
        return found

    async def _rm(self, path: str, recursive: bool = False, **kwargs: Any) -> None:
        """Remove an object, or all below a folder; no name is taken for a pattern."""
        names = await self._find(path) if recursive else [path]
        for first in range(0, len(names), _AT_ONCE):
            await self._bulk_delete(names[first : first + _AT_ONCE])

    async def _mkdir(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Do nothing: folders are there with what is in them, and buckets are made by whoever answers for them."""

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing, as `_mkdir`."""

    async def _type(self, path: str) -> str | None:
        try:
            return str((await self._info(path))["type"])
        except FileNotFoundError:
            return None

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        return await self._type(path) is not None

    async def _isfile(self, path: str) -> bool:
        return await self._type(path) == "file"

    async def _isdir(self, path: str) -> bool:
        return await self._type(path) == "directory"

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether something is there; what cannot be known raises."""
        return bool(sync(self.loop, self._exists, path))

    def isfile(self, path: str) -> bool:
        """Whether it is an object."""
        return bool(sync(self.loop, self._isfile, path))

    def isdir(self, path: str) -> bool:
        """Whether there are objects below it."""
        return bool(sync(self.loop, self._isdir, path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: folders are there with what is in them."""

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> S3File:
        return _PatientFile(self, path, mode, block_size=block_size or self.default_block_size, **kwargs)


class _PatientFile(S3File):  # type: ignore[misc]
    """An object whose pieces are asked for again."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""

        def fetch() -> Awaitable[bytes]:
            asked: Awaitable[bytes] = _inner_fetch(
                self.fs, self.bucket, self.key, self.version_id, start, end, self.read_kw, self.details
            )
            return asked

        return bytes(sync(self.fs.loop, _patiently, fetch, SCHEME + self.path))


async def _patiently(ask: Callable[[], Awaitable[T]], where: str) -> T:
    """Ask until there is an answer, or patience ends; what is no fault of the store is raised as s3fs says it."""
    left = Patience()
    while True:
        try:
            return await ask()
        except Exception as error:
            said, refused = _fault(error)
            if not said:
                raise
            if not left.lasts(refused=refused):
                raise StorageUnavailable(plain_text(said, _MOST_SAID), where=where) from None
        await asyncio.sleep(patience.LIMITS.pause_s)


def _fault(error: Exception) -> tuple[str, bool]:
    """Return what a store failed with, empty where it is none of its faults, and whether asking again may be vain."""
    code, status = _answer(error)
    if code in _FULL:
        raise OSError(errno.EDQUOT, f"the store is full ({code})") from None
    if status >= 500 or status == 429 or code in _BUSY:
        return f"the store answered {status}: {code}", False
    if isinstance(error, _NO_LOGIN):
        raise PermissionError(errno.EACCES, f"no credentials for S3: {plain_text(str(error), _MOST_SAID)}") from None
    if isinstance(error, exceptions.SSLError):
        return "no TLS with the store: its certificate is refused", True
    if isinstance(error, _UNSENT) and not code:
        return f"the store could not be reached, or broke off: {type(error).__name__}", False
    return "", False


def _answer(error: BaseException) -> tuple[str, int]:
    """Return code and status of an error that the store has answered with."""
    cause = error if isinstance(error, exceptions.ClientError) else error.__cause__
    if not isinstance(cause, exceptions.ClientError):
        return "", 0
    response = cause.response
    return str(response.get("Error", {}).get("Code", "")), int(
        response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )
