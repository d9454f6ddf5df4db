"""Templates of others: no code, no endless work."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.errors import ConfigError
from repro_rl.text.parse import TextFormat
from repro_rl.text.prompts import PromptBuilder, StepInputs

INPUTS = StepInputs("rules", "goal", "seen", ["a", "b"], 1, 5, [("o1", "a1"), ("o2", "a2")])


def rendered(folder: Path, template: str) -> str:
    (folder / "forward.jinja").write_text(template)
    return PromptBuilder(TextFormat("full", True, "off", "before"), template_dir=folder).act(INPUTS)


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self._TemplateReference__context }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(goal) }}",
        "{{ ('%s' | attr('format'))('x').__class__ }}",
        "{{ goal | attr('__class__') | attr('mro') }}",
        "{% set _ = history.append(1) %}{{ history }}",
        "{{ admissible.clear() }}",
    ],
)
def test_no_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"forward\.jinja cannot be rendered"):
        rendered(tmp_path, template)
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
        "{{ range(10 ** 9) | list }}",
        "{% set n = 9 ** 9 %}{{ n ** n }}",
        "{% set n = 10 ** 9 %}{{ goal * n }}",
        "{% set n = 10 ** 9 %}{{ [0] * n }}",
        "{% set s = namespace(x=goal) %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
        "{% set s = namespace(x=goal) %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}",
        "{{ goal | center(1000000000) }}",
        "{{ goal.center(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '%1000000000d' % step }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ lipsum(n=1000000) }}",
    ],
)
def test_no_endless_work(tmp_path: Path, template: str) -> None:
    with pytest.raises(ConfigError, match=r"forward\.jinja"):
        rendered(tmp_path, template)


def test_what_prompts_need_works(tmp_path: Path) -> None:
    (tmp_path / "part.jinja").write_text("{% for a in admissible %}{{ loop.index }}{{ a }}{% endfor %}")
    text = (
        "{% for o, a in history %}{{ loop.index }}/{{ loop.length }}:{{ o ~ a }}{{ ' ' if not loop.last }}"
        "{% else %}none{% endfor %} {% include 'part.jinja' %} {{ '%02d' % step }} {{ goal | upper }} "
        "{{ '{}-{}'.format(step, max_steps) }} {{ (step + 1) * 2 }}"
        "{% for x in [] %}{% else %} empty{% endfor %}"
    )
    assert rendered(tmp_path, text) == "1/2:o1a1 2/2:o2a2 1a2b 01 GOAL 1-5 4 empty"
