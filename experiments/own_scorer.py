"""A scorer of one's own: ``kind: external`` finds it by name."""

from vlmkit.experiment.scoring import Sample, Scored, Scorer, mean


def brevity(words: int) -> Scorer:
    """1 for an answer of at most so many words, less for a longer one."""

    def score(sample: Sample, text: str) -> Scored:
        count = len(text.split())
        return Scored(value=min(1.0, words / max(count, 1)), parts={"words": float(count)})

    return Scorer("brevity", (), score, lambda scored: mean(scored, "brevity"))
