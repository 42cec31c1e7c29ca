"""Settings as typed, and the values per task."""

from dataclasses import fields, replace

import pytest

from safetypilot.envs import registry
from safetypilot.policies.learn import catalogue, config, presets
from safetypilot.policies.learn.config import Config, with_settings
from safetypilot.policies.learn.errors import LearnError

NAMES = (*catalogue.ALGORITHMS, *catalogue.ALIASES)


def test_settings_take_the_type_of_the_default():
    changed = with_settings(
        catalogue.settings("recovery-rl", "maze"),
        {"gamma": "0.95", "batch": "64", "relabel": "false", "positive-fraction": "0.2"},
    )
    assert (changed.gamma, changed.batch, changed.relabel) == (0.95, 64, False)
    assert changed.positive_fraction == 0.2
    assert with_settings(Config(), {"recovery": "none"}).recovery == "none"
    assert with_settings(Config(), {"steps": "1e5"}).steps == 100_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gama": "0.9"}, "unknown setting 'gama'; did you mean 'gamma'"),
        ({"qqqqq": "1"}, "known: alpha"),
        ({"batch": "many"}, "batch is 'many'; it must be a whole number"),
        ({"batch": "1.5"}, "whole number"),
        ({"batch": "inf"}, "whole number"),
        ({"gamma": "x"}, "must be a number"),
        ({"gamma": "nan"}, "gamma is nan"),
        ({"relabel": "maybe"}, "say true or false"),
        ({"recovery": "magic"}, "choose one of model-based, model-free"),
        ({"eps": "1.5"}, r"must lie in \[0.0, 1.0\]"),
        ({"batch": "0"}, "batch is 0"),
        ({"alpha": "0"}, "alpha is 0"),
        ({"batch": "64", "capacity": "32"}, "batch is 64, more than capacity, 32"),
        ({"planner_elites": "65"}, "planner_elites is 65, more than planner_population"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(LearnError, match=message):
        with_settings(Config(), settings)


@pytest.mark.parametrize("name", catalogue.ALGORITHMS)
def test_every_number_among_the_settings_has_bounds(name):
    """Or else nan, or a start at zero, trains for hours and says nothing."""
    chosen = catalogue.settings(name, "maze")
    for field in fields(chosen):
        value = getattr(chosen, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            with pytest.raises(LearnError, match=f"{field.name} is nan"):
                replace(chosen, **{field.name: float("nan")})


def test_settings_of_an_algorithm_are_not_those_of_another():
    with pytest.raises(LearnError, match="unknown setting 'nu_end'"):
        with_settings(catalogue.settings("lr", "maze"), {"nu_end": "1"})
    assert with_settings(catalogue.settings("rspo", "maze"), {"nu_end": "1"}).nu_end == 1.0


@pytest.mark.parametrize("name", ["sqrl", "csc"])
def test_a_filter_needs_something_to_choose_from(name):
    with pytest.raises(LearnError, match="samples is 0; it must be at least 1"):
        with_settings(catalogue.settings(name, "maze"), {"samples": "0"})
    assert catalogue.settings("recovery-rl", "maze", "published").samples == 0


# --- presets ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", presets.NAMES)
def test_every_preset_of_every_algorithm_on_every_task_builds(name, preset):
    for env in (*registry.IDS, *registry.IDS.values(), "Pendulum-v1"):
        chosen = catalogue.settings(name, env, preset)
        assert isinstance(chosen, catalogue.entry(name).kind.Settings)
        assert type(chosen)(**chosen.to_dict()) == chosen  # as a checkpoint has it


def test_a_task_has_the_same_settings_by_its_short_name_and_by_its_id():
    for short, full in registry.IDS.items():
        assert presets.short_name(full) == short
        for name in catalogue.ALGORITHMS:
            assert catalogue.settings(name, short) == catalogue.settings(name, full)


def test_presets_name_settings_and_tasks_that_exist():
    """A misspelt one would be dropped in silence."""
    tables = (presets._TASKS, presets._PUBLISHED_TASKS, presets._MULTIPLIERS)
    for task in {task for table in tables for task in table}:
        assert task in registry.IDS
    named = {key for table in tables[:2] for values in table.values() for key in values}
    named |= set(presets._PUBLISHED) | set(presets._PUBLISHED_NAVIGATION)
    assert named <= {field.name for field in fields(Config)}


def test_ranges_and_choices_are_of_settings_that_exist():
    known = {
        field.name
        for entry in catalogue.ALGORITHMS.values()
        for field in fields(entry.kind.Settings)
    }
    assert set(config._RANGES) | set(config._CHOICES) <= known


def test_the_published_preset_is_the_papers():
    table = {"maze": (0.5, 0.15, 15), "navigation1": (0.8, 0.3, 5), "navigation2": (0.65, 0.2, 5)}
    for env, (gamma_safe, eps, horizon) in table.items():
        chosen = catalogue.settings("recovery-rl", env, "published")
        assert (chosen.gamma_safe, chosen.eps, chosen.horizon) == (gamma_safe, eps, horizon)
        assert catalogue.settings("recovery-rl", env).gamma_safe == gamma_safe


def test_published_multipliers_are_the_papers():
    """Table II: LR's nu, RP's penalty, RCPO's lambda; RSPO starts at twice LR's."""
    for env, (nu, penalty, weight) in {
        "navigation1": (5000, 1000, 1000), "navigation2": (1000, 3000, 5000), "maze": (100, 50, 50)
    }.items():  # fmt: skip
        wanted = {"lr": nu, "sqrl": nu, "rspo": 2 * nu}
        for name, value in wanted.items():
            assert catalogue.settings(name, env, "published").nu == value
        assert catalogue.settings("rp", env, "published").penalty == penalty
        assert catalogue.settings("rcpo", env, "published").penalty == weight
    assert catalogue.settings("recovery-rl", "maze", "published").nu == 0
    assert catalogue.settings("lr", "maze", "published").nu_learning_rate == 0
    assert catalogue.settings("lr", "maze").nu_learning_rate > 0


@pytest.mark.parametrize("env", registry.IDS)
def test_rspo_starts_at_twice_the_multiplier_of_lr(env):
    assert catalogue.settings("rspo", env).nu == 2 * catalogue.settings("lr", env).nu


def test_names_stand_for_who_recovers():
    wanted = {
        "sac": "none", "unconstrained": "none", "recovery-rl": "model-based",
        "recovery-rl-model-based": "model-based", "recovery-rl-model-free": "model-free",
        "recovery-rl-q-sampling": "q-sampling", "recovery-rl-visual": "visual", "lr": "none",
        "safety-editor": "editor",
    }  # fmt: skip
    for name, recovery in wanted.items():
        assert catalogue.settings(name, "maze").recovery == recovery


@pytest.mark.parametrize("near", [("sqlr", "sqrl"), ("recovry-rl", "recovery-rl"), ("rcp", "rcpo")])
def test_an_unknown_algorithm_gets_the_nearest(near):
    with pytest.raises(LearnError, match=f"did you mean '{near[1]}'"):
        catalogue.entry(near[0])


def test_an_unknown_preset_names_those_that_are():
    with pytest.raises(LearnError, match="unknown preset 'fast'; known: default, published"):
        catalogue.settings("lr", "maze", "fast")
