"""What others could see of a party: what crosses the network unencrypted, and files that other users may read."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from fedtasks.checks import Finding, Verdict
from fedtasks.config import Party, is_loopback, remote_host, split_address, tls_mode

_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})
"""What `sslmode` may be so that a database is never talked to in plain text."""


def plain_traffic(party: Party) -> Iterator[Finding]:
    """Yield what this party says without encryption to other hosts, and to which services there."""
    observed = party.gateway.observed
    if observed is not None and not is_loopback(split_address(observed, "observed")[0]):
        text = f"{observed}: whoever reaches it reads names of peers, pipelines and tickets, unencrypted"
        yield Finding("gateway.observed", Verdict.WARNING, text, "Let nobody but your monitoring reach it")
    airflow = urlsplit(party.airflow.url)
    if airflow.scheme == "http" and not is_loopback(airflow.hostname or ""):
        text = f"{party.airflow.url}: the password crosses the network unencrypted"
        yield Finding("Airflow URL", Verdict.WARNING, text, "Use https")
    databases = [("store's connection", "the store's rows", "store.url", party.store.url)]
    for each in party.datasets:
        if each.sql is not None and tls_mode(each.uri):  # without, its certificate is checked
            databases.append((f"dataset {each.name}", "its rows", "uri", each.uri))
    for subject, what, field, url in databases:
        host = remote_host(url)
        if host and not is_loopback(host) and tls_mode(url) not in _ENCRYPTED:
            text = f"{host}: {what} may cross the network unencrypted"
            remedy = f"Add ?sslmode=verify-full&sslrootcert=FILE to `{field}`"
            yield Finding(subject, Verdict.WARNING, text, remedy)
    if party.hdfs is not None and not is_loopback(split_address(party.hdfs.web, "web")[0]):
        text = f"{party.hdfs.web}: WebHDFS is http, so files cross the network unencrypted"
        remedy = "Keep HDFS in a network that nobody else can listen to"
        yield Finding("HDFS's connection", Verdict.WARNING, text, remedy)
    if party.s3 is not None and party.s3.is_plain and not is_loopback(urlsplit(party.s3.endpoint).hostname or ""):
        text = f"{party.s3.endpoint}: what is read from and written to S3 crosses the network unencrypted"
        yield Finding("S3's connection", Verdict.WARNING, text, "Let `s3.endpoint` be https")
    spark = party.spark
    if spark is not None and not spark.is_local and spark.conf.get("spark.network.crypto.enabled") != "true":
        text = f"{spark.master}: what executors exchange, ids among it, crosses the network unencrypted"
        remedy = "Set spark.authenticate and spark.network.crypto.enabled in `spark.conf`"
        yield Finding("Spark's connections", Verdict.WARNING, text, remedy)


def readers(path: Path) -> str:
    """Say who beside its owner may read a file, or list a folder, on this machine; empty where nobody may."""
    with suppress(FileNotFoundError, NotADirectoryError):
        found = path.stat()
        needs = 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
        above = [place.stat() for place in path.resolve().parents]
        if _allows(found, needs) and all(_allows(place, 0o1) for place in above):
            return "every user of this machine"
        if _allows(found, needs << 3) and all(_lets_group_through(place, found.st_gid) for place in above):
            return f"group {_group(found.st_gid)}"
    return ""


def _allows(found: os.stat_result, bits: int) -> bool:
    return found.st_mode & bits == bits


def _lets_group_through(place: os.stat_result, group: int) -> bool:
    return _allows(place, 0o10 if place.st_gid == group else 0o1)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
