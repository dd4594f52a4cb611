"""The physical limit: what each stage makes of one core, against plain matrix products on the same core.

    python bench/limit.py [--repeats 2]

Every stage runs as the pipeline calls it, one thread, float32, with the demo's settings and fewer steps: an M-step on
annotated demonstrations, then, with the model that it made (one that writes rationales), an E-step, an annotation, an
RLVR step and an evaluation. Parts of them are told apart by the functions that do them.

    useful     floating-point operations that the result needs: every token once through every layer, what texts of a
               call begin with in common once, attention to earlier tokens only, logits only where they are used;
               training three times a forward pass. From the texts that the part was given and returned.
    executed   operations of the matrix products and attention that really ran, padding, repetition and masked
               attention included, from their shapes. (The convolution of three taps, elementwise operations: left out.)
    products   the part's own matrix products, shape by shape, run bare on warm buffers: the peer. The ratio is the
               share of what this core can do at these shapes. Large: 2048 x 2048 x 2048.
    decoding   bytes that drawing tokens must read, weights once a step and the keys and values of every row, against a
               read of a buffer of that size. Weights fit into the caches, so a read from memory is not the limit.

CPU seconds of this process. Where they go is told by a profile of the same work: the time of each operator without
the operators that it calls, the profiler's own cost a call (measured) taken out. The rest between operators is Python.
"""

from __future__ import annotations

import inspect
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from figures import Figure, finish, options
from setting import BASE, data, demo

# isort: split
import datasets
import torch
import transformers
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from ra3core.config import RunConfig
from ra3core.corpora.demonstrations import annotate, read_demonstrations, write_annotated
from ra3core.evaluation import evaluate as evaluation
from ra3core.evaluation import samples
from ra3core.learning import bootstrap, e_step, m_step, rlvr
from ra3core.learning.policy_gradient import Group, PolicyTrainer
from ra3core.lm.lines import Tokens
from ra3core.lm.models import load_model
from ra3core.stage import Context

DEMONSTRATIONS, FEW = 128, 64  # of the M-step, of everything else
SHAPES = 24  # of a part's products are run bare
MIB = 2**20

Product = tuple[int, int, int, bool, bool]
"""m, k, n of an (m, k) by (k, n) product, and whether each operand lies transposed in memory."""
Call = dict[str, Any]


