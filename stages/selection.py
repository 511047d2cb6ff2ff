"""Which images stand for a data set in pictures: chosen by tags alone, the same on every machine."""

from data import Dataset, Sample

ROWS = 8


def overview_samples(dataset: Dataset, rows: int = ROWS) -> tuple[Sample, ...]:
    """Up to ``rows`` tagged samples: the classes in turn, each with its next image not shown yet."""
    chosen: dict[str, Sample] = {}
    queues: list[list[Sample]] = [[] for _ in dataset.classes]
    for sample in dataset.samples:
        for tag in sample.tags:
            if len(queues[tag]) < rows:  # one of them is not shown yet as long as there is a row to fill
                queues[tag].append(sample)
    while len(chosen) < rows and any(queues):
        for queue in queues:
            while queue and queue[0].id in chosen:
                queue.pop(0)
            if queue and len(chosen) < rows:
                sample = queue.pop(0)
                chosen[sample.id] = sample
    return tuple(chosen.values())
