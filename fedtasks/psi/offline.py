"""Task `psi`: find the people whom both parties know.

::

    stage     client                                     signer
    prepare                ◄── key, proof of the key ──
              blind new ids ── files, sets held ──►      tag its new ids
                           ◄── files, what is new ──     count what is asked
    send                     ── blinded ids ──►                              per shard
    sign                                                 answer
    answer                 ◄── answers, new tags ──                          per shard
    match     finish, match  ── common tags ──►          match

All stages run in one process, or each in one of its own. Either half ends with the same tags, each with its own ids;
with ``learns: size``, with their number. Then there is no key that stays, all ids are new, and both answers and blinded
ids are cut into shards by their value, so that neither says where the other was.
"""

from __future__ import annotations

from fedtasks.dataclass_io import build
from fedtasks.errors import ConfigError
from fedtasks.link.link import Link
from fedtasks.psi import inspection
from fedtasks.psi.client import ClientHalf
from fedtasks.psi.settings import Learns, PsiSettings
from fedtasks.psi.signer import SignerHalf
from fedtasks.psi.size import SizeClientHalf, SizeSignerHalf
from fedtasks.runtime.context import Outcome, TaskContext, facts_of


def run(context: TaskContext) -> Outcome:
    """Find the common ids with the other half, and publish whose tags are whose, if that is agreed.

    Raises
    ------
    DataError
        This party's dataset is not what was declared; see `fedtasks.data.tables` and `fedtasks.data.values`.
    IntersectionEmpty
        The halves share fewer people than `min_intersection`; raised on both sides.
    TicketExhausted, TicketRateLimited
        The signer's ticket does not allow so many ids; nothing was signed.
    CryptoError
        The key or an answer cannot be trusted.

    Notes
    -----
    Reveals: as `learns` says, to the client and to the signer which of its ids the other has. To both, how many the
    other has in all and how many are new or gone since the last time, rounded as `pad_rows` says; and if few are
    shared and the ticket says so, how the other's ids are written (`fedtasks.psi.inspection.explain`). Only the client
    could lie about what it has in common; with ``learns: size``, the signer too.
    Cost: one private operation per new id of either side, all at the signer; per new id of the client two rows of
    ``element_bytes`` cross, per new id of the signer 16 bytes.
    Source: RFC 9474; RFC 9497; De Cristofaro and Tsudik, "Practical private set intersection protocols", 2010; for
    ``size`` see `fedtasks.crypto.cardinality`.
    """
    config = context.config
    settings = build(PsiSettings, config.settings, path="settings")
    half = _half(context, settings)
    if config.stage == "sign":
        return half.sign()  # the client has nothing to say meanwhile
    # What is wrong here is said before the peer is kept waiting.
    if config.stage in ("", "prepare"):
        context.storage.forget_abandoned(config.task)
        inspection.inspect(context, half.parts, half.state)
    else:
        _ = half.plan
    facts = facts_of(settings, **context.dataset.id_facts, **inspection.facts(context))
    with context.open_link(facts) as link:
        if config.stage:
            return _stage(half, config.stage, link, config.shard or 0)
        with half.engine():
            return _all_stages(half, link)


def _stage(half: SignerHalf | ClientHalf, stage: str, link: Link, shard: int) -> Outcome:
    if stage == "prepare":
        return half.prepare(link)
    if stage == "send":
        return half.send(link, [shard])
    if stage == "answer":
        return half.answer(link, shard)
    if stage == "match":
        return half.match(link)
    raise ConfigError(f"`{stage}` is not a stage of the intersection", field="stage")


def _all_stages(half: SignerHalf | ClientHalf, link: Link) -> Outcome:
    half.prepare(link)
    half.send(link, range(half.settings.shards))
    return half.finish(link)


def _half(context: TaskContext, settings: PsiSettings) -> SignerHalf | ClientHalf:
    is_signer = _signer(context, settings) == context.party.name
    if settings.learns is Learns.SIZE:
        return (SizeSignerHalf if is_signer else SizeClientHalf)(context, settings)
    return (SignerHalf if is_signer else ClientHalf)(context, settings)


def _signer(context: TaskContext, settings: PsiSettings) -> str:
    config = context.config
    parties = (context.party.name, config.peer)
    if settings.signer and settings.signer not in parties:
        raise ConfigError(f"`{settings.signer}` is not one of: {', '.join(sorted(parties))}", field="settings.signer")
    return settings.signer or next(name for name in parties if name != config.leader)