# -- what the work needs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Needs:
    """Floating-point operations of one forward pass: a token through the layers, its logits, a query with a key."""

    token: int
    logits: int
    pair: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Needs:
        """Two a weight; four a channel of an attention layer (score and sum)."""
        head: torch.nn.Linear = model.get_output_embeddings()  # type: ignore[assignment]
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        attention = sum(kind == "full_attention" for kind in model.config.layer_types)
        return cls(
            2 * sum(m.weight.numel() for m in linear), 2 * head.weight.numel(), 4 * attention * model.config.hidden_size
        )

    def forward(self, tokens: int, after: int = 0, logits: int = 0) -> int:
        """Tokens that follow `after` others, each attending to all before it and itself; logits at some of them."""
        return self.token * tokens + self.pair * (tokens * after + tokens * (tokens + 1) // 2) + self.logits * logits


def once(needs: Needs, sequences: Iterable[Tokens]) -> int:
    """Operations of running the sequences, without logits: where they begin alike, once."""
    found, before = 0, ()
    for sequence in sorted(set(sequences)):
        pairs = enumerate(zip(before, sequence, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(before), len(sequence)))
        found += needs.forward(len(sequence) - same, same)
        before = sequence
    return found


def training(needs: Needs, call: Call, _: Any) -> int:
    """Planned batches: every example as far as its last label, logits where the loss is."""
    found = 0
    for labels in (row for batch in call["batches"] for row in batch.labels):
        counted = (labels != m_step.IGNORED).nonzero()
        found += needs.forward(int(counted[-1]) + 1, logits=len(counted))
    return 3 * found


def annotating(needs: Needs, _: Call, result: list[Any]) -> int:
    """Annotated demonstrations up to the last decision; logits at decisions and rationale tokens."""
    return sum(
        needs.forward(
            len(a.tokens.prefix(a.tokens.boundaries[-1], a.pieces)),
            logits=len(a.decisions) + sum(len(d.tokens) for d in a.drawn.values()),
        )
        for a in result
        if a.tokens.boundaries
    )


def drawing(needs: Needs, call: Call, result: Any) -> int:
    """Contexts, G rationales after each."""
    contexts = [state.context for state in call["states"]]
    drawn = [(len(c), len(d.tokens)) for c, group in zip(contexts, result[0], strict=True) for d in group]
    return once(needs, contexts) + sum(needs.forward(size, after, size) for after, size in drawn)


def scoring(needs: Needs, call: Call, _: Any) -> int:
    """Contexts, after each the window without a rationale and with each of them; logits of the window."""
    texts, logits = set(), 0
    for state, group in zip(call["states"], call["rationales"], strict=True):
        window = state.window(call["window"])
        own = {state.context + window, *(state.context + d.content + state.header + window for d in group)}
        logits += len(own) * len(window)
        texts |= own
    return once(needs, texts) + needs.logits * logits


def reconstructing(needs: Needs, call: Call, _: Any) -> int:
    """Whole annotated demonstrations, logits after the prompt."""
    sizes = [(len(a.tokens.tokens(a.pieces)), len(a.tokens.prompt)) for a in call["annotations"]]
    return sum(needs.forward(size, logits=size - prompt) for size, prompt in sizes)


def updating(needs: Needs, call: Call, _: Any) -> int:
    """Contexts, rollouts after each; groups whose rewards are all equal need nothing unless something is added."""
    groups: Sequence[Group] = call["groups"]
    rollouts = {
        (group.context, rollout.tokens, rollout.suffix)
        for group in groups
        if call.get("extra") is not None or len({rollout.reward for rollout in group.rollouts}) > 1
        for rollout in group.rollouts
    }
    logits = needs.logits * sum(len(tokens) for _, tokens, _ in rollouts)
    return 3 * (once(needs, {context + tokens + suffix for context, tokens, suffix in rollouts}) + logits)


def generating(needs: Needs, call: Call, result: list[list[list[int]]]) -> int:
    """Prompts once, their completions with the token that ends them."""
    prompts = [tuple(prompt) for prompt in call["prompts"]]
    drawn = [(len(p), len(c) + 1) for p, group in zip(prompts, result, strict=True) for c in group]
    return once(needs, prompts) + sum(needs.forward(size, after, size) for after, size in drawn)


# -- what is run, in parts ---------------------------------------------------------------------------------------------


@dataclass
class Part:
    """A part of a stage: the function `name` of `owner` does it, `useful` tells what its call needed."""

    label: str
    owner: Any
    name: str
    useful: Callable[[Needs, Call, Any], int]
    decodes: bool = False
    seconds: list[float] = field(default_factory=list)
    needed: int = 0
    executed: int = 0
    read: int = 0
    steps: int = 0
    products: Counter[Product] = field(default_factory=Counter)
    shares: dict[str, float] = field(default_factory=dict)
    operators: int = 0


Stages = dict[str, tuple[Callable[[], Any], list[Part]]]


def settings() -> RunConfig:
    """The demo's, with fewer steps, and without what is neither training nor drawing."""
    config = demo()
    train = {"epochs": 2, "held_out": 0.0, "checkpoint_steps": 10**6}
    explore = {"iterations": 2, "warmup_iterations": 0, "learning_rate": 1e-9, "checkpoint_iterations": 10**6}
    reinforce = {"steps": 1, "held_out": 0, "eval_every": 10**6, "checkpoint_steps": 10**6}
    return config.model_copy(
        update={
            "m_step": config.m_step.model_copy(update=train),
            "e_step": config.e_step.model_copy(update=explore),
            "rlvr": config.rlvr.model_copy(update=reinforce),
            "evaluation": config.evaluation.model_copy(update={"modes": ["free"]}),
        }
    )


def stages(folder: Path, config: RunConfig, policy: Path | None = None) -> Stages:
    """Each stage with its parts, in the order in which they feed each other.

    folder: data (`inputs`), and what the stages make. policy: folder of the model that every stage starts from; none
    starts the M-step from the demo's base model, and the others from what the M-step made.
    """
    model, made = {"model": policy or BASE}, {"model": policy or folder / "made" / "m_step"}
    judged = config.evaluation.settled(config.evaluation.benchmarks[0], {})

    def stage(name: str, function: Any, section: Any, inputs: dict[str, Path]) -> Callable[[], Any]:
        def run() -> Any:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                out = folder / "made" / name
                out.mkdir(parents=True, exist_ok=True)
                return function(section, Context(inputs, out, Path(scratch), seed=0, threads=1))

        return run

    few, annotated = {"demonstrations": folder / "few"}, {"demonstrations": folder / "annotated"}
    return {
        "m_step": (
            stage("m_step", m_step.m_step, config.m_step, {**model, **annotated}),
            [Part("m_step", m_step, "train", training)],
        ),
        "e_step": (
            stage("e_step", e_step.e_step, config.e_step, {**made, **few}),
            [
                Part("e_step, annotate", e_step, "annotate_batch", annotating, decodes=True),
                Part("e_step, draw", e_step._Run, "draw", drawing, decodes=True),
                Part("e_step, score", e_step, "score_rationales", scoring),
                Part("e_step, train", PolicyTrainer, "step", updating),
                Part("e_step, likelihood for the log", e_step, "reconstruction", reconstructing),
            ],
        ),
        "annotation": (
            stage(
                "bootstrap",
                bootstrap.bootstrap,
                config.bootstrap,
                {"policy": made["model"], "likelihood": policy or BASE, **few},
            ),
            [Part("annotation", bootstrap, "annotate_batch", annotating, decodes=True)],
        ),
        "rlvr": (
            every_group_trained(stage("rlvr", rlvr.rlvr, config.rlvr, {**made, "tasks": folder})),
            [
                Part("rlvr, generate", rlvr, "generate", generating, decodes=True),
                Part("rlvr, update", PolicyTrainer, "step", updating),
            ],
        ),
        "evaluation": (
            stage("evaluate", evaluation.evaluate, judged, {**made, "tasks": folder}),
            [Part("evaluation, generate", samples, "generate", generating, decodes=True)],
        ),
    }


def every_group_trained(run: Callable[[], Any]) -> Callable[[], Any]:
    """The stage with rewards of 0 and 1 in turns: what the update costs does not hang on what the model solves."""
    step = PolicyTrainer.step

    def uneven(self: PolicyTrainer, groups: Sequence[Group], *args: Any, **kwargs: Any) -> dict[str, float]:
        turns = [[replace(r, reward=float(i % 2)) for i, r in enumerate(group.rollouts)] for group in groups]
        return step(self, [replace(g, rollouts=tuple(r)) for g, r in zip(groups, turns, strict=True)], *args, **kwargs)

    def changed() -> Any:
        nonlocal step
        step = PolicyTrainer.step  # as it is watched
        with patch.object(PolicyTrainer, "step", uneven):
            return run()

    return changed


def inputs(folder: Path) -> None:
    """The suite's data in `folder`; annotated/ has demonstrations with their references, few/ a few without."""
    data(folder, DEMONSTRATIONS)
    demonstrations = read_demonstrations(folder / "demonstrations.parquet")
    for name, count in (("annotated", DEMONSTRATIONS), ("few", FEW)):
        (folder / name).mkdir()
        chosen = [annotate(d, d.reference) for d in demonstrations[:count]]
        write_annotated(chosen, folder / name / "annotated.parquet")
    (folder / "few" / "demonstrations.parquet").write_bytes((folder / "few" / "annotated.parquet").read_bytes())


@contextmanager
def watched(parts: Sequence[Part], around: Callable[[Part, Call, Callable[[], Any]], Any]) -> Iterator[None]:
    """Calls of the parts' functions go through `around(part, arguments by name, call)`."""
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(patch.object(part.owner, part.name, _through(part, around)))
        yield


def _through(part: Part, around: Callable[[Part, Call, Callable[[], Any]], Any]) -> Callable[..., Any]:
    original = getattr(part.owner, part.name)
    signature = inspect.signature(original)

    def function(*args: Any, **kwargs: Any) -> Any:
        return around(part, signature.bind(*args, **kwargs).arguments, lambda: original(*args, **kwargs))

    return function


# -- three looks at a stage: its time, its operations, its profile -----------------------------------------------------


def timed(run: Callable[[], Any], parts: Sequence[Part]) -> None:
    """One more entry in every part's `seconds`: CPU seconds of this process."""
    spent: Counter[str] = Counter()

    def around(part: Part, _: Call, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = call()
        spent[part.label] += time.process_time() - began  # type: ignore[assignment]
        return result

    with watched(parts, around):
        run()
    for part in parts:
        part.seconds.append(spent[part.label])


class Operations(TorchDispatchMode):
    """Counts into `part`, while there is one, what matrix products and attention are asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.part: Part | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, aten = func.overloadpacket, torch.ops.aten
        if self.part is None:
            return func(*args, **(kwargs or {}))
        if func._can_decompose() and packet in (aten.linear, aten.matmul, aten.scaled_dot_product_attention):
            with self:  # in inference mode these come whole
                return func.decompose(*args, **(kwargs or {}))
        if packet in (aten.mm, aten.addmm):
            left, right = args[-2:]
            (m, k), n = left.shape, right.shape[1]
            self.part.products[m, k, n, _transposed(left), _transposed(right)] += 2 * m * k * n
            self.part.executed += 2 * m * k * n
            self.part.read += right.numel() * right.element_size()
        elif packet in (aten.bmm, aten.baddbmm):
            left, right = args[-2:]
            self.part.executed += 2 * left.numel() * right.shape[2]
            self.part.read += right.numel() * right.element_size()
        elif packet is aten._scaled_dot_product_flash_attention_for_cpu:
            query, key, value = args[:3]
            self.part.executed += 4 * query.numel() * key.shape[2]
            self.part.read += (key.numel() + value.numel()) * key.element_size()
        elif packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
            query, key = args[1:3]
            self.part.executed += 8 * query.numel() * key.shape[2]
        elif packet is aten.embedding:
            self.part.steps += 1
        return func(*args, **(kwargs or {}))


def counted(run: Callable[[], Any], parts: Sequence[Part], needs: Needs) -> None:
    """Fills in what the parts needed, executed and read, and their products."""
    operations = Operations()

    def around(part: Part, given: Call, call: Callable[[], Any]) -> Any:
        operations.part = part
        try:
            with operations:
                result = call()
        finally:
            operations.part = None
        part.needed += part.useful(needs, given, result)
        return result

    with watched(parts, around):
        run()


MATRIX, ATTENTION, OPTIMISER, PYTHON = "matrix products", "attention", "optimiser", "Python between operators"
POINTWISE, MOVING, LOSS = "elementwise and normalisation", "copies and indexing", "softmax, loss, sampling"
FRAMEWORK = "views, allocation, autograd"
KINDS = {
    MATRIX: "mm addmm bmm baddbmm mkldnn_linear",
    ATTENTION: """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
        _scaled_dot_product_attention_math""",
    MOVING: """copy_ cat index index_select gather scatter scatter_ index_fill_ embedding stack embedding_dense_backward
        index_put_ _index_put_impl_ fill_ zero_ index_add index_add_ slice_backward select_backward constant_pad_nd
        arange repeat_interleave tril masked_select index_copy_""",
    LOSS: """_softmax _log_softmax logsumexp nll_loss_nd nll_loss_forward nll_loss_backward multinomial argmax sort
        nll_loss2d_forward nll_loss2d_backward _log_softmax_backward_data _softmax_backward_data cumsum topk
        exponential_ amax special_entr isin max""",
    FRAMEWORK: """view reshape _reshape_alias _unsafe_view t transpose permute unsqueeze squeeze expand expand_as
        as_strided slice select narrow chunk split empty empty_like empty_strided to _to_copy detach detach_ alias clone
        contiguous linear matmul resolve_conj resolve_neg item _local_scalar_dense result_type lift_fresh resize_ set_
        scaled_dot_product_attention conv1d convolution _convolution is_nonzero new_zeros zeros ones_like zeros_like
        new_empty unbind split_with_sizes flatten unflatten type_as pad cross_entropy_loss log_softmax softmax full ones
        scalar_tensor new_ones""",
}
KIND = {name: kind for kind, names in KINDS.items() for name in names.split()}


def profiled(run: Callable[[], Any], parts: Sequence[Part], cost: float) -> None:
    """Fills in the shares of every part's time. cost: seconds that the profiler adds to the caller of an operator."""

    def around(part: Part, _: Call, call: Callable[[], Any]) -> Any:
        with record_function(part.label):
            return call()

    with profile(activities=[ProfilerActivity.CPU]) as profiler, watched(parts, around):
        run()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [
        (event.start_ns(), -event.end_ns(), event.name())
        for event in profiler.profiler.kineto_results.events()
        if not event.is_hidden_event() and event.end_ns() > event.start_ns()
    ]
    labels = {part.label: part for part in parts}
    spent: dict[str, Counter[str]] = defaultdict(Counter)
    open_: list[tuple[int, str, str, bool]] = []  # end, part, kind of what its own time is, whether in an operator
    for begin, end, name in sorted(events):
        while open_ and open_[-1][0] <= begin:
            open_.pop()
        _, part, outer, inside = open_[-1] if open_ else (0, "", PYTHON, False)
        operator = name.startswith("aten::")
        if name in labels:
            part, kind = name, PYTHON
        elif outer == OPTIMISER or name.startswith("Optimizer.step"):
            kind = OPTIMISER
        elif operator:
            kind = KIND.get(name.removeprefix("aten::"), POINTWISE)
        else:
            kind = FRAMEWORK if "Backward" in name or name.startswith(("autograd", "torch::autograd")) else outer
        open_.append((-end, part, kind, inside or operator))
        if part:
            spent[part][kind] += (-end - begin) / 1e9  # type: ignore[assignment]
            if name not in labels:
                spent[part][outer] -= (-end - begin) / 1e9 + cost  # type: ignore[assignment]
            labels[part].operators += operator and not inside
    for label, kinds in spent.items():
        whole = sum(max(0.0, value) for value in kinds.values())
        labels[label].shares = {kind: max(0.0, value) / whole for kind, value in kinds.most_common()}


# -- what the machine can do -------------------------------------------------------------------------------------------


def rate(work: Callable[[], object], amount: float, seconds: float = 0.01) -> float:
    """`amount` of each call times calls per CPU second, after one call of warm-up."""
    work()
    calls, began = 0, time.process_time()
    while (spent := time.process_time() - began) < seconds:
        work()
        calls += 1
    return amount * calls / spent


def bare(products: Counter[Product]) -> float:
    """Operations per second of a part's matrix products: SHAPES of them drawn by their share of the operations."""
    whole, seen, seconds = products.total(), 0, 0.0
    for (m, k, n, left, right), operations in products.most_common():
        drawn = math.floor((seen + operations) / whole * SHAPES + 0.5) - math.floor(seen / whole * SHAPES + 0.5)
        seen += operations
        if drawn:
            a = torch.randn(k, m).t() if left else torch.randn(m, k)
            b = torch.randn(n, k).t() if right else torch.randn(k, n)
            out = torch.empty(m, n)
            seconds += drawn / rate(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 2 * m * k * n)
    return SHAPES / seconds


def bandwidth(size: float) -> tuple[float, float]:
    """Bytes per second of reading a buffer of `size` bytes, and of copying (read and written bytes) within so many."""
    values = torch.ones(int(size) // 4)
    half = len(values) // 2
    read = rate(values.sum, 4 * len(values), 0.05)
    return read, rate(lambda: values[:half].copy_(values[half : 2 * half]), 8 * half, 0.05)


def dispatch() -> tuple[float, float]:
    """Seconds of an operator that does next to nothing, and what the profiler adds to its caller."""
    one = torch.ones(1)

    def each(calls: int = 20_000) -> float:
        began = time.process_time()
        for _ in range(calls):
            torch.add(one, one)
        return (time.process_time() - began) / calls

    each(1_000)
    alone = each()
    with profile(activities=[ProfilerActivity.CPU]):
        observed = each()
    return alone, observed - alone


def _transposed(matrix: torch.Tensor) -> bool:
    return matrix.stride(0) == 1 and matrix.stride(1) > 1


# -- what comes out ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and print."""
    given = options(__doc__, repeats=2).parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    model = load_model(BASE / "model")
    needs, weights = Needs.of(model), sum(p.numel() * p.element_size() for p in model.parameters())
    square = torch.randn(2048, 2048)
    large = [rate(lambda: square @ square, 2 * 2048**3, 0.5) for _ in range(given.repeats)]
    call, cost = dispatch()
    found: list[Figure] = []
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        inputs(Path(folder))
        for run, parts in stages(Path(folder), settings()).values():
            counted(run, parts, needs)  # and what is slower in a first call
            for _ in range(given.repeats):
                timed(run, parts)
            profiled(run, parts, cost)
            for part in parts:
                peers = [bare(part.products) for _ in range(given.repeats)]
                found += figures(part, peers, weights)
                lines.append(bound(part, sum(peers) / len(peers), call))
    found.insert(0, Figure("limit/large product", "GFLOP/s", tuple(value / 1e9 for value in large), "higher"))
    finish(found, given.json)
    sizes = {"weights": weights, "1 MiB": MIB, "16 MiB": 16 * MIB, "512 MiB": 512 * MIB}
    print(f"\nforward pass: {needs.token / 1e6:.2f} MFLOP a token, {needs.logits / 1e6:.2f} its logits")
    for name, size in sizes.items():
        read, copied = bandwidth(size)
        print(f"{name} ({size / MIB:.1f} MiB): read {read / 1e9:.0f} GB/s, copy {copied / 1e9:.0f} GB/s")
    print(f"an operator on one number: {1e6 * call:.2f} us\n", *lines, sep="\n")


def figures(part: Part, peers: Sequence[float], weights: int) -> list[Figure]:
    """Operations per second, and for what decodes bytes per second."""
    executed = part.executed / part.needed
    found = [
        Figure(
            f"limit/{part.label}",
            "GFLOP/s, useful",
            tuple(part.needed / seconds / 1e9 for seconds in part.seconds),
            "higher",
            "its matrix products bare",
            tuple(value / 1e9 for value in peers),
            f"executed {executed:.2f} x useful",
        )
    ]
    if part.decodes:
        size = part.read / part.steps
        found.append(
            Figure(
                f"limit/{part.label}, bytes",
                "GB/s, weights, keys, values",
                tuple(part.read / seconds / 1e9 for seconds in part.seconds),
                "higher",
                f"read of {size / MIB:.0f} MiB",
                tuple(bandwidth(max(size, weights))[0] / 1e9 for _ in peers),
                f"{part.steps} passes of the model",
            )
        )
    return found


GROUPS = {
    "the arithmetic of its products": (MATRIX, ATTENTION),
    "the memory traffic of elementwise operations and copies": (POINTWISE, MOVING, LOSS, OPTIMISER),
    "the framework's work around operators": (FRAMEWORK,),
    "Python between operators": (PYTHON,),
}


def bound(part: Part, peer: float, call: float) -> str:
    """What bounds a part, by the largest group of its shares; then the shares, and what calling operators costs."""
    seconds = min(part.seconds)
    groups = {name: sum(part.shares.get(kind, 0.0) for kind in kinds) for name, kinds in GROUPS.items()}
    first, share = max(groups.items(), key=lambda item: item[1])
    shares = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in part.shares.items() if share >= 0.01)
    more = 100 * (1 - part.needed / part.executed)
    return (
        f"{part.label}: bound by {first} ({100 * share:.0f} %); {more:.0f} % of the arithmetic is padded, repeated or "
        f"masked. {shares}. At the rate of its products run bare, what is executed would take "
        f"{100 * part.executed / peer / seconds:.0f} % of its {seconds:.2f} s, what is needed "
        f"{100 * part.needed / peer / seconds:.0f} %. {part.operators} operators from Python or autograd, "
        f"{1e6 * seconds / max(part.operators, 1):.0f} us each, and {100 * call * part.operators / seconds:.0f} % if "
        "all of them worked on one number."
    )


if __name__ == "__main__":
    main()
