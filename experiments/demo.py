"""The demo: a trained vision-language model answers questions about image files.

    python -m experiments.demo

First it answers a few questions, streamed, with its thinking. Then it compares three sampler
chains, and a range of thinking budgets, on the same images, and ends with a small ablation study
from a YAML file. Everything runs offline on the embedded model and uses public names only.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmkit import batch_generate, load, stream_generate
from vlmkit.experiment.compare import compare
from vlmkit.experiment.files import load_experiment
from vlmkit.experiment.render import to_terminal
from vlmkit.experiment.reopen import run_info
from vlmkit.experiment.reporting import report_run
from vlmkit.experiment.runner import run_experiment
from vlmkit.prompt_utils import apply_chat_template

SHOWN_KINDS = ("describe", "count not", "chain", "sum")
NUM_SAMPLES = 4  # per image and chain
BUDGETS: tuple[int | None, ...] = (0, 2, 4, 8, 16, None)
CHAINS: dict[str, dict[str, float]] = {
    "greedy": {},
    "top_p 0.9, T 1.0": {"top_p": 0.9, "temperature": 1.0},
    "min_p 0.05, T 2.0": {"min_p": 0.05, "temperature": 2.0},
}
END_OF_THINKING = "</think>"
STUDY = Path(__file__).parent / "sampler_chains" / "sampler_chains.yaml"
STUDY_SIZE = ("dataset.num_samples=12", "seeds=[0,1]")


class Sample(NamedTuple):
    """A picture with a question whose answer is known."""

    image: Path
    kind: str
    question: str
    answer: str


def read_samples() -> list[Sample]:
    """The pictures that come with the embedded model."""
    folder = Path(str(files("vlmkit") / "assets" / "shapes" / "samples"))
    rows = json.loads((folder / "samples.json").read_text())
    return [
        Sample(folder / row["image"], row["kind"], row["question"], row["answer"]) for row in rows
    ]


def final_answer(text: str) -> str:
    """What follows the thinking."""
    return text.split(END_OF_THINKING)[-1].removesuffix("<|im_end|>").strip()


def format_prompts(model: Any, processor: Any, samples: Sequence[Sample]) -> list[str]:
    """One formatted prompt per sample, ready for thinking."""
    return [
        apply_chat_template(
            processor, model.config, sample.question, num_images=1, enable_thinking=True
        )
        for sample in samples
    ]


def show_answers(console: Console, model: Any, processor: Any, samples: Sequence[Sample]) -> None:
    """Stream the answer to one question per kind shown."""
    chosen = [next(s for s in samples if s.kind == kind) for kind in SHOWN_KINDS]
    prompts = format_prompts(model, processor, chosen)
    for sample, prompt in zip(chosen, prompts, strict=True):
        console.print(f"\n[bold]{sample.image.name}[/]  {sample.question}")
        text = ""
        console.print("  ", end="")
        for chunk in stream_generate(model, processor, prompt, image=sample.image):
            thinking = END_OF_THINKING not in text
            text += chunk.text
            visible = chunk.text.replace(END_OF_THINKING, "  →")
            console.print(Text(visible, style="dim italic" if thinking else "bold green"), end="")
            console.file.flush()
        right = final_answer(text) == sample.answer
        console.print("  [green]✓[/]" if right else f"  [red]✗[/] expected: {sample.answer}")


def compare_chains(console: Console, model: Any, processor: Any, samples: Sequence[Sample]) -> None:
    """Several samples per image under each sampler chain."""
    repeated = [sample for sample in samples for _ in range(NUM_SAMPLES)]
    prompts = format_prompts(model, processor, repeated)
    table = Table(title=f"Sampler chains: {len(samples)} images, {NUM_SAMPLES} samples each")
    table.add_column("chain")
    for heading in ("right", "texts per image", "tokens"):
        table.add_column(heading, justify="right")
    for name, chain in CHAINS.items():
        response = batch_generate(
            model,
            processor,
            images=[sample.image for sample in repeated],
            prompts=prompts,
            seed=0,
            **chain,
        )
        answers = [final_answer(text) for text in response.texts]
        right = sum(a == s.answer for a, s in zip(answers, repeated, strict=True))
        different = sum(
            len(set(response.texts[start : start + NUM_SAMPLES]))
            for start in range(0, len(repeated), NUM_SAMPLES)
        )
        table.add_row(
            name,
            f"{right / len(repeated):.0%}",
            f"{different / len(samples):.1f}",
            f"{response.stats.generation_tokens / len(repeated):.1f}",
        )
    console.print(table)


def compare_budgets(
    console: Console, model: Any, processor: Any, samples: Sequence[Sample]
) -> None:
    """Accuracy as the thinking budget grows."""
    prompts = format_prompts(model, processor, samples)
    table = Table(title=f"Thinking budgets: {len(samples)} images, greedy")
    for heading in ("budget", "right", "cut short", "tokens"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for budget in BUDGETS:
        response = batch_generate(
            model,
            processor,
            images=[sample.image for sample in samples],
            prompts=prompts,
            thinking_budget=budget,
        )
        answers = [final_answer(text) for text in response.texts]
        right = sum(a == s.answer for a, s in zip(answers, samples, strict=True))
        cut = sum(any(result.forced) for result in response.results)
        table.add_row(
            "none" if budget is None else str(budget),
            f"{right / len(samples):.0%}",
            f"{cut} of {len(samples)}",
            f"{response.stats.generation_tokens / len(samples):.1f}",
            "█" * round(24 * right / len(samples)),
        )
    console.print(table)


def run_study(console: Console) -> None:
    """A small ablation from a YAML file: run, compared, and reported."""
    folder = Path(tempfile.mkdtemp(prefix="vlmkit-demo-"))
    study = load_experiment(STUDY, overrides=STUDY_SIZE)
    console.print(
        f"\n[bold]{STUDY.name}[/]: {len(study.arms)} sampler chains x "
        f"{study.config.dataset.num_samples} questions x {len(study.seeds)} seeds"
    )
    run = run_experiment(study, folder)
    comparison = compare([(run_info(run.folder), run.records())])
    console.print(to_terminal(comparison, console.width))
    console.print(f"Everything about it, in one file: {report_run(run.folder)}", soft_wrap=True)


NEXT_STEPS = """
[bold]What to try next[/]
  a question of your own, about one of the sample images or any file:
    .venv/bin/vlmkit generate --image vlmkit/assets/shapes/samples/chain.png \\
        --prompt "How many objects are there?" --enable-thinking
  a run from YAML, with one value changed; then every stage of it, and where each value comes from:
    .venv/bin/vlmkit generate configs/runs/shapes_sampling.yaml seed=7
    .venv/bin/vlmkit describe configs/runs/shapes_sampling.yaml seed=7
  what each sampler stage did to each token, and a picture of it; then the same run by beam search:
    .venv/bin/vlmkit trace configs/runs/shapes_sampling.yaml --picture chain.png
    .venv/bin/vlmkit generate configs/runs/shapes_thinking.yaml search.kind=beam search.num_beams=4
  the whole study of which that was a part, and one of your own:
    .venv/bin/vlmkit run experiments/sampler_chains/sampler_chains.yaml
    .venv/bin/vlmkit plan experiments/sampler_chains/sampler_chains.yaml \\
        template.enable_thinking=true,false
  a checkpoint of any family that "vlmkit models" lists:
    .venv/bin/vlmkit generate --model FOLDER_OR_HUB_ID --image FILE --prompt TEXT
"""


def main() -> None:
    """Run the demo."""
    console = Console(highlight=False)
    began = time.perf_counter()
    model, processor = load("shapes")
    console.print(
        f"Loaded the embedded Qwen2-VL model in {time.perf_counter() - began:.2f} s. "
        "Its thinking is in [dim italic]grey[/], its answer in [bold green]green[/]."
    )
    samples = read_samples()
    show_answers(console, model, processor, samples)
    console.print()
    compare_chains(console, model, processor, samples)
    compare_budgets(console, model, processor, samples)
    run_study(console)
    console.print(f"All of this took {time.perf_counter() - began:.0f} s.")
    console.print(NEXT_STEPS, soft_wrap=True)


if __name__ == "__main__":
    main()
