"""party.yaml: what is wrong is named by file, line, field and remedy; what is right is made absolute."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedtasks.config import (
    Dataset,
    Event,
    EventTime,
    Feature,
    FeatureType,
    Format,
    IdType,
    Kafka,
    LabelKind,
    Normalisation,
    Party,
    Security,
    TimeUnit,
    check_partition,
    load_party,
    read_secret,
)
from fedtasks.dataclass_io import build, parse_yaml, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, PeerUnknown

GOOD = """\
name: bank
gateway:
  workers: 127.0.0.1:7401
  listen: 0.0.0.0:7400
  certificate: keys/gateway.pem
  private_key: keys/gateway.key
  authority: keys/authority.pem
  ticket_key: keys/ticket.key
  worker_secret_file: keys/worker.secret
airflow:
  url: http://127.0.0.1:8080
  user: fedtasks
  password_file: keys/airflow.password
storage: storage
psi_key: keys/psi.key
peers:
  - name: shop
    authority: peers/shop.pem
    ticket_key: abc=
    address: shop.example:7400
datasets:
  - name: loans
    uri: data/loans.parquet
    id: person
    features: {age: numeric, region: categorical}
    label: repaid
    label_positive: "1"
"""

Load = Callable[[str], Party]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str) -> Party:
        (tmp_path / "party.yaml").write_text(text, encoding="utf-8")
        return load_party(tmp_path / "party.yaml")

    return load_text


def test_load_party_makes_every_path_absolute(load: Load, tmp_path: Path) -> None:
    party = load(GOOD)
    assert party.gateway.ticket_key == tmp_path / "keys" / "ticket.key"
    assert party.airflow.password_file == tmp_path / "keys" / "airflow.password"
    assert party.psi_key == tmp_path / "keys" / "psi.key"
    assert party.peers[0].authority == tmp_path / "peers" / "shop.pem"
    assert party.datasets[0].uri == f"file://{tmp_path}/data/loans.parquet"
    assert party.storage == f"file://{tmp_path}/storage"
    assert party.store.url == f"sqlite:///{tmp_path}/store.db"


@pytest.mark.parametrize(
    ("login", "name", "file"),
    [
        ("user: admin\n  password_file: keys/p", "user `admin`", "p"),
        ("client_id: gateway\n  client_secret_file: keys/s", "client `gateway`", "s"),
        ("token_file: keys/t", "the token of `token_file`", "t"),
    ],
)
def test_load_party_logs_in_by_password_client_or_token(
    load: Load, tmp_path: Path, login: str, name: str, file: str
) -> None:
    airflow = load(GOOD.replace("user: fedtasks\n  password_file: keys/airflow.password", login)).airflow
    assert (airflow.login, airflow.secret_file) == (name, tmp_path / "keys" / file)


@pytest.mark.parametrize(
    "login",
    [
        "user: a",
        "password_file: p",
        "client_id: a",
        "user: a\n  token_file: t",
        "user: a\n  client_secret_file: s",
        "{}",
    ],
)
def test_load_party_needs_one_whole_way_to_log_in(load: Load, login: str) -> None:
    text = GOOD.replace("user: fedtasks\n  password_file: keys/airflow.password", login)
    with pytest.raises(ConfigError, match="name `user` and `password_file`, or `client_id`"):
        load(text.replace("  {}\n", ""))


def test_load_party_names_pipelines_that_start_by_schedule(load: Load) -> None:
    assert load(GOOD).schedules == ()
    assert load(f"{GOOD}schedules: [offline_psi]\n").schedules == ("offline_psi",)
    with pytest.raises(ConfigError, match="not a name"):
        load(f"{GOOD}schedules: [Every Night]\n")


def test_load_party_says_how_long_a_half_waits_without_progress(load: Load) -> None:
    assert load(GOOD).stall_s == 1800
    assert load(f"{GOOD}stall_s: 7200\n").stall_s == 7200
    assert load(GOOD).resume_s == 120
    assert load(f"{GOOD}resume_s: 1800\n").resume_s == 1800
    with pytest.raises(ConfigError, match="resume_s"):
        load(f"{GOOD}resume_s: 5\n")
    for value in ("59", "604801", ".inf", ".nan", "-1"):
        with pytest.raises(ConfigError, match="stall_s"):
            load(f"{GOOD}stall_s: {value}\n")


def test_load_party_knows_where_people_are_told(load: Load, tmp_path: Path) -> None:
    party = load(GOOD + "notify: {webhook_url_file: keys/hook.url, events: [run_failed]}\n")
    assert party.notify is not None
    assert party.notify.webhook_url_file == tmp_path / "keys/hook.url"
    assert party.notify.events == (Event.RUN_FAILED,)
    everything = load(GOOD + "notify: {webhook_url_file: keys/hook.url}\n").notify
    assert everything is not None
    assert everything.events == tuple(Event)
    with pytest.raises(ConfigError, match="events"):
        load(GOOD + "notify: {webhook_url_file: keys/hook.url, events: [everything]}\n")


def test_load_party_keeps_what_is_absolute(load: Load) -> None:
    text = GOOD.replace("storage: storage", "storage: webhdfs://nn:9000/fed").replace(
        "data/loans", "webhdfs://nn:9000/loans"
    )
    text += "store: {url: 'postgresql://fed@db/fed', password_file: /run/secrets/db}\n"
    party = load(text)
    assert party.storage == "webhdfs://nn:9000/fed"
    assert party.datasets[0].uri == "webhdfs://nn:9000/loans.parquet"
    assert (party.store.url, party.store.password_file) == ("postgresql://fed@db/fed", Path("/run/secrets/db"))


def test_load_party_resolves_hdfs_to_what_fsspec_opens(load: Load) -> None:
    text = GOOD.replace("storage: storage", "storage: hdfs://namenode:8020/runs")
    text = text.replace("uri: data/loans.parquet", "uri: hdfs://namenode:8020/loans")

    party = load(text + "hdfs: {web: namenode:9870, user: bank}\n")

    assert (party.storage, party.datasets[0].uri) == (
        "webhdfs://bank@namenode:9870/runs",
        "webhdfs://bank@namenode:9870/loans",
    )
    assert load(text + "hdfs: {web: namenode:9870}\n").storage == "webhdfs://namenode:9870/runs"
    with pytest.raises(ConfigError, match="NameNode's http address") as caught:
        load(text)
    assert caught.value.detail.startswith("`hdfs`")
    assert "party.yaml" in caught.value.where


@pytest.mark.parametrize("section", ["{web: namenode}", "{web: 'namenode:9870', user: a@b}", "{user: a}"])
def test_load_party_with_a_wrong_hdfs_section_is_refused(load: Load, section: str) -> None:
    with pytest.raises(ConfigError):
        load(f"{GOOD}hdfs: {section}\n")


def test_load_party_without_a_path_takes_the_environment(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(GOOD)
    monkeypatch.setenv("FEDTASKS_PARTY", str(tmp_path / "party.yaml"))
    assert load_party().name == "bank"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("name: bank", "name: Bank", 1, "`Bank` is not a name"),
        ("127.0.0.1:7401", "localhost", 3, "`localhost` is neither a socket in a folder of its own"),
        ("127.0.0.1:7401", "localhost:x", 3, "nor host:port"),
        ("127.0.0.1:7401", "http://gateway:7401/", 3, "nor host:port"),
        ("127.0.0.1:7401", "unix:run/workers.sock", 3, "nor host:port"),
        ("127.0.0.1:7401", f"run/{'x' * 81}", 3, "has at most 80 bytes"),
        ("0.0.0.0:7400", "0.0.0.0:70000", 4, "is not host:port"),
        ("url: http://127.0.0.1:8080", "url: ftp://x", 11, "is not an http(s) URL"),
        ("name: shop", "name: bank", 16, "`bank` cannot be its own peer"),
        ("address: shop.example:7400", "adress: shop.example:7400", 20, "unknown field"),
        ("address: shop.example:7400", "address: shop.example", 20, "is not host:port"),
        ("label: repaid", "label: age", 25, "`age` is the label and cannot be a feature"),
        ("id: person", "id: age", 25, "`age` is the id and cannot be a feature"),
        ("id: person", "id: 'person,age'", 25, "`age` is the id and cannot be a feature"),
        ("id: person", "id: 'person,person'", 24, "names a column twice"),
        (
            '{age: numeric, region: categorical}\n    label: repaid\n    label_positive: "1"',
            "{}",
            25,
            "only a label may stand alone",
        ),
        ("age: numeric", "age: number", 25, "`number` is not one of: numeric, categorical"),
        ("label: repaid", "label_kind: binary\n    weight: w", 27, "name the label's column in `label`"),
        ('label_positive: "1"', "label_kind: classes", 22, "list the 2–1000 values"),
        ('label_positive: "1"', "label_kind: rank", 27, "`rank` is not one of: binary, classes, number"),
        ("psi_key: keys/psi.key", "store: {url: 'mysql://x/y'}", 15, "is neither sqlite nor postgresql"),
        ("psi_key: keys/psi.key", "store: {url: 'postgresql://a:pw@x/y'}", 15, "put the password into a file"),
    ],
)
def test_load_party_names_line_and_field(load: Load, tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(GOOD.replace(old, new))
    assert words in caught.value.detail
    assert caught.value.where == f"{tmp_path / 'party.yaml'}:{line}"


def test_load_party_with_two_datasets_of_a_name_is_refused(load: Load) -> None:
    twice = GOOD + GOOD.partition("datasets:\n")[2]
    with pytest.raises(ConfigError, match="`loans` is declared twice"):
        load(twice)


def test_load_party_of_a_list_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        load("- 1\n")


def test_party_unknown_peer_is_named(load: Load) -> None:
    with pytest.raises(PeerUnknown, match="`mill` is not among the peers of bank"):
        load(GOOD).peer("mill")


def test_party_unknown_dataset_lists_the_known_ones(load: Load) -> None:
    with pytest.raises(ConfigError, match="known are: loans"):
        load(GOOD).dataset("cars")


DATASET = Dataset("loans", "file:///x.parquet", "person", {"age": FeatureType.NUMERIC})


def test_schema_digest_ignores_where_the_file_is() -> None:
    assert replace(DATASET, uri="hdfs://y").schema_digest == DATASET.schema_digest


@pytest.mark.parametrize(
    "changed",
    [
        replace(DATASET, id="customer"),
        replace(DATASET, features={"age": FeatureType.CATEGORICAL}),
        replace(DATASET, features={"age": FeatureType.NUMERIC, "sex": FeatureType.CATEGORICAL}),
        replace(DATASET, normalise=(Normalisation.TRIM,)),
        replace(DATASET, label="repaid"),
        replace(DATASET, label="repaid", label_kind=LabelKind.NUMBER),
        replace(DATASET, label="repaid", label_kind=LabelKind.CLASSES, label_classes=("a", "b")),
        replace(DATASET, label="repaid", label_kind=LabelKind.CLASSES, label_classes=("b", "a")),
        replace(DATASET, label="repaid", weight="exposure"),
    ],
)
def test_schema_digest_changes_with_what_a_ticket_pins(changed: Dataset) -> None:
    assert changed.schema_digest != DATASET.schema_digest


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            replace(DATASET, label="repaid", label_positive="1"),
            "3b9b19f8427b29dc5b99c0ed8d6c265c55310dbe11607b13a89c92cacaf58917",
        ),
        (
            replace(DATASET, id="id,day", id_type=IdType.INTEGER),
            "c09f4160ebe12b35228f6ee79ed304ade42a7ffbe95ff8f0fe30653d3776205a",
        ),
    ],
)
def test_schema_digest_of_what_was_possible_before_labels_had_kinds_stays(dataset: Dataset, expected: str) -> None:
    # Tickets hold these digests: another one would make every ticket void.
    assert dataset.schema_digest == expected


def test_load_party_knows_kinds_of_labels_and_weights(load: Load) -> None:
    text = GOOD.replace(
        'label_positive: "1"', "label_kind: classes\n    label_classes: [low, high]\n    weight: exposure"
    )
    (dataset,) = load(text).datasets
    assert (dataset.label_kind, dataset.label_classes, dataset.weight) == (
        LabelKind.CLASSES,
        ("low", "high"),
        "exposure",
    )
    assert load(GOOD).datasets[0].label_kind is LabelKind.BINARY


CLASSES = {"label": "y", "label_kind": LabelKind.CLASSES}


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"label_kind": LabelKind.NUMBER}, "label_kind", "name its column in `label`"),
        ({"label_classes": ("a", "b")}, "label_classes", "only for a label with `label_kind: classes`"),
        ({"label": "y", "label_classes": ("a", "b")}, "label_classes", "leave it out"),
        ({"label": "y", "label_kind": LabelKind.NUMBER, "label_positive": "1"}, "label_positive", "leave it out"),
        ({**CLASSES, "label_classes": ("a", "b"), "label_positive": "a"}, "label_positive", "of kind `classes`"),
        (CLASSES, "label_classes", "0 classes are declared; list the 2–1000 values"),
        ({**CLASSES, "label_classes": ("a",)}, "label_classes", "1 classes are declared"),
        ({**CLASSES, "label_classes": tuple(f"c{n}" for n in range(1001))}, "label_classes", "1001 classes"),
        ({**CLASSES, "label_classes": ("a", "b", "a")}, "label_classes", "`a` stands twice"),
        ({**CLASSES, "label_classes": ("a", " b")}, "label_classes", "has spaces around it"),
        ({**CLASSES, "label_classes": ("a", "")}, "label_classes", "is empty"),
        ({"weight": "w"}, "weight", "only rows with a label have weights"),
        ({"label": "y", "weight": "y"}, "weight", "`y` is the label; name a column of its own"),
        ({"label": "y", "weight": "person"}, "weight", "`person` is the id"),
        ({"label": "y", "weight": "age"}, "weight", "`age` is a feature"),
        ({"label": "y", "weight": ""}, "weight", "is no column"),
    ],
)
def test_dataset_with_a_wrong_label_or_weight_names_field_and_remedy(
    fields: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        replace(DATASET, **fields)
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    "name", ["weight", "label", "split", "tag", "shard", "__file__", "__id__", "a.b", "`x`", "é 𝄞"]
)
def test_dataset_may_call_a_feature_anything_that_is_not_the_product_s(name: str) -> None:
    assert name in replace(DATASET, label="y", weight="w", features={name: FeatureType.NUMERIC}).features


WIDE = replace(DATASET, label="y", label_kind=LabelKind.CLASSES, label_classes=("a", "b"), weight="w")


@pytest.mark.parametrize(
    ("dataset", "declaration", "schema"),
    [
        (
            DATASET,
            "59b71d4e1a30d74b43b56d904ff8c5994bb79165a88807add5e8cc6e5ec3f517",
            "38cb8e683c22bada6b07a4485abe46b2e0308a23592fd13aa25fde5f3ef6d465",
        ),
        (
            WIDE,
            "0302177a6c30d877e2900e06a151be2988dffd6b101ea55702340ec766c71c10",
            "d5a817827980dfafcbef8d9f012a891897206b3d8a21ebb501cfc810e7b2ceaa",
        ),
    ],
    ids=["plain", "with label and weight"],
)
def test_digests_of_a_dataset_from_before_are_what_runs_and_tickets_have_kept(
    dataset: Dataset, declaration: str, schema: str
) -> None:
    assert dataset.declaration_digest == declaration
    assert dataset.schema_digest == schema


@pytest.mark.parametrize(
    "fields",
    [
        {"null": ("-999",)},
        {"not_null": ("NA",)},
        {"endings": ("",)},
        {"format": Format.CSV, "encoding": "cp1252", "delimiter": ";", "quote": "'"},
    ],
)
def test_schema_that_tickets_pin_ignores_how_files_are_read(fields: dict[str, Any]) -> None:
    changed = replace(DATASET, **fields)
    assert changed.schema_digest == DATASET.schema_digest
    assert changed.declaration_digest != DATASET.declaration_digest


def test_schema_that_tickets_pin_says_from_which_column_a_feature_is_read() -> None:
    changed = replace(DATASET, columns={"age": "age of the other one"})
    assert changed.schema_digest != DATASET.schema_digest
    assert changed.column_of("age") == "age of the other one"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"features": {"__fedtasks_label": FeatureType.NUMERIC}}, "features", "begins with `__fedtasks_`"),
        ({"features": {"__FedTasks_x": FeatureType.NUMERIC}}, "features", "only the product's own columns do; rename"),
        ({"features": {"": FeatureType.NUMERIC}}, "features", "is empty"),
        ({"features": {"a\nb": FeatureType.NUMERIC}}, "features", "U+000A"),
        ({"features": {"x" * 129: FeatureType.NUMERIC}}, "features", "say in `columns` what the file calls it"),
        ({"id": "__fedtasks_id"}, "id", "begins with"),
        ({"label": "__fedtasks_label"}, "label", "begins with"),
        ({"columns": {"agee": "x"}}, "columns", "`agee` is no feature; known are: age"),
        ({"columns": {"age": "person"}}, "columns", "cannot be read from `person`, which is the id"),
        ({"columns": {"age": "y"}, "label": "y"}, "columns", "which is the label"),
        ({"null": (" x",)}, "null", "has spaces around it"),
        ({"not_null": ("unknown",)}, "not_null", "means a value anyway; those that do not are: NULL"),
        ({"label": "y", "label_positive": "NA"}, "label_positive", "no value here; name it in `not_null`"),
        ({**CLASSES, "label_classes": ("a", "x"), "null": ("x",)}, "label_classes", "take it out of `null`"),
        ({**CLASSES, "label_classes": ("1", "1.0")}, "label_classes", "`1` and `1.0` are one value"),
        ({"delimiter": ";"}, "delimiter", "only for `format: csv`"),
        ({"format": Format.CSV, "delimiter": ";;"}, "delimiter", "not one ASCII character"),
        ({"format": Format.CSV, "delimiter": '"'}, "quote", "stands between values already"),
        ({"format": Format.CSV, "encoding": "utf-99"}, "encoding", "no encoding that Python knows, such as utf-8"),
        ({"format": Format.CSV, "encoding": "rot13"}, "encoding", "no encoding"),
        ({"endings": ("dat",)}, "endings", "no ending such as `.dat`"),
        ({"uri": "data/x={partition}/y"}, "uri", "must be its last part"),
        ({"uri": "data/x{partition}"}, "uri", "must be its last part"),
        ({"event_keys": ("a",)}, "event_keys", "only for a stream"),
        ({"uri": "kafka://host:9092/clicks"}, "event_time", "a topic is a stream"),
        ({"uri": "kafka://host:9092/clicks", "event_time": EventTime("t")}, "format", "set `format: jsonl`"),
        ({"uri": "kafka://host/clicks", "event_time": EventTime("t")}, "uri", "form kafka://host:port/topic"),
        ({"uri": "kafka://host:9092", "event_time": EventTime("t")}, "uri", "form kafka://host:port/topic"),
        ({"kafka": Kafka()}, "kafka", "only for a topic"),
        ({"shard_by": "a"}, "shard_by", "only for a stream"),
        ({"settle_s": 3.0}, "settle_s", "only for a stream"),
        ({"event_time": EventTime("t"), "uri": "data/{partition}"}, "event_time", "is a folder that grows by files"),
        ({"event_time": EventTime("person")}, "event_time.column", "`person` is the id and cannot be the time as well"),
        ({"event_time": EventTime("y"), "label": "y"}, "event_time.column", "is the label"),
        ({"event_time": EventTime("t"), "settle_s": -1.0}, "settle_s", "not between 0 and 86,400"),
        ({"event_time": EventTime("t"), "event_keys": ("a,",)}, "event_keys", "is empty"),
        ({"event_time": EventTime("t"), "event_keys": ("a, a",)}, "event_keys", "more than once"),
        ({"event_time": EventTime("t"), "event_keys": ("a", " a ")}, "event_keys", "stands twice"),
        ({"event_time": EventTime("t"), "event_keys": ("@minute",)}, "event_keys", "nothing but the time"),
        ({"event_time": EventTime("t"), "event_keys": ("a, @week",)}, "event_keys", "is none of: @minute, @hour, @day"),
        ({"event_time": EventTime("t"), "event_keys": ("a, @day, @hour",)}, "event_keys", "more than once"),
        ({"event_time": EventTime("t"), "event_keys": tuple("abcde")}, "event_keys", "at most 4"),
        (
            {"event_time": EventTime("t"), "event_keys": ("a, b", "b, @day"), "shard_by": "a"},
            "shard_by",
            "`a` is not part of `b, @day`, level 2",
        ),
        ({"event_time": EventTime("t"), "shard_by": "@day"}, "shard_by", "times do not decide shards"),
        ({"event_time": EventTime("t"), "shard_by": "a, a"}, "shard_by", "names a column twice"),
        ({"late_labels": "b"}, "late_labels", "only for a stream"),
        ({"event_time": EventTime("t"), "late_labels": "b"}, "late_labels", "no label that others could replace"),
        ({"features": {"seen": FeatureType.SEQUENCE}}, "features.seen", "`seen: {type: sequence, length: 50}`"),
        ({"features": {"query": FeatureType.VECTOR}}, "features.query", "`query: {type: vector, width: 16}`"),
    ],
)
def test_dataset_with_a_field_that_cannot_be_names_it_and_the_remedy(
    fields: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        replace(DATASET, **fields)
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"column": "__fedtasks_time"}, "column", "begins with"),
        ({"zone": "Mars/Olympus"}, "zone", "no time zone such as `UTC`"),
        ({"zone": "../etc"}, "zone", "no time zone"),
        ({"zone": "UTC", "unit": TimeUnit.SECONDS}, "zone", "only for `unit: iso`"),
        ({"offset_s": float("inf")}, "offset_s", "more than 34,560,000 seconds"),
    ],
)
def test_event_time_that_cannot_be_names_the_field(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        EventTime(**({"column": "t"} | fields))
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"security": Security.SASL_SSL}, "mechanism", "is needed: `security` is SASL_SSL"),
        ({"security": Security.SASL_SSL, "mechanism": "PLAIN", "user": "u"}, "password_file", "is needed"),
        ({"user": "u"}, "user", "only for SASL"),
        ({"mechanism": "GSSAPI"}, "mechanism", "is not one of"),
        ({"authority": Path("a")}, "authority", "only for SSL"),
        ({"security": Security.SSL, "certificate": Path("a")}, "private_key", "name both, or none"),
    ],
)
def test_kafka_that_cannot_be_names_the_field(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        Kafka(**fields)
    assert caught.value.fields["field"] == field


def test_topic_of_yaml_keeps_its_uri_and_has_its_files_beside_party_yaml(load: Load, tmp_path: Path) -> None:
    kafka = "kafka: {security: SSL, authority: keys/kafka.pem}"
    told = f"event_time: {{column: at, unit: ms}}\n    format: jsonl\n    {kafka}"
    text = re.sub(r"uri: data/\S+", "uri: kafka://a:1,b:2/clicks", GOOD)
    dataset = load(text.replace("features: {age", f"{told}\n    features: {{age")).datasets[0]
    assert dataset.uri == "kafka://a:1,b:2/clicks"
    assert dataset.kafka == Kafka(Security.SSL, authority=tmp_path / "keys" / "kafka.pem")


LATE = "event_time: {column: at}\n    late_labels: known"
KNOWN = "\n  - {name: known, uri: known, id: person, features: {}, label: z, event_time: {column: at}}"


def test_late_labels_of_another_stream_are_declared_in_yaml(load: Load) -> None:
    good = GOOD.replace("features: {age", f"{LATE}\n    features: {{age")
    with pytest.raises(ConfigError, match="dataset `known` is not declared"):
        load(good)
    party = load(good.rstrip() + KNOWN)
    assert party.datasets[0].late_labels == party.datasets[1].name == "known"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "loans"}, "is this stream itself"),
        ({"event_time": None}, "no `event_time`, when each label became known"),
        ({"label": None, "features": {"x": FeatureType.NUMERIC}}, "has no `label`"),
        ({"label_kind": LabelKind.NUMBER}, "labels of kind `number`"),
        ({"id_type": IdType.INTEGER}, "has other ids than"),
    ],
)
def test_late_labels_that_cannot_be_meant_for_the_rows_are_refused(fields: dict[str, Any], words: str) -> None:
    rows = replace(DATASET, name="loans", label="y", event_time=EventTime("t"), late_labels="known")
    labels = replace(rows, name="known", late_labels="", features={})
    rows.check_late_labels(labels)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        rows.check_late_labels(replace(labels, **fields))
    assert caught.value.fields["field"] == "late_labels"


def test_stream_is_declared_in_yaml(load: Load) -> None:
    told = "event_time: {column: at, unit: ms, offset_s: -2}\n    event_keys: [person, 'user, @day']\n    settle_s: 9"
    dataset = load(GOOD.replace("features: {age", f"{told}\n    features: {{age")).datasets[0]
    assert dataset.is_stream
    assert dataset.event_time == EventTime("at", TimeUnit.MILLISECONDS, offset_s=-2.0)
    assert dataset.key_levels == (("person",), ("user", "@day"))
    assert dataset.shard_columns == dataset.id_columns
    assert dataset.settle_s == 9.0


def test_keys_of_yaml_are_names_as_they_stand(load: Load) -> None:
    """A column may be called ``null``, ``yes``, ``1`` or ``2026-11-21``, which YAML takes for values of other kinds."""
    features = "features: {yes: numeric, 1: numeric, 1.0: numeric, null: numeric, 2026-11-21: numeric, ~: numeric}"
    dataset = load(
        GOOD.replace("features: {age: numeric, region: categorical}", f"{features}\n    null: ['?']")
    ).datasets[0]
    assert list(dataset.features) == ["yes", "1", "1.0", "null", "2026-11-21", "~"]
    assert dataset.null == ("?",)


def test_partitions_in_the_manner_of_hive_have_a_folder_and_a_prefix() -> None:
    assert replace(DATASET, uri="file:///w/day={partition}").partition_place == ("file:///w", "day=")
    assert replace(DATASET, uri="file:///w/{partition}").partition_place == ("file:///w", "")


def test_digest_is_sha256_of_canonical_json() -> None:
    expected = hashlib.sha256('{"a":["ü"],"b":1}'.encode()).hexdigest()
    assert digest({"b": 1, "a": ["ü"]}) == expected
    assert digest(json.loads('{"a": ["ü"], "b": 1}')) == expected


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_read_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("s", encoding="utf-8")
    file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(file)


def test_read_secret_strips_the_line_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text("s3cret\n", encoding="utf-8")
    assert read_secret(file) == "s3cret"


def test_read_secret_that_is_empty_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch(mode=0o600)
    for name, words in (("empty", "is empty"), ("none", "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            read_secret(tmp_path / name)


@pytest.mark.parametrize("partition", ["2026-11-21", "x", "A_b-9", "p" * 64])
def test_partition_of_plain_signs_is_taken(partition: str) -> None:
    check_partition(partition)


@pytest.mark.parametrize("partition", ["", "p" * 65, "a.b", "a/b", "2026-11-21\n", "٢٠٢٦", "été", "Ⅷ", "²"])
def test_partition_that_streams_cannot_carry_is_refused(partition: str) -> None:
    with pytest.raises(ConfigError, match="partition"):
        check_partition(partition)


# ---------------------------------------------------------------------------------------------------------- tunnels
@pytest.mark.parametrize(
    ("before", "after", "peers", "workers"),
    [
        ("", "", None, ("127.0.0.1", 0)),
        ("listen: 0.0.0.0:7400", "listen: 127.0.0.1:7400", ("127.0.0.1", 0), ("127.0.0.1", 0)),
        (
            "listen: 0.0.0.0:7400",
            "listen: 0.0.0.0:7400\n  tunnels: 10.1.2.3:7402",
            ("10.1.2.3", 7402),
            ("127.0.0.1", 0),
        ),
        ("workers: 127.0.0.1:7401", "workers: 10.1.2.3:7401", None, None),
        ("workers: 127.0.0.1:7401", "workers: 10.1.2.3:1\n  worker_tunnels: 10.1.2.3:2", None, ("10.1.2.3", 2)),
        ("workers: 127.0.0.1:7401", "workers: run/workers.sock", None, None),
        ("  listen: 0.0.0.0:7400\n", "", None, ("127.0.0.1", 0)),
    ],
)
def test_tunnels_arrive_where_party_yaml_says_or_on_loopback(
    load: Load, before: str, after: str, peers: tuple[str, int] | None, workers: tuple[str, int] | None
) -> None:
    gateway = load(GOOD.replace(before, after, 1) if before else GOOD).gateway

    assert (gateway.peer_tunnels_at, gateway.worker_tunnels_at) == (peers, workers)


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("  listen: 0.0.0.0:7400\n", "  tunnels: 0.0.0.0:7402\n", "tunnels"),
        ("  listen: 0.0.0.0:7400\n", "  listen: 0.0.0.0:7400\n  tunnels: everywhere\n", "tunnels"),
        ("workers: 127.0.0.1:7401", "workers: run/workers.sock\n  worker_tunnels: 127.0.0.1:2", "worker_tunnels"),
        ("address: shop.example:7400", "address: shop.example:7400\n    tunnels: 7402", "tunnels"),
    ],
)
def test_tunnels_that_cannot_be_are_refused_by_the_field(load: Load, before: str, after: str, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        load(GOOD.replace(before, after, 1))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite:///store.db", "sqlite:///{folder}/store.db"),
        ("sqlite:////var/lib/fedtasks/store.db", "sqlite:////var/lib/fedtasks/store.db"),
        ("sqlite+pysqlite:////var/lib/store.db", "sqlite+pysqlite:////var/lib/store.db"),
        ("sqlite:///data/store.db?timeout=5", "sqlite:///{folder}/data/store.db?timeout=5"),
        ("postgresql://me@host:5432/fed", "postgresql://me@host:5432/fed"),
    ],
)
def test_store_url_keeps_an_absolute_path_and_resolves_a_relative_one(
    load: Load, tmp_path: Path, given: str, expected: str
) -> None:
    assert load(f"{GOOD}\nstore: {{url: '{given}'}}\n").store.url == expected.format(folder=tmp_path)


def test_log_is_for_people_on_standard_output_unless_party_yaml_says_otherwise(load: Load, tmp_path: Path) -> None:
    plain = load(GOOD)
    assert (plain.logs.is_json, plain.logs.file) == (False, None)
    found = load(f"{GOOD}\nlogs: {{format: json, file: logs/gateway.log}}\n")
    assert (found.logs.is_json, found.logs.file) == (True, tmp_path / "logs" / "gateway.log")
    with pytest.raises(ConfigError, match="expected 1 to 100, not 0"):
        load(f"{GOOD}\nlogs: {{keep: 0}}\n")


def test_store_that_is_away_is_waited_for_as_long_as_party_yaml_says(load: Load) -> None:
    assert load(GOOD).store.patience_s == 600
    assert load(f"{GOOD}\nstore: {{patience_s: 30}}\n").store.patience_s == 30
    with pytest.raises(ConfigError, match="between 0 and 86400 s"):
        load(f"{GOOD}\nstore: {{patience_s: -1}}\n")


LISTS = {
    "age": Feature(FeatureType.NUMERIC),
    "city": Feature(FeatureType.CATEGORICAL, hash_buckets=100),
    "seen": Feature(FeatureType.SEQUENCE, length=50, separator="|"),
    "query": Feature(FeatureType.VECTOR, width=16),
}


def test_features_with_more_to_say_are_read_from_party_yaml_and_back() -> None:
    text = """
    name: people
    uri: people
    id: person
    features:
      age: {type: numeric}
      city: {type: categorical, hash_buckets: 100}
      seen: {type: sequence, length: 50, separator: "|"}
      query: {type: vector, width: 16}
    """
    dataset = build(Dataset, *parse_yaml(text, "party.yaml"))
    assert dataset.features == {**LISTS, "age": FeatureType.NUMERIC}
    assert dataset.details == {name: LISTS[name] for name in ("city", "seen", "query")}
    assert [kind.value for kind in dataset.model_features.values()] == ["numeric", "categorical", "sequence", "vector"]
    assert build(Dataset, to_plain(dataset)) == dataset


def test_feature_with_one_type_to_say_is_that_type() -> None:
    short, long = (replace(DATASET, features={"age": each}) for each in (FeatureType.NUMERIC, LISTS["age"]))
    assert short == long
    assert short.declaration_digest == long.declaration_digest == DATASET.declaration_digest


def test_schema_that_tickets_pin_says_the_type_of_a_feature_and_not_its_size() -> None:
    one = replace(DATASET, features=LISTS)
    other = replace(one, features={**LISTS, "seen": Feature(FeatureType.SEQUENCE, length=9)})
    assert one.schema_digest == other.schema_digest
    assert one.declaration_digest != other.declaration_digest
    assert one.schema_digest != replace(one, features={**LISTS, "seen": FeatureType.CATEGORICAL}).schema_digest


@pytest.mark.parametrize(
    ("declared", "field", "words"),
    [
        ("{type: sequence}", "features.x.length", "say it of a sequence, from 1 to 10,000"),
        ("{type: vector}", "features.x.width", "say it of a vector"),
        ("{type: vector, width: 0}", "features.x.width", "0 is not between 1 and 10,000"),
        ("{type: categorical, hash_buckets: 1}", "features.x.hash_buckets", "1 is not between 2 and 100,000,000"),
        ("{type: numeric, hash_buckets: 9}", "features.x.hash_buckets", "only for type categorical or sequence"),
        ("{type: vector, width: 3, length: 3}", "features.x.length", "only for type sequence, and this is vector"),
        ('{type: vector, width: 3, separator: ""}', "features.x.separator", "at most 10 characters"),
        ("{type: list}", "features.x.type", "`list` is not one of: numeric"),
        ("{length: 3}", "features.x.type", "is required"),
        ("lists", "features.x", "`lists` is not one of: numeric"),
        ("", "features.x", "`None` is not one of: numeric"),
        (
            "{type: sequence, length: 3, buckets: 4}",
            "features.x.buckets",
            "unknown field; known are: type",
        ),
    ],
)
def test_feature_that_cannot_be_names_line_field_and_remedy(declared: str, field: str, words: str) -> None:
    text = f"name: people\nuri: people\nid: person\nfeatures:\n  x: {declared}\n"
    with pytest.raises(ConfigError) as caught:
        build(Dataset, *parse_yaml(text, "party.yaml"))
    assert caught.value.detail.startswith(f"`{field}`: ")
    assert words in caught.value.detail
    assert caught.value.where == "party.yaml:5"
