"""HDFS over WebHDFS, with a limit on every wait: a server that is silent, fails or refuses is asked again, and named.

fsspec's client waits without end, takes any failure for the absence of a file, and gives a DataNode's error message out
as the content of a file. This one asks again, a read from the byte where it broke off, each time by another redirect of
the NameNode; when its patience ends, the fault is said to be the store's.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from fsspec.implementations.webhdfs import WebHDFile, WebHDFS
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError

from fedtasks.data import patience
from fedtasks.data.patience import Patience
from fedtasks.errors import StorageUnavailable
from fedtasks.text import plain_text

T = TypeVar("T")

_TOLD = ("GETFILESTATUS", "LISTSTATUS")
"""What is answered in JSON; a proxy on the way may answer with a page of its own."""

_BUSY = (408, 429)
_REFUSED = (401, 403)
_PASSING = ("StandbyException", "RetriableException", "SafeModeException", "InvalidToken", "ExpiredTokenException")
"""What a NameNode refuses with as long as it is not ready; other refusals of a NameNode are meant."""

_DENIED = ("AccessControlException", "SecurityException", "AuthorizationException")
_QUOTA = ("QuotaExceededException", "QuotaByStorageTypeExceededException")
"""What is full stays full, however often it is asked."""
_PIECE = 1 << 16
_MOST_SAID = 300


class _Fault(Exception):
    """A fault of the store: what it said or did, whether it refused, and whether a permission was the reason."""

    def __init__(self, text: str, *, refused: bool = False, denied: bool = False) -> None:
        super().__init__(text)
        self.refused, self.denied = refused, denied


class PatientWebHDFS(WebHDFS):  # type: ignore[misc]
    """fsspec's WebHDFS within `patience.LIMITS`.

    Raises
    ------
    StorageUnavailable
        By every operation: the store did not serve it, though it was asked again.
    """

    def _connect(self) -> None:
        super()._connect()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Limited())
        self.session.hooks["response"] = [_refuse_failed_answer]

    def _call(self, op: str, method: str = "get", path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        ask = functools.partial(super()._call, op, method, path, *args, **kwargs)

        def understood() -> requests.Response:
            answer: requests.Response = ask()
            if op in _TOLD and not isinstance(answer.json(), dict):
                raise requests.exceptions.InvalidJSONError
            return answer

        return self.repeated(understood, path)

    def repeated(self, work: Callable[[], T], path: str | None, done: Callable[[], int] = lambda: 0) -> T:
        """Do something that may be done again, until it is done or patience ends.

        Parameters
        ----------
        path
            The file that it is about.
        done
            How far it has come; whoever comes further is waited for anew.
        """
        left, before = Patience(), done()
        while True:
            try:
                return self.once(work)
            except _Fault as fault:
                if done() > before:
                    before = done()
                    left.renew()
                if not left.wait(refused=fault.refused):
                    raise self.error_of(fault, path) from None

    def once(self, work: Callable[[], T]) -> T:
        """Do something, and tell faults of the store from answers."""
        try:
            return work()
        except requests.RequestException as error:
            raise _fault_of(error) from None
        except RuntimeError as error:  # fsspec's for what it has no word for
            raise _Fault(str(error), refused=True) from None

    def error_of(self, fault: _Fault, path: str | None) -> Exception:
        """Return the error that says so."""
        where = f"webhdfs://{urlsplit(self.url).netloc}{path or ''}"
        said = plain_text(str(fault), _MOST_SAID)
        return PermissionError(f"{said} [{where}]") if fault.denied else StorageUnavailable(said, where=where)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether something is there; what cannot be known raises."""
        return self._type(path) is not None

    def isfile(self, path: str) -> bool:
        """Whether it is a file."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether it is a folder."""
        return self._type(path) == "directory"

    def _type(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None

    def walk(self, path: str, maxdepth: int | None = None, topdown: bool = True, **kwargs: Any) -> Iterator[Any]:
        """Walk through folders; one that cannot be listed raises, so that no file is left out silently."""
        yield from super().walk(path, maxdepth, topdown, **{"on_error": _unless_missing, **kwargs})

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Rename a file, also over another one, in one step."""
        # Without this option HDFS refuses to replace a file, and says so in an answer that fsspec does not read.
        ask = functools.partial(
            super()._call, "RENAME", method="put", path=path1, destination=path2, renameoptions="OVERWRITE"
        )
        tries = 0

        def rename() -> None:
            nonlocal tries
            tries += 1
            try:
                ask()
            except FileNotFoundError:
                # It may be the answer that was lost, not the question.
                if tries == 1 or not self.exists(path2):
                    raise

        self.repeated(rename, path1)

    def mv_new(self, path1: str, path2: str) -> bool:
        """Rename a file unless something has that name already; False, and nothing changed, if so."""
        return bool(self._call("RENAME", method="put", path=path1, destination=path2).json()["boolean"])

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> _PatientFile:
        own = {"autocommit": True, "replication": None, "permissions": None, "tempdir": self.tempdir}
        return _PatientFile(self, path, mode=mode, block_size=block_size or self.blocksize, **{**own, **kwargs})


class _PatientFile(WebHDFile):  # type: ignore[misc]
    """A file that goes on reading where it broke off."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        start, end = max(start, 0), min(self.size, end)
        got = bytearray()

        def read_on() -> None:
            answer = WebHDFS._call(
                self.fs, "OPEN", path=self.path, offset=start + len(got), length=end - start - len(got), redirect=False
            )
            if "Location" not in answer.headers:
                got.extend(answer.content)
            else:
                location = self.fs._apply_proxy(answer.headers["Location"])
                with self.fs.session.get(location, stream=True) as body:
                    for piece in body.iter_content(_PIECE):
                        got.extend(piece)
            if len(got) < end - start:
                raise _Fault(f"the file ended at byte {start + len(got)} of {self.size}", refused=True)

        if start < end:
            self.fs.repeated(read_on, self.path, lambda: len(got))
        return bytes(got)

    def _initiate_upload(self) -> None:
        self.fs.repeated(super()._initiate_upload, self.path)

    def _upload_chunk(self, final: bool = False) -> bool:
        try:
            # What has been appended, or in part, cannot be known: whoever writes begins the file anew.
            return bool(self.fs.once(functools.partial(super()._upload_chunk, final)))
        except _Fault as fault:
            raise self.fs.error_of(fault, self.path) from None


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class _Limited(HTTPAdapter):
    """Sends requests with limits of time, whoever makes them."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        limits = patience.LIMITS
        kwargs["timeout"] = kwargs.get("timeout") or (limits.connect_s, limits.answer_s)
        return super().send(request, *args, **kwargs)


def _refuse_failed_answer(response: requests.Response, **_: object) -> None:
    """Raise what is a fault of the store; refusals that are meant are left to fsspec, but for those of a DataNode."""
    status = response.status_code
    # fsspec checks what a NameNode answers, but takes a DataNode's error message for the content of the file.
    is_datanode = "namenoderpcaddress=" in (response.request.url or "")
    if status < 400 or (status == 404 and not is_datanode):
        return
    exception, message = _remote_exception(response)
    said = f"{urlsplit(response.url).netloc} answered {status}: {message or response.reason}"
    if exception.endswith(_QUOTA):
        raise OSError(errno.EDQUOT, plain_text(said, _MOST_SAID))
    if status >= 500 or status in _BUSY or exception in _PASSING[:3]:
        raise _Fault(said)
    if is_datanode and status == 404:
        raise FileNotFoundError(said)
    if exception in _PASSING or (is_datanode and status in _REFUSED):
        raise _Fault(said, refused=True, denied=exception in _DENIED)
    if is_datanode:
        raise _Fault(said, refused=True)


def _remote_exception(response: requests.Response) -> tuple[str, str]:
    try:
        found = response.json()["RemoteException"]
        return str(found["exception"]), str(found["message"])
    except (ValueError, KeyError, TypeError):
        return "", ""


def _fault_of(error: requests.RequestException) -> _Fault:
    """Say what happened without the URL, which may hold a token."""
    url = getattr(error.request, "url", None) or getattr(error.response, "url", None)
    who = urlsplit(url).netloc if url else "the store"
    if error.response is not None:
        return _Fault(f"{who} answered {error.response.status_code}: {error.response.reason}", refused=True)
    if isinstance(error, requests.exceptions.InvalidJSONError):
        return _Fault(f"{who} did not answer as WebHDFS does", refused=True)
    if isinstance(error, requests.ConnectTimeout):
        return _Fault(f"{who} could not be reached within {patience.LIMITS.connect_s:g} s")
    # What is silent in the middle of its content is told by urllib3's error within one of another name.
    if isinstance(error, requests.Timeout) or isinstance(next(iter(error.args), None), ReadTimeoutError):
        return _Fault(f"{who} did not answer within {patience.LIMITS.answer_s:g} s")
    if isinstance(error, requests.exceptions.SSLError):
        return _Fault(f"no TLS with {who}: its certificate or ours is refused", refused=True)
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return _Fault(f"{who} broke off in the middle of its answer")
    return _Fault(f"{who} could not be reached, or broke the connection")
