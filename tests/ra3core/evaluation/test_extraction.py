"""Each text with the program it must be read as: the first candidate that compiles, run here because it is known."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ra3core.evaluation.benchmarks import extraction, fences

PROMPT = 'from typing import List\n\ndef helper(x):\n    return x\n\ndef f(xs: List[int]) -> int:\n    """ Count """\n'
STOP = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(")
WHOLE = "def f(xs):\n    return len(xs)\n"


def value(sources: tuple[str, ...], argument: Any = (1, 2, 3)) -> Any:
    """What f answers, of the first source that compiles; "syntax" when none does."""
    for source in sources:
        try:
            code = compile(source, "<test>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        scope: dict[str, Any] = {"__name__": "test"}
        exec(code, scope)
        return scope["f"](argument)
    return "syntax"


@pytest.mark.parametrize(
    "text",
    [
        "    return len(xs)\n",
        "    return len(xs)",
        "    return len(xs)\r\n",
        "\n\n    # a comment at the start\n    return len(xs)\n",
        "    return count(xs)\n\ndef count(xs):\n    return len(xs)\n",
        "    return count(xs)\n\nprint('a')\n\ndef count(xs):\n    return len(xs)\n",
        "    return count(xs)\n\nprint('a')\n\nfrom builtins import len as count\n",
        "    return count(xs)\n\nprint('a')\ncount: object = len\n",
        "    return len(xs)\n\nimport sys\nsys.setrecursionlimit(5000)\n",
        "    return len(xs)\n# a comment at the margin\n\ndef g(x):\n    return x\n",
        "    pass\n\n" + WHOLE,
        "    s = '''\nprint(\n'''\n    return len(xs)\n",
        '    """ with a fence\n```python\nf(1)\n```\n    """\n    return len(xs)\n',
        "    t = '</s>'\n    return len(xs)\n",
        # runs on
        "    return len(xs)\n\nprint(f(input()))\n",
        "    return len(xs)\n\nprint(f(int(",
        "    return len(xs)\n\nif __name__ == '__main__':\n    f(",
        "    return len(xs)\n\ndef main():\n    x = [",
        "    return len(xs)\n\n@cache\ndef g(x, y",
        "    return len(xs)\n\nclass Other",
        "    return len(xs)\n\nassert f([1",
        "    return len(xs)\n\nfrom typing imp",
        "    return len(xs)\n\nvalues = [1, 2,",
        "    return count(xs)\n\ndef count(xs):\n    return len(xs)\n\ndef third(x:\n",
        '    return len(xs)\n\n"""\nThe next task, not finished',
        "    return len(xs)\n<|endoftext|>import os\nos.abort()\n",
        # chat answers
        "```python\n    return len(xs)\n```",
        "Here:\n```\nreturn len(xs)\n```\n",
        "```python\nfor x in xs:\n        pass\n    return len(xs)\n```",
        "```py\n" + WHOLE + "```",
        "~~~python\n" + WHOLE + "~~~\nDone.",
        "Sure! ```python\n" + WHOLE + "```",
        "```python\n" + WHOLE.rstrip() + "```\nIt works.",
        "Sure\n```python\n" + WHOLE,
        "1. Code:\n\n   ```python\n   def f(xs: List[int]) -> int:\n       return len(xs)\n   ```\n",
        "- ```python\n  def f(xs):\n      return len(xs)\n  ```\n",
        "```python\nfrom __future__ import annotations\n" + WHOLE + "```",
        "```python\n" + WHOLE + "```\nUse it:\n```python\nprint(f([1, 2]))\n```\nOutput:\n```\n2\n```",
        "```python\ndef f(xs):\n    return 0\n```\nThat is wrong. Better:\n```python\n" + WHOLE + "```",
        "```python\n" + WHOLE + "```\nOr:\n```python\ndef f(xs):\n    return sum(1 for",
        "```python\ndef count(xs):\n    return len(xs)\n```\nThen\n```python\ndef f(xs):\n    return count(xs)\n```",
        "```bash\npip install f\n```\n```python\n" + WHOLE + "```",
        "```python\ndef f(xs):\n    '''\n    ```\n    f([])\n    ```\n    '''\n    return helper(len(xs))\n```",
        "<think>```python\ndef f(xs):\n    return 1\n```</think>\n```python\n" + WHOLE + "```",
        "<think>return 1</think>    return len(xs)\n",
        "```\r\ndef f(xs):\r\n    return len(xs)\r\n```\r\n",
        "    return len(xs)\n```\nThis counts.\n```python\nf([])\n```",
        WHOLE + "```\n\nThis function counts:\n- all of them",
        "Here is the function:\n\nfrom typing import List\n\n" + WHOLE + "\nThis function counts.\n",
    ],
)
def test_what_is_right_is_found(text: str) -> None:
    sources = extraction.of_completion(PROMPT, text, "f", STOP)
    assert value(sources) == 3, sources
    assert len(sources) <= extraction.MAX_SOURCES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "    return len(xs\n",
        "    print xs\n    return len(xs)\n",
        "    return len(xs)\x00\n",
        "    return len(xs)\n\nfrom __future__ import annotations\n",
        "    return len(xs)\n\nf = lambda xs: None\n",
        "Here is the solution:\n\nThe function returns the length.\n",
        "```python\ndef g(xs):\n    return len(xs)\n```",
        "```python\ndef f(xs):\n    return len(xs\n```",
    ],
)
def test_what_is_wrong_is_not_made_right(text: str) -> None:
    assert value(extraction.of_completion(PROMPT, text, "f", STOP)) != 3


