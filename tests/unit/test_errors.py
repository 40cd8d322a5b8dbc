"""The registry is complete, and what a peer may see is only what is safe."""

from __future__ import annotations

import pytest

from fedtasks import errors
from fedtasks.errors import WHO, ConfigDiffers, FedtasksError, PeerFailed, from_code, leaves

LEAVES = list(leaves())
OF_REGISTRY = [leaf for leaf in LEAVES if leaf.__module__.startswith("fedtasks.errors.")]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.code)
def test_leaf_tells_what_who_and_remedy(leaf: type[FedtasksError]) -> None:
    assert leaf.code == leaf.code.upper()
    assert leaf.summary
    assert leaf.remedy
    assert leaf.who in WHO
    assert (leaf.__doc__ or "").startswith("Raised ")
    assert not leaf.summary.endswith(".")
    assert not leaf.remedy.endswith(".")


def test_every_error_of_the_registry_is_imported_from_its_front() -> None:
    assert OF_REGISTRY
    assert [leaf.__name__ for leaf in OF_REGISTRY if getattr(errors, leaf.__name__, None) is not leaf] == []
    assert [leaf.__name__ for leaf in OF_REGISTRY if leaf.__name__ not in errors.__all__] == []
    assert len(errors.__all__) == len(set(errors.__all__))


def test_codes_are_unique() -> None:
    codes = [leaf.code for leaf in LEAVES]
    assert sorted(codes) == sorted(set(codes))


def test_every_subclass_without_children_has_a_code_of_its_own() -> None:
    def childless(root: type[FedtasksError]) -> list[type[FedtasksError]]:
        children = root.__subclasses__()
        return [leaf for child in children for leaf in childless(child)] if children else [root]

    of_registry = [leaf for leaf in childless(FedtasksError) if leaf.__module__.startswith("fedtasks.errors.")]
    assert [leaf.__name__ for leaf in of_registry if "code" not in vars(leaf)] == []


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.code)
def test_leaf_is_rebuilt_from_its_code(leaf: type[FedtasksError]) -> None:
    error = from_code(leaf.code, "detail", where="place")
    assert (type(error), error.detail, error.where) == (leaf, "detail", "place")


def test_unknown_code_becomes_peer_failed_and_keeps_its_name() -> None:
    error = from_code("FROM_THE_FUTURE", "new words")
    assert isinstance(error, PeerFailed)
    assert error.detail == "FROM_THE_FUTURE: new words"


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.code)
def test_public_text_has_fields_but_never_the_detail(leaf: type[FedtasksError]) -> None:
    error = leaf("row 7 of /data/people.csv", where="/data/people.csv", clause="datasets")
    assert "people" not in error.public
    assert error.public == f"{leaf.summary} (clause=datasets)"


def test_text_is_code_what_where_and_remedy() -> None:
    error = ConfigDiffers(field="epochs", ours=8, theirs=10, where="train")
    assert str(error) == (
        "CONFIG_DIFFERS: The two sides' configurations differ (field=epochs, ours=8, theirs=10) [train]. "
        "Agree on the named field and deploy the same DAG on both sides"
    )
