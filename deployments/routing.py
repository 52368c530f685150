"""Where a request goes: the prefix tier's router (`cache/prefix/router.py`), fed with what replicas report, and with prompts' tokens."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cache.prefix.drift import Drift
from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys, Tokens
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import LeastCost, Policy, PowerOfTwo, Prompt, RoundRobin, Routed, Router
from deployments.accounts import write_work
from deployments.config import RoutingConfig
from deployments.document_plans import DocumentPlans, with_tokens
from deployments.gossip import Gossip
from deployments.head_start import HeadStart
from deployments.peers import TOPIC
from deployments.rendering import DocumentChat, Renderer
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from deployments.reports import INGRESS_HEADER, SAY_HEADER, WORK_HEADER
from deployments.turns import Charged, Flow, TurnLimits, Turnstile
from deployments.warming import HotPrefix, Warmer
from deployments.watchers import NoWatcher, RoutingWatcher
from retrieval.order import Order

log = logging.getLogger("ray.serve")

_CHARACTERS_A_TOKEN = 4
"""Of English, where tokens are not counted."""
_WORTH = 2.0
"""A prompt is rendered if the prefill that may be saved takes so many times longer."""
_NOBODYS = Flow()
_HOT = 2.0
"""Requests for a prefix, lately, from which on it is worth computing beforehand elsewhere."""


@dataclass(slots=True)
class Ranking:
    """The replicas for one request, best first, and what is reserved for it. To be ended in every case."""

    replicas: list[Replica]
    call: Call
    """What they are to be sent."""
    _routing: "Routing"
    order: Order | None = None
    """Of the chat's documents; None: by rank."""
    _routed: Routed | None = None
    _follows_head_start: bool = False
    _charged: Charged | None = None

    @property
    def predicted(self) -> int | None:
        """Cached tokens on the replica that was asked last; None without a prediction."""
        return self._routed.predicted if self._routed and self._routed.prompt.keys else None

    def asking(self, replica: str) -> Mapping[str, str]:
        """See `deployments.replica_client.Asking`."""
        if self._routed is None:
            return {}
        self._routed.ask(replica)
        work = self._routed.work
        return {INGRESS_HEADER: self._routing.name, WORK_HEADER: write_work(work), **self._routing.said()} if work else {}

    def answered(self) -> None:
        """The first token has come."""
        if self._routed:
            self._routed.prefilled()
            self._routing.turnstile.wake()

    def found(self, cached: int, prompt_tokens: int, answer_tokens: int) -> None:
        """What the engine says it found in its cache, and has computed. Predictions are held against it."""
        if self._charged:
            self._charged.correct(prompt_tokens - cached + answer_tokens)
        if self.predicted is not None:
            self._routing.observe(self.predicted, cached, prompt_tokens, self._follows_head_start)

    def end(self) -> None:
        """Calling it twice is harmless."""
        if self._routed:
            self._routed.end()
            self._routing.turnstile.wake()


