"""Bugs planted in primitives are killed by the checker, or equivalent to the right rule.

Here every third kind of bug in each primitive, so that each kind is in a third of the primitives;
the thorough test of the certificate has all kinds in all.
"""

from collections import Counter

import pytest

import tinygan as tg
from tinygan.testing.mutants import KINDS, hunt, planted, slots
from tinygan.testing.samplers import SAMPLERS

SCORE: Counter = Counter()


@pytest.fixture(scope="module", autouse=True)
def score(request):
    yield
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        counts = [f"{SCORE[verdict]} {verdict}" for verdict in ("killed", "survived", "equivalent")]
        print(f"\n  mutants: {', '.join(counts)}")


@pytest.mark.parametrize("name, kinds", [
    pytest.param(name, [*KINDS][i % 3::3], id=name) for i, name in enumerate(SAMPLERS)])
def test_every_mutant_is_killed(name, kinds):
    verdicts = hunt(name, kinds)
    SCORE.update(verdicts.values())
    assert [mutant for mutant, verdict in verdicts.items() if verdict == "survived"] == []
    assert len(verdicts) == len(kinds) * len(slots(tg.PRIMITIVES[name]))
    assert list(verdicts.values()).count("killed") >= 0.7 * len(verdicts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bug_is_one(kind):
    """No kind is equivalent everywhere: with the test above, the checker sees every kind."""
    assert any("killed" in hunt(name, [kind], number=6).values()
               for name in ("logsumexp", "divide", "matmul"))


def test_planting_is_undone():
    rules = tg.PRIMITIVES["exp"].rules
    with planted(tg.PRIMITIVES["exp"], 0, KINDS["sign"]):
        assert tg.PRIMITIVES["exp"].rules is not rules
    assert tg.PRIMITIVES["exp"].rules is rules


def test_a_bug_in_concatenate_is_the_one_that_its_name_says():
    """Its rules are made, one for each array: bugs go into these, not into what makes them."""
    found = hunt("concatenate", ["cotangent frozen", "result frozen"])
    assert found["cotangent frozen in argument 0"] == "killed"
    assert found["result frozen in argument 0"] == "equivalent"  # its rules do not use the result