def test_what_the_official_harness_runs_comes_first() -> None:
    for text in ("    return len(xs)\n\ndef g(:\n", "    return 0 # ```\n", "```python\n" + WHOLE + "```"):
        assert extraction.of_completion(PROMPT, text, "f", STOP)[0].rstrip("\n") == (PROMPT + text).rstrip("\n")
        assert extraction.of_program(text, "f")[0].rstrip("\n") == text.rstrip("\n")


def test_a_helper_of_the_prompt_stays_available_to_a_whole_function() -> None:
    text = "```python\ndef f(xs: List[int]):\n    return helper(len(xs))\n```"
    assert value(extraction.of_completion(PROMPT, text, "f", STOP)) == 3
    with pytest.raises(NameError):
        value(extraction.of_program(text, "f"))


@pytest.mark.parametrize(
    "text", [WHOLE, f"Sure:\n```python\n{WHOLE}```", WHOLE + "\ndef g(x", "f = len", WHOLE + "```\nSo."]
)
def test_whole_programs(text: str) -> None:
    assert value(extraction.of_program(text, "f", STOP)) == 3


def test_no_reading_of_a_whole_program_leaves_its_function_out() -> None:
    sources = extraction.of_program(
        "import os\n\ndef g(x):\n    return x\n\ndef f(xs):\n    return len(xs\n", "f", STOP
    )
    assert all("def f" in source for source in sources)


def test_blocks_and_their_languages() -> None:
    text = "a\n````markdown\n```python\nx\n```\n````\n   ```Python title=1\n     y\n   ```\n~~~\nz"
    assert fences.blocks(text) == [
        fences.Block("markdown", "```python\nx\n```"),
        fences.Block("python", "  y"),
        fences.Block("", "z"),
    ]
    assert fences.blocks("no `code` and ```inline``` code") == []


def test_names_at_the_margin_count_as_defined() -> None:
    for code in ("def f(x): pass", "async def f(): pass", "class f: pass", "x\nf = 1", "def  f (x): pass"):
        assert extraction.defines(code, "f")
        assert extraction.defines(code, "f.method")
    for code in ("def ff(x): pass", "    def f(x): pass", "f == 1", "f(1)", "# def f(x)"):
        assert not extraction.defines(code, "f")


PIECES = (
    *(
        "`",
        "```\n",
        "```python\ndef f():\n",
        "~~~a\n",
        "``` x",
        "\n",
        " ",
        "\n@",
        "\nprint(",
        "\nfrom ",
        "\ndef f",
        "\n[",
    ),
    *(
        "x = ",
        "a:",
        ": #",
        "if :",
        "\n    ",
        "</think>",
        "\nimport a, ",
        "'''\n",
        "1. ",
        "<|endoftext|>",
        "\nf = ",
        "(\n",
    ),
)


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_texts_take_no_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    started = time.process_time()
    sources = (*extraction.of_completion(PROMPT, text, "f", STOP), *extraction.of_program(text, "f", STOP))
    assert time.process_time() - started < 3
    assert len(sources) <= 2 * extraction.MAX_SOURCES