class Routing:
    """One for each ingress, in its event loop."""

    def __init__(
        self,
        config: RoutingConfig,
        directory: ReplicaDirectory,
        client: ReplicaClient,
        seed: bytes,
        name: str,
        clock: Callable[[], float],
        watcher: RoutingWatcher | None = None,
    ) -> None:
        """`seed`: of the keys, as the replicas have it; `name`: this ingress's."""
        self.name = name
        self._config = config
        self._directory = directory
        self._client = client
        self._seed = seed
        self._watcher = watcher or NoWatcher()
        self._drift = Drift()
        self.profile = PrefillProfile()
        self._policy = _policy(config, self.profile)
        self._by_load = PowerOfTwo()
        self._keys: BlockKeys | None = None
        self.router = Router(self._policy, self.profile, PrefixIndex(config.max_blocks), 1, clock)
        self.warmer = Warmer(client, self.router)
        self._renderer = Renderer(client, clock)
        limits = TurnLimits(config.fair, config.reorder_window, config.max_waiting, config.max_wait_s)
        self.gossip = Gossip(name)
        self.turnstile = Turnstile(limits, self._room_in, clock, self.gossip.name)
        self.turnstile.news = self.gossip.urgent.set
        self.gossip.add(TOPIC, self.turnstile.peers)
        self._documents = DocumentPlans(self.router, self._renderer, directory, client, self.turnstile, self._watcher, name)
        self.gate = self._documents.gate

    def said(self) -> Mapping[str, str]:
        """What the other ingresses are told with a request: that it was sent."""
        message = self.gossip.message(TOPIC)
        return {SAY_HEADER: message.decode("latin-1")} if message else {}

    @property
    def is_trusted(self) -> bool:
        """Predictions are near what engines find; else requests are spread by load alone."""
        return not self._drift.alarm

    async def rank(
        self,
        call: Call,
        salt: str,
        characters: int,
        is_whole: bool,
        chat: DocumentChat | None = None,
        flow: Flow = _NOBODYS,
        *,
        begins_kept: bool = False,
        adapter: str | None = None,
    ) -> Ranking:
        """`call`: the request as the engine will get it; `characters`: of its prompt; `is_whole`: its answer comes in one piece;
        `chat`: the same request, if its documents may be put in another order; `flow`: whose turn it takes; `begins_kept`: a replica keeps
        its beginning because the tenant has asked for that; `adapter`: whose KV it needs, for which documents keep their order and nothing
        is computed beforehand. Raises `QueueFullError`.
        """
        replicas = self._directory.replicas
        if not replicas:
            return Ranking([], call, self)
        if chat and adapter is None and self._may_plan(replicas) and (planned := await self._planned(replicas, salt, is_whole, chat, flow)):
            return planned
        is_known = self._is_worth_it(replicas[0], characters, begins_kept=begins_kept)
        tokens = await self._renderer.prompt(replicas, call) if is_known else None
        prompt = self._prompt(replicas[0].block_size, tokens, salt, characters, is_whole, adapter)
        if tokens is not None and len(tokens):
            call = with_tokens(replicas[0], call, tokens)
        async with self.turnstile.turn(
            flow, prompt.tokens, lambda: max(self.router.cached(prompt, [replica.id for replica in replicas]))
        ) as charged:
            by_id = {replica.id: replica for replica in self._directory.replicas}  # rendering took a moment
            if not by_id:
                return Ranking([], call, self)
            routed = self.router.route(prompt, list(by_id))
        if tokens is not None and adapter is None:
            self._remember(routed, tokens, salt)
        return Ranking([by_id[name] for name in routed.replicas], call, self, _routed=routed, _charged=charged)

    async def _planned(self, replicas: Sequence[Replica], salt: str, is_whole: bool, chat: DocumentChat, flow: Flow) -> Ranking | None:
        """None: the documents stay in the order of their ranks."""
        found = await self._documents.plan(self.keys_of(replicas[0].block_size), replicas, salt, is_whole, chat, flow)
        if found is None:
            return None
        plan, call, by_id, charged = found
        self._remember(plan.routed, plan.tokens, salt)
        ranked = [by_id[name] for name in plan.routed.replicas]
        return Ranking(ranked, call, self, plan.order, plan.routed, chat.head_start is not None, charged)

    def _remember(self, routed: Routed, tokens: Tokens, salt: str) -> None:
        """What is asked for often is what a new replica needs first."""
        if routed.heat >= _HOT:
            shared = max(routed.cached)
            keys = routed.prompt.keys[: shared // self.router.block_size]
            self.warmer.remember(HotPrefix(keys, tokens[:shared].copy(), salt, routed.heat, self.router.clock()))

    async def head_start(self, salt: str, chat: DocumentChat) -> HeadStart | None:
        """Begins with the prefill of documents that are provisional, if that pays. `chat`: the request with them."""
        if not self.may_start_early:
            return None
        replicas = self._directory.replicas
        return await self._documents.head_start(self.keys_of(replicas[0].block_size), replicas, salt, chat)

    def leave(self, start: HeadStart) -> None:
        """To be called for each head start when its request has ended, however it has."""
        self._documents.leave(start)

    async def lengths(self, chat: DocumentChat) -> tuple[int, list[int]] | None:
        """Tokens of the prompt without the documents, and of each document; None if they cannot be told."""
        replicas = self._directory.replicas
        return await self._renderer.lengths(replicas, chat) if replicas else None

    @property
    def may_start_early(self) -> bool:
        """Head starts can come. Where they cannot, nobody needs provisional results."""
        replicas = self._directory.replicas
        return bool(replicas) and self._may_plan(replicas)

    def _may_plan(self, replicas: Sequence[Replica]) -> bool:
        return self._config.policy == "cost" and self.is_trusted and replicas[0].block_size > 0

    def _is_worth_it(self, replica: Replica, characters: int, *, begins_kept: bool) -> bool:
        """Rendering costs every request a round trip; what it can save is the prefill of the whole prompt."""
        if self._config.policy != "cost" or len(self._directory.known) < 2 or characters < replica.block_size or not replica.block_size:
            return False
        if begins_kept:
            return True
        tokens = characters // _CHARACTERS_A_TOKEN
        return self.profile.seconds(0, tokens) - self.profile.seconds(tokens, 0) > _WORTH * self._renderer.expected_s(characters)

    def _prompt(self, block_size: int, tokens: Tokens | None, salt: str, characters: int, is_whole: bool, adapter: str | None) -> Prompt:
        if tokens is None:
            return Prompt([], max(characters // _CHARACTERS_A_TOKEN, 1), is_whole)
        keys = self.keys_of(block_size)
        return Prompt(keys.chain(keys.root(salt, adapter), tokens), len(tokens), is_whole)

    async def tokens(self, call: Call) -> Tokens | None:
        """Of a request's prompt; None if there is no replica, or no prompt. Raises `RenderError`."""
        replicas = self._directory.replicas
        return await self._renderer.tokens(replicas, call) if replicas else None

    def keys_of(self, block_size: int) -> BlockKeys:
        if self._keys is None or self._keys.block_size != block_size:
            self._keys = BlockKeys(self._seed, block_size)
            self.router.block_size = block_size
        return self._keys

    def _room_in(self) -> float:
        """Seconds until a replica needs more to do. 0 also where there is no replica: nobody waits for one here."""
        now, replicas = self.router.clock(), self._directory.replicas
        return min((self._needs_more_in(replica, now) for replica in replicas), default=0.0)

    def _needs_more_in(self, replica: Replica, now: float) -> float:
        ledger = self.router.ledger(replica.id)
        if ledger.ongoing >= replica.max_running:
            return math.inf
        return max(ledger.backlog_s(now) - self._config.ahead_s, 0.0)

    def observe(self, predicted: int, cached: int, tokens: int, follows_head_start: bool = False) -> None:
        self._watcher.prediction(predicted, cached, tokens)
        if not self._config.self_check or self._config.policy != "cost":
            return
        trusted = self.is_trusted
        # An engine finishes the step in which a head start is given up, thousands of tokens perhaps: more than is predicted is no error.
        error = max(predicted - cached, 0) if follows_head_start else abs(predicted - cached)
        self._drift.add(error, tokens, self._keys.block_size if self._keys else 1)
        if self.is_trusted != trusted:
            self.router.policy = self._policy if self.is_trusted else self._by_load
            self._watcher.trust(self.is_trusted)
            if trusted:
                log.error(
                    "engines find other prefixes in their caches than is predicted, so requests go by load alone; compare the replicas' "
                    "chat templates and block sizes, or set routing.policy to power_of_two",
                    extra={"far_off": round(self._drift.far_share, 2)},
                )
            else:
                log.info("engines find the prefixes that are predicted again")


def _policy(config: RoutingConfig, profile: PrefillProfile) -> Policy:
    if config.policy == "round_robin":
        return RoundRobin()
    if config.policy == "power_of_two":
        return PowerOfTwo()
    return LeastCost(profile, config.repeat)
