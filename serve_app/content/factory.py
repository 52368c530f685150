"""Makes what content rules need from their configuration. Libraries are imported where there is something for them to do."""

from collections.abc import Sequence

from cache.keys import fingerprint
from serve_app.content.base import Matcher, Moderator, Rule, Where
from serve_app.content.config import ContentConfig, ModeratorConfig, RuleConfig
from serve_app.content.guard import Content, Guard
from serve_app.content.invisible import Visible
from serve_app.content.moderation import Moderation
from serve_app.content.stream import RuleSet
from serve_app.metrics import Metrics

READING = 3
"""Raised when rules find more than before in the same text: what was kept without that is not replayed."""


def make_content(config: ContentConfig, metrics: Metrics, moderator: Moderator | None = None) -> Content | None:
    """None: there are no rules for anybody. `moderator`: instead of the configured one."""
    factory = _Factory(config, metrics, moderator)
    everybody = factory.guard("")  # no tenant has this name
    tenants = {name: guard for name in config.tenants if (guard := factory.guard(name))}
    return Content(everybody, tenants, factory.moderator) if everybody or tenants else None


def make_matcher(rules: Sequence[Rule]) -> Matcher | None:
    """None: there is nothing to find."""
    return _joined(_matchers(rules))


class _Factory:
    """What is for all tenants is made once for all of them."""

    def __init__(self, config: ContentConfig, metrics: Metrics, moderator: Moderator | None) -> None:
        self._config = config
        self._metrics = metrics
        self.moderator = moderator
        if moderator is None and config.moderator and any(config.of(name).moderated for name in ("", *config.tenants)):
            self.moderator = _http_moderator(config.moderator)
        self._of_all = {where: _matchers(_rules(config.all.rules, where)) for where in ("prompt", "answer")}

    def guard(self, tenant: str) -> Guard | None:
        """None: there are no rules for it."""
        rules = self._config.of(tenant)
        moderation = self._moderation() if rules.moderated else None
        if not rules.rules and moderation is None:
            return None
        passed = self._passed(_rules(rules.rules, "answer"), moderation)
        return Guard(self._matcher(tenant, "prompt"), self._matcher(tenant, "answer"), moderation, passed, self._metrics)

    def _matcher(self, tenant: str, where: Where) -> Matcher | None:
        own = self._config.tenants[tenant].rules if tenant else ()
        return _joined([*self._of_all[where], *_matchers(_rules(own, where))])

    def _moderation(self) -> Moderation | None:
        config = self._config.moderator
        return Moderation(self.moderator, config.on_failure, config.answers, self._metrics) if config and self.moderator else None

    def _passed(self, rules: Sequence[Rule], moderation: Moderation | None) -> str:
        """See `Guard.fingerprint`."""
        judge = self._config.moderator if moderation and moderation.judges_answers else None
        if not rules and judge is None:
            return ""
        model = judge and [judge.url, judge.model]
        return fingerprint(
            {"rules": [[rule.action, rule.words, rule.patterns, rule.look_alikes] for rule in rules], "model": model, "reading": READING}
        )


def _rules(rules: Sequence[RuleConfig], where: Where) -> list[Rule]:
    return [each.rule() for each in rules if each.where in (where, "both")]


def _matchers(rules: Sequence[Rule]) -> list[Matcher]:
    matchers: list[Matcher] = []
    if any(rule.words for rule in rules):
        from serve_app.content.words import WordMatcher

        matchers.append(WordMatcher(rules))
    if any(rule.patterns for rule in rules):
        from serve_app.content.patterns import PatternMatcher

        matchers.append(PatternMatcher(rules))
    return matchers


def _joined(matchers: Sequence[Matcher]) -> Matcher | None:
    return Visible(RuleSet(matchers)) if matchers else None


def _http_moderator(config: ModeratorConfig) -> Moderator:
    from serve_app.content.moderation_http import HttpModerator

    return HttpModerator(config.url, config.secret_key(), config.model, config.timeout_s)
