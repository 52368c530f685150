"""What is otherwise for single tenants."""

from serve_app.config import load_config
from tests.serve_app.asking import caller, chat
from tests.serve_app.fakes import make_world

TENANTS = {
    "careful": {"mode": "static", "min_probability": 0.99, "error_budget": 0.001},
    "exact": {"mode": "off"},
    "brief": {"ttl_s": 10.0, "soft_ttl_s": 5.0},
    "default": {"audit_share": 0.5},
}


async def test_each_tenant_has_its_own_rules() -> None:
    world = make_world(cache={"ttl_s": 100.0, "semantic": {"mode": "shadow"}, "tenants": TENANTS})
    look = {name: world.pipeline.tiers.lookup(chat(), caller(name), "a1") for name in ("careful", "exact", "brief", "other", "default")}
    assert [each.policy.mode for each in look.values()] == [
        "static",
        "off",
        "shadow",
        "shadow",
        "shadow",
    ]
    assert (look["careful"].policy.min_probability, look["careful"].policy.budget.share) == (0.99, 0.001)
    assert [each.ttl_s for each in look.values()] == [100.0, 100.0, 10.0, 100.0, 100.0]
    assert [each.soft_ttl_s for each in look.values()] == [None, None, 5.0, None, None]
    assert (look["default"].policy.audit_share, look["other"].policy.audit_share) == (0.5, 0.02)
    for each in look.values():
        world.pipeline.tiers.ask(each)
    assert [each.text is None for each in look.values()] == [False, True, False, False, False]


def test_a_tenants_quota_is_not_that_of_the_store() -> None:
    config = load_config({"cache": {"quota": {"max_bytes": 7}, "tenants": {"small": {"max_entries": 3}}}}).cache
    assert (config.of("small").quota.max_entries, config.of("small").quota.max_bytes) == (3, 7)
    assert config.of("small").max_entries == config.max_entries
    assert config.of("other") == config.model_copy()


def test_a_semantic_tier_that_is_turned_off_is_off_for_every_tenant() -> None:
    config = load_config({"cache": {"semantic": {"enabled": False}, "tenants": {"a": {"mode": "static"}}}}).cache
    assert config.of("a").semantic.policy().mode == "off"
