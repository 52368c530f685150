"""Configuration of content rules."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from cache.config import TENANT_NAME, Secret, Section
from serve_app.content.base import Action, LookAlikes, Rule, Where
from serve_app.content.folding import fold
from serve_app.content.invisible import visible
from serve_app.content.moderation import NAME, OnFailure


def _usable(pattern: str) -> str:
    from serve_app.content.patterns import check  # RE2, for those who have patterns

    check(pattern)
    return pattern


Pattern = Annotated[str, AfterValidator(_usable)]


def _seen(word: str) -> str:
    if not visible(word):
        raise ValueError("it has no character that is seen")
    return word


Word = Annotated[str, Field(min_length=1, pattern=r"^\S(?s:.*\S)?\z"), AfterValidator(_seen)]
RuleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class RuleConfig(Section):
    """What may not stand in a text, and what is done where it does."""

    name: RuleName
    """In errors and metrics."""
    where: Where = "both"
    """`prompt`, `answer`, or `both`."""
    action: Action = "block"
    """`block`: the prompt is refused, the answer ends before the match. `mask`: what matches is replaced by `***`."""
    words: tuple[Word, ...] = ()
    """Without case and width. Words of scripts with spaces match whole words, those of others (Chinese) wherever they stand."""
    look_alikes: LookAlikes = "mixed"
    """Letters of other scripts that look like a word's count where scripts are mixed (`mixed`), or wherever they stand (`all`): then the
    Russian word for mouth is `pot`, too."""
    patterns: tuple[Pattern, ...] = ()
    """Regular expressions as RE2 reads them. None may match more than `content.window` characters."""

    @field_validator("name")
    @classmethod
    def _is_not_taken(cls, name: str) -> str:
        if name == NAME:
            raise ValueError(f"{NAME} is what the moderation model is called")
        return name

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.words and not self.patterns:
            raise ValueError("it needs words or patterns")
        return self

    def rule(self) -> Rule:
        return Rule(self.name, self.action, self.words, self.patterns, self.look_alikes)


class RulesConfig(Section):
    """One tenant's rules, or those of all."""

    rules: Annotated[tuple[RuleConfig, ...], Field(max_length=100)] = ()
    moderated: bool | None = None
    """Whether the moderation model judges prompts and answers. Unset for a tenant: as for all."""


class ModeratorConfig(Section):
    """A moderation model that speaks OpenAI's `POST /v1/moderations`."""

    url: Annotated[str, Field(pattern=r"^https?://\S+$")] = "https://api.openai.com/v1/moderations"
    key: Secret | None = None
    model: Annotated[str, Field(min_length=1)] | None = None
    """Unset: its own default."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    on_failure: OnFailure = "closed"
    """Without a verdict: `closed` answers 503, `open` goes on."""
    answers: bool = True
    """It judges answers too: whole ones before they are sent; of streamed ones it can only stop that they are kept."""

    def secret_key(self) -> str | None:
        return self.key.get_secret_value() if isinstance(self.key, SecretStr) else None


class ContentConfig(Section):
    """What may not stand in prompts and answers."""

    window: Annotated[int, Field(ge=16, le=4096)] = 512
    """The most characters that a word or a pattern may match. As much of a streamed answer may have to wait to be judged."""
    all: RulesConfig = RulesConfig()
    """For every tenant."""
    tenants: dict[Annotated[str, Field(pattern=TENANT_NAME)], RulesConfig] = Field(default_factory=dict)
    """By the tenant's name: what is for it besides."""
    moderator: ModeratorConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for key, rules in self._sections():
            if rules.moderated and self.moderator is None:
                raise ValueError(f"{key}.moderated: it needs content.moderator")
            for number, rule in enumerate(rules.rules):
                self._require_window(f"{key}.rules.{number}", rule)
        for name in self.tenants:
            names = [rule.name for rule in self.of(name).rules]
            if twice := next((each for each in names if names.count(each) > 1), None):
                raise ValueError(f"content.tenants.{name}.rules: two rules for it are called {twice}, maybe one of them in content.all")
        names = [rule.name for rule in self.all.rules]
        if len(set(names)) < len(names):
            raise ValueError("content.all.rules: two rules have one name")
        return self

    def _sections(self) -> Iterator[tuple[str, RulesConfig]]:
        yield "content.all", self.all
        for name, rules in self.tenants.items():
            yield f"content.tenants.{name}", rules

    def _require_window(self, key: str, rule: RuleConfig) -> None:
        for number, word in enumerate(rule.words):
            if len(fold(word)) > self.window:
                raise ValueError(f"{key}.words.{number}: it is longer than content.window, {self.window} characters")
        for number, pattern in enumerate(rule.patterns):
            from serve_app.content.patterns import check

            if (most := check(pattern)) > self.window:
                many = "any number of" if most == float("inf") else f"{most:.0f}"
                raise ValueError(
                    f"{key}.patterns.{number}: it may match {many} characters, more than content.window, {self.window}; "
                    "say how often at most, for example {1,64} instead of +"
                )

    def of(self, tenant: str) -> RulesConfig:
        """What holds for one tenant."""
        own = self.tenants.get(tenant, RulesConfig())
        moderated = self.all.moderated if own.moderated is None else own.moderated
        return RulesConfig.model_construct(rules=(*self.all.rules, *own.rules), moderated=bool(moderated))
